"""Requests that are carried by hand: how they leave, wait, are answered and end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from agent.cli import enrollment_state
from enroll.certificates import pem
from enroll.config import StoreName
from enroll.errors import (
    CertificateRefused,
    ConfigurationError,
    KeyNotFound,
    ProtocolViolation,
    ScansealError,
    StateError,
)
from enroll.failure import Failures
from enroll.flows.offline import Errand
from enroll.flows.offline.desk import REQUESTS_LIMIT
from enroll.flows.offline.ended import ENDED_LIMIT, End, Ended, EndedRequests
from enroll.issue import PENDING_LIFETIME
from enroll.offline_request import read_offline_request
from enroll.statefile import StateFiles
from tests.support.by_hand import DEVICE, IDEVID, SIGNING, ByHand, der_of, granted
from tests.support.clocks import SteppedClock
from tests.support.enrolling import with_memory_key
from tests.support.pki import HospitalCa, new_key

CA = HospitalCa()
VENDOR = HospitalCa("Vendor CA")


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def by_hand(tmp_path: Path, clock: SteppedClock) -> ByHand:
    return ByHand(tmp_path, CA, VENDOR, clock)


def refused(by_hand: ByHand, *answers: bytes) -> str:
    """The code with which an answer is refused; nothing in use and no key has changed."""
    before = (by_hand.scanner.identities.pointer(SIGNING), set(by_hand.scanner.stores.list()))
    with pytest.raises(ScansealError) as caught:
        by_hand.take_in(*answers)
    assert (by_hand.scanner.identities.pointer(SIGNING), set(by_hand.scanner.stores.list())) == before
    assert caught.value.remedy
    return caught.value.code


def test_the_answer_puts_the_key_of_its_request_into_use(by_hand: ByHand) -> None:
    request, file = by_hand.export()

    (generation,) = by_hand.restarted().take_in(pem([by_hand.granted(file)]))

    assert generation.key_uri == request.pending.key_uri
    assert generation.flow == "offline"
    assert by_hand.scanner.matching_pair() == generation
    assert by_hand.out() == {}


def test_nothing_is_left_of_requests_that_are_over(by_hand: ByHand) -> None:
    _, answered = by_hand.export()
    cancelled, _ = by_hand.export()

    by_hand.take_in(pem([by_hand.granted(answered)]))
    by_hand.desk.cancel(cancelled.number)

    assert by_hand.folders() == []
    assert len(by_hand.scanner.stores.list()) == 1


def test_several_requests_wait_at_a_time_each_with_a_key_of_its_own(by_hand: ByHand) -> None:
    first, first_file = by_hand.export()
    second, second_file = by_hand.export()
    assert first.pending.key_uri != second.pending.key_uri
    assert by_hand.out() == {first.number: "waiting", second.number: "waiting"}

    by_hand.take_in(pem([by_hand.granted(first_file)]))
    assert by_hand.out() == {second.number: "waiting"}
    (generation,) = by_hand.take_in(pem([by_hand.granted(second_file)]))

    assert generation.key_uri == second.pending.key_uri


def test_answers_to_several_requests_come_in_one_go(by_hand: ByHand) -> None:
    _, device = by_hand.export(DEVICE)
    _, signing = by_hand.export(SIGNING)

    generations = by_hand.take_in(
        pem([by_hand.granted(signing)]), der_of(by_hand.granted(device)), pem([CA.certificate])
    )

    assert {generation.identity for generation in generations} == {DEVICE, SIGNING}


def test_where_one_of_several_answers_does_not_fit_none_is_used(by_hand: ByHand) -> None:
    _, device = by_hand.export(DEVICE)
    _, signing = by_hand.export(SIGNING)
    wrong = granted(HospitalCa("Hospital CA"), read_offline_request(signing))

    assert refused(by_hand, pem([by_hand.granted(device), wrong])) == "certificate-untrusted"

    assert by_hand.scanner.identities.current(DEVICE) is None
    assert sorted(by_hand.out().values()) == ["waiting", "waiting"]


def test_exported_again_a_request_is_the_same(by_hand: ByHand, clock: SteppedClock) -> None:
    request, file = by_hand.export(why="because of the move")
    clock.advance(timedelta(days=3))

    again, second_file = by_hand.restarted().export(why="something else", number=request.number)

    assert read_offline_request(second_file).statement == read_offline_request(file).statement
    assert again.pending.key_uri == request.pending.key_uri
    assert by_hand.out() == {request.number: "waiting"}


def test_a_clock_that_went_back_keeps_no_answer_and_no_file_away(by_hand: ByHand, clock: SteppedClock) -> None:
    request, _ = by_hand.export()
    clock.advance(timedelta(hours=-2))

    _, file = by_hand.export(number=request.number)

    assert by_hand.take_in(pem([by_hand.granted(file, begin=clock.now())]))


def test_an_export_that_was_cut_off_is_gone_on_with(by_hand: ByHand) -> None:
    def full(_: bytes) -> None:
        raise StateError("The stick is full.", remedy="Take another.")

    number = by_hand.desk.number_for(SIGNING)
    with pytest.raises(StateError):
        by_hand.desk.export(SIGNING, Errand(number, "", "request.txt", full))
    assert by_hand.out() == {number: "prepared"}

    request, _ = by_hand.restarted().export()

    assert request.number == number
    assert len(by_hand.scanner.stores.list()) == 1


# --- answers that are refused


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"ca": True}, "certificate-is-ca"),
        ({"subject": x509.Name([])}, "certificate-wrong-names"),
        ({"extended_usage": ()}, "certificate-wrong-usage"),
    ],
)
def test_a_wrong_answer_leaves_the_request_as_it_is(by_hand: ByHand, changes: dict[str, object], code: str) -> None:
    _, file = by_hand.export()

    assert refused(by_hand, pem([by_hand.granted(file, **changes)])) == code

    assert by_hand.take_in(pem([by_hand.granted(file)]))


def test_an_answer_for_another_key_is_none(by_hand: ByHand) -> None:
    _, file = by_hand.export()

    assert refused(by_hand, pem([CA.issue(new_key().public_key())])) == "offline-answer-unknown"
    assert refused(by_hand, pem([CA.certificate])) == "offline-answer-unknown"

    assert by_hand.take_in(pem([by_hand.granted(file)]))


def test_an_answer_is_used_once(by_hand: ByHand) -> None:
    _, file = by_hand.export()
    answer = pem([by_hand.granted(file)])
    by_hand.take_in(answer)

    assert refused(by_hand, answer) == "offline-answer-answered"
    assert refused(by_hand, pem([by_hand.granted(file)])) == "offline-answer-answered"


def test_the_answer_to_a_cancelled_request_is_refused_with_that_reason(by_hand: ByHand) -> None:
    request, file = by_hand.export()
    by_hand.desk.cancel(request.number)

    assert by_hand.scanner.stores.list() == ()
    assert refused(by_hand, pem([by_hand.granted(file)])) == "offline-answer-cancelled"


def test_the_answer_to_an_expired_request_is_refused_with_that_reason(by_hand: ByHand, clock: SteppedClock) -> None:
    _, file = by_hand.export()
    clock.advance(PENDING_LIFETIME + timedelta(minutes=1))
    assert list(by_hand.out().values()) == ["expired"]

    with pytest.raises(CertificateRefused, match="older than 30 days") as caught:
        by_hand.take_in(pem([by_hand.granted(file)]))

    assert caught.value.code == "offline-answer-expired"
    assert by_hand.folders() == []
    assert by_hand.scanner.stores.list() == ()


def test_an_older_request_is_superseded_by_a_newer_one_that_was_answered(by_hand: ByHand, clock: SteppedClock) -> None:
    older, older_file = by_hand.export()
    clock.advance(timedelta(hours=1))
    _, newer_file = by_hand.export()
    clock.advance(timedelta(hours=1))
    by_hand.take_in(pem([by_hand.granted(newer_file)]))

    assert by_hand.out() == {older.number: "superseded"}
    assert refused(by_hand, pem([by_hand.granted(older_file)])) == "offline-answer-superseded"


def test_a_newer_request_is_not_superseded_by_an_older_one(by_hand: ByHand, clock: SteppedClock) -> None:
    _, older_file = by_hand.export()
    clock.advance(timedelta(hours=1))
    newer, newer_file = by_hand.export()
    clock.advance(timedelta(hours=1))
    by_hand.take_in(pem([by_hand.granted(older_file)]))

    assert by_hand.out() == {newer.number: "waiting"}
    assert by_hand.take_in(pem([by_hand.granted(newer_file)]))


def test_a_request_is_superseded_by_what_came_over_a_network_since(by_hand: ByHand, clock: SteppedClock) -> None:
    _, file = by_hand.export()
    clock.advance(timedelta(hours=1))
    by_hand.with_identity(SIGNING, CA)

    assert refused(by_hand, pem([by_hand.granted(file)])) == "offline-answer-superseded"


def test_the_ca_certificate_that_is_missing_is_named(by_hand: ByHand) -> None:
    issuing = HospitalCa("Issuing CA", parent=CA)
    _, file = by_hand.export()
    answer = pem([granted(issuing, read_offline_request(file))])

    with pytest.raises(CertificateRefused, match="CN=Issuing CA is missing") as caught:
        by_hand.take_in(answer)
    assert caught.value.code == "offline-chain-incomplete"
    assert "CA-FILE" in caught.value.remedy

    (generation,) = by_hand.take_in(answer, der_of(issuing.certificate))
    assert generation.chain == (issuing.certificate,)


def test_the_name_of_the_hospitals_ca_is_not_enough(by_hand: ByHand) -> None:
    _, file = by_hand.export()
    stranger = HospitalCa("Hospital CA")

    code = refused(by_hand, pem([granted(stranger, read_offline_request(file)), stranger.certificate]))

    assert code == "certificate-untrusted"


def test_what_the_configuration_no_longer_asks_for_is_not_put_into_use(by_hand: ByHand) -> None:
    _, file = by_hand.export()
    identity = by_hand.scanner.settings.identity
    changed = replace(identity, signing=replace(identity.signing, key_store=StoreName.PKCS11))

    assert refused(by_hand.restarted(identity=changed), pem([by_hand.granted(file)])) == "offline-answer-unfit"

    assert by_hand.take_in(pem([by_hand.granted(file)]))  # put back as it was


def test_a_key_that_is_lost_is_said_to_be(by_hand: ByHand) -> None:
    request, file = by_hand.export()
    by_hand.scanner.stores.destroy(request.pending.key_uri)

    with pytest.raises(KeyNotFound):
        by_hand.take_in(pem([by_hand.granted(file)]))

    by_hand.desk.cancel(request.number)
    assert by_hand.out() == {}


# --- whose certificate, and which CA


def test_the_identities_of_the_vendor_lead_to_the_vendors_anchor(by_hand: ByHand) -> None:
    _, file = by_hand.export(IDEVID)

    assert refused(by_hand, pem([by_hand.granted(file)])) == "offline-chain-incomplete"
    (generation,) = by_hand.take_in(pem([granted(VENDOR, read_offline_request(file))]))

    assert generation.identity is IDEVID


def test_a_key_in_memory_needs_a_network(by_hand: ByHand) -> None:
    memory = with_memory_key(by_hand.scanner.settings)

    with pytest.raises(ConfigurationError, match="memory") as caught:
        by_hand.restarted(identity=memory.identity).export(SIGNING)

    assert "scanseal enroll est --identity signing" in caught.value.remedy
    assert by_hand.folders() == []


def test_without_an_anchor_nothing_is_exported(by_hand: ByHand) -> None:
    settings = by_hand.scanner.settings

    with pytest.raises(ConfigurationError, match=r"\[offline\] anchor_file is not set"):
        by_hand.restarted(offline=replace(settings.offline, anchor_file=None)).export()

    assert by_hand.scanner.stores.list() == ()


@pytest.mark.parametrize("number", ["../../signing", "20260101-ffffff", ""])
def test_only_a_request_that_is_out_can_be_cancelled(by_hand: ByHand, number: str) -> None:
    by_hand.export()

    with pytest.raises(ConfigurationError, match="Nothing was done"):
        by_hand.desk.cancel(number)


@pytest.mark.parametrize("why", ["x" * 201, "two\nlines", "\x1b[31m"])
def test_a_reason_is_one_line(by_hand: ByHand, why: str) -> None:
    with pytest.raises(ConfigurationError, match="reason"):
        by_hand.export(why=why)


def test_what_would_be_written_is_told_without_a_key(by_hand: ByHand) -> None:
    (exchange,) = by_hand.desk.plan(SIGNING, Errand("20261122-000000", "", "request.txt", lambda _: None))

    assert exchange.to == "a file, for the CA"
    assert by_hand.folders() == []
    assert by_hand.scanner.stores.list() == ()


def test_so_many_requests_may_be_out_and_no_more(by_hand: ByHand) -> None:
    """Each has a key, and a token holds few."""
    out = [by_hand.export()[0] for _ in range(REQUESTS_LIMIT)]

    with pytest.raises(ConfigurationError, match="are out") as caught:
        by_hand.export()
    assert caught.value.code == "offline-requests-too-many"
    assert len(by_hand.scanner.stores.list()) == REQUESTS_LIMIT

    by_hand.export(number=out[0].number)  # the same once more
    by_hand.export(DEVICE)  # another identity
    by_hand.desk.cancel(out[0].number)
    by_hand.export()


# --- what status says of it


def last_failure(by_hand: ByHand) -> str:
    failure = Failures(by_hand.scanner.identities).last(SIGNING)
    return f"{failure.flow}: {failure.code}" if failure else ""


def test_an_answer_that_does_not_fit_is_the_last_failure_until_one_does(by_hand: ByHand) -> None:
    _, file = by_hand.export()
    assert refused(by_hand, pem([by_hand.granted(file, ca=True)])) == "certificate-is-ca"
    assert last_failure(by_hand) == "offline: certificate-is-ca"

    by_hand.take_in(pem([by_hand.granted(file)]))
    assert last_failure(by_hand) == ""


def test_an_export_that_fails_is_the_last_failure_until_one_does_not(by_hand: ByHand) -> None:
    settings = by_hand.scanner.settings
    with pytest.raises(ConfigurationError):
        by_hand.restarted(offline=replace(settings.offline, anchor_file=None)).export()
    assert last_failure(by_hand) == "offline: configuration-invalid"

    by_hand.export()
    assert last_failure(by_hand) == ""


def test_status_shows_each_request_with_its_number(by_hand: ByHand, clock: SteppedClock) -> None:
    older, _ = by_hand.export()
    clock.advance(timedelta(hours=1))
    newer, file = by_hand.export()
    context = by_hand.scanner.context
    by_hand.take_in(pem([by_hand.granted(file)]))
    clock.advance(timedelta(hours=1))
    latest, _ = by_hand.export()

    record = enrollment_state.record(SIGNING, context.identities.current(SIGNING), context)

    assert [(each["request"], each["state"]) for each in record["pending"]] == [
        (older.number, "superseded"),
        (latest.number, "waiting"),
    ]
    text = "\n".join(enrollment_state.lines(record))
    assert newer.number not in text
    assert f"request {older.number} by hand since 2026-11-22 12:00 UTC: superseded" in text
    assert f"request {latest.number} by hand since 2026-11-22 14:00 UTC: waiting" in text
    assert "scanseal enroll offline import" in text


# --- the record of what has ended


def test_the_record_of_what_has_ended_is_bounded(tmp_path: Path, clock: SteppedClock) -> None:
    ended = EndedRequests(tmp_path, StateFiles())
    for number in range(ENDED_LIMIT + 10):
        ended.add(Ended(str(number), "ab" * 32, End.CANCELLED, clock.now(), clock.now()))

    assert [one.number for one in ended.read()] == [str(number) for number in range(10, ENDED_LIMIT + 10)]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'[{"number": "x"}]', b"[" * 100_000, b"\xff"])
def test_a_damaged_record_keeps_nothing_from_going_on(by_hand: ByHand, content: bytes) -> None:
    _, file = by_hand.export()
    (by_hand.scanner.identities.directory(SIGNING) / "offline-ended.json").write_bytes(content)

    assert by_hand.take_in(pem([by_hand.granted(file)]))


def test_a_damaged_journal_keeps_no_other_request_from_going_on(by_hand: ByHand) -> None:
    damaged, _ = by_hand.export()
    _, file = by_hand.export()
    (by_hand.scanner.identities.directory(SIGNING) / "offline" / damaged.number / "request.json").write_bytes(b"{")

    assert by_hand.take_in(pem([by_hand.granted(file)]))
    assert by_hand.folders() == []


def test_a_file_that_is_no_answer_says_what_it_is(by_hand: ByHand) -> None:
    _, file = by_hand.export()

    with pytest.raises(ProtocolViolation, match="a request, not the answer to one"):
        by_hand.take_in(file)
