"""Which elements a signature covers: the signature profiles, as data.

Only `creator-rsa`, the minimum of PS3.15 C.2, is here. Its list is generated from the module tables of the standard and
carries the edition, so that it can be seen when it grows old.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any


class ProfileName(StrEnum):
    """The profiles."""

    CREATOR_RSA = "creator-rsa"


@dataclass(frozen=True)
class Profile:
    """A list of elements to be signed where they are present.

    Args:
        name: As in the socket protocol.
        edition: Of the standard that the list was made from.
        mandatory: Tags without which there is nothing to sign.
        tags: All tags that are signed, repeating groups included.
        private_if_present: Private elements are signed as well in an instance that has this one (PS3.3 C.19.1: the raw
            data of the Raw Data module are private elements).
    """

    name: str
    edition: str
    mandatory: frozenset[int]
    tags: frozenset[int]
    private_if_present: int

    def selector(self) -> Callable[[int], bool]:
        """Whether an element is signed; to be asked once for each signable element of a data set, in order."""
        tags, marker = self.tags, self.private_if_present
        private_too = False

        def selects(tag: int) -> bool:
            nonlocal private_too
            if tag in tags:
                private_too = private_too or tag == marker
                return True
            return private_too and bool(tag >> 16 & 1)

        return selects


@cache
def load_profile(name: ProfileName) -> Profile:
    """The profile of that name."""
    content = json.loads(files("agent.dicom").joinpath("profiles", f"{name}.json").read_text(encoding="ascii"))
    return Profile(
        name=content["name"],
        edition=content["edition"],
        mandatory=frozenset(_tags(content["mandatory"])),
        tags=frozenset(_tags(content["tags"])) | frozenset(_repeating(content["repeating"])),
        private_if_present=int(content["private_if_present"], 16),
    )


def _tags(names: list[str]) -> Iterator[int]:
    return (int(name, 16) for name in names)


def _repeating(kinds: dict[str, Any]) -> Iterator[int]:
    """The tags of the repeating groups: every even group of each kind (PS3.5 7.6)."""
    for kind in kinds.values():
        first, last = _tags(kind["groups"])
        for group in range(first, last + 1, 2):
            yield from (group << 16 | element for element in _tags(kind["elements"]))
