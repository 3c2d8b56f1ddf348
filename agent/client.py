"""A client of the signing socket (`docs/socket-protocol.md`).

    with SigningClient(Path("/run/scanseal/sign.sock")) as agent, source.open("rb") as image:
        splice = agent.splice_instance(image, role="acquisition", profile="creator-rsa")
        with target.open("wb") as signed:
            apply_splice(image, splice.edits, signed)

One client is one connection, which stays open; use one in each thread. What the agent answers is bounded, and checked
before it is used.
"""

from __future__ import annotations

import binascii
import json
import os
import re
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from agent.dicom.splice import Edit, spliced
from agent.errors import AgentAnswerInvalid, AgentError, AgentRefused, AgentUnreachable

HEAD_LIMIT = 16 * 1024  # bytes
JSON_LIMIT = 256 << 20  # bytes; only the splice of a deflated instance has more than a few thousand
PIECE = 1 << 20  # bytes that are copied at a time

DICOM = "application/dicom"
SPLICE = "application/vnd.scanseal.splice+json"

_STATUS_LINE = re.compile(r"HTTP/1\.1 ([2-5][0-9]{2}) [ -~]*")
_LENGTH = re.compile(r"[0-9]{1,18}")

Source = bytes | memoryview | BinaryIO


@dataclass(frozen=True)
class DigestSignature:
    """The answer to `sign_digest`.

    Args:
        signature: RSASSA-PKCS1-v1_5.
        certificate: DER of the certificate that verifies it.
        key_generation: Number of the generation of the signing identity.
    """

    signature: bytes
    certificate: bytes = field(repr=False)
    key_generation: int


@dataclass(frozen=True)
class InstanceSplice:
    """The answer to `splice_instance`: what to insert.

    Args:
        edits: In order of their offsets.
        signature_uid: Digital Signature UID (0400,0100).
        sop_instance_uid: Of the instance.
        key_generation: Number of the generation of the signing identity.
    """

    edits: tuple[Edit, ...] = field(repr=False)
    signature_uid: str
    sop_instance_uid: str
    key_generation: int


@dataclass(frozen=True)
class _Head:
    status: int
    fields: Mapping[str, str]
    length: int


class SigningClient:
    """A connection to the agent; made at the first call.

    Args:
        path: The socket.
        timeout: Longest wait for progress, in seconds.
    """

    def __init__(self, path: Path, timeout: int = 30) -> None:
        self._path = path
        self._timeout = timeout
        self._connection: socket.socket | None = None
        self._under_way = False  # an answer that was not read to its end would be taken for the next one
        self._rest = b""  # what came together with the head of an answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def status(self) -> dict[str, Any]:
        """The state of the agent.

        Raises:
            AgentError: No answer, or a refusal.
        """
        return self._json(self._call("GET", "/v1/status"))

    def certificates(self, identity: str = "signing") -> bytes:
        """The certificates of an identity in PEM, its own first.

        Raises:
            AgentError: No answer, or a refusal.
        """
        return self._body(self._call("GET", f"/v1/certificates?identity={identity}"))

    def sign_digest(self, digest: bytes, *, algorithm: str, role: str) -> DigestSignature:
        """Have a digest signed.

        Args:
            digest: The digest.
            algorithm: What made it: "sha256", "sha384" or "sha512".
            role: What it is signed as.

        Raises:
            AgentError: No answer, or a refusal.
        """
        encoded = binascii.b2a_base64(digest, newline=False).decode("ascii")
        body = json.dumps({"role": role, "algorithm": algorithm, "digest": encoded}).encode("ascii")
        answer = self._json(self._call("POST", "/v1/sign/digest", body))
        try:
            return DigestSignature(
                signature=_binary(answer["signature"]),
                certificate=_binary(answer["certificate"]),
                key_generation=_number(answer["key_generation"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _invalid("not the signature of a digest") from error

    def splice_instance(self, source: Source, *, role: str, profile: str, algorithm: str = "sha256") -> InstanceSplice:
        """Have an instance signed, and get back only what has to be inserted into it.

        Args:
            source: The instance: a DICOM file, open or in memory.
            role: What it is signed as.
            profile: Which elements are covered.
            algorithm: "sha256", "sha384" or "sha512".

        Raises:
            AgentError: No answer, or a refusal.
        """
        answer = self._json(self._call("POST", _sign_instance(role, profile, algorithm), source, SPLICE))
        try:
            edits = tuple(
                Edit(_number(edit["offset"]), _number(edit["remove"]), _binary(edit["insert"]))
                for edit in answer["edits"]
            )
            return InstanceSplice(
                edits=edits,
                signature_uid=_text(answer["signature_uid"]),
                sop_instance_uid=_text(answer["sop_instance_uid"]),
                key_generation=_number(answer["key_generation"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _invalid("not a splice") from error

    def sign_instance(
        self, source: Source, destination: BinaryIO, *, role: str, profile: str, algorithm: str = "sha256"
    ) -> None:
        """Have an instance signed, and write the signed instance as it comes back.

        Args:
            source: The instance: a DICOM file, open or in memory.
            destination: Gets the signed instance. On an error it may have got a part of it.
            role: What it is signed as.
            profile: Which elements are covered.
            algorithm: "sha256", "sha384" or "sha512".

        Raises:
            AgentError: No answer, or a refusal.
        """
        head = self._call("POST", _sign_instance(role, profile, algorithm), source, DICOM)
        destination.writelines(self._pieces(head))

    def _call(self, method: str, target: str, body: Source = b"", accept: str = "*/*") -> _Head:
        """Send a request; the head of the answer if it is a success.

        Raises:
            AgentError: No answer, or a refusal.
        """
        size = _size(body)
        request = (
            f"{method} {target} HTTP/1.1\r\nHost: scanseal\r\nScanseal-Version: 1\r\n"
            f"Accept: {accept}\r\nContent-Length: {size}\r\n\r\n"
        ).encode("ascii")
        if self._under_way:
            self.close()
        reused, self._under_way = self._connection is not None, True
        try:
            head = self._exchange(request, body, size)
            if head is None and reused:
                # The agent closes a connection that was idle for long; a new one tells that from a dead agent.
                self.close()
                head = self._exchange(request, body, size)
        except OSError as error:
            raise self._unreachable(error) from error
        if head is None:
            raise AgentUnreachable("The agent closed the connection.", remedy="See its log; try again.")
        if head.status != 200:  # noqa: PLR2004 - OK; no other success is in the protocol
            raise self._refused(head)
        return head

    def _exchange(self, request: bytes, body: Source, size: int) -> _Head | None:
        connection = self._connection or self._connect()
        try:
            if isinstance(body, bytes | memoryview):
                _send(connection, [request, body])
            else:
                _send(connection, [request])
                _send_file(connection, body, size)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the agent may have answered before the end of the body
        return self._read_head(connection)

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Time-outs of the kernel: one of Python's would add a poll to each transfer.
        limit = struct.pack("ll", self._timeout, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        try:
            connection.connect(os.fspath(self._path))
        except OSError:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _read_head(self, connection: socket.socket) -> _Head | None:
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            if len(received) > HEAD_LIMIT:
                raise _invalid("too long a head")
            try:
                piece = connection.recv(HEAD_LIMIT)
            except ConnectionResetError:
                piece = b""
            if not piece:
                return None
            received += piece
        self._rest = received[end + 4 :]
        return _parse_head(received[:end])

    def _pieces(self, head: _Head) -> Iterator[bytes | memoryview]:
        """The body of an answer, as it arrives."""
        connection = self._connection
        remaining = head.length - len(self._rest)
        if remaining < 0 or connection is None:
            raise _invalid("more than it announced")
        yield self._rest
        buffer = memoryview(bytearray(min(PIECE, remaining)))
        while remaining:
            try:
                count = connection.recv_into(buffer[: min(PIECE, remaining)])
            except OSError as error:
                raise self._unreachable(error) from error
            if not count:
                raise _invalid("cut off")
            yield buffer[:count]
            remaining -= count
        self._under_way = "close" in head.fields.get("connection", "")

    def _body(self, head: _Head) -> bytes:
        if head.length > JSON_LIMIT:
            raise _invalid("too long")
        return b"".join([bytes(piece) for piece in self._pieces(head)])

    def _json(self, head: _Head) -> dict[str, Any]:
        try:
            answer = json.loads(self._body(head))
        except (ValueError, RecursionError) as error:
            raise _invalid("not JSON") from error
        if not isinstance(answer, dict):
            raise _invalid("not a JSON object")
        return answer

    def _refused(self, head: _Head) -> AgentError:
        problem = self._json(head)
        try:
            return AgentRefused(
                _text(problem["detail"]),
                remedy=_text(problem["remedy"]),
                code=_text(problem["code"]),
                status=head.status,
            )
        except (KeyError, TypeError) as error:
            raise _invalid("a refusal that is not a problem document") from error

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


def apply_splice(source: Source, edits: Sequence[Edit], destination: BinaryIO) -> None:
    """Write the signed instance.

    Args:
        source: The instance that was sent.
        edits: What the agent answered.
        destination: Gets the signed instance.

    Raises:
        AgentAnswerInvalid: The edits do not fit the instance; nothing is written.
    """
    size = _size(source)
    end = 0
    for edit in edits:
        if edit.offset < end or edit.remove < 0 or edit.offset + edit.remove > size:
            raise _invalid("a splice that does not fit the instance")
        end = edit.offset + edit.remove
    for part in spliced(size, edits):
        if isinstance(part, bytes):
            destination.write(part)
        elif isinstance(source, bytes | memoryview):
            destination.write(memoryview(source)[part[0] : part[1]])
        else:
            _copy(source, *part, destination)


def _copy(source: BinaryIO, start: int, stop: int, destination: BinaryIO) -> None:
    source.seek(start)
    while start < stop:
        piece = source.read(min(PIECE, stop - start))
        if not piece:
            raise AgentError("The instance became shorter while it was signed.", remedy="Sign it again.")
        destination.write(piece)
        start += len(piece)


def _send(connection: socket.socket, parts: Sequence[bytes | memoryview]) -> None:
    views = [memoryview(part) for part in parts if len(part)]
    while views:
        sent = connection.sendmsg(views)
        while views and sent >= len(views[0]):
            sent -= len(views.pop(0))
        if views:
            views[0] = views[0][sent:]


def _send_file(connection: socket.socket, file: BinaryIO, size: int) -> None:
    sent = 0
    while sent < size:
        count = os.sendfile(connection.fileno(), file.fileno(), sent, size - sent)
        if not count:
            raise AgentError("The instance became shorter while it was sent.", remedy="Sign it again.")
        sent += count


def _size(source: Source) -> int:
    return len(source) if isinstance(source, bytes | memoryview) else os.fstat(source.fileno()).st_size


def _sign_instance(role: str, profile: str, algorithm: str) -> str:
    return f"/v1/sign/instance?role={role}&profile={profile}&algorithm={algorithm}"


def _parse_head(data: bytes) -> _Head:
    first, *lines = data.decode("latin-1").split("\r\n")
    status_line = _STATUS_LINE.fullmatch(first)
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = fields.get("content-length", "")
    if status_line is None or not _LENGTH.fullmatch(length):
        raise _invalid("not HTTP/1.1 with a length")
    return _Head(int(status_line[1]), fields, int(length))


def _binary(value: Any) -> bytes:
    return binascii.a2b_base64(value, strict_mode=True)


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _invalid(what: str) -> AgentAnswerInvalid:
    return AgentAnswerInvalid(
        f"The agent's answer is {what}.", remedy="Check that agent and client are of the same release."
    )
