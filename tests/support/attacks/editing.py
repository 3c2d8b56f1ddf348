"""Changes of files: from the bytes of an instance to those of another one, right or wrong."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeAlias

from tests.support.dicom_tree import (
    DEFLATED_EXPLICIT_LITTLE_ENDIAN,
    DIGITAL_SIGNATURES,
    EXPLICIT_LITTLE_ENDIAN,
    MAC_PARAMETERS,
    parse,
    parse_data_set,
    tag_bytes,
)
from tests.support.raw_dicom import Node, Nodes, Writer, as_nodes, deflated, text

Change: TypeAlias = Callable[[bytes], bytes]
NodesChange: TypeAlias = Callable[[Nodes], Nodes]

MAC_TRANSFER_SYNTAX: Final = 0x04000010
DATA_ELEMENTS_SIGNED: Final = 0x04000020
FILE_META_GROUP_LENGTH: Final = 0x00020000
TRANSFER_SYNTAX_UID: Final = 0x00020010
META_START: Final = 132  # behind preamble and prefix

# --- a file ---


def rewritten(change: NodesChange) -> Change:
    """The data set changed and written again, in the encoding of before."""

    def of_file(data: bytes) -> bytes:
        parsed = parse(data)
        body = Writer(parsed.transfer_syntax).data_set(change(as_nodes(parsed.elements)))
        return parsed.head + (deflated(body) if parsed.transfer_syntax == DEFLATED_EXPLICIT_LITTLE_ENDIAN else body)

    return of_file


def meta_rewritten(change: NodesChange) -> Change:
    """The file meta information changed and written again, with the right group length (PS3.10 7.1)."""

    def of_file(data: bytes) -> bytes:
        head = parse(data).head
        elements = as_nodes(parse_data_set(head[META_START:], EXPLICIT_LITTLE_ENDIAN))
        writer = Writer(EXPLICIT_LITTLE_ENDIAN)
        rest = writer.data_set(tuple(node for node in change(elements) if node.tag != FILE_META_GROUP_LENGTH))
        length = writer.element(Node(FILE_META_GROUP_LENGTH, "UL", struct.pack("<L", len(rest))))
        return data[:META_START] + length + rest + data[len(head) :]

    return of_file


def bytes_replaced(old: bytes, new: bytes) -> Change:
    """The last occurrence of some bytes replaced."""

    def of_file(data: bytes) -> bytes:
        at = data.rindex(old)
        return data[:at] + new + data[at + len(old) :]

    return of_file


def one_after_the_other(*changes: Change) -> Change:
    """Several changes."""

    def of_file(data: bytes) -> bytes:
        for change in changes:
            data = change(data)
        return data

    return of_file


# --- a data set ---


def without(*tags: int) -> NodesChange:
    """Elements removed."""
    return lambda nodes: tuple(node for node in nodes if node.tag not in tags)


def with_nodes(*added: Node) -> NodesChange:
    """Elements added where they belong, or instead of those that have their tags."""
    tags = {node.tag for node in added}
    return lambda nodes: tuple(
        sorted((*(node for node in nodes if node.tag not in tags), *added), key=lambda node: node.tag)
    )


def with_value(tag: int, value: bytes) -> NodesChange:
    """Another value of an element."""
    return lambda nodes: tuple(replace(node, value=value) if node.tag == tag else node for node in nodes)


def with_unknown_vr(*tags: int) -> NodesChange:
    """The VR UN for some elements, and no other byte of their values; sequences become implicit VR (PS3.5 6.2.2)."""
    return lambda nodes: tuple(
        replace(node, vr="UN", undefined_length=node.items is not None) if node.tag in tags else node for node in nodes
    )


def with_fragments(change: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]) -> NodesChange:
    """Other fragments of encapsulated Pixel Data; the first one is the Basic Offset Table."""
    return lambda nodes: tuple(
        node if node.fragments is None else replace(node, fragments=change(node.fragments)) for node in nodes
    )


def in_item(sequence: int, change: NodesChange, number: int = 0) -> NodesChange:
    """A change inside an item of a sequence."""

    def of_items(items: tuple[Nodes, ...]) -> tuple[Nodes, ...]:
        return (*items[:number], change(items[number]), *items[number + 1 :])

    return with_items(sequence, of_items)


def with_items(sequence: int, change: Callable[[tuple[Nodes, ...]], tuple[Nodes, ...]]) -> NodesChange:
    """Other items of a sequence."""
    return lambda nodes: tuple(
        replace(node, items=change(node.items or ())) if node.tag == sequence else node for node in nodes
    )


def both(*changes: NodesChange) -> NodesChange:
    """Several changes of a data set."""

    def of_nodes(nodes: Nodes) -> Nodes:
        for change in changes:
            nodes = change(nodes)
        return nodes

    return of_nodes


# --- the two items of a signature ---


def in_signature(change: NodesChange) -> Change:
    """A change inside the item of the signature."""
    return rewritten(in_item(DIGITAL_SIGNATURES, change))


def in_mac_parameters(change: NodesChange) -> Change:
    """A change inside the item of the MAC parameters."""
    return rewritten(in_item(MAC_PARAMETERS, change))


def relabelled(ending: str) -> Change:
    """Another standard transfer syntax, in the file meta information and in the MAC parameters: neither is covered."""
    uid = "1.2.840.10008.1.2." + ending
    return one_after_the_other(
        meta_rewritten(with_nodes(text(TRANSFER_SYNTAX_UID, "UI", uid))),
        in_mac_parameters(with_nodes(text(MAC_TRANSFER_SYNTAX, "UI", uid))),
    )


def with_tag_list(change: Callable[[tuple[int, ...]], tuple[int, ...]]) -> NodesChange:
    """Another list of Data Elements Signed (0400,0020) in the item of the MAC parameters."""

    def of_item(item: Nodes) -> Nodes:
        return tuple(
            replace(node, value=b"".join(map(tag_bytes, change(tags_in(node.value)))))
            if node.tag == DATA_ELEMENTS_SIGNED
            else node
            for node in item
        )

    return of_item


def tags_in(value: bytes) -> tuple[int, ...]:
    """The tags of a value of VR AT."""
    return tuple(group << 16 | element for group, element in struct.iter_unpack("<HH", value))


def signature_of(data: bytes) -> tuple[Nodes, Nodes]:
    """The first item of the MAC parameters and of the signatures."""
    nodes = top_level(data)
    return (nodes[MAC_PARAMETERS].items or ())[0], (nodes[DIGITAL_SIGNATURES].items or ())[0]


def with_signature_of(other: Callable[[], bytes]) -> Change:
    """The signature of another instance in place of its own."""

    def of_file(data: bytes) -> bytes:
        elements = top_level(other())
        return rewritten(with_nodes(elements[MAC_PARAMETERS], elements[DIGITAL_SIGNATURES]))(data)

    return of_file


def top_level(data: bytes) -> dict[int, Node]:
    """The elements of the data set by tag."""
    return {node.tag: node for node in as_nodes(parse(data).elements)}
