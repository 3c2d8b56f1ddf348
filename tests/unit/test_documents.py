"""Documents that stay true: every link leads somewhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from agent.cli.main import COMMANDS
from enroll.errors import StateDamaged, StateError

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text("utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_map_names_every_module() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    folders = ("enroll/*.py", "agent/*.py", "agent/dicom/**/*.py", "agent/policy/*.py")
    named = {path.name for folder in folders for path in ROOT.glob(folder)} - {"__init__.py"}
    assert sorted(name for name in named if name not in text) == []


def explained_in(*documents: str) -> set[str]:
    texts = "".join((ROOT / "docs" / document).read_text("utf-8") for document in documents)
    return set(re.findall(r"`([a-z]+(?:-[a-z]+)*)`", texts))


def test_every_refusal_of_an_instance_is_explained() -> None:
    explained = explained_in("refusals.md", "findings.md")
    used = {
        node.value
        for path in (ROOT / "agent/dicom").rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id in {"DicomError", "malformed"}
        for node in [*call.args[1:], *(keyword.value for keyword in call.keywords if keyword.arg == "code")]
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert used
    assert sorted(used - explained) == []


def test_every_finding_of_a_verification_is_explained() -> None:
    explained = explained_in("findings.md")
    text = "".join(path.read_text("utf-8") for path in (ROOT / "agent/dicom").rglob("*.py"))
    codes = set(re.findall(r"""Finding\(\s*"([a-z-]+)\"""", text))
    stamps = set(re.findall(r"""_refused\("([a-z-]+)\"""", (ROOT / "agent/dicom/timestamp.py").read_text("utf-8")))
    assert len(codes) > 30
    assert len(stamps) > 10
    assert sorted((codes | {f"time-stamp-{why}" for why in stamps}) - explained) == []


def test_the_page_on_damaged_state_names_every_error_of_state_and_commands_that_exist() -> None:
    text = (ROOT / "docs/operations/state.md").read_text("utf-8")
    codes = {kind.code for kind in (*StateError.__subclasses__(), *StateDamaged.__subclasses__())}
    commands = set(re.findall(r"`scanseal ([a-z]+)", text))

    assert sorted(code for code in codes - {"state-unreadable"} if f"`{code}`" not in text) == []
    assert commands
    assert commands <= set(COMMANDS)
