"""What a scanner proves itself with at an EST server (RFC 7030 3.3.2, 3.2.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from enroll.errors import (
    CertificateRefused,
    ConfigurationError,
    KeyDamaged,
    KeyNotFound,
    PinRefused,
    ScansealError,
    StateError,
    UnsupportedKey,
)
from enroll.flows.est import Credentials
from enroll.flows.settings import EstSettings
from enroll.identity import IdentityName
from tests.support.clocks import SteppedClock
from tests.support.enrolling import CaFlow, Scanner, settings
from tests.support.pki import HospitalCa

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


def proof(scanner: Scanner, identity: IdentityName) -> Credentials | x509.Certificate:
    with scanner.connect(identity) as flow:
        return flow._authentication


def without_password(scanner: Scanner) -> Scanner:
    return scanner.restarted(est=replace(scanner.settings.est, username="", password_file=None))


def test_the_first_device_identity_takes_the_password(new_scanner: Scanner) -> None:
    credentials = proof(new_scanner, DEVICE)

    assert isinstance(credentials, Credentials)
    assert (credentials.username, credentials.password) == ("scanner", b"pass-4711")
    assert credentials.password_file == new_scanner.settings.est.password_file


@pytest.mark.parametrize("identity", [DEVICE, SIGNING])
def test_afterwards_the_device_certificate_does(scanner: Scanner, identity: IdentityName) -> None:
    device = scanner.matching_pair(DEVICE)
    assert device

    assert proof(scanner, identity) == device.certificate


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


def key_of_another_kind(scanner: Scanner, _: pytest.MonkeyPatch) -> Scanner:
    encryption = serialization.BestAvailableEncryption(b"a passphrase")
    key = ed25519.Ed25519PrivateKey.generate()
    data = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    for path in (scanner.settings.state_directory / "keys").iterdir():
        path.write_bytes(data)
    return scanner


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (expired, CertificateRefused),
        (of_another_ca, CertificateRefused),
        (damaged, StateError),
        (key_lost, KeyNotFound),
        (key_of_another_kind, UnsupportedKey),
    ],
)
def test_only_the_device_identity_falls_back_to_the_password(
    scanner: Scanner,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Scanner, pytest.MonkeyPatch], Scanner],
    error: type[ScansealError],
) -> None:
    changed = change(scanner, monkeypatch)

    assert isinstance(proof(changed, DEVICE), Credentials)
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

    assert isinstance(proof(scanner, DEVICE), Credentials)
    with pytest.raises(KeyDamaged):
        proof(scanner, SIGNING)


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


def test_the_password_is_not_shown() -> None:
    assert "pass-4711" not in repr(Credentials("scanner", b"pass-4711", Path("password")))
