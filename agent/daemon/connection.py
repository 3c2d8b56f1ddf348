"""One caller's connection: HTTP/1.1 on a blocking Unix socket, with an end to every wait.

A blocked system call returns once a second (SO_RCVTIMEO, SO_SNDTIMEO) and the deadline of the whole head, body or
answer is looked at, so a caller that sends a byte now and then gains nothing. This is cheaper than a time-out in
Python, which would add a poll to each transfer.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from agent.daemon.head import HEAD_LIMIT, Head, parse_head
from agent.errors import RequestRefused
from enroll.clock import Clock

_TICK = struct.pack("ll", 1, 0)  # struct timeval: one second
_END_OF_HEAD = b"\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

Bytes = bytes | memoryview


class ConnectionLost(Exception):
    """The caller is gone or does not read: there is nobody to answer."""


@dataclass(frozen=True)
class TimeLimits:
    """How long a connection may take, in seconds.

    Args:
        head: From the first byte of a request to the end of its head.
        body: For any body, on top of what its size needs at `bytes_per_second`; the same for an answer.
        bytes_per_second: Slowest transfer that is waited for.
        idle: Between two requests.
    """

    head: int
    body: int
    bytes_per_second: int
    idle: int

    def transfer(self, size: int) -> float:
        """The longest time for `size` bytes."""
        return self.body + size / self.bytes_per_second


@dataclass(frozen=True)
class Answer:
    """What goes back.

    Args:
        status: HTTP status.
        media_type: Of the body.
        parts: The body; parts that are made one by one are sent one by one.
        length: Bytes in `parts`.
        fields: Further header lines.
    """

    status: int
    media_type: str
    parts: Iterable[Bytes]
    length: int
    fields: Sequence[tuple[str, str]] = ()

    @classmethod
    def of(cls, status: int, media_type: str, body: bytes, fields: Sequence[tuple[str, str]] = ()) -> Answer:
        """An answer that is ready."""
        return cls(status, media_type, [body], len(body), fields)

    def head(self, *, close: bool) -> bytes:
        """Status line and header."""
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            f"Content-Type: {self.media_type}",
            f"Content-Length: {self.length}",
            *(f"{name}: {value}" for name, value in self.fields),
        ]
        if close:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Connection:
    """The connection.

    Args:
        channel: The connected socket.
        limits: How long things may take.
        stopping: A descriptor that becomes readable when no further request is to be awaited.
        clock: For the deadlines.
    """

    def __init__(self, channel: socket.socket, limits: TimeLimits, stopping: int, clock: Clock) -> None:
        channel.settimeout(None)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TICK)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TICK)
        self.channel = channel
        self.limits = limits
        self.monotonic = clock.monotonic
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)
        self._poll.register(stopping, select.POLLIN)
        self._buffer = bytearray(HEAD_LIMIT)
        self._view = memoryview(self._buffer)
        self._start = 0  # what has arrived and was not used lies between start and end
        self._end = 0

    def next_head(self) -> Head | None:
        """Wait for the next request.

        Returns:
            Its head; nothing when no further request comes.

        Raises:
            RequestRefused: What came is not a request within the limits.
            ConnectionLost: The caller left in the middle of a head.
        """
        if not self._await_request():
            return None
        self._view[: self._end - self._start] = self._view[self._start : self._end]
        self._start, self._end = 0, self._end - self._start
        deadline = self.monotonic() + self.limits.head
        searched = 0
        while (stop := self._buffer.find(_END_OF_HEAD, searched, self._end)) < 0:
            if self._end == HEAD_LIMIT:
                raise RequestRefused(
                    f"The head has more than {HEAD_LIMIT} bytes.", remedy="Send fewer headers.", code="head-too-large"
                )
            searched = max(0, self._end - len(_END_OF_HEAD) + 1)
            received = self.receive_into(self._view[self._end :], deadline)
            if not received:
                raise ConnectionLost
            self._end += received
        self._start = stop + len(_END_OF_HEAD)
        return parse_head(bytes(self._view[:stop]))

    def body(self, head: Head) -> Body:
        """The body that belongs to `head`.

        Raises:
            RequestRefused: Its length is not announced as it must be.
        """
        expected = self._send_continue if head.expects_continue else None
        return Body(self, head.content_length or 0, expected)

    def take_buffered(self, target: memoryview) -> int:
        """Move what came together with the head into `target`; 0 when nothing is left."""
        count = min(self._end - self._start, len(target))
        target[:count] = self._view[self._start : self._start + count]
        self._start += count
        return count

    def receive_into(self, target: memoryview, deadline: float) -> int:
        """Receive some bytes; 0 at the end of the stream.

        Raises:
            RequestRefused: The deadline has passed.
            ConnectionLost: The connection is broken.
        """
        while True:
            try:
                count = self.channel.recv_into(target)
            except BlockingIOError:
                count = -1
            except OSError as error:
                raise ConnectionLost from error
            if self.monotonic() > deadline:
                raise RequestRefused(
                    "The request did not arrive in time.", remedy="Send it without pauses.", code="request-timeout"
                )
            if count >= 0:
                return count

    def send(self, answer: Answer, *, close: bool) -> None:
        """Send an answer.

        Raises:
            ConnectionLost: The caller is gone or does not read.
        """
        deadline = self.monotonic() + self.limits.transfer(answer.length)
        head = answer.head(close=close)
        if isinstance(answer.parts, list):
            self._send_all([head, *answer.parts], deadline)
            return
        self._send_all([head], deadline)
        for part in answer.parts:
            self._send_all([part], deadline)

    def _send_continue(self) -> None:
        """Tell a caller who waits for it that the body is welcome (RFC 9110 10.1.1)."""
        self._send_all([_CONTINUE], self.monotonic() + self.limits.head)

    def linger(self) -> None:
        """Let a caller who is still sending read the answer before the connection closes (RFC 9112 9.6)."""
        scratch = memoryview(bytearray(1 << 16))
        deadline = self.monotonic() + self.limits.head
        with contextlib.suppress(OSError, ConnectionLost, RequestRefused):
            self.channel.shutdown(socket.SHUT_WR)
            while self.receive_into(scratch, deadline):
                pass

    def _await_request(self) -> bool:
        if self._start < self._end:
            return True
        ready = {descriptor for descriptor, _ in self._poll.poll(self.limits.idle * 1000)}
        if self.channel.fileno() not in ready:
            return False
        self._start = 0
        try:
            self._end = self.channel.recv_into(self._view)
        except OSError:  # it left with a reset
            self._end = 0
        return self._end > 0

    def _send_all(self, parts: Sequence[Bytes], deadline: float) -> None:
        views = [memoryview(part) for part in parts if len(part)]
        while views:
            try:
                sent = self.channel.sendmsg(views)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise ConnectionLost from error
            while views and sent >= len(views[0]):
                sent -= len(views.pop(0))
            if views:
                if self.monotonic() > deadline:
                    raise ConnectionLost
                views[0] = views[0][sent:]


class Body:
    """The body of a request, read once.

    Args:
        connection: Where it comes from.
        length: Its announced length.
        expected: Called once before the first byte is awaited.
    """

    def __init__(self, connection: Connection, length: int, expected: Callable[[], None] | None) -> None:
        self.length = length
        self.remaining = length
        self._connection = connection
        self._expected = expected
        self._deadline = 0.0

    def read_into(self, target: memoryview) -> int:
        """Put some bytes into `target`.

        Returns:
            Their number; 0 at the end of the body.

        Raises:
            RequestRefused: It came too slowly, or ended too early.
            ConnectionLost: The connection is broken.
        """
        if not self.remaining:
            return 0
        target = target[: self.remaining]
        count = self._connection.take_buffered(target)
        if not count:
            if not self._deadline:
                self._begin()
            count = self._connection.receive_into(target, self._deadline)
            if not count:
                raise RequestRefused(
                    f"The body ended {self.remaining} bytes before its announced length.",
                    remedy="Send as many bytes as Content-Length says.",
                    code="body-truncated",
                )
        self.remaining -= count
        return count

    def read(self) -> bytes:
        """The whole body; the caller has made sure that it is small."""
        data = memoryview(bytearray(self.length))
        position = 0
        while count := self.read_into(data[position:]):
            position += count
        return bytes(data)

    def _begin(self) -> None:
        self._deadline = self._connection.monotonic() + self._connection.limits.transfer(self.length)
        if self._expected is not None:
            self._expected()
