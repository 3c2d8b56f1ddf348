"""A scanner and an agent of its own for each file of tests that asks for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.agent_process import Agent, Scanner, new_scanner, running_agent


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
