"""Documents that stay true: every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text("utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_map_names_every_module() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    named = {path.name for path in [*(ROOT / "enroll").glob("*.py"), *(ROOT / "agent").glob("*.py")]} - {"__init__.py"}
    assert sorted(name for name in named if name not in text) == []
