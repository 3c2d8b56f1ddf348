"""CBOR is read strictly (RFC 8949 4.2.1), within limits, and every part keeps its bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from enroll.fdo import cbor
from enroll.fdo.fault import ErrorCode
from tests.support.fdo.vectors import Vector, vectors

# The examples of RFC 8949, appendix A, of what FDO uses.
EXAMPLES: list[tuple[str, cbor.Encodable]] = [
    ("00", 0),
    ("17", 23),
    ("1818", 24),
    ("18ff", 255),
    ("190100", 256),
    ("1903e8", 1000),
    ("1a000f4240", 1_000_000),
    ("1b000000e8d4a51000", 1_000_000_000_000),
    ("1bffffffffffffffff", 2**64 - 1),
    ("20", -1),
    ("3863", -100),
    ("3903e7", -1000),
    ("3bffffffffffffffff", -(2**64)),
    ("f4", False),
    ("f5", True),
    ("f6", None),
    ("40", b""),
    ("4401020304", b"\1\2\3\4"),
    ("60", ""),
    ("6449455446", "IETF"),
    ("62225c", '"\\'),
    ("62c3bc", "ü"),
    ("64f0908591", "\U00010151"),
    ("80", []),
    ("8301820203820405", [1, [2, 3], [4, 5]]),
    ("98190102030405060708090a0b0c0d0e0f101112131415161718181819", list(range(1, 26))),
    ("a0", {}),
    ("a201020304", {1: 2, 3: 4}),
    ("a26161016162820203", {"a": 1, "b": [2, 3]}),
    ("c11a514b67b0", cbor.Tagged(1, 1363896240)),
    ("d818456449455446", cbor.Tagged(24, b"dIETF")),
]


@pytest.mark.parametrize(("encoded", "value"), EXAMPLES)
def test_writes_the_examples_of_the_rfc(encoded: str, value: cbor.Encodable) -> None:
    assert cbor.encode(value).hex() == encoded


@pytest.mark.parametrize("encoded", [encoded for encoded, _ in EXAMPLES])
def test_reads_the_examples_of_the_rfc_and_keeps_their_bytes(encoded: str) -> None:
    assert cbor.read(bytes.fromhex(encoded)).raw.hex() == encoded


@pytest.mark.parametrize("vector", vectors(), ids=str)
def test_reads_every_recorded_message(vector: Vector) -> None:
    bodies = [body for _, body in vector.all_messages()] + [plain.content for plain in vector.plaintexts]
    assert all(cbor.read(body).raw == body for body in bodies)


@pytest.mark.parametrize(
    ("why", "encoded"),
    [
        ("a number in one byte too many", "1817"),
        ("a number in two bytes that needs one", "1900ff"),
        ("a number in four bytes that needs two", "1a0000ffff"),
        ("a number in eight bytes that needs four", "1b00000000ffffffff"),
        ("a negative number in one byte too many", "3800"),
        ("a length in one byte too many", "580100"),
        ("the length of a text", "78016a"),
        ("the length of an array", "980100"),
        ("the length of a map", "b8010000"),
        ("a tag in one byte too many", "d80100"),
        ("an array of unknown length", "9f00ff"),
        ("a map of unknown length", "bf0000ff"),
        ("a byte string of unknown length", "5f4100ff"),
        ("a text of unknown length", "7f6161ff"),
        ("a break alone", "ff"),
        ("a reserved length", "1c"),
        ("a reserved length", "1e"),
        ("half precision", "f93c00"),
        ("single precision", "fa47c35000"),
        ("double precision", "fb3ff199999999999a"),
        ("undefined", "f7"),
        ("a simple value", "e0"),
        ("a simple value in two bytes", "f8ff"),
        ("true in two bytes", "f815"),
        ("a key twice", "a201000100"),
        ("a key twice, not in a row", "a3010002000100"),
        ("a key twice, a text", "a2616100616100"),
        ("a key that is a byte string", "a1410000"),
        ("a key that is a boolean", "a1f500"),
        ("a key that is an array", "a18000"),
        ("a byte after the end", "0000"),
        ("an item after the end", "8000"),
        ("text that is not UTF-8", "61ff"),
        ("text with half a character", "61c3"),
        ("text with an overlong character", "62c080"),
        ("text with a surrogate", "63eda080"),
        ("nothing", ""),
        ("half a number", "19ff"),
        ("half a string", "4401"),
        ("half an array", "8201"),
        ("half a map", "a101"),
        ("a tag of nothing", "c1"),
        ("an array of 2^64-1 parts", "9bffffffffffffffff"),
        ("a map of 2^64-1 pairs", "bbffffffffffffffff"),
        ("a string of 2^64-1 bytes", "5bffffffffffffffff"),
        ("a string of 2^63 bytes", "7b8000000000000000"),
    ],
)
def test_refuses(why: str, encoded: str) -> None:
    """RFC 8949 4.2.1 (one encoding for each value), 5.2 and 5.3 (not well formed, not valid)."""
    with pytest.raises(cbor.Malformed) as refused:
        cbor.read(bytes.fromhex(encoded))
    assert refused.value.code is ErrorCode.MESSAGE_BODY


def test_keys_may_be_in_any_order() -> None:
    """RFC 8949 4.2.3: implementations sort them in two different ways."""
    assert list(cbor.read(bytes.fromhex("a320010a020303")).map()) == [-1, 10, 3]


def test_a_number_and_a_text_are_different_keys() -> None:
    assert list(cbor.read(bytes.fromhex("a20100613100")).map()) == [1, "1"]


def test_a_number_that_has_no_encoding_is_not_written() -> None:
    """RFC 8949 3.1: 64 bits and the sign."""
    for number in (2**64, -(2**64) - 1):
        with pytest.raises(OverflowError):
            cbor.encode(number)


@pytest.mark.parametrize("head", ["81", "a100", "c1"])
def test_reads_as_deep_as_the_limit_and_no_deeper(head: str) -> None:
    deepest = bytes.fromhex(head) * cbor.DEPTH_LIMIT + b"\0"
    assert cbor.read(deepest).raw == deepest
    with pytest.raises(cbor.Malformed, match="deep"):
        cbor.read(bytes.fromhex(head) + deepest)


def test_reads_as_many_parts_as_the_limit_and_no_more() -> None:
    assert len(cbor.read(cbor.encode([0] * (cbor.PARTS_LIMIT - 1))).array()) == cbor.PARTS_LIMIT - 1
    with pytest.raises(cbor.Malformed, match="parts"):
        cbor.read(cbor.encode([0] * cbor.PARTS_LIMIT))


def test_counts_the_parts_of_parts() -> None:
    row = [0] * 1000
    with pytest.raises(cbor.Malformed, match="parts"):
        cbor.read(cbor.encode([row] * 9))


def test_reads_as_many_bytes_as_the_limit_and_no_more() -> None:
    longest = cbor.encode(bytes(cbor.SIZE_LIMIT - 3))
    assert cbor.read(longest).bytes() == bytes(cbor.SIZE_LIMIT - 3)
    with pytest.raises(cbor.Malformed, match="at most 65536"):
        cbor.read(longest + b"\0")
    with pytest.raises(cbor.Malformed, match="at most 3"):
        cbor.read(b"\x43abc", at_most=3)


@pytest.mark.parametrize(
    ("encoded", "ask"),
    [
        ("20", lambda item: item.unsigned()),
        ("1818", lambda item: item.unsigned(23)),
        ("f5", lambda item: item.integer()),
        ("00", lambda item: item.boolean()),
        ("f6", lambda item: item.boolean()),
        ("60", lambda item: item.bytes()),
        ("4161", lambda item: item.bytes(at_least=2)),
        ("426161", lambda item: item.bytes(1)),
        ("40", lambda item: item.text()),
        ("62c3bc", lambda item: item.text(1)),
        ("a0", lambda item: item.array()),
        ("8100", lambda item: item.array(0, 2)),
        ("80", lambda item: item.map()),
        ("c100", lambda item: item.tagged(2)),
        ("00", lambda item: item.tagged(0)),
        ("420000", lambda item: item.embedded()),
        ("40", lambda item: item.embedded()),
        ("8100", lambda item: item.embedded()),
    ],
)
def test_a_part_is_what_it_has_to_be(encoded: str, ask: Callable[[cbor.Item], object]) -> None:
    with pytest.raises(cbor.Malformed):
        ask(cbor.read(bytes.fromhex(encoded)))


def test_every_part_keeps_its_bytes() -> None:
    """What FDO hashes is what was received: nothing is encoded again."""
    item = cbor.read(bytes.fromhex("8343010203a1206161d2811818"))
    first, second, third = item.array(3)
    assert [part.raw.hex() for part in (first, second, third)] == ["43010203", "a1206161", "d2811818"]
    assert second.map()[-1].raw.hex() == "6161"
    assert third.tagged(18).array(1)[0].raw.hex() == "1818"


def test_an_item_within_a_string_is_read_as_strictly() -> None:
    """RFC 8949 3.4.5.1."""
    assert cbor.read(b"\x42\x18\x18").embedded().unsigned() == 24
    with pytest.raises(cbor.Malformed):
        cbor.read(b"\x42\x18\x17").embedded()


def test_items_one_after_the_other_are_read_as_strictly() -> None:
    """RFC 8742."""
    assert [item.raw.hex() for item in cbor.read_sequence(bytes.fromhex("00f6820102"))] == ["00", "f6", "820102"]
    assert cbor.read_sequence(b"") == ()
    for encoded in ("001817", "00ff", "0082", "004101" + "61ff"):
        with pytest.raises(cbor.Malformed):
            cbor.read_sequence(bytes.fromhex(encoded))


def test_items_one_after_the_other_share_the_limits() -> None:
    assert len(cbor.read_sequence(bytes(cbor.PARTS_LIMIT))) == cbor.PARTS_LIMIT
    with pytest.raises(cbor.Malformed, match="parts"):
        cbor.read_sequence(bytes(cbor.PARTS_LIMIT + 1))
    with pytest.raises(cbor.Malformed, match="at most 2"):
        cbor.read_sequence(bytes(3), at_most=2)
