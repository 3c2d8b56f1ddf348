"""What `scanseal renew` does for each identity, by hand and from the timer.

A person has what is due renewed now, whatever failed before. The timer goes by `enroll.renewal`: it heeds the
maintenance window and what is this scanner's own, and leaves a CA alone that gave no answer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent.cli import enrolling, exits, renewal_plan
from agent.cli.enrolling import OWNER_IDENTITIES, USUAL_IDENTITIES, command_by_hand, enroll_by
from agent.cli.renewal_plan import Plan
from enroll.clock import Clock
from enroll.config import EnrollSettings
from enroll.enroller import Enroller, flow_of
from enroll.errors import CA_OPERATOR, HOSPITAL_IT, ConfigurationError, ScansealError, StateError
from enroll.flows.base import FlowContext
from enroll.flows.offline import memory_key
from enroll.flows.offline.requests import HOPEFUL, Requests
from enroll.flows.settings import FlowName
from enroll.identity import VENDORS_IDENTITIES, Generation, IdentityName, IdentityStore
from enroll.issue import NotAsked, made_by_agent, waiting_offer
from enroll.journal import Step
from enroll.renewal.alarms import raise_alarm
from enroll.renewal.decision import Obstacle, Wait
from enroll.renewal.ladder import RUNGS
from enroll.revocation.record import RevocationRecords
from enroll.statefile import StateFiles
from enroll.suggestion import suggested_renewal
from enroll.vendor.case import ServiceCase
from enroll.wanted import Wish

# In each half, the first identity proves who asks for the others.
_IN_ORDER = (IdentityName.IDEVID, IdentityName.VENDOR, *OWNER_IDENTITIES)
_UNDECIDED = {"pending", "export-due", "answer-due", "put-off"}
_NOT_TRIED = "It was not tried yet."
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of one identity.

    Args:
        record: For programs.
        line: For people.
        code: Exit code.
        quiet: Whether the timer says nothing of it, since it found the same ten minutes ago.
        retry_at: When a failure is tried again.
    """

    record: dict[str, Any]
    line: str
    code: int = exits.OK
    quiet: bool = False
    retry_at: datetime | None = None

    @property
    def identity(self) -> IdentityName:
        """Whose."""
        return IdentityName(self.record["identity"])

    @property
    def is_shown(self) -> bool:
        """Most scanners have only the usual identities, and nobody has to get another."""
        return self.identity in USUAL_IDENTITIES or self.record["state"] != "absent"


@dataclass(frozen=True)
class Renewals:
    """A run of `scanseal renew`.

    Args:
        settings: Of this scanner.
        clock: The clocks of the machine.
        unattended: Whether the timer runs it.
        force: Whether to renew what is not due, too.
        dry_run: Whether only to say what is due.
    """

    settings: EnrollSettings
    clock: Clock
    unattended: bool = False
    force: bool = False
    dry_run: bool = False

    def run(self) -> list[Outcome]:
        """Renew what is due, of every identity; the timer's run includes the first retry, after a minute."""
        outcomes = [outcome for identity in _IN_ORDER for outcome in self._outcome(identity)]
        retries = [outcome.retry_at for outcome in outcomes if outcome.retry_at is not None]
        wait = min(retries, default=None)
        if wait is None or not self.unattended or self.dry_run:
            return outcomes
        seconds = (wait - self._now()).total_seconds()
        if seconds > RUNGS[0].total_seconds():
            return outcomes
        self.clock.sleep(max(seconds, 0.0))
        again = {after.identity: after for identity in _IN_ORDER for after in self._outcome(identity)}
        return [_last(before, again.get(before.identity, before)) for before in outcomes]

    def _outcome(self, identity: IdentityName) -> Iterator[Outcome]:
        # The factory identity lives as long as the scanner, and is replaced with a service ticket.
        if identity is IdentityName.IDEVID and self._wish(identity) is None:
            return
        try:
            yield self._renewed(identity)
        except ScansealError as error:
            # One identity that cannot be renewed must not keep the others from it.
            described, retry_at = exits.described(error), self._retry_at(identity)
            lines = [f"{identity}: not renewed [{error.code}]", *exits.told(described)]
            record = {"identity": identity, "state": "failed", "error": described}
            yield Outcome(record, "\n    ".join(lines), exits.exit_code(error), retry_at=retry_at)
        if not self.dry_run and identity is not IdentityName.IDEVID:
            self._raise_alarm(identity)

    def _renewed(self, identity: IdentityName) -> Outcome:
        with self._enroller() as enroller:
            context = enroller.context
            at_once = self.force or RevocationRecords(context.identities).calls_for_renewal(identity)
            current = context.identities.current(identity)  # over damage, only a person enrolls
            if made_by_agent(identity, self.settings):
                return self._served(identity, context)
            if current is None:
                stays = self._absent(identity, context)
                if stays is not None:
                    return stays
                plan = renewal_plan.of(identity, None, None, context, at_once=at_once)
            else:
                suggested = self._suggested(current, enroller)
                plan = renewal_plan.of(identity, current, suggested, context, at_once=at_once)
                if self.dry_run or not (plan.is_due or plan.facts.at_once):
                    return self._not_now(plan, command_by_hand(current))
                if current.flow == FlowName.OFFLINE:
                    return self._by_hand(current, plan, context)
            if self.unattended and isinstance(plan.decision, Wait):
                return self._not_now(plan, "")
        return self._enrolled(identity)

    def _enrolled(self, identity: IdentityName) -> Outcome:
        flow = flow_of(identity, self.settings, self._identities)
        answer = enroll_by(flow, identity, self.settings, self.clock)
        record = enrolling.record(identity, answer)
        code = exits.TRY_LATER if record["state"] in _UNDECIDED else exits.OK
        return Outcome(record, enrolling.text(identity, answer, flow), code)

    def _not_now(self, plan: Plan, command: str) -> Outcome:
        record, line = plan.record(by_hand=bool(command)), plan.line(command)
        put_off = self.unattended and plan.is_put_off
        if put_off:
            record["state"] = "put-off"
        return Outcome(record, line, exits.TRY_LATER if put_off else exits.OK, quiet=self.unattended)

    def _absent(self, identity: IdentityName, context: FlowContext) -> Outcome | None:
        """What is said of an identity without a certificate; None where it is to be asked for."""
        request = context.identities.journal(identity).read()
        if request is not None:
            if not self.dry_run:
                return None
            unsent = request.step in {Step.PLANNED, Step.GENERATED}
            line = f"{identity}: the first request is {'prepared, not sent yet' if unsent else 'still with the CA'}"
            return Outcome({"identity": identity, "state": "prepared" if unsent else "waiting"}, line)
        _check_not_offered(identity, context)
        wish = self._wish(identity)
        if wish is None:
            line = f"{identity}: not enrolled yet, nothing to renew"
            return Outcome({"identity": identity, "state": "absent"}, line, quiet=self.unattended)
        first = IdentityName.IDEVID if identity in VENDORS_IDENTITIES else IdentityName.DEVICE
        waits = identity is not first and self._wish(first) is not None
        if not (waits or self.dry_run):
            return None
        line = f"{identity}: asked for by {wish.flow} on {wish.since:%Y-%m-%d %H:%M} UTC, not issued yet"
        line = f"{line}; {first} comes first" if waits else line
        return Outcome({"identity": identity, "state": "wanted"}, line, quiet=self.unattended)

    def _wish(self, identity: IdentityName) -> Wish | None:
        """What was asked for and has not come; the vendor is asked as long as there is a ticket."""
        if self._identities.pointer(identity) is not None:
            return None
        wish = self._identities.wanted(identity).read()
        if wish is None or identity not in VENDORS_IDENTITIES:
            return wish
        return wish if ServiceCase(self.settings.state_directory, self._identities.files).ticket() else None

    def _by_hand(self, current: Generation, plan: Plan, context: FlowContext) -> Outcome:
        """What came by hand is renewed by hand: nobody would carry a request that was made here."""
        identity = current.identity
        out = _out_by_hand(identity, context)
        line = f"{identity}: {plan.when()}; its certificate came by hand: {_do_by_hand(current, out)}"
        record = plan.record(by_hand=True) | {"state": "answer-due" if out else "export-due", "requests": out}
        return Outcome(record, line, exits.TRY_LATER, quiet=self.unattended)

    def _served(self, identity: IdentityName, context: FlowContext) -> Outcome:
        """The same for an identity whose keys the agent makes."""
        offer = waiting_offer(identity, context.identities, context.clock)
        if self.dry_run and offer is not None:
            return Outcome({"identity": identity, "state": "due"}, f"{identity}: the agent has asked for a certificate")
        flow = flow_of(identity, self.settings, context.identities)
        if offer is not None:
            if flow is FlowName.OFFLINE:
                raise memory_key(identity)
            plan = renewal_plan.of_offer(identity, offer, context)
            if self.unattended and isinstance(plan.decision, Wait):
                return self._not_now(plan, "")
        answer = NotAsked() if self.dry_run else enroll_by(flow, identity, self.settings, self.clock)
        record = enrolling.record(identity, answer)
        code = exits.TRY_LATER if record["state"] in _UNDECIDED else exits.OK
        if isinstance(answer, NotAsked):
            line = f"{identity}: the agent asks for the next key by itself"
            line = f"{line}; --force does not apply" if self.force else line
            return Outcome(record, line, code, quiet=self.unattended)
        return Outcome(record, enrolling.text(identity, answer), code)

    def _suggested(self, current: Generation, enroller: Enroller) -> datetime | None:
        """The moment that the CA suggests, which is asked where it is time to."""
        context = enroller.context
        if self.dry_run:
            return suggested_renewal(current, context.identities, context.files)
        return enroller.suggested_renewal(current)

    def _retry_at(self, identity: IdentityName) -> datetime | None:
        """When what has just failed is tried again; None where that is not known."""
        try:
            with self._enroller() as enroller:
                context = enroller.context
                if made_by_agent(identity, self.settings):
                    return None  # the agent offers again
                current = context.identities.readable(identity)
                decision = renewal_plan.of(identity, current, None, context, at_once=True).decision
        except ScansealError:
            return None
        failed = isinstance(decision, Wait) and decision.why in {Obstacle.FAILED, Obstacle.SILENT, Obstacle.DOUBT}
        return decision.until if isinstance(decision, Wait) and failed else None

    def _raise_alarm(self, identity: IdentityName) -> None:
        try:
            with self._enroller() as enroller:
                context = enroller.context
                current = context.identities.current(identity)
                if current is not None:
                    raise_alarm(current, context.clock.now(), context.identities, _why_not_renewed(current, context))
        except StateError as error:
            _LOG.info("Whether the certificate of %s ends soon is not known: %s", identity, error.what)

    def _now(self) -> datetime:
        with self._enroller() as enroller:
            return enroller.context.clock.now()

    def _enroller(self) -> Enroller:
        return Enroller.configured(self.settings, self.clock, StateFiles())

    @property
    def _identities(self) -> IdentityStore:
        return IdentityStore(self.settings.state_directory, StateFiles())


def _last(before: Outcome, after: Outcome) -> Outcome:
    """What is said of an identity after a second look: what was done, whenever it was."""
    return before if after.quiet else after


def _out_by_hand(identity: IdentityName, context: FlowContext) -> list[str]:
    """The numbers of the requests that a person carries, and that an answer may come of."""
    return [request.number for request in Requests(context).of(identity) if request.state in HOPEFUL]


def _do_by_hand(current: Generation, out: list[str]) -> str:
    return f"request {', '.join(out)} waits for its answer" if out else f"run: {command_by_hand(current)}"


def _why_not_renewed(current: Generation, context: FlowContext) -> str:
    """In sentences: what keeps a certificate that is due from being renewed, and who has to act."""
    identity = current.identity
    failure = renewal_plan.last_failure(identity, context)
    if failure is not None:
        told = (failure.what, failure.remedy, f"To act: {failure.who_must_act}.")
        return " ".join(text for text in told if text)
    pending = renewal_plan.pending_request(identity, context)
    if pending is not None and pending.until is not None:
        reason = f": {pending.reason}" if pending.reason else ""
        since = renewal_plan.minute(pending.started_at)
        return f"The CA has had the request since {since} and has not decided{reason}. To act: {CA_OPERATOR}."
    out = _out_by_hand(identity, context)
    if out or command_by_hand(current):
        return f"It is renewed by hand: {_do_by_hand(current, out)}. To act: {HOSPITAL_IT}."
    return _NOT_TRIED


def _check_not_offered(identity: IdentityName, context: FlowContext) -> None:
    """No agent waits for a certificate that the configuration does not ask for (any more).

    Raises:
        ConfigurationError: One does.
    """
    if waiting_offer(identity, context.identities, context.clock) is not None:
        raise ConfigurationError(
            f"The agent waits for a certificate of a key in memory, but [identity.{identity}] key_store is not "
            '"memory".',
            remedy='Set key_store = "memory"; or restart the agent and run: scanseal enroll.',
        )
