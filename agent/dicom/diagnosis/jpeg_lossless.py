"""Lossless JPEG with Huffman coding (ITU-T T.81 Annex H, transfer syntaxes .57 and .70): written for safety, not speed.

Anything that is not such an image raises one of Python's own errors. It runs where that does no harm.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice

from agent.dicom.codestream import START_OF_SCAN, header_segments

_LOSSLESS_HUFFMAN_FRAME, _HUFFMAN_TABLES = 0xC3, 0xC4
_END_OF_SCAN = re.compile(rb"\xff[^\x00]")
_WINDOW = 16  # bits; the longest Huffman code
_REFILL = 6  # bytes

# T.81 Table H.1: the prediction from the samples to the left, above, and above to the left.
_PREDICTORS: dict[int, Callable[[int, int, int], int]] = {
    1: lambda left, _above, _corner: left,
    2: lambda _left, above, _corner: above,
    3: lambda _left, _above, corner: corner,
    4: lambda left, above, corner: left + above - corner,
    5: lambda left, above, corner: left + (above - corner >> 1),
    6: lambda left, above, corner: above + (left - corner >> 1),
    7: lambda left, above, _corner: left + above >> 1,
}


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Args:
        rows: Its height.
        columns: Its width.
        components: Samples of a pixel.
        precision: Bits of a sample.
        samples: Pixel by pixel, row by row.
    """

    rows: int
    columns: int
    components: int
    precision: int
    samples: array[int]


Table = list[tuple[int, int]]


def decode(codestream: bytes, most_samples: int) -> Picture:
    """Decode an image of one scan, whose markers `check_shape` has found to be in order.

    Args:
        codestream: From its first marker on; what follows the scan is ignored.
        most_samples: How many samples it may have.
    """
    contents: dict[int, bytes] = {}
    tables: dict[int, Table] = {}
    position = 0
    for segment in header_segments(codestream, START_OF_SCAN):
        contents[segment.marker] = content = bytes(segment.content)
        if segment.marker == _HUFFMAN_TABLES:
            _add_tables(tables, content)
        position = segment.end
    frame, scan = contents[_LOSSLESS_HUFFMAN_FRAME], contents[START_OF_SCAN]
    precision, rows, columns, count = struct.unpack_from(">BHHB", frame)
    if not 0 < rows * columns * count <= most_samples or not 2 <= precision <= 16 or scan[0] != count:
        raise ValueError("frame header")
    found = _END_OF_SCAN.search(codestream, position)
    bits = _Bits(codestream[position : found.start() if found else None].replace(b"\xff\0", b"\xff"))
    selected = [tables[selector >> 4] for selector in scan[2 : 1 + 2 * count : 2]]
    predict = _PREDICTORS[scan[1 + 2 * count]]
    samples = array("H", bytes(2 * rows * columns * count))
    above: list[list[int]] = [[] for _ in selected]
    for start in range(0, len(samples), columns * count):
        differences = bits.differences(selected, columns)
        for component in range(count):
            line = _line(differences[component::count], above[component], precision, predict)
            above[component] = line
            samples[start + component : start + columns * count : count] = array("H", line)
    bits.check_end()
    if max(samples) >> precision:
        raise ValueError("sample beyond the precision")  # which some decoders cut off
    return Picture(rows, columns, count, precision, samples)


def _add_tables(tables: dict[int, Table], content: bytes) -> None:
    """T.81 B.2.4.2: tables of class 0, each once."""
    while content:
        length = 17 + sum(content[1:17])
        if content[0] > 3 or content[0] in tables or len(content) < length:
            raise ValueError("Huffman table")
        tables[content[0]] = _table(content[1:length])
        content = content[length:]


def _line(
    differences: list[int], above: list[int], precision: int, predict: Callable[[int, int, int], int]
) -> list[int]:
    """The samples of a line. Sums are modulo 2**16 (T.81 H.1.2.1)."""
    if not above or predict is _PREDICTORS[1]:
        # T.81 H.1.2.1: the first line is predicted from the left, its first sample by half the range.
        differences[0] += above[0] if above else 1 << precision - 1
        return [value & 0xFFFF for value in accumulate(differences)]
    left = above[0] + differences[0] & 0xFFFF
    line = [left]
    for difference, over, corner in zip(differences[1:], above[1:], above, strict=False):
        left = predict(left, over, corner) + difference & 0xFFFF
        line.append(left)
    return line


def _table(specification: bytes) -> Table:
    """For each window of 16 bits what it begins with: the bits consumed, and the difference (T.81 C.2, H.1.2.2).

    Where the bits of the difference reach beyond the window: the length of the code, negative, and how many they are.
    """
    counts, symbols = specification[:16], iter(specification[16:])
    # T.81 C.2: no code consists of bits 1 only.
    if sum(count << _WINDOW - length for length, count in enumerate(counts, 1)) >= 1 << _WINDOW:
        raise ValueError("Huffman table")
    if max(specification[16:], default=0) > 16:
        raise ValueError("difference of more than 16 bits")
    table: Table = []
    for length, count in enumerate(counts, 1):
        for size in islice(symbols, count):
            more = size if size < 16 else 0  # T.81 Table H.2: 32768 needs no bits
            spare = _WINDOW - length - more
            if spare < 0:
                table += [(-length, size)] * (1 << _WINDOW - length)
                continue
            for extra in range(1 << more):
                table += [(length + more, _difference(size, extra))] * (1 << spare)
    return table + [(0, 0)] * ((1 << _WINDOW) - len(table))


def _difference(size: int, extra: int) -> int:
    """T.81 F.1.2.1.1 and Table H.2."""
    if size in (0, 16):
        return 32_768 if size else 0
    return extra if extra >> size - 1 else extra - (1 << size) + 1


class _Bits:
    """The differences in a run of entropy-coded bytes, without their stuffing."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        self._bits = 0  # those that were taken from the data and not used
        self._count = 0

    def differences(self, tables: Sequence[Table], columns: int) -> list[int]:
        """The next differences: `columns` times one by each table."""
        data, position, bits, count = self._data, self._position, self._bits, self._count
        found: list[int] = []
        add = found.append
        for table in [*tables] * columns:
            if count < 2 * _WINDOW:
                bits = bits << 8 * _REFILL | int.from_bytes(data[position : position + _REFILL].ljust(_REFILL, b"\0"))
                position += _REFILL
                count += 8 * _REFILL
            used, difference = table[bits >> count - _WINDOW & 0xFFFF]
            if used <= 0:
                if not used:
                    raise ValueError("no such code")
                size = difference
                used = size - used
                difference = _difference(size, bits >> count - used & (1 << size) - 1)
            count -= used
            bits &= (1 << count) - 1
            add(difference)
        if 8 * position - count > 8 * len(data):
            raise ValueError("cut off")
        self._position, self._bits, self._count = position, bits, count
        return found

    def check_end(self) -> None:
        """Check that nothing follows but the bits that fill a byte (T.81 F.1.2.3)."""
        if 8 * len(self._data) - (8 * self._position - self._count) >= 8:
            raise ValueError("something follows the last sample")
