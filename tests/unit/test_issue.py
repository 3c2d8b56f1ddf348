"""The one transaction: a new key and certificate are in use together, or everything is as before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from enroll.algorithms import KeyAlgorithm
from enroll.config import IdentitiesSettings, SigningIdentitySettings, StoreName
from enroll.csr import Usage
from enroll.errors import (
    CertificateRefused,
    DiskRefused,
    EnrollerBusy,
    EnrollmentError,
    EnrollmentRefused,
    KeyMismatch,
    KeyStoreUnavailable,
    PinRefused,
    ProtocolViolation,
    ServerUnreachable,
    StateUnreadable,
)
from enroll.flows.base import HANDLE_LIMIT, Enrollment, Issued, OfferedEnrollment, Pending, Refused
from enroll.identity import Generation, IdentityName
from enroll.issue import PENDING_LIFETIME
from enroll.journal import PendingRequest, Step
from enroll.keystore.base import PrivateKey
from enroll.keystore.keys import StoredEcKey
from tests.support.clocks import SteppedClock
from tests.support.enrolling import CaFlow, Scanner, settings
from tests.support.pki import HospitalCa, new_key
from tests.support.records import rewrite

Asked: TypeAlias = Enrollment | OfferedEnrollment

CA = HospitalCa()
ANCHORS = (CA.certificate,)
SIGNING = IdentityName.SIGNING


@pytest.fixture
def scanner(tmp_path: Path) -> Scanner:
    return Scanner(settings(tmp_path), ANCHORS)


@pytest.fixture
def flow(scanner: Scanner) -> CaFlow:
    return CaFlow(CA, scanner.clock)


def enrolled(scanner: Scanner, flow: CaFlow) -> Generation:
    generation = scanner.issue(flow)
    assert isinstance(generation, Generation)
    return generation


def renewed_by(asked: Asked) -> x509.Certificate | None:
    assert isinstance(asked, Enrollment)
    return asked.renews


def unreachable(_: Asked) -> Issued:
    raise ServerUnreachable("No answer.", remedy="Check the network.")


def advance(scanner: Scanner, step: timedelta) -> None:
    assert isinstance(scanner.clock, SteppedClock)
    scanner.clock.advance(step)


def test_a_first_enrollment_puts_a_matching_pair_into_use(scanner: Scanner, flow: CaFlow) -> None:
    generation = enrolled(scanner, flow)

    assert scanner.matching_pair() == generation
    assert (generation.number, generation.flow, generation.committed_at) == (1, "est", scanner.clock.now())
    assert generation.protection == scanner.stores.protection(generation.key_uri)
    assert scanner.stores.list() == (generation.key_uri,)
    assert scanner.identities.journal(SIGNING).read() is None


@pytest.mark.parametrize(("identity", "usage"), [(IdentityName(usage), usage) for usage in Usage])
def test_each_identity_has_its_usage(scanner: Scanner, flow: CaFlow, identity: IdentityName, usage: Usage) -> None:
    scanner.issue(flow, identity)

    assert flow.asked[0].request.usage is usage


def test_a_renewal_takes_a_new_key(scanner: Scanner, flow: CaFlow) -> None:
    first, second = enrolled(scanner, flow), enrolled(scanner, flow)

    assert scanner.matching_pair() == second
    assert second.key_uri != first.key_uri
    assert renewed_by(flow.asked[1]) == first.certificate


def test_the_key_of_the_generation_before_is_kept_and_older_ones_are_destroyed(scanner: Scanner, flow: CaFlow) -> None:
    generations = [enrolled(scanner, flow) for _ in range(4)]

    assert set(scanner.stores.list()) == {generations[2].key_uri, generations[3].key_uri}
    assert scanner.identities.generations(SIGNING) == (1, 2, 3, 4)


def test_keys_of_other_identities_are_left_alone(scanner: Scanner, flow: CaFlow) -> None:
    device = scanner.issue(flow, IdentityName.DEVICE)
    assert isinstance(device, Generation)
    for _ in range(3):
        enrolled(scanner, flow)

    assert scanner.matching_pair(IdentityName.DEVICE) == device


def test_a_certificate_with_names_of_yesterday_is_replaced_not_renewed(scanner: Scanner, flow: CaFlow) -> None:
    enrolled(scanner, flow)
    renamed = scanner.restarted(device=replace(scanner.settings.device, model="Example CT plus"))

    enrolled(renamed, flow)

    assert renewed_by(flow.asked[1]) is None


# --- the CA says no, or we do


def wrong_key(_: Asked) -> Issued:
    return Issued((CA.issue(new_key().public_key()),))


def foreign(asked: Asked) -> Issued:
    return Issued((HospitalCa().issue(asked.public_key),))


def nothing(_: Asked) -> Issued:
    return Issued(())


def refusing(_: Asked) -> Refused:
    return Refused("not on the list", "CA operator")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (wrong_key, CertificateRefused),
        (foreign, CertificateRefused),
        (nothing, CertificateRefused),
        (refusing, EnrollmentRefused),
    ],
)
def test_after_a_refusal_everything_is_as_before(
    scanner: Scanner,
    flow: CaFlow,
    answer: Callable[[Asked], Issued | Refused],
    error: type[Exception],
) -> None:
    before = enrolled(scanner, flow)
    flow.answer = answer

    with pytest.raises(error):
        scanner.issue(flow)

    assert scanner.matching_pair() == before
    assert scanner.stores.list() == (before.key_uri,)
    assert scanner.identities.journal(SIGNING).read() is None
    flow.answer = None
    assert enrolled(scanner, flow).number == 2


def without_passphrase(scanner: Scanner) -> Scanner:
    (scanner.settings.state_directory.parent / "passphrase").unlink()
    return scanner


def without_token(scanner: Scanner) -> Scanner:
    pytest.importorskip("pkcs11", reason="python-pkcs11 is missing: pip install '.[pkcs11]'")
    return scanner.restarted(identity=IdentitiesSettings(signing=SigningIdentitySettings(key_store=StoreName.PKCS11)))


@pytest.mark.parametrize("change", [without_passphrase, without_token])
def test_a_key_store_that_cannot_be_used_leaves_no_request_behind(
    scanner: Scanner, flow: CaFlow, change: Callable[[Scanner], Scanner]
) -> None:
    with pytest.raises(KeyStoreUnavailable):
        change(scanner).issue(flow)

    assert scanner.identities.journal(SIGNING).read() is None
    assert flow.asked == []


def test_a_refusal_says_what_can_be_done_where_the_flow_knows(scanner: Scanner, flow: CaFlow) -> None:
    flow.answer = lambda _: Refused("not on the list", "CA operator", "Ask for the list.")

    with pytest.raises(EnrollmentRefused) as refusal:
        scanner.issue(flow)

    assert (refusal.value.who_must_act, refusal.value.remedy) == ("CA operator", "Ask for the list.")


def test_a_refusal_says_who_must_act(scanner: Scanner, flow: CaFlow) -> None:
    flow.answer = refusing

    with pytest.raises(EnrollmentRefused) as refusal:
        scanner.issue(flow)

    assert "not on the list" in refusal.value.what
    assert refusal.value.who_must_act == "CA operator"
    assert "stays in use" in refusal.value.what_next


def test_a_key_that_does_not_sign_properly_is_not_put_into_use(
    scanner: Scanner, flow: CaFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = scanner.stores.load

    def worn_out(uri: str) -> PrivateKey:
        public_key = load(uri).public_key()
        assert isinstance(public_key, ec.EllipticCurvePublicKey)
        return StoredEcKey(public_key, lambda digest, _: other.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256()))))

    before, other = enrolled(scanner, flow), new_key()
    with monkeypatch.context() as patch:
        patch.setattr(scanner.stores, "load", worn_out)
        with pytest.raises(KeyMismatch):
            scanner.issue(flow)

    assert scanner.matching_pair() == before
    assert scanner.stores.list() == (before.key_uri,)


# --- the request has to wait


def test_an_unreachable_ca_leaves_the_request_for_the_next_run(scanner: Scanner, flow: CaFlow) -> None:
    flow.answer = unreachable
    with pytest.raises(ServerUnreachable):
        scanner.issue(flow)
    (key_uri,) = scanner.stores.list()

    flow.answer = None
    assert enrolled(scanner.restarted(), flow).key_uri == key_uri


def test_a_full_disk_shows_before_the_ca_is_asked(
    scanner: Scanner, flow: CaFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the timer would ask it every ten minutes with a request under way: no attempt and no answer can be kept."""
    flow.answer = unreachable
    with pytest.raises(ServerUnreachable):
        scanner.issue(flow)
    asked: list[str] = []
    monkeypatch.setattr(flow, "anchors_and_intermediates", lambda: asked.append("cacerts"))

    def full(path: Path, data: bytes, mode: int = 0o600) -> None:
        raise DiskRefused(f"{path} cannot be written.", remedy=f"Make room, for {len(data)} bytes of mode {mode}.")

    monkeypatch.setattr(scanner.files, "write", full)
    with pytest.raises(DiskRefused):
        scanner.issue(flow)
    assert asked == []


def test_a_202_is_repeated_with_the_same_key_when_the_ca_says(scanner: Scanner, flow: CaFlow) -> None:
    """RFC 7030 4.2.3."""
    wait = Pending(scanner.clock.now() + timedelta(hours=1), "waiting for approval")
    flow.answer = lambda _: wait

    assert scanner.issue(flow) == wait
    assert scanner.restarted().issue(flow) == wait
    assert len(flow.asked) == 1

    advance(scanner, timedelta(hours=1))
    flow.answer = None
    generation = enrolled(scanner.restarted(), flow)
    assert flow.asked[1].public_key == flow.asked[0].public_key
    assert scanner.stores.list() == (generation.key_uri,)


def test_a_clock_that_was_set_back_does_not_make_us_wait_for_years(scanner: Scanner, flow: CaFlow) -> None:
    flow.answer = lambda _: Pending(scanner.clock.now() + timedelta(hours=1))
    scanner.issue(flow)

    assert isinstance(scanner.clock, SteppedClock)
    scanner.clock.moment -= timedelta(days=365)
    scanner.issue(flow)
    assert len(flow.asked) == 1

    advance(scanner, timedelta(hours=1))
    scanner.issue(flow)
    assert len(flow.asked) == 2


def other_key_algorithm(scanner: Scanner) -> Scanner:
    other = IdentitiesSettings(signing=SigningIdentitySettings(key_algorithm=KeyAlgorithm.P_384))
    return scanner.restarted(identity=other)


def other_names(scanner: Scanner) -> Scanner:
    return scanner.restarted(device=replace(scanner.settings.device, model="Example CT plus"))


def a_month_later(scanner: Scanner) -> Scanner:
    advance(scanner, PENDING_LIFETIME + timedelta(seconds=1))
    return scanner.restarted()


def key_lost(scanner: Scanner) -> Scanner:
    for uri in scanner.stores.list():
        scanner.stores.destroy(uri)
    return scanner.restarted()


def journal_damaged(scanner: Scanner) -> Scanner:
    (scanner.identities.directory(SIGNING) / "pending" / "request.json").write_bytes(b"{")
    return scanner.restarted()


def key_file(scanner: Scanner) -> Path:
    (path,) = (scanner.settings.state_directory / "keys").iterdir()
    return path


def key_damaged(scanner: Scanner) -> Scanner:
    key_file(scanner).write_bytes(key_file(scanner).read_bytes()[:200])
    return scanner.restarted()


def key_of_another_kind(scanner: Scanner) -> Scanner:
    password = scanner.settings.keystore.software.passphrase_file
    assert password is not None
    encryption = serialization.BestAvailableEncryption(password.read_bytes().strip())
    key_file(scanner).write_bytes(
        ed25519.Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )
    )
    return scanner.restarted()


@pytest.mark.parametrize(
    "change", [other_key_algorithm, other_names, a_month_later, key_lost, key_damaged, key_of_another_kind]
)
def test_a_request_that_no_longer_fits_is_begun_anew(
    scanner: Scanner, flow: CaFlow, change: Callable[[Scanner], Scanner]
) -> None:
    flow.answer = unreachable
    with pytest.raises(ServerUnreachable):
        scanner.issue(flow)
    old = scanner.stores.list()
    later = change(scanner)

    flow.answer = None
    generation = enrolled(later, flow)

    assert generation.key_uri not in old
    assert later.stores.list() == (generation.key_uri,)


def test_a_wrong_passphrase_costs_no_request(scanner: Scanner, flow: CaFlow) -> None:
    """It may be put right, so the key is kept; and a token that is asked again and again locks itself."""
    flow.answer = unreachable
    with pytest.raises(ServerUnreachable):
        scanner.issue(flow)
    (uri,) = scanner.stores.list()
    passphrase_file = scanner.settings.keystore.software.passphrase_file
    assert passphrase_file is not None
    right = passphrase_file.read_bytes()
    flow.answer = None

    passphrase_file.write_bytes(b"wrong")
    with pytest.raises(PinRefused, match="passphrase"):
        scanner.restarted().issue(flow)

    passphrase_file.write_bytes(right)
    assert enrolled(scanner.restarted(), flow).key_uri == uri


def test_where_the_old_passphrase_is_lost_the_key_is_removed_and_the_request_begun_anew(
    scanner: Scanner, flow: CaFlow
) -> None:
    flow.answer = unreachable
    with pytest.raises(ServerUnreachable):
        scanner.issue(flow)
    key_file(scanner).unlink()
    flow.answer = None

    assert enrolled(scanner.restarted(), flow).number == 1


def test_a_pending_key_is_loaded_once(scanner: Scanner, flow: CaFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a token each time is a login or a search."""
    flow.answer = unreachable
    with pytest.raises(ServerUnreachable):
        scanner.issue(flow)
    later, loaded = scanner.restarted(), []
    load = later.stores.load

    def noted(uri: str) -> PrivateKey:
        loaded.append(uri)
        return load(uri)

    monkeypatch.setattr(later.stores, "load", noted)
    flow.answer = None
    enrolled(later, flow)

    assert len(loaded) == 1


def test_what_may_not_be_read_is_not_enrolled_anew(
    scanner: Scanner, flow: CaFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = enrolled(scanner, flow)

    def forbidden(*_: object) -> None:
        raise StateUnreadable("current cannot be read: Permission denied.")

    with monkeypatch.context() as patch:
        patch.setattr(scanner.identities, "current", forbidden)
        with pytest.raises(StateUnreadable):
            scanner.issue(flow)
    assert scanner.matching_pair() == before


def test_a_damaged_journal_ends_nothing(scanner: Scanner, flow: CaFlow) -> None:
    flow.answer = unreachable
    with pytest.raises(ServerUnreachable):
        scanner.issue(flow)

    flow.answer = None
    enrolled(journal_damaged(scanner), flow)


def test_what_was_issued_before_a_crash_costs_no_second_certificate(scanner: Scanner, flow: CaFlow) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("enroll.issue.check_issued", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            scanner.issue(flow)
    pending = scanner.identities.journal(SIGNING).read()
    assert pending is not None
    assert pending.step is Step.ISSUED

    flow.answer = unreachable
    assert enrolled(scanner.restarted(), flow).number == 1
    assert len(flow.asked) == 1


def test_a_ca_without_intermediates_is_not_asked_twice_either(scanner: Scanner, flow: CaFlow) -> None:
    """The certificate may be all that there is: then the anchor issued it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CaFlow, "anchors_and_intermediates", lambda _: ())
        patch.setattr("enroll.issue.check_issued", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            scanner.issue(flow)

    assert enrolled(scanner.restarted(), flow).number == 1
    assert len(flow.asked) == 1


@pytest.mark.parametrize("error", [ServerUnreachable, ProtocolViolation])
def test_without_a_proper_answer_to_the_confirmation_the_next_run_confirms_again(
    scanner: Scanner, flow: CaFlow, monkeypatch: pytest.MonkeyPatch, error: type[EnrollmentError]
) -> None:
    """A CA may revoke what nobody confirmed (RFC 9810 5.3.18): whoever is in between must not cause that by rubbish."""

    def fails(*_: object) -> None:
        raise error("Rubbish.")

    with monkeypatch.context() as patch:
        patch.setattr(CaFlow, "confirm", fails)
        with pytest.raises(error):
            scanner.issue(flow)
    pending = scanner.identities.journal(SIGNING).read()
    assert pending is not None
    assert pending.step is Step.ISSUED

    generation = enrolled(scanner.restarted(), flow)
    assert flow.confirmed == [generation.certificate]
    assert len(flow.asked) == 1


def test_a_ca_that_knows_nothing_of_the_request_any_more_had_its_confirmation(
    scanner: Scanner, flow: CaFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgotten(*_: object) -> None:
        raise EnrollmentRefused("No such transaction.")

    monkeypatch.setattr(CaFlow, "confirm", forgotten)
    enrolled(scanner, flow)


def test_a_handle_is_bounded_so_that_the_journal_can_be_read_again(scanner: Scanner, flow: CaFlow) -> None:
    def keeps(asked: Asked) -> Issued:
        asked.handle.keep('"' * HANDLE_LIMIT)
        with pytest.raises(ProtocolViolation):
            asked.handle.keep("x" * (HANDLE_LIMIT + 1))
        with pytest.raises(ProtocolViolation):
            asked.handle.keep("\u2028")
        return unreachable(asked)

    flow.answer = keeps
    with pytest.raises(ServerUnreachable):
        scanner.issue(flow)
    pending = scanner.identities.journal(SIGNING).read()
    assert pending is not None
    assert pending.handle == '"' * HANDLE_LIMIT


def test_why_a_ca_wants_us_to_wait_is_bounded(scanner: Scanner, flow: CaFlow) -> None:
    flow.answer = lambda _: Pending(scanner.clock.now() + timedelta(hours=1), "\u2028" * 99_999)
    scanner.issue(flow)

    assert scanner.identities.journal(SIGNING).read() is not None


# --- damage


@pytest.mark.parametrize("name", ["", "s", "software", "*"])
def test_a_damaged_name_of_a_key_destroys_no_other_key(scanner: Scanner, flow: CaFlow, name: str) -> None:
    before = enrolled(scanner, flow)
    path = scanner.identities.directory(SIGNING) / "pending" / "request.json"
    scanner.identities.journal(SIGNING).write(PendingRequest(Step.PLANNED, "signing-0", "", "", scanner.clock.now()))
    rewrite(path, key_name=name)
    after = enrolled(scanner, flow)

    assert set(scanner.stores.list()) == {before.key_uri, after.key_uri}


def test_a_damaged_identity_is_enrolled_anew(scanner: Scanner, flow: CaFlow) -> None:
    first = enrolled(scanner, flow)
    scanner.identities.chain_file(first).write_bytes(b"")

    second = enrolled(scanner, flow)

    assert second.number == 2
    assert scanner.matching_pair() == second
    assert renewed_by(flow.asked[1]) is None


def test_two_enrollers_never_run_at_once(scanner: Scanner, flow: CaFlow) -> None:
    def enroll_meanwhile(_: Asked) -> Issued:
        with pytest.raises(EnrollerBusy):
            scanner.restarted().issue(CaFlow(CA, scanner.clock))
        return Issued(())

    flow.answer = enroll_meanwhile
    with pytest.raises(CertificateRefused):
        scanner.issue(flow)


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
