"""The bytes that a MAC covers, written element by element under a reading that may differ from the standard's.

The verifier hashes stored bytes where they lie. This is the slow second way, for the time after that has failed: every
element is taken apart and written again, so that each step can be done as somebody else may have done it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from agent.dicom.data_set import DataSet
from agent.dicom.elements import (
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    ITEM,
    PIXEL_DATA,
    SEQUENCE_DELIMITATION,
    SHORT_VRS,
    SWAPPED_WIDTHS,
    TEXT_VRS,
    swap,
)
from agent.dicom.headers import DEFAULT_LIMITS, malformed
from agent.dicom.signable import is_signable

_ITEM = EXPLICIT_LITTLE_ENDIAN.item_header(ITEM, 0)[:4]
_SEQUENCE_END = EXPLICIT_LITTLE_ENDIAN.item_header(SEQUENCE_DELIMITATION, 0)[:4]
_WHITE_SPACE = b" \t\n\v\f\r"
_ANY_SEQUENCE = 0x00081140  # Referenced Image Sequence


@dataclass(frozen=True)
class Element:
    """An element as it is to be written.

    Args:
        vr: Its VR.
        value: The value in little endian; unused if there are items or fragments.
        items: Makes it a sequence.
        fragments: Makes it encapsulated Pixel Data; the Basic Offset Table first.
    """

    vr: bytes
    value: bytes | memoryview = field(default=b"", repr=False)
    items: tuple[DataSet, ...] | None = None
    fragments: tuple[memoryview, ...] | None = None


class Piece(NamedTuple):
    """A part of the byte stream.

    Args:
        data: The bytes.
        level: The sequences that it is inside of; their own headers and ends are outside.
        room: Bytes that DCMTK wants to be free before it begins to write this; 0 for a value, which it may split.
    """

    data: bytes | memoryview
    level: int
    room: int = 0


# Where an element is: its tag, preceded by the tag and the item number of each sequence that it is in.
Place = tuple[int, ...]
VrOf = Callable[[DataSet, int, bytes], bytes]


def stored_vr(_data_set: DataSet, _tag: int, vr: bytes) -> bytes:
    """The VR that the data set states, or the dictionary of the standard for it."""
    return vr


@dataclass(frozen=True)
class Reading:
    """How stored elements are understood and written. Without arguments, as the standard says.

    Args:
        vr_of: Gives the VR of an element, from where it is, its tag and its stored VR.
        encapsulated_vr: The VR of Pixel Data in fragments.
        fragment_lengths: Whether fragments are written with their lengths.
        trimmed: Whether strings are padded anew, as DCMTK does it.
        restored: Elements that take the place of what is stored.
        passed_on: What becomes of the byte stream on its way to the hash.
    """

    vr_of: VrOf = stored_vr
    encapsulated_vr: bytes = b"OB"
    fragment_lengths: bool = False
    trimmed: bool = False
    restored: Mapping[Place, Element] = field(default_factory=dict)
    passed_on: Callable[[Iterable[Piece]], Iterator[Piece]] = iter

    def with_vrs(self, vr_of: VrOf) -> Reading:
        """This reading, with other VRs than it gives."""
        return replace(self, vr_of=lambda data_set, tag, vr: vr_of(data_set, tag, self.vr_of(data_set, tag, vr)))

    def restoring(self, elements: Mapping[Place, Element]) -> Reading:
        """This reading, with other elements in the place of what is stored."""
        return replace(self, restored={**self.restored, **elements})

    def fits(self, data_set: DataSet, tags: Sequence[int]) -> bool:
        """Whether every element of these tags is there to be read."""
        return all(tag in data_set or (tag,) in self.restored for tag in tags)

    def pieces(self, data_set: DataSet, tags: Sequence[int]) -> Iterator[Piece]:
        """The byte stream over these elements of a data set (PS3.3 C.12.1.1.3.1.1).

        Args:
            data_set: The data set.
            tags: Data Elements Signed, in order; the reading `fits` them.
        """
        return self.passed_on(self._pieces(data_set, tags))

    def element(self, data_set: DataSet, tag: int) -> Element:
        """An element as stored, understood in this way."""
        stored = data_set.vr(tag)
        vr = self.vr_of(data_set, tag, stored)
        if stored == b"SQ":
            return Element(vr, items=tuple(data_set.items(tag)))
        if fragments := data_set.fragments(tag) if tag == PIXEL_DATA else ():
            return Element(self.encapsulated_vr, fragments=fragments)
        raw, header_size = data_set.raw(tag), _header_size(data_set, stored)
        if vr == b"SQ":
            return Element(vr, items=_items_of_unknown_vr(raw[header_size - 4 :]))
        value = raw[header_size:] if data_set.encoding.little_endian else _swapped(stored, raw[header_size:])
        return Element(vr, _repadded(vr, value) if self.trimmed and vr in TEXT_VRS else value)

    def vrs(self, data_set: DataSet, tags: Iterable[int]) -> Iterator[tuple[int, bytes, bytes]]:
        """Tag, stored VR and VR in this reading of these elements and of those inside them, fragments left out.

        Raises:
            DicomError: An element cannot be understood in this way.
        """
        for tag in tags:
            if tag not in data_set:
                continue
            element = self.element(data_set, tag)
            if element.fragments is None:
                yield tag, data_set.vr(tag), element.vr
            for item in element.items or ():
                yield from self.vrs(item, item.tags)

    def _pieces(self, data_set: DataSet, tags: Sequence[int]) -> Iterator[Piece]:
        for tag in tags:
            yield from self._element_pieces(data_set, (tag,), level=0)

    def _element_pieces(self, data_set: DataSet, place: Place, level: int) -> Iterator[Piece]:
        tag = place[-1]
        element = self.restored.get(place) or self.element(data_set, tag)
        vr = element.vr
        if element.items is not None:
            yield Piece(EXPLICIT_LITTLE_ENDIAN.header(tag, b"SQ", 0)[:8], level, room=12)
            for number, item in enumerate(element.items):
                yield Piece(_ITEM, level + 1, room=4)
                for inner in filter(is_signable, item.tags):
                    yield from self._element_pieces(item, (*place, number, inner), level + 1)
            yield Piece(_SEQUENCE_END, level, room=4)
        elif element.fragments is not None:
            yield Piece(EXPLICIT_LITTLE_ENDIAN.header(tag, b"OB", 0)[:4] + vr + b"\0\0", level, room=12)
            for fragment in element.fragments:
                length = struct.pack("<I", len(fragment)) if self.fragment_lengths else b""
                yield Piece(_ITEM + length, level, room=4 + len(length))
                yield Piece(fragment, level)
            yield Piece(_SEQUENCE_END, level, room=4)
        else:
            # A value too long for the length field of its VR cannot have been signed under it.
            vr = b"UN" if vr in SHORT_VRS and len(element.value) > 0xFFFF else vr
            header = EXPLICIT_LITTLE_ENDIAN.header(tag, vr, len(element.value))
            yield Piece(header, level, room=len(header))
            yield Piece(element.value, level)


PIXELS = "pixels"  # the kind of the changes that settle how Pixel Data is read


@dataclass(frozen=True)
class Change:
    """One way in which the reading may differ from the standard's.

    Args:
        kind: Two changes of the same kind exclude each other.
        variant: Stable name, for reports.
        what: For people.
        apply: Makes the changed reading.
        legitimate: Whether it restores exactly what was signed.
    """

    kind: str
    variant: str
    what: str
    apply: Callable[[Reading], Reading] = field(repr=False)
    legitimate: bool = False


def _header_size(data_set: DataSet, vr: bytes) -> int:
    return 8 if vr in SHORT_VRS or not data_set.encoding.explicit else 12


def _items_of_unknown_vr(length_and_value: memoryview) -> tuple[DataSet, ...]:
    """The items of a sequence that is stored without saying so: in implicit VR little endian (PS3.5 6.2.2, CP-246).

    Raises:
        DicomError: They are no items, or something hides in them that no signature covers.
    """
    # Under the tag of a sequence that the standard knows, the same bytes are read as items.
    data = IMPLICIT_LITTLE_ENDIAN.header(_ANY_SEQUENCE, b"SQ", 0)[:4] + bytes(length_and_value)
    found = DataSet(data, 0, len(data), IMPLICIT_LITTLE_ENDIAN, DEFAULT_LIMITS)
    # The walk over the instance, which takes these bytes for a value, did not see it.
    if found.survey.outline.hidden or found.survey.outline.nested_signatures:
        raise malformed("A sequence of unknown VR holds what no signature covers.", "element-hidden")
    return tuple(found.items(_ANY_SEQUENCE))


def _swapped(vr: bytes, value: memoryview) -> bytes | memoryview:
    width = SWAPPED_WIDTHS.get(vr, 1)
    return value if width == 1 or len(value) % width else swap(value, width)


def _repadded(vr: bytes, value: bytes | memoryview) -> bytes:
    """A string as DCMTK corrects it: white space out of UIDs, no more padding than an even length needs."""
    text = bytes(value)
    if vr == b"UI":
        text = text.translate(None, _WHITE_SPACE)
    padding = b"\0" if vr == b"UI" else b" "
    text = text.rstrip(padding + b"\0")
    return text + padding * (len(text) % 2)
