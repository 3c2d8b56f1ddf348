"""What is under way, what failed last, what comes next, and what is revoked: of one identity, for `scanseal status`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from agent.cli import exits, renewal_plan
from agent.cli.enrolling import command_by_hand
from enroll.clock import Clock
from enroll.config import RevocationSettings
from enroll.device_state import DeviceEvent
from enroll.errors import CertificateRevoked, ConfigurationError, DeviceDisabled, StateError
from enroll.failure import Failures
from enroll.fdo.credential import fdo_directory
from enroll.fdo.owner_policy import AWAITED, OwnerPolicy
from enroll.flows.base import FlowContext
from enroll.flows.offline.requests import Requests, State
from enroll.flows.settings import FlowName
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.issue import made_by_agent
from enroll.journal import PendingRequest, Step
from enroll.renewal.alarms import alarm, alarm_text
from enroll.renewal.decision import Obstacle, Wait
from enroll.revocation.record import RevocationRecords, RevocationState
from enroll.suggestion import suggested_renewal

_TOLD = {str(why): words for why, words in renewal_plan.IN_WORDS.items() if why is not Obstacle.UNDECIDED and words}


def record(name: IdentityName, current: Generation | None, context: FlowContext) -> dict[str, Any]:
    """The members `wanted`, `pending`, `last_failure`, `next_attempt`, `alarm` and `revocation` of an identity.

    See docs/exit-codes.md.

    What cannot be read is a `problem` and hides nothing else.
    """
    identities = context.identities
    found: dict[str, Any] = {
        "wanted": None,
        "pending": [],
        "last_failure": None,
        "next_attempt": None,
        "alarm": None,
        "revocation": None,
    }
    try:
        wish = identities.wanted(name).read()
        if wish is not None and current is None:
            found["wanted"] = _plain(asdict(wish))
        found["pending"] = [*_pending(name, context), *_by_hand(name, context)]
        failure = Failures(identities).last(name)
        if failure is not None:
            found["last_failure"] = _plain(asdict(failure))
        found["next_attempt"] = _next_attempt(name, current, found["wanted"], context)
        if current is not None:
            ends = alarm(current, context.clock.now()) if name is not IdentityName.IDEVID else None
            found["alarm"] = alarm_text(ends) if ends is not None else None
            found["revocation"] = _revocation(current, identities, context.settings.revocation, context.clock)
    except StateError as error:
        found["problem"] = exits.described(error)
    return found


def lines(record: dict[str, Any]) -> Iterator[str]:
    """The same for people."""
    if problem := record.get("problem"):
        yield from _told(f"problem     [{problem['code']}]", problem)
    if (wish := record.get("wanted")) and not record["pending"]:
        yield f"asked for   by {wish['flow']} since {_minute(wish['since'])}"
    for request in record.get("pending", ()):
        yield f"under way   {_pending_text(request)}"
    if failure := record.get("last_failure"):
        times = "once" if failure["attempts"] == 1 else f"{failure['attempts']} times since {_day(failure['since'])}"
        yield from _told(
            f"failed      [{failure['code']}] by {failure['flow']} at {_minute(failure['at'])} ({times})", failure
        )
    if (planned := record.get("next_attempt")) and planned["reason"] in _TOLD:
        yield f"next        tried again after {_minute(planned['at'])}: {_TOLD[planned['reason']]}"
    if ends := record.get("alarm"):
        yield f"ALARM       the certificate {ends}, and is not renewed"
    if revocation := record.get("revocation"):
        yield f"revocation  {_revocation_text(revocation)}"


def _next_attempt(
    name: IdentityName, current: Generation | None, wish: object, context: FlowContext
) -> dict[str, str] | None:
    """When the timer tries next to get a certificate; None where it does not, or the agent has to ask first."""
    if made_by_agent(name, context.settings) or (current is None and wish is None):
        return None
    if not _may_enroll(context.identities):
        return None
    if current is not None and (name is IdentityName.IDEVID or command_by_hand(current)):
        return None
    suggested = suggested_renewal(current, context.identities, context.files) if current else None
    try:
        at_once = RevocationRecords(context.identities).calls_for_renewal(name)
        plan = renewal_plan.of(name, current, suggested, context, at_once=at_once)
    except (ConfigurationError, CertificateRevoked):
        return None  # the timer says so
    at = plan.decision.until if isinstance(plan.decision, Wait) else plan.facts.now
    return {"at": at.isoformat(), "reason": str(plan.decision.why)}


def _may_enroll(identities: IdentityStore) -> bool:
    """Whether the scanner as a whole may; where not, its state says why."""
    try:
        identities.owner_file.check_allowed(DeviceEvent.RENEW)
    except (DeviceDisabled, StateError):
        return False
    return True


def _told(title: str, error: dict[str, Any]) -> Iterator[str]:
    yield title
    yield from (f"{'':12}{line}" for line in exits.told(error))


def _pending(name: IdentityName, context: FlowContext) -> Iterator[dict[str, Any]]:
    request = context.identities.journal(name).read()
    if request is not None:
        if request.reason.startswith(AWAITED) and _is_approved(context):
            request = replace(request, until=None, reason="an owner is approved")
        yield _plain({"flow": request.flow, "step": request.step, **_waiting(request)})


def _is_approved(context: FlowContext) -> bool:
    """Whether somebody has approved an owner since the request was written down."""
    directory = fdo_directory(context.settings.state_directory)
    candidates = OwnerPolicy(context.settings.fdo, directory, context.files, context.clock).candidates()
    return any(each.is_approved for each in candidates)


def _by_hand(name: IdentityName, context: FlowContext) -> Iterator[dict[str, Any]]:
    for request in Requests(context).of(name):
        known = {"flow": request.pending.flow, "step": request.pending.step, **_waiting(request.pending)}
        yield _plain(known | {"until": None, "request": request.number, "state": request.state})


def _waiting(request: PendingRequest) -> dict[str, Any]:
    return {"since": request.started_at, "until": request.until, "reason": request.reason}


def _pending_text(request: dict[str, Any]) -> str:
    if number := request.get("request"):
        text = f"request {number} by hand since {_minute(request['since'])}: {request['state']}"
        waits = request["state"] == State.WAITING
        return f"{text}; its answer comes in by: scanseal enroll offline import ANSWER" if waits else text
    text = f"by {request['flow']} since {_minute(request['since'])}, "
    if request["until"]:
        who = "the owner is looked for" if request["flow"] == FlowName.FDO else "the CA is asked"
        text += f"{who} again after {_minute(request['until'])}"
    elif request["step"] in (Step.PLANNED, Step.GENERATED):
        text += "not sent yet"
    else:
        text += "goes on with the next run"
    return f"{text}: {request['reason']}" if request["reason"] else text


def _revocation(
    current: Generation, identities: IdentityStore, settings: RevocationSettings, clock: Clock
) -> dict[str, Any] | None:
    known = RevocationRecords(identities).of(current)
    if known is None:
        return None
    revocation = known.revocation
    return _plain(
        {
            "state": known.standing(clock.now(), timedelta(days=settings.patience)),
            "reason": revocation.reason if revocation else "",
            "revoked_at": revocation.at if revocation else None,
            "as_of": known.as_of,
            "next": known.next,
            "answered_at": known.answered_at,
            "checked_at": known.checked_at,
            "source": known.source,
            "problem": known.problem,
        }
    )


def _revocation_text(revocation: dict[str, Any]) -> str:
    match revocation["state"]:
        case RevocationState.REVOKED:
            reason = revocation["reason"] or "no reason is given"
            text = f"REVOKED by the CA on {_minute(revocation['revoked_at'])} ({reason}); nothing is signed with it"
        case RevocationState.GOOD:
            text = f"not revoked, as of {_minute(revocation['as_of'])}"
        case _:
            answered = revocation["answered_at"]
            text = f"unknown since {_minute(answered)}" if answered else "unknown"
    problem = revocation["problem"]
    return f"{text}; the last check brought nothing: {problem}" if problem else text


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """With times as JSON has them."""
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


def _minute(moment: str) -> str:
    return f"{moment[:16].replace('T', ' ')} UTC"


def _day(moment: str) -> str:
    return moment[:10]
