"""Small records in state files: one flat JSON object of strings, its fields known beforehand."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path

from enroll.errors import StateError
from enroll.statefile import StateFiles

RECORD_LIMIT = 16 * 1024  # bytes


def write_record(path: Path, values: Mapping[str, str], files: StateFiles, mode: int = 0o600) -> None:
    """Put a record at `path`.

    Raises:
        StateError: The disk refused.
    """
    files.write(path, json.dumps(dict(values), indent=1).encode("utf-8") + b"\n", mode)


def read_record(path: Path, fields: Collection[str], files: StateFiles) -> dict[str, str]:
    """The record at `path`.

    Raises:
        StateError: Unreadable, or not a record of exactly these fields.
    """
    try:
        values = json.loads(files.read(path, RECORD_LIMIT))
    except (ValueError, RecursionError) as error:
        raise damaged(path) from error
    if not isinstance(values, dict) or values.keys() != set(fields):
        raise damaged(path)
    if not all(isinstance(value, str) for value in values.values()):
        raise damaged(path)
    return values


def read_time(text: str, path: Path) -> datetime:
    """A time with its zone, as `datetime.isoformat` writes it.

    Raises:
        StateError: It is none.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise damaged(path) from error
    if moment.tzinfo is None:
        raise damaged(path)
    return moment


def damaged(path: Path) -> StateError:
    """What to raise for a state file that says nothing sensible."""
    return StateError(f"{path} is damaged.", remedy="Restore it from a backup, or enroll again.")
