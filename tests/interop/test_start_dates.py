"""Whole processes that start on another date: the agent, the timer's command, `check` and `status` (reliability R5)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.cli import exits
from agent.client import SigningClient
from enroll.certificates import pem
from enroll.clock_record import FILE_NAME
from enroll.identity import IdentityName
from tests.support.agent_process import Agent, Scanner, await_answer, new_scanner, running_agent, start, wait_until
from tests.support.pki import HospitalCa
from tests.support.reliability.measured import measured
from tests.support.scripted_server import ScriptedServer, answer
from tests.support.shifted_clock import needs_compiler, shifted

pytestmark = needs_compiler

ROOT = Path(__file__).parents[2]
DATES = {
    "1970": datetime(1970, 1, 2, tzinfo=UTC),
    "2038": datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
    "2050": datetime(2050, 1, 1, tzinfo=UTC),
}
DOUBTS = {"1970": "behind-floor", "2038": "jumped-forward", "2050": "jumped-forward"}


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Scanner]:
    """One that has been in use, so that it knows what time it was."""
    with new_scanner(tmp_path) as scanner:
        scanner.enroll(IdentityName.DEVICE)
        scanner.enroll()
        with running_agent(scanner):
            wait_until((scanner.state / FILE_NAME).exists)
        yield scanner


@contextmanager
def agent_at(scanner: Scanner, date: str) -> Iterator[SigningClient]:
    log = scanner.directory / "agent.log"
    environment = shifted(scanner.directory, DATES[date])
    process = start(scanner.configure(), log, environment=environment.items())
    agent = Agent(process, scanner.socket, log)
    try:
        await_answer(agent)
        with SigningClient(scanner.socket) as client:
            yield client
        assert agent.stop() == 0, log.read_text("utf-8")
    finally:
        process.kill()
        process.wait()


def scanseal(
    scanner: Scanner, date: str | None, *arguments: str, **tables: dict[str, Any]
) -> subprocess.CompletedProcess[str]:
    environment = shifted(scanner.directory, DATES[date]) if date else {}
    return subprocess.run(
        [sys.executable, "-m", "agent.cli.main", *arguments, "--config", str(scanner.configure(**tables))],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def sign(client: SigningClient) -> tuple[str, ...]:
    """The warnings of it."""
    return client.sign_digest(bytes(32), algorithm="sha256", role="acquisition").warnings


def lines(scanner: Scanner, event: str) -> list[dict[str, Any]]:
    return [line for line in scanner.audit(event) if line]


@pytest.mark.parametrize("date", DATES)
def test_an_agent_that_starts_on_a_wrong_date_signs_and_says_so(scanner: Scanner, date: str) -> None:
    with agent_at(scanner, date) as client:
        warnings = sign(client)
        status = client.status()
        wait_until(lambda: lines(scanner, "clock-suspect"))

    assert status["state"] == "ready"
    assert status["time"].startswith(date)
    assert status["clock"]["doubt"] == DOUBTS[date]
    assert not status["clock"]["estimate"].startswith(date)
    assert warnings == ("clock-suspect",)
    assert lines(scanner, "signature")[-1]["warning"] == "clock-suspect"
    assert lines(scanner, "clock-suspect")[-1]["doubt"] == DOUBTS[date]
    measured("R5", f"an agent that starts in {date}", signatures=1, doubt=DOUBTS[date])


def test_the_next_agent_with_the_right_date_believes_it(scanner: Scanner) -> None:
    for date in DATES:
        with agent_at(scanner, date) as client:
            sign(client)
    with running_agent(scanner) as agent, SigningClient(agent.socket) as client:
        assert sign(client) == ()
        assert client.status()["clock"]["doubt"] is None


@pytest.mark.parametrize("date", DATES)
def test_what_has_no_memory_of_an_earlier_date_goes_by_its_clock_and_ends_typed(scanner: Scanner, date: str) -> None:
    """After a start of the machine, say: 1970 cannot be, but 2050 may."""
    (scanner.state / FILE_NAME).unlink()
    with agent_at(scanner, date) as client:
        status = client.status()

    expected = ("ready", "behind-floor") if date == "1970" else ("certificate-expired", None)
    assert (status["state"], status["clock"]["doubt"]) == expected


@pytest.mark.parametrize("date", ["1970", "2050"])
def test_the_commands_of_the_timer_and_of_people_end_typed(scanner: Scanner, date: str) -> None:
    for command in (("renew", "--unattended"), ("renew", "--dry-run"), ("check",), ("status",)):
        done = scanseal(scanner, date, *command)
        assert done.returncode in {exits.OK, exits.TRY_LATER, exits.UNAVAILABLE, exits.CONFIGURATION}, done.stderr
        assert "Traceback" not in done.stderr

    status = json.loads(scanseal(scanner, date, "status", "--json").stdout)
    assert status["clock"]["doubt"] == DOUBTS[date]
    assert [warning for warning in status["warnings"] if "--clock-is-right" in warning["remedy"]]
    assert status["identities"]["signing"]["state"] == "valid"
    found = json.loads(scanseal(scanner, date, "check", "--json").stdout)["findings"]
    (clock,) = [finding for finding in found if finding["check"] == "clock"]
    assert (clock["state"], clock["code"]) == ("failed", "clock-suspect")


@pytest.mark.parametrize("date", DATES)
def test_where_tls_fails_by_a_clock_that_is_not_believed_the_error_names_the_clock(
    scanner: Scanner, tmp_path: Path, date: str
) -> None:
    """OpenSSL goes by the clock of the machine (ADR 36)."""
    ca = HospitalCa()
    (tmp_path / "anchors.pem").write_bytes(pem([ca.certificate, scanner.authority.certificate]))
    with ScriptedServer(ca, tmp_path, lambda _: answer()) as server:
        est = {"url": server.url, "anchor_file": str(tmp_path / "anchors.pem")}
        done = scanseal(scanner, date, "enroll", "est", "--json", est=est)

    assert done.returncode == exits.UNAVAILABLE, done.stdout
    (error,) = [each["error"] for each in map(json.loads, done.stdout.splitlines()) if "error" in each]
    assert error["code"] == "clock-suspect"
    assert f"shows {DATES[date]:%Y-%m-%d}" in error["what"] or f"to {DATES[date]:%Y-%m-%d}" in error["what"]
    assert "scanseal check --clock-is-right" in error["remedy"]
    assert server.requests == []


def test_a_person_says_that_the_clock_is_right(scanner: Scanner) -> None:
    done = scanseal(scanner, "2050", "check", "--clock-is-right", "--json")
    (clock,) = [found for found in json.loads(done.stdout)["findings"] if found["check"] == "clock"]
    assert clock["state"] == "ok"

    with agent_at(scanner, "2050") as client:
        wait_until(lambda: lines(scanner, "clock-confirmed"))
        assert client.status()["clock"]["doubt"] is None
        assert client.status()["state"] == "certificate-expired"
    # And back again, which would otherwise be before the floor.
    assert json.loads(scanseal(scanner, None, "status", "--json").stdout)["clock"]["doubt"] == "behind-floor"
    scanseal(scanner, None, "check", "--clock-is-right")
    assert json.loads(scanseal(scanner, None, "status", "--json").stdout)["clock"]["doubt"] is None
    assert lines(scanner, "clock-confirmed") == [{"by": f"uid {os.getuid()}"}]


def test_a_clock_that_cannot_be_right_is_nobodys_to_confirm(scanner: Scanner) -> None:
    before = (scanner.state / FILE_NAME).read_bytes()
    done = scanseal(scanner, "1970", "check", "--clock-is-right", "--json")

    assert json.loads(done.stdout or done.stderr)["error"]["code"] == "clock-not-right"
    assert (scanner.state / FILE_NAME).read_bytes() == before
