"""The maintenance window, over midnight and on the days when the clock is changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enroll.errors import ConfigurationError
from enroll.renewal.window import MaintenanceWindow

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT, NOON = "22:00-05:00", "11:30-12:30"


def window(text: str, zone: ZoneInfo | timezone = UTC) -> MaintenanceWindow:
    found = MaintenanceWindow.read(text, zone)
    assert found is not None
    return found


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_without_one_nothing_waits() -> None:
    assert MaintenanceWindow.read("") is None


@pytest.mark.parametrize("text", ["22:00", "22:00-", "24:00-05:00", "22:00-05:60", "22:00-22:00", "8:00-9:00", "x"])
def test_what_is_no_part_of_a_day_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"22:00-05:00"):
        MaintenanceWindow.read(text)


@pytest.mark.parametrize(
    ("text", "ready", "now", "own", "opens"),
    [
        pytest.param(NIGHT, "02T14:00", "02T14:00", 0, "02T22:00", id="waits for the evening"),
        pytest.param(NIGHT, "02T14:00", "02T14:00", 1, "03T01:30", id="the last of the first half"),
        pytest.param(NIGHT, "02T23:00", "02T23:10", 1, "02T23:00", id="ready while it is open"),
        pytest.param(NIGHT, "03T04:59", "03T04:59", 1, "03T04:59", id="ready after midnight"),
        pytest.param(NIGHT, "03T04:59", "03T05:00", 0, "03T22:00", id="closed before it was used"),
        pytest.param(NIGHT, "02T14:00", "03T00:10", 0.5, "02T23:45", id="its moment has passed"),
        pytest.param(NIGHT, "02T14:00", "03T06:00", 0, "03T22:00", id="was switched off at night"),
        pytest.param(NOON, "02T12:30", "02T12:30", 0, "03T11:30", id="the end is not in it"),
        pytest.param(NOON, "02T11:30", "02T11:30", 1, "02T11:30", id="the begin is in it"),
        pytest.param(NOON, "09T14:00", "02T12:00", 0, "10T11:30", id="not due before next week"),
    ],
)
def test_the_moment_of_a_scanner(text: str, ready: str, now: str, own: float, opens: str) -> None:
    march = [at(f"2027-03-{moment}") for moment in (ready, now, opens)]

    assert window(text).opens(march[0], march[1], own) == march[2]


@pytest.mark.parametrize(
    ("text", "now", "opens"),
    [
        pytest.param(NIGHT, "2027-01-10T12:00", "2027-01-10T21:00", id="winter"),
        pytest.param(NIGHT, "2027-07-10T12:00", "2027-07-10T20:00", id="summer"),
        pytest.param("02:00-03:00", "2027-03-27T12:00", "2027-03-29T00:00", id="an hour that the change swallows"),
        pytest.param("02:30-05:00", "2027-03-28T00:00", "2027-03-28T01:30", id="begins in the hour that is left out"),
        pytest.param("02:00-03:00", "2027-10-30T12:00", "2027-10-31T00:00", id="an hour that comes twice"),
    ],
)
def test_times_are_those_of_the_clock_on_the_wall(text: str, now: str, opens: str) -> None:
    assert window(text, BERLIN).opens(at(now), at(now), 0) == at(opens)


MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - see timezones
TIMES = st.integers(0, 24 * 60 - 1).map(lambda minutes: f"{minutes // 60:02}:{minutes % 60:02}")


@given(begin=TIMES, end=TIMES, ready=MOMENTS, now=MOMENTS, own=st.floats(0, 1, exclude_max=True))
def test_there_is_always_a_next_window_within_three_days(
    begin: str, end: str, ready: datetime, now: datetime, own: float
) -> None:
    if begin == end:
        return
    found = window(f"{begin}-{end}", BERLIN)
    opens = found.opens(ready, now, own)

    assert opens >= ready
    assert opens <= max(ready, now) + timedelta(days=3)
    if opens > now:  # and when that moment has come, the window is open and the scanner goes
        assert found.opens(ready, opens, own) == opens
