"""The VRs of elements whose VR is not certain: private ones, and those that somebody stored as UN (PS3.5 6.2.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec

from agent.dicom.data_set import DataSet
from agent.dicom.elements import LONG_VRS, SHORT_VRS, dictionary_vr, is_private_creator

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


def holds_uncertain_vrs(data_set: DataSet, tags: Iterable[int]) -> bool:
    """Whether the VR of an element, or of one inside it, is not certain: it is private, or stored as UN."""
    return any(
        tag >> 16 & 1
        or data_set.vr(tag) == b"UN"
        or any(holds_uncertain_vrs(item, item.tags) for item in data_set.items(tag))
        for tag in tags
    )


@dataclass(frozen=True)
class VrByDictionary:
    """The VR of private elements, and of others that are stored as UN, by dictionaries.

    Args:
        known_vr: The dictionary of private elements.
    """

    known_vr: PrivateDictionary | None

    def __call__(self, data_set: DataSet, tag: int, vr: bytes) -> bytes:
        """The VR of the dictionary; the stored one where there is none."""
        if not tag >> 16 & 1 or is_private_creator(tag):
            found = dictionary_vr(tag) if vr == b"UN" else vr
        elif self.known_vr:
            creator = data_set.text(tag & 0xFFFF0000 | (tag & 0xFF00) >> 8)
            found = self.known_vr(tag, creator)
        else:
            found = vr
        return found if found in SHORT_VRS | LONG_VRS else vr


def unknown_if_private(_data_set: DataSet, tag: int, vr: bytes) -> bytes:
    """UN for private elements, the stored VR for others."""
    return b"UN" if tag >> 16 & 1 and not is_private_creator(tag) else vr
