"""Damages the tree of a data set: its elements, sequences, fragments and signature items.

Each damage takes a data set or the content of an item, and gives back another one.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

from tests.support.certificate_mutation import certificate_changed
from tests.support.dicom_tree import (
    DIGITAL_SIGNATURES,
    EXPLICIT_LITTLE_ENDIAN,
    ITEM,
    ITEM_END,
    MAC_PARAMETERS,
    SEQUENCE_END,
    TEXT_SHORT_VRS,
    tag_bytes,
)
from tests.support.raw_dicom import Node, Nodes, Writer
from tests.support.signed_seeds import in_order

VRS: Final = (
    *TEXT_SHORT_VRS,
    "AT",
    "FD",
    "FL",
    "OB",
    "OD",
    "OF",
    "OL",
    "OV",
    "OW",
    "SL",
    "SQ",
    "SS",
    "SV",
    "UC",
    "UL",
    "UN",
)
TAGS: Final = (
    *(0x00000000, 0x00020010, 0x00080000, 0x00080001, 0x00080005, 0x00080008, 0x00080016, 0x00080018, 0x0008001C),
    *(0x00080060, 0x00080068, 0x00080070, 0x00080080, 0x00080100, 0x00081155, 0x00081164, 0x00082112, 0x00089124),
    *(0x00089154, 0x00089215, 0x00090010, 0x00091001, 0x00100010, 0x00100200, 0x00120062, 0x0018100A, 0x0018A001),
    *(0x0020000D, 0x00209172, 0x00280004, 0x00280008, 0x00280010, 0x00280103, 0x00280106, 0x00280300, 0x00400560),
    *(0x0040A043, 0x0040A170, 0x0040A730, 0x00420013, 0x00500004, 0x00620002, 0x04000005, 0x04000015, 0x04000020),
    *(0x04000115, 0x04000120, 0x04000305, 0x04000310, 0x04000401, 0x04000402, 0x04000403, 0x04000404, 0x04000550),
    *(0x04000561, MAC_PARAMETERS, 0x52009229, 0x52009230, 0x60000010, 0x60003000, 0x7FE00001, 0x7FE00002, 0x7FE00003),
    *(0x7FE00008, 0x7FE00010, DIGITAL_SIGNATURES, 0xFFFCFFFC, ITEM, ITEM_END, SEQUENCE_END, 0xFFFFFFFF),
)
VALUES: Final = (
    *(b"", b" ", b"\0\0", b"\xff" * 4, b"+-5 ", b"1e5 ", b"-1", b"99999999999999", b"1\\2\\3 ", b"\\" * 300, b"YES "),
    *(
        b"ISO_IR 100",
        b"ISO_IR 192",
        b"\\ISO 2022 IR 87",
        b"GB18030 ",
        b"ISO_IR 13 ",
        b"\xc3\xa9\xe2\x80\xae",
        b"\x1b[2J",
    ),
    *(b"\xed\xa0\x80\xed\xb0\x80", b"\xff\xfe\x00\xd8", b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0", b"%s%n{0}"),
    *(b"CMS_TSP ", b"SHA1", b"MD5 ", b"SHA512", b"RIPEMD160 ", b"99991231235959.999999+9959", b"00010101000000-1459"),
    *(b"DERIVED\\PRIMARY ", b"MIXED ", b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0", b"(01)00844588003288(21)A"),
    *(b"A" * 70, b"\xcc\x81\xcc\x96" * 40, bytes(300), struct.pack("<Q", 1 << 63), b"2.25.70\0", b"X509_1993_SIG "),
)
CERTIFICATE_OR_STAMP: Final = frozenset((0x04000115, 0x04000310))
DATA_ELEMENTS_SIGNED: Final = 0x04000020

Chance: TypeAlias = random.Random
Damage: TypeAlias = Callable[[Nodes, Chance], Nodes]


# --- where ---


def somewhere(nodes: Nodes, chance: Chance, damage: Damage) -> Nodes:
    """Damage the data set, or the content of any item in it."""
    holders = [at for at, node in enumerate(nodes) if node.items]
    if not holders or chance.random() < 0.35:
        return damage(nodes, chance)
    return _inside(nodes, chance.choice(holders), chance, lambda item, _: somewhere(item, chance, damage))


def in_signatures(nodes: Nodes, chance: Chance) -> Nodes:
    """Damage what belongs to signatures: an item of them, or which of them there are."""
    holders = [at for at, node in enumerate(nodes) if node.tag in {MAC_PARAMETERS, DIGITAL_SIGNATURES}]
    if not holders:
        return somewhere(nodes, chance, chance.choice(DAMAGES))
    at = chance.choice(holders)
    if chance.random() < 0.2:
        return _replaced(nodes, at, items=_other_items(nodes[at].items or (), chance))
    return _inside(nodes, at, chance, chance.choice(DAMAGES_OF_SIGNATURES))


def _inside(nodes: Nodes, at: int, chance: Chance, damage: Damage) -> Nodes:
    items = list(nodes[at].items or ())
    if not items:
        return nodes
    number = chance.randrange(len(items))
    items[number] = damage(items[number], chance)
    return _replaced(nodes, at, items=tuple(items))


def _replaced(nodes: Nodes, at: int, **changes: Any) -> Nodes:
    return (*nodes[:at], replace(nodes[at], **changes), *nodes[at + 1 :])


# --- elements ---


def removed(nodes: Nodes, chance: Chance) -> Nodes:
    """Without one element."""
    at = _any_place(nodes, chance)
    return (*nodes[:at], *nodes[at + 1 :])


def doubled(nodes: Nodes, chance: Chance) -> Nodes:
    """One element twice."""
    at = _any_place(nodes, chance)
    return (*nodes[: at + 1], *nodes[at:])


def swapped(nodes: Nodes, chance: Chance) -> Nodes:
    """Two elements in each other's place."""
    at = _any_place(nodes, chance)
    return (*nodes[:at], *reversed(nodes[at : at + 2]), *nodes[at + 2 :])


def retagged(nodes: Nodes, chance: Chance) -> Nodes:
    """One element under another tag, in order or where it was."""
    if not nodes:
        return nodes
    at = _any_place(nodes, chance)
    changed = _replaced(nodes, at, tag=other_tag(nodes[at].tag, chance))
    return in_order(*changed) if chance.random() < 0.8 else changed


def vr_changed(nodes: Nodes, chance: Chance) -> Nodes:
    """One element under another VR."""
    return _replaced(nodes, _any_place(nodes, chance), vr=chance.choice(VRS)) if nodes else nodes


def value_changed(nodes: Nodes, chance: Chance) -> Nodes:
    """One element with another value."""
    leaves = [at for at, node in enumerate(nodes) if node.items is None and node.fragments is None]
    if not leaves:
        return inserted(nodes, chance)
    at = chance.choice(leaves)
    value = nodes[at].value
    middle = len(value) // 2
    choices = (
        *(chance.choice(VALUES) for _ in range(3)),
        nodes[chance.choice(leaves)].value,
        value * 2,
        value[:middle] + b"\\" + value[middle:],
        chance.randbytes(chance.choice((1, 2, 4, 8, 30))),
        flipped(value, chance),
    )
    other = chance.choice(choices)
    return _replaced(nodes, at, value=even(other) if chance.random() < 0.95 else other)


def values_exchanged(nodes: Nodes, chance: Chance) -> Nodes:
    """Two elements with each other's content."""
    if len(nodes) < 2:
        return nodes
    one, other = chance.sample(range(len(nodes)), 2)
    content_of_one = _content(nodes[one])
    return _replaced(_replaced(nodes, one, **_content(nodes[other])), other, **content_of_one)


def inserted(nodes: Nodes, chance: Chance) -> Nodes:
    """One more element."""
    tag, value = chance.choice(TAGS), even(chance.choice(VALUES))
    kind = chance.random()
    if kind < 0.3:
        items: tuple[Nodes, ...] = chance.choice(
            ((), ((),), (nodes[:2],), ((Node(chance.choice(TAGS), "UT", value),),))
        )
        new = Node(tag, "SQ", items=items, undefined_length=kind < 0.15)
    elif kind < 0.35:
        new = Node(tag, "OB", fragments=chance.choice(((), (b"",), (b"", value))))
    else:
        new = Node(tag, chance.choice(VRS), value)
    return in_order(*nodes, new)


def nested(nodes: Nodes, chance: Chance) -> Nodes:
    """Everything inside a sequence, inside a sequence, perhaps deeper than is allowed."""
    tag, open_end = chance.choice((0x0040A730, 0x00082112, 0x52009230)), chance.random() < 0.5
    inside = nodes
    for _ in range(chance.choice((1, 2, 5, 31, 33, 60))):
        inside = (Node(tag, "SQ", items=(inside,), undefined_length=open_end, undefined_items=open_end),)
    return in_order(*(node for node in nodes if node.tag != tag), *inside)


def spliced(nodes: Nodes, other: Nodes, chance: Chance) -> Nodes:
    """Some elements taken over from another instance."""
    taken = {node.tag: node for node in chance.sample(other, chance.randint(1, len(other)))}
    return in_order(*(node for node in nodes if node.tag not in taken), *taken.values())


DAMAGES: Final[Sequence[Damage]] = (
    *(removed, doubled, swapped, retagged, vr_changed, values_exchanged, inserted, inserted, nested),
    *(value_changed, value_changed, value_changed),
)


# --- sequences and fragments ---


def items_changed(nodes: Nodes, chance: Chance) -> Nodes:
    """A sequence with more items, fewer, or others."""
    holders = [at for at, node in enumerate(nodes) if node.items is not None]
    if not holders:
        return inserted(nodes, chance)
    at = chance.choice(holders)
    return _replaced(nodes, at, items=_other_items(nodes[at].items or (), chance))


def lengths_left_open(nodes: Nodes, chance: Chance) -> Nodes:
    """Sequences that end with delimiters, which no MAC covers."""
    return tuple(
        replace(node, undefined_length=chance.random() < 0.5, undefined_items=chance.random() < 0.5)
        if node.items is not None
        else node
        for node in nodes
    )


def sequence_exchanged(nodes: Nodes, chance: Chance) -> Nodes:
    """A sequence that becomes a value or an unknown one, or a value that becomes a sequence."""
    if not nodes:
        return nodes
    at = _any_place(nodes, chance)
    if nodes[at].items is None:
        return _replaced(nodes, at, vr="SQ", items=chance.choice(((), ((),), (nodes[at + 1 :],))), fragments=None)
    if chance.random() < 0.5:
        return _replaced(nodes, at, vr="UN")
    try:
        content = Writer(EXPLICIT_LITTLE_ENDIAN).data_set(nodes[at + 1 :])
    except struct.error:  # a value that is too long for its VR
        content = b""
    return _replaced(nodes, at, vr=chance.choice(("OB", "UN", "UT")), items=None, value=even(content))


def fragments_changed(nodes: Nodes, chance: Chance) -> Nodes:
    """Fragments merged over the tag between them, cut, exchanged, lost or made up; and their tables."""
    holders = [at for at, node in enumerate(nodes) if node.fragments]
    if not holders:
        return items_changed(nodes, chance)
    at = chance.choice(holders)
    fragments = nodes[at].fragments or ()
    number = chance.randrange(len(fragments))
    before, this, behind = fragments[:number], fragments[number], fragments[number + 1 :]
    cut = chance.randrange(len(this) + 1) & ~1
    table = struct.pack(f"<{len(fragments)}L", *(chance.choice((0, 8, 34, 90)) for _ in fragments))
    choices = (
        (*before, tag_bytes(ITEM).join((this, *behind[:1])), *behind[1:]),
        (*before, this[:cut], this[cut:], *behind),
        (*before, chance.choice((b"", b"ab", this)), this, *behind),
        (*before, *behind),
        (*before, even(flipped(this, chance)), *behind),
        (table, *fragments[1:]),
    )
    return _replaced(nodes, at, fragments=chance.choice(choices))


DAMAGES_OF_SEQUENCES: Final[Sequence[Damage]] = (
    items_changed,
    lengths_left_open,
    lengths_left_open,
    sequence_exchanged,
    fragments_changed,
)


def _other_items(items: tuple[Nodes, ...], chance: Chance) -> tuple[Nodes, ...]:
    last = items[-1][:-1] if items else ()
    return chance.choice(((*items, ()), items * 2, items * 25, items[::-1], items[1:], (*items, last), ()))


# --- signature items ---


def certificate_exchanged(nodes: Nodes, chance: Chance) -> Nodes:
    """Another certificate and time stamp in an item of Digital Signatures Sequence."""
    return tuple(
        replace(node, value=even(certificate_changed(node.value, chance))) if node.tag in CERTIFICATE_OR_STAMP else node
        for node in nodes
    )


def tag_list_changed(nodes: Nodes, chance: Chance) -> Nodes:
    """Another Data Elements Signed in an item of MAC Parameters Sequence."""
    return tuple(
        replace(node, value=_other_tag_list(node.value, chance)) if node.tag == DATA_ELEMENTS_SIGNED else node
        for node in nodes
    )


DAMAGES_OF_SIGNATURES: Final[Sequence[Damage]] = (
    *(certificate_exchanged, certificate_exchanged, tag_list_changed, tag_list_changed),
    *DAMAGES,
)


def _other_tag_list(value: bytes, chance: Chance) -> bytes:
    tags = [value[at : at + 4] for at in range(0, len(value), 4)]
    at, new = chance.randrange(len(tags) + 1), tag_bytes(chance.choice(TAGS))
    in_their_order = sorted({*tags, new}, key=lambda tag: (tag[1::-1], tag[:1:-1]))
    lists = ([*tags[:at], new, *tags[at:]], in_their_order, [*tags[:at], *tags[at + 1 :]], tags[::-1], tags * 2)
    return chance.choice((*(b"".join(each) for each in lists), value[:-2]))


# --- small changes ---


def even(value: bytes) -> bytes:
    """Padded to even length."""
    return value + b"\0" * (len(value) % 2)


def flipped(data: bytes, chance: Chance) -> bytes:
    """With one bit changed."""
    if not data:
        return b"\1"
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def other_tag(tag: int, chance: Chance) -> int:
    """A tag nearby, or one that means something."""
    near = (tag + 1, tag - 1, tag ^ 0x10000, (tag & 0xFFFF) << 16 | tag >> 16)
    return chance.choice((*near, *chance.choices(TAGS, k=6))) & 0xFFFFFFFF


def _any_place(nodes: Nodes, chance: Chance) -> int:
    return chance.randrange(max(1, len(nodes)))


def _content(node: Node) -> dict[str, Any]:
    return {"vr": node.vr, "value": node.value, "items": node.items, "fragments": node.fragments}
