"""Strict CBOR (RFC 8949 4.2.1, core deterministic encoding but for the order of keys), as far as FDO uses it.

    item = read(data)
    number, name = item.array(2)
    number.unsigned(255), name.text(64), name.raw

Nothing is turned into a value before somebody says what it has to be, and every part keeps the bytes it was read from.
Refused: lengths that are not known beforehand, numbers longer than they need to be, keys that stand there twice or are
neither number nor text, bytes after the end, floating point, simple values other than false, true and null, text that
is not UTF-8; what is too deep, too long, or of too many parts.

The order of keys is not checked: implementations sort them in two different ways (RFC 8949 4.2.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from enroll.fdo.fault import ErrorCode, Fault

SIZE_LIMIT = 64 * 1024  # bytes
DEPTH_LIMIT = 16
PARTS_LIMIT = 8 * 1024  # items in all

_SHORT, _ONE_BYTE, _EIGHT_BYTES = 24, 24, 27
_FALSE, _TRUE, _NULL = 20, 21, 22
_LARGEST = 2**64 - 1


class Major(IntEnum):
    """The major types: RFC 8949 3.1."""

    UNSIGNED = 0
    NEGATIVE = 1
    BYTES = 2
    TEXT = 3
    ARRAY = 4
    MAP = 5
    TAG = 6
    SIMPLE = 7


class Malformed(Fault):
    """This is not the CBOR that was expected."""

    def __init__(self, what: str) -> None:
        super().__init__(what, ErrorCode.MESSAGE_BODY)


@dataclass(frozen=True)
class Tagged:
    """What is to be encoded with a tag."""

    number: int
    value: Encodable


@dataclass(frozen=True)
class Raw:
    """What is encoded already, and goes in as it is."""

    encoded: bytes


Encodable: TypeAlias = (
    "int | bytes | str | bool | Sequence[Encodable] | Mapping[int, Encodable] | Mapping[str, Encodable] | Tagged | Raw "
    "| None"
)


@dataclass(frozen=True)
class Item:
    """One part of what was received; each method says what it has to be, or raises `Malformed`.

    Args:
        major: Its type.
        argument: The number in its head.
        raw: All of its bytes.
        content: The bytes of a string.
        parts: Of an array; the one of a tag; of a map keys and values in turn.
    """

    major: Major
    argument: int
    raw: bytes
    content: bytes = b""
    parts: tuple[Item, ...] = ()

    @property
    def is_null(self) -> bool:
        """Whether it is null."""
        return (self.major, self.argument) == (Major.SIMPLE, _NULL)

    def unsigned(self, at_most: int = _LARGEST) -> int:
        """A number from 0 to `at_most`."""
        self._check(Major.UNSIGNED)
        if self.argument > at_most:
            raise Malformed(f"A number is {self.argument}; the most that it may be is {at_most}.")
        return self.argument

    def integer(self) -> int:
        """A number of either sign."""
        if self.major is Major.NEGATIVE:
            return -1 - self.argument
        return self.unsigned()

    def boolean(self) -> bool:
        """False or true."""
        if self.major is not Major.SIMPLE or self.argument not in (_FALSE, _TRUE):
            raise self._unexpected("a boolean")
        return self.argument == _TRUE

    def bytes(self, at_most: int = SIZE_LIMIT, at_least: int = 0) -> bytes:
        """A byte string of `at_least` to `at_most` bytes."""
        self._check(Major.BYTES)
        self._check_length(at_least, at_most)
        return self.content

    def text(self, at_most: int = SIZE_LIMIT) -> str:
        """A text of at most so many bytes of UTF-8."""
        self._check(Major.TEXT)
        self._check_length(0, at_most)
        return self.content.decode("utf-8")

    def array(self, *lengths: int) -> tuple[Item, ...]:
        """The parts of an array, as many as one of `lengths` says; any number where there are none."""
        self._check(Major.ARRAY)
        if lengths and len(self.parts) not in lengths:
            wanted = " or ".join(str(length) for length in lengths)
            raise Malformed(f"An array has {len(self.parts)} parts where {wanted} are expected.")
        return self.parts

    def map(self) -> dict[int | str, Item]:
        """A map, in the order in which it was received."""
        self._check(Major.MAP)
        keys = [key.text() if key.major is Major.TEXT else key.integer() for key in self.parts[::2]]
        return dict(zip(keys, self.parts[1::2], strict=True))

    def tagged(self, number: int) -> Item:
        """What is below the tag `number`."""
        self._check(Major.TAG)
        if self.argument != number:
            raise Malformed(f"There is the tag {self.argument} where {number} is expected.")
        return self.parts[0]

    def embedded(self, at_most: int = SIZE_LIMIT) -> Item:
        """The item that is encoded in a byte string (RFC 8949 3.4.5.1)."""
        return read(self.bytes(at_most))

    def _check(self, major: Major) -> None:
        if self.major is not major:
            raise self._unexpected(major.name.lower())

    def _check_length(self, at_least: int, at_most: int) -> None:
        if not at_least <= len(self.content) <= at_most:
            raise Malformed(f"A string has {len(self.content)} bytes; it may have {at_least} to {at_most}.")

    def _unexpected(self, wanted: str) -> Malformed:
        return Malformed(f"There is something of the type {self.major.name.lower()} where {wanted} is expected.")


def read(data: bytes, at_most: int = SIZE_LIMIT) -> Item:
    """The one item that `data` is.

    Args:
        data: All of it.
        at_most: Bytes that it may have.

    Raises:
        Malformed: It is none, has something behind it, or breaks a limit.
    """
    reader = _Reader(data, at_most)
    item = reader.item(0)
    if reader.position != len(data):
        raise Malformed(f"There are {len(data) - reader.position} bytes after the end.")
    return item


def read_sequence(data: bytes, at_most: int = SIZE_LIMIT) -> tuple[Item, ...]:
    """The items that `data` is, one directly after the other (RFC 8742). See `read`."""
    reader = _Reader(data, at_most)
    items = []
    while reader.position != len(data):
        items.append(reader.item(0))
    return tuple(items)


def encode(value: Encodable) -> bytes:  # noqa: PLR0911 - one for each type
    """The shortest encoding; keys of maps stay in their order.

    Raises:
        OverflowError: A number has more than 64 bits and its sign.
    """
    match value:
        case Raw():
            return value.encoded
        case Tagged():
            return _head(Major.TAG, value.number) + encode(value.value)
        case bool():
            return _head(Major.SIMPLE, _TRUE if value else _FALSE)
        case None:
            return _head(Major.SIMPLE, _NULL)
        case int():
            return _head(Major.UNSIGNED, value) if value >= 0 else _head(Major.NEGATIVE, -1 - value)
        case bytes():
            return _head(Major.BYTES, len(value)) + value
        case str():
            encoded = value.encode("utf-8")
            return _head(Major.TEXT, len(encoded)) + encoded
        case Mapping():
            return _head(Major.MAP, len(value)) + b"".join(encode(k) + encode(v) for k, v in value.items())
        case _:
            return _head(Major.ARRAY, len(value)) + b"".join(encode(part) for part in value)


def _head(major: Major, argument: int) -> bytes:
    if argument < _SHORT:
        return bytes([major << 5 | argument])
    power = next((power for power in range(3) if argument < 1 << (8 << power)), 3)
    return bytes([major << 5 | _ONE_BYTE + power]) + argument.to_bytes(1 << power, "big")


class _Reader:
    """Reads items one after the other; knows where it is, and how many there were."""

    def __init__(self, data: bytes, at_most: int) -> None:
        if len(data) > at_most:
            raise Malformed(f"There are {len(data)} bytes; at most {at_most} are read.")
        self.position = 0
        self._data = data
        self._parts = 0

    def item(self, depth: int) -> Item:
        self._parts += 1
        if depth > DEPTH_LIMIT or self._parts > PARTS_LIMIT:
            raise Malformed(f"It is more than {DEPTH_LIMIT} deep, or has more than {PARTS_LIMIT} parts.")
        start = self.position
        major, argument = self._head()
        content: bytes = b""
        parts: tuple[Item, ...] = ()
        match major:
            case Major.BYTES | Major.TEXT:
                content = self._take(argument)
            case Major.ARRAY:
                parts = self._items(argument, depth)
            case Major.MAP:
                parts = self._items(2 * argument, depth)
                _check_keys(parts[::2])
            case Major.TAG:
                parts = self._items(1, depth)
            case Major.SIMPLE:
                if argument not in (_FALSE, _TRUE, _NULL):
                    raise Malformed("There is a floating-point number or an unknown simple value.")
        if major is Major.TEXT:
            _check_text(content)
        return Item(major, argument, self._data[start : self.position], content, parts)

    def _items(self, count: int, depth: int) -> tuple[Item, ...]:
        return tuple(self.item(depth + 1) for _ in range(count))

    def _head(self) -> tuple[Major, int]:
        (first,) = self._take(1)
        major, short = Major(first >> 5), first & 0x1F
        if short < _SHORT:
            return major, short
        if short > _EIGHT_BYTES:
            raise Malformed("There is a length that is not known beforehand.")
        argument = int.from_bytes(self._take(1 << short - _ONE_BYTE), "big")
        if _head(major, argument)[0] != first:
            raise Malformed("A number is longer than it needs to be.")
        return major, argument

    def _take(self, count: int) -> bytes:
        taken = self._data[self.position : self.position + count]
        if len(taken) != count:
            raise Malformed("The data ends too early.")
        self.position += count
        return taken


def _check_keys(keys: tuple[Item, ...]) -> None:
    """RFC 9052 1.5: labels are numbers or texts."""
    if any(key.major not in (Major.UNSIGNED, Major.NEGATIVE, Major.TEXT) for key in keys):
        raise Malformed("A map has a key that is neither a number nor a text.")
    if len({key.raw for key in keys}) != len(keys):
        raise Malformed("A map has the same key twice.")


def _check_text(content: bytes) -> None:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("A text is not UTF-8.") from error
