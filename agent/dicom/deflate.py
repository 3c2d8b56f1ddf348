"""Deflated data sets (PS3.5 A.5): inflated while they are read, within bounds, and deflated again once signed."""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from agent.dicom.headers import Limits
from agent.dicom.splice import Edit
from agent.dicom.transfer_syntax import TransferSyntax
from agent.dicom.window import Window
from agent.errors import DicomError

RAW_DEFLATE = -zlib.MAX_WBITS  # PS3.5 A.5: no zlib header
# Not told by its ratio: an honest image that is all black may well be 1:1000. As much as a verifier holds in memory, so
# that what can be signed can be verified.
MOST_INFLATED = 256 << 20  # bytes
# The answer holds the body deflated anew, so its size is bounded by what one request may take of memory.
MOST_DEFLATED = 32 << 20  # bytes
# Empty items deflate a thousandfold, and it is their number that costs time.
MOST_ELEMENTS = 200_000
INPUT_PIECE = 1 << 16  # bytes
INFLATED_BUFFER = 1 << 18  # bytes


def inflated(window: Window, syntax: TransferSyntax, limits: Limits) -> tuple[Window, Limits]:
    """The window from which the data set is read, and its limits; what was given unless it is deflated."""
    if not syntax.deflated:
        return window, limits
    return (
        Window(Inflater(window).read_into, bytearray(INFLATED_BUFFER)),
        replace(limits, elements=min(limits.elements, MOST_ELEMENTS)),
    )


class Inflater:
    """Inflates what follows in a window; `read_into` is the source of a window over the inflated data set.

    Args:
        deflated: Stands at the first deflated byte.
    """

    def __init__(self, deflated: Window) -> None:
        self._deflated = deflated
        self._start = deflated.offset
        self._inflate = zlib.decompressobj(RAW_DEFLATE)
        self._size = 0
        self._checksum = 0

    def read_into(self, target: memoryview) -> int:
        """Put the next inflated bytes into `target`; 0 at the end.

        Raises:
            DicomError: Not a deflated stream, cut off, or a bomb.
        """
        if self._inflate.eof:
            self._check_end()
            return 0
        try:
            # Output may wait inside zlib although there is no input left over, so look before feeding more.
            data = self._inflate.decompress(self._inflate.unconsumed_tail, len(target))
            while not data and not self._inflate.eof:
                data = self._inflate.decompress(self._input(), len(target))
        except zlib.error as error:
            raise DicomError(
                f"The deflated data set is damaged: {error}.",
                remedy="Send the instance again from the source.",
                code="deflate-damaged",
            ) from error
        self._count(len(data))
        self._checksum = zlib.crc32(data, self._checksum)
        target[: len(data)] = data
        return len(data) or self.read_into(target)

    def _input(self) -> bytes:
        if self._deflated.at_end():
            raise DicomError(
                "The deflated data set ends too early.",
                remedy="It was cut off: send it again from the source.",
                code="truncated",
            )
        window = self._deflated
        return window.take(min(INPUT_PIECE, window.filled - window.position))

    def _count(self, size: int) -> None:
        self._size += size
        consumed = self._deflated.offset - self._start
        if consumed > MOST_DEFLATED:
            raise DicomError(
                f"The deflated data set is larger than {MOST_DEFLATED >> 20} MiB.",
                remedy="Store the instance without deflate before it is signed.",
                code="deflated-too-large",
            )
        if self._size > MOST_INFLATED:
            raise DicomError(
                f"The deflated data set grows beyond {MOST_INFLATED >> 20} MiB.",
                remedy="Store the instance without deflate before it is signed.",
                code="deflate-bomb",
            )

    def _check_end(self) -> None:
        # PS3.5 A.5: one byte 00 may follow, to make the length even. Some writers leave the trailer of gzip (RFC 1952
        # 2.3.1) there, which DICOM does not know; it does no harm as long as it is right.
        trailer = struct.pack("<II", self._checksum, self._size & 0xFFFFFFFF)
        rest = self._inflate.unused_data + _beginning(self._deflated, len(trailer) + 2)
        if rest.removeprefix(trailer) not in (b"", b"\0"):
            raise DicomError(
                "Bytes follow the deflated data set.",
                remedy="The instance is not well-formed DICOM: have it made again by its source.",
                code="deflate-damaged",
            )


def _beginning(window: Window, most: int) -> bytes:
    """Consume the rest of the window and return its first bytes."""
    first = b""
    while not window.at_end():
        first += window.take(min(most, window.filled - window.position))[: most - len(first)]
    return first


def deflated_again(deflated: Iterable[bytes | memoryview], edits: Sequence[Edit]) -> Iterator[bytes]:
    """Inflate, apply the edits, deflate.

    Args:
        deflated: The deflated data set, which was read before without an error.
        edits: With offsets in the inflated data set.
    """
    deflater = zlib.compressobj(wbits=RAW_DEFLATE)
    size = 0
    for piece in _edited(_inflated(deflated), edits):
        out = deflater.compress(piece)
        size += len(out)
        yield out
    out = deflater.flush()
    yield out + b"\0" * ((size + len(out)) % 2)


def _edited(pieces: Iterable[bytes], edits: Sequence[Edit]) -> Iterator[bytes | memoryview]:
    waiting = deque(edits)
    position = remove = 0
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            if remove:
                count = min(remove, len(rest))
                remove -= count
            elif waiting and waiting[0].offset == position:
                edit = waiting.popleft()
                yield edit.insert
                remove = edit.remove
                continue
            else:
                count = min(waiting[0].offset - position, len(rest)) if waiting else len(rest)
                yield rest[:count]
            position += count
            rest = rest[count:]
    for edit in waiting:
        yield edit.insert


def _inflated(deflated: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    inflate = zlib.decompressobj(RAW_DEFLATE)
    for piece in deflated:
        out = inflate.decompress(piece, INPUT_PIECE)
        while out:
            yield out
            out = inflate.decompress(inflate.unconsumed_tail, INPUT_PIECE)
