"""The one transaction for a key in the agent's memory: what is offered is certified, or everything is as before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from enroll.algorithms import KeyAlgorithm
from enroll.config import IdentitiesSettings, SigningIdentitySettings, StoreName
from enroll.csr import CertificateRequest, Usage, build
from enroll.errors import CertificateRefused, EnrollmentRefused, ServerUnreachable, StateError
from enroll.flows.base import Enrollment, Issued, OfferedEnrollment, Pending, Refused
from enroll.identity import Generation, IdentityName
from enroll.issue import NotAsked, waiting_offer
from enroll.journal import Step
from enroll.keystore.base import Protection
from enroll.offer import FILE_NAME, Offer, read_offer, write_offer
from enroll.statefile import StateFiles
from tests.support.clocks import SteppedClock
from tests.support.enrolling import CaFlow, Keyholder, Scanner, settings, with_memory_key
from tests.support.key_usage_period import period_value, with_period
from tests.support.pki import DEVICE, HospitalCa, new_key

CA = HospitalCa()
SIGNING = IdentityName.SIGNING
FILES = StateFiles()


@pytest.fixture
def scanner(tmp_path: Path) -> Scanner:
    return Scanner(with_memory_key(settings(tmp_path)), (CA.certificate,))


@pytest.fixture
def keyholder(scanner: Scanner) -> Keyholder:
    return Keyholder(scanner)


@pytest.fixture
def flow(scanner: Scanner) -> CaFlow:
    return CaFlow(CA, scanner.clock)


def enrolled(scanner: Scanner, flow: CaFlow) -> Generation:
    generation = scanner.issue(flow)
    assert isinstance(generation, Generation)
    return generation


def advance(scanner: Scanner, step: timedelta) -> None:
    assert isinstance(scanner.clock, SteppedClock)
    scanner.clock.advance(step)


def unreachable(_: Enrollment | OfferedEnrollment) -> Issued:
    raise ServerUnreachable("No answer.", remedy="Check the network.")


def test_what_is_offered_is_sent_as_it_is_and_certified(scanner: Scanner, keyholder: Keyholder, flow: CaFlow) -> None:
    offer = keyholder.offer()

    generation = enrolled(scanner, flow)

    (asked,) = flow.asked
    assert isinstance(asked, OfferedEnrollment)
    assert asked.signed == offer.request
    assert keyholder.matching_pair() == generation
    assert (generation.key_uri, generation.protection) == (offer.key_uri, Protection.MEMORY)
    assert scanner.identities.journal(SIGNING).read() is None


def test_without_an_offer_there_is_nothing_to_do(scanner: Scanner, keyholder: Keyholder, flow: CaFlow) -> None:
    assert scanner.issue(flow) == NotAsked()

    keyholder.offer()
    enrolled(scanner, flow)
    assert scanner.issue(flow) == NotAsked()

    assert len(flow.asked) == 1
    assert scanner.identities.generations(SIGNING) == (1,)


def test_an_offer_is_left_to_the_keyholder(scanner: Scanner, keyholder: Keyholder, flow: CaFlow) -> None:
    """The file has one writer, so nothing that is offered meanwhile is lost."""
    offer = keyholder.offer()
    enrolled(scanner, flow)

    assert read_offer(keyholder.pending, FILES) == offer


def test_a_newer_offer_survives_the_one_that_is_served(scanner: Scanner, keyholder: Keyholder, flow: CaFlow) -> None:
    first = keyholder.offer()
    newer: list[Offer] = []

    def meanwhile(asked: Enrollment | OfferedEnrollment) -> Issued:
        flow.answer = None
        newer.append(keyholder.offer())
        (keyholder.pending / f".{FILE_NAME}.0123456789abcdef").touch()  # the next one is being written
        answer = CaFlow(CA, scanner.clock).enroll(asked)
        assert isinstance(answer, Issued)
        return answer

    flow.answer = meanwhile

    assert enrolled(scanner, flow).key_uri == first.key_uri
    assert waiting_offer(SIGNING, scanner.identities, scanner.clock) == newer[0]
    assert {path.name for path in keyholder.pending.iterdir()} == {FILE_NAME, f".{FILE_NAME}.0123456789abcdef"}
    assert enrolled(scanner, flow).key_uri == newer[0].key_uri
    assert keyholder.matching_pair() is not None


def test_what_is_left_of_the_journal_goes_and_the_directory_stays(
    scanner: Scanner, keyholder: Keyholder, flow: CaFlow
) -> None:
    """Somebody who writes into it must not find it gone."""
    keyholder.offer()
    (keyholder.pending / ".issued.pem.0123456789abcdef").touch()
    enrolled(scanner, flow)
    keyholder.pending.joinpath(FILE_NAME).unlink()

    assert list(keyholder.pending.iterdir()) == []


def test_ten_rotations_leave_ten_certificates_and_no_key(
    scanner: Scanner, keyholder: Keyholder, flow: CaFlow, tmp_path: Path
) -> None:
    generations = []
    for _ in range(10):
        keyholder.offer()
        generations.append(enrolled(scanner, flow))
        advance(scanner, timedelta(days=5))

    assert scanner.identities.generations(SIGNING) == tuple(range(1, 11))
    assert keyholder.matching_pair() == generations[-1]
    for before in generations:
        assert scanner.identities.chain_file(before).is_file()
        assert scanner.identities.key_uri(SIGNING, before.number) == before.key_uri
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for uri in keyholder.keys.list():
        assert not any(secret in data for data in files for secret in private_parts(keyholder, uri))
    assert not any(b"PRIVATE KEY" in data for data in files)


def private_parts(keyholder: Keyholder, uri: str) -> tuple[bytes, ...]:
    key = keyholder.keys.load(uri)
    kind = serialization.PrivateFormat.PKCS8
    encodings = (serialization.Encoding.DER, serialization.Encoding.PEM)
    whole = tuple(key.private_bytes(encoding, kind, serialization.NoEncryption()) for encoding in encodings)
    number = key.private_numbers()
    assert hasattr(number, "private_value")
    return (*whole, number.private_value.to_bytes(32, "big"))


# --- going on


def test_a_202_is_repeated_for_the_same_offer(scanner: Scanner, keyholder: Keyholder, flow: CaFlow) -> None:
    """RFC 7030 4.2.3."""
    offer = keyholder.offer()
    wait = Pending(scanner.clock.now() + timedelta(hours=1), "waiting for approval")
    flow.answer = lambda _: wait

    assert scanner.issue(flow) == wait
    write_offer(offer, keyholder.pending, FILES)  # the keyholder offers it again and again
    assert scanner.restarted().issue(flow) == wait
    assert len(flow.asked) == 1

    advance(scanner, timedelta(hours=1))
    flow.answer = None
    assert enrolled(scanner.restarted(), flow).key_uri == offer.key_uri


def test_a_request_for_a_key_that_is_gone_is_forgotten(scanner: Scanner, keyholder: Keyholder, flow: CaFlow) -> None:
    """The agent was started anew: it holds another key."""
    keyholder.offer()
    flow.answer = lambda _: Pending(scanner.clock.now() + timedelta(hours=1), "waiting for approval")
    scanner.issue(flow)

    restarted = Keyholder(scanner)
    offer = restarted.offer()
    flow.answer = None

    assert enrolled(scanner, flow).key_uri == offer.key_uri
    assert restarted.matching_pair() is not None


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["check_issued", "_Transaction._commit"])
def test_what_was_issued_before_a_crash_costs_no_second_certificate(
    scanner: Scanner, keyholder: Keyholder, flow: CaFlow, where: str
) -> None:
    keyholder.offer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"enroll.issue.{where}", interrupt)
        with pytest.raises(KeyboardInterrupt):
            scanner.issue(flow)
    pending = scanner.identities.journal(SIGNING).read()
    assert pending is not None
    assert pending.step in {Step.ISSUED, Step.VERIFIED}

    flow.answer = unreachable
    assert enrolled(scanner.restarted(), flow).number == 1
    assert keyholder.matching_pair() is not None
    assert len(flow.asked) == 1


def test_what_was_issued_for_a_key_that_is_gone_is_forgotten(
    scanner: Scanner, keyholder: Keyholder, flow: CaFlow
) -> None:
    keyholder.offer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("enroll.issue.check_issued", interrupt)
        with pytest.raises(KeyboardInterrupt):
            scanner.issue(flow)

    restarted = Keyholder(scanner)
    restarted.offer()
    enrolled(scanner, flow)

    assert restarted.matching_pair() is not None


def test_an_offer_whose_key_is_worn_out_is_not_sent(scanner: Scanner, keyholder: Keyholder, flow: CaFlow) -> None:
    """The scanner was off for a month, and the agent has not begun yet."""
    keyholder.offer()
    advance(scanner, timedelta(days=30))

    assert scanner.issue(flow) == NotAsked()
    assert flow.asked == []


def test_an_offer_that_was_taken_back_ends_its_request(scanner: Scanner, keyholder: Keyholder, flow: CaFlow) -> None:
    keyholder.offer()
    flow.answer = unreachable
    with pytest.raises(ServerUnreachable):
        scanner.issue(flow)
    (keyholder.pending / FILE_NAME).unlink()

    assert scanner.issue(flow) == NotAsked()
    assert scanner.identities.journal(SIGNING).read() is None


def test_a_damaged_identity_is_enrolled_anew(scanner: Scanner, keyholder: Keyholder, flow: CaFlow) -> None:
    keyholder.offer()
    scanner.identities.chain_file(enrolled(scanner, flow)).write_bytes(b"")

    keyholder.offer()

    assert enrolled(scanner, flow).number == 2
    assert keyholder.matching_pair() is not None


# --- the CA says no, or we do


def refusing(_: Enrollment | OfferedEnrollment) -> Refused:
    return Refused("not on the list", "CA operator")


def another_key(_: Enrollment | OfferedEnrollment) -> Issued:
    return Issued((CA.issue(new_key().public_key()),))


def over_already(asked: Enrollment | OfferedEnrollment) -> Issued:
    certificate = CA.issue(asked.public_key)
    begin = certificate.not_valid_before_utc
    return Issued((with_period(certificate, CA.key, period_value(begin, begin + timedelta(seconds=1))),))


def after_the_key_is_gone(asked: Enrollment | OfferedEnrollment) -> Issued:
    """RFC 3280 4.2.1.4: the keyholder keeps to what it asked for."""
    certificate = CA.issue(asked.public_key)
    begin = certificate.not_valid_before_utc + timedelta(days=8)
    return Issued((with_period(certificate, CA.key, period_value(begin)),))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refusing, EnrollmentRefused),
        (another_key, CertificateRefused),
        (over_already, CertificateRefused),
        (after_the_key_is_gone, CertificateRefused),
    ],
)
def test_after_a_refusal_the_offer_is_tried_again(
    scanner: Scanner,
    keyholder: Keyholder,
    flow: CaFlow,
    answer: Callable[[Enrollment | OfferedEnrollment], Issued | Refused],
    error: type[Exception],
) -> None:
    offer = keyholder.offer()
    flow.answer = answer
    with pytest.raises(error):
        scanner.issue(flow)
    assert scanner.identities.current(SIGNING) is None
    assert scanner.identities.journal(SIGNING).read() is None

    flow.answer = None
    assert enrolled(scanner, flow).key_uri == offer.key_uri


def test_an_offer_of_somebody_else_is_not_sent(scanner: Scanner, keyholder: Keyholder, flow: CaFlow) -> None:
    """Whoever writes the file gets no certificate for authenticating the scanner."""
    now = scanner.clock.now()
    request = build(
        new_key(),
        CertificateRequest.for_device(DEVICE, Usage.DEVICE),
        usage_period=(now, now + timedelta(days=7)),
        protection=Protection.MEMORY,
    )
    write_offer(Offer("memory:signing-1", request), keyholder.pending, FILES)

    with pytest.raises(StateError) as refusal:
        scanner.issue(flow)

    assert refusal.value.code == "offer-unfit"
    assert flow.asked == []


def test_a_damaged_offer_is_not_sent_and_the_next_one_is(scanner: Scanner, keyholder: Keyholder, flow: CaFlow) -> None:
    keyholder.offer()
    (keyholder.pending / FILE_NAME).write_bytes(b"{")
    with pytest.raises(StateError, match="damaged"):
        scanner.issue(flow)

    keyholder.offer()
    assert enrolled(scanner, flow).number == 1


def test_an_offer_made_for_another_configuration_is_not_sent(
    scanner: Scanner, keyholder: Keyholder, flow: CaFlow
) -> None:
    keyholder.offer()
    renamed = scanner.restarted(device=replace(scanner.settings.device, model="Example CT plus"))

    with pytest.raises(StateError, match="Restart the agent"):
        renamed.issue(flow)


# --- from one key store to another


def test_a_key_in_a_store_is_followed_by_one_in_memory_and_the_other_way_round(
    scanner: Scanner, keyholder: Keyholder, flow: CaFlow
) -> None:
    in_store = IdentitiesSettings(
        signing=SigningIdentitySettings(key_store=StoreName.SOFTWARE, key_algorithm=KeyAlgorithm.P_256)
    )
    stored = scanner.restarted(identity=in_store)
    assert enrolled(stored, flow).protection is Protection.SOFTWARE

    keyholder.offer()
    assert enrolled(scanner, flow).protection is Protection.MEMORY

    keyholder.offer()
    assert enrolled(stored, flow).protection is Protection.SOFTWARE
    assert stored.matching_pair() is not None
