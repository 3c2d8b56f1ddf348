"""docs/reliability.md says what the rows say, with figures of a run, and names tests that are there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.reliability.measured import VARIABLE, measured
from tests.support.reliability.rows import ROWS, Result, Row
from tests.support.reliability.table import DOCUMENT, FIGURE, ROOT, document, without_figures

NAMES = [row.name for row in ROWS]
KEEP = "measured"  # the function that keeps a figure
OF_THE_MEANS = ("test_measured.py", "test_reliability_page.py")


def sections(page: str) -> dict[str, str]:
    """The page by the name of its row."""
    parts = re.split(r"^## (R\d+): ", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def calls() -> Iterator[tuple[str, ast.expr]]:
    """Where figures are kept, and the row that is given there."""
    for folder in ("tests", "scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text("utf-8")
            if f"{KEEP}(" not in text or path.name in OF_THE_MEANS:
                continue
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == KEEP:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node.args[0]


def rows_with_figures(page: str) -> set[str]:
    return {name for name, text in sections(page).items() if f"\n{FIGURE}" in text}


def test_the_rows_are_all_there_and_in_order() -> None:
    assert [f"R{number}" for number in range(1, 20)] == NAMES
    assert list(sections(DOCUMENT.read_text("utf-8"))) == NAMES


def test_the_text_of_the_page_is_that_of_the_rows() -> None:
    assert without_figures(DOCUMENT.read_text("utf-8")) == without_figures(document([]))


def test_the_page_says_of_which_machine_its_figures_are() -> None:
    assert re.search(r"^- \*run 1\*: \d+ CPUs, Linux \d", DOCUMENT.read_text("utf-8"), re.MULTILINE)


def test_a_row_has_figures_exactly_where_it_claims_them() -> None:
    assert rows_with_figures(DOCUMENT.read_text("utf-8")) == {row.name for row in ROWS if row.measures}


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_every_test_that_a_row_names_is_there(row: Row) -> None:
    assert row.tests
    assert [test for test in row.tests if not (ROOT / test).is_file()] == []


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_what_is_not_shown_in_full_is_said(row: Row) -> None:
    assert row.open or row.result is Result.SHOWN
    assert ("**Not done:**" in row.open) == (row.result is Result.MISSING)


def test_every_figure_that_is_kept_belongs_to_a_row() -> None:
    wrong = [place for place, row in calls() if not isinstance(row, ast.Constant) or row.value not in NAMES]
    assert wrong == []


def test_every_row_that_claims_figures_has_tests_that_keep_some() -> None:
    kept = {row.value for _, row in calls() if isinstance(row, ast.Constant)}
    assert {row.name for row in ROWS if row.measures} - kept == set()


class TestFigures:
    """How figures come onto the page."""

    @pytest.fixture
    def runs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
        """Two runs; the second repeats a part of the first."""
        paths = [tmp_path / "first.jsonl", tmp_path / "second.jsonl"]
        monkeypatch.setenv(VARIABLE, str(paths[0]))
        measured("R3", "power cuts", cuts=50, damaged=0)
        measured("R18", "rotations", rotations=1000, longest_gap_ms=31.7, ended="quiet")
        monkeypatch.setenv(VARIABLE, str(paths[1]))
        measured("R18", "rotations", rotations=30)
        return paths

    def test_each_stands_in_its_row(self, runs: list[Path]) -> None:
        page = document(runs[:1])
        assert rows_with_figures(page) == {"R3", "R18"}
        assert "\n- *power cuts*: cuts 50, damaged 0\n" in sections(page)["R3"]
        assert "\n- *rotations*: rotations 1,000, longest gap ms 31.7, ended quiet\n" in sections(page)["R18"]

    def test_of_several_runs_the_last_counts_and_is_named(self, runs: list[Path]) -> None:
        page = document(runs)
        assert "\n- *power cuts*: cuts 50, damaged 0 (run 1)\n" in sections(page)["R3"]
        assert "\n- *rotations*: rotations 30 (run 2)\n" in sections(page)["R18"]
        assert "1,000" not in sections(page)["R18"].partition("Measured")[2]

    def test_what_many_tests_of_one_kind_have_counted_is_added_up(self, runs: list[Path]) -> None:
        for command, points in (("renew", 1200), ("release", 34)):
            measured("R2", f"kill sweep: {command}", kill_points=points, bad=0, longest_ms=points)
        measured("R2", "another sweep: renew", kill_points=7, bad=0)
        assert "\n- *in all, kill sweep*: kill points 1,234, bad 0\n" in sections(document(runs))["R2"]
        assert document(runs).count("in all") == 1

    def test_the_rest_of_the_page_does_not_depend_on_them(self, runs: list[Path]) -> None:
        assert without_figures(document(runs)) == without_figures(document([]))
