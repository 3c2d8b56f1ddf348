"""How compressed pixels begin, and whether that is what their transfer syntax says.

The transfer syntax is not covered by a signature, but the codestream is. So somebody may call a lossy image lossless;
its header tells. It does not tell what a reversible JPEG 2000 or any JPEG XL encoder left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

_STANDARD = "1.2.840.10008.1.2."

# How a frame begins: JPEG (ISO/IEC 10918-1 B.1.1.3) and JPEG-LS, JPEG 2000 (ISO/IEC 15444-1 A.4), JPEG XL
# (ISO/IEC 18181-2), RLE (PS3.5 G.5: at most 15 segments, the first right behind the header).
_JPEG = re.compile(rb"\xff\xd8\xff")
_JPEG_2000 = re.compile(rb"\xff\x4f\xff\x51|\x00\x00\x00\x0cjP  ")
_JPEG_XL = re.compile(rb"\xff\x0a|\x00\x00\x00\x0cJXL ")
_RLE = re.compile(rb"[\x00-\x0f]\x00\x00\x00(?:\x40\x00\x00\x00|\x00\x00\x00\x00)")
_ENDINGS = {
    _RLE: ("5",),
    _JPEG: tuple(f"4.{number}" for number in (*range(50, 67), 70, 80, 81)),
    _JPEG_2000: tuple(f"4.{number}" for number in (90, 91, 92, 93, 201, 202, 203)),
    _JPEG_XL: tuple(f"4.{number}" for number in (110, 111, 112)),
}
BEGINNINGS = {_STANDARD + ending: pattern for pattern, endings in _ENDINGS.items() for ending in endings}

START_OF_SCAN = 0xDA
# The frame header of each JPEG process (ISO/IEC 10918-1 table B.1, PS3.5 table 8.2.1-1). What is encoded as baseline
# may be called extended; what is hierarchical (59 to 66) begins with a header of its own.
_FRAME_HEADERS = {
    f"{_STANDARD}4.{number}": markers
    for numbers, markers in {
        (50,): b"\xc0",
        (51,): b"\xc0\xc1",
        (52,): b"\xc9",
        (53, 55): b"\xc2",
        (54, 56): b"\xca",
        (57, 70): b"\xc3",
        (58,): b"\xcb",
        tuple(range(59, 67)): b"\xde",
        (80, 81): b"\xf7",
    }.items()
    for number in numbers
}
_ANY_FRAME_HEADER = frozenset((*range(0xC0, 0xD0), 0xDE, 0xF7)) - {0xC4, 0xC8, 0xCC}
# The parameter that follows the components of a scan: the predictor of lossless JPEG (H.1.2.1), and NEAR, the error
# that JPEG-LS allows (ISO/IEC 14495-1 C.2.3).
_SCAN_PARAMETER = {f"{_STANDARD}4.70": b"\x01", f"{_STANDARD}4.80": b"\x00"}

SIZE, CODING_STYLE, START_OF_TILE_PART = 0x51, 0x52, 0x90
_CAPABILITIES, _CODING_STYLE_OF_COMPONENT = 0x50, 0x53
_IRREVERSIBLE = b"\x00"  # the 9/7 wavelet (ISO/IEC 15444-1 table A.20)
_PART_15 = 1 << 32 - 15  # of Pcap: high throughput (A.5.2)
_OF_PART_2 = frozenset(range(0x70, 0x7A))  # markers of ISO/IEC 15444-2
_LOSSLESS = frozenset(f"{_STANDARD}4.{number}" for number in (90, 92, 201, 202))
_EXTENDED = frozenset(f"{_STANDARD}4.{number}" for number in (92, 93))
_HIGH_THROUGHPUT = frozenset(f"{_STANDARD}4.{number}" for number in (201, 202, 203))
_CODESTREAM = re.compile(rb"\xff\x4f\xff\x51")

_MOST_SEGMENTS = 1_000  # of a header
_USUAL_SEGMENTS = 32  # of a header, where there are many frames
# Any marker may have fill bytes before it (ISO/IEC 10918-1 B.1.1.2).
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_END, _START_OF_DATA = 0xD9, 0x93
_WITHOUT_CONTENT = frozenset((_END, _START_OF_DATA))


class Segment(NamedTuple):
    """A marker segment.

    Args:
        marker: The second byte of its marker.
        content: What is behind the length.
        end: Offset of what follows.
    """

    marker: int
    content: bytes | memoryview
    end: int


def segment_at(codestream: bytes | memoryview, position: int) -> Segment:
    """The marker segment at an offset.

    Raises:
        ValueError: There is none, or not all of it.
    """
    found = _MARKER.match(codestream, position)
    if found is None:
        raise ValueError("no marker")
    marker, start = found[1][0], found.end()
    if marker in _WITHOUT_CONTENT:
        return Segment(marker, b"", start)
    length = int.from_bytes(codestream[start : start + 2])
    if length < 2 or start + length > len(codestream):
        raise ValueError("no marker segment")
    return Segment(marker, codestream[start + 2 : start + length], start + length)


def header_segments(
    codestream: bytes | memoryview, last: int, steps: Iterable[object] = range(_MOST_SEGMENTS), *, position: int = 2
) -> Iterator[Segment]:
    """The marker segments from the second marker on, up to and with the one that the data follow.

    Args:
        codestream: Of one frame.
        last: START_OF_SCAN or START_OF_TILE_PART.
        steps: Runs out when there are too many; an iterator may be shared by several codestreams.
        position: Offset of the first of them.

    Raises:
        ValueError: It is no such header.
    """
    for _ in steps:
        segment = segment_at(codestream, position)
        yield segment
        if segment.marker == last:
            return
        position = segment.end
    raise ValueError("too many segments")


def plain_segments(codestream: bytes | memoryview, last: int, position: int = 2) -> Iterator[Segment]:
    """The same without fill bytes.

    Raises:
        ValueError: There are some, or it is no such header.
    """
    for segment in header_segments(codestream, last, position=position):
        if segment.end - position != 4 + len(segment.content):
            raise ValueError("fill bytes")
        yield segment
        position = segment.end


def check_codestreams(transfer_syntax: str, codestreams: Sequence[memoryview]) -> None:
    """Check that frames are encoded as their transfer syntax says, as far as their headers show it.

    Args:
        transfer_syntax: UID of how they are said to be stored.
        codestreams: The beginning of each frame.

    Raises:
        ValueError: They are not.
    """
    steps = iter(range(_MOST_SEGMENTS + _USUAL_SEGMENTS * len(codestreams)))
    for codestream in codestreams:
        if transfer_syntax in _FRAME_HEADERS:
            _check_jpeg(transfer_syntax, header_segments(codestream, START_OF_SCAN, steps))
        elif BEGINNINGS.get(transfer_syntax) is _JPEG_2000:
            # Some writers put a whole JP2 file there (ISO/IEC 15444-1 Annex I).
            found = _CODESTREAM.search(codestream)
            plain = codestream[found.start() :] if found else codestream[:0]
            _check_jpeg_2000(transfer_syntax, header_segments(plain, START_OF_TILE_PART, steps))


def _check_jpeg(transfer_syntax: str, header: Iterable[Segment]) -> None:
    frame, parameter = 0, b""
    for marker, content, _ in header:
        if not frame and marker in _ANY_FRAME_HEADER:
            frame = marker
        elif marker == START_OF_SCAN:
            behind_components = 1 + 2 * content[0] if content else 0
            parameter = bytes(content[behind_components : behind_components + 1])
    if frame not in _FRAME_HEADERS[transfer_syntax]:
        raise ValueError("another JPEG process")
    if parameter != _SCAN_PARAMETER.get(transfer_syntax, parameter):
        raise ValueError("another predictor, or compressed with loss")


def _check_jpeg_2000(transfer_syntax: str, header: Iterable[Segment]) -> None:
    wavelets: list[bytes | memoryview] = []
    extended = high_throughput = False
    of_component = 6  # offset of the wavelet in the coding style of a component (A.6.2)
    for marker, content, _ in header:
        if marker == SIZE:
            of_component = 6 + (int.from_bytes(content[34:36]) > 256)
        elif marker == CODING_STYLE:
            wavelets.append(content[9:10])
        elif marker == _CODING_STYLE_OF_COMPONENT:
            wavelets.append(content[of_component : of_component + 1])
        elif marker == _CAPABILITIES:
            high_throughput = bool(int.from_bytes(content[:4]) & _PART_15)
        extended |= marker in _OF_PART_2
    if high_throughput != (transfer_syntax in _HIGH_THROUGHPUT) or (extended and transfer_syntax not in _EXTENDED):
        raise ValueError("another part of JPEG 2000")
    if b"" in wavelets or not wavelets:
        raise ValueError("no coding style")
    if transfer_syntax in _LOSSLESS and _IRREVERSIBLE in wavelets:
        raise ValueError("compressed with loss")
