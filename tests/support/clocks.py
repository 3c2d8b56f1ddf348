"""A clock that a test moves by hand."""

from __future__ import annotations

from datetime import datetime, timedelta

from tests.support.pki import NOW


class SteppedClock:
    """Stands still at `moment` until it is moved."""

    def __init__(self, moment: datetime = NOW) -> None:
        self.moment = moment
        self.elapsed = 0.0

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.elapsed

    def sleep(self, seconds: float) -> None:
        self.advance(timedelta(seconds=seconds))

    def advance(self, step: timedelta) -> None:
        self.moment += step
        self.elapsed += step.total_seconds()
