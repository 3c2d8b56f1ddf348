"""Small encoders of lossless JPEG and of RLE that also write what no encoder writes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
_CATEGORIES: Final = 17
_CODE_LENGTH: Final = 5  # bits; all categories have codes of one length, which are their numbers

Rows = Sequence[Sequence[int]]


def segment(marker: int, content: bytes) -> bytes:
    """A marker segment (ITU-T T.81 B.1.1.4)."""
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def huffman_table() -> bytes:
    """DHT with one table for differences."""
    lengths = bytes(_CATEGORIES if length == _CODE_LENGTH else 0 for length in range(1, 17))
    return segment(0xC4, b"\0" + lengths + bytes(range(_CATEGORIES)))


def frame_header(rows: int, columns: int, components: bytes = b"\1", precision: int = 16) -> bytes:
    """SOF3."""
    specifications = b"".join(bytes((component, 0x11, 0)) for component in components)
    return segment(0xC3, struct.pack(">BHHB", precision, rows, columns, len(components)) + specifications)


def scan_header(components: bytes = b"\1", predictor: int = 1) -> bytes:
    """SOS."""
    selectors = b"".join(bytes((component, 0)) for component in components)
    return segment(0xDA, bytes((len(components),)) + selectors + bytes((predictor, 0, 0)))


def difference_bits(difference: int) -> str:
    """T.81 H.1.2.2: the category and what it leaves open."""
    signed = (difference + 0x8000 & 0xFFFF) - 0x8000
    category = abs(signed).bit_length()
    code = format(category, f"0{_CODE_LENGTH}b")
    if category in (0, 16):
        return code
    extra = signed if signed > 0 else signed + (1 << category) - 1
    return code + format(extra, f"0{category}b")


def in_bytes(bits: str) -> bytes:
    """Bits, filled up with ones."""
    filled = bits + "1" * (-len(bits) % 8)
    return int(filled, 2).to_bytes(len(filled) // 8, "big")


def stuffed(data: bytes) -> bytes:
    """T.81 F.1.2.3: a byte 00 behind each FF."""
    return data.replace(b"\xff", b"\xff\0")


def entropy_coded(rows: Rows, components: int = 1, precision: int = 16) -> bytes:
    """All rows by predictor 1, without stuffing. A row is pixel by pixel."""
    bits = ""
    firsts = [1 << precision - 1] * components
    for row in rows:
        line = [*firsts, *row]
        bits += "".join(difference_bits(line[at + components] - line[at]) for at in range(len(row)))
        firsts = list(row[:components])
    return in_bytes(bits)


def rows_with_restarts(rows: Rows, number: Callable[[int], int], first: int = 0) -> bytes:
    """Each row an interval of its own, behind RST of a number of its own, but for the row 0."""
    return b"".join(
        (bytes((0xFF, 0xD0 + number(index))) if index else b"") + stuffed(entropy_coded([row]))
        for index, row in enumerate(rows, first)
    )


def lossless_jpeg(rows: Rows, components: bytes = b"\1", precision: int = 16, before: bytes = b"") -> bytes:
    """A codestream (transfer syntaxes .57 and .70), with segments before the others."""
    header = frame_header(len(rows), len(rows[0]) // len(components), components, precision)
    data = stuffed(entropy_coded(rows, len(components), precision))
    return even(SOI + before + header + huffman_table() + scan_header(components) + data + EOI)


def rle(segments: Sequence[bytes]) -> bytes:
    """A frame of RLE (PS3.5 Annex G), each segment literally."""
    packed = [
        b"".join(bytes((len(part) - 1,)) + part for part in (plain[at : at + 128] for at in range(0, len(plain), 128)))
        for plain in segments
    ]
    starts = [64]
    for part in packed:
        starts.append(starts[-1] + len(part))
    header = struct.pack("<16L", len(packed), *starts[:-1], *(0,) * (15 - len(packed)))
    return even(header + b"".join(packed))


def even(data: bytes) -> bytes:
    """Padded (PS3.5 A.4)."""
    return data + b"\0" * (len(data) % 2)
