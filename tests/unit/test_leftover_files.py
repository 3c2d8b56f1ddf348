"""What a write that was cut off leaves beside a state file is removed by a later enrollment (R2)."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from enroll.leftover_files import remove_leftover_files
from enroll.statefile import StateFiles
from tests.support.enrolling import CaFlow, Scanner, settings
from tests.support.pki import NOW, HospitalCa

FILES = StateFiles()


class PowerCutError(BaseException):
    """Nothing of the process comes after it."""


def cut_off(path: Path, monkeypatch: pytest.MonkeyPatch, written: timedelta = timedelta()) -> Path:
    """What is left of a write whose process was killed before the rename."""
    before = set(path.parent.iterdir())

    def cut(*_: object) -> None:
        raise PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cut)
        with pytest.raises(PowerCutError):
            FILES.write(path, b"new")
    (left,) = set(path.parent.iterdir()) - before
    moment = (NOW + written).timestamp()
    os.utime(left, (moment, moment))
    return left


@pytest.mark.parametrize(("written", "stays"), [(-25, False), (-1, True), (0, True), (1, True), (24 * 400, False)])
def test_what_is_a_day_old_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int, *, stays: bool
) -> None:
    """What is younger may be a write that is under way."""
    (tmp_path / "servers").mkdir()
    left = cut_off(tmp_path / "servers" / "one.json", monkeypatch, timedelta(hours=written))

    remove_leftover_files(tmp_path, FILES, NOW)

    assert left.exists() is stays


def test_nothing_else_is_removed(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in ("owner.json", ".owner.json.damaged-0123456789abcdef", ".lock", "a.0123")]
    for path in kept:
        path.write_bytes(b"")
        os.utime(path, (0, 0))

    remove_leftover_files(tmp_path, FILES, NOW)

    assert all(path.exists() for path in kept)


def test_the_next_enrollment_does_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = HospitalCa()
    scanner = Scanner(settings(tmp_path), (ca.certificate,))
    scanner.issue(CaFlow(ca, scanner.clock))
    left = cut_off(scanner.identities.root / "clock.json", monkeypatch, timedelta(days=-2))

    scanner.issue(CaFlow(ca, scanner.clock))

    assert not left.exists()
