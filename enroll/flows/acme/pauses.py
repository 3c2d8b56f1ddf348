"""How long to wait between two looks at what the CA is working on."""

from __future__ import annotations

from datetime import timedelta

from enroll.clock import Clock

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0  # seconds


class Pauses:
    """Growing pauses, as long as the patience lasts.

    Args:
        clock: Measures them.
        end: Of the patience, on the monotonic clock.
    """

    def __init__(self, clock: Clock, end: float) -> None:
        self._clock = clock
        self._end = end
        self._next = FIRST_PAUSE

    def wait(self, wanted: timedelta | None) -> bool:
        """Wait a while; False where that would be more than the patience."""
        pause = max(self._next, wanted.total_seconds() if wanted else 0.0)
        if self._clock.monotonic() + pause > self._end:
            return False
        self._clock.sleep(pause)
        self._next = min(self._next * 1.5, LONGEST_PAUSE)
        return True
