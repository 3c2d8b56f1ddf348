"""`scanseal status` and a real agent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli import exits
from agent.cli.main import run
from agent.client import SigningClient
from agent.errors import AgentRefused
from enroll.identity import IdentityName
from tests.support.agent_process import Scanner, new_scanner, running_agent, wait_until
from tests.support.dicom_samples import small_instance
from tests.support.records import rewrite


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Scanner]:
    with new_scanner(tmp_path) as scanner:
        yield scanner


def sign(client: SigningClient) -> None:
    client.splice_instance(small_instance(), role="acquisition", profile="creator-rsa")


def test_it_says_where_the_key_is_now_and_not_where_it_was_once(
    scanner: Scanner, capsys: pytest.CaptureFixture[str]
) -> None:
    scanner.enroll()
    record = scanner.identities.directory(IdentityName.SIGNING) / "current" / "meta.json"
    rewrite(record.resolve(), protection="hardware")
    configuration = str(scanner.configure())

    assert run(["status", "--config", configuration]) == exits.UNAVAILABLE
    assert "key in hardware when it was enrolled, valid until" in capsys.readouterr().out
    with running_agent(scanner):
        assert run(["status", "--config", configuration]) == exits.OK
        assert "key in software, valid until" in capsys.readouterr().out
        assert run(["status", "--json", "--config", configuration]) == exits.OK
        assert json.loads(capsys.readouterr().out)["identities"]["signing"]["protection"] == "software"


def test_it_warns_of_what_was_not_signed(scanner: Scanner, capsys: pytest.CaptureFixture[str]) -> None:
    configuration = str(scanner.configure())
    with running_agent(scanner) as agent, SigningClient(agent.socket) as client:
        with pytest.raises(AgentRefused):
            sign(client)
        run(["status", "--config", configuration])
        before = capsys.readouterr().out
        scanner.enroll()
        wait_until(lambda: client.status()["state"] == "ready", 5)
        sign(client)
        assert run(["status", "--config", configuration]) == exits.OK
        after = capsys.readouterr().out

    assert "1 images or digests were not signed since the agent was started, the last 1 in a row." in before
    assert "1 images or digests were not signed since the agent was started; signing goes on." in after
    assert "first signature" in after
