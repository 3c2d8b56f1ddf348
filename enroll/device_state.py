"""The states of a scanner, and what leads from one to another. Pure: what was found is passed in.

    unowned         no certificate of an owner is in use
    owned           an owner's certificates are in use, and their keys are there
    disabled        the owner has said that nothing is signed and nothing enrolled
    key-lost        a certificate is in use whose key is not in its store any more: a TPM was cleared, a token exchanged
    needs-service   a record is damaged, so that nobody knows what holds

The first that fits of `needs-service` for the record of the owner, `disabled`, `needs-service` for a certificate,
`key-lost`, `owned` and `unowned` is the state: whatever else is wrong, a scanner that was disabled stays so. Where the
record of the owner is damaged, nothing is signed; where a certificate is, the other identities go on. So the machine
tells apart three of what people are told as `needs-service` (`Situation`).

`TRANSITIONS` is the one place that says what may happen in which state, and where it leads. Whatever signs, enrolls or
changes the state asks `refusal` first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from enroll.errors import (
    HOSPITAL_IT,
    NOBODY,
    OWNER,
    SERVICE,
    DeviceDisabled,
    ScansealError,
    StateDamaged,
    StateError,
)
from enroll.owner_record import ENABLE, RESET, OwnerRecord

RELEASE = "scanseal owner release"


class DeviceState(StrEnum):
    """What a scanner is, as a whole."""

    UNOWNED = "unowned"
    OWNED = "owned"
    DISABLED = "disabled"
    KEY_LOST = "key-lost"
    NEEDS_SERVICE = "needs-service"


class Situation(StrEnum):
    """The same, with what is damaged where service is needed: that decides what may be done about it."""

    UNOWNED = "unowned"
    OWNED = "owned"
    DISABLED = "disabled"
    KEY_LOST = "key-lost"
    CERTIFICATE_DAMAGED = "certificate-damaged"
    RECORD_LOST = "record-lost"  # that of the owner: damaged, or missing
    RECORD_CLOSED = "record-closed"  # it may be whole, and cannot be read here and now, or not by this version

    @property
    def state(self) -> DeviceState:
        """What people are told."""
        needs_service = {Situation.CERTIFICATE_DAMAGED, Situation.RECORD_LOST, Situation.RECORD_CLOSED}
        return DeviceState.NEEDS_SERVICE if self in needs_service else DeviceState(self.value)


class DeviceEvent(StrEnum):
    """What may happen to a scanner: first what somebody does and may be refused, then what comes over it."""

    SIGN = "sign"
    ENROLL = "enroll"  # a person gets new certificates, over whatever was lost or damaged
    RENEW = "renew"
    GIVE_UP = "give-up"  # certificates at the CA, and keys that nothing needs
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


def situation_of(facts: DeviceFacts) -> Situation:
    """What the facts make; see the top of this file for the order."""
    if facts.record_problem is not None:
        is_lost = isinstance(facts.record_problem, StateDamaged)
        return Situation.RECORD_LOST if is_lost else Situation.RECORD_CLOSED
    if facts.record is not None and facts.record.is_disabled:
        return Situation.DISABLED
    if facts.damaged:
        return Situation.CERTIFICATE_DAMAGED
    if facts.lost:
        return Situation.KEY_LOST
    # An enrollment that was cut off just before its end leaves a record of an owner who has nothing here yet.
    is_owned = facts.record is not None and facts.record.is_owned and bool(facts.owners)
    return Situation.OWNED if is_owned else Situation.UNOWNED


def state_of(facts: DeviceFacts) -> DeviceState:
    """The state that the facts make."""
    return situation_of(facts).state


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


_UNOWNED, _OWNED, _DISABLED, _KEY_LOST = Situation.UNOWNED, Situation.OWNED, Situation.DISABLED, Situation.KEY_LOST
_DAMAGED, _RECORD_LOST, _RECORD_CLOSED = (
    Situation.CERTIFICATE_DAMAGED,
    Situation.RECORD_LOST,
    Situation.RECORD_CLOSED,
)
_STAYS: frozenset[Situation] = frozenset()  # it may be done, and changes nothing here
_BY_WHAT_IS_THERE = frozenset({_UNOWNED, _OWNED, _KEY_LOST, _DAMAGED})
_VENDORS_ALONE = frozenset({_UNOWNED, _KEY_LOST, _DAMAGED})  # what the vendor has given may be lost or damaged, too
_LET = {  # by an owner who has not disabled it
    DeviceEvent.SIGN: _STAYS,  # by the identities that can
    DeviceEvent.ENROLL: _STAYS,
    DeviceEvent.RENEW: _STAYS,
    DeviceEvent.GIVE_UP: _STAYS,
    DeviceEvent.DISABLE: frozenset({_DISABLED}),
    DeviceEvent.ENABLE: _STAYS,
    DeviceEvent.RESET: _STAYS,
    DeviceEvent.LOSE_RECORD: frozenset({_RECORD_LOST}),
}

# Where each event may lead; to stay is always possible. What somebody does and is not named is refused; what comes over
# a scanner and is not named changes nothing. Only `enable`, `reset` and `release` lead out of `disabled`, and only
# `disable`, `reset` and `release` out of a record of the owner that is lost.
TRANSITIONS: Mapping[Situation, Mapping[DeviceEvent, frozenset[Situation]]] = {
    _UNOWNED: _LET
    | {
        DeviceEvent.ENROLL: frozenset({_OWNED}),
        DeviceEvent.RENEW: frozenset({_OWNED}),  # what was asked for has come
        DeviceEvent.RELEASE: _STAYS,
        DeviceEvent.LOSE_KEY: frozenset({_KEY_LOST}),  # of what the vendor has given
        DeviceEvent.LOSE_CERTIFICATE: frozenset({_DAMAGED}),
    },
    _OWNED: _LET
    | {
        DeviceEvent.RELEASE: frozenset({_UNOWNED}),
        DeviceEvent.LOSE_KEY: frozenset({_KEY_LOST}),
        # The generation before is in use then, if it is whole; its key may have been lost earlier.
        DeviceEvent.LOSE_CERTIFICATE: frozenset({_DAMAGED, _KEY_LOST}),
    },
    _KEY_LOST: _LET
    | {
        DeviceEvent.ENROLL: frozenset({_UNOWNED, _OWNED}),
        DeviceEvent.RENEW: frozenset({_UNOWNED, _OWNED}),  # of an identity whose key proves nothing to the CA
        DeviceEvent.RELEASE: frozenset({_UNOWNED}),
        DeviceEvent.LOSE_CERTIFICATE: frozenset({_DAMAGED, _UNOWNED, _OWNED}),  # the key of the one before is there
    },
    _DAMAGED: _LET
    | {
        DeviceEvent.ENROLL: frozenset({_UNOWNED, _OWNED, _KEY_LOST}),
        DeviceEvent.RELEASE: frozenset({_UNOWNED, _KEY_LOST}),
    },
    _DISABLED: {
        DeviceEvent.GIVE_UP: _STAYS,
        DeviceEvent.DISABLE: _STAYS,
        DeviceEvent.ENABLE: _BY_WHAT_IS_THERE,
        DeviceEvent.RESET: _BY_WHAT_IS_THERE,
        DeviceEvent.RELEASE: _VENDORS_ALONE,
        DeviceEvent.LOSE_RECORD: frozenset({_RECORD_LOST}),
    },
    _RECORD_LOST: {
        DeviceEvent.GIVE_UP: _STAYS,
        DeviceEvent.DISABLE: frozenset({_DISABLED}),
        DeviceEvent.RESET: _BY_WHAT_IS_THERE,
        DeviceEvent.RELEASE: _VENDORS_ALONE,
    },
    # What it says is overwritten by nobody who cannot read it.
    _RECORD_CLOSED: {DeviceEvent.GIVE_UP: _STAYS, DeviceEvent.LOSE_RECORD: frozenset({_RECORD_LOST})},
}

# What comes now would go with what the owner gives up.
_ENDED_BY_RELEASE = frozenset({DeviceEvent.ENROLL, DeviceEvent.RENEW, DeviceEvent.GIVE_UP})


def refusal(facts: DeviceFacts, event: DeviceEvent) -> ScansealError | None:
    """Why something may not be done now; None where it may.

    Args:
        facts: What was found. Which identities are in use, damaged or lost refuses nothing: whoever asks need not look.
        event: Something that somebody does.

    Returns:
        A StateError where the owner is giving the scanner up; the problem of the record; or DeviceDisabled.
    """
    if facts.is_releasing and event in _ENDED_BY_RELEASE:
        return StateError(
            "The owner of this scanner has begun to give it up, and that has not come to its end.",
            remedy=f"Run again: {RELEASE}",
            code="release-under-way",
        )
    if event in TRANSITIONS[situation_of(facts)]:
        return None
    return facts.record_problem or _told_disabled(facts.record)


def _told_disabled(record: OwnerRecord | None) -> DeviceDisabled:
    since = f" on {record.since:%Y-%m-%d %H:%M} UTC" if record else ""
    because = f" ({record.reason})" if record and record.reason else ""
    return DeviceDisabled(
        f"The owner has disabled this scanner{since}{because}.", remedy=f"Its owner may run: {ENABLE}"
    )


_COMMANDS = {
    DeviceEvent.ENROLL: "scanseal enroll",
    DeviceEvent.DISABLE: "scanseal owner disable",
    DeviceEvent.ENABLE: ENABLE,
    DeviceEvent.RESET: RESET,
    DeviceEvent.RELEASE: RELEASE,
}


def ways_out(situation: Situation) -> tuple[str, ...]:
    """The commands with which a person may lead the scanner to another state."""
    return tuple(command for event, command in _COMMANDS.items() if TRANSITIONS[situation].get(event))


def may_become(situation: Situation, event: DeviceEvent) -> frozenset[Situation]:
    """What an event may lead to; to stay is always among it."""
    return TRANSITIONS[situation].get(event, frozenset()) | {situation}
