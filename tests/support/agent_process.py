"""A real agent: its state directory, its configuration, its process."""

from __future__ import annotations

import json
import os
import signal
import socket as sockets
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.daemon.renewal import renewal_command
from enroll.algorithms import KeyAlgorithm
from enroll.config import KeyStoreSettings, SoftwareStoreSettings, StoreName
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.keystore import KeyStores
from enroll.statefile import StateFiles
from enroll.trust import VerifiedCertificate
from tests.support.certificates import SERIAL_NUMBER, Authority

ROOT = Path(__file__).parents[2]
START_SECONDS = 20.0

needs_root_to_look_inside = pytest.mark.skipif(
    os.getuid() != 0, reason="keyholder and workers hide their /proc entries from their own user: run as root"
)

_PROGRAM = """
import sys
from pathlib import Path
from agent import config, daemon
from enroll.clock import SystemClock
from enroll.errors import ScansealError
from enroll.statefile import StateFiles
files = StateFiles()
try:
    sys.exit(daemon.run(config.load(Path(sys.argv[1]), files), SystemClock(), files, sys.argv[2:]))
except ScansealError as error:
    sys.exit(f"{error.code}: {error}")
"""


class Scanner:
    """The state directory of a scanner, and everything about it that a test may want to change.

    Args:
        directory: Everything but the socket lies below it.
        socket: Path of the socket; short, because sun_path is.
    """

    def __init__(self, directory: Path, socket_path: Path) -> None:
        self.directory = directory
        self.socket = socket_path
        self.state = directory / "state"
        self.state.mkdir()
        self.passphrase = directory / "passphrase"
        self.passphrase.write_text("correct horse battery staple", "utf-8")
        self.passphrase.chmod(0o600)
        self.files = StateFiles()
        self.authority = Authority(directory, datetime.now(UTC))
        self.identities = IdentityStore(self.state, self.files)
        settings = KeyStoreSettings(software=SoftwareStoreSettings(passphrase_file=self.passphrase))
        self.keys = KeyStores(settings, self.state, self.files)

    @property
    def audit_file(self) -> Path:
        """The audit trail."""
        return self.state / "audit" / "audit.jsonl"

    def audit(self, event: str) -> list[dict[str, Any]]:
        """The fields of all lines of an event."""
        lines = [json.loads(line) for line in self.audit_file.read_text("ascii").splitlines()]
        return [line["fields"] for line in lines if line["event"] == event]

    def enroll(
        self, name: IdentityName = IdentityName.SIGNING, algorithm: KeyAlgorithm = KeyAlgorithm.RSA_2048
    ) -> Generation:
        """Make a key, have a certificate issued for it, and put both into use."""
        number = max(self.identities.generations(name), default=0) + 1
        uri = self.keys.generate(StoreName.SOFTWARE, f"{name}-{number}", algorithm)
        return self.commit(name, uri, uri)

    def commit(self, name: IdentityName, certified_uri: str, stored_uri: str) -> Generation:
        """Put a certificate for one key into use together with the name of a key, the same or another."""
        certificate = self.authority.issue(f"{name}", self.keys.load(certified_uri)).certificate
        return self.identities.commit(
            name,
            VerifiedCertificate(certificate, ()),
            stored_uri,
            protection=self.keys.protection(stored_uri),
            flow="test",
            now=datetime.now(UTC),
        )

    def configure(self, **tables: dict[str, Any]) -> Path:
        """Write scanseal.toml; the user who runs the tests may sign original images unless `roles` says otherwise."""
        everything: dict[str, dict[str, Any]] = {
            "device": {"serial_number": SERIAL_NUMBER},
            "keystore.software": {"passphrase_file": str(self.passphrase)},
            "socket": {"path": str(self.socket), "group": ""},
            "roles": {"acquisition": [f"user:{os.getuid()}"]},
            "workers": {"count": 2, "spool_directory": str(self.directory)},
        }
        for name, table in tables.items():
            everything.setdefault(name, {}).update(table)
        lines = [f"state_directory = {json.dumps(str(self.state))}"]
        for name, table in everything.items():
            lines += [f"[{name}]", *(f"{option} = {json.dumps(value)}" for option, value in table.items())]
        path = self.directory / "scanseal.toml"
        path.write_text("\n".join(lines), "utf-8")
        return path


@dataclass
class Agent:
    """An agent that runs.

    Attributes:
        process: The keyholder.
        socket: Where it answers.
        log: What it has written to standard error.
    """

    process: subprocess.Popen[bytes]
    socket: Path
    log: Path = field(repr=False)

    def workers(self) -> list[int]:
        """The process numbers of the workers."""
        return child_processes(self.process.pid)

    def connect(self) -> sockets.socket:
        """A new connection."""
        connection = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        connection.settimeout(START_SECONDS)
        try:
            connection.connect(os.fspath(self.socket))
        except OSError:
            connection.close()
            raise
        return connection

    def stop(self) -> int:
        """Ask it to stop, and wait for its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(START_SECONDS)


@contextmanager
def new_scanner(directory: Path) -> Iterator[Scanner]:
    """A scanner without an identity."""
    with tempfile.TemporaryDirectory(prefix="scanseal-") as short:
        yield Scanner(directory, Path(short) / "sign.sock")


def start(
    configuration: Path, log: Path, *, environment: Iterable[tuple[str, str]] = (), with_renewal: bool = False
) -> subprocess.Popen[bytes]:
    """Start a keyholder; nothing is awaited."""
    renewal = renewal_command(configuration) if with_renewal else ()
    with log.open("ab") as stderr:
        return subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(configuration), *renewal],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, "PYTHONWARNINGS": "error", **dict(environment)},
        )


@contextmanager
def running_agent(scanner: Scanner, **tables: dict[str, Any]) -> Iterator[Agent]:
    """An agent that answers at the scanner's socket; it is stopped in the end."""
    log = scanner.directory / "agent.log"
    with _serving(scanner, start(scanner.configure(**tables), log), log) as agent:
        yield agent


@contextmanager
def running_agent_with_renewal(scanner: Scanner, **tables: dict[str, Any]) -> Iterator[Agent]:
    """The same, and it starts the enroller."""
    log = scanner.directory / "agent.log"
    with _serving(scanner, start(scanner.configure(**tables), log, with_renewal=True), log) as agent:
        yield agent


@contextmanager
def _serving(scanner: Scanner, process: subprocess.Popen[bytes], log: Path) -> Iterator[Agent]:
    agent = Agent(process, scanner.socket, log)
    try:
        await_answer(agent)
        yield agent
        if process.poll() is None:
            assert agent.stop() == 0, log.read_text("utf-8")
    finally:
        process.kill()
        process.wait()


def await_answer(agent: Agent) -> None:
    """Wait until the process that was started, and no other, listens at the socket."""

    def listens() -> bool:
        assert agent.process.poll() is None, f"the agent ended: {agent.log.read_text('utf-8')}"
        try:
            with agent.connect() as connection:
                credentials = connection.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, 12)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        listening, _, _ = struct.unpack("3i", credentials)
        return bool(listening == agent.process.pid)

    wait_until(listens)


def wait_until(condition: Callable[[], object], seconds: float = START_SECONDS) -> None:
    """Wait until something has become true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.01)


def child_processes(pid: int) -> list[int]:
    """The children of a process."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
    return [int(child) for child in children.split()]
