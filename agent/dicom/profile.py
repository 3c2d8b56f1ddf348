"""Which elements a signature covers: the signature profiles, as data.

`creator-rsa` is the minimum of PS3.15 C.2: a list of what is covered. `creator-plus` is the other way round: everything
is covered but what may rightly change after creation, so that an attribute of a later edition is covered as well. What
C.2 names is covered in any case, and so is what says why and from what an instance was made.

The lists are generated from the module tables of the standard and carry their edition, so that it can be seen when they
grow old. docs/profiles.md says what each covers and why.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any


class ProfileName(StrEnum):
    """The profiles."""

    CREATOR_RSA = "creator-rsa"
    CREATOR_PLUS = "creator-plus"


@dataclass(frozen=True)
class Profile:
    """Rules that say which elements are signed where they are present.

    Args:
        name: As in the socket protocol.
        edition: Of the standard that the lists were made from.
        mandatory: Tags without which there is nothing to sign.
        creator: What PS3.15 C.2 demands, repeating groups included.
        always: What is signed whatever else is said: what C.2 demands, and what says why and from what an instance was
            made.
        excluded: What is not signed otherwise, and why not.
        excluded_groups: Groups that are not signed otherwise, and why not.
        covers_the_rest: Whether an element that no list names is signed.
        private_elements: Whether private elements are signed.
        private_if_present: Private elements are signed as well in an instance that has this one (PS3.3 C.19.1: the raw
            data of the Raw Data module are private elements).
    """

    name: str
    edition: str
    mandatory: frozenset[int]
    creator: frozenset[int]
    always: frozenset[int]
    excluded: Mapping[int, str]
    excluded_groups: Mapping[int, str]
    covers_the_rest: bool
    private_elements: bool
    private_if_present: int

    def selection(self) -> Selection:
        """What it selects in one data set."""
        return Selection(self)

    def reason(self, tag: int) -> str:
        """Why the profile does not cover an element: a word for reports, empty if it does."""
        if tag in self.always:
            return ""
        if tag >> 16 & 1:
            return "" if self.private_elements else "private"
        listed = self.excluded.get(tag) or self.excluded_groups.get(tag >> 16)
        return listed or ("" if self.covers_the_rest else "not in PS3.15 C.2")


class Selection:
    """What a profile selects in one data set.

    Args:
        profile: Which.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._raw_data = False  # known before the first private element: the one that says so stands in front

    def selects(self, tag: int) -> bool:
        """Whether an element is signed; to be asked once for each signable element of the data set, in order."""
        profile = self._profile
        if tag in profile.always:
            if tag == profile.private_if_present:
                self._raw_data = True
            return True
        if tag & 0x10000:
            return self._raw_data or profile.private_elements
        return profile.covers_the_rest and tag not in profile.excluded and tag >> 16 not in profile.excluded_groups

    def must_be_signable(self, tag: int) -> bool:
        """Whether an instance is refused if this element was selected and cannot be signed, because it is or holds UN.

        True for what C.2 demands, the private elements of Raw Data among it; a signature without it would not conform.
        """
        return tag in self._profile.creator or (self._raw_data and bool(tag & 0x10000))


@cache
def load_profile(name: ProfileName, *, private_elements: bool = False) -> Profile:
    """The profile of that name.

    Args:
        name: Which.
        private_elements: Whether creator-plus signs private elements. creator-rsa signs what C.2 demands and nothing
            else.
    """
    minimum = _content(ProfileName.CREATOR_RSA)
    everything = name is ProfileName.CREATOR_PLUS
    plus = _content(name) if everything else {"although_excluded": [], "excluded": {}}
    creator = frozenset(_numbers(minimum["tags"])) | frozenset(_repeating(minimum["repeating"]))
    excluded: dict[str, dict[str, list[str]]] = plus["excluded"]
    return Profile(
        name=name,
        edition=minimum["edition"],
        mandatory=frozenset(_numbers(minimum["mandatory"])),
        creator=creator,
        always=creator.union(_numbers(plus["although_excluded"])),
        excluded={tag: reason for reason, lists in excluded.items() for tag in _numbers(lists["tags"])},
        excluded_groups={group: reason for reason, lists in excluded.items() for group in _numbers(lists["groups"])},
        covers_the_rest=everything,
        private_elements=private_elements and everything,
        private_if_present=int(minimum["private_if_present"], 16),
    )


@cache
def _content(name: ProfileName) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        files("agent.dicom").joinpath("profiles", f"{name}.json").read_text(encoding="ascii")
    )
    return content


def _numbers(names: list[str]) -> Iterator[int]:
    return (int(name, 16) for name in names)


def _repeating(kinds: dict[str, Any]) -> Iterator[int]:
    """The tags of the repeating groups: every even group of each kind (PS3.5 7.6)."""
    for kind in kinds.values():
        first, last = _numbers(kind["groups"])
        for group in range(first, last + 1, 2):
            yield from (group << 16 | element for element in _numbers(kind["elements"]))
