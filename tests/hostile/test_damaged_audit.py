"""R9: an audit trail that was changed, cut or replaced is found out, or goes on after what is left of it.

What no chain can show is that its end is missing up to the end of a line: then it is the trail of that moment.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.audit import AuditSummary, AuditTrail, verify
from enroll.errors import StateError
from tests.support.clocks import SteppedClock
from tests.support.reliability.measured import measured

LINES = 4


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody cuts the power here."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    record(path, LINES)
    return path


def record(path: Path, count: int) -> None:
    trail = AuditTrail(path, SteppedClock())
    try:
        for number in range(count):
            trail.record("signed", {"instance": f"1.2.{number}", "role": "acquisition"})
    finally:
        trail.close()


def said(path: Path) -> AuditSummary | str:
    try:
        return verify(path)
    except StateError as error:
        return error.code


def test_no_changed_byte_is_overlooked(path: Path) -> None:
    whole = path.read_bytes()
    for place, byte in enumerate(whole):
        path.write_bytes(whole[:place] + bytes([byte ^ (1 << place % 8)]) + whole[place + 1 :])
        assert said(path) == "audit-damaged", f"byte {place}"
    measured("R9", "audit trail: one bit of each byte", loads=len(whole), wrong_answers=0, refused=len(whole))


def test_a_trail_goes_on_after_every_cut_and_says_what_was_torn(path: Path) -> None:
    """A line that a power cut has torn is named by the next one; the lines before it are all there."""
    whole = path.read_bytes()
    answers: Counter[str] = Counter()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        left = whole[:length].count(b"\n")
        is_torn = length > 0 and whole[length - 1 : length] != b"\n"
        # Of a line that lacks only its end nothing is missing.
        is_whole = whole[length : length + 1] == b"\n"
        found = said(path)
        assert found == "audit-damaged" if is_torn else isinstance(found, AuditSummary) and found.records == left
        record(path, 1)
        summary = verify(path)
        assert summary.records == left + 1 + is_torn
        assert len(summary.torn) == (is_torn and not is_whole)
        assert whole[:length] == path.read_bytes()[:length]
        answers["torn" if is_torn else "shorter"] += 1
    measured("R9", "audit trail: cut at every length", loads=len(whole), wrong_answers=0, **answers)


def test_two_lines_exchanged_or_one_twice_is_found_out(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    for one in range(LINES):
        for other in range(LINES):
            if one != other:
                exchanged = [*lines]
                exchanged[one], exchanged[other] = lines[other], lines[one]
                path.write_bytes(b"".join(exchanged))
                assert said(path) == "audit-damaged"
                path.write_bytes(b"".join([*lines[:one], lines[other], *lines[one + 1 :]]))
                assert said(path) == "audit-damaged"


def a_directory(path: Path) -> None:
    path.mkdir()


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def a_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("replace", [a_directory, a_fifo, a_link_to_itself, a_link_to_a_device])
def test_nothing_in_its_place_is_written_to_or_waited_for(path: Path, replace: Callable[[Path], None]) -> None:
    path.unlink()
    replace(path)

    assert said(path) in {"audit-unavailable", "audit-damaged"}
    with pytest.raises(StateError):
        record(path, 1)


def test_nothing_is_written_through_a_link_to_another_trail(path: Path) -> None:
    aside = path.with_name("aside.jsonl")
    path.rename(aside)
    path.symlink_to(aside)
    before = aside.read_bytes()

    with pytest.raises(StateError):
        record(path, 1)
    assert aside.read_bytes() == before
