"""The floor under every clock is not older than what was released."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from enroll.build_time import BUILD_TIME
from enroll.clock import SystemClock
from tests.support.pki import NOW

CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"


def test_the_build_time_is_not_older_than_the_newest_release() -> None:
    """Whoever dates a release in the changelog sets it, too."""
    dates = re.findall(r"^## \[[^]]+\] - ([0-9]{4}-[0-9]{2}-[0-9]{2})$", CHANGELOG.read_text("utf-8"), re.MULTILINE)
    released = [datetime.fromisoformat(date).replace(tzinfo=UTC) for date in dates]

    assert all(moment <= BUILD_TIME for moment in released)


def test_the_build_time_is_no_moment_to_come() -> None:
    """Or every clock that is right would be doubted. The tests' own time lies after it as well."""
    assert BUILD_TIME <= NOW
    assert SystemClock().now() + timedelta(minutes=5) > BUILD_TIME


def test_the_build_time_is_a_whole_day() -> None:
    assert BUILD_TIME.replace(hour=0, minute=0, second=0, microsecond=0) == BUILD_TIME
