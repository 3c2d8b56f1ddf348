"""What a server, or a gateway before it, may do with HTTP: FDO 1.1, 4.3."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from enroll.fdo.messages import MESSAGE_LIMIT
from tests.support.fdo import reference_codec as codec
from tests.support.fdo.hostile_case import (
    ONBOARDS,
    SAID_NO,
    UNREACHABLE,
    Arrange,
    Case,
    Chapter,
    Ending,
    no_message,
)
from tests.support.fdo.hostile_changes import nested, noise
from tests.support.fdo.hostile_stage import Wire, head, plain
from tests.support.fdo.scripted_owner import HttpAnswer

_TRANSPORT: Final = "FDO 1.1, 4.3"
_PAUSE: Final = 0.2  # seconds; much less than the time for one exchange, which a byte now and then must not prolong
_PIECES: Final = 30  # of an endless answer
_BLOCK: Final = bytes(1 << 16)
_MANY: Final = 400  # blocks: 25 MiB


def _on_wire(number: int, wire: Wire) -> Arrange:
    return lambda stage: stage.wire.__setitem__(number, wire)


def _case(name: str, clause: str, what: str, wire: Wire, ending: Ending | None = None) -> Case:
    number = int(name.partition("-")[0])
    return Case(name, number, clause, what, _on_wire(number, wire), ending or no_message(number - 1))


def _late(name: str, clause: str, what: str, pieces: Callable[[HttpAnswer], Iterator[bytes]]) -> Case:
    """One that takes all the time that there is for an exchange."""

    def slowly(answer: HttpAnswer) -> Iterator[bytes]:
        for piece in pieces(answer):
            yield piece
            time.sleep(_PAUSE)

    return _case(name, clause, what, slowly, UNREACHABLE)


def _flood(name: str, clause: str, what: str, before: Callable[[HttpAnswer], bytes], block: bytes) -> Case:
    def endlessly(answer: HttpAnswer) -> Iterator[bytes]:
        yield before(answer)
        for _ in range(_MANY):
            yield block
        yield b""

    return _case(name, clause, what, endlessly)


def _status(status: int, *headers: str) -> Wire:
    return lambda answer: head(replace(answer, status=status), *headers, "Content-Length: 0")


def _said(answer: HttpAnswer, *headers: str) -> bytes:
    return head(answer, *headers, f"Content-Length: {len(answer.body)}") + answer.body


def _with_header(*headers: str) -> Wire:
    return lambda answer: _said(answer, *headers)


def _without_header(name: str, *headers: str) -> Wire:
    def wire(answer: HttpAnswer) -> bytes:
        kept = [line for line in head(answer).split(b"\r\n")[:-2] if not line.startswith(name.encode() + b":")]
        added = [*headers, f"Content-Length: {len(answer.body)}", "", ""]
        return b"\r\n".join([*kept, *(line.encode("latin-1") for line in added)]) + answer.body

    return wire


def _type(value: str) -> Wire:
    return _without_header("Message-Type", f"Message-Type: {value}")


def _error(body: bytes, status: int = 200) -> Wire:
    return lambda _: plain(HttpAnswer(255, body, status, {}))


def _token(name: str, value: str | None, what: str, ending: Ending | None = None) -> Case:
    headers = () if value is None else (f"Authorization: {value}",)
    return _case(name, _TRANSPORT, what, _without_header("Authorization", *headers), ending)


def _chunked(answer: HttpAnswer, size: bytes = b"") -> bytes:
    return head(answer, "Transfer-Encoding: chunked") + size


def _all_chunks(answer: HttpAnswer) -> bytes:
    return _chunked(answer) + b"%x\r\n%b\r\n0\r\n" % (len(answer.body), answer.body)


def _slow_body(answer: HttpAnswer) -> Iterator[bytes]:
    yield head(answer, f"Content-Length: {len(answer.body)}")
    yield from (bytes([byte]) for byte in answer.body[:_PIECES])


def _slow_header(answer: HttpAnswer) -> Iterator[bytes]:
    yield head(answer)[:-2] + b"X-Later: "
    yield from [b"x"] * _PIECES


def _slow_status(_: HttpAnswer) -> Iterator[bytes]:
    yield from (bytes([byte]) for byte in b"HTTP/1.1 200 " + b"O" * _PIECES)


def _slow_chunks(answer: HttpAnswer) -> Iterator[bytes]:
    yield _chunked(answer)
    yield from [b"1\r\nM\r\n"] * _PIECES


def _slow_trailers(answer: HttpAnswer) -> Iterator[bytes]:
    yield _all_chunks(answer)
    yield from [b"X: y\r\n"] * _PIECES


def _continues(_: HttpAnswer) -> Iterator[bytes]:
    yield from [b"HTTP/1.1 100 Continue\r\n\r\n"] * _PIECES


def _silent(answer: HttpAnswer) -> Iterator[bytes]:
    yield plain(answer)[:1]
    time.sleep(_PAUSE * _PIECES / 4)


def _hangs_up_in_body(answer: HttpAnswer) -> Iterator[bytes]:
    yield plain(answer)[:-10]
    yield b""


def _two_answers(answer: HttpAnswer) -> bytes:
    """With an answer behind it to a message that has not been sent yet."""
    forged = HttpAnswer(answer.number + 2, b"\xf6", headers=answer.headers)
    return plain(answer) + plain(forged)


_BOMB = gzip.compress(bytes(MESSAGE_LIMIT * 512))
_LONG = MESSAGE_LIMIT + 1

_REDIRECTS = tuple(
    _case(f"{number}-redirect-{status}", "RFC 9110 15.4", what, _status(status, f"Location: {place}"))
    for status, number, what, place in (
        (301, 31, "It sends the scanner to another host.", "http://127.0.0.1:1/fdo/101/msg/30"),
        (302, 33, "It sends the scanner to https.", "https://127.0.0.1:1/fdo/101/msg/32"),
        (303, 61, "It redirects to nowhere.", ""),
        (307, 61, "It wants the message to be sent to another place as it is.", "/fdo/101/msg/60"),
        (308, 65, "It sends the scanner to a file of its own.", "file:///etc/passwd"),
        (304, 71, "It says that nothing has changed.", ""),
    )
)
_SLOW = (
    _late("31-status-now-and-then", "RFC 9112 4", "The status line comes byte by byte, for ever.", _slow_status),
    _late("33-header-now-and-then", "RFC 9112 5", "A header comes byte by byte, for ever.", _slow_header),
    _late("61-body-now-and-then", "RFC 9110 6", "The body comes byte by byte, for ever.", _slow_body),
    _late("65-chunk-now-and-then", "RFC 9112 7.1", "One chunk of one byte follows the other.", _slow_chunks),
    _late("69-trailer-now-and-then", "RFC 9112 7.1.2", "The body is there, trailers follow for ever.", _slow_trailers),
    _late("63-continue-for-ever", "RFC 9110 15.2.1", "It asks to go on, again and again.", _continues),
    _late("67-silent", _TRANSPORT, "It says one byte and no more.", _silent),
    _late("71-silent-at-the-end", _TRANSPORT, "It says one byte and no more.", _silent),
)
_HUGE = (
    _flood(
        "33-body-without-end",
        "RFC 9112 6.3",
        "A body without a length has 25 MiB.",
        lambda answer: head(answer, "Connection: close"),
        _BLOCK,
    ),
    _flood(
        "61-announced",
        "RFC 9110 8.6",
        "It announces 25 MiB, and sends them.",
        lambda answer: head(answer, f"Content-Length: {_MANY << 16}"),
        _BLOCK,
    ),
    _flood(
        "65-chunks-without-end",
        "RFC 9112 7.1",
        "25 MiB come in chunks.",
        _chunked,
        b"%x\r\n%b\r\n" % (len(_BLOCK), _BLOCK),
    ),
    _flood(
        "67-negative-chunk",
        "RFC 9112 7.1",
        "A chunk has a length of -1, and 25 MiB follow.",
        lambda answer: _chunked(answer, b"-1\r\n"),
        _BLOCK,
    ),
    _flood(
        "69-chunk-size-without-end",
        "RFC 9112 7.1",
        "The length of a chunk has 25 million digits.",
        _chunked,
        b"0" * len(_BLOCK),
    ),
    _flood(
        "71-trailers-without-end",
        "RFC 9112 7.1.2",
        "25 MiB of trailers follow the body.",
        _all_chunks,
        b"X: y\r\n" * 10_000,
    ),
    _flood(
        "31-header-without-end",
        "RFC 9110 5.4",
        "A header has 25 MiB.",
        lambda answer: head(answer)[:-2] + b"X-Long: ",
        b"x" * len(_BLOCK),
    ),
    _flood(
        "63-status-without-end",
        "RFC 9112 4",
        "The status line has 25 MiB.",
        lambda _: b"HTTP/1.1 ",
        b"2" * len(_BLOCK),
    ),
    _case(
        "61-a-byte-too-much",
        _TRANSPORT,
        "The message has 65,536 bytes.",
        lambda answer: plain(replace(answer, body=codec.write(noise(_LONG - 3)))),
    ),
    _case("33-two-hundred-headers", "RFC 9110 5.4", "It sends 200 headers.", _with_header(*["X: y"] * 200)),
    _case(
        "65-headers-of-60-kib", "RFC 9110 5.4", "It sends 60 KiB of headers.", _with_header(*["X: " + "y" * 1000] * 60)
    ),
    _case(
        "69-gzip-bomb",
        "RFC 9110 12.5.3",
        "It compresses 32 MiB, though nobody asked for it.",
        lambda answer: _said(replace(answer, body=_BOMB), "Content-Encoding: gzip"),
    ),
)
_WRONG = (
    _case("31-no-http", "RFC 9112 4", "Another service answers.", lambda _: b"SSH-2.0-OpenSSH_9.2p1\r\n"),
    _case("33-http-0.9", "RFC 9112 2.3", "It sends the body without any head.", lambda _: noise(100) + b"\r\n"),
    _case("61-status-that-is-none", "RFC 9112 4", "The status is no number.", lambda _: b"HTTP/1.1 OK fine\r\n\r\n"),
    _case(
        "63-two-lengths",
        "RFC 9112 6.3",
        "It announces two lengths of the body.",
        lambda answer: head(answer, "Content-Length: 10", f"Content-Length: {len(answer.body)}") + answer.body,
    ),
    _case("65-no-content", "RFC 9110 15.3.5", "It says that there is no content.", _status(204)),
    _case("67-another-protocol", "RFC 9110 15.2.2", "It changes to another protocol.", _status(101)),
    _case(
        "31-web-page",
        _TRANSPORT,
        "A gateway shows a page for people to log in at.",
        lambda _: b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nHello",
    ),
    _case("61-content-type-missing", _TRANSPORT, "It does not say what it sends.", _without_header("Content-Type")),
    _case(
        "61-status-401",
        "RFC 9110 15.5.2",
        "The right answer comes with the status 401.",
        lambda answer: _said(replace(answer, status=401), "WWW-Authenticate: Basic"),
    ),
    _case(
        "69-status-500",
        "RFC 9110 15.6.1",
        "The right answer comes with the status 500.",
        lambda answer: plain(replace(answer, status=500)),
    ),
    _case(
        "63-hangs-up-in-body",
        "RFC 9112 8",
        "It closes the connection within the body.",
        _hangs_up_in_body,
        UNREACHABLE,
    ),
    _case("31-hangs-up-at-once", "RFC 9112 9.6", "It closes the connection.", lambda _: iter([b""]), UNREACHABLE),
    _case(
        "61-answers-beforehand",
        "RFC 9112 9.3.2",
        "It sends an answer to the next message as well.",
        _two_answers,
        ONBOARDS,
    ),
    _case(
        "61-cookie",
        "RFC 6265 5.3",
        "It sets a cookie, which is never sent back.",
        _with_header("Set-Cookie: a=b; Path=/"),
        ONBOARDS,
    ),
)
_NUMBERS = tuple(
    _case(f"{number}-message-type-{name}", _TRANSPORT, what, wire)
    for name, number, what, wire in (
        ("missing", 31, "It does not say which message it sends.", _without_header("Message-Type")),
        ("of-the-request", 33, "It says that it sends message 32.", _type("32")),
        ("of-a-later-one", 61, "It says that it sends message 65.", _type("65")),
        ("twice", 63, "It says which message it sends, and another one.", _with_header("Message-Type: 65")),
        ("in-hexadecimal", 65, "It says that it sends message 0x41.", _type("0x41")),
        ("with-a-sign", 67, "It says that it sends message +67.", _type("+67")),
        ("with-zeros", 69, "It says that it sends message 0069.", _type("0069")),
        ("empty", 71, "It says that it sends no message.", _type("")),
    )
)
_ERRORS = tuple(
    _case(f"{number}-error-{name}", "FDO 1.1, 5.1", what, _error(body), SAID_NO)
    for name, number, what, body in (
        ("empty", 31, "Message 255 has no body.", b""),
        ("map", 33, "Message 255 is a map.", codec.write({"error": 500})),
        ("garbage", 61, "Message 255 is no CBOR.", noise(100)),
        ("bomb", 63, "Message 255 is an array in an array, and so on 60,000 times.", nested(b"\x81", 60_000)),
        ("of-60-kib", 65, "Message 255 has a text of 60 KiB.", codec.write([500, 64, "x" * 60_000, 0, 0])),
        (
            "for-a-terminal",
            67,
            "The text of message 255 holds orders for a terminal.",
            codec.write([500, 66, "\x1b[2J\x1b]0;owned\x07\r\n2026 INFO all is well", 0, 0]),
        ),
        ("of-no-number", 69, "The code of message 255 is -1.", codec.write([-1, 68, "no", 0, 0])),
        ("without-time", 71, "Message 255 has three parts.", codec.write([500, 70, "no"])),
    )
)
_TOKENS = (
    _token("31-token-of-another-kind", "Basic c2Nhbm5lcg==", "The token is one for a password."),
    _token("61-token-of-nothing", "Bearer", "The token has no value."),
    _token("61-token-of-two-words", "Bearer a b", "The token has two words."),
    _token("61-token-of-8-kb", "Bearer " + "x" * 8000, "The token has 8,000 characters."),
    _token("61-token-beyond-ascii", "Bearer t\xe4st", "The token is not ASCII."),
    _token("65-token-of-garbage-later", "garbage", "The token becomes garbage."),
    _token("65-another-token", "Bearer owner-2", "The token becomes another one, which counts from then on.", ONBOARDS),
    _token("65-no-token-later", None, "The token is not said again, so the one before counts.", ONBOARDS),
)
CHAPTER = Chapter("HTTP", (*_REDIRECTS, *_SLOW, *_HUGE, *_WRONG, *_NUMBERS, *_ERRORS, *_TOKENS))
