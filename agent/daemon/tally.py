"""What was signed and what was not: acquisition goes on without signatures, so the missing ones are counted."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

from agent.audit import AuditTrail
from agent.daemon.wire import Role
from enroll.clock import Clock
from enroll.errors import ScansealError

INTERVAL = 10.0  # seconds between two audit lines about images that were not signed

logger = logging.getLogger("scanseal.keyholder")


class SigningTally:
    """Counts signatures that were asked for and not given, whatever was in the way but the caller itself.

    Args:
        audit: Hears of them, at intervals and when signing goes on. The log hears of the first of a row and of its
            end.
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
        self._rows: Counter[Role] = Counter()  # by role: one that signs does not end the row of another
        self._unwritten: Counter[str] = Counter()
        self._resumed = False
        self._written_at = -INTERVAL

    def signed(self, role: Role) -> None:
        """A signature was made and recorded."""
        with self._lock:
            row = self._rows.pop(role, 0)
            if self._first_signature is None:
                self._first_signature = self._clock.monotonic() - self._started
            self._unsigned_since = 0
            self._resumed = bool(self._unwritten)
        if row:
            logger.info("Signing goes on; %s went unsigned.", "1 image" if row == 1 else f"{row} images")

    def unsigned(self, role: Role, error: ScansealError) -> None:
        """An image, or a digest, was not signed.

        Args:
            role: In which it was to be signed.
            error: Why.
        """
        with self._lock:
            self._rows[role] += 1
            first = self._rows[role] == 1
            self._unsigned += 1
            self._unsigned_since += 1
            self._unwritten[error.code] += 1
        if first:
            logger.error("Images are not signed: %s", error)

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
