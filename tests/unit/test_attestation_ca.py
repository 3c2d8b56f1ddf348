"""The evaluation attestation CA believes TPMs of known makers, once, for a short time; and says what it is for."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from enroll import csr
from enroll.attestation.client import AttestationClient
from enroll.attestation.names import EK_CERTIFICATE, managed_device_of
from enroll.clock import SystemClock
from enroll.config import AttestationSettings
from enroll.csr import CertificateRequest, Usage
from enroll.errors import EnrollmentRefused, ProtocolViolation, ServerUnreachable
from enroll.evaluation.attestation_ca import BANNER, CHALLENGE_LIFETIME, CHALLENGES_LIMIT, AttestationCa
from enroll.evaluation.attestation_server import AttestationServer
from enroll.evaluation.ca import USERNAME
from enroll.statefile import StateFiles
from tests.support import pretend_tpm as tpm
from tests.support.certificates import rsa_key
from tests.support.clocks import SteppedClock
from tests.support.key_stores import secret_file
from tests.support.pki import DEVICE, HospitalCa, new_key
from tests.support.scripted_server import ScriptedServer, answer

MAKER = HospitalCa("Maker of TPMs")
ENDORSEMENT_KEY = rsa_key(2048)
SIGNS_STATEMENTS = tpm.GOOD_ATTRIBUTES | tpm.RESTRICTED
SCHEME = tpm.number(tpm.RSASSA) + tpm.number(tpm.SHA256)
ATTESTATION_KEY = tpm.public_area(tpm.attestation_key().public_key(), SIGNS_STATEMENTS, SCHEME)


def endorsement(
    maker: HospitalCa = MAKER, key: rsa.RSAPrivateKey = ENDORSEMENT_KEY, **changes: Any
) -> x509.Certificate:
    content = {"alternative_names": [tpm.DETAILS.directory_name()], "extended_usage": [EK_CERTIFICATE], **changes}
    return maker.issue(key.public_key(), **content)


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def ca(tmp_path: Path, clock: SteppedClock) -> AttestationCa:
    pytest.importorskip("tpm2_pytss", reason="tpm2-pytss is missing: pip install '.[tpm]'")
    return AttestationCa.create_or_open(tmp_path / "ca", [MAKER.certificate], clock)


def test_it_says_what_it_is_for_and_keeps_its_secrets(ca: AttestationCa) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in ca.directory.iterdir()}

    assert "NOT FOR PRODUCTION" in BANNER
    assert {name for name, mode in modes.items() if mode == 0o600} == {
        "root.key",
        "issuing.key",
        "server.key",
        "password",
    }


def test_it_is_the_same_when_it_is_opened_again(ca: AttestationCa, clock: SteppedClock) -> None:
    again = AttestationCa.create_or_open(ca.directory, [], clock)

    assert again.password == ca.password


@pytest.mark.parametrize(
    ("certificate", "why"),
    [
        (endorsement(HospitalCa("Somebody")), "known manufacturer"),
        (endorsement(extended_usage=[]), "known manufacturer"),
        (endorsement(extended_usage=[ExtendedKeyUsageOID.CLIENT_AUTH]), "not one of an endorsement key"),
        (endorsement(alternative_names=[]), "of which TPM"),
        (endorsement(key=rsa_key(3072)), "RSA-2048 or P-256"),
    ],
)
def test_other_endorsement_certificates_are_refused(ca: AttestationCa, certificate: x509.Certificate, why: str) -> None:
    with pytest.raises(EnrollmentRefused, match=why):
        ca.challenge("CT-1", certificate, ATTESTATION_KEY)


@pytest.mark.parametrize(
    "area",
    [
        b"junk",
        tpm.public_area(tpm.attestation_key().public_key(), tpm.GOOD_ATTRIBUTES, SCHEME),
        tpm.public_area(tpm.attestation_key().public_key(), SIGNS_STATEMENTS & ~tpm.FIXED_TPM, SCHEME),
        tpm.public_area(tpm.attestation_key().public_key(), SIGNS_STATEMENTS & ~tpm.FIXED_PARENT, SCHEME),
        tpm.public_area(tpm.attestation_key().public_key(), SIGNS_STATEMENTS & ~tpm.ORIGIN, SCHEME),
        tpm.public_area(tpm.attestation_key().public_key(), SIGNS_STATEMENTS & ~tpm.SIGN, SCHEME),
        tpm.public_area(tpm.attestation_key().public_key(), SIGNS_STATEMENTS | 1 << 17, SCHEME),
        tpm.public_area(tpm.attestation_key().public_key(), SIGNS_STATEMENTS),
        tpm.public_area(rsa_key(1024).public_key(), SIGNS_STATEMENTS, SCHEME),
        tpm.public_area(new_key().public_key(), SIGNS_STATEMENTS, tpm.number(tpm.ECDSA) + tpm.number(tpm.SHA256)),
    ],
    ids=[
        "junk",
        "unrestricted",
        "may leave",
        "may move",
        "imported",
        "cannot sign",
        "decrypts",
        "free",
        "weak",
        "curve",
    ],
)
def test_other_attestation_keys_are_refused(ca: AttestationCa, area: bytes) -> None:
    with pytest.raises(EnrollmentRefused, match="attestation key"):
        ca.challenge("CT-1", endorsement(), area)


@pytest.mark.parametrize("serial_number", ["", " CT", "CT\n", "CT_1", "x" * 65, "ÄT"])
def test_a_device_has_a_proper_serial_number(ca: AttestationCa, serial_number: str) -> None:
    with pytest.raises(EnrollmentRefused, match="serial number"):
        ca.challenge(serial_number, endorsement(), ATTESTATION_KEY)


def test_a_challenge_expires(ca: AttestationCa, clock: SteppedClock) -> None:
    asked = ca.challenge("CT-1", endorsement(), ATTESTATION_KEY)
    clock.advance(CHALLENGE_LIFETIME)

    with pytest.raises(EnrollmentRefused, match="no longer"):
        ca.certify_attestation_key(asked.identifier, b"")


def test_challenges_are_few_and_make_room_when_they_expire(ca: AttestationCa, clock: SteppedClock) -> None:
    for _ in range(CHALLENGES_LIMIT):
        ca.challenge("CT-1", endorsement(), ATTESTATION_KEY)
    with pytest.raises(EnrollmentRefused, match="Too many"):
        ca.challenge("CT-1", endorsement(), ATTESTATION_KEY)
    clock.advance(CHALLENGE_LIFETIME + timedelta(seconds=1))

    assert ca.challenge("CT-1", endorsement(), ATTESTATION_KEY).identifier


def test_the_secret_of_a_challenge_is_in_no_text(ca: AttestationCa) -> None:
    asked = ca.challenge("CT-1", endorsement(), ATTESTATION_KEY)
    waiting = ca._waiting[asked.identifier]

    assert repr(waiting.secret) not in repr(waiting)


def test_a_key_in_a_token_is_certified_for_the_device_of_the_request(ca: AttestationCa) -> None:
    key = new_key()
    certificate, issuing = ca.certify_key(csr.build(key, CertificateRequest.for_device(DEVICE, Usage.DEVICE)))

    assert managed_device_of(certificate) == DEVICE.serial_number
    assert certificate.public_key() == key.public_key()
    assert certificate.issuer == issuing.subject


# --- its server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[AttestationCa, AttestationServer]]:
    ca = AttestationCa.create_or_open(tmp_path / "served", [MAKER.certificate], SystemClock())
    with AttestationServer(ca) as running:
        yield ca, running


def client(ca: AttestationCa, url: str, password_file: Path | None = None) -> AttestationClient:
    settings = AttestationSettings(url, ca.anchor_file, USERNAME, password_file or ca.password_file, timeout=5)
    anchor = x509.load_pem_x509_certificate(ca.anchor_file.read_bytes())
    return AttestationClient.connect(settings, [anchor], SystemClock(), StateFiles())


REQUEST = csr.build(new_key(), CertificateRequest.for_device(DEVICE, Usage.DEVICE))


def test_who_has_the_password_gets_a_certificate(server: tuple[AttestationCa, AttestationServer]) -> None:
    ca, running = server
    with client(ca, running.url) as asking:
        chain = asking.key_certificate(REQUEST)

    assert chain[0].subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)[0].value == DEVICE.serial_number


def test_who_has_another_password_gets_nothing(server: tuple[AttestationCa, AttestationServer], tmp_path: Path) -> None:
    ca, running = server
    wrong = secret_file(tmp_path / "wrong", "a guess")

    with client(ca, running.url, wrong) as asking, pytest.raises(EnrollmentRefused, match="401") as refused:
        asking.key_certificate(REQUEST)
    assert "a guess" not in str(refused.value)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/attestation/other", b"{}", 404),
        ("/attestation/key", b"", 400),
        ("/attestation/key", b"[" * 60000, 400),
        ("/attestation/key", b"[]", 400),
        ("/attestation/key", b'{"request": 1}', 400),
        ("/attestation/key", b'{"request": "?"}', 400),
        ("/attestation/key", b'{"request": "AAAA"}', 400),
        ("/attestation/key", b"{}", 400),
        ("/attestation/challenge", b"{}", 400),
        ("/attestation/challenge", b'{"ek_certificate": "MAA="}', 400),
        ("/attestation/certificate", b"{}", 403),
        ("/attestation/certificate", b'{"challenge": "x", "secret": "AAAA"}', 403),
    ],
)
def test_what_cannot_be_understood_is_refused(
    server: tuple[AttestationCa, AttestationServer], path: str, body: bytes, status: int
) -> None:
    ca, running = server
    context = ssl.create_default_context(cafile=str(ca.anchor_file))
    address = running.url.removeprefix("https://").split(":")
    connection = http.client.HTTPSConnection(address[0], int(address[1]), context=context, timeout=10)
    headers = {"Authorization": _basic(ca)}
    try:
        connection.request("POST", path, body, headers)
        assert connection.getresponse().status == status
    finally:
        connection.close()


def _basic(ca: AttestationCa) -> str:
    return f"Basic {base64.b64encode(USERNAME.encode() + b':' + ca.password).decode()}"


# --- hostile answers to the client


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[" * 100000,
        b'{"x5c": []}',
        b'{"x5c": ["AAAA"]}',
        b'{"x5c": [1]}',
        b'{"x5c": "AAAA"}',
        b'{"x5c": ["?"]}',
        b'{"x5c": ["\xff"]}',
        json.dumps({"x5c": ["AAAA"] * 6}).encode(),
        json.dumps({"x5c": ["A" * 70000]}).encode(),
        b'{"x5c": ["AAAA"], "more": 1}',
    ],
)
def test_answers_of_another_shape_are_protocol_violations(tmp_path: Path, body: bytes) -> None:
    said = answer(body, "200 OK", "application/json")

    with _scripted(tmp_path, said) as asking, pytest.raises(ProtocolViolation):
        asking.key_certificate(REQUEST)


@pytest.mark.parametrize(("status", "error"), [("503 Busy", ServerUnreachable), ("403 No", EnrollmentRefused)])
def test_what_the_server_says_is_one_clean_line(tmp_path: Path, status: str, error: type[Exception]) -> None:
    said = answer(b"first\x1b[2J\nsecond", status, "text/plain")

    with _scripted(tmp_path, said) as asking, pytest.raises(error) as raised:
        asking.key_certificate(REQUEST)
    assert "first" in str(raised.value)
    assert "\x1b" not in str(raised.value)
    assert "\n" not in str(raised.value)


@contextmanager
def _scripted(folder: Path, said: bytes) -> Iterator[AttestationClient]:
    hospital = HospitalCa()
    password = secret_file(folder / "password", "secret")
    with ScriptedServer(hospital, folder, lambda _: said) as server:
        settings = AttestationSettings(server.url, None, USERNAME, password, timeout=5)
        with AttestationClient.connect(settings, [hospital.certificate], SystemClock(), StateFiles()) as asking:
            yield asking
