"""Records in state files: one JSON object each, with the version of its format and a checksum.

    {"format": 1, "sha256": "6f1c...", "values": {"flow": "est", "since": "2026-11-22T12:00:00+00:00"}}

The checksum is over format, values, and the place of the file below `identities`: a record that was changed, or that
belongs to another identity or generation, is damaged. So is one whose values are not those that are expected. It is
no proof of who wrote it; whoever may write the file can write another one.

Later formats keep the checksum as it is, so that a record of a newer scanseal is known as one, and left alone, while a
damaged one is not taken for it ([ADR 34](../docs/adr/0034-state-records.md)).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path

from enroll.errors import StateDamaged, StateTooNew
from enroll.statefile import StateFiles

FORMAT = 1
RECORD_LIMIT = 16 * 1024  # bytes

_MEMBERS = {"format", "sha256", "values"}
_IDENTITIES = "identities"


def write_record(
    path: Path, values: Mapping[str, str], files: StateFiles, mode: int = 0o600, *, place: Path | None = None
) -> None:
    """Put a record at `path`.

    Args:
        path: The file.
        values: Its fields.
        files: Writes.
        mode: Of the file.
        place: Where it will be read, if its directory is renamed first.

    Raises:
        StateError: The disk refused.
    """
    write_document(path, dict(values), files, mode, place=place)


def read_record(path: Path, fields: Collection[str], files: StateFiles) -> dict[str, str]:
    """The record at `path`.

    Raises:
        StateDamaged: Not a record of exactly these fields.
        StateTooNew: A newer scanseal wrote it.
        StateError: Unreadable.
    """
    values = read_document(path, files)
    if not isinstance(values, dict) or values.keys() != set(fields):
        raise damaged(path)
    if not all(isinstance(value, str) for value in values.values()):
        raise damaged(path)
    return values


def write_document(
    path: Path, values: object, files: StateFiles, mode: int = 0o600, *, place: Path | None = None
) -> None:
    """The same for values that are not flat; see `write_record`."""
    document = {"format": FORMAT, "sha256": _checksum(FORMAT, values, place or path), "values": values}
    files.write(path, json.dumps(document, indent=1).encode("ascii") + b"\n", mode)


def read_document(path: Path, files: StateFiles, limit: int = RECORD_LIMIT) -> object:
    """The values of a record of any shape; raises as `read_record`.

    Args:
        path: The file.
        files: Reads.
        limit: Its largest size in bytes.
    """
    try:
        document = json.loads(files.read(path, limit))
    except (ValueError, RecursionError) as error:
        raise damaged(path) from error
    if not isinstance(document, dict) or document.keys() != _MEMBERS:
        raise damaged(path)
    version, values = document["format"], document["values"]
    if type(version) is not int or document["sha256"] != _checksum(version, values, path):
        raise damaged(path)
    check_format(version, path)
    return values


def check_format(version: int, path: Path) -> None:
    """Refuse a format that is not ours, in a file whose checksum is right.

    Raises:
        StateTooNew: A newer one.
        StateDamaged: There never was such a format.
    """
    if version > FORMAT:
        raise StateTooNew(
            f"{path} was written by a newer scanseal, in format {version}; this one knows format {FORMAT}.",
            remedy="Install that version again; or the backup of the state directory from before it.",
        )
    if version != FORMAT:
        raise damaged(path)


def read_time(text: str, path: Path) -> datetime:
    """A time with its zone, as `datetime.isoformat` writes it.

    Raises:
        StateDamaged: It is none.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise damaged(path) from error
    if moment.tzinfo is None:
        raise damaged(path)
    return moment


def damaged(path: Path) -> StateDamaged:
    """What to raise for a state file that says nothing sensible."""
    return StateDamaged(f"{path} is damaged.", remedy="Restore it from a backup, or enroll again.")


def sha256_of(data: bytes) -> str:
    """As records name the content of a file beside them."""
    return hashlib.sha256(data).hexdigest()


def _checksum(version: int, values: object, place: Path) -> str:
    whole = {"format": version, "place": _relative(place), "values": values}
    return sha256_of(json.dumps(whole, sort_keys=True, separators=(",", ":")).encode("ascii"))


def _relative(path: Path) -> str:
    """Below `identities`, where the same names come again and again; elsewhere the name says it all."""
    parts = path.parts
    begin = len(parts) - 1 - (parts[::-1].index(_IDENTITIES) if _IDENTITIES in parts else 0)
    return "/".join(parts[begin:])
