"""What the machine's clocks show, and what is remembered of them from one process to the next.

    clock.json      what was seen last; written when something changes, and every ten minutes otherwise
    clock.lock      held by whoever reads it to write it anew: what a person says meanwhile is not overwritten

`enroll.clock_sense` says what that means.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from enroll.clock import UNKNOWN_BOOT, Clock
from enroll.record import damaged, read_record, read_time, write_record
from enroll.statefile import StateFiles

FILE_NAME = "clock.json"

_FIELDS = ("believed", "believed_in", "estimate", "boottime", "boot_id", "doubt", "since", "confirmed_by", "shown")
_FILE_MODE = 0o640
_BETWEEN_NAMES = ", "


class Doubt(StrEnum):
    """Why the wall clock is not believed."""

    BEHIND_FLOOR = "behind-floor"
    JUMPED_FORWARD = "jumped-forward"


@dataclass(frozen=True)
class Reading:
    """What the clocks show at one moment.

    Args:
        wall: The wall clock.
        boottime: Seconds since the machine was started.
        boot_id: Which start that was.
    """

    wall: datetime
    boottime: float
    boot_id: str

    @classmethod
    def of(cls, clock: Clock) -> Reading:
        """Read the clocks."""
        return cls(clock.now(), clock.boottime(), clock.boot_id())


@dataclass(frozen=True)
class Seen:
    """What was thought of the clock when it was last looked at.

    Args:
        believed: The newest time at which the wall clock was believed.
        believed_in: In which start of the machine that was. What has passed since is known only in the same one.
        estimate: What time it was; the same as `believed` without a doubt.
        boottime: When, on that clock.
        boot_id: In which start of the machine.
        doubt: At that moment.
        since: When the doubt began, by the estimate.
        confirmed_by: Who said that the clock is right, one or more; empty once that is in the audit trail.
        shown: What the wall clock showed, in doubt.
    """

    believed: datetime
    believed_in: str
    estimate: datetime
    boottime: float
    boot_id: str
    doubt: Doubt | None = None
    since: datetime | None = None
    confirmed_by: str = ""
    shown: datetime | None = None

    def carried_to(self, reading: Reading) -> datetime:
        """The estimate, and what has passed since: at least the time since the start, where there was one between."""
        if self.boot_id == reading.boot_id:
            seconds = reading.boottime - self.boottime
        else:
            unknown = reading.boot_id.startswith(UNKNOWN_BOOT) or self.boot_id.startswith(UNKNOWN_BOOT)
            seconds = 0.0 if unknown else reading.boottime
        return later(self.estimate, timedelta(seconds=max(seconds, 0.0)))


def read_seen(root: Path, files: StateFiles) -> Seen | None:
    """What was seen last of the clock; None where nothing was.

    Raises:
        StateError: The record cannot be read.
    """
    path = root / FILE_NAME
    if not files.exists(path):
        return None
    values = read_record(path, _FIELDS, files)
    try:
        doubt = Doubt(values["doubt"]) if values["doubt"] else None
        boottime = float(values["boottime"])
    except ValueError as error:
        raise damaged(path) from error
    if not 0.0 <= boottime < float("inf"):
        raise damaged(path)
    return Seen(
        believed=read_time(values["believed"], path),
        believed_in=values["believed_in"],
        estimate=read_time(values["estimate"], path),
        boottime=boottime,
        boot_id=values["boot_id"],
        doubt=doubt,
        since=read_time(values["since"], path) if values["since"] else None,
        confirmed_by=values["confirmed_by"],
        shown=read_time(values["shown"], path) if values["shown"] else None,
    )


def changing_seen(root: Path, files: StateFiles) -> AbstractContextManager[None]:
    """Keep every other process from writing the record meanwhile.

    Raises:
        StateError: The disk refused, or the state directory belongs to another user.
    """
    files.check_owner(root)
    return files.locked(root / "clock.lock", None)


def write_seen(seen: Seen, root: Path, files: StateFiles) -> None:
    """Keep what was seen of the clock.

    Raises:
        StateError: The disk refused, or the state directory belongs to another user.
    """
    files.check_owner(root)
    values = {
        "believed": seen.believed.isoformat(),
        "believed_in": seen.believed_in,
        "estimate": seen.estimate.isoformat(),
        "boottime": repr(seen.boottime),
        "boot_id": seen.boot_id,
        "doubt": seen.doubt or "",
        "since": seen.since.isoformat() if seen.since else "",
        "confirmed_by": seen.confirmed_by,
        "shown": seen.shown.isoformat() if seen.shown else "",
    }
    write_record(root / FILE_NAME, values, files, _FILE_MODE)


def with_name(names: str, who: str) -> str:
    """Those who said that the clock is right, with one more, or with more than one."""
    known = [name for name in (*names.split(_BETWEEN_NAMES), *who.split(_BETWEEN_NAMES)) if name]
    return _BETWEEN_NAMES.join(dict.fromkeys(known))


def later(moment: datetime, by: timedelta) -> datetime:
    """`moment + by`, and the last moment there is where that would lie after it."""
    try:
        return moment + by
    except OverflowError:
        return datetime.max.replace(tzinfo=moment.tzinfo)
