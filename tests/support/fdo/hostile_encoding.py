"""CBOR that FDO does not allow, in every message (RFC 8949 4.2.1), and CBOR that is meant to hurt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.support.fdo import reference_codec as codec
from tests.support.fdo.hostile_case import MALFORMED, Case, Chapter, refused
from tests.support.fdo.hostile_changes import (
    headers,
    longer_head,
    message,
    nested,
    one_part_more,
    part,
    payload,
    within,
    without_length,
)

MESSAGES: Final = (31, 33, 61, 63, 65, 67, 69, 71)
_SIZE = 60_000  # bytes: as much as fits into a message
_FORMS: tuple[tuple[str, str, str, Callable[[bytes], bytes]], ...] = (
    ("trailing-byte", "RFC 8949 5.3.1", "There is a byte behind its end.", lambda data: data + b"\0"),
    ("second-item", "RFC 8949 5.3.1", "It comes twice.", lambda data: data * 2),
    ("longer-number", "RFC 8949 4.2.1", "Its first number is longer than it needs to be.", longer_head),
    ("no-length", "RFC 8949 4.2.1", "Its array is of indefinite length.", without_length),
    ("cut-off", "RFC 8949 5.3.1", "Its last byte is missing.", lambda data: data[:-1]),
    ("empty", "RFC 8949 5.3.1", "It has no bytes.", lambda _: b""),
    ("null", "FDO 1.1, 5", "It is null.", lambda _: b"\xf6"),
    ("part-more", "FDO 1.1, 5", "Its array has a part more.", one_part_more),
)
_BOMBS: tuple[tuple[str, str, Callable[[bytes], bytes]], ...] = (
    ("nested-arrays", "It is an array in an array, and so on 60,000 times.", lambda _: nested(b"\x81", _SIZE)),
    ("nested-tags", "It is a tag in a tag, and so on 60,000 times.", lambda _: nested(b"\xc1", _SIZE)),
    ("nested-maps", "It is a map in a map, and so on 30,000 times.", lambda _: nested(b"\xa1\x01", _SIZE // 2)),
    ("array-of-2-to-the-64", "It is an array that announces 2^64 - 1 parts.", lambda _: b"\x9b" + b"\xff" * 8),
    ("map-of-2-to-the-64", "It is a map that announces 2^64 - 1 keys.", lambda _: b"\xbb" + b"\xff" * 8),
    ("string-of-2-to-the-63", "It is a string that announces 2^63 bytes.", lambda _: b"\x5b\x80" + bytes(7)),
    ("sixty-thousand-parts", "It is an array of 60,000 numbers.", lambda _: b"\x99\xea\x60" + bytes(_SIZE)),
)


def _name(number: int, name: str) -> str:
    return f"{number}-{name}"


def _with_a_key_twice(data: bytes) -> bytes:
    protected, unprotected, payload_, signature = codec.read(data).value
    pair = codec.write(256) + codec.write(unprotected[256])
    twice = b"\xa3" + pair * 2 + codec.write(257) + codec.write(unprotected[257])
    return b"\xd2\x84" + codec.write(protected) + twice + codec.write(payload_) + codec.write(signature)


_STRICT = tuple(
    Case(_name(number, name), number, clause, what, message(number, change), refused(number, MALFORMED))
    for number in MESSAGES
    for name, clause, what, change in _FORMS
)
_HURTING = tuple(
    Case(_name(number, name), number, "RFC 8949 10", what, message(number, change), refused(number, MALFORMED))
    for number in MESSAGES
    for name, what, change in _BOMBS
)
_KEYS = (
    Case(
        "61-key-twice-unprotected",
        61,
        "RFC 8949 5.6",
        "Its unprotected header has the nonce twice.",
        message(61, _with_a_key_twice),
        refused(61, MALFORMED),
    ),
    Case(
        "61-key-twice-protected",
        61,
        "RFC 8949 5.6",
        "Its protected header names the algorithm twice.",
        message(61, within(0, b"\xa2\x01\x26\x01\x26")),
        refused(61, MALFORMED),
    ),
    Case(
        "61-key-that-is-none",
        61,
        "RFC 9052 1.4",
        "Its unprotected header has an array for a key.",
        headers(61, lambda all_: {**all_, (1, 2): 3}),
        refused(61, MALFORMED),
    ),
    Case(
        "61-floating-point",
        61,
        "FDO 1.1, 3.1",
        "The number of entries is 1.0.",
        payload(61, part(1, 1.0)),
        refused(61, MALFORMED),
    ),
    Case(
        "61-boolean-for-a-number",
        61,
        "FDO 1.1, 3.1",
        "The number of entries is true.",
        payload(61, part(1, value=True)),
        refused(61, MALFORMED),
    ),
    Case(
        "61-text-that-is-not-utf-8",
        61,
        "RFC 8949 5.3.1",
        "The model in its OVHeader is not UTF-8.",
        payload(61, part(0, lambda header: header.replace(b"Example CT", b"Example \xff\xfe"))),
        refused(61, MALFORMED),
    ),
    Case(
        "61-bomb-in-the-payload",
        61,
        "RFC 8949 10",
        "What is signed is an array in an array, and so on 30,000 times.",
        payload(61, lambda _: nested(b"\x81", _SIZE // 2)),
        refused(61, MALFORMED),
    ),
    Case(
        "61-bomb-in-the-header",
        61,
        "RFC 8949 10",
        "The OVHeader is an array in an array, and so on 30,000 times.",
        payload(61, part(0, nested(b"\x81", _SIZE // 2))),
        refused(61, MALFORMED),
    ),
    Case(
        "61-bomb-in-the-protected-header",
        61,
        "RFC 8949 10",
        "The protected header is a map in a map, and so on 10,000 times.",
        message(61, within(0, nested(b"\xa1\x01", _SIZE // 6))),
        refused(61, MALFORMED),
    ),
    Case(
        "65-bomb-in-rendezvous-info",
        65,
        "RFC 8949 10",
        "RVInfo has directives of 20,000 variables.",
        payload(65, part(0, [[[5, b""]] * 20_000])),
        refused(65, MALFORMED),
    ),
)


CHAPTER = Chapter("CBOR", (*_STRICT, *_HURTING, *_KEYS))
