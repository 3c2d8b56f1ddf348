r"""The audit trail: JSON lines, each chained to the one before by SHA-256.

A line is one object with the members `sequence` (from 1), `time` (UTC), `event`, `fields`, `previous` (the hash of
the line before; 64 zeros in the first) and `hash`: SHA-256 in hex over the line as it is without `,"hash":"..."` and
the line end. Changing, dropping or reordering lines breaks the chain; cutting off the end does not, so copy the last
hash to another machine now and then.

A line cut short by a crash stays where it is. The next whole line is of event `torn-line` and holds the length and hash
of what lies between; the chain goes on from the last whole line before.

A line is in the hands of the kernel before `record` returns, so it survives the end of this process; it is on the disk
within `SYNCED_WITHIN`, or, if it is durable, before `record` returns. Where the disk says that it has not kept what it
was given, nothing more is taken until those lines were written once more and kept.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import stat
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from agent.errors import AlreadyRunning
from enroll.clock import Clock
from enroll.errors import DiskRefused, StateError
from enroll.statefile import GROUP_DIRECTORY, StateFiles
from enroll.statefile_refusals import kind_of

LINE_LIMIT = 16 * 1024  # bytes
_TAIL_LIMIT = 4 * LINE_LIMIT  # bytes that are looked through for the last whole line
NO_HASH = "0" * 64
SYNCED_WITHIN = 1.0  # seconds until a line is on a disk that works: all that a power cut may take

_TORN = "torn-line"
_NOT_WITHOUT_A_LINE = "Nothing is signed until its lines can be written."
_HASH_MEMBER = re.compile(rb',"hash":"([0-9a-f]{64})"\}')
_HASH_MEMBER_SIZE = len(',"hash":""}') + 64
_PAUSE = SYNCED_WITHIN / 2  # seconds between two syncs; the other half is for the disk

logger = logging.getLogger("scanseal.audit")


def only_writer(state: Path, files: StateFiles) -> AbstractContextManager[None]:
    """Keep every other process out that would write into the audit trail of a state directory: agents above all.

    Raises:
        AlreadyRunning: There is one.
        StateError: The lock file cannot be made.
    """
    files.make_directory(state, GROUP_DIRECTORY)
    busy = AlreadyRunning(
        f"Another agent works in {state}.", remedy="Stop it first, or give this one its own state_directory."
    )
    return files.locked(state / "agent.lock", busy)


@dataclass(frozen=True)
class AuditSummary:
    """What `verify` found.

    Args:
        records: Number of whole lines.
        torn: Numbers of the lines that a crash cut short; each is named by the line after it.
        last_hash: Hash of the last whole line.
    """

    records: int
    torn: tuple[int, ...]
    last_hash: str


class AuditTrail:
    """The open trail; any number of threads may record.

    Args:
        path: The file; made if it is not there.
        clock: For the time of each line.

    Raises:
        StateError: The file cannot be opened or read.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()  # of all below; never held while the disk is waited for
        self._sequence = 0
        self._previous = NO_HASH
        self._whole = True
        self._unsynced: list[bytes] = []  # written since the last sync: of a second at most
        self._synced = 0  # bytes that the disk has kept
        self._doubt: OSError | None = None  # why it may not have kept the rest
        self._syncing = threading.Lock()
        self._closing = threading.Event()
        try:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(path, flags, 0o640)
        except OSError as error:
            raise _unusable(path, error) from error
        try:
            self._synced = os.fstat(self._descriptor).st_size
            self._recover()
            self._sync()
        except StateError:
            os.close(self._descriptor)
            raise
        self._thread = threading.Thread(target=self._sync_on, name="audit-sync", daemon=True)
        self._thread.start()

    def record(self, event: str, fields: Mapping[str, str | int], *, durable: bool = False) -> None:
        """Append one line.

        Args:
            event: What happened, in kebab case.
            fields: The particulars. Never a secret.
            durable: Wait until the line is on the disk. For what an attacker might want to have forgotten.

        Raises:
            StateError: The line could not be written; what it should have recorded must not happen.
        """
        with self._lock:
            if self._doubt is not None:
                raise _unusable(self._path, self._doubt)
            repaired = not self._whole
            if repaired:
                self._recover()
            self._append(event, fields)
        if durable or repaired:
            self._sync()

    def close(self) -> None:
        """Write everything to the disk and close the file."""
        self._closing.set()
        self._thread.join()
        try:
            self._sync()
        finally:
            with self._syncing, self._lock:
                os.close(self._descriptor)
                # What a thread still records that nobody waits for is refused: the number may be another file's by now.
                self._descriptor = -1

    def _sync_on(self) -> None:
        """The thread that syncs, so that no signature waits for the disk. It also finds out when the disk is back."""
        failed = False
        while not self._closing.wait(_PAUSE):
            try:
                self._sync()
            except StateError as error:
                if not failed:
                    logger.error("%s Nothing is signed until it can be.", error)  # noqa: TRY400 - it says it all
                failed = True
            else:
                failed = False

    def _append(self, event: str, fields: Mapping[str, str | int]) -> None:
        body = _encode(
            {
                "sequence": self._sequence + 1,
                "time": self._clock.now().isoformat(timespec="microseconds"),
                "event": event,
                "fields": dict(fields),
                "previous": self._previous,
            }
        )
        digest = hashlib.sha256(body).hexdigest()
        self._write(body[:-1] + f',"hash":"{digest}"}}\n'.encode("ascii"))
        self._sequence += 1
        self._previous = digest

    def _write(self, line: bytes) -> None:
        try:
            written = os.write(self._descriptor, line)
        except OSError as error:
            raise _unusable(self._path, error) from error
        self._unsynced.append(line[:written])
        if written != len(line):
            self._whole = False
            raise DiskRefused(
                f"The audit trail {self._path} took only part of a line.",
                remedy="Make room on the disk.",
                code="audit-unavailable",
                what_next=_NOT_WITHOUT_A_LINE,
            )

    def _sync(self) -> None:
        """Have the disk keep what was written. Others go on writing meanwhile."""
        with self._syncing:
            with self._lock:
                lines, self._unsynced = self._unsynced, []
            if not lines:
                return
            try:
                if self._doubt is not None:
                    # After an error the kernel calls its pages clean, and a second fsync would keep nothing of them.
                    self._write_again(b"".join(lines))
                os.fsync(self._descriptor)
            except OSError as error:
                with self._lock:
                    self._unsynced[:0] = lines
                    self._doubt = error.with_traceback(None)
                raise _unusable(self._path, error) from error
            self._synced += sum(map(len, lines))
            self._doubt = None

    def _write_again(self, data: bytes) -> None:
        # pwrite(2), BUGS: with O_APPEND the place is ignored. Nobody else writes while there is a doubt.
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~os.O_APPEND)
        try:
            if os.pwrite(self._descriptor, data, self._synced) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags)

    def _recover(self) -> None:
        """Find the last whole line and name what follows it."""
        try:
            size = os.fstat(self._descriptor).st_size
            tail = os.pread(self._descriptor, _TAIL_LIMIT, max(0, size - _TAIL_LIMIT))
        except OSError as error:
            raise _unusable(self._path, error) from error
        ended = not tail or tail.endswith(b"\n")
        if not ended:
            tail += b"\n"
        record = None
        end = len(tail)
        while end > 0:
            start = tail.rfind(b"\n", 0, end - 1) + 1
            record = _parse(tail[start : end - 1])
            if record is not None:
                break
            end = start
        if record is not None:
            self._sequence, self._previous = record["sequence"], record["hash"]
        elif size > _TAIL_LIMIT:
            raise _damaged(self._path, "its last lines")
        # Not whole until it has been named: where the disk is still full, the next record tries again.
        self._whole = False
        if not ended:
            self._write(b"\n")
        if torn := tail[end:]:
            self._append(_TORN, _torn_fields(torn.removesuffix(b"\n")))
        self._whole = True


def verify(path: Path) -> AuditSummary:
    """Check the chain from the first line to the last.

    Raises:
        StateError: The file cannot be read, or a line was changed, dropped or moved; the message names it.
    """
    try:
        # O_NONBLOCK: a FIFO in its place must not be waited for.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            summary = _verify(path, file) if is_file else None
    except OSError as error:
        raise _unusable(path, error) from error
    if summary is None:
        raise _unusable(path, OSError(errno.EINVAL, "It is not a regular file"))
    return summary


def _verify(path: Path, file: BinaryIO) -> AuditSummary:
    number, records, previous = 0, 0, NO_HASH
    torn_lines: list[int] = []
    torn = b""
    while line := file.readline(LINE_LIMIT):
        number += 1
        record = _parse(line.removesuffix(b"\n")) if line.endswith(b"\n") else None
        if record is None:
            torn += line
            torn_lines.append(number)
            if len(torn) > _TAIL_LIMIT:
                raise _damaged(path, f"line {number}")
            continue
        if (record["sequence"], record["previous"]) != (records + 1, previous):
            raise _damaged(path, f"line {number}")
        if torn and (record["event"], record["fields"]) != (_TORN, _torn_fields(torn.removesuffix(b"\n"))):
            raise _damaged(path, f"line {number - 1}")
        records, previous, torn = records + 1, record["hash"], b""
    if torn:
        raise _damaged(path, f"line {number}")
    return AuditSummary(records, tuple(torn_lines), previous)


def _encode(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode("ascii")


def _parse(line: bytes) -> dict[str, Any] | None:
    """The record in a line, or nothing if it is not a whole line of a trail."""
    ending = _HASH_MEMBER.fullmatch(line, max(0, len(line) - _HASH_MEMBER_SIZE))
    if ending is None or len(line) > LINE_LIMIT:
        return None
    body = line[: ending.start()] + b"}"
    if hashlib.sha256(body).hexdigest().encode("ascii") != ending[1]:
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    members = {"sequence": int, "time": str, "event": str, "fields": dict, "previous": str, "hash": str}
    if not isinstance(record, dict) or any(not isinstance(record.get(name), kind) for name, kind in members.items()):
        return None
    return record


def _torn_fields(torn: bytes) -> dict[str, str | int]:
    return {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}


def _unusable(path: Path, error: OSError) -> StateError:
    # A full disk may have room again by itself, so an agent that could not start is started again: docs/exit-codes.md.
    kind = DiskRefused if kind_of(error) is DiskRefused else StateError
    return kind(
        f"The audit trail {path} cannot be used: {error.strerror}.",
        remedy="Check the disk and the permissions.",
        code="audit-unavailable",
        what_next=_NOT_WITHOUT_A_LINE,
    )


def _damaged(path: Path, place: str) -> StateError:
    return StateError(
        f"The audit trail {path} is damaged at {place}.",
        remedy="Keep the file as evidence and move it away; a new trail is begun at the next start.",
        code="audit-damaged",
    )
