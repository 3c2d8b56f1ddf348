"""Starts the workers, gives them connections, replaces those that die. Runs in the keyholder."""

from __future__ import annotations

import array
import contextlib
import logging
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import agent
from agent.daemon.options import WorkerOptions
from agent.daemon.wire import ALIVE, CONNECTION, DRAIN, EXHAUSTED
from enroll.clock import Clock

SILENCE = 15.0  # seconds without a sign of life after which a worker is killed
FIRST_DELAY = 0.1  # seconds before a worker is started again after a second early death; doubled each time
LONGEST_DELAY = 30.0  # seconds
GOOD_LIFE = 60.0  # seconds after which a death is no longer held against the next worker

logger = logging.getLogger("scanseal.keyholder")


@dataclass
class Worker:
    """One worker process.

    Args:
        process: The process.
        control: The keyholder's end of its control channel.
        started: When it was started, on the monotonic clock.
        heard: When it last gave a sign of life.
        leaves: Whether it has no memory left, and ends when its requests are answered.
    """

    process: subprocess.Popen[bytes]
    control: socket.socket
    started: float
    heard: float
    leaves: bool = False


@dataclass
class _Slot:
    """A place for one worker: the one that takes connections, or when the next may be started.

    Args:
        worker: That one.
        leaving: The one before, which has no memory left and ends when its requests are answered.
        start_at: When the next may be started.
        delay: How long the next but one would have to wait.
    """

    worker: Worker | None = None
    leaving: Worker | None = None
    start_at: float = 0.0
    delay: float = 0.0


class Workers:
    """The worker processes.

    Args:
        count: How many.
        options: What each is told.
        clock: The clocks.
    """

    def __init__(self, count: int, options: WorkerOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._slots = [_Slot() for _ in range(count)]
        self._draining = False

    def running(self) -> list[Worker]:
        """The workers that live, as far as is known."""
        return [worker for slot in self._slots for worker in (slot.worker, slot.leaving) if worker is not None]

    def tend(self) -> None:
        """Start workers that are missing and due; kill those that give no sign of life. For every second at least."""
        now = self._clock.monotonic()
        for worker in self.running():
            if now - worker.heard > SILENCE:
                logger.error("Worker %d gives no sign of life and is killed.", worker.process.pid)
                worker.process.kill()
        for slot in self._slots:
            if slot.worker is None and now >= slot.start_at and not self._draining:
                try:
                    slot.worker = self._start(now)
                except OSError as error:  # no process, memory or descriptor to be had: others have to end first
                    logger.error("A worker cannot be started: %s: %s", error.strerror, error.filename)  # noqa: TRY400
                    self._delay(slot, now)

    def hand_over(self, worker: Worker, connection: socket.socket, channel: socket.socket) -> bool:
        """Give a connection and its signing channel to a worker.

        Returns:
            Whether the worker could take it.
        """
        descriptors = array.array("i", (connection.fileno(), channel.fileno()))
        try:
            worker.control.sendmsg([CONNECTION], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        except OSError:
            return False
        return True

    def listen(self, worker: Worker) -> None:
        """Take note of what a worker says, or of its end."""
        if worker not in self.running():
            return  # it has been buried since it was waited for
        try:
            message = worker.control.recv(len(ALIVE))
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if message:
            worker.heard = self._clock.monotonic()
            if message == EXHAUSTED and not worker.leaves:
                logger.error("Worker %d has no memory left and is replaced.", worker.process.pid)
                self._let_leave(worker)
        else:
            self._bury(worker)

    def drain(self) -> None:
        """Ask all workers to finish what is under way and end."""
        self._draining = True
        for worker in self.running():
            _drain(worker)

    def kill(self) -> None:
        """End all workers at once."""
        self._draining = True
        for worker in self.running():
            self._bury(worker)

    def _start(self, now: float) -> Worker:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.ExitStack() as unless_started, theirs:
            unless_started.enter_context(ours)
            descriptor = theirs.fileno()
            process = subprocess.Popen(  # noqa: S603 - this interpreter, arguments of our own
                [sys.executable, "-P", "-m", "agent.daemon.worker", str(descriptor), self._options.encode()],
                pass_fds=(descriptor,),
                stdin=subprocess.DEVNULL,
                cwd="/",
                env=worker_environment(),
            )
            unless_started.pop_all()
        ours.settimeout(0)
        return Worker(process, ours, started=now, heard=now)

    def _let_leave(self, worker: Worker) -> None:
        """Its callers are answered still, which may take minutes; the next one takes its place meanwhile."""
        slot = self._slot_of(worker)
        if slot.leaving is not None:  # one for each slot: together they would leave no memory to anybody
            self._bury(slot.leaving)
        worker.leaves = True
        slot.worker, slot.leaving = None, worker
        _drain(worker)
        self._replace(worker, slot)

    def _bury(self, worker: Worker) -> None:
        # Without its control channel it cannot be of use any more, whether or not it ended by itself.
        worker.control.close()
        worker.process.kill()
        status = worker.process.wait()
        slot = self._slot_of(worker)
        if slot.leaving is worker:
            slot.leaving = None
            return
        slot.worker = None
        if not self._draining:
            logger.error("Worker %d ended (status %d) and is replaced.", worker.process.pid, status)
            self._replace(worker, slot)

    def _slot_of(self, worker: Worker) -> _Slot:
        return next(slot for slot in self._slots if worker in (slot.worker, slot.leaving))

    def _replace(self, worker: Worker, slot: _Slot) -> None:
        now = self._clock.monotonic()
        if now - worker.started > GOOD_LIFE:
            slot.delay = 0.0
        self._delay(slot, now)
        self.tend()

    def _delay(self, slot: _Slot, now: float) -> None:
        slot.start_at = now + slot.delay
        slot.delay = min(max(FIRST_DELAY, 2 * slot.delay), LONGEST_DELAY)


def _drain(worker: Worker) -> None:
    try:
        worker.control.send(DRAIN)
    except OSError:
        worker.process.kill()


def worker_environment() -> Mapping[str, str]:
    """The environment of a worker: where the code is, and nothing of the keyholder's."""
    return {
        "PYTHONPATH": str(Path(agent.__file__).parent.parent),
        # Arenas for each thread would use up the address space.
        "MALLOC_ARENA_MAX": "2",
    }
