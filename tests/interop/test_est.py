"""EST between this program and others: openssl reads what was issued, curl and openssl enroll at the evaluation CA."""

from __future__ import annotations

import base64
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from enroll.certificates import pem
from enroll.clock import SystemClock
from enroll.csr import build
from enroll.errors import CertificateRefused, PinRefused, ServerUnreachable
from enroll.evaluation.ca import USERNAME, EvaluationCa
from enroll.evaluation.est_server import EstServer
from enroll.flows.settings import EstSettings, FlowName
from enroll.identity import IdentityName
from enroll.keystore.base import Protection
from enroll.tls import ClientIdentity, client_context
from enroll.trust import check_issued
from tests.support.enroll_process import ROOT, TRY_LATER, run, write_run
from tests.support.enrolling import CaFlow, Keyholder, Scanner, settings, with_memory_key
from tests.support.openssl import curl, needs_curl, needs_openssl, openssl
from tests.support.pki import REQUEST, HospitalCa, new_key
from tests.support.scripted_server import Request, ScriptedServer, answer, bag

pytestmark = needs_openssl

Arguments: TypeAlias = list[str | Path]

TLS_VERSIONS = pytest.mark.parametrize("version", ["1.2", "1.3"])
REQUEST_CONFIGURATION = """
[req]
distinguished_name = name
req_extensions = wanted
prompt = no
[name]
CN = Example CT CT-000123
serialNumber = CT-000123
[wanted]
keyUsage = critical, digitalSignature
extendedKeyUsage = {usage}
subjectAltName = otherName:1.3.6.1.5.5.7.8.4;SEQ:module
[module]
type = OID:1.3.6.1.4.1.32473.1.2
number = OCT:CT-000123
"""


@pytest.fixture
def ca(tmp_path: Path) -> EvaluationCa:
    return EvaluationCa.create_or_open(tmp_path / "ca", SystemClock())


@pytest.fixture
def server(ca: EvaluationCa) -> Iterator[EstServer]:
    with EstServer(ca) as running:
        yield running


@pytest.fixture
def scanner(ca: EvaluationCa, server: EstServer, tmp_path: Path) -> Scanner:
    est = EstSettings(
        url=server.url, anchor_file=ca.anchor_file, username=USERNAME, password_file=ca.password_file, timeout=10
    )
    return Scanner(settings(tmp_path, est), (ca.certificate,), SystemClock())


def chain_file(scanner: Scanner, ca: EvaluationCa, identity: IdentityName) -> Path:
    return scanner.identities.chain_file(scanner.enroll(identity))


def openssl_request(folder: Path, usage: str) -> Path:
    """A key and a request, both made by openssl."""
    configuration, request = folder / "request.cnf", folder / "request.der"
    configuration.write_text(REQUEST_CONFIGURATION.format(usage=usage))
    new: Arguments = [
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        folder / "key.pem",
    ]
    openssl("req", *new, "-config", configuration, "-outform", "DER", "-out", request)
    return request


def post(server: EstServer, ca: EvaluationCa, operation: str, request: Path, *options: str | Path) -> tuple[int, bytes]:
    return curl(
        *("--cacert", ca.anchor_file, "--header", "Content-Type: application/pkcs10", "--data-binary", "@-", *options),
        f"{server.url}/.well-known/est/{operation}",
        stdin=base64.encodebytes(request.read_bytes()),
    )


def issued_by(answer: bytes, folder: Path) -> Path:
    message, certificate = folder / "answer.p7", folder / "issued.pem"
    message.write_bytes(base64.b64decode(answer))
    text = openssl("pkcs7", "-inform", "DER", "-in", message, "-print_certs")
    certificate.write_text(text[text.index("-----BEGIN") :])
    return certificate


# --- what our client gets, as openssl sees it


def test_openssl_agrees_with_the_signing_certificate(scanner: Scanner, ca: EvaluationCa) -> None:
    """The profile: RFC 9336 document signing, RFC 4108 hardwareModuleName, RFC 5280 for the rest."""
    chain_file(scanner, ca, IdentityName.DEVICE)
    certificate = chain_file(scanner, ca, IdentityName.SIGNING)

    assert "OK" in openssl("verify", "-x509_strict", "-CAfile", ca.anchor_file, certificate)
    text = openssl("x509", "-in", certificate, "-noout", "-text")
    assert re.search(r"Key Usage: critical\s+Digital Signature\n", text)
    assert re.search(r"Extended Key Usage: *\n\s+1\.3\.6\.1\.5\.5\.7\.3\.36\n", text)
    assert re.search(r"Basic Constraints: critical\s+CA:FALSE", text)
    assert "serialNumber = CT-000123" in text
    assert "othername: 1.3.6.1.5.5.7.8.4" in text
    assert "Subject Key Identifier" in text
    assert "Authority Key Identifier" in text


def test_a_key_in_memory_is_certified_for_years_and_used_for_days(ca: EvaluationCa, scanner: Scanner) -> None:
    """RFC 3280 4.2.1.4; the request was signed by somebody else and is sent with the device's certificate."""
    scanner = Scanner(with_memory_key(scanner.settings), scanner.anchors, scanner.clock)
    scanner.enroll(IdentityName.DEVICE)
    keyholder = Keyholder(scanner)
    keyholder.offer()

    generation = scanner.enroll(IdentityName.SIGNING)

    assert keyholder.matching_pair() == generation
    certificate = scanner.identities.chain_file(generation)
    text = openssl("x509", "-in", certificate, "-noout", "-text")
    lines = re.search(r"Private Key Usage Period: *\n\s+Not Before: (.+), Not After: (.+)\n", text)
    assert lines is not None
    begin, end = (datetime.strptime(f"{moment} +0000", "%b %d %H:%M:%S %Y GMT %z") for moment in lines.groups())
    assert timedelta(days=7) <= end - begin <= timedelta(days=7, hours=1)
    in_four_years = str(int((scanner.clock.now() + timedelta(days=4 * 365)).timestamp()))
    assert "OK" in openssl("verify", "-x509_strict", "-attime", in_four_years, "-CAfile", ca.anchor_file, certificate)


@pytest.mark.parametrize("protection", list(Protection))
def test_openssl_reads_where_the_key_lives(protection: Protection) -> None:
    """RFC 2985 5.4.1: an attribute, its value a UTF8String."""
    request = build(new_key(), REQUEST, protection=protection).public_bytes(serialization.Encoding.DER)

    text = openssl("req", "-inform", "DER", "-verify", "-noout", "-text", stdin=request)

    assert "verify OK" in text
    assert re.search(rf"unstructuredName +:key protection: {protection}\n", text)
    assert "Requested Extensions" in text
    assert any(f"UTF8STRING        :key protection: {protection}" in line for line in _parsed(request))


def test_the_device_certificate_is_one_for_tls_clients(scanner: Scanner, ca: EvaluationCa) -> None:
    certificate = chain_file(scanner, ca, IdentityName.DEVICE)

    assert "OK" in openssl("verify", "-purpose", "sslclient", "-CAfile", ca.anchor_file, certificate)
    openssl("verify", "-purpose", "sslserver", "-CAfile", ca.anchor_file, certificate, succeeds=False)


def test_openssl_reads_the_hardware_module_name(tmp_path: Path) -> None:
    """RFC 4108 section 5: SEQUENCE { hwType OBJECT IDENTIFIER, hwSerialNum OCTET STRING }."""
    request = build(new_key(), REQUEST).public_bytes(serialization.Encoding.DER)
    (module_name,) = REQUEST.alternative_names
    assert isinstance(module_name, x509.OtherName)

    text = openssl("req", "-inform", "DER", "-verify", "-noout", "-text", stdin=request)
    assert "verify OK" in text
    assert "othername: 1.3.6.1.5.5.7.8.4" in text
    kinds = [line.split("prim:")[-1].split("cons:")[-1] for line in _parsed(module_name.value)]
    assert [" ".join(kind.split()) for kind in kinds] == [
        "SEQUENCE",
        "OBJECT :1.3.6.1.4.1.32473.1.2",
        "OCTET STRING :CT-000123",
    ]


def _parsed(value: bytes) -> list[str]:
    return openssl("asn1parse", "-inform", "DER", stdin=value).splitlines()


@pytest.mark.parametrize("password", ["dGxzLXVuaXF1ZQ==", "a+/b"])
def test_openssl_reads_the_challenge_password(password: str) -> None:
    """RFC 2985 5.4.1, RFC 7030 3.5."""
    request = build(new_key(), REQUEST, challenge_password=password).public_bytes(serialization.Encoding.DER)

    text = openssl("req", "-inform", "DER", "-verify", "-noout", "-text", stdin=request)

    assert "verify OK" in text
    assert re.search(rf"challengePassword +:{re.escape(password)}\n", text)


def test_openssl_reads_the_owners_names() -> None:
    names = [x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Klinik")]
    request = build(new_key(), REQUEST, owners_names=names).public_bytes(serialization.Encoding.DER)

    text = openssl("req", "-inform", "DER", "-noout", "-subject", stdin=request)

    assert "C = DE, O = Klinik, CN = Example CT CT-000123, serialNumber = CT-000123" in text


@TLS_VERSIONS
def test_a_factory_identity_of_a_vendor_whom_nobody_knows_leaves_the_password(
    scanner: Scanner, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """RFC 8446 6.2: the server ends the connection by an alert; the next way to prove oneself is the password."""
    force_tls(monkeypatch, version)
    with_factory_identity(scanner)

    assert scanner.enroll(IdentityName.DEVICE).number == 1


@TLS_VERSIONS
def test_without_a_password_the_refused_factory_identity_is_the_error(
    scanner: Scanner, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    force_tls(monkeypatch, version)
    with_factory_identity(scanner)
    alone = scanner.restarted(est=replace(scanner.settings.est, username="", password_file=None))

    with pytest.raises(ServerUnreachable, match="No TLS connection") as error:
        alone.enroll(IdentityName.DEVICE)
    assert error.value.code == "client-certificate-refused"


def with_factory_identity(scanner: Scanner) -> None:
    vendor = HospitalCa("Vendor CA")
    scanner.issue(CaFlow(vendor, scanner.clock, "vendor"), IdentityName.IDEVID)


def test_a_killed_enroller_repeats_its_request_to_the_letter(tmp_path: Path) -> None:
    """RFC 7030 4.2.3: the CA may have it already. The process is killed while the CA thinks about it."""
    ca, thinks = HospitalCa(), threading.Event()

    def thinking() -> Iterator[bytes]:
        time.sleep(2)
        yield b""

    def script(request: Request) -> bytes | Iterator[bytes]:
        if request.path.endswith("/cacerts"):
            return bag(ca.certificate)
        if request.path.endswith("/csrattrs"):
            return answer(status="204 No Content")
        if "authorization" not in request.headers:
            return answer(b"", "401 Unauthorized", "text/plain", 'WWW-Authenticate: Basic realm="est"')
        if not thinks.is_set():
            thinks.set()
            return thinking()
        return answer(b"", "202 Accepted", "text/plain", "Retry-After: 600")

    password_file = tmp_path / "password"
    password_file.write_text("secret")
    password_file.chmod(0o600)
    with ScriptedServer(ca, tmp_path, script) as server:
        est = EstSettings(url=server.url, username="scanner", password_file=password_file, timeout=10)
        scanner = Scanner(settings(tmp_path, est), (ca.certificate,), SystemClock())
        file = write_run(tmp_path / "run", scanner.settings, IdentityName.DEVICE, FlowName.EST)
        with subprocess.Popen([sys.executable, "-m", "tests.support.enroll_process", file], cwd=ROOT) as process:
            assert thinks.wait(30)
            process.kill()
        assert run(file).returncode == TRY_LATER
        asked = len(server.requests)
        assert run(file).returncode == TRY_LATER  # another process, which knows how long to wait
        assert len(server.requests) == asked

    posted = [request.body for request in server.requests if request.path.endswith("/simpleenroll")]
    assert len(posted) == 4  # each time without the password, then with it
    assert len(set(posted)) == 1


@TLS_VERSIONS
def test_enrollment_and_renewal_work_over_each_tls_version(
    scanner: Scanner, ca: EvaluationCa, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """All three ways to prove oneself: password, device certificate, the certificate being renewed."""
    force_tls(monkeypatch, version)
    first = scanner.enroll(IdentityName.DEVICE)
    scanner.enroll(IdentityName.SIGNING)
    second = scanner.enroll(IdentityName.DEVICE)

    assert second.certificate.subject == first.certificate.subject
    assert scanner.matching_pair(IdentityName.DEVICE) == second
    assert scanner.matching_pair(IdentityName.SIGNING)


def test_a_lost_passphrase_is_survived_as_the_message_says(scanner: Scanner, tmp_path: Path) -> None:
    """All key files go, and the password of the first enrollment is needed once more."""
    scanner.enroll(IdentityName.DEVICE)
    scanner.enroll(IdentityName.SIGNING)
    (tmp_path / "passphrase").write_text("another passphrase\n")
    keys = scanner.settings.state_directory / "keys"
    for identity in (IdentityName.DEVICE, IdentityName.SIGNING):
        with pytest.raises(PinRefused, match=f"does not open {keys}/device-") as refusal:
            scanner.enroll(identity)
        assert f"all key files in {keys}" in refusal.value.remedy

    for key_file in keys.iterdir():
        key_file.unlink()

    for identity in (IdentityName.DEVICE, IdentityName.SIGNING):
        assert scanner.enroll(identity).number == 2
        assert scanner.matching_pair(identity)


def force_tls(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    def forced(anchors: Iterable[x509.Certificate], identity: ClientIdentity | None = None) -> ssl.SSLContext:
        context = client_context(anchors, identity)
        context.minimum_version = context.maximum_version = ssl.TLSVersion[f"TLSv{version.replace('.', '_')}"]
        return context

    monkeypatch.setattr("enroll.flows.est.client_context", forced)


def test_a_certificate_signed_with_sha1_is_refused(tmp_path: Path) -> None:
    """`cryptography` no longer makes such signatures, openssl still does."""
    root, root_key, leaf, extensions = (tmp_path / name for name in ("root.pem", "root.key", "leaf.pem", "leaf.cnf"))
    ec: Arguments = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *ec, "-keyout", root_key, "-out", root, "-subj", "/CN=Old CA", "-days", "30")
    request = openssl_request(tmp_path, "1.3.6.1.5.5.7.3.36")
    wanted = (tmp_path / "request.cnf").read_text().partition("[wanted]")[2]
    extensions.write_text(wanted)
    sign: Arguments = ["-CA", root, "-CAkey", root_key, "-set_serial", "1", "-days", "10", "-extfile", extensions]
    openssl("x509", "-req", "-inform", "DER", "-in", request, "-sha1", *sign, "-out", leaf)
    certificate = x509.load_pem_x509_certificate(leaf.read_bytes())
    public_key = certificate.public_key()

    with pytest.raises(CertificateRefused) as refusal:
        check_issued(
            [certificate],
            [],
            x509.load_pem_x509_certificates(root.read_bytes()),
            public_key=public_key,  # type: ignore[arg-type]
            request=REQUEST,
            now=datetime.now(UTC),
        )
    assert refusal.value.code == "certificate-weak"


# --- what other clients get from the evaluation CA


@TLS_VERSIONS
def test_openssl_connects(server: EstServer, ca: EvaluationCa, version: str) -> None:
    address = server.url.removeprefix("https://")
    option = f"-tls{version.replace('.', '_')}"
    text = openssl("s_client", "-connect", address, option, "-CAfile", ca.anchor_file, "-verify_return_error")

    assert f"TLSv{version}" in text
    assert "Verify return code: 0 (ok)" in text


@needs_curl
@TLS_VERSIONS
def test_curl_fetches_the_ca_certificates(server: EstServer, ca: EvaluationCa, tmp_path: Path, version: str) -> None:
    status, answer = curl(
        "--cacert", ca.anchor_file, f"--tlsv{version}", "--tls-max", version, f"{server.url}/.well-known/est/cacerts"
    )

    assert status == 200
    assert issued_by(answer, tmp_path).read_bytes().strip() == pem([ca.certificate]).strip()


@needs_curl
@TLS_VERSIONS
def test_curl_enrolls_with_the_password(server: EstServer, ca: EvaluationCa, tmp_path: Path, version: str) -> None:
    request = openssl_request(tmp_path, "1.3.6.1.5.5.7.3.36")
    password = ca.password_file.read_text().strip()

    status, answer = post(
        *(server, ca, "simpleenroll", request, "--user", f"{USERNAME}:{password}"),
        *(f"--tlsv{version}", "--tls-max", version),
    )

    assert status == 200
    issued = issued_by(answer, tmp_path)
    assert "OK" in openssl("verify", "-CAfile", ca.anchor_file, issued)
    assert openssl("x509", "-in", issued, "-noout", "-pubkey") == openssl(
        "pkey", "-in", tmp_path / "key.pem", "-pubout"
    )


@needs_curl
def test_curl_renews_with_the_certificate_alone(server: EstServer, ca: EvaluationCa, tmp_path: Path) -> None:
    """RFC 7030 4.2.2: the names are those of the certificate, the owner's part included."""
    request = openssl_request(tmp_path, "clientAuth")
    password = ca.password_file.read_text().strip()
    status, answer = post(server, ca, "simpleenroll", request, "--user", f"{USERNAME}:{password}")
    assert status == 200
    certificate: Arguments = ["--cert", issued_by(answer, tmp_path), "--key", tmp_path / "key.pem"]

    assert post(server, ca, "simplereenroll", request, *certificate)[0] == 403
    configuration = tmp_path / "request.cnf"
    configuration.write_text(configuration.read_text().replace("[name]", "[name]\nO = Evaluation Hospital"))
    renewal = tmp_path / "renewal.der"
    same_key: Arguments = ["-new", "-key", tmp_path / "key.pem", "-config", configuration]
    openssl("req", *same_key, "-outform", "DER", "-out", renewal)
    assert post(server, ca, "simplereenroll", renewal, *certificate)[0] == 200
    assert post(server, ca, "simpleenroll", request, *certificate)[0] == 200


@needs_curl
def test_who_does_not_prove_itself_gets_nothing(server: EstServer, ca: EvaluationCa, tmp_path: Path) -> None:
    request = openssl_request(tmp_path, "clientAuth")

    assert post(server, ca, "simpleenroll", request)[0] == 401
    assert post(server, ca, "simpleenroll", request, "--user", f"{USERNAME}:guess")[0] == 401
    assert post(server, ca, "simplereenroll", request)[0] == 401
