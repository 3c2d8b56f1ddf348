"""The few bytes of DER (X.690) that `cryptography` neither writes nor checks."""

from __future__ import annotations

OBJECT_IDENTIFIER = 0x06
OCTET_STRING = 0x04
UTF8_STRING = 0x0C
SEQUENCE = 0x30

_CONSTRUCTED = 0x20
_HIGH_TAG = 0x1F  # X.690 8.1.2.4: the tag goes on in further bytes; nothing in a certificate has such a tag
_LONG = 0x80  # X.690 8.1.3.5: the length goes on in further bytes


def encode(tag: int, content: bytes) -> bytes:
    """One value: tag, shortest length, content."""
    length = len(content)
    if length < _LONG:
        return bytes([tag, length]) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, _LONG | len(octets)]) + octets + content


def object_identifier(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER from its dotted form (X.690 8.19)."""
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    return encode(OBJECT_IDENTIFIER, b"".join(_base128(arc) for arc in (first * 40 + second, *rest)))


def announced_length(data: bytes) -> int | None:
    """Bytes of the value at the start of `data` by its own account, which may be more than are there (X.690 8.1.3).

    None where tag and length are not complete, or the length is indefinite.
    """
    if len(data) < 2:  # noqa: PLR2004 - tag and length
        return None
    if data[1] < _LONG:
        return 2 + data[1]
    octets = data[1] & ~_LONG
    if not octets or len(data) < 2 + octets:
        return None
    return 2 + octets + int.from_bytes(data[2 : 2 + octets], "big")


def is_one_value(data: bytes) -> bool:
    """Whether `data` is exactly one value, every length in it definite and as short as possible (X.690 10.1).

    What primitive values hold is not looked at. Some versions of `cryptography` read BER, so this is asked first.
    """
    head, size = _measure(memoryview(data))
    if not head or size != len(data):
        return False
    unread = [memoryview(data)]
    while unread:
        values = unread.pop()
        while values:
            head, size = _measure(values)
            if not head:
                return False
            if values[0] & _CONSTRUCTED:
                unread.append(values[head:size])
            values = values[size:]
    return True


def _measure(values: memoryview) -> tuple[int, int]:
    """How many bytes tag and length of the first value take, and the whole value; 0 where it is no complete DER."""
    if len(values) < 2 or values[0] & _HIGH_TAG == _HIGH_TAG:  # noqa: PLR2004 - tag and length
        return 0, 0
    octets = values[1] & ~_LONG if values[1] & _LONG else 0
    head, length = 2 + octets, int.from_bytes(values[2 : 2 + octets], "big") if octets else values[1]
    shortest = (length.bit_length() + 7) // 8 if length >= _LONG else 0
    if octets != shortest or head + length > len(values):
        return 0, 0
    return head, head + length


def _base128(arc: int) -> bytes:
    septets = [arc & 0x7F]
    while arc := arc >> 7:
        septets.append(0x80 | arc & 0x7F)
    return bytes(reversed(septets))
