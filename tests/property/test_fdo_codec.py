"""The CBOR of FDO next to another implementation of it: `cbor2` writes the same bytes, and reads the same of them.

`cbor2` reads much more than FDO allows (RFC 8949 4.2.1). What both read has to be the same, and what we read has to be
just what is encoded again, by `cbor2`, to the bytes that it was read from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cbor2
from hypothesis import given
from hypothesis import strategies as st

from enroll.fdo import cbor
from tests.support.fdo import reference_codec
from tests.support.fdo.vectors import vectors

NUMBERS = st.integers(-(2**64), 2**64 - 1)
# The numbers around which the length of an encoding changes.
EDGES = st.builds(lambda power, near: (1 << power) + near, st.sampled_from([0, 4, 8, 16, 32, 63]), st.integers(-9, 9))
KEYS = st.one_of(NUMBERS, st.text(max_size=8))
SCALARS = st.one_of(NUMBERS, EDGES, st.binary(max_size=300), st.text(max_size=80), st.booleans(), st.none())
# Of these tags `cbor2` writes their values, not what it makes of them.
TAGS = st.one_of(st.integers(0, 30), st.integers(0, 2**64 - 1))
VALUES = st.recursive(
    SCALARS,
    lambda values: st.one_of(
        st.lists(values, max_size=30),
        st.dictionaries(KEYS, values, max_size=8),
        st.builds(cbor2.CBORTag, TAGS, values),
    ),
    max_leaves=40,
)
MESSAGES = sorted({body for vector in vectors() for _, body in vector.all_messages()}) + sorted(
    {plain.content for vector in vectors() for plain in vector.plaintexts}
)


def encodable(value: Any) -> cbor.Encodable:
    """The same value in the words of our writer."""
    match value:
        case cbor2.CBORTag():
            return cbor.Tagged(value.tag, encodable(value.value))
        case dict():
            return {key: encodable(part) for key, part in value.items()}
        case list():
            return [encodable(part) for part in value]
        case _:
            scalar: cbor.Encodable = value
            return scalar


def in_canonical_order(value: Any) -> Any:
    """Maps sorted as in RFC 7049 3.9, by bytes of another writer."""
    match value:
        case cbor2.CBORTag():
            return cbor2.CBORTag(value.tag, in_canonical_order(value.value))
        case dict():
            keys = sorted(value, key=lambda key: (len(cbor2.dumps(key)), cbor2.dumps(key)))
            return {key: in_canonical_order(value[key]) for key in keys}
        case list():
            return [in_canonical_order(part) for part in value]
        case _:
            return value


def plain(item: cbor.Item) -> Any:
    """What an item says, by its accessors."""
    read_as: dict[cbor.Major, Callable[[], Any]] = {
        cbor.Major.UNSIGNED: item.integer,
        cbor.Major.NEGATIVE: item.integer,
        cbor.Major.BYTES: item.bytes,
        cbor.Major.TEXT: item.text,
        cbor.Major.ARRAY: lambda: [plain(part) for part in item.array()],
        cbor.Major.MAP: lambda: {key: plain(part) for key, part in item.map().items()},
        cbor.Major.TAG: lambda: cbor2.CBORTag(item.argument, plain(item.tagged(item.argument))),
        cbor.Major.SIMPLE: lambda: None if item.is_null else item.boolean(),
    }
    return read_as[item.major]()


def read(data: bytes) -> tuple[Any] | None:
    try:
        return (plain(cbor.read(data)),)
    except cbor.Malformed:
        return None


def check_that_both_read_the_same(data: bytes) -> None:
    other = reference_codec.deterministic_value(data, cbor.DEPTH_LIMIT, cbor.PARTS_LIMIT)
    ours = read(data)
    assert ours == other
    if ours is not None:
        assert cbor.encode(encodable(ours[0])) == data


@st.composite
def damaged_messages(draw: st.DrawFn) -> bytes:
    """A recorded message with a few pieces replaced, which may be shorter or longer."""
    damage = bytearray(draw(st.sampled_from(MESSAGES)))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(damage)))
        damage[start : start + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(damage)


@given(VALUES)
def test_both_write_the_same(value: Any) -> None:
    assert cbor.encode(encodable(value)) == reference_codec.write(value)


@given(VALUES)
def test_both_write_the_same_in_canonical_order(value: Any) -> None:
    assert cbor.encode(encodable(in_canonical_order(value))) == reference_codec.write_canonical(value)


@given(VALUES)
def test_what_is_written_is_read_again(value: Any) -> None:
    check_that_both_read_the_same(reference_codec.write(value))


@given(st.binary(max_size=40))
def test_both_read_the_same_of_random_bytes(data: bytes) -> None:
    check_that_both_read_the_same(data)


@given(damaged_messages())
def test_both_read_the_same_of_damaged_messages(data: bytes) -> None:
    check_that_both_read_the_same(data)


@given(VALUES, st.integers(0, 400), st.binary(min_size=1, max_size=9))
def test_both_read_the_same_of_damaged_values(value: Any, at: int, piece: bytes) -> None:
    data = reference_codec.write(value)
    check_that_both_read_the_same(data[: at % len(data)] + piece + data[at % len(data) :])
    check_that_both_read_the_same(data[: at % len(data)] + piece + data[at % len(data) + len(piece) :])


@given(st.lists(VALUES, max_size=5))
def test_items_one_after_the_other_are_read_as_each_alone(values: list[Any]) -> None:
    """RFC 8742."""
    encoded = [reference_codec.write(value) for value in values]
    alone = [read(data) for data in encoded]
    if all(alone):
        assert [(plain(item),) for item in cbor.read_sequence(b"".join(encoded))] == alone


@given(VALUES)
def test_the_parts_are_slices_of_the_whole(value: Any) -> None:
    """FDO hashes what was received: the bytes of an item are its head and the bytes of its parts."""
    data = reference_codec.write(value)
    if read(data) is None:
        return
    waiting = [cbor.read(data)]
    while waiting:
        item = waiting.pop()
        inside = b"".join(part.raw for part in item.parts) or item.content
        assert item.raw.endswith(inside)
        assert cbor.read(item.raw) == item
        waiting.extend(item.parts)
