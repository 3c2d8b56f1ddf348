"""Workers that are killed, have no memory left, or are stuck: the caller is told, and nobody else notices. R13.

Two workers. The one that is hurt serves the caller who suffers; the other one serves a caller who has images signed all
the time, and whose every answer is checked.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.client import SigningClient
from agent.daemon.workers import SILENCE
from tests.support.agent_process import Agent, Scanner, needs_root_to_look_inside, running_agent, wait_until
from tests.support.dicom_samples import ct_slice, small_instance
from tests.support.raw_http import Caller, Reply, sign_instance
from tests.support.reliability.load import Report, running_load
from tests.support.reliability.measured import measured

pytestmark = needs_root_to_look_inside

LONGEST = 2.0  # seconds for a request of the others, on a machine that does other things as well


@pytest.fixture
def agent(scanner: Scanner) -> Iterator[Agent]:
    with running_agent(scanner) as agent:
        with SigningClient(agent.socket) as one, SigningClient(agent.socket) as other:
            for client in (one, other):  # so that both workers have started
                client.splice_instance(small_instance(), role="acquisition")
            wait_until(lambda: len(agent.workers()) == 2)
        yield agent


def sockets_of(pid: int) -> set[str]:
    """By the names that the kernel has for them."""
    names = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            names.add(str(descriptor.readlink()))
    return {name for name in names if name.startswith("socket:")}


def served_by(agent: Agent) -> tuple[socket.socket, int]:
    """A new connection, and the worker that it was given to."""
    before = {worker: sockets_of(worker) for worker in agent.workers()}
    connection = agent.connect()

    def taken() -> list[int]:
        return [worker for worker, known in before.items() if len(sockets_of(worker) - known) == 2]

    wait_until(lambda: len(taken()) == 1)
    (worker,) = taken()
    return connection, worker


def replaced(agent: Agent, lost: int) -> bool:
    workers = agent.workers()
    return lost not in workers and len(workers) == 2


def check_nobody_else_noticed(agent: Agent, report: Report, what: str, seconds: float) -> None:
    measured(
        "R13",
        what,
        replaced_after_s=round(seconds, 2),
        others_signed=report.signed,
        others_failed=len(report.failures),
        others_longest_request_ms=round(report.longest * 1e3),
    )
    assert report.failures == []
    assert report.signed > 0
    assert report.longest < LONGEST
    with SigningClient(agent.socket) as client:
        assert client.status()["state"] == "ready"
        for _ in range(4):
            client.splice_instance(small_instance(), role="acquisition")


def rest_of(caller: Caller, data: bytes) -> Reply | None:
    """The answer to the rest of a request; nothing where the connection was closed."""
    try:
        caller.connection.sendall(data)
        return caller.reply()
    except (AssertionError, BrokenPipeError, ConnectionResetError):
        return None


IMAGE = ct_slice(256, 256)


def test_a_worker_that_is_killed_takes_only_its_own_requests_with_it(agent: Agent) -> None:
    with running_load(agent.socket, agent.process.pid, 1) as report:
        connection, worker = served_by(agent)
        with connection:
            request = sign_instance(IMAGE)
            connection.sendall(request[:50_000])
            time.sleep(0.2)
            begun = time.monotonic()
            os.kill(worker, signal.SIGKILL)

            assert rest_of(Caller(connection), request[50_000:]) is None
        wait_until(lambda: replaced(agent, worker))
        seconds = time.monotonic() - begun
    check_nobody_else_noticed(agent, report, "worker killed in the middle of a request", seconds)


def test_a_worker_without_memory_ends_when_its_callers_are_served_and_is_replaced(agent: Agent) -> None:
    """RLIMIT_AS of the worker is less than it has already, so there is no room for the stack of another thread."""
    with running_load(agent.socket, agent.process.pid, 1) as report:
        begun_before, worker = served_by(agent)
        with begun_before, agent.connect() as on_the_other_one:
            request = sign_instance(IMAGE)
            begun_before.sendall(request[:50_000])
            assert Caller(on_the_other_one).ask(request).status == 200
            begun = time.monotonic()
            limit = resource.prlimit(worker, resource.RLIMIT_AS)
            resource.prlimit(worker, resource.RLIMIT_AS, (1 << 20, limit[1]))
            refused = 0
            while not replaced(agent, worker) and time.monotonic() - begun < 10:
                with agent.connect() as another:
                    reply = rest_of(Caller(another), request)
                    refused += reply is None or reply.status != 200
                if refused == 1 and begun_before.fileno() >= 0:
                    served = rest_of(Caller(begun_before), request[50_000:])
                    assert served is not None
                    assert served.status == 200
                    begun_before.close()
        wait_until(lambda: replaced(agent, worker))
        seconds = time.monotonic() - begun
    assert 1 <= refused <= 3
    check_nobody_else_noticed(agent, report, "worker without memory", seconds)


def test_a_worker_that_is_stuck_is_replaced(agent: Agent) -> None:
    """As in a loop of C code that holds the interpreter's lock: it gives no sign of life."""
    with running_load(agent.socket, agent.process.pid, 1) as report:
        connection, worker = served_by(agent)
        with connection:
            request = sign_instance(IMAGE)
            connection.sendall(request[:50_000])
            begun = time.monotonic()
            os.kill(worker, signal.SIGSTOP)

            assert rest_of(Caller(connection), request[50_000:]) is None
        wait_until(lambda: replaced(agent, worker), 2 * SILENCE)
        seconds = time.monotonic() - begun
    check_nobody_else_noticed(agent, report, "worker stuck in the middle of a request", seconds)
