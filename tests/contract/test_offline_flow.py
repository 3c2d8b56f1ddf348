"""The rules of tests/contract/test_flow.py for the flow that has no server: a person carries its files.

The CA is that of the tests, and answers by the request that is in the file.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

import enroll.flows
from enroll.certificates import pem
from enroll.errors import EnrollmentError, ScansealError
from enroll.flows.base import Pending
from enroll.flows.offline import Errand, OfflineFlow
from enroll.flows.settings import FlowName
from enroll.identity import Generation
from enroll.offline_request import read_offline_request
from tests.support.by_hand import DEVICE, ByHand, granted
from tests.support.clocks import SteppedClock
from tests.support.pki import HospitalCa

CA = HospitalCa()


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def by_hand(tmp_path: Path, clock: SteppedClock) -> ByHand:
    return ByHand(tmp_path, CA, clock=clock)


def ask(by_hand: ByHand) -> Generation:
    """A request, and its answer after a restart of everything."""
    _, file = by_hand.restarted().export(DEVICE)
    (generation,) = by_hand.restarted().take_in(pem([by_hand.granted(file)]))
    return generation


def test_the_certificate_is_in_use_with_its_key(by_hand: ByHand) -> None:
    generation = ask(by_hand)

    assert generation.flow == FlowName.OFFLINE
    assert by_hand.scanner.matching_pair(DEVICE) == generation


def test_a_renewal_brings_a_new_key_and_a_new_certificate(by_hand: ByHand, clock: SteppedClock) -> None:
    first = ask(by_hand)
    clock.advance(timedelta(days=200))
    second = ask(by_hand)

    assert second.key_uri != first.key_uri
    assert second.certificate.serial_number != first.certificate.serial_number
    assert by_hand.scanner.matching_pair(DEVICE) == second


def test_a_refusal_says_who_must_act_and_leaves_what_is_in_use(by_hand: ByHand) -> None:
    in_use = ask(by_hand)
    _, file = by_hand.export(DEVICE)

    with pytest.raises(ScansealError) as caught:
        by_hand.take_in(pem([granted(HospitalCa("Other CA"), read_offline_request(file))]))

    assert caught.value.who_must_act
    assert "stays in use" in caught.value.what_next
    assert by_hand.scanner.matching_pair(DEVICE) == in_use


def test_a_ca_that_does_not_answer_leaves_what_is_in_use_and_the_request_under_way(
    by_hand: ByHand, clock: SteppedClock
) -> None:
    in_use = ask(by_hand)
    request, _ = by_hand.export(DEVICE)
    clock.advance(timedelta(days=29))

    assert by_hand.restarted().out() == {request.number: "waiting"}
    assert by_hand.scanner.matching_pair(DEVICE) == in_use


def test_a_request_that_waits_is_the_same_one_until_it_is_decided(by_hand: ByHand, clock: SteppedClock) -> None:
    request, file = by_hand.export(DEVICE)
    clock.advance(timedelta(days=10))

    (generation,) = by_hand.restarted().take_in(pem([by_hand.granted(file)]))

    assert generation.key_uri == request.pending.key_uri
    assert by_hand.scanner.identities.generations(DEVICE) == (1,)


def test_it_is_pending_as_soon_as_the_file_is_written(by_hand: ByHand) -> None:
    request, _ = by_hand.export(DEVICE)
    written: list[bytes] = []
    errand = Errand(request.number, "", "request.txt", written.append)

    with OfflineFlow.connect(DEVICE, by_hand.scanner.context, errand) as flow:
        answer = by_hand.scanner.issue(flow, DEVICE)

    assert isinstance(answer, Pending)
    assert answer.reason
    assert len(written) == 1


def test_nothing_is_asked_where_an_answer_is_taken_in(by_hand: ByHand) -> None:
    with OfflineFlow.connect(DEVICE, by_hand.scanner.context) as flow, pytest.raises(EnrollmentError):
        by_hand.scanner.issue(flow, DEVICE)


def test_what_would_be_sent_is_told_without_sending(by_hand: ByHand) -> None:
    written: list[bytes] = []

    plan = by_hand.desk.plan(DEVICE, Errand("20261122-000000", "", "request.txt", written.append))

    assert all(exchange.to and exchange.what and exchange.proof for exchange in plan)
    assert written == []


def test_its_name_is_that_of_its_module() -> None:
    (folder,) = enroll.flows.__path__

    assert Path(folder, OfflineFlow.name).is_dir()
    assert OfflineFlow.name == FlowName.OFFLINE
