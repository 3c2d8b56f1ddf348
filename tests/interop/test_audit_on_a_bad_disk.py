"""No line, no signature: a real agent whose audit trail cannot be written, and can be again. R4 of docs/reliability.md.

Nothing is restarted in between. Every signature that was given out has its line, and every image that was not signed is
counted.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from agent.audit import verify
from agent.cli import exits
from agent.client import SigningClient
from agent.errors import AgentRefused
from tests.support.agent_process import ROOT, START_SECONDS, Agent, Scanner, new_scanner, running_agent, wait_until

SIGNERS = 3
needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="nobody but root may mount a file system: run as root")
IN_USE = 10  # descriptors that a keyholder has open in any case; poll(2) refuses more than the limit


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Scanner]:
    with new_scanner(tmp_path) as scanner:
        scanner.enroll()
        yield scanner


class Signers:
    """Callers that go on whatever they are answered."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.signed = 0
        self.refused = list[tuple[int, str]]()
        self.details = set[str]()

    def run(self) -> None:
        with SigningClient(self._socket) as client:
            while not self._over.wait(0.005):
                try:
                    client.sign_digest(os.urandom(32), algorithm="sha256", role="acquisition")
                except AgentRefused as error:
                    with self._lock:
                        self.refused.append((error.status, error.code))
                        self.details.add(error.what)
                else:
                    with self._lock:
                        self.signed += 1

    @contextmanager
    def at_work(self) -> Iterator[None]:
        threads = [threading.Thread(target=self.run) for _ in range(SIGNERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def await_signatures(self) -> None:
        """Wait until more are signed."""
        before = self.signed
        wait_until(lambda: self.signed > before + SIGNERS)

    def await_refusals(self) -> None:
        """Wait until more are refused."""
        before = len(self.refused)
        wait_until(lambda: len(self.refused) > before + SIGNERS)


def nothing_is_missing(scanner: Scanner, signers: Signers) -> bool:
    """Whether what the trail says is what the callers have seen."""
    verify(scanner.audit_file)
    assert set(signers.refused) == {(503, "audit-unavailable")}
    lines = [
        line for line in scanner.audit_file.read_bytes().splitlines() if line.endswith(b"}")
    ]  # torn ones are named
    records = [json.loads(line) for line in lines]
    signed = [record for record in records if record["event"] == "signature"]
    unsigned = sum(record["fields"]["count"] for record in records if record["event"] == "images-unsigned")
    return (len(signed), unsigned) == (signers.signed, len(signers.refused))


def test_a_file_that_cannot_grow_any_more_refuses_signatures_until_it_can(scanner: Scanner) -> None:
    """setrlimit(2), RLIMIT_FSIZE, in the middle of a line: EFBIG comes where ENOSPC would, without a disk to fill."""
    with running_agent(scanner) as agent:
        signers = Signers(agent.socket)
        with signers.at_work():
            for _ in range(3):
                signers.await_signatures()
                room = scanner.audit_file.stat().st_size + 1000
                resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
                signers.await_refusals()
                unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
                resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, unlimited)
            signers.await_signatures()
        with SigningClient(agent.socket) as client:
            assert client.status()["state"] == "ready"

    assert nothing_is_missing(scanner, signers)
    assert os.strerror(errno.EFBIG) in " ".join(signers.details)


def test_without_a_free_descriptor_the_callers_that_are_there_are_served(scanner: Scanner) -> None:
    """EMFILE: neither a signature nor its line needs one."""
    with running_agent(scanner) as agent:
        signers = Signers(agent.socket)
        with signers.at_work():
            signers.await_signatures()
            before = resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE, (IN_USE, before[1]))
            signers.await_signatures()
            resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE, before)
            with SigningClient(agent.socket) as client:
                assert client.status()["state"] == "ready"

    assert signers.refused == []
    assert len(scanner.audit("signature")) == signers.signed


@contextmanager
def failing(agent: Agent, calls: str, error: str, path: Path) -> Iterator[None]:
    """System calls of the agent on a file fail meanwhile."""
    command = ["strace", "-f", "-qq", "-o", os.devnull, "-p", str(agent.process.pid), "-P", str(path)]
    command += ["-e", f"trace={calls}", "-e", f"inject={calls}:error={error}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as strace:
        try:
            yield
        finally:
            strace.send_signal(signal.SIGINT)
            strace.wait()


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("strace") is None,
    reason="strace has to trace the keyholder, which nobody but root may: apt-get install strace, and run as root",
)
@pytest.mark.parametrize(
    ("calls", "error"),
    [("write", "ENOSPC"), ("write", "EIO"), ("write", "EROFS"), ("write", "EDQUOT"), ("fsync", "EIO")],
)
def test_a_disk_that_fails_refuses_signatures_until_it_is_back(scanner: Scanner, calls: str, error: str) -> None:
    with running_agent(scanner) as agent:
        signers = Signers(agent.socket)
        with signers.at_work():
            signers.await_signatures()
            with failing(agent, calls, error, scanner.audit_file):
                signers.await_refusals()
            signers.await_signatures()
        log = agent.log.read_text("utf-8")

    assert nothing_is_missing(scanner, signers)
    assert os.strerror(getattr(errno, error)) in " ".join(signers.details)
    assert "Traceback" not in log


@contextmanager
def on_a_disk_of_its_own(scanner: Scanner) -> Iterator[Path]:
    """The state directory is a file system with little room: a file there fills it."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=750", "tmpfs", scanner.state], check=True)
    try:
        yield scanner.state / "something-else"
    finally:
        subprocess.run(["umount", scanner.state], check=True)


def fill(file: Path) -> None:
    """Until not a byte fits any more."""
    with file.open("wb", buffering=0) as other:
        for size in (4096, 1):
            with suppress(OSError):
                while other.write(bytes(size)):
                    pass


def signed_until_full(scanner: Scanner, file: Path) -> int:
    """How often an agent has signed before the disk was full, and it was killed."""
    with running_agent(scanner) as agent:
        signers = Signers(agent.socket)
        with signers.at_work():
            signers.await_signatures()
            fill(file)
            signers.await_refusals()
        agent.process.kill()
        agent.process.wait()
    return signers.signed


def scanseal_agent(scanner: Scanner) -> subprocess.CompletedProcess[str]:
    """`scanseal agent` as the service manager starts it, which ends because it cannot work."""
    command = [sys.executable, "-m", "agent.cli.main", "agent", "--config", str(scanner.configure())]
    return subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS, check=False, cwd=ROOT)


@needs_mount
@pytest.mark.parametrize("has_run", [False, True], ids=["first-start", "later-start"])
def test_an_agent_that_starts_on_a_full_disk_says_so_and_starts_once_there_is_room(
    tmp_path: Path, *, has_run: bool
) -> None:
    """No line says that it has started, so it has not; it is not told to stay away (systemd/scanseal.service)."""
    with new_scanner(tmp_path) as scanner, on_a_disk_of_its_own(scanner) as something_else:
        scanner.enroll()
        signed = signed_until_full(scanner, something_else) if has_run else 0
        fill(something_else)

        for _ in range(2):
            ended = scanseal_agent(scanner)

            assert ended.returncode == exits.UNAVAILABLE, ended.stderr
            assert "[audit-unavailable]" in ended.stderr
            assert os.strerror(errno.ENOSPC) in ended.stderr
            assert "Traceback" not in ended.stderr

        something_else.unlink()
        with running_agent(scanner) as agent, SigningClient(agent.socket) as client:
            assert client.status()["state"] == "ready"
            client.sign_digest(bytes(32), algorithm="sha256", role="acquisition")
        lines = [line for line in scanner.audit_file.read_bytes().splitlines() if b'"event":"signature"' in line]
        assert len([line for line in lines if line.endswith(b"}")]) == signed + 1
        verify(scanner.audit_file)
