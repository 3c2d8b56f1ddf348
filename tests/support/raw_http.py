"""HTTP as bytes, so that a test decides about every one of them; shares no code with the product's client."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

VERSION = {"Scanseal-Version": "1"}


@dataclass(frozen=True)
class Reply:
    """An answer."""

    status: int
    fields: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    @property
    def problem(self) -> tuple[int, str]:
        """Status and code of a problem document, which has all its members."""
        assert self.fields["content-type"] == "application/problem+json"
        document = self.json
        assert set(document) == {"type", "title", "status", "detail", "code", "remedy"}
        assert document["status"] == self.status
        assert document["type"] == f"urn:scanseal:problem:{document['code']}"
        assert document["detail"]
        assert document["remedy"]
        return self.status, document["code"]


def request(
    method: str,
    target: str,
    body: bytes | None = None,
    headers: Mapping[str, str] = VERSION,
    *,
    length: int | None = None,
) -> bytes:
    """A request; `length` announces another length than the body has."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if body is not None or length is not None:
        lines.append(f"Content-Length: {len(body or b'') if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def sign_instance(
    body: bytes, accept: str = "application/dicom", query: str = "", *, length: int | None = None
) -> bytes:
    """The request to sign an instance."""
    target = f"/v1/sign/instance?role=acquisition&profile=creator-rsa{query}"
    return request("POST", target, body, {**VERSION, "Accept": accept}, length=length)


class Caller:
    """Reads answers from a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._received = b""

    def ask(self, data: bytes) -> Reply:
        """Send bytes and read one answer."""
        self.connection.sendall(data)
        return self.reply()

    def reply(self) -> Reply:
        """Read one answer."""
        while b"\r\n\r\n" not in self._received:
            assert self._more(), f"closed after {self._received!r}"
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(fields.get("content-length", 0))
        while len(self._received) < length:
            assert self._more(), "closed in the middle of a body"
        body, self._received = self._received[:length], self._received[length:]
        protocol, status, _ = status_line.split(" ", 2)
        assert protocol == "HTTP/1.1"
        return Reply(int(status), fields, body)

    def is_closed(self) -> bool:
        """Whether the agent closes the connection and sends nothing more."""
        return not self._received and not self._more()

    def _more(self) -> bool:
        try:
            piece = self.connection.recv(1 << 20)
        except ConnectionResetError:
            return False
        self._received += piece
        return bool(piece)
