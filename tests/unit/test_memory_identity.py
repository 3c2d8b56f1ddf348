"""Keys that live in the keyholder's memory: made, certified, used for days, destroyed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from agent.audit import AuditTrail
from agent.daemon.active_key import ActiveKey
from agent.daemon.memory_identity import (
    CLOCK_MARGIN,
    FIRST_DELAY,
    LONGEST_DELAY,
    REPAIR_DELAY,
    KeyMaker,
    MemoryIdentity,
)
from agent.daemon.signer import RETRY_SECONDS, Identities
from agent.daemon.wire import HashName
from agent.errors import SigningError
from enroll.algorithms import KeyAlgorithm
from enroll.certificates import private_key_usage_period, serial_text
from enroll.clock_sense import ClockSense
from enroll.config import SigningIdentitySettings, StoreName
from enroll.csr import CertificateRequest, Usage, stated_protection
from enroll.errors import KeyStoreError, ScansealError, StateError
from enroll.identity import Generation, IdentityName
from enroll.keystore.base import Protection
from enroll.offer import Offer, check_offer, read_offer
from enroll.revocation.lists import Revocation, Statement
from enroll.revocation.record import RevocationRecord, RevocationRecords
from enroll.statefile import StateFiles
from enroll.trust import VerifiedCertificate
from tests.support.agent_process import Scanner, new_scanner
from tests.support.clocks import SteppedClock
from tests.support.pki import DEVICE, Content, HospitalCa

SIGNING = IdentityName.SIGNING
LIFETIME = timedelta(days=7)
SETTINGS = SigningIdentitySettings(
    key_store=StoreName.MEMORY, key_lifetime=LIFETIME.days, key_algorithm=KeyAlgorithm.RSA_2048
)
REQUEST = CertificateRequest.for_device(DEVICE, Usage.SIGNING)
HOUR = timedelta(hours=1)


class AtOnce(Executor):
    """A thread that is always ready before anybody looks."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **keywords))
        except ScansealError as error:
            future.set_exception(error)
        return future


@dataclass
class Keyholder:
    """The keyholder's side of a scanner, and a CA that answers when a test wants it."""

    scanner: Scanner
    clock: SteppedClock
    audit: AuditTrail
    ca: HospitalCa = field(default_factory=lambda: HospitalCa("Hospital"))
    identities: Identities = field(init=False)
    memory: MemoryIdentity = field(init=False)
    sense: ClockSense = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """As after a restart: what was in memory is gone."""
        scanner = self.scanner
        for uri in scanner.keys.list():
            scanner.keys.destroy(uri)
        self.sense = ClockSense(self.clock)
        maker = KeyMaker(SIGNING, SETTINGS, DEVICE, scanner.keys, self.sense)
        self.memory = MemoryIdentity(maker, scanner.identities, scanner.files, self.audit, AtOnce())
        self.identities = Identities(
            scanner.identities, scanner.keys, self.audit, self.sense, in_memory={SIGNING: self.memory}
        )

    def offer(self) -> Offer | None:
        """What waits for the enroller."""
        return read_offer(self.scanner.identities.directory(SIGNING) / "pending", self.scanner.files)

    def certify(self, lifetime: timedelta = timedelta(days=1000)) -> Generation:
        """What the enroller does: a certificate for the key that is offered, put into use."""
        offer = self.offer()
        assert offer is not None
        content = replace(Content.asked(REQUEST, self.clock.now()), end=self.clock.now() + lifetime)
        return self.commit(self.ca.issue(offer.public_key, content), offer.key_uri)

    def commit(self, certificate: x509.Certificate, uri: str) -> Generation:
        """Put a certificate into use."""
        return self.scanner.identities.commit(
            SIGNING,
            VerifiedCertificate(certificate, ()),
            uri,
            protection=Protection.MEMORY,
            flow="test",
            now=self.clock.now(),
        )

    def enroll(self) -> int:
        """Certify what is offered, and have it taken up."""
        number = self.certify().number
        self.identities.refresh()
        return number

    def pass_time(self, step: timedelta) -> None:
        """The clock goes on, and the keyholder looks around."""
        self.clock.advance(step)
        self.identities.refresh()

    def signs_with(self) -> int:
        """The generation that makes a signature now."""
        active = self.identities.active_key(SIGNING)
        active.sign(bytes(32), HashName.SHA256, active.judged_at(self.sense.sense()))
        return active.generation.number

    def refusal(self) -> str:
        """The code with which a signature is refused now."""
        with pytest.raises(SigningError) as refused:
            self.signs_with()
        assert refused.value.remedy
        if refused.value.code == "awaiting-certificate":
            assert refused.value.remedy.startswith("You need do nothing: ")
        return refused.value.code

    def held(self) -> list[str]:
        """The keys in memory."""
        return list(self.scanner.keys.list())


@pytest.fixture
def keyholder(tmp_path: Path) -> Iterator[Keyholder]:
    with new_scanner(tmp_path) as scanner:
        scanner.passphrase.unlink()
        scanner.audit_file.parent.mkdir()
        clock = SteppedClock()
        audit = AuditTrail(scanner.audit_file, clock)
        yield Keyholder(scanner, clock, audit)
        audit.close()


# --- a certificate is asked for


def test_the_first_key_is_made_and_offered_at_the_start(keyholder: Keyholder) -> None:
    offer = keyholder.offer()

    assert offer is not None
    assert [offer.key_uri] == keyholder.held()
    assert keyholder.refusal() == "awaiting-certificate"
    assert keyholder.identities.awaiting


def test_the_request_is_what_the_enroller_takes(keyholder: Keyholder) -> None:
    """RFC 3280 4.2.1.4: PrivateKeyUsagePeriod; and the marker that says where the key lives."""
    offer = keyholder.offer()
    assert offer is not None

    check_offer(offer, REQUEST, SETTINGS)
    now = keyholder.clock.now()
    assert private_key_usage_period(offer.request) == (now - CLOCK_MARGIN, now + LIFETIME)
    assert stated_protection(offer.request) is Protection.MEMORY


def test_the_key_never_reaches_the_disk(keyholder: Keyholder) -> None:
    keyholder.enroll()
    (uri,) = keyholder.held()
    key = keyholder.scanner.keys.load(uri)
    assert isinstance(key, rsa.RSAPrivateKey)
    prime = key.private_numbers().p

    files = [path.read_bytes() for path in keyholder.scanner.state.rglob("*") if path.is_file()]
    assert files
    for text in (prime.to_bytes(128, "big"), prime.to_bytes(128, "little"), b"PRIVATE KEY"):
        assert not any(text in content for content in files)


def test_the_certificate_is_paired_with_the_key_that_is_held(keyholder: Keyholder) -> None:
    assert keyholder.enroll() == keyholder.signs_with() == 1

    active = keyholder.identities.active_key(SIGNING)
    assert active.protection is Protection.MEMORY
    assert active.usage.end == keyholder.clock.now() + LIFETIME
    assert keyholder.offer() is None
    assert not keyholder.identities.awaiting


def test_after_a_restart_a_new_key_is_offered_and_the_old_certificate_is_no_fault(keyholder: Keyholder) -> None:
    keyholder.enroll()
    keyholder.start()

    assert keyholder.refusal() == "awaiting-certificate"
    assert keyholder.identities.view(SIGNING).refused is None
    assert keyholder.identities.chain(SIGNING) is not None  # for what it has signed
    assert keyholder.enroll() == keyholder.signs_with() == 2


def test_an_offer_of_an_earlier_process_is_taken_back(keyholder: Keyholder) -> None:
    before = keyholder.offer()
    keyholder.start()

    after = keyholder.offer()
    assert before is not None
    assert after is not None
    assert after.key_uri != before.key_uri


def test_a_certificate_for_a_key_of_an_earlier_process_changes_nothing(keyholder: Keyholder) -> None:
    """The enroller may be slow, and the agent started again meanwhile."""
    late = keyholder.offer()
    keyholder.start()
    keyholder.enroll()
    assert late is not None
    keyholder.commit(keyholder.ca.issue(late.public_key), late.key_uri)
    keyholder.identities.refresh()

    assert keyholder.signs_with() == 1
    refused = keyholder.identities.view(SIGNING).refused
    assert refused is not None
    assert refused.code == "key-not-found"


def test_no_key_of_another_store_signs_in_its_place(keyholder: Keyholder) -> None:
    """key_store is the one place that says where a key lives."""
    scanner = keyholder.scanner
    scanner.passphrase.write_text("correct horse battery staple", "utf-8")
    scanner.passphrase.chmod(0o600)
    uri = scanner.keys.generate(StoreName.SOFTWARE, "signing-before", KeyAlgorithm.RSA_2048)
    public_key = scanner.keys.load(uri).public_key()
    keyholder.commit(keyholder.ca.issue(public_key), uri)
    keyholder.identities.refresh()

    assert keyholder.refusal() == "awaiting-certificate"


def test_an_offer_that_is_not_answered_is_made_again_more_and_more_rarely(keyholder: Keyholder) -> None:
    """Whoever it has started may have failed; a path unit is triggered again by the file (systemd.path(5))."""
    path = keyholder.scanner.identities.directory(SIGNING) / "pending" / "offer.json"
    times, written = [], path.stat().st_mtime_ns
    offers = keyholder.identities.offers
    for second in range(1, 3700):
        keyholder.pass_time(timedelta(seconds=1))
        if keyholder.identities.offers > offers:
            offers = keyholder.identities.offers
            times.append(second)
            before, written = written, path.stat().st_mtime_ns
            assert written > before
    pauses = [late - early for early, late in zip([0, *times], times, strict=False)]

    assert pauses[:7] == [FIRST_DELAY * 2**number for number in range(7)]
    assert set(pauses[7:]) == {LONGEST_DELAY}


def test_a_disk_that_is_full_is_no_end(keyholder: Keyholder, monkeypatch: pytest.MonkeyPatch) -> None:
    keyholder.enroll()
    pending = keyholder.scanner.identities.directory(SIGNING) / "pending"
    pending.rmdir()
    pending.write_text("in the way")
    keyholder.pass_time(LIFETIME * 0.7)
    assert keyholder.signs_with() == 1

    pending.unlink()
    keyholder.pass_time(timedelta(seconds=FIRST_DELAY))
    assert keyholder.enroll() == keyholder.signs_with() == 2


# --- rotation


def test_the_next_key_is_made_when_two_thirds_of_the_time_are_over(keyholder: Keyholder) -> None:
    keyholder.enroll()

    keyholder.pass_time(LIFETIME * 2 / 3 - HOUR)
    assert keyholder.offer() is None
    keyholder.pass_time(HOUR)

    assert keyholder.offer() is not None
    assert len(keyholder.held()) == 2
    assert keyholder.signs_with() == 1  # until the certificate has come


def test_the_old_key_is_destroyed_as_soon_as_the_new_one_signs(keyholder: Keyholder) -> None:
    keyholder.enroll()
    (old,) = keyholder.held()
    keyholder.pass_time(LIFETIME * 0.7)
    keyholder.enroll()

    assert keyholder.signs_with() == 2
    assert old not in keyholder.held()
    assert [line["reason"] for line in keyholder.scanner.audit("memory-key-destroyed")] == ["replaced"]


@pytest.mark.parametrize("is_enrolled", [False, True])
def test_when_the_owner_gives_the_scanner_up_no_key_stays(keyholder: Keyholder, *, is_enrolled: bool) -> None:
    """The CA of that owner may have the request of the next key, and may certify it at any time."""
    if is_enrolled:
        keyholder.enroll()
        keyholder.pass_time(LIFETIME * 0.7)
    before = keyholder.held()
    assert len(before) == 1 + is_enrolled

    keyholder.scanner.identities.wipe(SIGNING)
    keyholder.pass_time(HOUR)
    keyholder.pass_time(HOUR)

    assert not set(before) & set(keyholder.held())
    offer = keyholder.offer()
    assert offer is not None
    assert offer.key_uri not in before


def test_at_the_end_of_its_time_the_key_is_destroyed_whatever_happens(keyholder: Keyholder) -> None:
    """Whatever the CA grants: this certificate says nothing of a usage period, and is valid for years."""
    keyholder.enroll()
    (old,) = keyholder.held()
    keyholder.pass_time(LIFETIME * 0.7)
    keyholder.pass_time(LIFETIME * 0.3)

    assert keyholder.refusal() == "key-expired"
    assert old not in keyholder.held()
    assert [line["reason"] for line in keyholder.scanner.audit("memory-key-destroyed")] == ["ended"]
    assert keyholder.enroll() == keyholder.signs_with() == 2


def test_no_signature_is_made_after_the_end_even_before_anybody_has_looked(keyholder: Keyholder) -> None:
    keyholder.enroll()
    active = keyholder.identities.active_key(SIGNING)
    keyholder.clock.advance(LIFETIME)

    with pytest.raises(SigningError) as refused:
        active.sign(bytes(32), HashName.SHA256, keyholder.clock.now())
    assert refused.value.code == "key-expired"


def test_ten_rotations_leave_one_key(keyholder: Keyholder) -> None:
    keys = set()
    for number in range(1, 12):
        assert keyholder.enroll() == keyholder.signs_with() == number
        keys.update(keyholder.held())
        keyholder.pass_time(LIFETIME * 0.7)
        assert len(keyholder.held()) == 2

    assert len(keys) == 11
    assert len(keyholder.scanner.audit("memory-key-destroyed")) == 10
    assert keyholder.scanner.identities.generations(SIGNING) == tuple(range(1, 12))


def test_a_key_that_got_no_certificate_in_its_time_is_replaced(keyholder: Keyholder) -> None:
    first = keyholder.offer()
    keyholder.pass_time(LIFETIME)

    second = keyholder.offer()
    assert first is not None
    assert second is not None
    assert [second.key_uri] == keyholder.held() != [first.key_uri]


def test_a_certificate_that_lives_shorter_than_the_key_is_replaced_in_time(keyholder: Keyholder) -> None:
    keyholder.certify(lifetime=timedelta(days=1))
    keyholder.identities.refresh()
    keyholder.pass_time(timedelta(hours=17))

    assert keyholder.offer() is not None
    assert keyholder.signs_with() == 1


def test_a_clock_that_is_set_back_does_not_stop_signing(keyholder: Keyholder) -> None:
    keyholder.enroll()
    keyholder.clock.moment -= timedelta(days=400)
    keyholder.identities.refresh()

    assert keyholder.signs_with() == 1
    assert keyholder.offer() is None


def test_a_key_that_was_made_while_the_clock_was_fast_is_replaced(keyholder: Keyholder) -> None:
    """Its certificate says when it may sign, and that time does not come for years."""
    keyholder.clock.reboot(timedelta(days=9000))
    keyholder.start()
    keyholder.pass_time(timedelta(seconds=30))
    (old,) = keyholder.held()
    keyholder.clock.moment -= timedelta(days=9000)
    keyholder.enroll()
    keyholder.pass_time(timedelta(seconds=1))

    assert old not in keyholder.held()
    keyholder.enroll()
    assert keyholder.signs_with() == 2


def test_a_clock_that_is_set_back_does_not_prolong_the_life_of_a_key(keyholder: Keyholder) -> None:
    """The key is gone after the days that it was made for, whoever has set the clock, and however often."""
    keyholder.enroll()
    (old,) = keyholder.held()
    keyholder.pass_time(LIFETIME * 0.6)
    for _ in range(5):
        keyholder.clock.moment -= LIFETIME * 0.1
        keyholder.pass_time(LIFETIME * 0.1)

    assert old not in keyholder.held()
    assert keyholder.refusal() == "key-expired"
    assert keyholder.enroll() == keyholder.signs_with() == 2


def test_a_ca_that_grants_minutes_is_not_asked_in_a_loop(keyholder: Keyholder) -> None:
    for _ in range(600):
        if keyholder.offer() is not None:
            keyholder.certify(lifetime=timedelta(minutes=2))
        keyholder.pass_time(timedelta(seconds=1))

    assert len(keyholder.scanner.audit("memory-key-made")) <= 1 + 600 / (2 / 3 * 120)


@pytest.mark.parametrize("fault", ["nobody knows the key", "its certificate has ended"])
def test_no_error_that_is_kept_holds_a_key(keyholder: Keyholder, fault: str) -> None:
    """The frames of its traceback would, and with them the memory of a key that was destroyed."""
    keyholder.enroll()
    (uri,) = keyholder.held()
    other = keyholder.scanner.keys.generate(StoreName.MEMORY, "other", KeyAlgorithm.RSA_2048)
    keyholder.pass_time(LIFETIME * 0.7)
    if fault == "nobody knows the key":
        keyholder.commit(keyholder.ca.issue(keyholder.scanner.keys.load(other).public_key()), other)
    else:
        keyholder.certify(lifetime=timedelta(seconds=1))
        keyholder.clock.advance(timedelta(seconds=2))
    keyholder.identities.refresh()
    refused = keyholder.identities.view(SIGNING).refused
    assert refused is not None
    keyholder.pass_time(LIFETIME * 0.3)
    assert uri not in keyholder.held()

    assert [key.generation.key_uri for key in kept_keys() if key.generation.key_uri == uri] == []


def kept_keys() -> list[ActiveKey]:
    """Every key with its certificate that anything in this process still refers to."""
    gc.collect()
    return [thing for thing in gc.get_objects() if isinstance(thing, ActiveKey)]


# --- what can go wrong on the way


def test_a_disk_that_refuses_does_not_keep_a_replaced_key_alive(
    keyholder: Keyholder, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyholder.enroll()
    (old,) = keyholder.held()
    keyholder.pass_time(LIFETIME * 0.7)
    keyholder.certify()

    def refuse(_: object, path: Path) -> None:
        raise StateError(f"{path} cannot be removed.", remedy="Check the disk.")

    monkeypatch.setattr(StateFiles, "remove", refuse)
    keyholder.identities.refresh()

    assert keyholder.signs_with() == 2
    assert old not in keyholder.held()


def test_a_key_whose_request_cannot_be_made_does_not_stay(
    keyholder: Keyholder, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyholder.enroll()
    held = keyholder.held()

    def refuse(*_: object, **__: object) -> None:
        raise KeyStoreError("It does not sign.", remedy="Restart the agent.")

    with monkeypatch.context() as patch:
        patch.setattr("agent.daemon.memory_identity.csr.build", refuse)
        for _ in range(10):
            keyholder.pass_time(LIFETIME * 0.07)
    assert keyholder.held() == held

    keyholder.pass_time(timedelta(seconds=REPAIR_DELAY))
    assert keyholder.enroll() == keyholder.signs_with() == 2


def test_a_fault_that_lasts_is_logged_once(
    keyholder: Keyholder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The keyholder looks around ten times a second as long as nothing can be signed."""

    def refuse(*_: object, **__: object) -> None:
        raise KeyStoreError("It does not sign.", remedy="Restart the agent.")

    keyholder.pass_time(LIFETIME)
    monkeypatch.setattr("agent.daemon.memory_identity.csr.build", refuse)
    keyholder.pass_time(LIFETIME)
    for _ in range(100):
        keyholder.pass_time(timedelta(seconds=0.1))

    assert caplog.text.count("It does not sign.") == 1


def test_every_key_is_in_the_audit_trail_even_if_that_was_full(
    keyholder: Keyholder, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyholder.enroll()
    record = keyholder.audit.record

    def refuse(*_: object, **__: object) -> None:
        raise StateError("The audit trail cannot be written.", remedy="Make room.", code="audit-unavailable")

    def while_it_is_full(change: Callable[[], object]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(keyholder.audit, "record", refuse)
            with suppress(StateError):
                change()
        assert keyholder.audit.record == record
        for _ in range(2):
            with suppress(StateError):
                keyholder.pass_time(timedelta(seconds=RETRY_SECONDS))

    while_it_is_full(lambda: keyholder.pass_time(LIFETIME * 0.7))
    while_it_is_full(keyholder.enroll)
    while_it_is_full(lambda: keyholder.pass_time(LIFETIME))

    made = [line["key"] for line in keyholder.scanner.audit("memory-key-made")]
    destroyed = [line["key"] for line in keyholder.scanner.audit("memory-key-destroyed")]
    assert len(made) == 3
    assert destroyed == made[:2]
    assert [line["key_generation"] for line in keyholder.scanner.audit("identity-in-use")] == [1, 2]


def test_a_revoked_certificate_has_the_next_key_made_at_once_and_one_on_hold_has_not(keyholder: Keyholder) -> None:
    for reason, offers in (("certificateHold", 1), ("keyCompromise", 2)):
        if not keyholder.scanner.identities.generations(SIGNING):
            keyholder.enroll()
        generation = keyholder.scanner.identities.current(SIGNING)
        assert generation is not None
        now = keyholder.clock.now()
        record = RevocationRecord(generation.number, serial_text(generation.certificate), now)
        record = record.after(Statement(now, now + HOUR, Revocation(now, reason)), "http://ca", now)
        RevocationRecords(keyholder.scanner.identities).write(generation, record)
        keyholder.pass_time(timedelta(seconds=1))

        assert keyholder.refusal() == "certificate-revoked"
        assert keyholder.identities.offers == offers
    keyholder.enroll()
    assert keyholder.signs_with() == 2


def test_no_representation_shows_a_key(keyholder: Keyholder) -> None:
    keyholder.enroll()
    active = keyholder.identities.active_key(SIGNING)
    assert isinstance(active, ActiveKey)

    assert "RSAPrivateKey" not in repr(active) + repr(vars(keyholder.memory))
