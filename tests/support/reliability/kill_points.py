"""Commands of scanseal that are killed at a system call: python -m tests.support.reliability.kill_points.

    with Commands() as commands:
        ended = commands.run(Order(("renew", "--config", "scanseal.toml"), output, roots=(state,), kill_at=17))

Python takes half a second to start, and a sweep starts some thousand processes. So one process imports everything and
forks: each line of its input is an `Order`, and each child is the command, as if it had been typed. It is watched from
outside (`system_calls`), and killed when it is about to make the call with that number. So what it made before is
there, as after a crash of the process, and nothing else is.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest

from agent.cli import exits, main, signing_rate
from agent.daemon import hardening
from enroll.clock import SystemClock
from tests.support.reliability.system_calls import SystemCall, Watcher, watch

ROOT = Path(__file__).parents[3]
_MEASURED = 0.05  # seconds that `scanseal check --speed` measures a key
TIMEOUT = 60  # seconds, after which a command is killed
_WHY_NOT = "this kernel does not ask us about system calls: run on Linux 5.9 or later, x86-64 or aarch64, with seccomp"
KILLED = -signal.SIGKILL
LOOK = "look"  # the command that is ours: see `looking`
_LOADED = (
    "agent.cli.acme_account",
    "agent.cli.agent",
    "agent.cli.attest",
    "agent.cli.audit",
    "agent.cli.check",
    "agent.cli.enroll.acme",
    "agent.cli.enroll.cmp",
    "agent.cli.enroll.est",
    "agent.cli.enroll.fdo",
    "agent.cli.enroll.offline",
    "agent.cli.enroll.scep",
    "agent.cli.enroll.vendor",
    "agent.cli.fdo.approve",
    "agent.cli.fdo.init",
    "agent.cli.owner",
    "agent.cli.renew",
    "agent.cli.revoke",
    "agent.daemon.compose",
    "enroll.flows.acme",
    "enroll.flows.cmp",
    "enroll.flows.est",
    "enroll.flows.fdo",
    "enroll.flows.scep",
    "enroll.flows.vendor",
    "enroll.keystore.pkcs11",
    "enroll.keystore.software",
    "enroll.revocation.watch",
    "tests.support.reliability.looking",
)
_SET_DUMPABLE = 4  # <linux/prctl.h>


@dataclass(frozen=True)
class Order:
    """A command.

    Args:
        words: After `scanseal`.
        output: File for what it says.
        environment: Beside that of this process.
        roots: What is below is counted, and so is what is said to the network; without any, nothing is watched.
        kill_at: The number of the call at which it is killed; 0 for none.
        seconds_later: How far its clock is ahead, as if so much time had gone by.
        network: Whether what is said to the network is counted.
        seconds: After which it is killed in any case; 0 for never.
        synced: Whether it may sync; where not, it believes that it does.
    """

    words: Sequence[str]
    output: str
    environment: Mapping[str, str] = field(default_factory=dict)
    roots: Sequence[str] = ()
    kill_at: int = 0
    seconds_later: float = 0.0
    network: bool = True
    seconds: int = TIMEOUT
    synced: bool = True


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Args:
        code: As `subprocess` says it.
        calls: What was counted, the call at which it was killed included.
    """

    code: int
    calls: Sequence[str]

    @property
    def was_killed(self) -> bool:
        """At its call, and not because it took too long."""
        return self.code == KILLED

    @property
    def in_token_object(self) -> bool:
        """Whether the last call was for what SoftHSM keeps about the token itself."""
        return bool(self.calls) and self.calls[-1].endswith("/token.object")


class Commands:
    """The process that forks."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", __name__]
        pipe = subprocess.PIPE
        self._server = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate(timeout=2 * TIMEOUT)

    def start(self, order: Order) -> int:
        """Start a command: the number of its process."""
        assert self._server.stdin
        self._server.stdin.write(json.dumps(asdict(order)) + "\n")
        self._server.stdin.flush()
        return int(self._line())

    def wait(self) -> Ended:
        """Wait until it has ended."""
        return Ended(**json.loads(self._line()))

    def run(self, order: Order) -> Ended:
        """Both."""
        self.start(order)
        return self.wait()

    def skip_unless_watched(self, output: Path) -> None:
        """Where this kernel does not ask us about system calls, say so."""
        order = Order(("--version",), str(output), roots=(str(output.parent),))
        if self.run(order).code != exits.OK:
            pytest.skip(_WHY_NOT)

    def _line(self) -> str:
        assert self._server.stdout
        line = self._server.stdout.readline()
        assert line, "the process that forks has ended"
        return line


@dataclass
class _Counter:
    """Counts what one process does, and kills it at the call that is named."""

    order: Order
    process: int
    calls: list[str] = field(default_factory=list)

    def may_be_made(self, call: SystemCall) -> bool:
        """Whether; where not, the process is no more."""
        said = self._counted(call)
        # What it has started, a hook say, is not what is killed.
        if said is None or not Path(f"/proc/{self.process}/task/{call.process}").exists():
            return True
        self.calls.append(said)
        if len(self.calls) != self.order.kill_at:
            return True
        os.kill(call.process, signal.SIGKILL)
        return False

    def _counted(self, call: SystemCall) -> str | None:
        if call.path.startswith("socket:"):
            said = "send" if call.kind == "write" else call.kind
            return said if self.order.network else None
        root = next((root for root in self.order.roots if call.path.startswith(root + "/")), None)
        return None if root is None else f"{call.kind} {call.path.removeprefix(root + '/')}"


def _shift_clock(order: Order) -> None:
    later = timedelta(seconds=order.seconds_later)
    setattr(SystemClock, "now", lambda _: datetime.now(UTC) + later)  # noqa: B010 - mypy wants no assignment


def _stay_visible() -> None:
    """Only root sees the files of a process that hides them, which ours do."""
    if os.geteuid() == 0:
        return
    real: Callable[[int, int], None] = hardening._prctl
    hides = _SET_DUMPABLE
    setattr(hardening, "_prctl", lambda option, value: None if option == hides else real(option, value))  # noqa: B010


def _carry_out(order: Order, supervisor: socket.socket) -> int:
    """The child."""
    os.setsid()
    with Path(order.output).open("w") as output, Path(os.devnull).open() as nothing:
        for stream, number in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(stream.fileno(), number)
    os.environ.update(order.environment)
    signal.alarm(order.seconds)
    _shift_clock(order)
    _stay_visible()
    if not order.synced:
        for name in ("fsync", "fdatasync"):
            setattr(os, name, lambda _: None)
    if order.roots:
        descriptor = watch()
        socket.send_fds(supervisor, [b"."], [descriptor])
        os.close(descriptor)
    supervisor.close()
    if order.words[0] == LOOK:
        return int(importlib.import_module("tests.support.reliability.looking").look(order.words[1:]))
    return main.run(order.words)


def _forked(order: Order) -> tuple[int, socket.socket]:
    ours, theirs = socket.socketpair()
    process = os.fork()
    if process == 0:
        code = 70
        try:
            ours.close()
            code = _carry_out(order, theirs)
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:  # noqa: BLE001 - a process of its own
            traceback.print_exc()
        finally:
            os._exit(code)
    theirs.close()
    return process, ours


def _supervised(order: Order, process: int, channel: socket.socket) -> dict[str, Any]:
    counter = _Counter(order, process)
    over = os.pidfd_open(process)
    descriptors = socket.recv_fds(channel, 1, 1)[1] if order.roots else []
    if descriptors:
        Watcher(descriptors[0]).run(over, counter.may_be_made)
    _, status = os.waitpid(process, 0)
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)  # what it has started
    for descriptor in (*descriptors, over):
        os.close(descriptor)
    return {"code": os.waitstatus_to_exitcode(status), "calls": counter.calls}


def _serve() -> None:
    """Until the input ends."""
    for name in _LOADED:
        importlib.import_module(name)
    signing_rate.measure.__defaults__ = (_MEASURED,)
    gc.freeze()  # what is shared with the children stays shared
    for line in sys.stdin:
        order = Order(**json.loads(line))
        process, channel = _forked(order)
        with channel:
            _tell(str(process))
            _tell(json.dumps(_supervised(order, process, channel)))


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _serve()
