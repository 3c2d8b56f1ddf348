"""What is kept beside the generations of an identity, so that damage in one of them does not make it forgotten.

    identities/<name>/newest.json           number of the newest that was in use and of the one before it, when it came
    identities/<name>/revoked/<NNNN>.json   the certificate of this one is revoked (`enroll.revocation.record`)

The one before is what stands in for a damaged one, and what is revoked is never replaced by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from enroll.errors import StateDamaged, StateError
from enroll.record import read_record, read_time, write_record
from enroll.statefile import StateFiles
from enroll.wanted import Wanted

_FIELDS = ("number", "before", "at")


@dataclass(frozen=True)
class Newest:
    """The newest generation that was in use.

    Args:
        number: At least this one; 0 where none was.
        before: The number of the one that was in use before it; 0 where none was, None where nobody knows any more.
        at: When it came; None where none was, or nobody knows any more.
    """

    number: int = 0
    before: int | None = None
    at: datetime | None = None


def read_newest(directory: Path, files: StateFiles) -> Newest:
    """What is kept in the directory of an identity; where that is damaged, that there was one.

    Raises:
        StateError: It cannot be read.
    """
    path = directory / "newest.json"
    if not files.exists(path):
        return Newest()
    try:
        values = read_record(path, _FIELDS, files)
        return Newest(int(values["number"]), int(values["before"]), read_time(values["at"], path))
    except (StateDamaged, ValueError):
        return Newest(1)


def settle(directory: Path, newest: Newest, files: StateFiles, mode: int) -> None:
    """Keep it, after `current` leads there, and forget the wish for it.

    Raises:
        StateError: The disk refused; the generation is in use nevertheless.
    """
    try:
        _write_newest(directory, newest, files, mode)
        Wanted(directory, files).write(None)
    except StateError as error:
        raise type(error)(
            f"{error.what} The new certificate is in use.",
            remedy="Check the disk, and run it again.",
            what_next="The next run writes down that it is in use.",
        ) from error


def _write_newest(directory: Path, newest: Newest, files: StateFiles, mode: int) -> None:
    at = newest.at.isoformat() if newest.at else ""
    values = {"number": str(newest.number), "before": str(newest.before or 0), "at": at}
    write_record(directory / "newest.json", values, files, mode)


def revoked_file(directory: Path, number: int) -> Path:
    """What is there, damaged or not, where the certificate of a generation of this identity is revoked."""
    return directory / "revoked" / f"{number:04d}.json"
