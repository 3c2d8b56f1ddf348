"""The audit trail: every line hangs on the one before."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.audit import LINE_LIMIT, AuditTrail, verify
from enroll.errors import StateError


class FixedClock:
    """Always the same moment."""

    def now(self) -> datetime:
        return datetime(2026, 11, 22, 12, 0, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0

    def boottime(self) -> float:
        return 0.0

    def boot_id(self) -> str:
        return "boot"

    def sleep(self, seconds: float) -> None:
        raise NotImplementedError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def written(path: Path, *events: str) -> list[bytes]:
    """The lines of a trail after these events."""
    trail = AuditTrail(path, FixedClock())
    for event in events:
        trail.record(event, {"uid": 1001, "role": "acquisition"})
    trail.close()
    return path.read_bytes().splitlines(keepends=True)


def test_a_line_is_one_object_with_time_event_and_fields(path: Path) -> None:
    (line,) = written(path, "signature")

    record = json.loads(line)
    assert record["sequence"] == 1
    assert record["time"] == "2026-11-22T12:00:00.000000+00:00"
    assert record["event"] == "signature"
    assert record["fields"] == {"uid": 1001, "role": "acquisition"}
    assert record["previous"] == "0" * 64


def test_the_hash_covers_the_line_without_the_hash(path: Path) -> None:
    """So that the chain can be checked with two lines of any language."""
    (line,) = written(path, "signature")

    body, _, rest = line.decode("ascii").rpartition(',"hash":"')
    assert rest == hashlib.sha256(f"{body}}}".encode("ascii")).hexdigest() + '"}\n'


def test_the_chain_goes_on_after_a_restart(path: Path) -> None:
    written(path, "one", "two")
    lines = written(path, "three")

    assert [json.loads(line)["sequence"] for line in lines] == [1, 2, 3]
    summary = verify(path)
    assert (summary.records, summary.torn) == (3, ())
    assert summary.last_hash == json.loads(lines[-1])["hash"]


def test_threads_write_one_chain(path: Path) -> None:
    trail = AuditTrail(path, FixedClock())

    def record_much() -> None:
        for _ in range(50):
            trail.record("signature", {"uid": 1})

    threads = [threading.Thread(target=record_much) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trail.close()

    assert verify(path).records == 400


@pytest.mark.parametrize("kept", [1, 40, -2])
def test_a_torn_line_is_named_and_the_chain_goes_on(path: Path, kept: int) -> None:
    lines = written(path, "one", "two", "torn")
    torn = lines[2][:kept]
    path.write_bytes(lines[0] + lines[1] + torn)

    after = written(path, "three")

    assert [json.loads(line)["event"] for line in after if line not in (torn, torn + b"\n")] == [
        "one",
        "two",
        "torn-line",
        "three",
    ]
    assert json.loads(after[3])["fields"] == {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}
    assert verify(path).torn == (3,)


def test_a_line_that_lacks_only_its_end_is_whole(path: Path) -> None:
    lines = written(path, "one", "two")
    path.write_bytes(b"".join(lines)[:-1])

    written(path, "three")

    assert (verify(path).records, verify(path).torn) == (3, ())


def test_the_very_first_line_may_be_torn(path: Path) -> None:
    (line,) = written(path, "one")
    path.write_bytes(line[:50])

    written(path, "two")

    assert (verify(path).records, verify(path).torn) == (2, (1,))


def test_zeros_after_a_power_cut_are_a_torn_line(path: Path) -> None:
    """A file system may have made the file longer before the data was written."""
    lines = written(path, "one", "two")
    path.write_bytes(b"".join(lines) + bytes(4000))

    written(path, "three")

    assert verify(path).records == 4


def test_a_crash_during_the_repair_is_repaired_as_well(path: Path) -> None:
    lines = written(path, "one")
    path.write_bytes(lines[0] + lines[0][:30])
    repaired = written(path, "two")
    path.write_bytes(b"".join(repaired)[: -len(repaired[-1]) - len(repaired[-2]) + 20])

    written(path, "three")

    assert [json.loads(line)["event"] for line in path.read_bytes().splitlines() if line.endswith(b"}")] == [
        "one",
        "torn-line",
        "three",
    ]
    assert verify(path).records == 3


def test_a_line_cut_short_by_a_full_disk_refuses_what_it_should_have_recorded(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = AuditTrail(path, FixedClock())
    trail.record("one", {})
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))

    with pytest.raises(StateError) as refused:
        trail.record("two", {})
    monkeypatch.undo()
    trail.record("three", {})
    trail.close()

    assert refused.value.code == "audit-unavailable"
    assert [json.loads(line)["event"] for line in path.read_bytes().splitlines() if line.endswith(b"}")] == [
        "one",
        "torn-line",
        "three",
    ]
    assert verify(path).records == 3


def test_a_disk_error_refuses_what_it_should_have_recorded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trail = AuditTrail(path, FixedClock())

    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StateError, match="No space left"):
        trail.record("one", {})
    monkeypatch.undo()
    trail.close()


def change(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1].replace(b"1001", b"1002"), *lines[2:]]


def drop(lines: list[bytes]) -> list[bytes]:
    return [lines[0], *lines[2:]]


def swap(lines: list[bytes]) -> list[bytes]:
    return [lines[1], lines[0], *lines[2:]]


def repeat(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[0], *lines[1:]]


def cut_off_the_beginning(lines: list[bytes]) -> list[bytes]:
    return lines[1:]


def leave_half_a_line(lines: list[bytes]) -> list[bytes]:
    return [*lines[:-1], lines[-1][:-5]]


@pytest.mark.parametrize("tamper", [change, drop, swap, repeat, cut_off_the_beginning, leave_half_a_line])
def test_tampering_is_found(path: Path, tamper: object) -> None:
    lines = written(path, "one", "two", "three", "four")
    assert callable(tamper)
    path.write_bytes(b"".join(tamper(lines)))

    with pytest.raises(StateError) as found:
        verify(path)
    assert found.value.code == "audit-damaged"
    assert "line" in found.value.what


def test_a_changed_line_cannot_be_passed_off_as_torn(path: Path) -> None:
    lines = written(path, "one", "two", "three")
    path.write_bytes(lines[0] + lines[1][:50] + b"\n" + lines[2])

    with pytest.raises(StateError):
        verify(path)


def test_a_file_that_is_no_trail_is_not_continued(path: Path) -> None:
    path.write_bytes(b"x" * 200_000)

    with pytest.raises(StateError) as refused:
        AuditTrail(path, FixedClock())
    assert refused.value.code == "audit-damaged"
    assert path.stat().st_size == 200_000


def test_the_trail_is_not_written_through_a_link(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(StateError):
        AuditTrail(path, FixedClock())


def test_a_line_after_the_end_is_refused_and_reaches_no_other_file(path: Path, tmp_path: Path) -> None:
    """A thread that nobody waited for records, and the number of the descriptor is that of another file by now."""
    trail = AuditTrail(path, FixedClock())
    trail.close()
    with (tmp_path / "other").open("wb"), pytest.raises(StateError, match="cannot be used"):
        trail.record("agent-stopped", {}, durable=True)

    assert (tmp_path / "other").read_bytes() == b""
    assert verify(path).records == 0


def test_long_fields_stay_within_a_line(path: Path) -> None:
    trail = AuditTrail(path, FixedClock())
    trail.record("identity-refused", {"code": "state-damaged", "detail": "€" * 1000})
    trail.close()

    assert len(path.read_bytes()) < LINE_LIMIT
    assert verify(path).records == 1
