"""Elements that may have one of two VRs, of which implicit VR keeps none (PS3.5 A.1): who reads them has to choose."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from agent.dicom.data_set import DataSet
from agent.dicom.diagnosis.readings import PIXELS, Change, Reading
from agent.dicom.elements import BITS_ALLOCATED, PIXEL_DATA, PIXEL_REPRESENTATION, dictionary_vr

_BYTES_BEFORE = {b"OW": b"OB"}
# Who stores words of more than 8 bits as OB breaks PS3.5 A.2, and what they are in big endian: that is not undone.
_BYTES_OR_WORDS = {b"OB": b"OW", **_BYTES_BEFORE}
_NUMBERS_OR_WORDS = {b"US": b"OW", b"OW": b"US"}
_OVERLAYS = frozenset(0x60003000 | group << 16 for group in range(0, 0x100, 2))
_LOOKUP_TABLES = frozenset((*range(0x00281200, 0x00281204), 0x00283006))
# Channel Minimum and Maximum Value, Waveform Padding Value, Waveform Data
_WAVEFORMS = frozenset((0x54000110, 0x54000112, 0x5400100A, 0x54001010))


@dataclass(frozen=True)
class _Choice:
    """Elements that have the one or the other VR together. In little endian their bytes mean the same under both.

    Args:
        variant: Stable name, for reports.
        what: Whose VR it is, for people.
        tags: Their tags.
        other: The other VR, by the stored one.
    """

    variant: str
    what: str
    tags: frozenset[int]
    other: Mapping[bytes, bytes]

    def __call__(self, _data_set: DataSet, tag: int, vr: bytes) -> bytes:
        """The other VR for these elements, the stored one for the rest."""
        return self.other.get(vr, vr) if tag in self.tags else vr

    def concerns(self, stored: Collection[tuple[int, bytes]]) -> bool:
        """Whether there is such an element."""
        return any(tag in self.tags and vr in self.other for tag, vr in stored)


def _choices(data_set: DataSet) -> tuple[_Choice, ...]:
    of_pixels = _BYTES_OR_WORDS if (data_set.number(BITS_ALLOCATED) or 16) <= 8 else _BYTES_BEFORE
    return (
        _Choice("pixel-vr", "Pixel Data", frozenset((PIXEL_DATA,)), of_pixels),
        _Choice("overlay-vr", "Overlay Data", _OVERLAYS, _BYTES_OR_WORDS),
        _Choice("lookup-table-vr", "lookup tables", _LOOKUP_TABLES, _NUMBERS_OR_WORDS),
        _Choice("waveform-vr", "waveforms", _WAVEFORMS, _BYTES_BEFORE),
    )


@dataclass(frozen=True)
class _SignByPixels:
    """US or SS, where both may be, as Pixel Representation says, of the item or of the whole (PS3.5 A.1).

    Args:
        data_set: The whole.
    """

    data_set: DataSet

    def __call__(self, data_set: DataSet, tag: int, vr: bytes) -> bytes:
        """The VR that the standard demands; the stored one where it leaves no choice."""
        if vr not in {b"US", b"SS"} or dictionary_vr(tag) != b"xs":
            return vr
        where = data_set if PIXEL_REPRESENTATION in data_set else self.data_set
        return b"SS" if where.number(PIXEL_REPRESENTATION) == 1 else b"US"

    def concerns(self, stored: Collection[tuple[int, bytes]]) -> bool:
        """Whether there is an element that may have got the wrong one."""
        return any(self(self.data_set, tag, vr) != vr for tag, vr in stored)


def stored_vrs(data_set: DataSet, tags: Iterable[int]) -> set[tuple[int, bytes]]:
    """Tag and VR of each of these elements and of all inside them, as far as they differ."""
    found = set()
    for tag in tags:
        vr = data_set.vr(tag)
        found.add((tag, vr))
        for item in data_set.items(tag) if vr == b"SQ" else ():
            found |= stored_vrs(item, item.tags)
    return found


def lost_vrs(data_set: DataSet, stored: Collection[tuple[int, bytes]]) -> Iterator[Change]:
    """The changes that undo a wrong choice.

    Args:
        data_set: What the signature is of, in little endian.
        stored: The `stored_vrs` of what it covers.
    """
    fragments = bool(data_set.fragments(PIXEL_DATA))
    for choice in _choices(data_set):
        of_pixels = PIXEL_DATA in choice.tags
        if choice.concerns(stored) and not (of_pixels and fragments):
            yield Change(
                PIXELS if of_pixels else choice.variant,
                choice.variant,
                f"The signature was made while {choice.what} had another VR of those that PS3.5 A.1 allows. Implicit "
                "VR does not keep it; only the VR changed.",
                partial(Reading.with_vrs, vr_of=choice),
                legitimate=True,
            )
    by_pixels = _SignByPixels(data_set)
    if by_pixels.concerns(stored):
        # Not legitimate: the same bytes are another number then.
        yield Change(
            "sign",
            "sign-lost",
            "The signature was made while numbers that may be US or SS had the VR that Pixel Representation "
            "(0028,0103) demands. They are stored under the other one, and are therefore read as other numbers.",
            partial(Reading.with_vrs, vr_of=by_pixels),
        )
