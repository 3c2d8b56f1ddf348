"""Writes DICOM bytes exactly as told, right or wrong, in every native encoding.

A data set is a tuple of nodes whose values are little endian; the encoding is chosen when it is written. Nothing is
checked, sorted, padded or completed, so that a test decides every byte.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final, TypeAlias

from tests.support.dicom_tree import (
    DEFLATED_EXPLICIT_LITTLE_ENDIAN,
    EXPLICIT_BIG_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    SHORT_VRS,
    SWAPPED_WIDTH,
    UNDEFINED,
    Elements,
)

NATIVE_ENCODINGS: Final = (
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    EXPLICIT_BIG_ENDIAN,
    DEFLATED_EXPLICIT_LITTLE_ENDIAN,
)


@dataclass(frozen=True)
class Node:
    """One element to write.

    Attributes:
        value: Little endian value bytes, already padded.
        items: Makes it a sequence.
        fragments: Makes it encapsulated pixel data; the first one is the Basic Offset Table.
        undefined_length: Whether the sequence ends with a delimiter instead of having a length.
        undefined_items: The same for its items.
    """

    tag: int
    vr: str
    value: bytes = b""
    items: tuple[Nodes, ...] | None = None
    fragments: tuple[bytes, ...] | None = None
    undefined_length: bool = False
    undefined_items: bool = False


Nodes: TypeAlias = tuple[Node, ...]


def text(tag: int, vr: str, content: str) -> Node:
    """A text element, padded to even length (PS3.5 6.2)."""
    value = content.encode("ascii")
    return Node(tag, vr, value + (b"\0" if vr == "UI" else b" ") * (len(value) % 2))


def number(tag: int, content: int) -> Node:
    """A US element."""
    return Node(tag, "US", struct.pack("<H", content))


class Writer:
    """Writes nodes in one encoding."""

    def __init__(self, transfer_syntax: str) -> None:
        self.explicit = transfer_syntax != IMPLICIT_LITTLE_ENDIAN
        self.order = ">" if transfer_syntax == EXPLICIT_BIG_ENDIAN else "<"

    def data_set(self, nodes: Nodes) -> bytes:
        """The nodes one after the other."""
        return b"".join(self.element(node) for node in nodes)

    def element(self, node: Node) -> bytes:
        """One element with its header."""
        if node.fragments is not None:
            return self.header(node.tag, node.vr, UNDEFINED) + self.encapsulated(node.fragments)
        if node.items is not None:
            inside = Writer(IMPLICIT_LITTLE_ENDIAN) if node.vr == "UN" else self
            content = b"".join(inside.item(item, undefined=node.undefined_items) for item in node.items)
            if node.undefined_length:
                return self.header(node.tag, node.vr, UNDEFINED) + content + inside.marker(SEQUENCE_END, 0)
            return self.header(node.tag, node.vr, len(content)) + content
        return self.header(node.tag, node.vr, len(node.value)) + self.ordered(node.vr, node.value)

    def header(self, tag: int, vr: str, length: int) -> bytes:
        """Tag, VR and length."""
        start = struct.pack(self.order + "HH", tag >> 16, tag & 0xFFFF)
        if not self.explicit:
            return start + struct.pack("<L", length)
        if vr in SHORT_VRS:
            return start + vr.encode("ascii") + struct.pack(self.order + "H", length)
        return start + vr.encode("ascii") + b"\0\0" + struct.pack(self.order + "L", length)

    def marker(self, tag: int, length: int) -> bytes:
        """An item tag or a delimiter."""
        return struct.pack(self.order + "HHL", tag >> 16, tag & 0xFFFF, length)

    def item(self, nodes: Nodes, *, undefined: bool) -> bytes:
        """An item of a sequence."""
        content = self.data_set(nodes)
        if undefined:
            return self.marker(ITEM, UNDEFINED) + content + self.marker(ITEM_END, 0)
        return self.marker(ITEM, len(content)) + content

    def encapsulated(self, fragments: tuple[bytes, ...]) -> bytes:
        """Fragments and the delimiter behind them."""
        pieces = (self.marker(ITEM, len(fragment)) + fragment for fragment in fragments)
        return b"".join((*pieces, self.marker(SEQUENCE_END, 0)))

    def ordered(self, vr: str, value: bytes) -> bytes:
        """A little endian value in the byte order of the encoding."""
        width = SWAPPED_WIDTH.get(vr, 1)
        if self.order == "<" or width == 1:
            return value
        return b"".join(value[at : at + width][::-1] for at in range(0, len(value), width))


def deflated(body: bytes) -> bytes:
    """Raw deflate, padded to even length (PS3.5 A.5)."""
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    stream = deflater.compress(body) + deflater.flush()
    return stream + b"\0" * (len(stream) % 2)


def with_meta(body: bytes, transfer_syntax: str, *, sop_class: str, sop_instance: str) -> bytes:
    """A body behind preamble and file meta information (PS3.10 7.1)."""
    meta = Writer(EXPLICIT_LITTLE_ENDIAN).data_set(
        (
            Node(0x00020001, "OB", b"\0\1"),
            text(0x00020002, "UI", sop_class),
            text(0x00020003, "UI", sop_instance),
            text(0x00020010, "UI", transfer_syntax),
            text(0x00020012, "UI", "2.25.1"),
        )
    )
    length = Node(0x00020000, "UL", struct.pack("<L", len(meta)))
    return b"\0" * 128 + b"DICM" + Writer(EXPLICIT_LITTLE_ENDIAN).element(length) + meta + body


def part10(nodes: Nodes, transfer_syntax: str = EXPLICIT_LITTLE_ENDIAN) -> bytes:
    """The nodes as a file in a native encoding, or an encapsulated one if they hold fragments."""
    body = Writer(transfer_syntax).data_set(nodes)
    if transfer_syntax == DEFLATED_EXPLICIT_LITTLE_ENDIAN:
        body = deflated(body)
    uids = {node.tag: node.value.decode("ascii").rstrip("\0") for node in nodes if node.vr == "UI"}
    return with_meta(
        body,
        transfer_syntax,
        sop_class=uids.get(0x00080016, SECONDARY_CAPTURE),
        sop_instance=uids.get(0x00080018, "2.25.2"),
    )


SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
IDENTITY: Final[Nodes] = (
    text(0x00080016, "UI", SECONDARY_CAPTURE),
    text(0x00080018, "UI", "2.25.2"),
    text(0x0020000D, "UI", "2.25.3"),
    text(0x0020000E, "UI", "2.25.4"),
)


def instance(*more: Node) -> Nodes:
    """The four UIDs C.2 demands, and more, in tag order."""
    return tuple(sorted((*IDENTITY, *more), key=lambda node: node.tag))


def as_nodes(elements: Elements) -> Nodes:
    """What was read, to be written again with defined lengths."""
    return tuple(
        Node(
            element.tag,
            element.vr,
            element.value,
            items=None if element.items is None else tuple(map(as_nodes, element.items)),
            fragments=element.fragments,
        )
        for element in elements
    )
