"""What the owner has decided about the scanner: whose it is, and whether it may sign.

    owner.json    ownership: unowned | owned, disabled: yes | no, since when, by which user, for which reason;
                  untold: what people have decided, as long as the audit trail does not say so

`enroll.owner_file` reads it where it has to be, and changes it; what to make of it is in `enroll.device_state`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from datetime import datetime
from pathlib import Path

from enroll.errors import DeviceDisabled
from enroll.record import damaged, read_record, read_time, write_record
from enroll.statefile import StateFiles

ENABLE = "scanseal owner enable"
RESET = f"{ENABLE} --reset-record"
DEVICE_ENABLED = "device-enabled"  # in the audit trail; the reverse of `DeviceDisabled.code`

_FILE_MODE = 0o640
_FIELDS = ("ownership", "disabled", "since", "by", "reason", "untold")
_DECISION_SIZE = 4  # of the members of one
_UNTOLD_LIMIT = 4  # decisions, for which a record has room; of more the oldest are forgotten
_OWNERSHIP = {"unowned": False, "owned": True}
_DISABLED = {"no": False, "yes": True}


@dataclass(frozen=True)
class OwnerDecision:
    """What a person has decided, as the audit trail says it.

    Args:
        event: `device-disabled` or `device-enabled`.
        uid: Number of that user.
        since: Since when that holds, in ISO 8601.
        reason: Why.
    """

    event: str
    uid: str
    since: str
    reason: str

    def fields(self) -> dict[str, str]:
        """The particulars."""
        return {"uid": self.uid, "since": self.since, "reason": self.reason}


@dataclass(frozen=True)
class OwnerRecord:
    """What the record says.

    Args:
        is_owned: Whether an owner has taken the scanner over, and not released it.
        is_disabled: Whether the owner has disabled it.
        since: When that was written.
        by: Number of the user who wrote it; empty where it came with an enrollment or a release.
        reason: Why it is disabled, in the words of whoever did that; or that the record was lost.
        untold: What people have decided and the audit trail may not say yet.
    """

    is_owned: bool
    is_disabled: bool
    since: datetime
    by: str = ""
    reason: str = ""
    untold: tuple[OwnerDecision, ...] = ()

    @property
    def decision(self) -> OwnerDecision:
        """What was decided last, if a person has."""
        event = DeviceDisabled.code if self.is_disabled else DEVICE_ENABLED
        return OwnerDecision(event, self.by, self.since.isoformat(), self.reason)

    def after(self, before: OwnerRecord | None) -> OwnerRecord:
        """The same, where it is what a person has decided after a record that there was."""
        untold = before.untold if before else ()
        return replace(self, untold=(*untold, self.decision)[-_UNTOLD_LIMIT:])


def read_owner_record(path: Path, files: StateFiles) -> OwnerRecord:
    """What a record says.

    Raises:
        StateDamaged: It is damaged.
        StateTooNew: A newer scanseal wrote it.
        StateError: It cannot be read.
    """
    values = read_record(path, _FIELDS, files)
    if values["ownership"] not in _OWNERSHIP or values["disabled"] not in _DISABLED:
        raise damaged(path)
    return OwnerRecord(
        is_owned=_OWNERSHIP[values["ownership"]],
        is_disabled=_DISABLED[values["disabled"]],
        since=read_time(values["since"], path),
        by=values["by"],
        reason=values["reason"],
        untold=_read_decisions(values["untold"], path),
    )


def write_owner_record(record: OwnerRecord, path: Path, files: StateFiles) -> None:
    """Keep it.

    Raises:
        StateError: The disk refused; nothing has changed.
    """
    values = {
        "ownership": _word(record.is_owned, _OWNERSHIP),
        "disabled": _word(record.is_disabled, _DISABLED),
        "since": record.since.isoformat(),
        "by": record.by,
        "reason": record.reason,
        "untold": json.dumps([astuple(decision) for decision in record.untold]),
    }
    write_record(path, values, files, _FILE_MODE)


def _read_decisions(text: str, path: Path) -> tuple[OwnerDecision, ...]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path) from error
    if not isinstance(found, list) or not all(_is_decision(each) for each in found):
        raise damaged(path)
    return tuple(OwnerDecision(*each) for each in found)


def _is_decision(found: object) -> bool:
    if not isinstance(found, list) or len(found) != _DECISION_SIZE:
        return False
    return all(isinstance(member, str) for member in found)


def _word(value: bool, words: Mapping[str, bool]) -> str:  # noqa: FBT001 - the value of a record
    return next(word for word, meaning in words.items() if meaning is value)
