"""The states of a scanner, and what leads from one to another. Pure: what was found is passed in.

    unowned         no certificate of an owner is in use
    owned           an owner's certificates are in use, and their keys are there
    disabled        the owner has said that nothing is signed and nothing enrolled
    key-lost        a certificate is in use whose key is not in its store any more: a TPM was cleared, a token exchanged
    needs-service   a record is damaged, so that nobody knows what holds

The first that fits of `needs-service` for the record of the owner, `disabled`, `needs-service` for a certificate,
`key-lost`, `owned` and `unowned` is the state: whatever else is wrong, a scanner that was disabled stays so. Where the
record of the owner is damaged, nothing is signed; where a certificate is, the other identities go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from enroll.errors import HOSPITAL_IT, NOBODY, OWNER, SERVICE, ScansealError
from enroll.owner_record import ENABLE, RESET, OwnerRecord

RELEASE = "scanseal owner release"


class DeviceState(StrEnum):
    """What a scanner is, as a whole."""

    UNOWNED = "unowned"
    OWNED = "owned"
    DISABLED = "disabled"
    KEY_LOST = "key-lost"
    NEEDS_SERVICE = "needs-service"


class DeviceEvent(StrEnum):
    """What may happen to a scanner."""

    ENROLL = "enroll"  # a person gets new certificates, over whatever was lost or damaged
    RENEW = "renew"
    DISABLE = "disable"
    ENABLE = "enable"
    RESET = "reset"  # `enable --reset-record`
    RELEASE = "release"
    LOSE_KEY = "lose-key"
    LOSE_RECORD = "lose-record"  # that of the owner
    LOSE_CERTIFICATE = "lose-certificate"
    RESTART = "restart"


@dataclass(frozen=True)
class DeviceFacts:
    """What was found.

    Args:
        record: Of the owner; None where there is none and none is missed, or where it cannot be believed.
        record_problem: Why it cannot be believed or read.
        owners: The identities of an owner that are in use.
        damaged: Identities whose certificate cannot be read.
        lost: Identities in use whose key is not in its store.
        is_releasing: Whether a release has begun and not come to its end.
    """

    record: OwnerRecord | None = None
    record_problem: ScansealError | None = None
    owners: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    is_releasing: bool = False


@dataclass(frozen=True)
class DeviceStanding:
    """The state of a scanner, for people.

    Args:
        state: Which.
        reason: Why it is so; empty where there is nothing to say.
        next_action: What to do now; empty where nothing is to be done.
        who_must_act: Whose turn it is.
    """

    state: DeviceState
    reason: str = ""
    next_action: str = ""
    who_must_act: str = NOBODY


def state_of(facts: DeviceFacts) -> DeviceState:
    """The state that the facts make; see the top of this file for the order."""
    if facts.record_problem is not None:
        return DeviceState.NEEDS_SERVICE
    if facts.record is not None and facts.record.is_disabled:
        return DeviceState.DISABLED
    if facts.damaged:
        return DeviceState.NEEDS_SERVICE
    if facts.lost:
        return DeviceState.KEY_LOST
    # An enrollment that was cut off just before its end leaves a record of an owner who has nothing here yet.
    is_owned = facts.record is not None and facts.record.is_owned and bool(facts.owners)
    return DeviceState.OWNED if is_owned else DeviceState.UNOWNED


def standing(facts: DeviceFacts, enrolling: str = "scanseal enroll") -> DeviceStanding:
    """The same with its reason, and what follows from it.

    Args:
        facts: What was found.
        enrolling: The command that brings new certificates here.
    """
    state, problem = state_of(facts), facts.record_problem
    if problem is not None:
        return DeviceStanding(state, problem.what, problem.remedy, problem.who_must_act)
    if state is DeviceState.DISABLED and facts.record is not None:
        return DeviceStanding(state, _disabled(facts.record), f"Run: {ENABLE}", OWNER)
    if facts.is_releasing:
        return DeviceStanding(state, "a release is under way", f"Run again: {RELEASE}", OWNER)
    if state is DeviceState.OWNED:
        return DeviceStanding(state)
    reason, remedy, who_must_act = {
        DeviceState.NEEDS_SERVICE: (
            f"damaged: {', '.join(facts.damaged)}",
            f"Restore the state directory from a backup, or run: {enrolling}",
            SERVICE,
        ),
        DeviceState.KEY_LOST: (
            f"not in its key store: the key of {', '.join(facts.lost)}",
            f"Run: {enrolling}, and have the CA revoke the old certificate.",
            SERVICE,
        ),
    }.get(state, ("no certificate of an owner is in use", f"Run: {enrolling}", HOSPITAL_IT))
    return DeviceStanding(state, reason, remedy, who_must_act)


def _disabled(record: OwnerRecord) -> str:
    who = f" by user {record.by}" if record.by else ""
    return f"since {record.since:%Y-%m-%d %H:%M} UTC{who}: {record.reason or 'no reason was given'}"


_UNOWNED, _OWNED, _DISABLED = DeviceState.UNOWNED, DeviceState.OWNED, DeviceState.DISABLED
_KEY_LOST, _NEEDS_SERVICE = DeviceState.KEY_LOST, DeviceState.NEEDS_SERVICE
_ENABLED = frozenset({_UNOWNED, _OWNED, _KEY_LOST})  # by what is there

# Where each event may lead. An event that is not named for a state changes nothing: it is refused, or there is nothing
# to do. Only `enable`, `reset` and `release` lead out of `disabled`, or out of a record of the owner that is lost.
TRANSITIONS: Mapping[DeviceState, Mapping[DeviceEvent, frozenset[DeviceState]]] = {
    _UNOWNED: {
        DeviceEvent.ENROLL: frozenset({_OWNED}),
        DeviceEvent.RENEW: frozenset({_OWNED}),  # what was asked for has come
        DeviceEvent.DISABLE: frozenset({_DISABLED}),
        DeviceEvent.LOSE_KEY: frozenset({_KEY_LOST}),  # of what the vendor has given
        DeviceEvent.LOSE_RECORD: frozenset({_NEEDS_SERVICE}),
        DeviceEvent.LOSE_CERTIFICATE: frozenset({_NEEDS_SERVICE}),
    },
    _OWNED: {
        DeviceEvent.DISABLE: frozenset({_DISABLED}),
        DeviceEvent.RELEASE: frozenset({_UNOWNED}),
        DeviceEvent.LOSE_KEY: frozenset({_KEY_LOST}),
        DeviceEvent.LOSE_RECORD: frozenset({_NEEDS_SERVICE}),
        # The generation before is in use then, if it is whole; its key may have been lost earlier.
        DeviceEvent.LOSE_CERTIFICATE: frozenset({_NEEDS_SERVICE, _KEY_LOST}),
    },
    _DISABLED: {
        DeviceEvent.ENABLE: _ENABLED | {_NEEDS_SERVICE},
        DeviceEvent.RESET: _ENABLED | {_NEEDS_SERVICE},
        DeviceEvent.RELEASE: frozenset({_UNOWNED}),
        DeviceEvent.LOSE_RECORD: frozenset({_NEEDS_SERVICE}),
    },
    _KEY_LOST: {
        DeviceEvent.ENROLL: frozenset({_OWNED}),
        DeviceEvent.RENEW: frozenset({_OWNED}),  # of an identity whose key proves nothing to the CA
        DeviceEvent.DISABLE: frozenset({_DISABLED}),
        DeviceEvent.RELEASE: frozenset({_UNOWNED}),
        DeviceEvent.LOSE_RECORD: frozenset({_NEEDS_SERVICE}),
        DeviceEvent.LOSE_CERTIFICATE: frozenset({_NEEDS_SERVICE, _OWNED}),  # the key of the one before is there
    },
    _NEEDS_SERVICE: {
        DeviceEvent.ENROLL: _ENABLED,  # over a certificate that is damaged
        DeviceEvent.DISABLE: frozenset({_DISABLED}),
        DeviceEvent.RESET: _ENABLED,
        DeviceEvent.RELEASE: frozenset({_UNOWNED}),
    },
}


_COMMANDS = {
    DeviceEvent.ENROLL: "scanseal enroll",
    DeviceEvent.DISABLE: "scanseal owner disable",
    DeviceEvent.ENABLE: ENABLE,
    DeviceEvent.RESET: RESET,
    DeviceEvent.RELEASE: RELEASE,
}


def ways_out(state: DeviceState) -> tuple[str, ...]:
    """The commands with which a person may lead the scanner to another state."""
    return tuple(command for event, command in _COMMANDS.items() if may_become(state, event) != {state})


def may_become(state: DeviceState, event: DeviceEvent) -> frozenset[DeviceState]:
    """The states that an event may lead to; to stay is always one of them."""
    return TRANSITIONS[state].get(event, frozenset()) | {state}
