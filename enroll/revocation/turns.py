"""When the timer asks about revocation: once an hour for each certificate, and little where nobody answers.

| a server                                       | is asked                                                         |
|------------------------------------------------|------------------------------------------------------------------|
| that answers, or was never asked               | in each round, as far as it comes to it                          |
| that answers, at a host that issues nothing    | `OUTAGE_PAUSE` after its last answer that counted                |
| that gave no answer                            | 100 minutes after its first silence, then daily; all of them     |
|                                                | share these turns: the one asked longest ago has the next, and   |
|                                                | after two hours in which it was not asked, the one after it, too |
| the same, while any host issues nothing        | `OUTAGE_PAUSE` after any of them was asked; all share that, too  |

A host that issues nothing now is asked for that almost daily: it has its share of questions, and may have taken this
scanner off. What says nothing meanwhile is away with it, or with the whole network: the first certificate that comes
says that this is over, and the turns are daily again. So a scanner asks at most 40 times in 30 days, whatever is away.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from enroll.clock import Clock
from enroll.errors import EnrollmentError, ServerUnreachable
from enroll.renewal.ladder import RUNGS, next_attempt
from enroll.renewal.silence import Purpose, Silence, Silences
from enroll.revocation.record import RevocationRecord

PAUSE = timedelta(hours=1)  # between two questions of the timer about one certificate
OUTAGE_FRESH = timedelta(days=2)  # so long after it last issued nothing, a host counts as one that issues nothing now
UNUSED = 2 * PAUSE  # so long a turn waits for its server: a list is not asked where the responder has answered
OUTAGE_PAUSE = timedelta(days=15)  # between two questions meanwhile


@dataclass(frozen=True)
class Turns:
    """When which server is asked.

    Args:
        silences: Of servers that give no answer.
        places: Every address that says something about any certificate in use.
        clock: The clocks.
        serial_number: Of this scanner.
        patient: Whether to ask only what it is time to ask.
    """

    silences: Silences
    places: tuple[str, ...]
    clock: Clock
    serial_number: str
    patient: bool

    def is_time_for(self, record: RevocationRecord | None) -> bool:
        """Whether to ask about a certificate again."""
        if record is None or not self.patient:
            return True
        return not record.checked_at <= self.clock.now() < record.checked_at + PAUSE

    def may_ask(self, url: str, record: RevocationRecord | None) -> bool:
        """Whether it is time to ask a server again that gave no answer, or that issues nothing."""
        if not self.patient:
            return True
        silence, now = self.silences.of(url, Purpose.REVOCATION), self.clock.now()
        if silence is not None and silence.at <= now:
            return self._has_its_turn(silence, now)
        if not self._nothing_is_issued(now, host_of=url):
            return True
        # What another place did not say counts for nothing, or this one would never have its turn.
        asked = (record.answered_at or record.checked_at) if record is not None else None
        return asked is None or not asked <= now < asked + OUTAGE_PAUSE

    def next_turn(self) -> datetime | None:
        """When the next of those that give no answer is asked; None where all answer."""
        now = self.clock.now()
        last = max(self._silent(now), key=lambda silence: silence.at, default=None)
        if last is None:
            return None
        # One failure stands on the last rung in minutes: an hour is the usual pause here.
        turn = next_attempt(last.at, last.failures + len(RUNGS) - 1, None, self.serial_number, "revocation")
        return max(turn, last.at + OUTAGE_PAUSE) if self._nothing_is_issued(now) else turn

    @contextmanager
    def noted(self, url: str) -> Iterator[None]:
        """Keep that a server gives no answer, and forget it when it does."""
        try:
            yield
        except ServerUnreachable as error:
            self.silences.note(url, Purpose.REVOCATION, self.clock.now(), error.retry_after)
            raise
        except EnrollmentError:
            self.silences.forget(url, Purpose.REVOCATION)
            raise
        self.silences.forget(url, Purpose.REVOCATION)

    def _has_its_turn(self, silence: Silence, now: datetime) -> bool:
        turn = self.next_turn()
        if turn is None or now < turn:
            return turn is None
        waiting = sorted((each for each in self._silent(now) if each.left_alone_until <= now), key=lambda each: each.at)
        servers = list(dict.fromkeys(each.server for each in waiting))
        return silence.server in servers[: 1 + int((now - turn) / UNUSED)]

    def _silent(self, now: datetime) -> list[Silence]:
        found = [self.silences.of(url, Purpose.REVOCATION) for url in self.places]
        return [silence for silence in found if silence is not None and silence.at <= now]

    def _nothing_is_issued(self, now: datetime, host_of: str = "") -> bool:
        outage = self.silences.newest(Purpose.ENROLLMENT, host_of=host_of)
        return outage is not None and outage.at <= now < outage.at + OUTAGE_FRESH
