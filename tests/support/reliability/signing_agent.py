"""An agent that is started by `Commands`, so that it can be killed at a system call, or run on a disk without syncs.

agent = SigningAgent(machine, commands)
agent.start(kill_at=12)
agent.sign()
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.audit import AuditTrail, verify
from agent.cli import exits
from agent.client import SigningClient
from agent.errors import AgentError
from enroll.clock import SystemClock
from enroll.offer import FILE_NAME as OFFER
from tests.support.reliability.kill_points import Commands, Ended
from tests.support.reliability.kill_sweep import Machine

SECONDS = 30.0  # until an agent signs, or has ended
PAUSE = 0.01  # seconds
_MOST = 1000  # steps


def agent_tables(folder: Path) -> dict[str, dict[str, Any]]:
    """What an agent needs in the configuration."""
    return {
        "socket": {"path": str(folder / "s"), "group": ""},
        "roles": {"acquisition": [f"user:{os.getuid()}"]},
        "workers": {"count": 1, "spool_directory": str(folder)},
    }


@dataclass
class SigningAgent:
    """The agent of a scanner.

    Args:
        machine: The scanner, with `agent_tables`.
        commands: For the agent alone: they wait for it.
        meanwhile: Called while there is no signature yet.
        clock: In seconds.
        signed: What was signed: when the answer had come, on that clock, and the digest.
    """

    machine: Machine
    commands: Commands
    meanwhile: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.monotonic
    signed: list[tuple[float, str]] = field(default_factory=list)
    process: int = 0

    def start(self, *, kill_at: int = 0, watched: bool = False, synced: bool = True) -> None:
        """Start it; nothing is awaited."""
        self.socket.unlink(missing_ok=True)
        order = self.machine.order(("agent",), kill_at=kill_at, watched=watched)
        order = replace(order, output=str(self.machine.folder / "agent.log"), network=False, seconds=0, synced=synced)
        self.process = self.commands.start(order)

    def sign(self) -> bool:
        """Ask until it signs; whether it has, before it ended."""
        deadline = time.monotonic() + SECONDS
        digest = secrets.token_bytes(32)
        while time.monotonic() < deadline:
            try:
                with SigningClient(self.socket, timeout=5) as client:
                    client.sign_digest(digest, algorithm="sha256", role="acquisition")
                self.signed.append((self.clock(), digest.hex()))
            except AgentError:
                if not self.lives:
                    return False
                self.meanwhile()
                time.sleep(PAUSE)
            else:
                return True
        raise AssertionError(f"no signature in {SECONDS} seconds: {self.said}")

    def stop(self) -> Ended:
        """Ask it to stop, unless it was killed, and wait."""
        with suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGTERM)
        return self.commands.wait()

    @property
    def socket(self) -> Path:
        return Path(str(dict(self.machine.tables["socket"])["path"]))

    @property
    def lives(self) -> bool:
        """Whether it has not ended; a process that nobody has waited for yet has."""
        try:
            status = Path(f"/proc/{self.process}/stat").read_text("ascii", "replace")
        except FileNotFoundError:
            return False
        return status.rpartition(")")[2].split()[0] not in ("Z", "X")

    @property
    def said(self) -> str:
        """Its log."""
        return (self.machine.folder / "agent.log").read_text("utf-8")


@dataclass
class AgentStage:
    """A scanner whose agent starts, makes its key in memory, has it certified, signs for the first time, and stops.

    Args:
        agent: That one. What it does meanwhile is to run the enroller, as the path unit of systemd does.
        enroll: Starts the enroller.
    """

    agent: SigningAgent
    enroll: Commands

    def sweep(self, every: int = 1) -> int:
        """Kill it at every step; see `kill_sweep.Stage.sweep`."""
        self.agent.machine.keep()
        for trial, step in enumerate(range(1, _MOST, every)):
            ended = self._trial(step)
            if not ended.was_killed:
                assert ended.code == exits.OK, self.agent.said
                return trial
        raise AssertionError(f"more than {_MOST} steps")

    def _trial(self, step: int) -> Ended:
        agent = self.agent
        agent.machine.restore()
        agent.signed.clear()
        agent.start(kill_at=step, watched=True)
        agent.sign()
        ended = agent.stop()
        try:
            # What was answered is in the trail already, also before another agent opens it.
            assert self._signed() <= _digests(agent.machine.state / "audit" / "audit.jsonl")
            agent.start()
            assert agent.sign(), "the next agent does not sign"
            agent.stop()
            found = agent.machine.look()
            assert not found.damaged, found.damaged
            assert not found.orphans, found.orphans
            assert self._signed() <= audited_digests(agent.machine.state)
        except AssertionError as failure:
            failure.add_note(f"killed at step {step}, before: {ended.calls[-1]}\n{agent.said}")
            raise
        return ended

    def _signed(self) -> set[str]:
        return {digest for _, digest in self.agent.signed}

    def serve_offer(self) -> None:
        """Run the enroller where the agent has asked."""
        machine = self.agent.machine
        if (machine.state / "identities" / "signing" / "pending" / OFFER).exists():
            order = replace(machine.order(("renew",)), output=str(machine.folder / "enroller.log"))
            self.enroll.run(order)


def audited_digests(state: Path) -> set[str]:
    """What the audit trail says was signed, once its next agent has opened it and the chain has been verified."""
    trail = state / "audit" / "audit.jsonl"
    AuditTrail(trail, SystemClock()).close()
    verify(trail)
    return _digests(trail)


def _digests(trail: Path) -> set[str]:
    if not trail.exists():
        return set()
    lines = [json.loads(line) for line in trail.read_bytes().splitlines() if line.endswith(b"}")]
    return {line["fields"]["digest"] for line in lines if line["event"] == "signature"}
