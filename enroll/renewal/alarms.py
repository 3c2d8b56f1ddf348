"""When people are told that a certificate ends soon: 28, 7, 3, 2 and 1 days before, and 12, 6, 2 and 1 hours.

    identities/<name>/alarm.json    of which generation, and how near the end was when it was told last

Each once: what is told every ten minutes is not read. There is no alarm before a renewal is due, so a certificate that
lives for a week has fewer of them. Where the end seemed nearer than it is, the clock was wrong: what was told then is
forgotten, and silences no alarm.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from enroll.errors import StateDamaged, StateError, StateTooNew
from enroll.identity import Generation, IdentityStore
from enroll.record import damaged, read_record, write_record
from enroll.renewal.due import life, renewal_time

LEVELS = (
    *(timedelta(days=days) for days in (28, 7, 3, 2, 1)),
    *(timedelta(hours=hours) for hours in (12, 6, 2, 1, 0)),
)  # before the end; the last is the end
_FIELDS = ("generation", "hours")
_NUMBER = re.compile(r"[0-9]{1,9}")
_MODE = 0o640
_HOUR = timedelta(hours=1)
_LOG = logging.getLogger(__name__)


def alarm(generation: Generation, now: datetime) -> timedelta | None:
    """The alarm that holds now, by how long before the end it is; None where there is none.

    Args:
        generation: In use.
        now: The time.
    """
    begin, lifetime = life(generation.certificate)
    end = begin + lifetime
    reached = [level for level in LEVELS if end - level <= now and end - level >= renewal_time(generation.certificate)]
    return min(reached, default=None)


def alarm_text(level: timedelta) -> str:
    """An alarm in words."""
    if not level:
        return "has ended"
    days, hours = level.days, level // _HOUR
    left = f"{days} day{'s' * (days > 1)}" if days else f"{hours} hour{'s' * (hours > 1)}"
    return f"ends in less than {left}"


def raise_alarm(generation: Generation, now: datetime, identities: IdentityStore, why: str) -> None:
    """Log the alarm that holds now, unless it was told before.

    Args:
        generation: In use.
        now: The time.
        identities: The identity directory.
        why: What the matter is with its renewal; a sentence.
    """
    level = alarm(generation, now)
    path = identities.directory(generation.identity) / "alarm.json"
    if level is None:
        _forget(path, identities)
        return
    try:
        told = _told(generation, identities)
    except StateError as error:
        _LOG.warning("Which alarm was told last is not known: %s", error)
        told = None
    if told == level:
        return
    _LOG.warning("The certificate of %s %s, and is not renewed. %s", generation.identity, alarm_text(level), why)
    values = {"generation": str(generation.number), "hours": str(level // _HOUR)}
    try:
        identities.files.check_owner(identities.root)
        write_record(path, values, identities.files, _MODE)
    except StateError as error:
        _LOG.warning("That this was told cannot be kept: %s", error)


def _forget(path: Path, identities: IdentityStore) -> None:
    files = identities.files
    try:
        if not files.exists(path):
            return
        with suppress(StateDamaged):
            read_record(path, _FIELDS, files)
        files.check_owner(identities.root)
        files.remove(path)
    except StateTooNew:
        return  # that of a newer scanseal is left as it is
    except StateError as error:
        _LOG.warning("That there is no alarm cannot be kept: %s", error)


def _told(generation: Generation, identities: IdentityStore) -> timedelta | None:
    """The last alarm of a generation; None where there was none, or what is kept of it is damaged."""
    path = identities.directory(generation.identity) / "alarm.json"
    try:
        if not identities.files.exists(path):
            return None
        values = read_record(path, _FIELDS, identities.files)
        if not all(_NUMBER.fullmatch(value) for value in values.values()):
            raise damaged(path)
    except StateDamaged as error:
        _LOG.warning("Which alarm was told last is forgotten: %s", error.what)
        return None
    return int(values["hours"]) * _HOUR if values["generation"] == str(generation.number) else None
