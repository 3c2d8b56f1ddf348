"""A time stamp authority whose tokens are made by `openssl ts`, and an HTTP server that answers with them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from enroll.certificates import pem
from enroll.keystore.base import PrivateKey
from enroll.time_stamp_authority import REPLY_TYPE, read_response
from tests.support.openssl import openssl
from tests.support.pki import DEVICE, HospitalCa, name

POLICY = "1.3.6.1.4.1.32473.7.1"
Reply = Callable[[bytes], tuple[int, str, bytes]]

_CONFIGURATION = """
[tsa]
default_tsa = test
[test]
serial = {folder}/serial
default_policy = {policy}
digests = sha1, sha256, sha384, sha512
signer_digest = {signer_digest}
accuracy = secs:2, millisecs:500
clock_precision_digits = {fraction_digits}
ess_cert_id_alg = {certificate_id_hash}
ess_cert_id_chain = {whole_chain}
"""


@dataclass(frozen=True)
class Tsa:
    """A time stamp authority: its certificate, its key, and who issued the certificate.

    Args:
        key: Signs the tokens.
        certificate: Its own.
        chain: CA certificates below the anchor.
        anchor: Whom to trust.
    """

    key: PrivateKey
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    anchor: x509.Certificate

    def signed_by(self, key: PrivateKey) -> Tsa:
        """The same with another key, which is not that of the certificate."""
        return replace(self, key=key)


@dataclass(frozen=True)
class TsaContent:
    """What stands in the certificate of an authority; the defaults are right."""

    begin: datetime = datetime(2020, 1, 1, tzinfo=UTC)
    end: datetime = datetime(2049, 1, 1, tzinfo=UTC)
    purposes: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.TIME_STAMPING,)
    critical: bool = True
    key_usage: x509.KeyUsage | None = None
    key_identifier: bool = True


def new_tsa(
    ca: HospitalCa,
    key: PrivateKey | None = None,
    content: TsaContent | None = None,
    chain: tuple[x509.Certificate, ...] = (),
    anchor: x509.Certificate | None = None,
) -> Tsa:
    """An authority whose certificate `ca` issued."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    content = content or TsaContent()
    builder = (
        x509.CertificateBuilder(ca.name, name(COMMON_NAME="Test TSA", SERIAL_NUMBER=DEVICE.serial_number))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(content.begin)
        .not_valid_after(content.end)
    )
    if content.purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(content.purposes), critical=content.critical)
    if content.key_usage is not None:
        builder = builder.add_extension(content.key_usage, critical=True)
    if content.key_identifier:
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(identifier, critical=False)
    certificate = builder.sign(ca.key, hashes.SHA256())
    return Tsa(key, certificate, chain, anchor or ca.certificate)


@dataclass(frozen=True)
class OpensslTsa:
    """Answers queries by `openssl ts -reply`.

    Args:
        tsa: The authority.
        folder: For the files that openssl wants; belongs to this object.
        signer_digest: Hash of the signature of the token.
        certificate_id_hash: "sha1" makes an ESSCertID, the others an ESSCertIDv2.
        fraction_digits: How finely the time is given.
    """

    tsa: Tsa
    folder: Path
    signer_digest: str = "sha256"
    certificate_id_hash: str = "sha256"
    fraction_digits: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        text = _CONFIGURATION.format(
            folder=self.folder,
            policy=POLICY,
            signer_digest=self.signer_digest,
            fraction_digits=self.fraction_digits,
            certificate_id_hash=self.certificate_id_hash,
            whole_chain="yes" if self.tsa.chain else "no",
        )
        (self.folder / "openssl.cnf").write_text(text, encoding="ascii")
        (self.folder / "serial").write_text("01\n", encoding="ascii")
        (self.folder / "tsa.pem").write_bytes(pem([self.tsa.certificate]))
        (self.folder / "chain.pem").write_bytes(pem(self.tsa.chain))
        self.anchor_file.write_bytes(pem([self.tsa.anchor]))
        (self.folder / "tsa.key").write_bytes(
            self.tsa.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    @property
    def anchor_file(self) -> Path:
        """PEM file of whom to trust."""
        return self.folder / "anchor.pem"

    def response_file(self, query: Path) -> Path:
        """Answer a query in a file; the response lies beside it, with the suffix tsr."""
        response = query.with_suffix(".tsr")
        chain = ("-chain", self.folder / "chain.pem") if self.tsa.chain else ()
        openssl(
            *("ts", "-reply", "-config", self.folder / "openssl.cnf", "-queryfile", query, "-out", response),
            *("-signer", self.folder / "tsa.pem", "-inkey", self.folder / "tsa.key", *chain),
        )
        return response

    def response(self, query: bytes) -> bytes:
        """The response to a query."""
        path = self.folder / "last.tsq"
        path.write_bytes(query)
        return self.response_file(path).read_bytes()

    def token(self, query: bytes) -> bytes:
        """The token that answers a query."""
        return read_response(self.response(query))

    def http(self, query: bytes) -> tuple[int, str, bytes]:
        """The answer of a proper HTTP server (RFC 3161 3.4)."""
        return 200, REPLY_TYPE, self.response(query)


@contextmanager
def time_stamp_server(reply: Reply) -> Iterator[str]:
    """An HTTP server that answers each query as it is told; yields its URL.

    One query is answered at a time: `openssl ts` counts its tokens in a file.
    """
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            query = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                status, content_type, body = reply(query)
            with suppress(ConnectionError):  # the client may have had enough
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/tsa"
        finally:
            server.shutdown()
            thread.join()
