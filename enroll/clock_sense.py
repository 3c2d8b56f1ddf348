"""Whether the wall clock can be believed, and what time it is where it cannot.

    sense = ClockSense.configured(clock, identities).sense()
    sense.now      what every decision takes: the wall clock where it is believed, else the best estimate
    sense.doubt    why it is not believed; None where it is

| the wall clock shows                                    | doubt            | the estimate                         |
|---------------------------------------------------------|------------------|--------------------------------------|
| a time before the floor                                 | `behind-floor`   | the floor, and what has passed since |
| over a day less than has passed since it was believed   | `behind-floor`   | last seen, and what has passed since |
| over a day more than has passed since it was last seen  | `jumped-forward` | last seen, and what has passed since |
| anything else                                           | none             | the wall clock                       |

The floor is the newest of: when this version was made, when a certificate in use begins, and the last time at which
the wall clock was believed. What has passed is counted by CLOCK_BOOTTIME, which nobody can set and which goes on while
the machine sleeps. How long it was switched off nobody knows, so after a start the clock may show any time from the
floor on; and in the first minutes after it, while the clock may still be set, it may jump and nothing is remembered.

A doubt ends by itself: when the wall clock is back, or, after a jump forward, when a day has passed. A certificate for
a key that was just made ends it at once where its begin and the wall clock agree, and so does a person
(`scanseal check --clock-is-right`). Only these two lower a floor that the clock itself has raised while it was wrong.
What was seen is kept in `clock.json` (`enroll.clock_record`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from enroll.build_time import BUILD_TIME
from enroll.clock import Clock
from enroll.clock_record import Doubt, Reading, Seen, changing_seen, read_seen, with_name, write_seen
from enroll.errors import HOSPITAL_IT, StateError, StateTooNew, StateUnreadable
from enroll.identity import IdentityName, IdentityStore
from enroll.trust import CLOCK_SKEW

CLOCK_SUSPECT = "clock-suspect"  # what answers, status, checks and the audit trail call a doubt
JUMP = timedelta(hours=24)  # more than this at once, and the clock is not believed ...
PATIENCE = timedelta(hours=24)  # ... until it has stayed so for this long
SETTLING = timedelta(minutes=10)  # after a start of the machine, for NTP or a person to set the clock
WRITTEN_EVERY = timedelta(minutes=10)
LONGEST_REQUEST = timedelta(days=31)  # more than `enroll.issue` waits for a CA
ATTEMPTS_IN_DOUBT = timedelta(hours=1)  # between two attempts to get a certificate

_TRIED_AGAIN = 60.0  # seconds, where the disk refused
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TimeSense:
    """What time it is.

    Args:
        wall: The wall clock. It is what records say of when something happened.
        now: The best estimate, which every decision takes.
        doubt: Why the wall clock is not believed; None where it is.
        floor: The time that it must at least show.
        since: When the doubt began, by the estimate.
    """

    wall: datetime
    now: datetime
    doubt: Doubt | None
    floor: datetime
    since: datetime | None = None

    def within(self, begin: datetime, end: datetime) -> datetime:
        """The moment at which to ask whether something is valid.

        In doubt there are two, the estimate and the wall clock, and nothing is given up that is valid at one of them.
        """
        if self.doubt is None or begin <= self.now <= end or not begin <= self.wall <= end:
            return self.now
        return self.wall

    def explanation(self) -> str:
        """What is wrong with the clock, for people; empty where nothing is."""
        shown, estimate = f"{self.wall:%Y-%m-%d %H:%M} UTC", f"{self.now:%Y-%m-%d %H:%M} UTC"
        if self.doubt is Doubt.BEHIND_FLOOR:
            floor = f"{self.floor:%Y-%m-%d %H:%M} UTC"
            return f"The clock shows {shown}, and it was {floor} already; it is taken to be {estimate} at least."
        if self.doubt is Doubt.JUMPED_FORWARD:
            return f"The clock has jumped forward to {shown}; it is taken to be {estimate}."
        return ""


REMEDY = "Set the clock of this machine, best by NTP. If it is right as it is, say so: scanseal check --clock-is-right"


def judged(reading: Reading, before: Seen | None, certified: datetime) -> tuple[TimeSense, Seen | None]:
    """What time it is, and what to remember of this look. Pure.

    Args:
        reading: What the clocks show.
        before: What was remembered up to now.
        certified: The newest time that others vouch for: of the build, and of the certificates in use.
    """
    wall = reading.wall
    floor = max(certified, before.believed) if before else certified
    estimate = max(before.carried_to(reading) if before else floor, floor)
    if before and before.believed_in == reading.boot_id:
        floor = max(floor, estimate - JUMP)  # what has passed since is known
    if wall < floor and floor - wall > CLOCK_SKEW:
        doubt: Doubt | None = Doubt.BEHIND_FLOOR
    elif before and _has_jumped(reading, before, estimate):
        doubt = Doubt.JUMPED_FORWARD
    else:
        doubt = None
    settles = reading.boottime < SETTLING.total_seconds() and (before is None or before.boot_id != reading.boot_id)
    confirmed_by = before.confirmed_by if before else ""
    if doubt is None:
        # A certificate of a CA whose clock is a little ahead counts at once.
        sense = TimeSense(wall, max(wall, certified), None, floor)
        seen = _believed(replace(reading, wall=max(wall, floor)), confirmed_by)
        return sense, before if settles else seen
    since = _since(reading, before, estimate) if before and before.doubt is doubt else estimate
    sense = TimeSense(wall, estimate, doubt, floor, since)
    believed, believed_in = (before.believed, before.believed_in) if before else (floor, "")
    seen = Seen(believed, believed_in, estimate, reading.boottime, reading.boot_id, doubt, since, confirmed_by, wall)
    return sense, before if settles else seen


def _has_jumped(reading: Reading, before: Seen, estimate: datetime) -> bool:
    if reading.wall <= estimate or reading.wall - estimate <= JUMP:
        return False
    if before.doubt is Doubt.JUMPED_FORWARD:  # in whichever start: a jump is not made good by a restart
        return estimate - _since(reading, before, estimate) < PATIENCE
    # An estimate that only says "at least" is no reason to doubt a clock that has been set meanwhile.
    return before.believed_in == reading.boot_id


def _since(reading: Reading, before: Seen, estimate: datetime) -> datetime:
    """When the doubt began that goes on. A second jump begins anew: nobody has had a day to see what it shows now."""
    if before.since is None or before.shown is None:
        return estimate
    moved = (reading.wall - estimate) - (before.shown - before.estimate)  # a night that it was off is no jump either
    return estimate if before.doubt is Doubt.JUMPED_FORWARD and abs(moved) > JUMP else before.since


class ClockSense:
    """A clock whose `now` is the estimate that decisions take. Threads may share it.

    Args:
        clock: The clocks of the machine.
        identities: Where what was seen is kept, and the certificates that say when it is at least; None for a sense
            that begins with every process.
    """

    def __init__(self, clock: Clock, identities: IdentityStore | None = None) -> None:
        self._clock = clock
        self._identities = identities
        self._lock = threading.Lock()
        self._begun = False
        self._certified = BUILD_TIME
        self._seen: Seen | None = None
        self._on_disk: Seen | None = None
        self._writable = identities is not None
        self._refused_at: float | None = None  # boottime
        self._problem = ""  # of the record

    @classmethod
    def configured(cls, clock: Clock, identities: IdentityStore) -> ClockSense:
        """The sense of this scanner, or a clock itself where it has that; reads nothing yet."""
        return clock if isinstance(clock, ClockSense) else cls(clock, identities)

    @classmethod
    def of(cls, clock: Clock) -> ClockSense:
        """A clock itself where it has sense, else one for this process."""
        return clock if isinstance(clock, ClockSense) else cls(clock)

    def sense(self) -> TimeSense:
        """What time it is now. Reads no file but at the first time."""
        with self._lock:
            self._begin()
            return self._judge(Reading.of(self._clock))

    def now(self) -> datetime:
        """The best estimate, aware, in UTC."""
        return self.sense().now

    def wall(self) -> datetime:
        """What the wall clock shows, which is what a record says of when something happened."""
        return self._clock.now()

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self._clock.monotonic()

    def boottime(self) -> float:
        """See `Clock.boottime`."""
        return self._clock.boottime()

    def boot_id(self) -> str:
        """See `Clock.boot_id`."""
        return self._clock.boot_id()

    def sleep(self, seconds: float) -> None:
        """Wait `seconds`."""
        self._clock.sleep(seconds)

    def learn(self, moment: datetime) -> None:
        """Take note that it is at least this time, because a certificate in use begins then."""
        with self._lock:
            self._certified = max(self._certified, moment)

    def confirm(self, moment: datetime) -> None:
        """Take note that a CA has said what time it is, in a certificate for a key that was just made.

        Where the wall clock says the same, nothing that was seen before speaks against it any more. An estimate that
        lies so far after it that the CA cannot have taken so long is wrong. What a person has said stays.
        """
        self.learn(moment)
        with self._alone() as problem:
            reading = Reading.of(self._clock)
            sense = self._judge(reading)
            confirmed_by = self._seen.confirmed_by if self._seen else ""
            if -CLOCK_SKEW <= reading.wall - moment <= JUMP and self._certified - reading.wall <= CLOCK_SKEW:
                self._seen = _believed(reading, confirmed_by)
            elif sense.doubt is not None and sense.now - moment > LONGEST_REQUEST:
                self._seen = _believed(replace(reading, wall=moment), confirmed_by)
            self._keep(problem, at_once=True)

    def confirm_by_person(self, who: str) -> TimeSense:
        """Take the word of a person that the wall clock is right.

        Args:
            who: For the audit trail.

        Returns:
            What was thought before.

        Raises:
            StateError: It cannot be right; or that cannot be written down.
        """
        before = self.sense()
        reading = Reading.of(self._clock)
        with self._changing(), self._lock:
            if self._certified - reading.wall > CLOCK_SKEW:
                raise StateError(
                    f"The clock shows {reading.wall:%Y-%m-%d %H:%M} UTC, and cannot be right: a certificate in use, or "
                    f"this version of scanseal, is of {self._certified:%Y-%m-%d %H:%M} UTC.",
                    remedy="Set the clock of this machine, best by NTP.",
                    code="clock-not-right",
                    who_must_act=HOSPITAL_IT,
                    what_next="Nothing was changed.",
                )
            if self._identities is not None and not self._writable:
                read_seen(self._identities.root, self._identities.files)  # it says why not
            self._take_up()  # somebody else may have said the same, and the audit trail not say so yet
            self._seen = _believed(reading, with_name(self._seen.confirmed_by if self._seen else "", who))
            self._write(self._seen)
        return before

    def keep(self, *, at_once: bool = False) -> None:
        """Write down what was seen where that is due; a disk that refuses is logged, and nothing depends on it.

        Args:
            at_once: Whether not to wait until ten minutes have passed.
        """
        self.sense()
        with self._lock:
            if self._to_keep(at_once=at_once) is None:
                return
        with self._alone() as problem:
            self._keep(problem, at_once=at_once)

    def look(self) -> str:
        """Take up what another process has written: the enroller, or a person. To be called once a second.

        Returns:
            Who has said that the clock is right, where somebody has since; the caller writes it to the audit trail.
        """
        with self._lock:
            self._begin()
            self._take_up()
            who = self._seen.confirmed_by if self._seen else ""
            if self._seen and who:
                self._seen = replace(self._seen, confirmed_by="")
        return who

    @contextmanager
    def _alone(self) -> Iterator[StateError | None]:
        """Hold the lock of the record, and then that of the threads; what others have written is taken up.

        Yields:
            Why the record cannot be written, where that is known.
        """
        problem: StateError | None = None
        with ExitStack() as stack:
            try:
                stack.enter_context(self._changing())
            except StateError as error:
                problem = error
            # Second: no signature waits for another process.
            stack.enter_context(self._lock)
            self._begin()
            self._take_up()
            self._judge(Reading.of(self._clock))
            yield problem

    def _changing(self) -> AbstractContextManager[None]:
        known = self._identities
        return nullcontext() if known is None else changing_seen(known.root, known.files)

    def _judge(self, reading: Reading) -> TimeSense:
        sense, self._seen = judged(reading, self._seen, self._certified)
        return sense

    def _take_up(self) -> None:
        found = self._read()
        if found is not None and found != self._on_disk:
            self._seen = self._on_disk = found

    def _to_keep(self, *, at_once: bool) -> Seen | None:
        """What is to be written now."""
        seen, kept = self._seen, self._on_disk
        if not self._writable or seen is None or (kept is not None and not _is_due(seen, kept, at_once=at_once)):
            return None
        is_too_early = self._refused_at is not None and 0 <= seen.boottime - self._refused_at < _TRIED_AGAIN
        return None if is_too_early else seen

    def _keep(self, problem: StateError | None, *, at_once: bool) -> None:
        seen = self._to_keep(at_once=at_once)
        if seen is None:
            return
        try:
            if problem is None:
                self._write(seen)
        except StateError as error:
            problem = error
        if problem is not None:
            _LOG.warning("What the clock shows cannot be kept: %s", problem)
        self._refused_at = seen.boottime if problem else None

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        self._seen = self._on_disk = self._read()
        if self._identities is None:
            return
        for name in IdentityName:
            try:
                generation = self._identities.current(name)
            except StateError:
                continue  # whoever uses the identity says what is wrong with it
            if generation is not None:
                self._certified = max(self._certified, generation.certificate.not_valid_before_utc)

    def _read(self) -> Seen | None:
        """What was written; None where there is nothing, or nothing sensible: the certificates say enough."""
        if self._identities is None:
            return None
        try:
            found = read_seen(self._identities.root, self._identities.files)
        except StateUnreadable:
            return None  # for somebody who only asks for the status
        except StateError as error:
            self._writable = not isinstance(error, StateTooNew)
            self._on_disk = None
            if str(error) != self._problem:
                _LOG.warning("What was seen of the clock is not used: %s", error)
            self._problem = str(error)
            return None
        self._problem = ""
        return found

    def _write(self, seen: Seen) -> None:
        if self._identities is not None:
            write_seen(seen, self._identities.root, self._identities.files)
            self._on_disk = seen


def _believed(reading: Reading, confirmed_by: str = "") -> Seen:
    wall, boot = reading.wall, reading.boot_id
    return Seen(wall, boot, wall, reading.boottime, boot, confirmed_by=confirmed_by)


def _is_due(seen: Seen, kept: Seen, *, at_once: bool) -> bool:
    """Whether to write again: something has changed, or time has passed."""
    if (seen.doubt, seen.boot_id, seen.confirmed_by) != (kept.doubt, kept.boot_id, kept.confirmed_by):
        return True
    passed = abs(seen.boottime - kept.boottime) >= WRITTEN_EVERY.total_seconds()
    return passed or (at_once and seen != kept)
