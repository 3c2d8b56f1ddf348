"""`scanseal owner disable`: a real agent signs nothing more at once, over every restart, until its owner enables it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.audit import verify
from agent.cli import exits
from agent.cli.main import run
from agent.client import SigningClient
from agent.errors import AgentRefused
from enroll.identity import IdentityName
from tests.support.agent_process import ROOT, Agent, Scanner, new_scanner, running_agent, wait_until
from tests.support.reliability.measured import measured

EFFECTIVE_WITHIN = 1.0  # seconds
CYCLES = 20


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Scanner]:
    with new_scanner(tmp_path) as scanner:
        scanner.enroll()
        yield scanner


def owner(scanner: Scanner, *arguments: str) -> None:
    """The command, in a process of its own."""
    command = [sys.executable, "-m", "agent.cli.main", "owner", *arguments, "--config", str(scanner.configure())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == exits.OK, done.stderr


def sign(agent: Agent) -> int:
    with SigningClient(agent.socket) as client:
        return client.sign_digest(bytes(32), algorithm="sha256", role="acquisition").key_generation


def refusal(agent: Agent) -> AgentRefused:
    with pytest.raises(AgentRefused) as refused:
        sign(agent)
    return refused.value


def device(agent: Agent) -> dict[str, str]:
    with SigningClient(agent.socket) as client:
        said: dict[str, str] = client.status()["device"]
        return said


def test_nothing_is_signed_from_then_on_until_it_is_enabled(scanner: Scanner) -> None:
    with running_agent(scanner) as agent:
        assert sign(agent) == 1

        owner(scanner, "disable", "--reason", "lent to another hospital")

        refused = refusal(agent)
        assert (refused.status, refused.code) == (503, "device-disabled")
        assert "lent to another hospital" in refused.what
        assert device(agent)["state"] == "disabled"
        assert device(agent)["who_must_act"] == "owner of the scanner"

        owner(scanner, "enable")

        assert sign(agent) == 1
        assert device(agent)["state"] == "owned"
    (disabled,), (enabled,) = scanner.audit("device-disabled"), scanner.audit("device-enabled")
    assert (disabled["uid"], disabled["reason"]) == (str(os.getuid()), "lent to another hospital")
    assert enabled["uid"] == str(os.getuid())
    verify(scanner.audit_file)


def test_it_outlives_a_kill_and_every_restart(scanner: Scanner) -> None:
    with running_agent(scanner) as agent:
        owner(scanner, "disable")
        os.kill(agent.process.pid, signal.SIGKILL)
        agent.process.wait()
    scanner.socket.unlink(missing_ok=True)
    for _ in range(2):
        with running_agent(scanner) as agent:
            assert refusal(agent).code == "device-disabled"
    assert len(scanner.audit("device-disabled")) >= 2
    assert scanner.audit("signature") == []

    owner(scanner, "enable")  # while no agent runs: the command writes the line

    assert len(scanner.audit("device-enabled")) == 1
    with running_agent(scanner) as agent:
        assert sign(agent) == 1


def test_it_holds_within_a_second_while_others_sign(scanner: Scanner) -> None:
    """The time from the end of the command to the last signature that anybody still got; none at all is the rule."""
    ends: list[float] = []
    finished = threading.Event()

    def sign_on(agent: Agent) -> None:
        with SigningClient(agent.socket) as client:
            while not finished.is_set():
                with suppress(AgentRefused):
                    client.sign_digest(bytes(32), algorithm="sha256", role="acquisition")
                    ends.append(time.monotonic())

    late: list[float] = []
    signed = 0
    decided = scanner.identities.owner_file
    with running_agent(scanner) as agent:
        threads = [threading.Thread(target=sign_on, args=(agent,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(CYCLES):
                before = len(ends)
                wait_until(lambda before=before: len(ends) > before + 10)  # type: ignore[misc]
                signed = len(ends)
                now = datetime.now(UTC)
                decided.disable(0, "", now)
                disabled_at = time.monotonic()
                wait_until(lambda: device(agent)["state"] == "disabled", EFFECTIVE_WITHIN)
                wait_until(lambda at=disabled_at: time.monotonic() > at + 0.1)  # type: ignore[misc]
                late += [max(0.0, *(end - disabled_at for end in ends[signed:]))] if ends[signed:] else [0.0]
                decided.enable(0, now, lambda _: False)
        finally:
            finished.set()
            for thread in threads:
                thread.join()
    assert max(late) <= EFFECTIVE_WITHIN
    assert len(scanner.audit("device-disabled")) == CYCLES
    measured("R15", "disabled under load: until the last signature", cycles=CYCLES, longest_ms=max(late) * 1000)


@pytest.mark.parametrize("harm", ["removed", "flipped", "emptied"])
def test_a_record_that_is_lost_signs_nothing_until_a_person_says_so(scanner: Scanner, harm: str) -> None:
    record = scanner.state / "owner.json"
    with running_agent(scanner) as agent:
        assert sign(agent) == 1
        owner(scanner, "disable")
        # The agent writes it once more when the audit trail has the decision: that would bring the record back.
        wait_until(lambda: not scanner.identities.owner_file.read().untold)  # type: ignore[union-attr]
        if harm == "removed":
            record.unlink()
        else:
            record.write_bytes(record.read_bytes().replace(b'"yes"', b'"no"') if harm == "flipped" else b"")

        assert refusal(agent).code == "device-needs-service"
        assert "--reset-record" in refusal(agent).remedy
        assert device(agent)["state"] == "needs-service"
    with running_agent(scanner) as agent:
        assert refusal(agent).code == "device-needs-service"
        assert run(["owner", "enable", "--config", str(scanner.configure())]) == exits.CONFIGURATION
        assert refusal(agent).code == "device-needs-service"

        owner(scanner, "enable", "--reset-record")

        assert sign(agent) == 1
    assert scanner.audit("device-needs-service")
    assert scanner.audit("device-enabled")[-1]["reason"] == "its record was written anew"


def test_a_lost_key_is_named_and_the_next_generation_is_taken_up(
    scanner: Scanner, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after a TPM was cleared: the agent runs on, says what is lost, and needs no restart."""
    uri = scanner.identities.key_uri(IdentityName.SIGNING, 1)
    scanner.keys.destroy(uri)
    with running_agent(scanner) as agent:
        assert refusal(agent).code == "key-damaged"
        assert device(agent)["state"] == "key-lost"

        code = run(["status", "--json", "--config", str(scanner.configure())])

        shown = json.loads(capsys.readouterr().out)["device"]
        assert (code, shown["state"], shown["who_must_act"]) == (exits.UNAVAILABLE, "key-lost", "service engineer")
        assert "scanseal enroll" in shown["next_action"]

        scanner.enroll()

        wait_until(lambda: device(agent)["state"] == "owned", 5)
        assert sign(agent) == 2
