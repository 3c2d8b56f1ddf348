"""Workers are started, watched and replaced; real processes, scripted clock."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from agent.config import AgentSettings
from agent.daemon.compose import worker_options
from agent.daemon.worker import Worker
from agent.daemon.workers import GOOD_LIFE, LONGEST_DELAY, SILENCE, Workers


class SteppingClock:
    """A monotonic clock that moves when it is told to."""

    def __init__(self) -> None:
        self.passed = 1000.0

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.passed += seconds


@pytest.fixture
def clock() -> SteppingClock:
    return SteppingClock()


@pytest.fixture
def workers(clock: SteppingClock) -> Iterator[Workers]:
    workers = Workers(1, worker_options(AgentSettings()), clock)
    workers.tend()
    yield workers
    workers.kill()


def number(workers: Workers) -> int:
    (worker,) = workers.running()
    return worker.process.pid


def hear(workers: Workers) -> None:
    """Wait for the worker to say something, or to end."""
    (worker,) = workers.running()
    assert select.select([worker.control], [], [], 10)[0]
    workers.listen(worker)


def kill(workers: Workers) -> None:
    """End the worker from outside, and let the keyholder notice."""
    before = number(workers)
    os.kill(before, signal.SIGKILL)
    while workers.running() and number(workers) == before:
        hear(workers)


def test_a_worker_gives_signs_of_life(workers: Workers, clock: SteppingClock) -> None:
    clock.sleep(5)
    hear(workers)

    assert workers.running()[0].heard == clock.monotonic()


def test_a_worker_that_gives_no_sign_of_life_is_replaced(workers: Workers, clock: SteppingClock) -> None:
    """It may hang with the interpreter's lock held, where no watchdog of its own would run."""
    before = number(workers)
    os.kill(before, signal.SIGSTOP)
    clock.sleep(SILENCE + 1)
    workers.tend()
    while workers.running() and number(workers) == before:
        hear(workers)

    assert number(workers) != before


def test_workers_that_die_at_once_are_replaced_more_and_more_slowly(workers: Workers, clock: SteppingClock) -> None:
    """Or a worker that cannot run at all would take all of the processor."""
    kill(workers)
    assert workers.running()
    waited = []
    for _ in range(3):
        kill(workers)
        assert not workers.running()
        begun = clock.monotonic()
        while not workers.running():
            clock.sleep(0.05)
            workers.tend()
        waited.append(clock.monotonic() - begun)

    assert waited[0] < waited[1] < waited[2] < LONGEST_DELAY


def test_a_death_after_a_good_life_is_not_held_against_the_next(workers: Workers, clock: SteppingClock) -> None:
    for _ in range(3):
        clock.sleep(GOOD_LIFE + 1)
        kill(workers)
        assert workers.running()


def test_a_worker_ends_when_it_is_asked_to(workers: Workers) -> None:
    process = workers.running()[0].process
    workers.drain()
    while workers.running():
        hear(workers)

    assert process.returncode in (0, -signal.SIGKILL)  # it may be buried while it still closes its files


def test_a_request_that_never_ends_ends_the_worker(clock: SteppingClock) -> None:
    """A thread cannot be stopped from outside; a process can end itself."""
    keyholder, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with keyholder, control:
        worker = Worker(control, worker_options(AgentSettings()), clock)
        worker._deadlines[threading.current_thread()] = clock.monotonic() - 1

        assert worker.run() == 1
