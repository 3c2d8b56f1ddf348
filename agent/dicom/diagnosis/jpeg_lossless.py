"""Lossless JPEG with Huffman coding (ITU-T T.81 Annex H, transfer syntaxes .57 and .70): written for safety, not speed.

Anything that is not such an image raises one of Python's own errors. It runs where that does no harm.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

_START_OF_IMAGE, _END_OF_IMAGE = 0xD8, 0xD9
_LOSSLESS_HUFFMAN_FRAME = 0xC3
_OTHER_FRAMES = frozenset(range(0xC0, 0xD0)) - {_LOSSLESS_HUFFMAN_FRAME, 0xC4, 0xC8, 0xCC}
_HUFFMAN_TABLES, _START_OF_SCAN, _RESTART_INTERVAL = 0xC4, 0xDA, 0xDD
_END_OF_SCAN = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
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
    """Decode an image.

    Args:
        codestream: From its first marker on; what follows the last one is ignored.
        most_samples: How many samples it may have.
    """
    reader = _Reader(codestream, most_samples)
    for marker, start, end in reader.segments():
        reader.take(marker, start, end)
    return reader.picture()


class _Reader:
    """Follows the markers of a codestream (T.81 Annex B)."""

    def __init__(self, codestream: bytes, most_samples: int) -> None:
        self._data = codestream
        self._most_samples = most_samples
        self._precision = self._rows = self._columns = 0
        self._components: tuple[int, ...] = ()
        self._tables: dict[int, bytes] = {}
        self._restart_interval = 0
        self._samples: array[int] = array("H")
        self._scanned: set[int] = set()
        self._position = 2

    def segments(self) -> Iterator[tuple[int, int, int]]:
        """Marker, start and end of each marker segment, up to the end of the image."""
        data = self._data
        if data[:2] != bytes((0xFF, _START_OF_IMAGE)):
            raise ValueError("no start of image")
        while True:
            while data[self._position] == 0xFF and data[self._position + 1] == 0xFF:
                self._position += 1
            prefix, marker = data[self._position : self._position + 2]
            if prefix != 0xFF:
                raise ValueError("no marker")
            if marker == _END_OF_IMAGE:
                return
            start = self._position + 4
            self._position += 2 + int.from_bytes(data[start - 2 : start])
            yield marker, start, self._position

    def take(self, marker: int, start: int, end: int) -> None:
        """Take note of a marker segment, and decode the scan behind it if it begins one."""
        content = self._data[start:end]
        if marker == _LOSSLESS_HUFFMAN_FRAME:
            self._begin_frame(content)
        elif marker in _OTHER_FRAMES:
            raise ValueError("not lossless with Huffman coding")
        elif marker == _HUFFMAN_TABLES:
            while content:
                length = 17 + sum(content[1:17])
                self._tables[content[0]] = content[1:length]
                content = content[length:]
        elif marker == _RESTART_INTERVAL:
            (self._restart_interval,) = struct.unpack(">H", content)
        elif marker == _START_OF_SCAN:
            self._scan(content)

    def picture(self) -> Picture:
        """What was decoded."""
        if self._scanned != set(self._components) or not self._scanned:
            raise ValueError("components are missing")
        return Picture(self._rows, self._columns, len(self._components), self._precision, self._samples)

    def _begin_frame(self, content: bytes) -> None:
        self._precision, self._rows, self._columns, count = struct.unpack_from(">BHHB", content)
        specifications = [content[at : at + 3] for at in range(6, 6 + 3 * count, 3)]
        self._components = tuple(component for component, _, _ in specifications)
        if self._samples or len(set(self._components)) != count or not 2 <= self._precision <= 16:
            raise ValueError("frame header")
        if len({sampling for _, sampling, _ in specifications}) != 1:
            raise ValueError("components of different resolution")
        size = self._rows * self._columns * count
        if not 0 < size <= self._most_samples:
            raise ValueError("size")
        self._samples = array("H", bytes(2 * size))

    def _scan(self, content: bytes) -> None:
        count = content[0]
        selectors = [content[at : at + 2] for at in range(1, 1 + 2 * count, 2)]
        predictor, _, approximation = content[1 + 2 * count : 4 + 2 * count]
        if approximation:
            raise ValueError("a point transform loses bits")
        places = [self._components.index(component) for component, _ in selectors]
        if self._scanned.intersection(component for component, _ in selectors) or len(set(places)) != count:
            raise ValueError("component coded twice")
        self._scanned.update(component for component, _ in selectors)
        tables = [_table(self._tables[table >> 4]) for _, table in selectors]
        rows_of_interval, rest = divmod(self._restart_interval, self._columns)
        if rest:
            raise ValueError("restart interval")
        found = _END_OF_SCAN.search(self._data, self._position)
        end = found.start() if found else len(self._data)
        row = 0
        for interval in _RESTART.split(self._data[self._position : end]):
            bits = _Bits(interval.replace(b"\xff\0", b"\xff"))
            last = min(row + rows_of_interval, self._rows) if rows_of_interval else self._rows
            self._decode_rows(range(row, last), bits, list(zip(places, tables, strict=True)), _PREDICTORS[predictor])
            row = last
        if row != self._rows:
            raise ValueError("rows are missing")
        self._position = end

    def _decode_rows(
        self,
        rows: range,
        bits: _Bits,
        components: Sequence[tuple[int, Table]],
        predict: Callable[[int, int, int], int],
    ) -> None:
        columns, width, samples = self._columns, len(self._components), self._samples
        tables = [table for _, table in components]
        above: list[list[int]] = [[] for _ in components]
        for row in rows:
            differences = bits.differences(tables, columns)
            start = row * columns * width
            for index, (place, _) in enumerate(components):
                line = self._line(differences[index :: len(components)], above[index], predict)
                above[index] = line
                samples[start + place : start + columns * width : width] = array("H", line)

    def _line(self, differences: list[int], above: list[int], predict: Callable[[int, int, int], int]) -> list[int]:
        """The samples of a line. Sums are modulo 2**16 (T.81 H.1.2.1)."""
        if not above or predict is _PREDICTORS[1]:
            # T.81 H.1.2.1: the first line is predicted from the left, its first sample by half the range.
            differences[0] += above[0] if above else 1 << self._precision - 1
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
    table: Table = []
    for length, count in enumerate(counts, 1):
        for size in (next(symbols) for _ in range(count)):
            if size > 16:
                raise ValueError("difference of more than 16 bits")
            more = size if size < 16 else 0  # T.81 Table H.2: 32768 needs no bits
            spare = _WINDOW - length - more
            if spare < 0:
                table += [(-length, size)] * (1 << _WINDOW - length)
                continue
            for extra in range(1 << more):
                table += [(length + more, _difference(size, extra))] * (1 << spare)
    if len(table) > 1 << _WINDOW:
        raise ValueError("Huffman table")
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
