"""Reads a whole DICOM file into a tree of elements, naively.

Values come out as explicit VR little endian would hold them, whatever the encoding of the file. The reader is slow,
recursive and without limits on purpose, and shares nothing with the product's scanner. VRs that an implicit VR file
leaves out come from pydicom's dictionaries.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from pydicom import datadict

IMPLICIT_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
EXPLICIT_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"

ITEM: Final = 0xFFFEE000
ITEM_END: Final = 0xFFFEE00D
SEQUENCE_END: Final = 0xFFFEE0DD
MAC_PARAMETERS: Final = 0x4FFE0001
DIGITAL_SIGNATURES: Final = 0xFFFAFFFA
PIXEL_REPRESENTATION: Final = 0x00280103
CURVE_DATA: Final = 0x50003000
PIXEL_DATA: Final = 0x7FE00010
UNDEFINED: Final = 0xFFFFFFFF

TEXT_SHORT_VRS: Final = ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UI")
US_OR_SS: Final = "US or SS"
SHORT_VRS: Final = frozenset((*TEXT_SHORT_VRS, "AT", "FD", "FL", "SL", "SS", "UL", "US"))
LONG_VRS: Final = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"))
SWAPPED_WIDTH: Final = {
    **dict.fromkeys(("AT", "OW", "SS", "US"), 2),
    **dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4),
    **dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8),
}


class UnreadableDicom(Exception):
    """The bytes are not a DICOM instance that this reader understands."""


@dataclass(frozen=True)
class Element:
    """One data element, its value as explicit VR little endian would hold it.

    Attributes:
        value: The value bytes with their padding; empty for sequences and encapsulated pixel data.
        items: The items of a sequence.
        fragments: The fragments of encapsulated pixel data, Basic Offset Table first.
        start: Offset of the first byte of the tag in the body the element was read from.
        end: Offset behind the last byte.
    """

    tag: int
    vr: str
    value: bytes = b""
    items: tuple[Elements, ...] | None = None
    fragments: tuple[bytes, ...] | None = None
    start: int = 0
    end: int = 0


Elements: TypeAlias = tuple[Element, ...]


@dataclass(frozen=True)
class Instance:
    """A DICOM Part 10 file taken apart.

    Attributes:
        head: Preamble, prefix and file meta information.
        body: The data set, inflated if it was deflated. Offsets of `elements` count from its start.
    """

    head: bytes
    transfer_syntax: str
    body: bytes
    elements: Elements


def tag_bytes(tag: int) -> bytes:
    """A tag as two little endian 16-bit numbers."""
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF)


def parse(data: bytes) -> Instance:
    """Take a Part 10 file apart (PS3.10 7.1)."""
    if data[128:132] != b"DICM":
        raise UnreadableDicom("no DICM prefix")
    meta, position = [], 132
    reader = Reader(data, explicit=True, big_endian=False)
    while data[position : position + 2] == b"\x02\x00":
        element = reader.element(position)
        meta.append(element)
        position = element.end
    syntaxes = [element.value for element in meta if element.tag == 0x00020010]
    if len(syntaxes) != 1:
        raise UnreadableDicom("no transfer syntax")
    syntax = syntaxes[0].decode("ascii").rstrip("\0 ")
    body = data[position:]
    if syntax == DEFLATED_EXPLICIT_LITTLE_ENDIAN:
        body = zlib.decompress(body, -zlib.MAX_WBITS)
    return Instance(data[:position], syntax, body, parse_data_set(body, syntax))


def parse_data_set(body: bytes, transfer_syntax: str) -> Elements:
    """Read a data set that fills `body`."""
    reader = Reader(
        body,
        explicit=transfer_syntax != IMPLICIT_LITTLE_ENDIAN,
        big_endian=transfer_syntax == EXPLICIT_BIG_ENDIAN,
    )
    elements, end = reader.elements(0, len(body))
    if end != len(body):
        raise UnreadableDicom(f"data set ends at {end} of {len(body)}")
    return resolved(elements, signed_pixels=False)


def resolved(elements: Elements, *, signed_pixels: bool) -> Elements:
    """The elements with SS or US by the Pixel Representation of the data set or the nearest one around it."""
    representation = find(elements, PIXEL_REPRESENTATION)
    if representation is not None:
        signed_pixels = representation.value[:1] == b"\x01"
    vr = "SS" if signed_pixels else "US"
    return tuple(
        replace(
            element,
            vr=vr if element.vr == US_OR_SS else element.vr,
            items=element.items and tuple(resolved(item, signed_pixels=signed_pixels) for item in element.items),
        )
        for element in elements
    )


class Reader:
    """Reads elements at given offsets of one encoding."""

    def __init__(self, data: bytes, *, explicit: bool, big_endian: bool) -> None:
        self.data = data
        self.explicit = explicit
        self.order = ">" if big_endian else "<"

    def unpack(self, form: str, position: int) -> tuple[int, ...]:
        """Numbers at a position, in the byte order of the encoding."""
        try:
            return struct.unpack_from(self.order + form, self.data, position)
        except struct.error as error:
            raise UnreadableDicom(f"truncated at {position}") from error

    def tag(self, position: int) -> int:
        """The tag at a position."""
        group, element = self.unpack("HH", position)
        return group << 16 | element

    def elements(self, position: int, end: int) -> tuple[Elements, int]:
        """Elements up to `end` or an item delimiter; the second result is the offset behind them."""
        found: list[Element] = []
        creators: dict[int, str] = {}
        while position < end:
            if self.tag(position) == ITEM_END:
                return tuple(found), position + 8
            element = self.element(position, creators)
            if element.tag >> 16 & 1 and 0x10 <= element.tag & 0xFFFF <= 0xFF:
                creators[element.tag] = element.value.decode("ascii", "replace").strip(" \0")
            found.append(element)
            position = element.end
        return tuple(found), position

    def element(self, start: int, creators: dict[int, str] | None = None) -> Element:
        """The element at a position."""
        tag = self.tag(start)
        vr, length, position = self.header(start, tag, creators or {})
        if vr == "UN" and length == UNDEFINED:
            # CP-246: the content of an undefined-length UN is a sequence in implicit VR little endian.
            inner = Reader(self.data, explicit=False, big_endian=False)
            _, end = inner.items(position, UNDEFINED)
            return Element(tag, "UN", start=start, end=end)
        if vr == "SQ":
            items, end = self.items(position, length)
            return Element(tag, vr, items=items, start=start, end=end)
        if length == UNDEFINED:
            fragments, end = self.fragments(position)
            return Element(tag, "OB", fragments=fragments, start=start, end=end)
        end = position + length
        if end > len(self.data):
            raise UnreadableDicom(f"{tag:08X} at {start} is truncated")
        return Element(tag, vr, value=self.little_endian(vr, self.data[position:end]), start=start, end=end)

    def header(self, position: int, tag: int, creators: dict[int, str]) -> tuple[str, int, int]:
        """VR, length and offset of the value."""
        if not self.explicit:
            (length,) = self.unpack("L", position + 4)
            vr = vr_from_dictionary(tag, creators)
            if length == UNDEFINED and tag != PIXEL_DATA:
                vr = "SQ"
            if vr in SHORT_VRS and length > 0xFFFE:
                vr = "UN"
            return vr, length, position + 8
        vr = self.data[position + 4 : position + 6].decode("latin-1")
        if vr in SHORT_VRS:
            return vr, self.unpack("H", position + 6)[0], position + 8
        if vr not in LONG_VRS:
            raise UnreadableDicom(f"{tag:08X} at {position} has VR {vr!r}")
        return vr, self.unpack("L", position + 8)[0], position + 12

    def items(self, position: int, length: int) -> tuple[tuple[Elements, ...], int]:
        """The items of a sequence of defined or undefined length."""
        found: list[Elements] = []
        end = len(self.data) if length == UNDEFINED else position + length
        if end > len(self.data):
            raise UnreadableDicom(f"sequence with its value at {position} is truncated")
        while position < end:
            tag = self.tag(position)
            (item_length,) = self.unpack("L", position + 4)
            position += 8
            if tag == SEQUENCE_END:
                break
            if tag != ITEM:
                raise UnreadableDicom(f"{tag:08X} at {position - 8} instead of an item")
            item_end = end if item_length == UNDEFINED else position + item_length
            if item_end > end:
                raise UnreadableDicom(f"item at {position - 8} runs past its sequence")
            item, position = self.elements(position, item_end)
            found.append(item)
        return tuple(found), position

    def fragments(self, position: int) -> tuple[tuple[bytes, ...], int]:
        """The fragments of encapsulated pixel data up to the sequence delimiter."""
        found: list[bytes] = []
        while True:
            tag = self.tag(position)
            (length,) = self.unpack("L", position + 4)
            position += 8
            if tag == SEQUENCE_END:
                return tuple(found), position
            if tag != ITEM or position + length > len(self.data):
                raise UnreadableDicom(f"damaged fragment at {position - 8}")
            found.append(self.data[position : position + length])
            position += length

    def little_endian(self, vr: str, raw: bytes) -> bytes:
        """A value turned into little endian order."""
        width = SWAPPED_WIDTH.get(vr, 1)
        if self.order == "<" or width == 1:
            return raw
        return b"".join(raw[at : at + width][::-1] for at in range(0, len(raw), width))


def vr_from_dictionary(tag: int, creators: dict[int, str]) -> str:
    """The VR an implicit VR file leaves to the reader (PS3.5 6.1.2, PS3.6)."""
    if tag & 0xFFFF == 0:
        return "UL"
    if tag >> 16 & 1:
        return private_vr(tag, creators)
    try:
        vr = datadict.dictionary_VR(tag)
    except KeyError:
        return "UN"
    if vr == US_OR_SS:
        return vr
    if tag & 0xFF01FFFF == CURVE_DATA:
        return "OB"
    # PS3.5 A.1: in implicit VR pixel, overlay, waveform and lookup table data are OW.
    return "OW" if " or " in vr else vr


def private_vr(tag: int, creators: dict[int, str]) -> str:
    """The VR of a private element by its creator (PS3.5 7.8.1)."""
    element = tag & 0xFFFF
    if 0x10 <= element <= 0xFF:
        return "LO"
    creator = creators.get(tag & 0xFFFF0000 | element >> 8)
    try:
        return datadict.private_dictionary_VR(tag, creator) if creator else "UN"
    except KeyError:
        return "UN"


def without(instance: Instance, tags: Collection[int]) -> bytes:
    """The body with the top-level elements of these tags cut out and every other byte as it was."""
    kept, position = [], 0
    for element in instance.elements:
        if element.tag in tags:
            kept.append(instance.body[position : element.start])
            position = element.end
    return b"".join((*kept, instance.body[position:]))


def find(elements: Elements, tag: int) -> Element | None:
    """The first top-level element with this tag."""
    return next((element for element in elements if element.tag == tag), None)


def value(item: Elements, tag: int) -> bytes:
    """The value of the element with this tag."""
    return next(element.value for element in item if element.tag == tag)


def number(item: Elements, tag: int) -> int:
    """The value of a US element."""
    return int.from_bytes(value(item, tag), "little")
