"""A CA whose revocations are those of `openssl ca`, told by `openssl ocsp` and by a list that `openssl ca` makes."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from enroll.certificates import pem
from enroll.csr import DIGITAL_SIGNATURE, DOCUMENT_SIGNING
from enroll.identity import Generation, IdentityName
from enroll.keystore.base import PublicKey
from enroll.trust import VerifiedCertificate
from tests.support.agent_process import ROOT, Scanner
from tests.support.openssl import openssl
from tests.support.pki import CA_KEY_USAGE, name

PORT = 8888  # in a network namespace of its own every port is free
TIMEOUT = 30  # seconds
_CONFIGURATION = """
[ca]
default_ca = site
[site]
database = {folder}/index.txt
crlnumber = {folder}/crlnumber
certificate = {folder}/ca.pem
private_key = {folder}/ca.key
default_md = sha256
default_crl_days = 1
crl_extensions = lists
[lists]
authorityKeyIdentifier = keyid
"""


class RevokingCa:
    """The CA, its database, and the responder's key, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        now = datetime.now(UTC)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = name(COMMON_NAME="Revoking CA")
        builder = _builder(self.name, self.name, self.key.public_key(), now)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False
        )
        self.certificate = builder.add_extension(CA_KEY_USAGE, critical=True).sign(self.key, hashes.SHA256())
        responder_key = ec.generate_private_key(ec.SECP256R1())
        responder = _builder(self.name, name(COMMON_NAME="Responder"), responder_key.public_key(), now)
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
        self.responder = responder.add_extension(usage, critical=False).sign(self.key, hashes.SHA256())
        for stem, certificate, key in (
            ("ca", self.certificate, self.key),
            ("responder", self.responder, responder_key),
        ):
            (folder / f"{stem}.pem").write_bytes(pem([certificate]))
            private = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            (folder / f"{stem}.key").write_bytes(private)
        (folder / "index.txt").write_text("")
        (folder / "index.txt.attr").write_text("unique_subject = no\n")
        (folder / "crlnumber").write_text("01\n")
        (folder / "ca.cnf").write_text(_CONFIGURATION.format(folder=folder))

    def issue(
        self, key: PublicKey, *, responder: str = "", list_at: str = "", more: Sequence[x509.ExtensionType] = ()
    ) -> x509.Certificate:
        """A certificate for signing images that says where its revocation would be told."""
        now = datetime.now(UTC)
        builder = _builder(self.name, name(COMMON_NAME="Scanner", SERIAL_NUMBER="SN0001"), key, now)
        builder = builder.add_extension(DIGITAL_SIGNATURE, critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([DOCUMENT_SIGNING]), critical=False)
        if responder:
            place = x509.UniformResourceIdentifier(responder)
            access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, place)
            builder = builder.add_extension(x509.AuthorityInformationAccess([access]), critical=False)
        if list_at:
            point = x509.DistributionPoint([x509.UniformResourceIdentifier(list_at)], None, None, None)
            builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
        for extension in more:
            builder = builder.add_extension(extension, critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        end = f"{certificate.not_valid_after_utc:%y%m%d%H%M%SZ}"
        number = f"{certificate.serial_number:X}"
        number = number if len(number) % 2 == 0 else f"0{number}"
        with (self.folder / "index.txt").open("a") as index:
            index.write(f"V\t{end}\t\t{number}\tunknown\t/CN=Scanner/serialNumber=SN0001\n")
        return certificate

    def enroll(self, scanner: Scanner, *, responder: str = "", list_at: str = "") -> Generation:
        """The next generation of the scanner's signing identity."""
        kept = scanner.enroll()  # makes the key
        certificate = self.issue(scanner.keys.load(kept.key_uri).public_key(), responder=responder, list_at=list_at)
        return scanner.identities.commit(
            IdentityName.SIGNING,
            VerifiedCertificate(certificate, (), self.certificate),
            kept.key_uri,
            protection=kept.protection,
            flow="est",
            now=datetime.now(UTC),
        )

    def revoke(self, certificate: x509.Certificate, reason: str) -> None:
        """As `openssl ca` does."""
        file = self.folder / "revoked.pem"
        file.write_bytes(pem([certificate]))
        self._ca("-revoke", file, "-crl_reason", reason)

    def list(self, digest: str = "sha256") -> bytes:
        """The revocation list of now, in DER."""
        self._ca("-gencrl", "-md", digest, "-out", self.folder / "list.pem")
        openssl("crl", "-in", self.folder / "list.pem", "-outform", "DER", "-out", self.folder / "list.der")
        return (self.folder / "list.der").read_bytes()

    @contextmanager
    def answering(self) -> Iterator[int]:
        """A responder in a network namespace of its own, at PORT; the number of a process in it."""
        folder = self.folder
        serve = (
            f"ip link set lo up && exec openssl ocsp -port {PORT} -index {folder}/index.txt -CA {folder}/ca.pem "
            f"-rsigner {folder}/responder.pem -rkey {folder}/responder.key -ndays 1"
        )
        command = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", serve]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            try:
                assert process.stdout is not None
                assert any(b"ACCEPT" in line or b"waiting" in line for line in process.stdout)
                threading.Thread(target=process.stdout.read, daemon=True).start()
                yield process.pid
            finally:
                process.kill()

    def _ca(self, *arguments: str | Path) -> None:
        openssl("ca", "-config", self.folder / "ca.cnf", "-batch", *arguments)


def renew(configuration: Path, namespace: int | None = None, *options: str) -> subprocess.CompletedProcess[str]:
    """`scanseal renew --json`, where it is said in the network namespace of a process."""
    inside = ["nsenter", f"--target={namespace}", "--user", "--net", "--preserve-credentials"] if namespace else []
    command = [*inside, sys.executable, "-m", "agent.cli.main", "renew", "--json", "--config", str(configuration)]
    return subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT)


@dataclass
class Answering:
    """A web server on loopback that gives `body` to everybody, and knows what it was asked."""

    body: bytes = b""
    status: int = 200
    asked: list[bytes] = field(default_factory=list)
    url: str = ""


@contextmanager
def web_server() -> Iterator[Answering]:
    """A server on a free port."""
    answering = Answering()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answering.asked.append(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
            self.send_response(answering.status)
            self.send_header("Content-Length", str(len(answering.body)))
            self.end_headers()
            self.wfile.write(answering.body)

        do_POST = do_GET  # noqa: N815 - as the base class wants it

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        answering.url = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield answering
        finally:
            server.shutdown()
            thread.join()


def _builder(issuer: x509.Name, subject: x509.Name, key: PublicKey, now: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(issuer, subject, key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=300))
    )
