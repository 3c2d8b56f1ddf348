"""Whether the fragments of encapsulated Pixel Data are those that were signed (PS3.5 A.4).

The MAC covers the bytes of every fragment and the tag before it, but no length. Two fragments A and B that are merged
into one, with the four bytes of the tag between them, give the same MAC and another image; and a last fragment can
swallow the sequence behind it. So the boundaries have to be shown by something that is covered: the number of frames,
an offset table, or how each frame begins. The transfer syntax is not covered either, so that the pixels have to look as
it says.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from agent.dicom.codestream import BEGINNINGS, check_codestreams
from agent.dicom.data_set import DataSet
from agent.dicom.elements import BITS_ALLOCATED, COLUMNS, NUMBER_OF_FRAMES, PIXEL_DATA, ROWS, SAMPLES_PER_PIXEL
from agent.dicom.report import Finding, Outcome

EXTENDED_OFFSET_TABLE = 0x7FE00001
EXTENDED_OFFSET_TABLE_LENGTHS = 0x7FE00002
TOTAL_LENGTH = 0x7FE00003  # Encapsulated Pixel Data Value Total Length

_ITEM_HEADER = 8  # bytes
# What the MAC covers before and behind a fragment: the tag of an item, or the one that ends a sequence.
_BOUNDARY = re.compile(rb"\xfe\xff(?:\x00\xe0|\xdd\xe0)")
_STANDARD = "1.2.840.10008.1.2."

_UNCOMPRESSED, _DEFLATED = f"{_STANDARD}1.98", f"{_STANDARD}8.1"
# One fragment is one frame there (PS3.5 A.4.2, A.4.11, A.4.12).
_FRAME_IN_ONE_FRAGMENT = frozenset((f"{_STANDARD}5", _UNCOMPRESSED, _DEFLATED))
# One stream for all frames, cut anywhere (PS3.5 A.4.5 to A.4.9).
_VIDEO_BEGINNING = re.compile(rb"\x00\x00\x00?\x01|\x47|.{4}ftyp", re.DOTALL)  # elementary stream, MPEG-2 TS, MP4
_VIDEO = tuple(f"{_STANDARD}4.{number}" for number in range(100, 109))


def fragment_findings(data_set: DataSet, transfer_syntax: str) -> tuple[Finding, ...]:
    """What contradicts, or does not show, the boundaries of the fragments.

    Args:
        data_set: Of the instance.
        transfer_syntax: UID of how it is stored; one that stores Pixel Data in fragments.
    """
    if PIXEL_DATA not in data_set:
        return ()
    table, *fragments = data_set.fragments(PIXEL_DATA) or (memoryview(b""),)
    frames = data_set.number(NUMBER_OF_FRAMES) if NUMBER_OF_FRAMES in data_set else 1
    if frames is None or frames < 1:
        return (_wrong("Number of Frames (0028,0008) is no number of frames."),)
    faults = _faults(data_set, table, fragments, frames, transfer_syntax)
    if (fault := next(faults, None)) is not None:
        return (fault,)
    if any(_BOUNDARY.search(fragment) for fragment in _unproven(data_set, table, fragments, frames)):
        what = "A fragment of Pixel Data holds the bytes of an item tag: the MAC does not show where it ends."
        return (Finding("fragment-boundary-not-covered", what, Outcome.FLAGGED),)
    return ()


def _faults(
    data_set: DataSet, table: memoryview, fragments: Sequence[memoryview], frames: int, transfer_syntax: str
) -> Iterator[Finding]:
    if not fragments:
        yield _wrong("Pixel Data has no fragment (PS3.5 A.4).")
    elif not _looks_right(data_set, fragments, transfer_syntax):
        yield _mislabelled(transfer_syntax)
    elif not transfer_syntax.startswith(_VIDEO):
        yield from _frame_faults(fragments, frames, transfer_syntax)
    yield from _table_faults(data_set, table, fragments, frames)
    stream = sum(map(len, fragments))
    if TOTAL_LENGTH in data_set and _integers(data_set.value(TOTAL_LENGTH), 8)[:1] not in _totals(stream, fragments):
        yield _wrong("The fragments are not as long as Encapsulated Pixel Data Value Total Length (7FE0,0003) says.")


def _frame_faults(fragments: Sequence[memoryview], frames: int, transfer_syntax: str) -> Iterator[Finding]:
    if len(fragments) < frames or (transfer_syntax in _FRAME_IN_ONE_FRAGMENT and len(fragments) != frames):
        yield _wrong(f"Pixel Data has {len(fragments)} fragments for {frames} frames.")
    beginning = BEGINNINGS.get(transfer_syntax)
    if beginning is None or transfer_syntax in _FRAME_IN_ONE_FRAGMENT:
        return
    begun = [fragment for fragment in fragments if beginning.match(fragment)]
    if len(begun) != frames:
        yield _wrong(f"{len(begun)} fragments of Pixel Data begin a frame, and there are {frames} frames.")
    try:
        check_codestreams(transfer_syntax, begun)
    except ValueError as error:
        yield _mislabelled(transfer_syntax, f": {error}")


def _looks_right(data_set: DataSet, fragments: Sequence[memoryview], transfer_syntax: str) -> bool:
    """Whether the pixels begin as the transfer syntax demands, as far as that is known here."""
    if transfer_syntax.startswith(_VIDEO):
        return _VIDEO_BEGINNING.match(fragments[0]) is not None
    if transfer_syntax == _UNCOMPRESSED:
        size = _frame_size(data_set)
        return all(len(fragment) == size + size % 2 for fragment in fragments)
    if transfer_syntax == _DEFLATED:
        return all(_inflates_to(fragment, _frame_size(data_set)) for fragment in fragments)
    beginning = BEGINNINGS.get(transfer_syntax)
    return beginning is None or beginning.match(fragments[0]) is not None


def _frame_size(data_set: DataSet) -> int:
    """Bytes of one frame of native pixels."""
    rows, columns, samples, bits = (
        data_set.number(tag) or 0 for tag in (ROWS, COLUMNS, SAMPLES_PER_PIXEL, BITS_ALLOCATED)
    )
    return (rows * columns * samples * bits + 7) // 8


def _inflates_to(fragment: memoryview, size: int) -> bool:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return len(inflate.decompress(fragment, size + 2)) - size in (0, size % 2)
    except zlib.error:
        return False


def _table_faults(
    data_set: DataSet, table: memoryview, fragments: Sequence[memoryview], frames: int
) -> Iterator[Finding]:
    sizes = (_ITEM_HEADER + len(fragment) for fragment in fragments[:-1])
    starts = set(accumulate(sizes, initial=0))
    if len(table) and (len(table) != 4 * frames or not _leads_to_frames(_integers(table, 4), starts)):
        yield _wrong("The Basic Offset Table does not lead to the frames (PS3.5 A.4).", "offset-table-wrong")
    if EXTENDED_OFFSET_TABLE not in data_set:
        return
    # PS3.3 C.7.6.3.1.8: each frame is in one fragment then, and the Basic Offset Table is empty.
    table, lengths = (data_set.raw(tag)[12:] for tag in (EXTENDED_OFFSET_TABLE, EXTENDED_OFFSET_TABLE_LENGTHS))
    fits = len(fragments) == frames and len(table) == len(lengths) == 8 * frames
    if not (
        fits
        and _leads_to_frames(_integers(table, 8), starts)
        and all(
            len(fragment) - length in (0, 1) for fragment, length in zip(fragments, _integers(lengths, 8), strict=True)
        )
    ):
        yield _wrong("The Extended Offset Table (7FE0,0001) does not lead to the frames.", "offset-table-wrong")


def _leads_to_frames(offsets: Sequence[int], starts: set[int]) -> bool:
    rising = all(earlier < later for earlier, later in pairwise(offsets))
    return offsets[0] == 0 and rising and starts.issuperset(offsets)


def _unproven(
    data_set: DataSet, table: memoryview, fragments: Sequence[memoryview], frames: int
) -> Sequence[memoryview]:
    """The fragments whose ends nothing that may be covered shows."""
    if TOTAL_LENGTH in data_set or EXTENDED_OFFSET_TABLE in data_set:
        return ()
    # An offset table shows where every frame but the last one ends; with one fragment a frame that is all.
    return fragments[-1:] if len(table) and len(fragments) == frames else fragments


def _totals(stream: int, fragments: Sequence[memoryview]) -> tuple[tuple[int, ...], ...]:
    # Writers count with and without the padding byte, and some the headers of the items as well.
    return (stream,), (stream - 1,), (stream + _ITEM_HEADER * len(fragments),)


def _integers(value: bytes | memoryview, width: int) -> tuple[int, ...]:
    return struct.unpack(f"<{len(value) // width}{'IQ'[width == 8]}", value[: len(value) // width * width])


def _wrong(what: str, code: str = "fragments-wrong") -> Finding:
    return Finding(code, what)


def _mislabelled(transfer_syntax: str, why: str = "") -> Finding:
    return Finding("codestream-wrong", f"Pixel Data is not what transfer syntax {transfer_syntax} says{why}.")
