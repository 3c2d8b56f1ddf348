"""Tags, value representations and encodings of data elements (PS3.5 section 6.2 and 7).

A tag is one integer, group << 16 | element, so that the order of the data set is the order of integers.
"""

from __future__ import annotations

import array
import json
import struct
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

# PS3.5 7.1.2: these have a 16-bit length; every other VR has two reserved bytes and a 32-bit length.
SHORT_VRS = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split(),
)
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
TEXT_VRS = frozenset(b"AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT".split())
# PS3.5 7.3: width in bytes of the numbers that a big endian file stores in the other order.
SWAPPED_WIDTHS = {
    **dict.fromkeys((b"US", b"SS", b"OW", b"AT"), 2),
    **dict.fromkeys((b"UL", b"SL", b"FL", b"OF", b"OL"), 4),
    **dict.fromkeys((b"FD", b"OD", b"OV", b"SV", b"UV"), 8),
}

UNDEFINED_LENGTH = 0xFFFFFFFF
MOST_NAMED = 12  # elements in one message

ITEM = 0xFFFEE000
ITEM_DELIMITATION = 0xFFFEE00D
SEQUENCE_DELIMITATION = 0xFFFEE0DD

# Tags that several modules speak of; others stand where they are used.
SOP_CLASS_UID = 0x00080016
SOP_INSTANCE_UID = 0x00080018
CODE_VALUE = 0x00080100
CODING_SCHEME_DESIGNATOR = 0x00080102
CODE_MEANING = 0x00080104
DEVICE_SERIAL_NUMBER = 0x00181000
DEVICE_UID = 0x00181002
STUDY_INSTANCE_UID = 0x0020000D
SERIES_INSTANCE_UID = 0x0020000E
SAMPLES_PER_PIXEL = 0x00280002
NUMBER_OF_FRAMES = 0x00280008
ROWS = 0x00280010
COLUMNS = 0x00280011
BITS_ALLOCATED = 0x00280100
PIXEL_REPRESENTATION = 0x00280103
MAC_PARAMETERS_SEQUENCE = 0x4FFE0001
FLOAT_PIXEL_DATA = 0x7FE00008
DOUBLE_FLOAT_PIXEL_DATA = 0x7FE00009
PIXEL_DATA = 0x7FE00010
ALL_PIXEL_DATA = frozenset((FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA, PIXEL_DATA))
DIGITAL_SIGNATURES_SEQUENCE = 0xFFFAFFFA
DATA_SET_TRAILING_PADDING = 0xFFFCFFFC


@dataclass(frozen=True)
class Encoding:
    """How data elements are laid out in bytes: a property of the transfer syntax."""

    explicit: bool
    little_endian: bool

    @property
    def order(self) -> str:
        """The struct prefix of the byte order."""
        return "<" if self.little_endian else ">"

    def header(self, tag: int, vr: bytes, length: int) -> bytes:
        """Tag, VR and length of an element, as this encoding writes them."""
        group, element = tag >> 16, tag & 0xFFFF
        if not self.explicit:
            return struct.pack(self.order + "HHI", group, element, length)
        if vr in SHORT_VRS:
            return struct.pack(self.order + "HH2sH", group, element, vr, length)
        return struct.pack(self.order + "HH2sHI", group, element, vr, 0, length)

    def item_header(self, tag: int, length: int) -> bytes:
        """Tag and length of an item or a delimiter; these never have a VR (PS3.5 7.5)."""
        return struct.pack(self.order + "HHI", tag >> 16, tag & 0xFFFF, length)


EXPLICIT_LITTLE_ENDIAN = Encoding(explicit=True, little_endian=True)
IMPLICIT_LITTLE_ENDIAN = Encoding(explicit=False, little_endian=True)
EXPLICIT_BIG_ENDIAN = Encoding(explicit=True, little_endian=False)


def tag_name(tag: int) -> str:
    """A tag as people write it: (0010,0020)."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def tag_names(tags: Collection[int]) -> str:
    """Several tags for people; of very many the first ones."""
    named, more = ", ".join(map(tag_name, sorted(tags)[:MOST_NAMED])), len(tags) - MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named


def swap(value: bytes | memoryview, width: int) -> bytes:
    """The numbers of `value`, each `width` bytes wide, in the other byte order. The length is a multiple of `width`."""
    numbers = array.array({2: "H", 4: "I", 8: "Q"}[width], bytes(value))
    numbers.byteswap()
    return numbers.tobytes()


def is_private_creator(tag: int) -> bool:
    """Whether the element reserves a block of private elements (PS3.5 7.8.1)."""
    return bool(tag >> 16 & 1) and 0x10 <= tag & 0xFFFF <= 0xFF


def dictionary_vr(tag: int) -> bytes:
    """The VR of an element in an implicit VR data set, by the data dictionary (PS3.6).

    May be the ambiguous "xs": US or SS, by Pixel Representation. Private elements other than creators are UN: no
    dictionary of private elements is complete, and a guess would be signed.
    """
    element = tag & 0xFFFF
    if element == 0:
        return b"UL"
    if is_private_creator(tag):
        return b"LO"
    if tag >> 16 & 1:
        return b"UN"
    table = _dictionary()
    found = table.get(tag)
    if found is None and tag >> 24 in (0x50, 0x60, 0x7F):
        found = table.get(tag & 0xFF00FFFF)  # repeating groups are stored under their first group
    return found or b"UN"


@lru_cache(1_024)
def is_of_another_kind(tag: int, vr: bytes) -> bool:
    """Whether the standard has a VR for the element that is read in another way: text, numbers or bytes, or items.

    Nobody has to read what is stored as UN (PS3.5 6.2.2), so that is of another kind than all of them.
    """
    known = dictionary_vr(tag)
    if known in {vr, b"UN"} or tag >> 16 & 1:
        return False
    return vr == b"UN" or (vr == b"SQ") != (known == b"SQ") or (vr in TEXT_VRS) != (known in TEXT_VRS)


@cache
def _dictionary() -> dict[int, bytes]:
    text = files("agent.dicom").joinpath("dictionary.json").read_text(encoding="ascii")
    table = json.loads(text)["tags"]
    return {int(tag, 16): vr.encode("ascii") for vr, tags in table.items() for tag in tags.split()}
