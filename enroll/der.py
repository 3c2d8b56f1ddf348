"""The few bytes of DER (X.690) that `cryptography` neither writes nor checks."""

from __future__ import annotations

OBJECT_IDENTIFIER = 0x06
OCTET_STRING = 0x04
SEQUENCE = 0x30


def encode(tag: int, content: bytes) -> bytes:
    """One value: tag, shortest length, content."""
    length = len(content)
    if length < 0x80:  # noqa: PLR2004 - X.690 8.1.3.4: from here on the long form
        return bytes([tag, length]) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def object_identifier(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER from its dotted form (X.690 8.19)."""
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    return encode(OBJECT_IDENTIFIER, b"".join(_base128(arc) for arc in (first * 40 + second, *rest)))


def is_one_value(data: bytes) -> bool:
    """Whether `data` is exactly one value with a definite length in its shortest form, and nothing behind it."""
    if len(data) < 2:  # noqa: PLR2004 - tag and length
        return False
    octets = data[1] & 0x7F if data[1] & 0x80 else 0
    length = int.from_bytes(data[2 : 2 + octets], "big") if octets else data[1]
    content = data[2 + octets :]
    return len(content) == length and encode(data[0], content) == data


def _base128(arc: int) -> bytes:
    septets = [arc & 0x7F]
    while arc := arc >> 7:
        septets.append(0x80 | arc & 0x7F)
    return bytes(reversed(septets))
