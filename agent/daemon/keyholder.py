"""The keyholder's main loop: accepts, binds each connection to its caller, hands it over. It parses nothing."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from agent.audit import AuditTrail
from agent.config import LimitsSettings
from agent.daemon.channels import SigningChannels
from agent.daemon.connection import Answer
from agent.daemon.listener import Listener
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

TICK = 1.0  # seconds between looks at the identity directory
AWAITING_TICK = 0.1  # seconds, as long as images stay unsigned because a certificate is under way
ACCEPT_PAUSE = 0.1  # seconds, when the system has no room for another connection
ACCEPTED_AT_ONCE = 16  # connections between two looks at everything else
STOP_SECONDS = 20.0  # for requests that are under way when the service stops
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


class Keyholder:
    """Serves until it is told to stop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._stopping = False
        self._reload = False
        self._refused = 0
        self._refusals_written_at = -REFUSAL_INTERVAL

    def serve(self) -> None:
        """Accept connections until SIGTERM or SIGINT, then let what is under way finish."""
        parts = self._parts
        parts.manager.ready()
        logger.info("Listening on %s.", parts.listener.path or "the socket that systemd made")
        while not self._stopping:
            self._wait(parts.listener.socket)
            parts.workers.tend()
            parts.channels.keep_only_of({worker.process.pid for worker in parts.workers.running()})
            self._look_around()
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

    def _look_around(self) -> None:
        try:
            self._parts.identities.refresh(at_once=self._reload)
            self._reload = False
            self._parts.tally.write()
            self._write_refusals()
        except ScansealError as error:  # the audit trail: signing is refused as long as it cannot be written
            logger.error("%s", error)  # noqa: TRY400 - the message says it all
        identities = self._parts.identities
        # The first offer comes within a second of the start, and one run is enough for it and for the rest.
        if identities.offers or not identities.awaiting:
            self._parts.renewal.tend(identities.offers)
        if self._parts.workers.running():
            self._parts.manager.alive()

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
        workers = self._parts.workers.running()
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
        parts.tally.write(at_once=True)


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
