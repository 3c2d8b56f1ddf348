"""Whether a frame of JPEG 2000 is one that all decoders have to read alike (ISO/IEC 15444-1 Annex A).

One plain codestream, with one coding style for everything, from the main header, and tile-parts in order. Not a JP2
file: that may have a palette which some decoders apply.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from agent.dicom.codestream import CODING_STYLE, SIZE, START_OF_TILE_PART, plain_segments, segment_at
from agent.dicom.diagnosis.decoding_request import Request

_HIGH_THROUGHPUT = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (201, 202))
_SOC_SIZ = b"\xff\x4f\xff\x51"
_START_OF_DATA = b"\xff\x93"
_NO_DATA = re.compile(rb"\xff[\x90-\xff]")  # a marker: in packets FF is followed by at most 8F (B.10.1, C.3)
_END = re.compile(rb"\xff\xd9[\x00\xff]?\Z")
_MOST_TILE_PARTS = 100_000
_MOST_GAINED = 4  # bits, by wavelet and colours, with what Kakadu and OpenJPEG leave for safety
_MOST_BITS = 31

_CAPABILITIES, _QUANTIZATION, _TILE_PART_LENGTHS, _COMMENT = 0x50, 0x5C, 0x55, 0x64
_ALWAYS = frozenset((SIZE, CODING_STYLE, _QUANTIZATION))
_REPEATED = frozenset((_TILE_PART_LENGTHS, _COMMENT))
_PART_1 = frozenset((0, 1, 2))  # Rsiz (table A.10): no restriction, or profile 0 or 1
_PROFILE_OF_PART_15 = frozenset((0x4000,))
# Pcap and Ccap15 (ISO/IEC 15444-15 A.3): all blocks by high throughput, reversible, without regions of interest.
_ALL_HIGH_THROUGHPUT = re.compile(rb"\x00\x02\x00\x00\x00[\x00-\x1f]", re.DOTALL)
_TRANSFORMED = "YBR_RCT"


class _TilePart(NamedTuple):
    """What SOT says (A.4.2)."""

    tile: int
    length: int
    number: int
    total: int


def check_jpeg_2000(request: Request, frame: bytes) -> None:
    """Check a frame before it is decoded.

    Args:
        request: What the data set says.
        frame: The compressed frame, padded to even length.

    Raises:
        ValueError: It is something else.
        IndexError: The same.
        struct.error: The same.
    """
    if not frame.startswith(_SOC_SIZ):
        raise ValueError("not a plain codestream")
    high_throughput = request.transfer_syntax in _HIGH_THROUGHPUT
    once = _ALWAYS | {_CAPABILITIES} if high_throughput else _ALWAYS
    header: dict[int, bytes] = {}
    announced: list[bytes] = []
    position = 2
    for marker, content, end in plain_segments(frame, START_OF_TILE_PART):
        if marker == START_OF_TILE_PART:
            break
        if (marker not in once and marker not in _REPEATED) or marker in header:
            raise ValueError("marker segment")
        if marker == _TILE_PART_LENGTHS:
            announced.append(bytes(content))
        elif marker != _COMMENT:
            header[marker] = bytes(content)
        position = end
    if header.keys() != once:
        raise ValueError("marker segment is missing")
    if high_throughput and not _ALL_HIGH_THROUGHPUT.fullmatch(header[_CAPABILITIES]):
        raise ValueError("capabilities")
    tiles, precision = _check_size(request, header[SIZE], _PROFILE_OF_PART_15 if high_throughput else _PART_1)
    levels = _check_coding_style(request, header[CODING_STYLE], 0x40 if high_throughput else 0)
    _check_quantization(header[_QUANTIZATION], levels, precision)
    tile_parts = list(_tile_parts(frame, position))
    _check_order(tile_parts, tiles)
    _check_announced(announced, tile_parts)


def _check_size(request: Request, size: bytes, profiles: frozenset[int]) -> tuple[int, int]:
    """A.5.1; gives the number of tiles and the bits of a sample."""
    profile, width, height, *offsets, count = struct.unpack_from(">H8IH", size)
    left, top, tile_width, tile_height, tile_left, tile_top = offsets
    components = size[36:]
    if profile not in profiles or any((left, top, tile_left, tile_top)) or not tile_width or not tile_height:
        raise ValueError("image and tile size")
    # The depth and sign of each component, and that all are in full resolution.
    if count not in (1, 3) or components != bytes((components[0], 1, 1)) * count:
        raise ValueError("components")
    if bool(components[0] & 0x80) != request.signed:
        raise ValueError("sign")
    precision = (components[0] & 0x7F) + 1
    request.check_depth(precision)
    tiles: int = -(-width // tile_width) * -(-height // tile_height)
    return tiles, precision


def _check_coding_style(request: Request, style: bytes, of_blocks: int) -> int:
    """A.6.1; gives the number of decomposition levels."""
    precincts, progression, layers, transformed, levels, width, height, style_of_blocks, wavelet = struct.unpack_from(
        ">BBHB5B", style
    )
    # SOP and EPH markers, and all that is said of blocks, are left out by who has no need of them.
    if precincts > 1 or len(style) != 10 + precincts * (levels + 1) or levels > 32:
        raise ValueError("coding style")
    if progression > 4 or not layers or max(width, height) > 8 or width + height > 8 or style_of_blocks != of_blocks:
        raise ValueError("coding style")
    if wavelet != 1:
        raise ValueError("compressed with loss")
    # PS3.5 8.2.4: transformed colours are called so, by others they are not.
    if transformed != (request.photometric_interpretation == _TRANSFORMED) or (transformed and request.samples != 3):
        raise ValueError("colours")
    return style[5]


def _check_quantization(quantization: bytes, levels: int, precision: int) -> None:
    """A.6.4: none, and an exponent for each sub-band."""
    if quantization[0] & 0x1F or len(quantization) != 2 + 3 * levels:
        raise ValueError("quantization")
    # E.1: how many bits the coefficients of each sub-band may have. Of more than any sample can lead to, decoders keep
    # as many as they have room for.
    guard = quantization[0] >> 5
    most = min(precision + _MOST_GAINED, _MOST_BITS)
    if any(exponent & 7 or not precision <= guard + (exponent >> 3) - 1 <= most for exponent in quantization[1:]):
        raise ValueError("exponents")


def _tile_parts(frame: bytes, position: int) -> Iterator[_TilePart]:
    """The tile-parts, each of which has no header but SOT and no data but packets, up to the end."""
    for _ in range(_MOST_TILE_PARTS):
        if _END.match(frame, position):
            return
        marker, content, end = segment_at(frame, position)
        if marker != START_OF_TILE_PART or end - position != 12 or frame[end : end + 2] != _START_OF_DATA:
            raise ValueError("tile-part")
        tile_part = _TilePart(*struct.unpack(">HIBB", content))
        yield tile_part
        position += tile_part.length
        found = _NO_DATA.search(frame, end + 2)
        if found is None or found.start() != position:
            raise ValueError("something follows the packets")
    raise ValueError("too many tile-parts")


def _check_order(tile_parts: Sequence[_TilePart], tiles: int) -> None:
    counts = Counter(tile_part.tile for tile_part in tile_parts)
    expected = [(tile, number) for tile in range(len(counts)) for number in range(counts[tile])]
    if len(counts) != tiles or [(part.tile, part.number) for part in tile_parts] != expected:
        raise ValueError("order of tile-parts")
    if any(part.total not in (0, counts[part.tile]) for part in tile_parts):
        raise ValueError("number of tile-parts")


def _check_announced(announced: Sequence[bytes], tile_parts: Sequence[_TilePart]) -> None:
    """A.7.1: by TLM some decoders find the tile-parts."""
    if not announced:
        return
    lengths: list[tuple[int, int]] = []
    for number, content in enumerate(announced):
        index, sizes = content[:2]
        of_tile, of_length = sizes >> 4 & 3, 4 if sizes & 0x40 else 2
        entries, rest = divmod(len(content) - 2, of_tile + of_length)
        if index != number or sizes & 0x8F or of_tile > 2 or rest:
            raise ValueError("lengths of tile-parts")
        for entry in range(entries):
            start = 2 + entry * (of_tile + of_length)
            tile = int.from_bytes(content[start : start + of_tile]) if of_tile else len(lengths)
            lengths.append((tile, int.from_bytes(content[start + of_tile : start + of_tile + of_length])))
    if lengths != [(part.tile, part.length) for part in tile_parts]:
        raise ValueError("lengths of tile-parts")
