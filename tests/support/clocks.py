"""A clock that a test moves by hand."""

from __future__ import annotations

from datetime import datetime, timedelta

from tests.support.pki import NOW

_UPTIME = 86_400.0  # seconds; longer than any clock takes to be set after a start


class SteppedClock:
    """Stands still at `moment` until it is moved; `advance` lets time pass, and setting `moment` sets the clock."""

    def __init__(self, moment: datetime = NOW, *, uptime: float = _UPTIME) -> None:
        self.moment = moment
        self.elapsed = 0.0
        self.uptime = uptime
        self.boot = 1

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.elapsed

    def boottime(self) -> float:
        return self.uptime

    def boot_id(self) -> str:
        return f"boot-{self.boot}"

    def reboot(self, off: timedelta = timedelta(0), *, uptime: float = 0.0) -> None:
        """Switch the machine off and on again; its wall clock goes on meanwhile."""
        self.moment += off
        self.uptime = uptime
        self.boot += 1

    def sleep(self, seconds: float) -> None:
        self.advance(timedelta(seconds=seconds))

    def advance(self, step: timedelta) -> None:
        self.moment += step
        self.elapsed += step.total_seconds()
        self.uptime += step.total_seconds()
