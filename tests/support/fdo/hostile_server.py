"""The servers of a `Stage` behind one port of HTTP, byte for byte."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from typing import Self

from tests.support.fdo.hostile_stage import HOST, Stage

_PATH = re.compile(r"/fdo/101/msg/(\d+)")
_HANDSHAKE = b"\x16"  # RFC 8446 5.1: somebody speaks TLS
_GONE = b"HTTP/1.1 404 -\r\nContent-Length: 0\r\n\r\n"
_HEARD = b"HTTP/1.1 200 -\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True)
class Heard:
    """A message of the device."""

    number: int
    token: str
    body: bytes


class HostileServer:
    """Gives each message to its `stage`; runs in a `with` block."""

    def __init__(self) -> None:
        self.stage: Stage | None = None
        self.heard: list[Heard] = []
        self.failures: list[Exception] = []
        self._listener = socket.create_server((HOST, 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=10)

    def play(self, stage: Stage) -> None:
        """From now on."""
        self.stage = stage
        self.heard.clear()
        self.failures.clear()

    @property
    def errors(self) -> list[Heard]:
        """The messages 255 that came."""
        return [heard for heard in self.heard if heard.number == 255]

    @property
    def numbers(self) -> list[int]:
        """Of all messages that came."""
        return [heard.number for heard in self.heard]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as reader:
            while pieces := self._answer(reader):
                for piece in pieces:
                    if not piece:  # hangs up
                        return
                    connection.sendall(piece)

    def _answer(self, reader: BufferedReader) -> Iterator[bytes] | None:
        if reader.peek(1)[:1] in (b"", _HANDSHAKE):
            return None
        line = reader.readline().decode("latin-1").split()
        headers = {}
        while field := reader.readline().decode("latin-1").strip():
            name, _, value = field.partition(":")
            headers[name.lower()] = value.strip()
        body = reader.read(int(headers.get("content-length", "0")))
        path = _PATH.fullmatch(line[1])
        if path is None or line[0] != "POST" or headers.get("content-type") != "application/cbor":
            self.failures.append(AssertionError(f"no message of FDO 1.1: {line}"))
            return iter([_GONE])
        return self._said(int(path[1]), headers.get("authorization", ""), body)

    def _said(self, number: int, token: str, body: bytes) -> Iterator[bytes]:
        self.heard.append(Heard(number, token, body))
        if number == 255:
            return iter([_HEARD])
        assert self.stage is not None
        try:
            answer = self.stage.answer(number, body)
        except Exception as error:  # noqa: BLE001 - whatever the servers object to, the test says it
            self.failures.append(error)
            return iter([b""])
        return iter([answer]) if isinstance(answer, bytes) else answer
