"""An EST client that shares nothing with the product's: `http.client`, and what a test makes of it."""

from __future__ import annotations

import base64
import http.client
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID

from enroll.certificates import pem
from enroll.csr import CertificateRequest, Usage
from enroll.evaluation.ca import USERNAME, EvaluationCa
from enroll.evaluation.est_server import EstOptions, EstServer
from tests.support.pki import DEVICE, new_key

EST = "/.well-known/est"
REQUEST = CertificateRequest.for_device(DEVICE, Usage.DEVICE)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def certificates(self) -> list[x509.Certificate]:
        return pkcs7.load_der_pkcs7_certificates(base64.b64decode(self.body))


class Client:
    """One connection."""

    def __init__(self, server: EstServer, client: Path | None = None, version: ssl.TLSVersion | None = None) -> None:
        context = ssl.create_default_context(cafile=server.ca.anchor_file)
        if version:
            context.minimum_version = context.maximum_version = version
        if client:
            context.load_cert_chain(client)
        self.server = server
        host = server.url.removeprefix("https://")
        self.connection = http.client.HTTPSConnection(host, context=context, timeout=10)
        self.connection.connect()

    @property
    def unique(self) -> str:
        assert isinstance(self.connection.sock, ssl.SSLSocket)
        return base64.b64encode(self.connection.sock.get_channel_binding("tls-unique") or b"").decode("ascii")

    def get(self, operation: str) -> Answer:
        return self.send("GET", operation, None, {})

    def enroll(
        self, request: x509.CertificateSigningRequest, operation: str = "simpleenroll", authorization: str = ""
    ) -> Answer:
        body = base64.encodebytes(request.public_bytes(serialization.Encoding.DER))
        headers = {"Content-Type": "application/pkcs10"}
        return self.send("POST", operation, body, headers | ({"Authorization": authorization} if authorization else {}))

    def send(self, method: str, operation: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        self.connection.request(method, f"{EST}/{operation}", body, headers)
        response = self.connection.getresponse()
        return Answer(response.status, response.headers, response.read())


@contextmanager
def connected(
    ca: EvaluationCa, client: Path | None = None, version: ssl.TLSVersion | None = None, **options: Any
) -> Iterator[Client]:
    with EstServer(ca, options=EstOptions(**options)) as server:
        connection = Client(server, client, version)
        try:
            yield connection
        finally:
            connection.connection.close()


def basic(ca: EvaluationCa) -> str:
    return f"Basic {base64.b64encode(USERNAME.encode() + b':' + ca.password).decode('ascii')}"


def linked(challenge_password: str) -> x509.CertificateSigningRequest:
    """A request with a challenge password (RFC 7030 3.5)."""
    builder = x509.CertificateSigningRequestBuilder(REQUEST.subject)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, challenge_password.encode("ascii"))
    return builder.sign(new_key(), hashes.SHA256())


def client_file(folder: Path, issue: Callable[..., x509.Certificate]) -> Path:
    """A certificate with its key."""
    key, path = new_key(), folder / "client.pem"
    pkcs8 = serialization.PrivateFormat.PKCS8
    key_bytes = key.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption())
    path.write_bytes(pem([issue(key)]) + key_bytes)
    return path
