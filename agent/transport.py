"""HTTP/1.1 on a Unix socket, as little of it as a client of the agent needs.

The standard library's client would import its mail parser and copy each body once more.
"""

from __future__ import annotations

import os
import re
import select
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from agent.errors import AgentAnswerInvalid, AgentError, AgentUnreachable

HEAD_LIMIT = 16 * 1024  # bytes
PIECE = 1 << 20  # bytes that are received at a time
SENT_AT_ONCE = 16 << 20  # bytes of a file that are sent between two signs of progress
SEND_BUFFER = 1 << 20  # bytes, as far as the system allows it: sender and hash work at the same time

_STATUS_LINE = re.compile(r"HTTP/1\.1 ([2-5][0-9]{2}) [ -~]*")
_LENGTH = re.compile(r"[0-9]{1,18}")

Source = bytes | memoryview | BinaryIO


@dataclass(frozen=True)
class AnswerHead:
    """What an answer says before its body.

    Args:
        status: HTTP status.
        fields: By name in small letters.
        length: Bytes of the body.
    """

    status: int
    fields: Mapping[str, str]
    length: int


class Transport:
    """A connection to the agent; made when it is needed, and made anew when it was closed between two requests.

    Args:
        path: The socket.
        timeout: Longest wait for progress, in seconds.
        on_sent: Hears how many bytes of a file have been sent.
    """

    def __init__(self, path: Path, timeout: int, on_sent: Callable[[int], None]) -> None:
        self._on_sent = on_sent
        self._path = path
        self._timeout = timeout
        self._connection: socket.socket | None = None
        self._under_way = False  # an answer that was not read to its end would be taken for the next one
        self._rest = b""  # what came together with the head of an answer

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def call(self, method: str, target: str, body: Source, accept: str) -> AnswerHead:
        """Send a request and receive the head of its answer.

        Raises:
            AgentUnreachable: There is no answer.
            AgentAnswerInvalid: What came is not HTTP.
        """
        size = size_of(body)
        request = (
            f"{method} {target} HTTP/1.1\r\nHost: scanseal\r\nScanseal-Version: 1\r\n"
            f"Accept: {accept}\r\nContent-Length: {size}\r\n\r\n"
        ).encode("ascii")
        if self._under_way:
            self.close()
        self._under_way = True
        try:
            if self._connection is not None and _is_closed(self._connection):
                # The agent closes a connection that was idle for long. Nothing is ever sent twice.
                self.close()
            head = self._exchange(request, body, size)
        except OSError as error:
            raise self._unreachable(error) from error
        if head is None:
            raise AgentUnreachable("The agent closed the connection.", remedy="See its log; try again.")
        return head

    def _exchange(self, request: bytes, body: Source, size: int) -> AnswerHead | None:
        connection = self._connection or self._connect()
        try:
            if isinstance(body, bytes | memoryview):
                _send(connection, [request, body])
            else:
                _send(connection, [request])
                _send_file(connection, body, size, self._on_sent)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the agent may have answered before the end of the body
        return self._read_head(connection)

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Time-outs of the kernel: one of Python's would add a poll to each transfer.
        limit = struct.pack("ll", self._timeout, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        try:
            connection.connect(os.fspath(self._path))
        except OSError:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _read_head(self, connection: socket.socket) -> AnswerHead | None:
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            if len(received) > HEAD_LIMIT:
                raise invalid("too long a head")
            try:
                piece = connection.recv(HEAD_LIMIT)
            except ConnectionResetError:
                piece = b""
            if not piece:
                return None
            received += piece
        self._rest = received[end + 4 :]
        return _parse_head(received[:end])

    def pieces(self, head: AnswerHead) -> Iterator[bytes | memoryview]:
        """The body of an answer, as it arrives.

        Raises:
            AgentUnreachable: It does not go on.
            AgentAnswerInvalid: It is not as long as announced.
        """
        connection = self._connection
        remaining = head.length - len(self._rest)
        if remaining < 0 or connection is None:
            raise invalid("more than it announced")
        yield self._rest
        buffer = memoryview(bytearray(min(PIECE, remaining)))
        while remaining:
            try:
                count = connection.recv_into(buffer[: min(PIECE, remaining)])
            except OSError as error:
                raise self._unreachable(error) from error
            if not count:
                raise invalid("cut off")
            yield buffer[:count]
            remaining -= count
        self._under_way = "close" in head.fields.get("connection", "")

    def _unreachable(self, error: OSError) -> AgentUnreachable:
        if isinstance(error, BlockingIOError):
            return AgentUnreachable(
                f"The agent did not go on for {self._timeout} seconds.", remedy="See its log, or allow more time."
            )
        if isinstance(error, PermissionError):
            return AgentUnreachable(
                f"You may not connect to {self._path}.",
                remedy="Ask the operator to add you to the group of the socket.",
            )
        return AgentUnreachable(
            f"There is no agent at {self._path}: {error.strerror}.", remedy="Start it: systemctl start scanseal"
        )


def size_of(source: Source) -> int:
    """Bytes of an instance."""
    return len(source) if isinstance(source, bytes | memoryview) else os.fstat(source.fileno()).st_size


def invalid(what: str) -> AgentAnswerInvalid:
    """The answer is not the protocol."""
    return AgentAnswerInvalid(
        f"The agent's answer is {what}.", remedy="Check that agent and client are of the same release."
    )


def _send(connection: socket.socket, parts: Sequence[bytes | memoryview]) -> None:
    views = [memoryview(part) for part in parts if len(part)]
    while views:
        sent = connection.sendmsg(views)
        while views and sent >= len(views[0]):
            sent -= len(views.pop(0))
        if views:
            views[0] = views[0][sent:]


def _is_closed(connection: socket.socket) -> bool:
    """Whether the other side has closed; an answer cannot be there, because none is waited for."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def _send_file(connection: socket.socket, file: BinaryIO, size: int, on_sent: Callable[[int], None]) -> None:
    sent = 0
    while sent < size:
        count = os.sendfile(connection.fileno(), file.fileno(), sent, min(size - sent, SENT_AT_ONCE))
        if not count:
            raise AgentError("The instance became shorter while it was sent.", remedy="Sign it again.")
        sent += count
        on_sent(count)


def _parse_head(data: bytes) -> AnswerHead:
    first, *lines = data.decode("latin-1").split("\r\n")
    status_line = _STATUS_LINE.fullmatch(first)
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = fields.get("content-length", "")
    if status_line is None or not _LENGTH.fullmatch(length):
        raise invalid("not HTTP/1.1 with a length")
    return AnswerHead(int(status_line[1]), fields, int(length))
