"""A worker: reads HTTP and DICOM, hashes, and holds no key. One thread for each connection.

Started by the keyholder as `python -m agent.daemon.worker DESCRIPTOR OPTIONS`, a fresh interpreter with nothing
inherited but its control channel. It imports neither `cryptography` nor `pydicom`. It ends when the control channel
closes, so it never outlives the keyholder; and when a request takes far longer than it may, because then something here
is broken, and the keyholder starts another. Where it has no memory left, it asks to be replaced: it gets no new
connection, and ends when those that it has are served.
"""

from __future__ import annotations

import array
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
import threading

from agent.daemon.api import Api, refusal
from agent.daemon.channel import LONGEST_SIGNATURE, SigningChannel
from agent.daemon.connection import Body, Connection, ConnectionLost
from agent.daemon.hardening import protect_memory
from agent.daemon.options import WorkerOptions
from agent.daemon.sandbox import confine
from agent.daemon.wire import ALIVE, CONNECTION, DRAIN, EXHAUSTED
from agent.dicom.elements import SOP_INSTANCE_UID, dictionary_vr
from agent.dicom.profile import ProfileName, load_profile
from enroll.clock import Clock, SystemClock
from enroll.errors import ScansealError

HEARTBEAT = 1.0  # seconds
GRACE = LONGEST_SIGNATURE + 30.0  # seconds that a request may take on top of its transfers
THREAD_STACK = 512 * 1024  # bytes; the address space is limited

_DESCRIPTORS = 2  # the connection and its signing channel
_DRAINING_TICK = 0.02  # seconds
_NEVER = float("inf")

logger = logging.getLogger("scanseal.worker")


class Worker:
    """Takes connections from the keyholder until it is told to stop.

    Args:
        control: The control channel.
        options: Limits.
        clock: The clocks.
    """

    def __init__(self, control: socket.socket, options: WorkerOptions, clock: Clock) -> None:
        self._control = control
        self._options = options
        self._clock = clock
        self._draining = threading.Event()
        self._exhausted = False
        self._drain_descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._deadlines: dict[threading.Thread, float] = {}  # of every thread; _NEVER while it waits for a request

    def run(self) -> int:
        """Serve until the keyholder asks to stop or is gone.

        Returns:
            The exit status.
        """
        self._control.settimeout(HEARTBEAT)
        while not (self._draining.is_set() and not self._deadlines):
            if self._overdue():
                logger.error("A request took far longer than it may; this worker gives up.")
                return 1
            try:
                self._control.send(EXHAUSTED if self._exhausted else ALIVE)
                data, ancillary, _, _ = self._control.recvmsg(
                    len(CONNECTION), socket.CMSG_SPACE(_DESCRIPTORS * 4), socket.MSG_CMSG_CLOEXEC
                )
            except TimeoutError:
                continue
            except OSError:
                return 0  # the keyholder is gone
            if data == CONNECTION and ancillary:
                connection, channel = array.array("i", ancillary[0][2])
                self._start(socket.socket(fileno=connection), socket.socket(fileno=channel))
            elif data == DRAIN:
                self._drain()
            elif not data:
                return 0
        return 0

    def _start(self, caller: socket.socket, channel: socket.socket) -> None:
        thread = threading.Thread(target=self._serve, args=(caller, channel), daemon=True)
        self._deadlines[thread] = _NEVER
        try:
            thread.start()
        except RuntimeError:  # no room for another thread; those that run are not to suffer
            logger.exception("A connection was closed.")
            self._exhausted = True
            del self._deadlines[thread]
            caller.close()
            channel.close()

    def _drain(self) -> None:
        self._draining.set()
        os.eventfd_write(self._drain_descriptor, 1)
        self._control.settimeout(_DRAINING_TICK)

    def _overdue(self) -> bool:
        now = self._clock.monotonic()
        return any(deadline < now for deadline in list(self._deadlines.values()))

    def _serve(self, caller: socket.socket, channel: socket.socket) -> None:
        try:
            with caller, channel, contextlib.suppress(ConnectionLost):
                connection = Connection(caller, self._options.times, self._drain_descriptor, self._clock)
                api = Api(SigningChannel(channel), self._options, self._clock)
                going_on = True
                while going_on:
                    try:
                        going_on = self._exchange(connection, api)
                    finally:
                        api.release()
        finally:
            del self._deadlines[threading.current_thread()]

    def _exchange(self, connection: Connection, api: Api) -> bool:
        """Answer one request; whether the connection goes on."""
        head = body = None
        try:
            head = connection.next_head()
            if head is None:
                return False
            body = connection.body(head)
            self._deadlines[threading.current_thread()] = self._latest_end(body)
            answer = api.answer(head, body)
        except ScansealError as error:
            answer = refusal(error)
        except ConnectionLost:
            raise
        except Exception as error:  # a defect, or no memory left: it ends this connection and no other
            if isinstance(error, MemoryError):
                self._exhausted = True
            logger.exception("A request was not answered because of a defect.")
            answer, body = refusal(_defect()), None
        # The rest of a body would be taken for the next request.
        unread = head is None or body is None or body.remaining > 0
        closes = unread or (head is not None and head.closes) or self._draining.is_set()
        connection.send(answer, close=closes)
        self._deadlines[threading.current_thread()] = _NEVER
        if unread:
            connection.linger()
        return not closes

    def _latest_end(self, body: Body) -> float:
        transfers = 2 * self._options.times.transfer(body.length)
        return self._clock.monotonic() + transfers + GRACE


def _defect() -> ScansealError:
    return ScansealError("The agent made a mistake.", remedy="See its log, and report it.", code="internal-error")


def load_tables() -> None:
    """Read the files that are read when they are first needed, as long as files can be read."""
    for name in ProfileName:
        for private_elements in (False, True):
            load_profile(name, private_elements=private_elements)
    dictionary_vr(SOP_INSTANCE_UID)


def limit_resources(options: WorkerOptions) -> None:
    """Bound what a request can cost the machine, whatever it does to this process."""
    descriptors = 4 * options.connections + 64
    resource.setrlimit(resource.RLIMIT_AS, (options.memory_bytes, options.memory_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))


def main(arguments: list[str]) -> int:
    """Run a worker.

    Args:
        arguments: Number of the control channel's descriptor, and the options.
    """
    descriptor, options_text = arguments
    options = WorkerOptions.decode(options_text)
    limit_resources(options)
    protect_memory()
    logging.basicConfig(format="%(name)s: %(levelname)s: %(message)s", level=logging.INFO)
    # Whoever stops the service stops the keyholder; a worker ends when it is told to, with its requests answered.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.stack_size(THREAD_STACK)
    load_tables()
    if not confine(options.spool_directory):
        logger.warning("This kernel has no Landlock: a worker that is broken into could read files of the service.")
    return Worker(socket.socket(fileno=int(descriptor)), options, SystemClock()).run()


if __name__ == "__main__":
    status = main(sys.argv[1:])
    # Threads that still serve a caller must not hold up the end.
    os._exit(status)
