"""How elements, items and delimiters may follow each other (PS3.5 7.1, 7.5)."""

from __future__ import annotations

from agent.dicom.elements import tag_name
from agent.dicom.headers import malformed
from agent.errors import DicomError

_GROUPS_OF_OTHERS = frozenset((0x0000, 0x0002))  # of commands (PS3.7) and of the file meta information (PS3.10)


def in_order(tag: int, last: int, offset: int) -> int:
    """The tag, if it may stand behind `last`.

    Raises:
        DicomError: It may not.
    """
    if tag >> 16 == 0xFFFE:
        raise misplaced(tag, f"an element (byte {offset})")
    if tag >> 16 in _GROUPS_OF_OTHERS:
        raise malformed(f"{tag_name(tag)} at byte {offset} has no place in a data set.", "group-forbidden")
    if tag == last:
        raise malformed(f"{tag_name(tag)} is there twice, the second time at byte {offset}.", "tag-duplicate")
    if tag < last:
        raise malformed(f"{tag_name(tag)} at byte {offset} comes after {tag_name(last)}.", "tag-out-of-order")
    return tag


def misplaced(tag: int, expected: str) -> DicomError:
    """The refusal of an element that stands where something else has to."""
    return malformed(f"{tag_name(tag)} stands where {expected} must be.", "delimiter-misplaced")


def check_delimiter(tag: int, length: int) -> None:
    """A delimiter has no length (PS3.5 7.5).

    Raises:
        DicomError: It has one.
    """
    if length:
        raise malformed(f"The delimiter {tag_name(tag)} has a length (PS3.5 7.5).", "length-wrong")


def check_end(tag: int, offset: int, end: int | None) -> None:
    """What has a length ends there.

    Raises:
        DicomError: It ends elsewhere.
    """
    if end is not None and offset != end:
        raise malformed(f"The content of {tag_name(tag)} is longer than its length says.", "length-wrong")
