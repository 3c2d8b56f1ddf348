"""The plainest encoder of the bytes that a MAC covers: PS3.3 C.12.1.1.3.1.1 and .2, one line for each rule.

It starts from the nodes of a test and not from a file, so that no reader can hide a fault of its own; and it shares
nothing with the product nor with `mac_oracle`.
"""

from __future__ import annotations

import struct
from typing import Final

from tests.support.raw_dicom import Node, Nodes

TEXTS: Final = ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UI")
NUMBERS: Final = ("AT", "FD", "FL", "SL", "SS", "UL", "US")
LENGTH_OF_16_BITS: Final = (*TEXTS, *NUMBERS)  # PS3.5 table 7.1-2; every other VR has 32 bits behind two reserved bytes
ITEM_TAG: Final = bytes.fromhex("FEFF 00E0")
SEQUENCE_DELIMITATION_TAG: Final = bytes.fromhex("FEFF DDE0")
NEVER_SIGNED: Final = (0x00080001, 0x4FFE0001, 0xFFFCFFFC)


def is_signed(node: Node) -> bool:
    """Whether a MAC may cover the element (PS3.3 C.12.1.1.3.1.2)."""
    group, element = node.tag >> 16, node.tag & 0xFFFF
    if element == 0x0000 or group < 0x0008 or group == 0xFFFA or node.tag in NEVER_SIGNED:
        return False
    return not holds_unknown(node)


def holds_unknown(node: Node) -> bool:
    """Whether the element is of unknown VR, or a sequence with such an element anywhere in it."""
    return node.vr == "UN" or any(holds_unknown(inner) for item in node.items or () for inner in item)


def content_stream(nodes: Nodes) -> bytes:
    """The bytes that the MAC covers of these elements (PS3.3 C.12.1.1.3.1.1)."""
    return b"".join(element_stream(node) for node in nodes if is_signed(node))


def element_stream(node: Node) -> bytes:
    """Tag, VR, length unless it is a sequence or in fragments, and value: in explicit VR little endian."""
    start = struct.pack("<HH", node.tag >> 16, node.tag & 0xFFFF) + node.vr.encode("ascii")
    if node.items is not None:
        inside = b"".join(ITEM_TAG + content_stream(item) for item in node.items)
        return start + b"\0\0" + inside + SEQUENCE_DELIMITATION_TAG
    if node.fragments is not None:
        inside = b"".join(ITEM_TAG + fragment for fragment in node.fragments)
        return start + b"\0\0" + inside + SEQUENCE_DELIMITATION_TAG
    if node.vr in LENGTH_OF_16_BITS:
        return start + struct.pack("<H", len(node.value)) + node.value
    return start + b"\0\0" + struct.pack("<L", len(node.value)) + node.value
