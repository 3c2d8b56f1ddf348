"""When a scanner tries again: 1, 10 and 100 minutes, then daily, more often near the end, and for ever."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enroll.renewal.ladder import LAST_SPANS, next_attempt
from tests.support.pki import NOW

FAR = NOW + timedelta(days=3650)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
MOMENTS = st.timedeltas(timedelta(days=-4000), timedelta(days=20000)).map(lambda step: NOW + step)
NAMES = st.text("0123456789", min_size=1, max_size=8)


def attempts(begin: datetime, end: datetime | None, until: datetime, *names: str) -> list[datetime]:
    """Every attempt of a scanner whose CA never answers."""
    found = [begin]
    while (following := next_attempt(found[-1], len(found), end, *names)) < until:
        found.append(following)
    return found


def test_the_first_three_are_in_minutes() -> None:
    assert [next_attempt(NOW, failures, FAR, "CT-1") - NOW for failures in (1, 2, 3)] == [
        1 * MINUTE,
        10 * MINUTE,
        100 * MINUTE,
    ]


@pytest.mark.parametrize("failures", [4, 5, 40, 5000, 999_999_999])
def test_then_it_is_daily_a_tenth_more_or_less_each_scanner_otherwise(failures: int) -> None:
    waits = [next_attempt(NOW, failures, FAR, f"CT-{number}") - NOW for number in range(300)]

    assert min(waits) >= DAY * 0.9
    assert max(waits) <= DAY * 1.1
    assert max(waits) - min(waits) > DAY * 0.18


def test_near_the_end_there_is_one_attempt_in_each_span() -> None:
    end = NOW + timedelta(days=90)
    for scanner in range(200):
        tried = attempts(NOW + timedelta(days=60), end, end + timedelta(days=3), f"CT-{scanner}")
        for longer, shorter in pairwise(LAST_SPANS):
            assert any(end - longer <= moment <= end - shorter for moment in tried), (scanner, longer)
        assert any(end <= moment <= end + DAY for moment in tried)


def test_a_daily_attempt_waits_for_a_moment_near_the_end_that_comes_within_a_day_and_a_tenth() -> None:
    """Else it would be one more request, an hour before another."""
    end = NOW + timedelta(days=90)
    for scanner in range(200):
        tried = attempts(NOW + timedelta(days=60), end, end, f"CT-{scanner}")
        before = max(moment for moment in tried if moment < end - 2 * DAY)
        own = next_attempt(end - 2 * DAY - MINUTE, 4, end, f"CT-{scanner}")

        assert next_attempt(before, 4, end, f"CT-{scanner}") == own or before + DAY * 1.1 < own


@pytest.mark.parametrize("minutes", [10, 30, 60])
def test_what_ends_soon_after_another_brings_no_attempts_of_its_own(minutes: int) -> None:
    """Two identities that go to one server: in the last hours, what asked for the one has asked for the other."""
    first = NOW + timedelta(days=90)
    later = first + minutes * MINUTE
    for scanner in range(200):
        tried = attempts(NOW + timedelta(days=60), first, first, f"CT-{scanner}")
        near = [moment for moment in tried if moment >= first - DAY / 2]
        brought = [next_attempt(moment, 5, later, f"CT-{scanner}") for moment in near[:-1]]

        assert all(
            following - moment >= timedelta(minutes=60) for moment, following in zip(near, brought, strict=False)
        )


def test_a_month_without_a_ca_and_the_end_in_it_takes_at_most_forty_attempts() -> None:
    end = NOW + timedelta(days=90)
    counts = [len(attempts(NOW + timedelta(days=60), end, end, f"CT-{scanner}")) for scanner in range(500)]

    assert max(counts) <= 37
    assert min(counts) >= 30


@pytest.mark.parametrize("lifetime", [timedelta(hours=1), timedelta(hours=8), timedelta(days=2)])
def test_a_certificate_that_lives_for_hours_is_tried_several_times_before_its_end(lifetime: timedelta) -> None:
    end = NOW + lifetime

    assert len(attempts(NOW + lifetime / 2, end, end, "CT-1")) >= 4


def test_after_an_outage_that_lasted_until_after_the_end_scanners_have_come_apart() -> None:
    """All certificates of a site may end in the same second, and in the last hour all were tried."""
    end = NOW + timedelta(days=90)
    hours = [0] * 24
    for scanner in range(1000):
        after = [
            moment for moment in attempts(NOW + timedelta(days=60), end, end + DAY, f"CT-{scanner}") if moment >= end
        ]
        for moment in after:
            hours[(moment - end) // timedelta(hours=1)] += 1

    assert max(hours) <= 3 * sum(hours) / 24


@given(last=MOMENTS, failures=st.integers(1, 10**9), end=st.none() | MOMENTS, name=NAMES)
def test_there_is_always_another_attempt_and_never_later_than_a_day_and_a_tenth(
    last: datetime, failures: int, end: datetime | None, name: str
) -> None:
    following = next_attempt(last, failures, end, name)

    assert last < following <= last + DAY * 1.1


@given(last=MOMENTS, failures=st.integers(1, 3), end=MOMENTS, name=NAMES)
def test_an_end_puts_no_step_in_minutes_off(last: datetime, failures: int, end: datetime, name: str) -> None:
    assert next_attempt(last, failures, end, name) <= next_attempt(last, failures, None, name)


@given(last=MOMENTS, step=st.timedeltas(timedelta(), timedelta(days=10)), failures=st.integers(1, 100), name=NAMES)
def test_a_later_attempt_is_not_followed_earlier(last: datetime, step: timedelta, failures: int, name: str) -> None:
    end = NOW + timedelta(days=90)
    if failures > 3:  # the rungs in minutes are shorter where less is left
        assert next_attempt(last, failures, end, name) <= next_attempt(last + step, failures, end, name)


@pytest.mark.parametrize("year", [1, 1970, 2038, 9999])
def test_a_clock_at_the_end_of_time_is_no_crash(year: int) -> None:
    moment = NOW.replace(year=year)

    assert next_attempt(moment, 4, moment, "CT-1").year in (year, max(min(year, 9000), 1900))
