"""Which key signs: a new generation is taken up between two signatures, a bad one changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

from agent.audit import AuditTrail
from agent.daemon.active_key import ActiveKey
from agent.daemon.signer import IDENTITY_OF, RETRY_SECONDS, Identities, IdentityView
from agent.daemon.wire import HashName, Role
from agent.errors import CertificateNotUsable, SigningError
from enroll.algorithms import KeyAlgorithm
from enroll.certificates import serial_text
from enroll.config import StoreName
from enroll.errors import (
    KeyNotFound,
    KeyStoreError,
    PinRefused,
    ScansealError,
    StateDamaged,
    StateError,
    UnsupportedKey,
)
from enroll.identity import IdentityName
from enroll.revocation.lists import Revocation, Statement
from enroll.revocation.record import RevocationRecord, RevocationRecords
from tests.support.agent_process import Scanner, new_scanner


class SteppingClock:
    """The real time at first, then what a test makes of it."""

    def __init__(self) -> None:
        self.passed = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.passed

    def monotonic(self) -> float:
        return self.passed.total_seconds()

    def boottime(self) -> float:
        return self.monotonic()

    def boot_id(self) -> str:
        return "boot"

    def sleep(self, seconds: float) -> None:
        self.passed += timedelta(seconds=seconds)


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Scanner]:
    with new_scanner(tmp_path) as scanner:
        scanner.audit_file.parent.mkdir()
        yield scanner


@pytest.fixture
def clock() -> SteppingClock:
    return SteppingClock()


@pytest.fixture
def audit(scanner: Scanner, clock: SteppingClock) -> Iterator[AuditTrail]:
    trail = AuditTrail(scanner.audit_file, clock)
    yield trail
    trail.close()


def follow(scanner: Scanner, audit: AuditTrail, clock: SteppingClock) -> Identities:
    return Identities(scanner.identities, scanner.keys, audit, clock)


def active(identities: Identities, name: IdentityName = IdentityName.SIGNING) -> ActiveKey:
    found = identities.view(name).active
    assert found is not None
    return found


def generation(identities: Identities, name: IdentityName = IdentityName.SIGNING) -> int:
    return active(identities, name).generation.number


def refusal(identities: Identities, name: IdentityName = IdentityName.SIGNING) -> ScansealError | None:
    return identities.view(name).refused


def test_without_an_identity_there_is_nothing_to_sign_with(
    scanner: Scanner, audit: AuditTrail, clock: SteppingClock
) -> None:
    identities = follow(scanner, audit, clock)

    assert [identities.view(name) for name in IdentityName] == [IdentityView()] * len(IdentityName)
    assert identities.chain(IdentityName.SIGNING) is None


def test_the_first_identity_is_taken_up_without_a_restart(
    scanner: Scanner, audit: AuditTrail, clock: SteppingClock
) -> None:
    identities = follow(scanner, audit, clock)
    scanner.enroll()
    identities.refresh()

    assert generation(identities) == 1
    assert scanner.audit("identity-in-use") == [{"identity": "signing", "key_generation": 1, "proves": "device"}]


def test_a_signature_verifies_with_the_certificate(scanner: Scanner, audit: AuditTrail, clock: SteppingClock) -> None:
    """PS3.15 C.1: RSASSA-PKCS1-v1_5."""
    scanner.enroll()
    key = active(follow(scanner, audit, clock))
    public_key = key.generation.certificate.public_key()
    assert isinstance(public_key, rsa.RSAPublicKey)

    for name, algorithm in (
        (HashName.SHA256, hashes.SHA256()),
        (HashName.SHA384, hashes.SHA384()),
        (HashName.SHA512, hashes.SHA512()),
    ):
        digest = bytes(algorithm.digest_size)
        signature = key.sign(digest, name, clock.now())
        public_key.verify(signature, digest, padding.PKCS1v15(), utils.Prehashed(algorithm))


def test_nothing_is_signed_outside_the_validity_of_the_certificate(
    scanner: Scanner, audit: AuditTrail, clock: SteppingClock
) -> None:
    scanner.enroll()
    key = active(follow(scanner, audit, clock))

    for passed, code in ((timedelta(days=2), "certificate-expired"), (-timedelta(days=2), "certificate-not-yet-valid")):
        clock.passed = passed
        with pytest.raises(CertificateNotUsable) as refused:
            key.sign(bytes(32), HashName.SHA256, clock.now())
        assert refused.value.code == code


def test_a_key_that_belongs_to_another_certificate_stops_the_start(
    scanner: Scanner, audit: AuditTrail, clock: SteppingClock
) -> None:
    first, second = scanner.enroll(), scanner.enroll()
    scanner.commit(IdentityName.SIGNING, first.key_uri, second.key_uri)

    with pytest.raises(KeyStoreError) as refused:
        follow(scanner, audit, clock)
    assert refused.value.code == "key-mismatch"
    assert refused.value.remedy


def test_a_key_that_is_gone_is_refused_and_the_agent_starts(
    scanner: Scanner, audit: AuditTrail, clock: SteppingClock
) -> None:
    """It has to be there to take up the generation that comes in its place (ADR 37)."""
    scanner.keys.destroy(scanner.enroll().key_uri)

    identities = follow(scanner, audit, clock)

    assert isinstance(refusal(identities), KeyNotFound)
    assert identities.view(IdentityName.SIGNING).active is None


def test_a_key_that_is_not_rsa_stops_the_start(scanner: Scanner, audit: AuditTrail, clock: SteppingClock) -> None:
    """PS3.15 C.2: creator signatures are RSA."""
    scanner.enroll(algorithm=KeyAlgorithm.P_256)

    with pytest.raises(UnsupportedKey, match="RSA"):
        follow(scanner, audit, clock)


def test_a_bad_new_generation_changes_nothing_but_the_status(
    scanner: Scanner, audit: AuditTrail, clock: SteppingClock
) -> None:
    good = scanner.enroll()
    identities = follow(scanner, audit, clock)
    other = scanner.keys.generate(StoreName.SOFTWARE, "other", KeyAlgorithm.RSA_2048)
    scanner.commit(IdentityName.SIGNING, good.key_uri, other)
    identities.refresh()
    identities.refresh()

    assert generation(identities) == good.number
    assert isinstance(refusal(identities), ScansealError)
    assert [line["code"] for line in scanner.audit("identity-refused")] == ["key-mismatch"]


def test_a_refused_generation_is_tried_again(scanner: Scanner, audit: AuditTrail, clock: SteppingClock) -> None:
    """A token may have been busy."""
    scanner.enroll()
    identities = follow(scanner, audit, clock)
    second = scanner.enroll()
    key_file = scanner.state / "keys" / f"{second.key_uri.partition(':')[2]}.pem"
    hidden = key_file.rename(key_file.with_suffix(".hidden"))
    identities.refresh()
    assert generation(identities) == 1

    hidden.rename(key_file)
    identities.refresh()
    assert generation(identities) == 1
    clock.sleep(RETRY_SECONDS + 1)
    identities.refresh()
    assert generation(identities) == second.number
    assert refusal(identities) is None


def full_disk(monkeypatch: pytest.MonkeyPatch, identities: Identities) -> None:
    """A look at the identities while the trail takes no line."""

    def refuse(*_: object, **__: object) -> None:
        raise StateError("The disk is full.", code="audit-unavailable")

    with monkeypatch.context() as full:
        full.setattr(AuditTrail, "record", refuse)
        with pytest.raises(StateError, match="full"):
            identities.refresh()


def test_a_refusal_that_the_audit_trail_could_not_take_is_told_when_it_can(
    scanner: Scanner, audit: AuditTrail, clock: SteppingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanner.enroll()
    identities = follow(scanner, audit, clock)
    pointer = scanner.identities.directory(IdentityName.SIGNING) / "current"
    pointer.unlink()
    pointer.symlink_to("generations/9999")

    full_disk(monkeypatch, identities)
    for _ in range(3):
        identities.refresh()

    (line,) = scanner.audit("identity-refused")
    assert (line["identity"], line["code"]) == ("signing", "state-damaged")


def test_a_revocation_that_the_audit_trail_could_not_take_is_told_when_it_can(
    scanner: Scanner, audit: AuditTrail, clock: SteppingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is signed meanwhile."""
    scanner.enroll()
    identities = follow(scanner, audit, clock)
    revoked = active(identities).generation
    told = Statement(clock.now(), clock.now() + timedelta(hours=1), Revocation(clock.now(), "keyCompromise"))
    record = RevocationRecord(revoked.number, serial_text(revoked.certificate), clock.now())
    RevocationRecords(scanner.identities).write(revoked, record.after(told, "http://ca", clock.now()))

    full_disk(monkeypatch, identities)
    assert active(identities).revocation == told.revocation
    for _ in range(3):
        identities.refresh()

    (line,) = scanner.audit("certificate-revoked")
    assert (line["identity"], line["reason"]) == ("signing", "keyCompromise")


def test_a_refused_pin_is_not_tried_again_unasked(scanner: Scanner, audit: AuditTrail, clock: SteppingClock) -> None:
    """A token locks after a few wrong PINs."""
    scanner.enroll()
    identities = follow(scanner, audit, clock)
    second = scanner.enroll()
    right = scanner.passphrase.read_text("utf-8")
    scanner.passphrase.write_text("wrong", "utf-8")
    identities.refresh()
    scanner.passphrase.write_text(right, "utf-8")
    clock.sleep(RETRY_SECONDS + 1)
    identities.refresh()
    assert generation(identities) == 1

    identities.refresh(at_once=True)
    assert generation(identities) == second.number


def test_an_identity_that_is_taken_away_signs_no_more(
    scanner: Scanner, audit: AuditTrail, clock: SteppingClock
) -> None:
    """Keys fail closed: its owner gives the scanner up."""
    scanner.enroll()
    identities = follow(scanner, audit, clock)
    scanner.identities.release_record.write_bytes(b"")
    scanner.identities.retract(IdentityName.SIGNING)
    identities.refresh()

    assert identities.view(IdentityName.SIGNING).active is None


def test_a_pointer_that_is_lost_stops_nothing_that_is_loaded_and_the_next_start(
    scanner: Scanner, audit: AuditTrail, clock: SteppingClock
) -> None:
    """Nobody has given the scanner up, so something is damaged; it does not begin as if there had been nothing."""
    scanner.enroll()
    identities = follow(scanner, audit, clock)
    scanner.identities.retract(IdentityName.SIGNING)
    identities.refresh()

    assert generation(identities) == 1
    assert isinstance(refusal(identities), StateDamaged)
    with pytest.raises(StateDamaged, match=r"current is missing"):
        follow(scanner, audit, clock)


def test_no_representation_shows_the_key(scanner: Scanner, audit: AuditTrail, clock: SteppingClock) -> None:
    scanner.enroll()

    assert "key=" not in repr(active(follow(scanner, audit, clock))).replace("key_uri=", "")


def test_a_certificate_that_has_ended_replaces_none_that_is_valid(
    scanner: Scanner, audit: AuditTrail, clock: SteppingClock
) -> None:
    scanner.enroll()
    identities = follow(scanner, audit, clock)
    scanner.authority.not_after = datetime.now(UTC) + timedelta(minutes=5)
    scanner.enroll()
    clock.sleep(600)

    identities.refresh()
    assert generation(identities) == 1
    refused = refusal(identities)
    assert refused is not None
    assert refused.code == "certificate-expired"


def test_a_certificate_that_begins_later_than_the_clock_shows_is_used(
    scanner: Scanner, audit: AuditTrail, clock: SteppingClock
) -> None:
    """It passed every check when it came, so it is the clock that has been set back since."""
    scanner.enroll()
    identities = follow(scanner, audit, clock)
    scanner.authority.not_before += timedelta(hours=2)
    scanner.enroll()

    identities.refresh()
    assert generation(identities) == 2
    assert refusal(identities) is None


# --- every role has its own


def test_every_role_signs_with_an_identity_of_its_own() -> None:
    assert set(IDENTITY_OF) == set(Role)
    assert len(set(IDENTITY_OF.values())) == len(Role)


def test_the_keys_and_generations_of_the_roles_are_told_apart(
    scanner: Scanner, audit: AuditTrail, clock: SteppingClock
) -> None:
    for name, generations in ((IdentityName.SIGNING, 3), (IdentityName.DERIVATION, 2), (IdentityName.SYNTHESIS, 1)):
        for _ in range(generations):
            scanner.enroll(name)
    identities = follow(scanner, audit, clock)

    assert [generation(identities, name) for name in IDENTITY_OF.values()] == [3, 2, 1]
    keys = {active(identities, name).key.public_key().public_numbers().n for name in IDENTITY_OF.values()}
    assert len(keys) == len(Role)
    assert len({active(identities, name).certificate for name in IDENTITY_OF.values()}) == len(Role)


@pytest.mark.parametrize("name", [IdentityName.DERIVATION, IdentityName.SYNTHESIS])
def test_an_identity_of_another_role_that_is_broken_keeps_no_original_from_being_signed(
    scanner: Scanner, audit: AuditTrail, clock: SteppingClock, caplog: pytest.LogCaptureFixture, name: IdentityName
) -> None:
    """Acquisition comes first."""
    scanner.enroll()
    scanner.keys.destroy(scanner.enroll(name).key_uri)

    identities = follow(scanner, audit, clock)

    assert generation(identities) == 1
    assert identities.view(name).active is None
    assert isinstance(refusal(identities, name), KeyNotFound)
    assert [line["identity"] for line in scanner.audit("identity-refused")] == [name]
    assert caplog.messages[0].startswith(f"Generation 1 of the identity {name} cannot be used: ")


def test_a_damaged_key_has_to_be_enrolled_anew(scanner: Scanner, audit: AuditTrail, clock: SteppingClock) -> None:
    """Trying again does not help: whoever asks for a signature is told so, and with which command."""
    scanner.enroll()
    damaged = scanner.enroll(IdentityName.DERIVATION)
    (scanner.state / "keys" / f"{damaged.key_uri.partition(':')[2]}.pem").write_text("no key", "utf-8")
    identities = follow(scanner, audit, clock)

    with pytest.raises(SigningError) as refused:
        identities.active_key(IdentityName.DERIVATION)
    assert refused.value.code == "key-damaged"
    assert refused.value.remedy == (
        "Run: scanseal enroll WAY --identity derivation, and have the CA revoke the old certificate."
    )


def test_a_damaged_pointer_is_not_blamed_on_a_generation(
    scanner: Scanner, audit: AuditTrail, clock: SteppingClock, caplog: pytest.LogCaptureFixture
) -> None:
    scanner.enroll()
    identities = follow(scanner, audit, clock)
    pointer = scanner.identities.directory(IdentityName.SIGNING) / "current"
    target = pointer.readlink()
    pointer.unlink()
    pointer.symlink_to("elsewhere")
    for _ in range(3):
        identities.refresh()

    assert [message.partition(":")[0] for message in caplog.messages] == ["The identity signing cannot be used"]
    assert generation(identities) == 1
    pointer.unlink()
    pointer.symlink_to(target)
    identities.refresh()
    assert refusal(identities) is None


def test_a_broken_identity_is_taken_up_when_it_is_mended(
    scanner: Scanner, audit: AuditTrail, clock: SteppingClock
) -> None:
    scanner.enroll()
    scanner.keys.destroy(scanner.enroll(IdentityName.DERIVATION).key_uri)
    identities = follow(scanner, audit, clock)
    scanner.enroll(IdentityName.DERIVATION)
    identities.refresh()

    assert generation(identities, IdentityName.DERIVATION) == 2
    assert refusal(identities, IdentityName.DERIVATION) is None
    assert scanner.audit("identity-in-use") == [{"identity": "derivation", "key_generation": 2, "proves": "device"}]


def test_a_wrong_pin_is_tried_with_one_identity_and_not_with_all(
    scanner: Scanner, audit: AuditTrail, clock: SteppingClock
) -> None:
    """A token locks after a few wrong PINs, and all keys may lie in the same token."""
    for name in IDENTITY_OF.values():
        scanner.enroll(name)
    identities = follow(scanner, audit, clock)
    scanner.passphrase.write_text("wrong", "utf-8")
    identities.refresh(at_once=True)
    clock.sleep(RETRY_SECONDS + 1)
    identities.refresh()

    assert [isinstance(refusal(identities, name), PinRefused) for name in IDENTITY_OF.values()] == [True, False, False]
    assert [generation(identities, name) for name in IDENTITY_OF.values()] == [1, 1, 1]
