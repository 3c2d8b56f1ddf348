"""Every byte of a small file, changed one bit at a time: where every change is noticed, and where none is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tests.support.attacks.editing import DATA_ELEMENTS_SIGNED, signature_of, tags_in
from tests.support.attacks.images import ct_slice
from tests.support.attacks.registry import found
from tests.support.dicom_tree import (
    DIGITAL_SIGNATURES,
    MAC_PARAMETERS,
    SHORT_VRS,
    Element,
    parse,
    tag_bytes,
)

_PREAMBLE_SIZE: Final = 128
_MAC_ALGORITHM: Final = 0x04000015  # right behind the padded transfer syntax


class Part(StrEnum):
    """Where a byte is."""

    PREAMBLE = "the preamble"
    META = "prefix and file meta information"
    COVERED = "covered elements with their tags, VRs and lengths"
    UNCOVERED_VALUE = "values of elements that are not covered"
    UNCOVERED_HEADER = "their tags, VRs and lengths"
    MAC_PARAMETERS = "the MAC parameters"
    PADDING = "the byte that pads the transfer syntax in the MAC parameters"
    SIGNATURE = "the signature item, certificate included"


# What a change of one bit comes to, for people; the tests say the same.
CONSEQUENCES: Final = {
    Part.PREAMBLE: "never called broken; noticed where the file becomes a program as well",
    Part.META: "never called broken; refused where two readers could differ, flagged where it names another instance",
    Part.COVERED: "**always noticed**",
    Part.UNCOVERED_VALUE: "never noticed",
    Part.UNCOVERED_HEADER: "refused, or another element is there or missing, or not noticed",
    Part.MAC_PARAMETERS: "**always noticed**",
    Part.PADDING: "not noticed if it becomes a space",
    Part.SIGNATURE: "**always noticed**",
}
PROTECTED: Final = (Part.COVERED, Part.MAC_PARAMETERS, Part.SIGNATURE)


@dataclass(frozen=True)
class Flip:
    """A bit that was changed.

    Attributes:
        position: Of the byte.
        bit: Which bit of it.
        findings: What the product noticed.
    """

    position: int
    bit: int
    findings: tuple[str, ...]


def flips(part: Part) -> Iterator[Flip]:
    """All changes of one bit in a part; of the large signature item, one bit of each byte."""
    data = ct_slice()
    for position, where in enumerate(parts(data)):
        if where is part:
            for bit in [position % 8] if part is Part.SIGNATURE else range(8):
                yield Flip(position, bit, found(_flipped(data, position, bit)))


def _flipped(data: bytes, position: int, bit: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]


def parts(data: bytes) -> tuple[Part, ...]:
    """Where each byte of a signed file is."""
    parsed = parse(data)
    covered = _covered(data)
    where = [Part.PREAMBLE] * _PREAMBLE_SIZE + [Part.META] * (len(parsed.head) - _PREAMBLE_SIZE)
    for element in parsed.elements:
        where += _parts_of(element, covered)
    where[data.rindex(tag_bytes(_MAC_ALGORITHM) + b"CS") - 1] = Part.PADDING
    return tuple(where)


def _parts_of(element: Element, covered: frozenset[int]) -> Iterator[Part]:
    size = element.end - element.start
    named = {MAC_PARAMETERS: Part.MAC_PARAMETERS, DIGITAL_SIGNATURES: Part.SIGNATURE}
    if element.tag in named or element.tag in covered:
        yield from [named.get(element.tag, Part.COVERED)] * size
    else:
        header = 8 if element.vr in SHORT_VRS else 12
        yield from [Part.UNCOVERED_HEADER] * header + [Part.UNCOVERED_VALUE] * (size - header)


def uncovered() -> tuple[int, ...]:
    """The tags of the small file that its signature does not cover."""
    data = ct_slice()
    tags = (element.tag for element in parse(data).elements)
    return tuple(tag for tag in tags if tag not in _covered(data) | {MAC_PARAMETERS, DIGITAL_SIGNATURES})


def _covered(data: bytes) -> frozenset[int]:
    (signed,) = (node.value for node in signature_of(data)[0] if node.tag == DATA_ELEMENTS_SIGNED)
    return frozenset(tags_in(signed))
