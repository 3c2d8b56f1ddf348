"""A scanner and an agent of its own for each file of tests that asks for them; the figures at the end of a run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent_process import Agent, Scanner, new_scanner, running_agent
from tests.support.reliability.measured import VARIABLE, read_measured


@pytest.fixture(scope="module")
def scanner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scanner]:
    """A scanner with a signing identity."""
    with new_scanner(tmp_path_factory.mktemp("scanner")) as scanner:
        scanner.enroll()
        yield scanner


@pytest.fixture(scope="module")
def agent(scanner: Scanner) -> Iterator[Agent]:
    """Its agent, running."""
    with running_agent(scanner) as agent:
        yield agent


_OURS = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Before the workers of xdist are started, which inherit the name."""
    if VARIABLE not in os.environ:
        descriptor, name = tempfile.mkstemp(prefix="measured-", suffix=".jsonl")
        os.close(descriptor)
        os.environ[VARIABLE] = name
        config.stash[_OURS] = Path(name)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Nobody asked for a file of figures, so none stays."""
    ours = config.stash.get(_OURS, None)
    if ours is not None:
        ours.unlink(missing_ok=True)
        del os.environ[VARIABLE]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was counted and measured."""
    path = Path(os.environ[VARIABLE])
    figures = read_measured(path) if path.exists() else []
    if figures:
        terminalreporter.section("figures of reliability")
    for row, what, values in figures:
        terminalreporter.line(f"{row:4} {what}: {', '.join(f'{name} {value}' for name, value in values.items())}")
