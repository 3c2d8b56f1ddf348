"""The headers of data elements and items (PS3.5 7.1, 7.5): looked at in place, checked before anything follows them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from agent.dicom.elements import (
    ITEM_DELIMITATION,
    LONG_VRS,
    PIXEL_DATA,
    SEQUENCE_DELIMITATION,
    SHORT_VRS,
    UNDEFINED_LENGTH,
    Encoding,
    dictionary_vr,
    tag_name,
)
from agent.dicom.window import Window
from agent.errors import DicomError

_TAG = {"<": struct.Struct("<HH"), ">": struct.Struct(">HH")}
_LENGTH_16 = {"<": struct.Struct("<H"), ">": struct.Struct(">H")}
_LENGTH_32 = {"<": struct.Struct("<I"), ">": struct.Struct(">I")}
_LENGTH_LONG = {"<": struct.Struct("<HI"), ">": struct.Struct(">HI")}


@dataclass(frozen=True)
class Limits:
    """What an instance may demand of the scanner."""

    depth: int = 32  # sequences inside each other
    elements: int = 1_000_000  # elements, items and fragments
    captured: int = 65_536  # bytes of a value that is looked at


DEFAULT_LIMITS = Limits()


class Visits:
    """How often elements may be visited in all walks over one instance together.

    Args:
        left: Elements, items and fragments that may still be visited.
    """

    def __init__(self, left: int) -> None:
        self.left = left

    def count(self, elements: int) -> None:
        """Count elements that were visited.

        Raises:
            DicomError: More than the limit.
        """
        self.left -= elements
        if self.left < 0:
            raise DicomError(
                "The instance is built so that reading it takes too long.",
                remedy="No real object needs that; the instance was made to do harm or is damaged.",
                code="too-many-elements",
            )


class Header(NamedTuple):
    """Tag, VR and length of an element; a delimiter has no VR.

    Args:
        tag: The tag.
        vr: Two bytes; b"--" for a delimiter.
        length: The length field, possibly undefined.
        size: Bytes of the header itself.
    """

    tag: int
    vr: bytes
    length: int
    size: int


class Scope:
    """How the elements of one data set or item are read: their encoding, and what settles the VR "US or SS".

    That is Pixel Representation (0028,0103) of the item itself, else of what encloses it (PS3.5 A.1).
    """

    def __init__(self, encoding: Encoding, outer: Scope | None = None) -> None:
        self.encoding = encoding
        self.outer = outer
        self.signed_pixels: bool | None = outer.signed_pixels if outer else None
        self.taken_for_unsigned = False  # an element was, before it could be known

    def inner(self, encoding: Encoding) -> Scope:
        """The scope of an item inside this one."""
        return Scope(encoding, self)

    def vr(self, tag: int) -> bytes:
        """The VR of an element that does not state it."""
        vr = dictionary_vr(tag)
        if vr != b"xs":
            return vr
        scope: Scope | None = self if self.signed_pixels is None else None
        while scope is not None:
            scope.taken_for_unsigned = True
            scope = scope.outer
        return b"SS" if self.signed_pixels else b"US"

    def note_pixel_representation(self, value: bytes) -> None:
        """Take note of Pixel Representation (0028,0103).

        Raises:
            DicomError: An element before it was taken for unsigned, and is not.
        """
        self.signed_pixels = value[:1] == b"\x01"
        if self.signed_pixels and self.taken_for_unsigned:
            raise malformed("An element of VR US or SS comes before Pixel Representation settles it.", "vr-ambiguous")


class HeaderReader:
    """Reads headers from a window.

    Args:
        window: Where the bytes come from.
        encapsulated: Whether the transfer syntax stores Pixel Data in fragments (PS3.5 A.4).
        limits: What the instance may demand.
        visits: What all walks over it may cost together, if there are several.
    """

    def __init__(self, window: Window, limits: Limits, *, encapsulated: bool, visits: Visits | None = None) -> None:
        self._window = window
        self._limits = limits
        self._encapsulated = encapsulated
        self._elements_left = limits.elements
        self._visits = visits

    def element(self, scope: Scope, *, first: bool = False) -> Header:
        """Look at the header of the next element; nothing is consumed.

        Args:
            scope: The data set or item that it is in.
            first: Whether it is the first one there.

        Raises:
            DicomError: It is cut off or not well-formed.
        """
        self.count(1)
        window, encoding = self._window, scope.encoding
        window.need(8)
        position = window.position
        group, element = _TAG[encoding.order].unpack_from(window.buffer, position)
        tag = group << 16 | element
        if group == 0xFFFE or not encoding.explicit:
            (length,) = _LENGTH_32[encoding.order].unpack_from(window.buffer, position + 4)
            if first and group != 0xFFFE and _looks_explicit(window.view[position + 4 : position + 6]):
                # Some readers go by these two bytes of the first element and not by the transfer syntax.
                raise malformed(f"{tag_name(tag)} can be read as implicit and as explicit VR.", "vr-ambiguous")
            header = Header(tag, b"--" if group == 0xFFFE else scope.vr(tag), length, 8)
        else:
            header = self._explicit_header(tag, position, encoding)
        if header.length == UNDEFINED_LENGTH:
            self._check_undefined_length(header)
        elif header.length & 1:
            raise malformed(f"{tag_name(tag)} has an odd length (PS3.5 7.1.1).", "length-wrong")
        return header

    def _explicit_header(self, tag: int, position: int, encoding: Encoding) -> Header:
        window = self._window
        vr = bytes(window.view[position + 4 : position + 6])
        if vr in SHORT_VRS:
            (length,) = _LENGTH_16[encoding.order].unpack_from(window.buffer, position + 6)
            return Header(tag, vr, length, 8)
        if vr not in LONG_VRS:
            raise DicomError(
                f"{tag_name(tag)} at byte {window.offset} has the unknown VR {vr!r}.",
                remedy="The instance is damaged, or encoded in another transfer syntax than it says.",
                code="vr-unknown",
            )
        window.need(12)
        reserved, length = _LENGTH_LONG[encoding.order].unpack_from(window.buffer, window.position + 6)
        if reserved:
            raise malformed(f"The reserved bytes of {tag_name(tag)} are not zero (PS3.5 7.1.2).", "reserved-bytes-set")
        return Header(tag, vr, length, 12)

    def _check_undefined_length(self, header: Header) -> None:
        if header.vr in (b"SQ", b"UN") or header.tag in (ITEM_DELIMITATION, SEQUENCE_DELIMITATION):
            return
        if header.tag == PIXEL_DATA and header.vr in (b"OB", b"OW") and self._encapsulated:
            return
        raise malformed(f"{tag_name(header.tag)} has an undefined length, which its VR does not allow.", "length-wrong")

    def item(self, encoding: Encoding) -> tuple[int, int]:
        """Consume the header of an item, a fragment or a delimiter."""
        self.count(1)
        window = self._window
        window.need(8)
        group, element = _TAG[encoding.order].unpack_from(window.buffer, window.position)
        (length,) = _LENGTH_32[encoding.order].unpack_from(window.buffer, window.position + 4)
        window.position += 8
        return group << 16 | element, length

    def value_ahead(self, header: Header) -> bytes:
        """The value of the element whose header was looked at; nothing is consumed."""
        if header.length > self._limits.captured:
            raise malformed(f"{tag_name(header.tag)} is too long for what it is.", "length-wrong")
        window = self._window
        window.need(header.size + header.length)
        start = window.position + header.size
        return bytes(window.view[start : start + header.length])

    def count(self, elements: int) -> None:
        """Count elements that were read in another way.

        Raises:
            DicomError: More than the limit.
        """
        if self._visits is not None:
            self._visits.count(elements)
        self._elements_left -= elements
        if self._elements_left < 0:
            raise DicomError(
                f"The instance has more than {self._limits.elements} elements and items.",
                remedy="No real object needs that many; the instance was made to do harm or is damaged.",
                code="too-many-elements",
            )


def _looks_explicit(length_or_vr: memoryview) -> bool:
    return all(0x41 <= byte <= 0x5A for byte in length_or_vr)


def malformed(what: str, code: str) -> DicomError:
    """The refusal of an instance that breaks PS3.5."""
    return DicomError(what, remedy="It is not well-formed DICOM: have it made again by its source.", code=code)
