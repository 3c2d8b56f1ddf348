"""The audit trail on disks that are full, broken or slow (docs/adr/0039-when-an-audit-line-is-durable.md). R4.

`tests/interop/test_audit_on_a_bad_disk.py` has a real agent and the real kernel.
"""

from __future__ import annotations

import errno
import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.audit import AuditTrail, verify
from enroll.clock import SystemClock
from enroll.errors import StateError
from tests.support.agent_process import wait_until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EFBIG])
def test_a_disk_that_refuses_is_tried_again_with_the_next_line(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    trail = AuditTrail(path, SystemClock())
    trail.record("one", {})
    monkeypatch.setattr(os, "write", failing(number))
    for _ in range(3):
        with pytest.raises(StateError, match=re.escape(os.strerror(number))) as refused:
            trail.record("refused", {})
        assert refused.value.code == "audit-unavailable"
    monkeypatch.undo()
    trail.record("two", {})
    trail.close()

    assert events(path) == ["one", "two"]


@pytest.mark.parametrize("rooms", [(10,), (10, 1), (10, 0, 1), (10, 1, 0, 30, 1, 200)], ids=str)
def test_a_disk_that_stays_full_after_half_a_line_does_not_break_the_chain(
    path: Path, monkeypatch: pytest.MonkeyPatch, rooms: tuple[int, ...]
) -> None:
    """The line that names the torn one does not fit either, several times over."""
    trail = AuditTrail(path, SystemClock())
    trail.record("one", {})
    write = os.write
    for room in rooms:
        with monkeypatch.context() as disk:
            disk.setattr(os, "write", of_limited_room(write, room))
            with pytest.raises(StateError):
                trail.record("refused", {})
    trail.record("two", {})
    trail.close()

    assert events(path)[-2:] == ["torn-line", "two"]
    assert verify(path).records == len(events(path))


# --- when a line is on the disk


def test_a_line_is_brought_to_the_disk_without_anybody_asking(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trail = AuditTrail(path, SystemClock())
    synced = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda _descriptor: synced.set())
    trail.record("signature", {})

    assert synced.wait(10)
    trail.close()


def test_no_line_waits_for_the_disk_that_keeps_another(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trail = AuditTrail(path, SystemClock())
    begun, go_on = threading.Event(), threading.Event()

    def slow(_descriptor: int) -> None:
        begun.set()
        assert go_on.wait(10)

    monkeypatch.setattr(os, "fsync", slow)
    durable = threading.Thread(target=trail.record, args=("key-made", {}), kwargs={"durable": True})
    durable.start()
    assert begun.wait(10)

    trail.record("signature", {})
    assert durable.is_alive()
    go_on.set()
    durable.join()
    trail.close()
    assert events(path) == ["key-made", "signature"]


def test_what_a_disk_has_lost_is_written_again_before_anything_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsync(2): after EIO the kernel forgets what it could not write, and the next fsync succeeds."""
    monkeypatch.setattr("agent.audit._PAUSE", 3600)
    trail = AuditTrail(path, SystemClock())
    trail.record("kept", {}, durable=True)
    kept = path.stat().st_size

    def lose(_descriptor: int) -> None:
        with path.open("r+b") as file:
            file.seek(kept)
            file.write(bytes(path.stat().st_size - kept))
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    trail.record("lost", {})
    monkeypatch.setattr(os, "fsync", lose)
    with pytest.raises(StateError) as failed:
        trail.record("lost too", {}, durable=True)
    for _ in range(2):
        with pytest.raises(StateError) as refused:
            trail.record("signature", {})
        assert refused.value.code == failed.value.code == "audit-unavailable"
    monkeypatch.undo()
    trail._sync()
    trail.record("signature", {})
    trail.close()

    assert events(path) == ["kept", "lost", "lost too", "signature"]


def test_the_trail_finds_out_by_itself_that_the_disk_is_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.audit._PAUSE", 0.01)
    trail = AuditTrail(path, SystemClock())
    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", failing(errno.EIO))
        with pytest.raises(StateError):
            trail.record("one", {}, durable=True)
    wait_until(lambda: can_record(trail))
    trail.close()

    assert events(path) == ["one", "two"]


def can_record(trail: AuditTrail) -> bool:
    try:
        trail.record("two", {})
    except StateError:
        return False
    return True


def failing(number: int) -> Callable[..., int]:
    """Stands for a system call that fails."""

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


def of_limited_room(write: Callable[[int, bytes], int], room: int) -> Callable[[int, bytes], int]:
    """Stands for write(2) on a disk that takes so many bytes and no more."""
    left = room

    def write_some(descriptor: int, data: bytes) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, data[:left])
        left -= written
        return written

    return write_some


def events(path: Path) -> list[str]:
    """The events of a trail whose chain is whole."""
    verify(path)
    return [json.loads(line)["event"] for line in path.read_bytes().splitlines() if line.endswith(b"}")]
