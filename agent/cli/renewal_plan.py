"""When an identity is renewed next, and why not now: the facts for `enroll.renewal.decision`, and its words for people.

`scanseal renew` goes by it, `renew --dry-run` and `status` show it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from enroll.certificates import private_key_usage_period
from enroll.clock_sense import ClockSense
from enroll.config import EnrollSettings
from enroll.enroller import address_of, flow_of
from enroll.errors import ConfigurationError, StateDamaged
from enroll.failure import Failure, Failures
from enroll.flows.base import LONGEST_WAIT, FlowContext
from enroll.flows.settings import FlowName
from enroll.generation_use import read_newest
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.journal import PendingRequest
from enroll.offer import PERIOD_MARGIN, Offer
from enroll.renewal.decision import Facts, Life, Obstacle, Renew, Wait, decide
from enroll.renewal.due import life
from enroll.renewal.silence import Purpose, Silence, Silences
from enroll.renewal.spread import earlier_by, spread_renewal_time
from enroll.renewal.window import MaintenanceWindow
from enroll.statefile import StateFiles
from enroll.suggestion import suggested_renewal

_FEW = 2  # rungs: a request for a new key waits for no more of them, as without it nothing is signed
_ITS_TIME = {Obstacle.NOT_DUE, Obstacle.RECENT, Obstacle.CLOSED}  # what is waited for though nothing is wrong
IN_WORDS = {
    Obstacle.NOT_DUE: "",
    Obstacle.RECENT: "the certificate has just come",
    Obstacle.UNDECIDED: "the CA has not decided yet",
    Obstacle.FAILED: "the attempt before failed",
    Obstacle.SILENT: "the server gave no answer",
    Obstacle.DOUBT: "the clock is not believed, so it is once an hour",
    Obstacle.CLOSED: "the maintenance window is closed",
}


@dataclass(frozen=True)
class Plan:
    """What the timer does about one identity, and when.

    Args:
        facts: What is known.
        decision: What follows from it.
        early: How much earlier than others this scanner is.
    """

    facts: Facts
    decision: Renew | Wait
    early: timedelta = timedelta()

    @property
    def is_due(self) -> bool:
        """Whether it is to be renewed by now."""
        return self.facts.life is None or self.facts.life.due <= self.facts.now

    @property
    def is_put_off(self) -> bool:
        """Whether it is due, and waits for something else than its time."""
        return isinstance(self.decision, Wait) and self.decision.why not in _ITS_TIME

    def record(self, *, by_hand: bool = False) -> dict[str, Any]:
        """For programs; see docs/exit-codes.md.

        Args:
            by_hand: Whether no timer renews it.
        """
        found: dict[str, Any] = {"identity": self.facts.names[1], "state": "due" if self.is_due else "not-due"}
        if self.facts.life:
            found["due_at"] = self.facts.life.due.isoformat()
        if by_hand:
            return found
        waits = self.decision if isinstance(self.decision, Wait) else None
        window = self.facts.window
        return found | {
            "early_by": int(self.early.total_seconds()),
            "window": str(window) if window else "",
            "next_attempt": (waits.until if waits else self.facts.now).isoformat(),
            "reason": str(waits.why if waits else self.decision.why),
        }

    def line(self, command: str) -> str:
        """For people.

        Args:
            command: What a person runs where no timer renews it; else empty.
        """
        text = f"{self.facts.names[1]}: {self.when(by_hand=bool(command))}"
        if command:
            return f"{text} ({command})"
        waits = self.decision if isinstance(self.decision, Wait) and self.decision.why is not Obstacle.NOT_DUE else None
        return f"{text}; next attempt {minute(waits.until)}: {IN_WORDS[waits.why]}" if waits else text

    def when(self, *, by_hand: bool = False) -> str:
        """Since when it is due, or from when on."""
        if self.facts.life is None:
            return "wanted"
        text = f"{'due by hand' if by_hand else 'due'} {'since' if self.is_due else 'on'} {minute(self.facts.life.due)}"
        if by_hand or self.early < timedelta(hours=1):
            return text
        days, hours = self.early.days, self.early // timedelta(hours=1)
        return f"{text}, {f'{days} d {hours % 24} h' if days else f'{hours} h'} earlier than others"


def of(
    identity: IdentityName,
    current: Generation | None,
    suggested: datetime | None,
    context: FlowContext,
    *,
    at_once: bool = False,
) -> Plan:
    """What is planned for an identity.

    Args:
        identity: Whose.
        current: In use.
        suggested: When the CA wants it to be renewed, where it says anything.
        context: Of the enroller.
        at_once: Whether it does not matter when it is due; it never does where a newer one is damaged (ADR 34).

    Raises:
        ConfigurationError: Nobody says how it is renewed; or the maintenance window is none.
        StateError: What is kept cannot be read.
    """
    names = context.settings.device.serial_number, str(identity)
    lives, early = None, timedelta()
    if current is not None:
        begin, lifetime = life(current.certificate)
        due = spread_renewal_time(current.certificate, suggested, *names)
        lives = Life(due, begin, begin + lifetime, _came(current, context))
        early = earlier_by(current.certificate, *names) if suggested is None else timedelta()
        at_once = at_once or current.damaged_newer is not None
    pending = pending_request(identity, context)
    facts = _facts(identity, lives, pending, last_failure(identity, context), context, at_once=at_once)
    return Plan(facts, decide(facts), early)


def due_at(current: Generation, settings: EnrollSettings, files: StateFiles) -> datetime:
    """From when on this scanner renews a certificate, by what the CA suggested last.

    Raises:
        StateError: That cannot be read.
    """
    suggested = suggested_renewal(current, IdentityStore(settings.state_directory, files), files)
    return spread_renewal_time(current.certificate, suggested, settings.device.serial_number, current.identity)


def of_offer(identity: IdentityName, offer: Offer, context: FlowContext) -> Plan:
    """The same for what the agent offers: a new key waits less, as without its certificate nothing is signed.

    Raises:
        ConfigurationError: As `of`.
        StateError: As `of`.
    """
    failure, pending = last_failure(identity, context), pending_request(identity, context)
    begin, _ = private_key_usage_period(offer.request) or (None, None)
    pending = pending if pending and pending.key_uri == offer.key_uri else None
    facts = _facts(identity, None, pending, failure, context, at_once=True)
    made = begin + PERIOD_MARGIN if begin is not None else facts.now
    if facts.failed_at is not None and facts.failed_at < made:
        silence = facts.silence
        few = min(facts.failures, _FEW)
        facts = replace(facts, failures=few, silence=replace(silence, failures=few) if silence and few else silence)
    return Plan(facts, decide(facts))


def last_failure(identity: IdentityName, context: FlowContext) -> Failure | None:
    """The last failure; None where there is none, or it is damaged.

    Raises:
        StateError: It cannot be read.
    """
    try:
        return Failures(context.identities).last(identity)
    except StateDamaged:
        return None  # `scanseal status` says so


def pending_request(identity: IdentityName, context: FlowContext) -> PendingRequest | None:
    """The request that is under way; None where there is none, or it is damaged.

    Raises:
        StateError: It cannot be read.
    """
    try:
        return context.identities.journal(identity).read()
    except StateDamaged:
        return None  # the transaction forgets it


def _came(current: Generation, context: FlowContext) -> datetime | None:
    """When the newest certificate came, be it damaged."""
    if current.damaged_newer is None:
        return current.committed_at
    return read_newest(context.identities.directory(current.identity), context.files).at


def minute(moment: datetime) -> str:
    """A time for people."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _facts(  # noqa: PLR0913 - everything that is known
    identity: IdentityName,
    lives: Life | None,
    pending: PendingRequest | None,
    failure: Failure | None,
    context: FlowContext,
    *,
    at_once: bool,
) -> Facts:
    sense = ClockSense.of(context.clock).sense()
    until = pending.until if pending else None
    return Facts(
        now=sense.now,
        names=(context.settings.device.serial_number, str(identity)),
        life=lives,
        at_once=at_once,
        waits_until=until if until is not None and until <= sense.now + LONGEST_WAIT else None,
        failures=failure.in_a_row if failure else 0,
        failed_at=failure.at if failure else None,
        silence=_silence(identity, context),
        window=MaintenanceWindow.read(context.settings.renewal.window),
        doubted=sense.doubt is not None,
    )


def _silence(identity: IdentityName, context: FlowContext) -> Silence | None:
    try:
        flow: FlowName | None = flow_of(identity, context.settings, context.identities)
    except ConfigurationError:
        flow = None  # whoever renews says so
    url = address_of(flow, context.settings) if flow else ""
    return Silences(context.settings.state_directory, context.files).of(url, Purpose.ENROLLMENT) if url else None
