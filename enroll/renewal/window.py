"""The maintenance window: the hours of the day in which a hospital wants renewals.

A renewal outside would do no harm, as it disturbs no signature; but whoever operates a CA may be awake in some hours
only. Times are those of the clock on the wall (local time), also on the two days of the year when it is changed.

Not all scanners begin with the window: each has a moment of its own in its first half.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Self

from enroll.errors import ConfigurationError

_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
PATTERN = rf"|{_TIME}-{_TIME}"  # as the configuration has it; empty for none
_PART_OF_OPENINGS = 0.5
_DAY = timedelta(days=1)
_DAYS = 4  # the day before, two more, and one that the change of the clock may swallow


@dataclass(frozen=True)
class MaintenanceWindow:
    """Hours of the day; those of a window that ends before it begins go over midnight.

    Args:
        begin: Local time.
        end: Local time; not in the window any more.
        zone: Whose time; None for that of this machine.
    """

    begin: time
    end: time
    zone: tzinfo | None = None

    @classmethod
    def read(cls, text: str, zone: tzinfo | None = None) -> Self | None:
        """What `[renewal] window` says; None where it says nothing.

        Raises:
            ConfigurationError: It is no window.
        """
        if not text:
            return None
        begin, _, end = text.partition("-")
        if not re.fullmatch(PATTERN, text) or begin == end:
            raise ConfigurationError(
                f"[renewal] window {text!r} is no part of a day.", remedy='Write it like "22:00-05:00".'
            )
        return cls(time.fromisoformat(begin), time.fromisoformat(end), zone)

    def __str__(self) -> str:
        return f"{self.begin:%H:%M}-{self.end:%H:%M}"

    def opens(self, ready: datetime, now: datetime, own: float) -> datetime:
        """The moment from which on one scanner renews in the window that is open now, or in the next one.

        Args:
            ready: When it would, without a window; one that is open then is used at once.
            now: The time.
            own: The number of this scanner; see `enroll.renewal.spread`.
        """
        after = max(ready, now)
        begin, end = next((begin, end) for begin, end in self._spans(after) if end > after and end > begin)
        return ready if ready >= begin else begin + (end - begin) * (_PART_OF_OPENINGS * own)

    def _spans(self, moment: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Begin and end of the windows around a moment, beginning with that of the day before."""
        day = moment.astimezone(self.zone).date() - _DAY
        over_midnight = _DAY if self.end < self.begin else timedelta()
        for _ in range(_DAYS):
            yield self._moment(day, self.begin), self._moment(day + over_midnight, self.end)
            day += _DAY

    def _moment(self, day: date, at: time) -> datetime:
        return datetime.combine(day, at, self.zone).astimezone(UTC)
