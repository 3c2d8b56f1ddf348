"""HTTP around the answer with the certificate, in every flow."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from enroll.errors import HOSPITAL_IT, ProtocolViolation, ServerUnreachable
from enroll.flows.settings import FlowName
from enroll.http import BODY_LIMIT
from tests.support.hostile_ca.misbehaviour import (
    NETWORK,
    Change,
    Conduct,
    Expected,
    Layer,
    Misbehaviour,
    Said,
    Step,
    Turn,
)

PAUSE = 0.2  # seconds; much less than the time for one exchange, which a byte now and then must not prolong
PIECES = 50  # of an endless answer
BLOCK = bytes(1 << 16)
MANY_BLOCKS = 1600  # 100 MiB
_BOMB = gzip.compress(bytes(BODY_LIMIT * 64), compresslevel=1)  # made before anybody waits for it

_VIOLATION = Expected(ProtocolViolation, "protocol-violation")
_UNREACHABLE = Expected(ServerUnreachable, "server-unreachable", HOSPITAL_IT)


def _case(
    title: str,
    clause: str,
    what: str,
    change: Change,
    expected: Expected = _VIOLATION,
    *,
    flows: tuple[FlowName, ...] = NETWORK,
) -> Misbehaviour:
    """One entry."""
    return Misbehaviour(title, clause, what, expected, Conduct({Step.ISSUING: change}), flows)


def _late(title: str, clause: str, what: str, change: Change, flows: tuple[FlowName, ...] = NETWORK) -> Misbehaviour:
    """One that takes all the time that there is for an exchange; the deadline is the same for every flow."""
    return _case(title, clause, what, change, _UNREACHABLE, flows=flows)


def head(said: Said, *headers: str) -> bytes:
    """The head of an answer with other headers for the body."""
    lines = (f"HTTP/1.1 {said.status}", f"Content-Type: {said.content_type}", *said.headers, *headers)
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _redirect(status: str, place: str) -> Change:
    return lambda turn: Said(status=status, headers=(f"Location: {place.replace('{here}', turn.url)}",))


def _with_header(*headers: str) -> Change:
    return lambda turn: replace(turn.said, headers=(*turn.said.headers, *headers))


def _raw(data: bytes) -> Change:
    return lambda _: data


def _slowly(pieces: Callable[[Turn], Iterator[bytes]]) -> Change:
    def change(turn: Turn) -> Iterator[bytes]:
        for piece in pieces(turn):
            yield piece
            time.sleep(PAUSE)

    return change


def _slow_body(turn: Turn) -> Iterator[bytes]:
    yield head(turn.said, f"Content-Length: {len(turn.said.body)}")
    yield from (bytes([byte]) for byte in turn.said.body[:PIECES])


def _slow_header(turn: Turn) -> Iterator[bytes]:
    yield head(turn.said)[:-2] + b"X-Later: "
    yield from [b"x"] * PIECES


def _slow_status(_: Turn) -> Iterator[bytes]:
    yield from (bytes([byte]) for byte in b"HTTP/1.1 200 " + b"O" * PIECES)


def _continue(_: Turn) -> Iterator[bytes]:
    yield from [b"HTTP/1.1 100 Continue\r\n\r\n"] * PIECES


def _slow_chunks(turn: Turn) -> Iterator[bytes]:
    yield head(turn.said, "Transfer-Encoding: chunked")
    yield from [b"1\r\nM\r\n"] * PIECES


def _slow_trailer(turn: Turn) -> Iterator[bytes]:
    body = turn.said.body
    yield head(turn.said, "Transfer-Encoding: chunked") + b"%x\r\n%b\r\n0\r\n" % (len(body), body)
    yield from [b"X: y\r\n"] * PIECES


def _silence(turn: Turn) -> Iterator[bytes]:
    yield turn.said.wire[:1]
    time.sleep(PAUSE * PIECES / 5)


def _hang_up(_: Turn) -> Iterator[bytes]:
    yield b""


def _hang_up_in_body(turn: Turn) -> Iterator[bytes]:
    yield turn.said.wire[:-10]
    yield b""


def _flood(turn: Turn) -> Iterator[bytes]:
    yield head(turn.said, "Connection: close")
    for _ in range(MANY_BLOCKS):
        yield BLOCK


def _flood_in_chunks(turn: Turn) -> Iterator[bytes]:
    yield head(turn.said, "Transfer-Encoding: chunked")
    for _ in range(MANY_BLOCKS):
        yield b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK)


def _flood_of_header(turn: Turn) -> Iterator[bytes]:
    yield head(turn.said)[:-2] + b"X-Long: "
    for _ in range(MANY_BLOCKS):
        yield b"x" * len(BLOCK)


def _flood_of_status(_: Turn) -> Iterator[bytes]:
    yield from [b"H" * len(BLOCK)] * MANY_BLOCKS


def _chunked(size: bytes) -> Change:
    def change(turn: Turn) -> bytes:
        return head(turn.said, "Transfer-Encoding: chunked") + size + b"\r\n" + turn.said.body + b"\r\n0\r\n\r\n"

    return change


def _compressed(turn: Turn) -> Said:
    return replace(turn.said, body=_BOMB, headers=(*turn.said.headers, "Content-Encoding: gzip"))


def _status(status: str, *, keep: bool = False) -> Change:
    return lambda turn: replace(turn.said, status=status) if keep else Said(status=status)


def _flood_of_announced(turn: Turn) -> Iterator[bytes]:
    yield head(turn.said, f"Content-Length: {len(BLOCK) * MANY_BLOCKS}")
    for _ in range(MANY_BLOCKS):
        yield BLOCK


def _flood_of_negative_chunk(turn: Turn) -> Iterator[bytes]:
    yield head(turn.said, "Transfer-Encoding: chunked") + b"-1\r\n"
    for _ in range(MANY_BLOCKS):
        yield BLOCK


def _flood_of_chunk_size(turn: Turn) -> Iterator[bytes]:
    yield head(turn.said, "Transfer-Encoding: chunked")
    for _ in range(MANY_BLOCKS):
        yield b"0" * len(BLOCK)


def _flood_of_trailers(turn: Turn) -> Iterator[bytes]:
    body = turn.said.body
    yield head(turn.said, "Transfer-Encoding: chunked") + b"%x\r\n%b\r\n0\r\n" % (len(body), body)
    for _ in range(MANY_BLOCKS):
        yield b"X: y\r\n" * (len(BLOCK) // 6)


_REDIRECTS = (
    _case(
        "redirect-to-another-host",
        "RFC 7030 3.2.1",
        "It sends the scanner to another host.",
        _redirect("302 Found", "https://evil.example/x"),
    ),
    _case(
        "redirect-to-plain-http",
        "RFC 9110 15.4",
        "It sends the scanner to an address without TLS.",
        _redirect("301 Moved Permanently", "http://127.0.0.1:1/x"),
    ),
    _case(
        "redirect-with-the-request",
        "RFC 9110 15.4.8",
        "It wants the request to be sent to another place as it is.",
        _redirect("307 Temporary Redirect", "{here}/.well-known/est/simpleenroll"),
    ),
    _case(
        "redirect-to-a-file",
        "RFC 9110 15.4.9",
        "It sends the scanner to a file of its own.",
        _redirect("308 Permanent Redirect", "file:///etc/passwd"),
    ),
    _case(
        "redirect-to-nowhere",
        "RFC 9110 15.4",
        "It redirects and does not say where to.",
        _redirect("303 See Other", ""),
    ),
    _case(
        "not-modified",
        "RFC 9110 15.4.5",
        "It says that nothing has changed since the last time.",
        _status("304 Not Modified"),
    ),
)
_SLOW = (
    _late("body-a-byte-now-and-then", "RFC 9110 6", "The body comes byte by byte, for ever.", _slowly(_slow_body)),
    _late(
        "header-a-byte-now-and-then",
        "RFC 9112 5",
        "A header comes byte by byte, for ever.",
        _slowly(_slow_header),
        (FlowName.EST,),
    ),
    _late(
        "status-a-byte-now-and-then",
        "RFC 9112 4",
        "The status line comes byte by byte, for ever.",
        _slowly(_slow_status),
        (FlowName.CMP,),
    ),
    _late(
        "chunk-now-and-then",
        "RFC 9112 7.1",
        "One chunk of one byte follows the other, for ever.",
        _slowly(_slow_chunks),
        (FlowName.ACME,),
    ),
    _late(
        "trailer-now-and-then",
        "RFC 9112 7.1.2",
        "The whole body is there, and trailers follow for ever.",
        _slowly(_slow_trailer),
        (FlowName.EST,),
    ),
    _late(
        "continue-for-ever",
        "RFC 9110 15.2.1",
        "It asks to go on, again and again.",
        _slowly(_continue),
        (FlowName.CMP,),
    ),
    _late("silence", "RFC 9110 3.4", "It begins to answer and falls silent.", _silence, (FlowName.EST,)),
    _case("hangs-up", "RFC 9112 9.6", "It closes the connection instead of answering.", _hang_up, _UNREACHABLE),
    _case(
        "hangs-up-in-the-body",
        "RFC 9112 8",
        "It closes the connection before the end of the body.",
        _hang_up_in_body,
        _UNREACHABLE,
    ),
)
_HUGE = (
    _case("body-of-100-mib", "RFC 9110 8.6", "It announces 100 MiB and sends them.", _flood_of_announced),
    _case("body-without-end", "RFC 9112 6.3", "It sends 100 MiB without saying how much will come.", _flood),
    _case("chunks-without-end", "RFC 9112 7.1", "It sends 100 MiB in chunks.", _flood_in_chunks),
    _case(
        "negative-chunk", "RFC 9112 7.1", "A chunk has a length of -1, and 100 MiB follow.", _flood_of_negative_chunk
    ),
    _case(
        "chunk-size-without-end", "RFC 9112 7.1", "The length of a chunk has 100 million digits.", _flood_of_chunk_size
    ),
    _case(
        "trailers-without-end",
        "RFC 9112 7.1.2",
        "100 MiB of trailers follow the body.",
        _flood_of_trailers,
    ),
    _case("header-without-end", "RFC 9110 5.4", "A header has 100 MiB.", _flood_of_header),
    _case("status-without-end", "RFC 9112 4", "The status line has 100 MiB.", _flood_of_status),
    _case("two-hundred-headers", "RFC 9110 5.4", "It sends 200 headers.", _with_header(*["X: y"] * 200)),
    _case("headers-of-60-kib", "RFC 9110 5.4", "It sends 60 KiB of headers.", _with_header(*["X: " + "y" * 1000] * 60)),
    _case(
        "gzip-bomb", "RFC 9110 12.5.3", "It compresses 64 MiB to few bytes, though nobody asked for it.", _compressed
    ),
)
_WRONG = (
    _case("no-http", "RFC 9112 4", "Another service answers.", _raw(b"SSH-2.0-OpenSSH_9.2p1\r\n")),
    _case("http-0.9", "RFC 9112 2.3", "It sends the body without any head.", lambda turn: turn.said.body),
    _case("status-that-is-none", "RFC 9112 4", "The status is no number.", _raw(b"HTTP/1.1 OK fine\r\n\r\n")),
    _case(
        "chunk-size-that-is-none", "RFC 9112 7.1", "The length of a chunk is no number.", _chunked(b"xyz"), _UNREACHABLE
    ),
    _case(
        "chunk-size-of-2-to-the-64",
        "RFC 9112 7.1",
        "A chunk is longer than any memory, and ends at once.",
        _chunked(b"f" * 16),
        _UNREACHABLE,
    ),
    _late(
        "length-that-is-none",
        "RFC 9110 8.6",
        "The length of the body is no number.",
        lambda turn: head(turn.said, "Content-Length: -5"),
        (FlowName.EST,),
    ),
    _case(
        "two-lengths",
        "RFC 9112 6.3",
        "It announces two lengths of the body.",
        lambda turn: head(turn.said, "Content-Length: 10", f"Content-Length: {len(turn.said.body)}") + turn.said.body,
    ),
    _case("empty-answer", "RFC 9110 6.4", "The body is empty.", lambda turn: replace(turn.said, body=b"")),
    _case("no-content", "RFC 9110 15.3.5", "It says that there is no content.", _status("204 No Content")),
    _case(
        "web-page",
        "RFC 7030 4.2.3",
        "A gateway shows a page for people to log in at.",
        lambda _: Said(b"<html>Welcome!</html>", content_type="text/html"),
    ),
    _case(
        "garbage",
        "RFC 7030 4.2.3",
        "The body is garbage.",
        lambda turn: replace(turn.said, body=bytes(range(256)) * 16),
    ),
    _case(
        "content-type-missing",
        "RFC 9110 8.3",
        "It does not say what it sends.",
        lambda turn: replace(turn.said, content_type=""),
    ),
    _case("another-protocol", "RFC 9110 15.2.2", "It changes to another protocol.", _status("101 Switching Protocols")),
)
_SAID_NO = (
    _case("cannot-answer", "RFC 9110 15.6.4", "It is out of order.", _status("503 Service Unavailable"), _UNREACHABLE),
    _case(
        "gateway-cannot-reach-it",
        "RFC 9110 15.6.5",
        "A gateway does not reach it in time.",
        _status("504 Gateway Timeout"),
        _UNREACHABLE,
    ),
)
LAYER = Layer("HTTP around the answer with the certificate", (*_REDIRECTS, *_SLOW, *_HUGE, *_WRONG, *_SAID_NO))
