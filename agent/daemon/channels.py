"""The keyholder's ends of the signing channels, and the threads that serve them.

Each channel is armed for one frame at a time (EPOLLONESHOT), so the thread that got the frame has the channel for
itself until it arms it again: nothing here needs a lock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass

from agent.audit import AuditTrail
from agent.daemon.peer import Caller
from agent.daemon.wire import REPLY_LIMIT, REQUEST_SIZE, Role, WireError
from enroll.errors import ScansealError

_ARMED = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT

logger = logging.getLogger("scanseal.keyholder")

Reply = Callable[[bytes, Caller, frozenset[Role]], bytes]


@dataclass(frozen=True)
class Channel:
    """One connection as the keyholder knows it.

    Args:
        end: The keyholder's end.
        caller: Who connected.
        roles: What the caller may use.
        worker: Process number of the worker that serves the connection.
        connection: The connection itself, to see whether the caller is still there.
    """

    end: socket.socket
    connection: socket.socket
    caller: Caller
    roles: frozenset[Role]
    worker: int

    def is_abandoned(self) -> bool:
        """Whether the caller has gone: then nobody may sign in its name any more."""
        poll = select.poll()
        poll.register(self.connection, 0)  # POLLHUP and POLLERR are always reported
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close both sockets."""
        self.end.close()
        self.connection.close()


class SigningChannels:
    """All channels.

    Args:
        reply: Answers a frame.
        audit: Hears of frames that no honest worker sends.
        threads: Signatures at the same time.
    """

    def __init__(self, reply: Reply, audit: AuditTrail, threads: int) -> None:
        self._reply = reply
        self._audit = audit
        self._epoll = select.epoll()
        self._channels: dict[int, Channel] = {}
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._epoll.register(self._stop, select.EPOLLIN)
        self._threads = [threading.Thread(target=self._run, name=f"signing-{n}") for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def open(self, connection: socket.socket, caller: Caller, roles: frozenset[Role], worker: int) -> socket.socket:
        """Make a channel that is bound to a caller and ends with the caller's connection.

        Returns:
            The worker's end.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(0)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, REPLY_LIMIT)
        self._channels[ours.fileno()] = Channel(ours, connection.dup(), caller, roles, worker)
        self._epoll.register(ours, _ARMED)
        return theirs

    def keep_only_of(self, workers: Collection[int]) -> None:
        """Make the channels of all other workers useless, wherever their other ends may be by now."""
        for channel in self.open_channels():
            if channel.worker not in workers:
                # The thread that serves it sees the end, and closes it.
                channel.end.shutdown(socket.SHUT_RDWR)

    def open_channels(self) -> list[Channel]:
        """The channels that are open now."""
        return list(self._channels.values())

    def close(self) -> None:
        """Close all channels and end the threads."""
        os.eventfd_write(self._stop, 1)
        for thread in self._threads:
            thread.join()
        for channel in self.open_channels():
            channel.close()
        self._epoll.close()
        os.close(self._stop)

    def _run(self) -> None:
        while True:
            for descriptor, _ in self._epoll.poll(maxevents=1):
                if descriptor == self._stop:
                    return
                self._serve(descriptor)

    def _serve(self, descriptor: int) -> None:
        channel = self._channels[descriptor]
        try:
            # One byte more than a request has, so that a longer frame is seen to be longer.
            frame = channel.end.recv(REQUEST_SIZE + 1)
            if frame and not channel.is_abandoned():
                channel.end.send(self._reply(frame, channel.caller, channel.roles))
                self._epoll.modify(descriptor, _ARMED)
                return
        except OSError:
            logger.debug("A worker closed a channel or does not read its replies.")
        except WireError as error:
            self._report(channel, error)
        except Exception:  # the top of a thread: a defect closes this channel and no other
            logger.exception("A signing channel was closed because of a defect.")
        del self._channels[descriptor]
        channel.close()

    def _report(self, channel: Channel, error: WireError) -> None:
        logger.error("Worker %d sent what no worker sends: %s.", channel.worker, error)
        fields: dict[str, str | int] = {"uid": channel.caller.uid, "worker": channel.worker, "detail": str(error)}
        # Where it cannot be recorded, nothing is signed either.
        with contextlib.suppress(ScansealError):
            self._audit.record("channel-violation", fields, durable=True)
