"""What was signed and what was not: acquisition goes on without signatures, so the missing ones are counted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

from agent.audit import AuditTrail
from enroll.clock import Clock

INTERVAL = 10.0  # seconds between two audit lines about images that were not signed


class SigningTally:
    """Counts signatures that were asked for and not given, whatever was in the way but the caller itself.

    Args:
        audit: Hears of them, at intervals and when signing goes on.
        clock: The clocks.
        started: When the process began, on the monotonic clock.
    """

    def __init__(self, audit: AuditTrail, clock: Clock, started: float) -> None:
        self._audit = audit
        self._clock = clock
        self._started = started
        self._lock = threading.Lock()
        self._first_signature: float | None = None
        self._unsigned = 0
        self._unsigned_since = 0
        self._unwritten: Counter[str] = Counter()
        self._resumed = False
        self._written_at = -INTERVAL

    def signed(self) -> None:
        """A signature was made and recorded."""
        with self._lock:
            if self._first_signature is None:
                self._first_signature = self._clock.monotonic() - self._started
            self._unsigned_since = 0
            self._resumed = bool(self._unwritten)

    def unsigned(self, code: str) -> None:
        """An image, or a digest, was not signed.

        Args:
            code: Why.
        """
        with self._lock:
            self._unsigned += 1
            self._unsigned_since += 1
            self._unwritten[code] += 1

    def figures(self) -> Mapping[str, Any]:
        """For the status."""
        with self._lock:
            first = self._first_signature
            return {
                "unsigned": {"since_start": self._unsigned, "since_last_signature": self._unsigned_since},
                "first_signature_seconds": None if first is None else round(first, 3),
            }

    def write(self, *, at_once: bool = False) -> None:
        """Record what was not signed, if that is due; to be called at least once a second.

        Raises:
            StateError: The audit trail cannot be written; it is tried again.
        """
        now = self._clock.monotonic()
        with self._lock:
            if not (at_once or self._resumed or now - self._written_at >= INTERVAL):
                return
            unwritten = dict(self._unwritten)
        for code, count in unwritten.items():
            self._audit.record("images-unsigned", {"count": count, "code": code}, durable=True)
            with self._lock:
                self._unwritten -= Counter({code: count})
                self._written_at, self._resumed = now, False
