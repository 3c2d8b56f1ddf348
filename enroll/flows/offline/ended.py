"""What became of requests that were carried by hand: so that an answer to an old one is refused with the reason.

    identities/<name>/offline-ended.json    the last of them

A convenience, not a safeguard: nothing is accepted because of what is missing here, since a request that has ended has
no key any more.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from enroll.errors import StateDamaged
from enroll.record import damaged, read_document, read_time, write_document
from enroll.statefile import STATE_FILE_LIMIT, StateFiles

ENDED_LIMIT = 50  # of an identity; the oldest are forgotten

_FIELDS = {"number", "key_sha256", "end", "started_at", "ended_at"}
_LOG = logging.getLogger(__name__)


class End(StrEnum):
    """How a request ends."""

    ANSWERED = "answered"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Ended:
    """A request that has ended.

    Args:
        number: Its number.
        key_sha256: Of its public key as SubjectPublicKeyInfo, in hexadecimal; empty where it never had one.
        end: How it ended.
        started_at: When its key was planned.
        ended_at: When it ended.
    """

    number: str
    key_sha256: str
    end: End
    started_at: datetime
    ended_at: datetime


class EndedRequests:
    """Those of one identity.

    Args:
        directory: Of the identity.
        files: Reads and writes below it.
    """

    def __init__(self, directory: Path, files: StateFiles) -> None:
        self._path = directory / "offline-ended.json"
        self._files = files

    def read(self) -> tuple[Ended, ...]:
        """The oldest first; none where the file is damaged.

        Raises:
            StateUnreadable: Not for the user who runs this.
        """
        try:
            return self._read() if self._files.exists(self._path) else ()
        except StateDamaged as error:
            _LOG.warning("What became of earlier requests is forgotten: %s", error.what)
            return ()

    def add(self, ended: Ended) -> None:
        """Note one more; what was noted of the same request is replaced.

        Raises:
            StateError: The disk refused.
        """
        kept = [other for other in self.read() if other.number != ended.number]
        records = [
            {
                "number": one.number,
                "key_sha256": one.key_sha256,
                "end": str(one.end),
                "started_at": one.started_at.isoformat(),
                "ended_at": one.ended_at.isoformat(),
            }
            for one in (*kept, ended)[-ENDED_LIMIT:]
        ]
        write_document(self._path, records, self._files)

    def _read(self) -> tuple[Ended, ...]:
        records = read_document(self._path, self._files, STATE_FILE_LIMIT)
        if not isinstance(records, list):
            raise damaged(self._path)
        return tuple(self._one(record) for record in records)

    def _one(self, record: object) -> Ended:
        if not isinstance(record, dict) or record.keys() != _FIELDS or record["end"] not in list(End):
            raise damaged(self._path)
        if not all(isinstance(value, str) for value in record.values()):
            raise damaged(self._path)
        started_at, ended_at = (read_time(record[name], self._path) for name in ("started_at", "ended_at"))
        return Ended(record["number"], record["key_sha256"], End(record["end"]), started_at, ended_at)
