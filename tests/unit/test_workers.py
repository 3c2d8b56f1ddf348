"""Workers are started, watched and replaced; real processes, scripted clock."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from agent.config import AgentSettings
from agent.daemon.compose import worker_options
from agent.daemon.wire import ALIVE, EXHAUSTED
from agent.daemon.worker import Worker
from agent.daemon.workers import GOOD_LIFE, LONGEST_DELAY, SILENCE, Workers
from agent.daemon.workers import Worker as Running


class SteppingClock:
    """A monotonic clock that moves when it is told to."""

    def __init__(self) -> None:
        self.passed = 1000.0

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return self.passed

    def boottime(self) -> float:
        return self.passed

    def boot_id(self) -> str:
        return "boot"

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


def test_a_worker_without_memory_gets_no_new_caller_and_is_replaced(workers: Workers) -> None:
    """setrlimit(2), RLIMIT_AS: there is no room for the stack of another thread."""
    before, (worker,) = number(workers), workers.running()
    hear(workers)
    resource.prlimit(before, resource.RLIMIT_AS, (1 << 20, resource.prlimit(before, resource.RLIMIT_AS)[1]))
    caller, connection = socket.socketpair()
    channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with caller, connection, channel, theirs:
        assert workers.hand_over(worker, connection, theirs)
        while not worker.leaves:
            hear(workers)
    while worker in workers.running():
        assert select.select([worker.control], [], [], 10)[0]
        workers.listen(worker)

    assert number(workers) != before
    assert worker.process.returncode in (0, -signal.SIGKILL)  # it may be buried while it still closes its files


def exhaust(workers: Workers, worker: Running) -> None:
    """Have the keyholder hear that it has no memory left; it goes on with what it has."""
    os.kill(worker.process.pid, signal.SIGSTOP)  # or it would end at once, as it has nothing to do
    ours, said = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with said:
        worker.control.close()
        ours.settimeout(0)
        worker.control = ours
        said.send(EXHAUSTED)
        workers.listen(worker)
        said.send(ALIVE)


def test_a_worker_without_memory_is_replaced_while_its_callers_are_answered_still(workers: Workers) -> None:
    (worker,) = workers.running()
    exhaust(workers, worker)

    assert worker.process.poll() is None
    assert worker in workers.running()
    assert [each.leaves for each in workers.running()] == [False, True]


def test_only_one_for_each_place_may_answer_callers_without_memory(workers: Workers, clock: SteppingClock) -> None:
    (worker,) = workers.running()
    exhaust(workers, worker)
    clock.sleep(1)
    workers.tend()
    (second, _) = workers.running()
    exhaust(workers, second)
    clock.sleep(1)
    workers.tend()
    workers.listen(worker)  # which was waited for before it was buried

    assert worker.process.returncode == -signal.SIGKILL
    assert [each.leaves for each in workers.running()] == [False, True]
    assert second in workers.running()


def test_a_request_that_never_ends_ends_the_worker(clock: SteppingClock) -> None:
    """A thread cannot be stopped from outside; a process can end itself."""
    keyholder, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with keyholder, control:
        worker = Worker(control, worker_options(AgentSettings()), clock)
        worker._deadlines[threading.current_thread()] = clock.monotonic() - 1

        assert worker.run() == 1
