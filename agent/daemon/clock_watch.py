"""Keeps an eye on the clock of the machine: says when it cannot be believed, and keeps what was seen of it.

Runs in the keyholder, once a second. Signing does not wait for it: every signature asks `enroll.clock_sense` itself.
"""

from __future__ import annotations

import logging

from agent.audit import AuditTrail
from enroll.clock_record import Doubt, with_name
from enroll.clock_sense import REMEDY, ClockSense

logger = logging.getLogger("scanseal.keyholder")


class ClockWatch:
    """Says every change of what is thought of the clock, in the log and in the audit trail.

    Args:
        clock: The clock.
        audit: Hears of every change.
    """

    def __init__(self, clock: ClockSense, audit: AuditTrail) -> None:
        self._clock = clock
        self._audit = audit
        self._doubt: Doubt | None = None
        self._confirmed_by = ""

    def tend(self) -> None:
        """Look at the clock.

        Raises:
            StateError: The audit trail cannot be written; what was to be said is said at the next look.
        """
        self._confirmed_by = with_name(self._confirmed_by, self._clock.look())
        sense = self._clock.sense()
        if self._confirmed_by:
            logger.warning("The clock shows %s, and is right: %s says so.", sense.wall, self._confirmed_by)
            self._audit.record("clock-confirmed", {"by": self._confirmed_by}, durable=True)
            self._confirmed_by = ""
        if sense.doubt is not self._doubt:
            if sense.doubt is None:
                logger.warning("The clock shows %s, and is believed again.", sense.wall)
                self._audit.record("clock-believed", {}, durable=True)
            else:
                logger.warning("%s %s", sense.explanation(), REMEDY)
                fields: dict[str, str | int] = {
                    "doubt": sense.doubt,
                    "estimate": sense.now.isoformat(timespec="seconds"),
                    "floor": sense.floor.isoformat(timespec="seconds"),
                }
                self._audit.record("clock-suspect", fields, durable=True)
            self._doubt = sense.doubt
        self._clock.keep()
