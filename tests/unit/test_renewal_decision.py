"""Renew now or wait: everything that may speak against it, and that nothing does so for ever."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enroll.renewal.decision import Facts, Life, Obstacle, Reason, Renew, Wait, decide
from enroll.renewal.silence import Purpose, Silence
from enroll.renewal.window import MaintenanceWindow
from tests.support.pki import NOW

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
LIFE = Life(NOW - DAY, NOW - 61 * DAY, NOW + 29 * DAY)
DUE = Facts(NOW, ("CT-000123", "device"), LIFE)
NOON = NOW.replace(hour=12, minute=0, second=0, microsecond=0)
NIGHT = MaintenanceWindow.read("22:00-05:00", UTC)


def silence(failures: int, at: datetime, not_before: datetime | None = None) -> Silence:
    return Silence("ca.example", Purpose.ENROLLMENT, failures, at, at, not_before)


def failed(failures: int, at: datetime) -> dict[str, Any]:
    return {"failures": failures, "failed_at": at}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        pytest.param({}, Reason.DUE, id="it is due"),
        pytest.param({"life": None}, Reason.WANTED, id="there is none yet"),
        pytest.param({"life": replace(LIFE, due=NOW + DAY), "at_once": True}, Reason.AT_ONCE, id="superseded"),
        pytest.param({"life": replace(LIFE, end=NOW - 400 * DAY)}, Reason.DUE, id="it has ended long ago"),
        pytest.param(failed(1, NOW - MINUTE), Reason.DUE, id="a minute after a failure"),
        pytest.param(failed(2, NOW - 10 * MINUTE), Reason.DUE, id="ten minutes after the second"),
        pytest.param(failed(10**9 - 1, NOW - 1.1 * DAY), Reason.DUE, id="a day after the last of very many"),
        pytest.param(failed(99, NOW + HOUR), Reason.DUE, id="a failure in the future is of a wrong clock"),
        pytest.param({"silence": silence(99, NOW + HOUR)}, Reason.DUE, id="so is a silence"),
        pytest.param({"silence": silence(1, NOW - HOUR)}, Reason.DUE, id="the server may be back"),
        pytest.param({"life": replace(LIFE, came=NOW - DAY)}, Reason.DUE, id="it came a day ago, and is due"),
        pytest.param(
            {"life": replace(LIFE, came=NOW - 6 * HOUR, end=NOW + 18 * HOUR)},
            Reason.DUE,
            id="a quarter of what was left is over",
        ),
        pytest.param({"life": replace(LIFE, came=NOW + HOUR)}, Reason.DUE, id="it came in the future"),
        pytest.param(
            {"life": replace(LIFE, came=NOW - 100 * MINUTE), "at_once": True},
            Reason.DUE,
            id="it came 100 minutes ago, and is damaged",
        ),
        pytest.param(
            {"life": Life(NOW + HOUR, NOW - HOUR, NOW + HOUR, NOW - 30 * MINUTE), "at_once": True},
            Reason.AT_ONCE,
            id="a quarter of its lifetime ago, and is superseded",
        ),
        pytest.param({"doubted": True}, Reason.DUE, id="the first attempt of a clock in doubt"),
        pytest.param({"doubted": True, **failed(1, NOW - HOUR)}, Reason.DUE, id="an hour later, in doubt"),
        pytest.param(
            {"window": NIGHT, "now": NOON + 11 * HOUR, "life": replace(LIFE, due=NOON + 10 * HOUR)},
            Reason.DUE,
            id="in the window",
        ),
        pytest.param(
            {"window": NIGHT, "now": NOON, "life": replace(LIFE, end=NOON + 47 * HOUR)},
            Reason.DUE,
            id="two days before the end no window counts",
        ),
        pytest.param(
            {"window": NIGHT, "now": NOON, "life": Life(NOON, NOON - 900 * DAY, NOON + 99 * DAY)},
            Reason.DUE,
            id="nor with a tenth of the life left",
        ),
        pytest.param({"window": NIGHT, "now": NOON, "life": None}, Reason.WANTED, id="nor for the first certificate"),
        pytest.param({"window": NIGHT, "now": NOON, "at_once": True}, Reason.DUE, id="nor where it is to be at once"),
    ],
)
def test_it_renews_when(changes: dict[str, Any], why: Reason) -> None:
    assert decide(replace(DUE, **changes)) == Renew(why)


@pytest.mark.parametrize(
    ("changes", "until", "why"),
    [
        pytest.param({"life": replace(LIFE, due=NOW + DAY)}, NOW + DAY, Obstacle.NOT_DUE, id="it is not due"),
        pytest.param({"life": replace(LIFE, came=NOW - HOUR)}, NOW + 23 * HOUR, Obstacle.RECENT, id="it has just come"),
        pytest.param(
            {"life": replace(LIFE, came=NOW - HOUR, end=NOW + 7 * HOUR)},
            NOW + HOUR,
            Obstacle.RECENT,
            id="it has just come, and is short",
        ),
        pytest.param(
            {"life": replace(LIFE, came=NOW - 10 * MINUTE), "at_once": True},
            NOW + 90 * MINUTE,
            Obstacle.RECENT,
            id="what came ten minutes ago is bad again",
        ),
        pytest.param(
            {"life": Life(NOW - 9 * DAY, NOW - 12 * DAY, NOW - DAY, NOW), "at_once": True},
            NOW + 100 * MINUTE,
            Obstacle.RECENT,
            id="what came is damaged, and the one before has ended",
        ),
        pytest.param(
            {"life": Life(NOW, NOW - HOUR, NOW + HOUR, NOW), "at_once": True, "doubted": True},
            NOW + HOUR,
            Obstacle.DOUBT,
            id="in doubt an hour after a success too",
        ),
        pytest.param({"waits_until": NOW + HOUR}, NOW + HOUR, Obstacle.UNDECIDED, id="the CA has not decided"),
        pytest.param(failed(1, NOW), NOW + MINUTE, Obstacle.FAILED, id="it has just failed"),
        pytest.param(
            failed(3, NOW - HOUR),
            NOW + 40 * MINUTE,
            Obstacle.FAILED,
            id="it has failed for the third time",
        ),
        pytest.param(
            {"at_once": True, **failed(1, NOW)},
            NOW + MINUTE,
            Obstacle.FAILED,
            id="even where it is urgent",
        ),
        pytest.param({"life": None, **failed(2, NOW)}, NOW + 10 * MINUTE, Obstacle.FAILED, id="the first one too"),
        pytest.param(
            {"silence": silence(2, NOW)},
            NOW + 10 * MINUTE,
            Obstacle.SILENT,
            id="another identity found no answer",
        ),
        pytest.param(
            {"silence": silence(1, NOW, NOW + 5 * HOUR)},
            NOW + 5 * HOUR,
            Obstacle.SILENT,
            id="the server said when",
        ),
        pytest.param(
            {"silence": silence(1, NOW, NOW + 50 * DAY)},
            NOW + DAY,
            Obstacle.SILENT,
            id="a day is the most it gets",
        ),
        pytest.param(
            {"silence": silence(1, NOW, NOW - DAY)},
            NOW + MINUTE,
            Obstacle.SILENT,
            id="it said a time that is over",
        ),
        pytest.param({"doubted": True, **failed(1, NOW)}, NOW + HOUR, Obstacle.DOUBT, id="in doubt once an hour"),
        pytest.param(
            {"doubted": True, "silence": silence(1, NOW)},
            NOW + HOUR,
            Obstacle.DOUBT,
            id="in doubt, of all identities",
        ),
        pytest.param(
            {"life": replace(LIFE, due=NOW + DAY), **failed(1, NOW)},
            NOW + DAY,
            Obstacle.NOT_DUE,
            id="the last of all decides",
        ),
    ],
)
def test_it_waits_when(changes: dict[str, Any], until: datetime, why: Obstacle) -> None:
    assert decide(replace(DUE, **changes)) == Wait(until, why)


def test_in_a_closed_window_it_waits_for_the_moment_of_this_scanner() -> None:
    decision = decide(replace(DUE, window=NIGHT, now=NOON, life=replace(LIFE, due=NOON - HOUR)))

    assert isinstance(decision, Wait)
    assert decision.why is Obstacle.CLOSED
    assert NOON + 10 * HOUR <= decision.until <= NOON + 13.5 * HOUR


MOMENTS = st.timedeltas(-400 * DAY, 400 * DAY).map(lambda step: NOW + step)
COUNTS = st.integers(0, 10**9)
LIVES = st.builds(
    lambda due, rest, came: Life(due, due - 2 * rest, due + rest, came),
    MOMENTS,
    st.timedeltas(HOUR, 900 * DAY),
    st.none() | MOMENTS,
)
SILENCES = st.builds(silence, st.integers(1, 10**9), MOMENTS, st.none() | MOMENTS)
FACTS = st.builds(
    Facts,
    now=st.just(NOW),
    names=st.tuples(st.text("0123456789"), st.just("device")),
    life=st.none() | LIVES,
    at_once=st.booleans(),
    waits_until=st.none() | st.timedeltas(-DAY, DAY).map(lambda step: NOW + step),
    failures=COUNTS,
    failed_at=st.none() | MOMENTS,
    silence=st.none() | SILENCES,
    window=st.sampled_from([None, NIGHT, MaintenanceWindow.read("11:00-11:10", UTC)]),
    doubted=st.booleans(),
)


@given(facts=FACTS)
def test_whatever_has_failed_there_is_another_attempt_within_days_of_its_being_due(facts: Facts) -> None:
    decision = decide(facts)
    ready = facts.now if facts.life is None or facts.at_once else max(facts.now, facts.life.due)

    assert isinstance(decision, Renew) or facts.now < decision.until <= ready + 4 * DAY


@given(facts=FACTS)
def test_when_the_moment_has_come_that_was_named_it_renews(facts: Facts) -> None:
    decision = decide(facts)
    if isinstance(decision, Wait) and (facts.failed_at is None or facts.failed_at <= NOW):
        noted = (facts.silence.at if facts.silence else None, facts.life.came if facts.life else None)
        if all(moment is None or moment <= NOW for moment in noted):
            assert isinstance(decide(replace(facts, now=decision.until)), Renew)


@given(facts=FACTS)
def test_in_doubt_there_is_never_more_than_one_attempt_an_hour(facts: Facts) -> None:
    attempts = [facts.failed_at if facts.failures else None, facts.life.came if facts.life else None]
    if any(moment is not None and timedelta() <= NOW - moment < HOUR for moment in attempts):
        assert isinstance(decide(replace(facts, doubted=True)), Wait)
