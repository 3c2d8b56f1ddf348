"""R17: many agents, or many enrollers, on one state directory at once: one works, and the others are told to wait."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent import audit
from agent.cli import exits
from agent.cli.main import run
from agent.client import SigningClient
from enroll.certificates import check_pair
from enroll.identity import IdentityName
from tests.support.agent_process import ROOT, Agent, Scanner, await_answer, new_scanner, start, wait_until
from tests.support.dicom_samples import small_instance
from tests.support.hospital import Hospital
from tests.support.reliability.measured import measured

AT_ONCE = 20
RESTARTS = 5
SECONDS = 180.0  # for all of them together, on a machine that has two processors
QUICK = {"identity.signing": {"key_algorithm": "rsa-2048"}}
IN_USE = (IdentityName.DEVICE, IdentityName.SIGNING)


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Scanner]:
    with new_scanner(tmp_path) as scanner:
        yield scanner


def started(count: int, scanner: Scanner, *words: str) -> list[subprocess.Popen[bytes]]:
    """The same command, so many times at once."""
    command = [sys.executable, "-m", "agent.cli.main", *words, "--config", str(scanner.directory / "scanseal.toml")]
    quiet = subprocess.DEVNULL
    return [subprocess.Popen(command, cwd=ROOT, stdin=quiet, stdout=quiet, stderr=quiet) for _ in range(count)]


def those_that_work(processes: Sequence[subprocess.Popen[bytes]]) -> list[subprocess.Popen[bytes]]:
    return [process for process in processes if process.poll() is None]


def sign(scanner: Scanner) -> None:
    with SigningClient(scanner.socket) as client:
        client.splice_instance(small_instance(), role="acquisition", profile="creator-rsa")


def test_of_many_agents_one_signs_and_the_others_end_with_75(scanner: Scanner) -> None:
    scanner.enroll()
    scanner.configure()
    processes = started(AT_ONCE, scanner, "agent")
    try:
        wait_until(lambda: len(those_that_work(processes)) == 1, SECONDS)
        (works,) = those_that_work(processes)
        await_answer(Agent(works, scanner.socket, scanner.directory / "none"))
        sign(scanner)
        works.terminate()
        assert works.wait(SECONDS) == exits.OK
    finally:
        for process in processes:
            process.kill()
            process.wait()

    codes = sorted(process.returncode for process in processes)
    measured("R17", "agents at once", started=AT_ONCE, working=codes.count(exits.OK), others_exit=exits.TRY_LATER)
    assert codes == [exits.OK] + [exits.TRY_LATER] * (AT_ONCE - 1)
    trail = scanner.state / "audit" / "audit.jsonl"
    audit.verify(trail)
    assert trail.read_bytes().count(b'"event":"agent-started"') == 1


def test_of_many_renewals_one_asks_the_ca_and_the_others_end_with_75(
    scanner: Scanner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CA answers when all others have ended, so that nobody comes too late to be in the way."""
    hospital = Hospital(tmp_path / "ca")
    configuration = str(scanner.configure(**hospital.tables(), **QUICK))
    ended = threading.Event()
    issue = hospital.ca.issue

    def issue_in_the_end(*arguments: Any) -> Any:
        assert ended.wait(SECONDS)
        return issue(*arguments)

    with hospital.answers():
        assert run(["enroll", "est", "--config", configuration]) == exits.OK
        issued = len(list((hospital.ca.directory / "issued").iterdir()))
        monkeypatch.setattr(hospital.ca, "issue", issue_in_the_end)
        processes = started(AT_ONCE, scanner, "renew", "--force")
        try:
            wait_until(lambda: len(those_that_work(processes)) == 1, SECONDS)
            ended.set()
            wait_until(lambda: not those_that_work(processes), SECONDS)
        finally:
            ended.set()
            for process in processes:
                process.kill()
                process.wait()

    codes = sorted(process.returncode for process in processes)
    measured("R17", "renewals at once", started=AT_ONCE, working=codes.count(exits.OK), others_exit=exits.TRY_LATER)
    assert codes == [exits.OK] + [exits.TRY_LATER] * (AT_ONCE - 1)
    assert len(list((hospital.ca.directory / "issued").iterdir())) == issued + len(IN_USE)
    for identity in IN_USE:
        current = scanner.identities.current(identity)
        assert current is not None
        assert current.number == 2
        check_pair(scanner.keys.load(current.key_uri), current.certificate)
        assert scanner.identities.journal(identity).read() is None


def test_an_agent_that_is_killed_again_and_again_is_followed_by_one_that_signs(scanner: Scanner) -> None:
    """What the one before leaves, its socket and its lock, is in nobody's way."""
    scanner.enroll()
    configuration, log = scanner.configure(), scanner.directory / "agent.log"
    for _ in range(RESTARTS):
        process = start(configuration, log)
        try:
            await_answer(Agent(process, scanner.socket, log))
            sign(scanner)
        finally:
            process.kill()
            process.wait()

    trail = scanner.state / "audit" / "audit.jsonl"
    assert audit.verify(trail).torn == ()
    assert trail.read_bytes().count(b'"event":"signature"') == RESTARTS
    measured("R17", "restarts after SIGKILL", restarts=RESTARTS, failed=0)
