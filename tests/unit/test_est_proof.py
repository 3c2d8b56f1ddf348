"""What a scanner proves itself with at an EST server (RFC 7030 3.3.2, 3.2.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from enroll.certificates import serial_text
from enroll.errors import (
    ConfigurationError,
    KeyDamaged,
    KeyMismatch,
    KeyNotFound,
    PinRefused,
    ScansealError,
    StateError,
    UnsupportedKey,
)
from enroll.est.authentication import BearerToken, Password
from enroll.flows.est import EstFlow, Proof
from enroll.flows.settings import EstSettings
from enroll.identity import IdentityName
from enroll.revocation.lists import Revocation
from enroll.revocation.record import RevocationRecord, RevocationRecords, RevocationState
from tests.support.clocks import SteppedClock
from tests.support.enrolling import CaFlow, Scanner, settings
from tests.support.pki import REQUEST, HospitalCa, new_key

CA = HospitalCa()
ANCHORS = (CA.certificate,)
DEVICE, SIGNING = IdentityName.DEVICE, IdentityName.SIGNING


@pytest.fixture
def new_scanner(tmp_path: Path) -> Scanner:
    password_file = tmp_path / "password"
    password_file.write_text("pass-4711\n")
    password_file.chmod(0o600)
    est = EstSettings(url="https://est.example", username="scanner", password_file=password_file)
    return Scanner(settings(tmp_path, est), ANCHORS)


@pytest.fixture
def scanner(new_scanner: Scanner) -> Scanner:
    new_scanner.issue(CaFlow(CA, new_scanner.clock), DEVICE)
    return new_scanner


def proof(scanner: Scanner, identity: IdentityName) -> Proof:
    with scanner.connect(identity) as flow:
        return flow._proof


def is_password_alone(proof: Proof) -> bool:
    return proof.certificate is None and proof.password is not None


def without_password(scanner: Scanner) -> Scanner:
    return scanner.restarted(est=replace(scanner.settings.est, username="", password_file=None))


def test_the_first_device_identity_takes_the_password(new_scanner: Scanner) -> None:
    taken = proof(new_scanner, DEVICE)

    assert is_password_alone(taken)
    assert taken.password is not None
    assert (taken.password.username, taken.password.secret) == ("scanner", b"pass-4711")
    assert str(new_scanner.settings.est.password_file) in taken.password.advice


@pytest.mark.parametrize("identity", [DEVICE, SIGNING])
def test_afterwards_the_device_certificate_does(scanner: Scanner, identity: IdentityName) -> None:
    device = scanner.matching_pair(DEVICE)
    assert device

    taken = proof(scanner, identity)
    assert taken.certificate == device.certificate
    assert taken.password is not None  # for a server that asks for both


def test_a_password_file_that_is_gone_does_not_matter_when_there_is_a_certificate(
    scanner: Scanner, tmp_path: Path
) -> None:
    (tmp_path / "password").unlink()

    taken = proof(scanner, DEVICE)
    assert taken.certificate is not None
    assert taken.password is None


# --- the factory identity (IEEE 802.1AR)


def with_factory_identity(scanner: Scanner) -> Scanner:
    vendor = HospitalCa("Vendor CA")
    Scanner(scanner.settings, (vendor.certificate,), scanner.clock).issue(
        CaFlow(vendor, scanner.clock, "vendor"), IdentityName.IDEVID
    )
    return Scanner(scanner.settings, ANCHORS, scanner.clock)


def test_the_factory_identity_comes_before_the_password(new_scanner: Scanner) -> None:
    factory = with_factory_identity(new_scanner)
    idevid = factory.matching_pair(IdentityName.IDEVID)
    assert idevid

    taken = proof(factory, DEVICE)
    assert taken.certificate == idevid.certificate
    assert taken.password is not None


def test_the_device_identity_comes_before_the_factory_identity(scanner: Scanner) -> None:
    device = scanner.matching_pair(DEVICE)
    assert device

    assert proof(with_factory_identity(scanner), DEVICE).certificate == device.certificate


def test_it_is_for_the_device_identity_only(new_scanner: Scanner) -> None:
    with pytest.raises(StateError, match="no device identity"):
        proof(with_factory_identity(new_scanner), SIGNING)


def test_an_expired_factory_identity_leaves_the_password(new_scanner: Scanner) -> None:
    factory = with_factory_identity(new_scanner)
    assert isinstance(factory.clock, SteppedClock)
    factory.clock.advance(timedelta(days=366))

    assert is_password_alone(proof(factory, DEVICE))
    with pytest.raises(StateError, match="no device identity"):
        proof(without_password(factory), DEVICE)


def test_an_expired_device_identity_leaves_the_factory_identity(scanner: Scanner) -> None:
    changed = expired(scanner, pytest.MonkeyPatch())
    factory = with_factory_identity(changed)
    idevid = factory.matching_pair(IdentityName.IDEVID)
    assert idevid

    assert proof(factory, DEVICE).certificate == idevid.certificate


def test_the_signing_identity_never_takes_the_password(new_scanner: Scanner) -> None:
    with pytest.raises(StateError, match="no device identity") as error:
        proof(new_scanner, SIGNING)
    assert error.value.code == "device-not-enrolled"


def test_without_password_and_certificate_there_is_nothing_to_prove_with(new_scanner: Scanner) -> None:
    with pytest.raises(StateError, match="no device identity"):
        proof(without_password(new_scanner), DEVICE)


# --- a device identity that does not serve


def expired(scanner: Scanner, _: pytest.MonkeyPatch) -> Scanner:
    assert isinstance(scanner.clock, SteppedClock)
    scanner.clock.advance(timedelta(days=366))
    return scanner


def of_another_ca(scanner: Scanner, _: pytest.MonkeyPatch) -> Scanner:
    return Scanner(scanner.settings, (HospitalCa("New CA").certificate,))


def damaged(scanner: Scanner, _: pytest.MonkeyPatch) -> Scanner:
    (scanner.identities.directory(DEVICE) / "current" / "meta.json").write_bytes(b"")
    return scanner


def key_lost(scanner: Scanner, _: pytest.MonkeyPatch) -> Scanner:
    for uri in scanner.stores.list():
        scanner.stores.destroy(uri)
    return scanner


def revoked(scanner: Scanner, _: pytest.MonkeyPatch) -> Scanner:
    device, now = scanner.matching_pair(DEVICE), scanner.clock.now()
    assert device
    known = RevocationRecord(
        device.number, serial_text(device.certificate), now, RevocationState.REVOKED, Revocation(now)
    )
    RevocationRecords(scanner.identities).write(device, known)
    return scanner


def key_of_another_kind(scanner: Scanner, _: pytest.MonkeyPatch) -> Scanner:
    encryption = serialization.BestAvailableEncryption(b"a passphrase")
    key = ed25519.Ed25519PrivateKey.generate()
    data = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    for path in (scanner.settings.state_directory / "keys").iterdir():
        path.write_bytes(data)
    return scanner


def key_of_another_certificate(scanner: Scanner, _: pytest.MonkeyPatch) -> Scanner:
    encryption = serialization.BestAvailableEncryption(b"a passphrase")
    data = new_key().private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    for path in (scanner.settings.state_directory / "keys").iterdir():
        path.write_bytes(data)
    return scanner


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (expired, StateError),
        (of_another_ca, StateError),
        (damaged, StateError),
        (revoked, StateError),
        (key_lost, KeyNotFound),
        (key_of_another_kind, UnsupportedKey),
        (key_of_another_certificate, KeyMismatch),
    ],
)
def test_only_the_device_identity_falls_back_to_the_password(
    scanner: Scanner,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Scanner, pytest.MonkeyPatch], Scanner],
    error: type[ScansealError],
) -> None:
    changed = change(scanner, monkeypatch)

    assert is_password_alone(proof(changed, DEVICE))
    with pytest.raises(error) as refusal:
        proof(changed, SIGNING)
    assert refusal.value.remedy


def test_a_wrong_passphrase_is_not_answered_with_the_password(scanner: Scanner, tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("another")

    device = scanner.identities.current(DEVICE)
    assert device
    for identity in (DEVICE, SIGNING):
        with pytest.raises(PinRefused, match="The passphrase does not open") as refusal:
            proof(scanner, identity)
        assert f"{device.key_uri.removeprefix('software:')}.pem" in refusal.value.what


def test_a_damaged_key_of_the_device_is_answered_with_the_password(scanner: Scanner) -> None:
    for path in (scanner.settings.state_directory / "keys").iterdir():
        path.write_bytes(b"")

    assert is_password_alone(proof(scanner, DEVICE))
    with pytest.raises(KeyDamaged):
        proof(scanner, SIGNING)


# --- what would be sent


def planned(scanner: Scanner, *, renews: bool = False) -> list[tuple[str, str]]:
    device = scanner.matching_pair(DEVICE) if renews else None
    with scanner.connect(DEVICE) as flow:
        plan = flow.plan(REQUEST, device.certificate if device else None)
    return [(exchange.to.rpartition("/")[2], exchange.proof) for exchange in plan]


def test_a_plan_names_each_exchange_and_its_proof(new_scanner: Scanner) -> None:
    password = "the password of the first enrollment"
    assert planned(new_scanner) == [("cacerts", "nothing"), ("csrattrs", "nothing"), ("simpleenroll", password)]


def test_a_renewal_is_planned_as_one(scanner: Scanner) -> None:
    shown = "the certificate of the device identity"  # by the connection, so for each of them
    password = ", and the password if the server asks for it"
    assert planned(scanner, renews=True) == [
        ("cacerts", shown),
        ("csrattrs", shown),
        ("simplereenroll", shown + password),
    ]
    assert planned(without_password(scanner), renews=True)[-1] == ("simplereenroll", shown)


def test_a_plan_before_the_first_trust_says_how_that_begins_and_asks_nobody(new_scanner: Scanner) -> None:
    est = replace(new_scanner.settings.est, anchor_file=None, anchor_fingerprint="ab" * 32)
    context = replace(new_scanner.context, settings=replace(new_scanner.settings, est=est))

    with EstFlow.connect(DEVICE, context) as flow:
        first, *others = flow.plan(REQUEST, None)

    assert "fingerprint" in first.what
    assert first.to == others[0].to == "https://est.example/.well-known/est/cacerts"
    with EstFlow.connect(DEVICE, new_scanner.context) as flow:
        assert tuple(others) == flow.plan(REQUEST, None)


def test_without_any_proof_the_first_trust_does_not_begin(new_scanner: Scanner) -> None:
    est = replace(new_scanner.settings.est, anchor_file=None, anchor_fingerprint="ab" * 32, username="")
    context = replace(new_scanner.context, settings=replace(new_scanner.settings, est=est))

    with pytest.raises(StateError, match="no device identity yet"):
        EstFlow.connect(DEVICE, context)


# --- configuration


def test_without_an_address_there_is_no_server(new_scanner: Scanner) -> None:
    with pytest.raises(ConfigurationError, match="url is not set"):
        proof(new_scanner.restarted(est=EstSettings()), DEVICE)


def open_to_all(path: Path) -> Path:
    path.chmod(0o644)
    return path


def missing(path: Path) -> Path:
    path.unlink()
    return path


def not_set(_: Path) -> None:
    return None


@pytest.mark.parametrize("change", [open_to_all, missing, not_set])
def test_a_password_file_that_does_not_serve_is_a_matter_of_configuration(
    new_scanner: Scanner, tmp_path: Path, change: Callable[[Path], Path | None]
) -> None:
    est = replace(new_scanner.settings.est, password_file=change(tmp_path / "password"))

    with pytest.raises(ConfigurationError, match="password") as error:
        proof(new_scanner.restarted(est=est), DEVICE)
    assert "pass-4711" not in str(error.value)


def test_neither_password_nor_token_is_shown() -> None:
    assert "pass-4711" not in repr(Password("scanner", b"pass-4711"))
    assert "ticket" not in repr(BearerToken("ticket"))
