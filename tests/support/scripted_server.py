"""An HTTPS server that answers whatever a test wants, byte for byte."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID

from enroll.certificates import decode_base64, pem
from tests.support.pki import HospitalCa, name, new_key

CERTS_ONLY = "application/pkcs7-mime; smime-type=certs-only"
LOOPBACK = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))


@dataclass(frozen=True)
class Request:
    """What came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    client: x509.Certificate | None
    tls_version: str | None
    tls_unique: bytes | None

    @property
    def csr(self) -> x509.CertificateSigningRequest:
        return x509.load_der_x509_csr(decode_base64(self.body))


Script: TypeAlias = Callable[[Request], bytes | Iterator[bytes]]


def answer(body: bytes = b"", status: str = "200 OK", content_type: str = CERTS_ONLY, *headers: str) -> bytes:
    """An HTTP response."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def certs_only(*certificates: x509.Certificate) -> bytes:
    """A certs-only message in DER."""
    return pkcs7.serialize_certificates(list(certificates), serialization.Encoding.DER)


def bag(*certificates: x509.Certificate) -> bytes:
    """The usual answer of an EST server."""
    return answer(base64.encodebytes(certs_only(*certificates)))


@dataclass
class ScriptedServer:
    """Answers each request by what the script gives: the bytes, or pieces of them with pauses between.

    Args:
        ca: Signs its TLS certificate and is trusted for client certificates.
        folder: For the files that TLS wants.
        script: Decides.
        names: In its TLS certificate.
        certified: When that was issued; it is valid for a day.
    """

    ca: HospitalCa
    folder: Path
    script: Script
    names: tuple[x509.GeneralName, ...] = LOOPBACK
    certified: datetime = field(default_factory=lambda: datetime.now(UTC))
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._context = self._tls()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=10)

    def _tls(self) -> ssl.SSLContext:
        key = new_key()
        certificate = self.ca.issue(
            key.public_key(),
            subject=name(COMMON_NAME="EST server"),
            alternative_names=self.names,
            extended_usage=[ExtendedKeyUsageOID.SERVER_AUTH],
            begin=self.certified - timedelta(minutes=5),
            end=self.certified + timedelta(days=1),
        )
        key_bytes = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        chain = self.folder / f"server-{id(self)}.pem"
        chain.write_bytes(pem([certificate]) + key_bytes)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        context.load_verify_locations(cadata=pem([self.ca.certificate]).decode("ascii"))
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        with contextlib.suppress(OSError), self._context.wrap_socket(connection, server_side=True) as secured:
            while (request := _read(secured)) and not self._stopped.is_set():
                self.requests.append(request)
                said = self.script(request)
                for piece in [said] if isinstance(said, bytes) else said:
                    if not piece or self._stopped.is_set():  # an empty piece cuts the connection
                        return
                    secured.sendall(piece)


def _read(connection: ssl.SSLSocket) -> Request | None:
    reader = connection.makefile("rb")
    head = reader.readline().decode("ascii").split()
    if not head:
        return None
    headers = {}
    while line := reader.readline().decode("ascii").strip():
        key, _, value = line.partition(":")
        headers[key.lower()] = value.strip()
    client = connection.getpeercert(binary_form=True)
    return Request(
        method=head[0],
        path=head[1],
        headers=headers,
        body=reader.read(int(headers.get("content-length", "0"))),
        client=x509.load_der_x509_certificate(client) if client else None,
        tls_version=connection.version(),
        tls_unique=connection.get_channel_binding("tls-unique"),
    )
