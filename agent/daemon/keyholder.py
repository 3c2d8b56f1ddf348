"""The keyholder's main loop: accepts, binds each connection to its caller, hands it over. It parses nothing."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial

from agent.audit import AuditTrail
from agent.config import LimitsSettings
from agent.daemon.channels import SigningChannels
from agent.daemon.clock_watch import ClockWatch
from agent.daemon.connection import Answer
from agent.daemon.listener import Listener
from agent.daemon.lone_thread import LoneThread
from agent.daemon.notify import ServiceManager
from agent.daemon.peer import Caller, caller_of
from agent.daemon.problems import MEDIA_TYPE, problem_of
from agent.daemon.renewal import Renewal
from agent.daemon.roles import RoleTable
from agent.daemon.signer import Identities
from agent.daemon.tally import SigningTally
from agent.daemon.workers import Worker, Workers
from agent.errors import RequestRefused
from enroll.clock import Clock
from enroll.errors import ScansealError

TICK = 0.5  # seconds between looks at the identity directory
AWAITING_TICK = 0.1  # seconds, as long as images stay unsigned because a certificate is under way
LONGEST_LOOK = 60.0  # seconds after which a look at the identity directory is held to hang, for the watchdog
ACCEPT_PAUSE = 0.1  # seconds, when the system has no room for another connection
ACCEPTED_AT_ONCE = 16  # connections between two looks at everything else
STOP_SECONDS = 20.0  # for requests that are under way when the service stops
LOOK_SECONDS = 2.0  # then, for a look that is under way; one at a token that hangs may never end
REFUSAL_INTERVAL = 10.0  # seconds between two audit lines about refused connections

logger = logging.getLogger("scanseal.keyholder")


@dataclass(frozen=True)
class Parts:
    """What the keyholder works with; `agent.daemon.compose` puts it together."""

    signals: int
    listener: Listener
    workers: Workers
    channels: SigningChannels
    identities: Identities
    roles: RoleTable
    limits: LimitsSettings
    tally: SigningTally
    renewal: Renewal
    audit: AuditTrail
    manager: ServiceManager
    clock: Clock
    clock_watch: ClockWatch


class Keyholder:
    """Serves until it is told to stop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._stopping = False
        self._reload = False
        self._look: Future[None] | None = None
        self._looked_at = -TICK
        self._refused = 0
        self._refusals_written_at = -REFUSAL_INTERVAL

    def serve(self) -> None:
        """Accept connections until SIGTERM or SIGINT, then let what is under way finish."""
        parts = self._parts
        parts.manager.ready()
        logger.info("Listening on %s.", parts.listener.path or "the socket that systemd made")
        # A thread of its own: neither a token, nor the decryption of a key, nor a disk holds up a caller.
        thread = LoneThread("identities")
        while not self._stopping:
            self._wait(parts.listener.socket)
            parts.workers.tend()
            parts.channels.keep_only_of({worker.process.pid for worker in parts.workers.running()})
            self._look_around(thread)
        thread.end()
        self._stop()

    def _wait(self, listener: socket.socket | None) -> None:
        """Wait for something to happen, at most one tick, and see to it."""
        signals = self._parts.signals
        workers = {worker.control.fileno(): worker for worker in self._parts.workers.running()}
        poll = select.poll()
        for descriptor in (signals, *workers):
            poll.register(descriptor, select.POLLIN)
        if listener is not None:
            poll.register(listener, select.POLLIN)
        tick = AWAITING_TICK if self._parts.identities.awaiting else TICK
        for descriptor, _ in poll.poll(tick * 1000):
            if descriptor in workers:
                self._parts.workers.listen(workers[descriptor])
            elif descriptor == signals:
                self._take_signals()
            elif listener is not None:
                self._accept(listener)

    def _take_signals(self) -> None:
        for number in os.read(self._parts.signals, 64):
            if number == signal.SIGHUP:
                self._reload = True
            else:
                self._stopping = True

    def _look_around(self, thread: LoneThread) -> None:
        parts, now = self._parts, self._parts.clock.monotonic()
        if self._look is not None and self._look.done():
            self._look.result()  # a defect ends the agent, wherever it shows
            self._look = None
        # Not for each of a thousand callers that come at once.
        if self._look is None and (self._reload or now - self._looked_at >= AWAITING_TICK):
            at_once, self._looked_at, self._reload = self._reload, now, False  # before the look may ask for another
            self._look = thread.submit(partial(self._look_at_identities, at_once=at_once))
        try:
            self._write_refusals()
        except ScansealError as error:
            _log(error)
        # The first offer comes within a second of the start, and one run is enough for it and for the rest.
        if parts.identities.offers or not parts.identities.awaiting:
            parts.renewal.tend(parts.identities.offers)
        if parts.workers.running() and (self._look is None or now - self._looked_at < LONGEST_LOOK):
            parts.manager.alive()

    def _look_at_identities(self, *, at_once: bool) -> None:
        """Runs in its thread."""
        try:
            self._parts.clock_watch.tend()
        except ScansealError as error:
            _log(error)
        try:
            self._parts.identities.refresh(at_once=at_once)
            self._parts.tally.write()
        except ScansealError as error:
            if at_once:  # once more; nothing is taken back that came meanwhile
                self._reload = True
            _log(error)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, _address = listener.accept()
            except BlockingIOError:  # nobody is waiting any more
                return
            except OSError as error:  # no descriptor or no memory left: others have to finish first
                logger.error("No connection can be accepted: %s", error.strerror)  # noqa: TRY400
                self._parts.clock.sleep(ACCEPT_PAUSE)
                return
            with connection:
                try:
                    self._hand_over(connection)
                except RequestRefused as error:
                    self._refuse(connection, error)
                except OSError as error:
                    logger.error("A connection cannot be handed over: %s", error.strerror)  # noqa: TRY400
                    self._refuse(connection, _busy())

    def _hand_over(self, connection: socket.socket) -> None:
        caller = caller_of(connection)
        worker = self._admit(caller)
        roles = self._parts.roles.of(caller)
        with self._parts.channels.open(connection, caller, roles, worker.process.pid) as channel:
            if not self._parts.workers.hand_over(worker, connection, channel):
                raise _busy()

    def _admit(self, caller: Caller) -> Worker:
        """The worker with the fewest connections, if there is room for one more of this caller."""
        channels, limits = self._parts.channels.open_channels(), self._parts.limits
        if sum(channel.caller.uid == caller.uid for channel in channels) >= limits.connections_per_user:
            raise RequestRefused(
                f"User {caller.uid} has {limits.connections_per_user} connections already.",
                remedy="Keep connections open and use them again, or raise limits.connections_per_user.",
                code="too-many-connections",
            )
        workers = [worker for worker in self._parts.workers.running() if not worker.leaves]
        if not workers or len(channels) >= limits.connections:
            raise _busy()
        busy = [channel.worker for channel in channels]
        return min(workers, key=lambda worker: busy.count(worker.process.pid))

    def _refuse(self, connection: socket.socket, error: RequestRefused) -> None:
        self._refused += 1
        status, document = problem_of(error)
        answer = Answer.of(status, MEDIA_TYPE, document, (("Retry-After", "1"),))
        # A caller that cannot take these few bytes at once gets none; nobody waits for it.
        with contextlib.suppress(OSError):
            connection.settimeout(0)
            connection.sendall(answer.head(close=True) + document)

    def _write_refusals(self) -> None:
        now = self._parts.clock.monotonic()
        if self._refused and now - self._refusals_written_at >= REFUSAL_INTERVAL:
            self._parts.audit.record("connections-refused", {"count": self._refused})
            self._refused, self._refusals_written_at = 0, now

    def _stop(self) -> None:
        parts = self._parts
        parts.manager.stopping()
        parts.listener.close()
        parts.workers.drain()
        deadline = parts.clock.monotonic() + STOP_SECONDS
        while parts.workers.running() and parts.clock.monotonic() < deadline:
            self._wait(None)
        parts.workers.kill()
        if self._look is not None and wait([self._look], LOOK_SECONDS).not_done:
            logger.warning("A look at the identities has not come to its end; the next start makes it anew.")
        parts.tally.write(at_once=True)


def _log(error: ScansealError) -> None:
    """Of the audit trail: signing is refused as long as it cannot be written."""
    logger.error("%s", error)


def _busy() -> RequestRefused:
    return RequestRefused(
        "All connections are in use.", remedy="Try again; if it lasts, raise limits.connections.", code="busy"
    )


@contextlib.contextmanager
def caught_signals() -> Iterator[int]:
    """A descriptor from which the numbers of SIGTERM, SIGINT and SIGHUP can be read when they arrive."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = {
        number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    }
    wakeup = signal.set_wakeup_fd(write_end)
    try:
        yield read_end
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(read_end)
        os.close(write_end)
