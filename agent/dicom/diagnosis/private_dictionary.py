"""The VRs of elements that not everybody knows: private ones, and those that somebody stored as UN (PS3.5 6.2.2)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

from agent.dicom.data_set import DataSet
from agent.dicom.diagnosis.readings import Change
from agent.dicom.elements import LONG_VRS, SHORT_VRS, dictionary_vr, is_private_creator
from agent.dicom.report import Finding, Outcome

PrivateDictionary = Callable[[int, str], bytes]


def installed_private_dictionary() -> PrivateDictionary | None:
    """Pydicom's collection, if pydicom is installed: the VR by tag and private creator, empty where it is unknown."""
    if find_spec("pydicom") is None:
        return None
    from pydicom.datadict import private_dictionary_VR  # noqa: PLC0415 - takes longer to load than to verify

    def known_vr(tag: int, creator: str) -> bytes:
        try:
            return private_dictionary_VR(tag, creator).encode("ascii")
        except KeyError:
            return b""

    return known_vr


def is_lost(vr: bytes) -> bool:
    """Whether somebody who did not know an element stored it as UN."""
    return vr == b"UN"


def is_private(tag: int) -> bool:
    """Whether only the dictionary of its creator knows the element; that of a creator itself is LO (PS3.5 7.8.1)."""
    return bool(tag >> 16 & 1) and not is_private_creator(tag)


@dataclass(frozen=True)
class VrByDictionary:
    """The VR of private elements by a dictionary.

    Args:
        known_vr: The dictionary.
        of_lost_only: Leaves those alone that are stored under any VR but UN.
    """

    known_vr: PrivateDictionary
    of_lost_only: bool

    def __call__(self, data_set: DataSet, tag: int, vr: bytes) -> bytes:
        """The VR of the dictionary; the stored one where there is none."""
        if not is_private(tag) or (self.of_lost_only and not is_lost(vr)):
            return vr
        creator = tag & 0xFFFF0000 | (tag & 0xFF00) >> 8
        if data_set.vr(creator) != b"LO":
            return vr  # who goes by the VR does not know whose element it is
        found = self.known_vr(tag, data_set.text(creator))
        return found if found in SHORT_VRS | LONG_VRS else vr


def standard_vr(_data_set: DataSet, tag: int, vr: bytes) -> bytes:
    """The VR that the standard gives an element which is stored as UN; the stored one where it leaves a choice."""
    found = dictionary_vr(tag)
    return found if is_lost(vr) and not is_private(tag) and found in SHORT_VRS | LONG_VRS else vr


def unknown_if_private(_data_set: DataSet, tag: int, vr: bytes) -> bytes:
    """UN for private elements, the stored VR for others."""
    return b"UN" if is_private(tag) else vr


_PRIVATE_VRS, _STANDARD_VRS = "private-vrs", "standard-vrs"


def unknown_vrs(
    stored: Collection[tuple[int, bytes]],
    private_dictionary: Callable[[], PrivateDictionary | None],
    note: Callable[[Finding], None],
) -> Iterator[Change]:
    """The changes that give elements the VR which not everybody knows.

    Args:
        stored: Tag and VR of what a signature covers.
        private_dictionary: Loads a dictionary of private elements, once it is needed.
        note: Takes what could not be tried.
    """
    if any(is_lost(vr) and not is_private(tag) for tag, vr in stored):
        yield Change(
            _STANDARD_VRS,
            "standard-vr",
            "The signature was made while elements that are stored as UN had the VR of the standard. Many programs "
            "take no notice of such elements, so that what they show is not what was signed.",
            lambda reading: reading.with_vrs(standard_vr),
        )
    if any(is_private(tag) for tag, _ in stored):
        yield from _private_vrs(private_dictionary, note)


def _private_vrs(
    private_dictionary: Callable[[], PrivateDictionary | None], note: Callable[[Finding], None]
) -> Iterator[Change]:
    yield Change(
        _PRIVATE_VRS,
        "private-un",
        "The signature was made over private elements under the VR UN, which PS3.3 C.12.1.1.3.1.1 does not allow.",
        lambda reading: reading.with_vrs(unknown_if_private),
    )
    known_vr = private_dictionary()
    if known_vr is None:
        note(
            Finding(
                "private-dictionary-missing",
                "Private elements were not tried under the VRs of a dictionary: install scanseal[demo] for pydicom's.",
                Outcome.INDETERMINATE,
            )
        )
        return
    yield Change(
        _PRIVATE_VRS,
        "private-vr",
        "The signature was made while private elements that are stored as UN had the VR of a dictionary. Only their VR "
        "changed.",
        lambda reading: reading.with_vrs(VrByDictionary(known_vr, of_lost_only=True)),
        legitimate=True,
    )
    # Not legitimate: the same bytes may be another number then.
    yield Change(
        _PRIVATE_VRS,
        "private-vr-differs",
        "The signature was made while private elements had the VR of a dictionary. They are stored under another one.",
        lambda reading: reading.with_vrs(VrByDictionary(known_vr, of_lost_only=False)),
    )
