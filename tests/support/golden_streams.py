"""Data sets whose MAC byte streams are known.

`tests/golden/mac_streams.json` holds length and SHA-256 of the stream of every vector made here, by the plain encoder:
nothing of the product, and no reader, takes part. To make the file anew: `python -m tests.support.golden_streams`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypedDict

from tests.support import golden_objects
from tests.support.dicom_tree import EXPLICIT_LITTLE_ENDIAN
from tests.support.golden_objects import CONTENT_SEQUENCE, leaves
from tests.support.plain_encoder import content_stream
from tests.support.raw_dicom import NATIVE_ENCODINGS, Node, Nodes, Writer, instance, number, part10, text

GOLDEN_FILE: Final = Path(__file__).parents[1] / "golden/mac_streams.json"
JPEG_BASELINE: Final = "1.2.840.10008.1.2.4.50"
SIGNATURE_UID: Final = "2.25.16384"
SIGNED_AT: Final = "20261122101500.000000+0000"


def signature_item_stream() -> bytes:
    """The part of the signature's own item that is covered: without certificate and signature."""
    return content_stream(
        (
            number(0x04000005, 0),
            text(0x04000100, "UI", SIGNATURE_UID),
            text(0x04000105, "DT", SIGNED_AT),
            text(0x04000110, "CS", "X509_1993_SIG"),
        )
    )


# --- vectors ---


@dataclass(frozen=True)
class Vector:
    """A data set with a known stream.

    Attributes:
        about: What is special about it.
        nodes: Its elements, in tag order.
        uncovered: Top-level tags that the profile leaves out.
        profile: The profile that it is signed under.
        transfer_syntaxes: What it can be stored in.
    """

    about: str
    nodes: Nodes
    uncovered: frozenset[int] = frozenset()
    profile: str = "creator-rsa"
    transfer_syntaxes: tuple[str, ...] = NATIVE_ENCODINGS

    def stream(self) -> bytes:
        """Everything that the MAC covers, the signature's own item included."""
        covered = tuple(node for node in self.nodes if node.tag not in self.uncovered)
        return content_stream(covered) + signature_item_stream()

    def file(self, transfer_syntax: str, *, undefined_length: bool = False, undefined_items: bool = False) -> bytes:
        """The vector as a file; delimiters as told, so that its length fields differ and its stream does not."""
        formed = in_form(self.nodes, undefined_length=undefined_length, undefined_items=undefined_items)
        return part10(formed, transfer_syntax)


def in_form(nodes: Nodes, *, undefined_length: bool, undefined_items: bool) -> Nodes:
    """The nodes with all sequences, and all their items, of defined or undefined length."""

    def formed(node: Node) -> Node:
        if node.items is None:
            return node
        items = tuple(
            in_form(item, undefined_length=undefined_length, undefined_items=undefined_items) for item in node.items
        )
        return replace(node, items=items, undefined_length=undefined_length, undefined_items=undefined_items)

    return tuple(map(formed, nodes))


def depth(nodes: Nodes) -> int:
    """How deep sequences stand inside each other."""
    return max((1 + max((depth(item) for item in node.items), default=0) for node in nodes if node.items), default=0)


# --- nested sequences with a boundary at a chosen place ---

LANDMARK: Final = b"LANDMARK"
PLACES: Final = {
    "value": "a place inside a value",
    "header": "the header of an element",
    "item": "an item tag",
    "delimiter": "a delimiter",
}


def with_landmark(levels: int, place: str, filler: int) -> Nodes:
    """Content Sequences inside each other; in the innermost one, `filler` bytes and the landmark before the place."""
    rest = b" and so on" if place == "value" else b""
    first: Nodes = (Node(0x0040A160, "UT", b"." * filler + LANDMARK + rest),)
    if place == "header":
        first = (*first, Node(0x0040DB73, "UL", b"\1\0\0\0"))
    items = (first,) if place == "delimiter" else (first, *leaves(360 // levels))
    content = Node(CONTENT_SEQUENCE, "SQ", items=items)
    for level in range(levels - 1):
        around = (text(0x0040A160, "UT", f"Level {level}"), content, Node(0x0040DB73, "UL", bytes((level, 0, 0, 0))))
        content = Node(CONTENT_SEQUENCE, "SQ", items=(around, *leaves(360 // levels)))
    return instance(
        text(0x00100010, "PN", "Doe^Jane"),
        content,
        Node(0x7FE00010, "OW", bytes(range(256)) * 80),
    )


@dataclass(frozen=True)
class Counted:
    """What the bytes of a boundary are counted in.

    Attributes:
        name: For the names of vectors.
        offset: Where the landmark ends in a data set.
    """

    name: str
    offset: Callable[[Nodes], int]


def landing(levels: int, place: str, boundary: int, shift: int, counted: Counted) -> Vector:
    """A vector whose boundary lies `shift` bytes behind the landmark.

    Args:
        levels: Sequences inside each other.
        place: What stands behind the landmark, of PLACES.
        boundary: In bytes.
        shift: Even.
        counted: From where the bytes are counted.
    """
    filler = boundary - shift - counted.offset(with_landmark(levels, place, 0))
    about = f"Sequences {levels} deep; byte {boundary} of the {counted.name} is byte {shift} of {PLACES[place]}"
    return Vector(about, with_landmark(levels, place, filler), uncovered=frozenset({0x00100010}))


def behind_landmark(data: bytes) -> int:
    """Where the landmark ends."""
    return data.index(LANDMARK) + len(LANDMARK)


def with_delimiters(nodes: Nodes) -> Nodes:
    """All sequences and items of undefined length: then there is a delimiter to hit."""
    return in_form(nodes, undefined_length=True, undefined_items=True)


STREAM: Final = Counted(
    "stream", lambda nodes: behind_landmark(content_stream(tuple(node for node in nodes if node.tag != 0x00100010)))
)
FILE: Final = Counted("file", lambda nodes: behind_landmark(part10(with_delimiters(nodes))))
INFLATED: Final = Counted(
    "inflated", lambda nodes: behind_landmark(Writer(EXPLICIT_LITTLE_ENDIAN).data_set(with_delimiters(nodes)))
)


def landings() -> dict[str, Vector]:
    """Boundaries of dcmsign's 16 KiB, of a small window, of 64 KiB, of the daemon's buffer and of the inflated one."""
    in_stream = [(levels, 1 << 14, shift, STREAM) for levels in (1, 2, 3, 4, 8) for shift in (0, 2)]
    in_window = [(3, 1 << 12, 2, FILE), (3, 1 << 16, 2, FILE), (3, 1 << 20, 2, FILE), (3, 1 << 18, 2, INFLATED)]
    return {
        f"{counted.name}-{boundary}-depth-{levels}-{place}+{shift}": landing(levels, place, boundary, shift, counted)
        for levels, boundary, shift, counted in in_stream + in_window
        for place in PLACES
    }


def objects() -> dict[str, Vector]:
    """Whole objects, and whatever is hard to encode."""
    patient_name = frozenset({0x00100010})
    return {
        "empty": Vector(
            "Empty sequences, items and values; group lengths, signatures in items and padding, which are never signed",
            golden_objects.empty_everywhere(),
            uncovered=frozenset({0x00090010}),
        ),
        "every-vr": Vector(
            "Every VR, two items deep: numbers change their byte order, texts do not", golden_objects.every_vr()
        ),
        "large-numbers": Vector(
            "1.5 MiB of 16-bit words and 160 KB of 64-bit offsets, turned round in pieces if they are big endian",
            golden_objects.large_numbers(),
        ),
        "many-fragments": Vector(
            "1.4 MB of pixel data in 3,000 fragments, some of them empty, and a Basic Offset Table",
            golden_objects.many_fragments(),
            transfer_syntaxes=(JPEG_BASELINE,),
        ),
        "enhanced-ct": Vector(
            "An enhanced CT image of 400 frames, functional groups four deep",
            golden_objects.enhanced_ct(),
            patient_name,
        ),
        "structured-report": Vector(
            "A structured report of 1.3 MB, sequences four deep",
            golden_objects.structured_report(),
            uncovered=patient_name | {0x00080060},
        ),
        "taken-back": Vector(
            "Sequences outside C.2 with an element of unknown VR at their end: left unsigned, unlike their neighbours",
            golden_objects.unsignable_at_the_end(),
            profile="creator-plus",
        ),
    }


def vectors() -> dict[str, Vector]:
    """All vectors by name."""
    return landings() | objects()


# --- the committed file ---


class Golden(TypedDict):
    """One row of the file."""

    about: str
    profile: str
    length: int
    sha256: str


def golden(vector: Vector) -> Golden:
    """The row of a vector."""
    stream = vector.stream()
    return Golden(
        about=vector.about, profile=vector.profile, length=len(stream), sha256=hashlib.sha256(stream).hexdigest()
    )


def golden_file() -> str:
    """The content of GOLDEN_FILE."""
    rows = {name: golden(vector) for name, vector in vectors().items()}
    content = {
        "clause": "PS3.3 C.12.1.1.3.1.1",
        "generator": "python -m tests.support.golden_streams",
        "signature_item": f"MAC ID 0, UID {SIGNATURE_UID}, {SIGNED_AT}, X509_1993_SIG",
        "streams": rows,
    }
    return json.dumps(content, indent=1) + "\n"


if __name__ == "__main__":
    GOLDEN_FILE.parent.mkdir(exist_ok=True)
    GOLDEN_FILE.write_text(golden_file(), encoding="ascii")
