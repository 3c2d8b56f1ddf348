"""Documents that stay true: every link leads somewhere."""

from __future__ import annotations

import ast
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


ONE_WORD = {"truncated"}


def test_every_refusal_of_an_instance_is_explained() -> None:
    explained = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", (ROOT / "docs/refusals.md").read_text("utf-8")))
    used = {
        node.value
        for path in (ROOT / "agent/dicom").glob("*.py")
        for call in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id in {"DicomError", "malformed"}
        for node in [*call.args[1:], *(keyword.value for keyword in call.keywords if keyword.arg == "code")]
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert used
    assert sorted(used - explained - ONE_WORD) == []
