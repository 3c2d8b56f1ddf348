"""The state of the scanner as a whole, for `scanseal status` and `scanseal check`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from agent.checks import Finding, State
from agent.cli.running import Status
from enroll.clock import SystemClock
from enroll.config import EnrollSettings
from enroll.device_facts import device_facts, lost_key_files
from enroll.device_state import DeviceState, Situation, situation_of, standing, ways_out
from enroll.enroller import Enroller
from enroll.errors import StateError, StateUnreadable
from enroll.foreign import printable
from enroll.identity import IdentityName, IdentityStore
from enroll.statefile import StateFiles

_HIDDEN = "hidden"
_FINDINGS = {DeviceState.OWNED: State.OK, DeviceState.UNOWNED: State.WARNING, DeviceState.DISABLED: State.WARNING}


def record(settings: EnrollSettings, agent: Status, way: str) -> dict[str, Any]:
    """The member `device` of the status; see docs/exit-codes.md.

    Args:
        settings: Of this scanner.
        agent: What the agent says: it knows of keys in tokens.
        way: What follows `scanseal enroll` in the command that brings new certificates here.
    """
    found, situation = _found(settings, agent, way)
    return {**found, "ways_out": list(ways_out(situation)) if situation else []}


def _found(settings: EnrollSettings, agent: Status, way: str) -> tuple[dict[str, str], Situation | None]:
    with Enroller.configured(settings, SystemClock(), StateFiles()) as enroller:
        identities, stores = enroller.context.identities, enroller.context.stores
        try:
            facts = device_facts(identities, lost_key_files(identities, stores))
        except StateUnreadable as error:
            said = _of_agent(agent)
            return (said or _plain(_HIDDEN, error.what, error.remedy, error.who_must_act)), _situation_of_agent(said)
        except StateError as error:
            return _plain(DeviceState.NEEDS_SERVICE, error.what, error.remedy, error.who_must_act), None
    found, said = standing(facts, f"scanseal enroll{way}"), _of_agent(agent)
    if found.state is DeviceState.OWNED and said and said["state"] == DeviceState.KEY_LOST:
        return said, Situation.KEY_LOST
    return asdict(found), situation_of(facts)


def lines(record: Mapping[str, Any]) -> list[str]:
    """The same for people."""
    reason = f": {record['reason']}" if record["reason"] else ""
    told = [f"{record['state']}{reason}"]
    if record["next_action"]:
        told += [record["next_action"], f"To act: {record['who_must_act']}."]
    return told


def finding(identities: IdentityStore, lost: Collection[IdentityName], way: str) -> Finding:
    """The same for `scanseal check`, which has looked for every key.

    Args:
        identities: The identity directory.
        lost: The identities whose key is not in its store.
        way: As in `record`.
    """
    found = standing(device_facts(identities, lost), f"scanseal enroll {way}".rstrip())
    what = f"{found.state}: {found.reason}" if found.reason else str(found.state)
    remedy = f"{found.next_action} To act: {found.who_must_act}." if found.next_action else ""
    return Finding("device-state", _FINDINGS.get(found.state, State.FAILED), what, remedy)


def _of_agent(agent: Status) -> dict[str, str] | None:
    """What the agent says, which may be of another release."""
    said = agent.get("device")
    names = ("state", "reason", "next_action", "who_must_act")
    if not isinstance(said, dict) or any(not isinstance(said.get(name), str) for name in names):
        return None
    return {name: printable(said[name], 1000) for name in names}


def _situation_of_agent(said: Mapping[str, str] | None) -> Situation | None:
    """None where the agent does not say enough: where service is needed, that may be for several reasons."""
    return next((each for each in Situation if said is not None and each == said["state"]), None)


def _plain(state: str, reason: str, next_action: str, who_must_act: str) -> dict[str, str]:
    return {"state": state, "reason": reason, "next_action": next_action, "who_must_act": who_must_act}
