"""The figures of a run: kept by any process, printed at the end, gone with the run unless somebody asked for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.reliability.measured import VARIABLE, machine, measured, read_machine, read_measured

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest
from tests.support.reliability.measured import measured

@pytest.mark.parametrize("number", range(4))
def test_measures(number):
    measured("R2", f"sweep {number}", points=10 + number, bad=0)

def test_measures_nothing():
    pass
"""


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which figures are kept during a test."""
    path = tmp_path / "figures.jsonl"
    monkeypatch.setenv(VARIABLE, str(path))
    return path


def run(place: Path, options: Sequence[str], **environment: str) -> str:
    """What pytest prints that runs tests which measure, with the hooks of tests/conftest.py."""
    (place / "temporary").mkdir()
    (place / "test_measures.py").write_text(TESTS, "utf-8")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", VARIABLE))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", *options, "."],
        cwd=place,
        env=inherited | {"PYTHONPATH": str(ROOT), "TMPDIR": str(place / "temporary")} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def left_over(place: Path) -> list[str]:
    return sorted(path.name for path in (place / "temporary").glob("measured-*"))


class TestFile:
    def test_rows_come_in_the_order_of_their_numbers(self, kept: Path) -> None:
        for row in ("R10", "R2", "R9"):
            measured(row, "something", trials=1)
        assert [row for row, _, _ in read_measured(kept)] == ["R2", "R9", "R10"]

    def test_what_is_done_twice_counts_once_and_the_last_time(self, kept: Path) -> None:
        measured("R2", "sweep", points=7)
        measured("R2", "another sweep", points=1)
        measured("R2", "sweep", points=8)
        assert read_measured(kept) == [("R2", "another sweep", {"points": 1}), ("R2", "sweep", {"points": 8})]

    def test_figures_may_be_words(self, kept: Path) -> None:
        measured("R5", "a start in 1970", ended="typed", seconds=1.5)
        assert read_measured(kept) == [("R5", "a start in 1970", {"ended": "typed", "seconds": 1.5})]

    def test_without_a_file_nothing_is_kept_and_nothing_fails(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv(VARIABLE)
        measured("R2", "sweep", points=7)
        assert list(tmp_path.iterdir()) == []

    def test_every_line_says_on_which_machine(self, kept: Path) -> None:
        measured("R2", "sweep", points=7)
        assert json.loads(kept.read_text("utf-8"))["machine"] == machine()
        assert read_machine(kept).startswith(f"{os.cpu_count()} CPUs, Linux ")

    def test_a_machine_is_not_named(self) -> None:
        assert os.uname().nodename not in machine().split()

    def test_a_file_without_figures_has_no_machine(self, kept: Path) -> None:
        kept.touch()
        assert (read_measured(kept), read_machine(kept)) == ([], "nothing measured")


class TestRun:
    PRINTED = tuple(f"R2   sweep {number}: points {10 + number}, bad 0" for number in range(4))

    @pytest.mark.parametrize("options", [[], ["--numprocesses", "2"]], ids=["one-process", "two-workers"])
    def test_figures_are_printed_and_no_file_stays(self, tmp_path: Path, options: list[str]) -> None:
        printed = run(tmp_path, options).splitlines()
        assert tuple(line for line in printed if line.startswith("R2")) == self.PRINTED
        assert left_over(tmp_path) == []

    @pytest.mark.parametrize("options", [[], ["--numprocesses", "2"]], ids=["one-process", "two-workers"])
    def test_the_file_that_somebody_names_stays(self, tmp_path: Path, options: list[str]) -> None:
        path = tmp_path / "figures.jsonl"
        run(tmp_path, options, **{VARIABLE: str(path)})
        assert [figures["points"] for _, _, figures in read_measured(path)] == [10, 11, 12, 13]
        assert left_over(tmp_path) == []

    def test_a_run_that_measures_nothing_prints_no_figures(self, tmp_path: Path) -> None:
        path = tmp_path / "figures.jsonl"
        assert "figures of reliability" not in run(tmp_path, ["-k", "nothing"], **{VARIABLE: str(path)})
        assert not path.exists()
