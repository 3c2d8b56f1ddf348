"""The images whose signatures have to survive."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from tests.support.dicom_samples import ct_slice, enhanced_multiframe, sample
from tests.support.dicom_tools import filtered
from tests.support.raw_dicom import Node, instance, number, part10, text

PIXEL_DATA: Final = 0x7FE00010
MEBIBYTE: Final = 1 << 20


def of_pydicom(name: str) -> bytes:
    """A file that comes with pydicom."""
    return sample(f"pydicom/test_files/{name}").path.read_bytes()


def picture(*more: Node) -> bytes:
    """Few pixels of two bytes, if nothing else is wanted."""
    usual = (
        text(0x00080060, "CS", "OT"),
        number(0x00280002, 1),
        text(0x00280004, "CS", "MONOCHROME2"),
        number(0x00280010, 4),
        number(0x00280011, 4),
        number(0x00280100, 16),
        number(0x00280103, 0),
        Node(PIXEL_DATA, "OW", bytes(range(32))),
    )
    nodes = {node.tag: node for node in (*instance(), *usual, *more)}
    allocated = int.from_bytes(nodes[0x00280100].value, "little")
    nodes |= {tag: number(tag, bits) for tag, bits in ((0x00280101, allocated), (0x00280102, allocated - 1))}
    return part10(tuple(nodes[tag] for tag in sorted(nodes)))


def large(rows: int, columns: int, pixels: bytes) -> bytes:
    """Many pixels of two bytes."""
    return picture(number(0x00280010, rows), number(0x00280011, columns), Node(PIXEL_DATA, "OW", pixels))


def noise(size: int) -> bytes:
    """What cannot be compressed, the same each time."""
    return random.Random(1).randbytes(size)  # noqa: S311 - nothing is kept secret with it


def overlay(vr: str) -> tuple[Node, ...]:
    """Graphics of 4 x 4 pixels (PS3.3 C.9.2)."""
    return (
        number(0x60000010, 4),
        number(0x60000011, 4),
        text(0x60000040, "CS", "G"),
        Node(0x60000050, "SS", struct.pack("<2h", 1, 1)),
        number(0x60000100, 1),
        number(0x60000102, 0),
        Node(0x60003000, vr, b"\1\2"),
    )


def lookup_table(descriptor_vr: str, data_vr: str) -> Node:
    """Modality LUT Sequence (PS3.3 C.11.1)."""
    item = (
        Node(0x00283002, descriptor_vr, struct.pack("<3H", 4, 0, 16)),
        text(0x00283004, "LO", "HU"),
        Node(0x00283006, data_vr, struct.pack("<4H", 1, 2, 3, 4)),
    )
    return Node(0x00283000, "SQ", items=(item,))


WAVEFORM: Final = Node(
    0x54000100,
    "SQ",
    items=((number(0x54001004, 8), text(0x54001006, "CS", "UB"), Node(0x54001010, "OB", bytes(range(4)))),),
)
CREATOR_VERSION_UID: Final = text(0x00089123, "UI", "2.25.77")  # with it private elements are the content (C.19.1)
PRIVATE: Final = (text(0x00290010, "LO", "SIEMENS CSA HEADER"), text(0x00291008, "CS", "IMAGE NUM 4"))
IMAGES: Final[Mapping[str, Callable[[], bytes]]] = {
    "slice": lambda: ct_slice(64, 64),
    "frames": lambda: enhanced_multiframe(3),
    "scanner": partial(of_pydicom, "CT_small.dcm"),
    "colour": partial(of_pydicom, "SC_rgb_small_odd.dcm"),
    "compressed": lambda: filtered(ct_slice(64, 64), "dcmcrle"),
    "bytes": partial(picture, Node(PIXEL_DATA, "OB", bytes(range(16))), number(0x00280100, 8)),
    "bytes and overlay": partial(picture, Node(PIXEL_DATA, "OB", bytes(16)), number(0x00280100, 8), *overlay("OB")),
    "overlay": partial(picture, *overlay("OB")),
    "table": partial(picture, lookup_table("US", "US")),
    "signed table": partial(picture, lookup_table("SS", "OW"), number(0x00280103, 1)),
    "waveform": partial(picture, WAVEFORM),
    "private": partial(picture, CREATOR_VERSION_UID, *PRIVATE),
    "black": lambda: large(8_192, 5_120, bytes(80 * MEBIBYTE)),
    "large": lambda: large(16_384, 8_192, bytes(256 * MEBIBYTE)),
    "noise": lambda: large(17_408, 1_024, noise(34 * MEBIBYTE)),
}
