"""Whatever the data set holds and however it is encoded, the product hashes the stream of the oracle.

PS3.3 C.12.1.1.3.1.1 for what is in the stream, PS3.5 for the encodings, PS3.15 C.2 for what is signed.
"""

from __future__ import annotations

import struct
from typing import Final, TypeAlias

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom._dicom_dict import DicomDictionary

from agent.errors import DicomError
from tests.support.creator_attributes import creator_elements, is_creator_attribute
from tests.support.dicom_tree import (
    DEFLATED_EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    SWAPPED_WIDTH,
    parse,
)
from tests.support.mac_oracle import is_signable
from tests.support.product_signing import assert_nothing_else_changed, newest_signature, sign_without_key
from tests.support.raw_dicom import NATIVE_ENCODINGS, Node, Nodes, instance, number, part10, text

RLE_LOSSLESS: Final = "1.2.840.10008.1.2.5"
EXAMPLES: Final = settings(max_examples=100, deadline=None)
NodeStrategy: TypeAlias = st.SearchStrategy[Node]

# --- values and elements ---

IDENTITY_TAGS: Final = {node.tag for node in instance()}
TAKEN: Final = IDENTITY_TAGS | {0x00280103, 0x00080001, 0x4FFE0001, 0xFFFAFFFA, 0xFFFCFFFC}


def standard_tags(vr: str, *, creator: bool) -> list[int]:
    """A few standard attributes of a VR, inside or outside of C.2."""
    found = (
        tag
        for tag, entry in sorted(DicomDictionary.items())
        if entry[0] == vr and is_creator_attribute(tag) == creator and 0x0008 <= tag >> 16 < 0xFFFA and tag not in TAKEN
    )
    return list(found)[:6]


VRS: Final = sorted({entry[0] for entry in DicomDictionary.values() if len(entry[0]) == 2} - {"SQ", "UN"})
STANDARD: Final = [(tag, vr) for vr in VRS for creator in (True, False) for tag in standard_tags(vr, creator=creator)]
SEQUENCES: Final = [0x00081140, 0x00082112, 0x0040A043, 0x0040A730, 0x52009229, 0x52009230, 0x54000100]
OTHER_SEQUENCES: Final = [0x00081115, 0x00101002, 0x00400275]


def values(vr: str) -> st.SearchStrategy[bytes]:
    """Little endian values of even length."""
    if vr in SWAPPED_WIDTH:
        width = SWAPPED_WIDTH[vr] * (2 if vr == "AT" else 1)
        return st.integers(0, 3).flatmap(lambda count: st.binary(min_size=count * width, max_size=count * width))
    if vr == "OB":
        return st.integers(0, 8).flatmap(lambda count: st.binary(min_size=2 * count, max_size=2 * count))
    pad = "\0" if vr == "UI" else " "
    characters = st.text("0123456789." if vr == "UI" else "AZaz09^\\=. ", max_size=12)
    return characters.map(lambda content: (content + pad * (len(content) % 2)).encode("ascii"))


def element(tag: int, vr: str) -> NodeStrategy:
    return values(vr).map(lambda value: Node(tag, vr, value))


def in_order(*groups: list[Node]) -> Nodes:
    """Nodes in tag order, the first of each tag."""
    unique: dict[int, Node] = {}
    for node in (node for group in groups for node in group):
        unique.setdefault(node.tag, node)
    return tuple(unique[tag] for tag in sorted(unique))


standard: Final[NodeStrategy] = st.sampled_from(STANDARD).flatmap(lambda known: element(*known))
group_lengths: Final[NodeStrategy] = st.sampled_from([0x0008, 0x0010, 0x0020, 0x0028, 0x0040]).map(
    lambda group: Node(group << 16, "UL", struct.pack("<L", 0))
)
private: Final[NodeStrategy] = st.one_of(
    st.sampled_from([0x0009, 0x0029, 0x7FE1]).map(lambda group: text(group << 16 | 0x0010, "LO", "SOMEONE")),
    st.sampled_from(VRS).flatmap(lambda vr: element(0x00291001, vr)),
    st.integers(0x00291002, 0x00291004).map(lambda tag: Node(tag, "UN", b"\1\2")),
)
overlays: Final[NodeStrategy] = st.sampled_from([0x6000, 0x6002, 0x60FE]).flatmap(
    lambda group: st.one_of(
        st.just(Node(group << 16 | 0x0010, "US", b"\4\0")),
        st.just(Node(group << 16 | 0x0040, "CS", b"G ")),
        values("OW").map(lambda value: Node(group << 16 | 0x3000, "OW", value)),
    )
)
UNKNOWN: Final = Node(0x04010010, "UN", b"\1\2")
# Left out of every item, and yet: if it is or holds UN, the sequence around it cannot be signed.
never_signed: Final[NodeStrategy] = st.sampled_from(
    [
        Node(0x00080000, "UN", bytes(4)),
        Node(0x4FFE0001, "SQ", items=((UNKNOWN,),)),
        Node(0x4FFE0001, "SQ", items=((number(0x04000005, 1),),)),
        Node(0xFFFAFFFA, "SQ", items=((number(0x04000005, 1), UNKNOWN),)),
        Node(0xFFFCFFFC, "OB", bytes(2)),
        Node(0xFFFCFFFC, "UN", bytes(2)),
    ]
)
signed_pixels: Final = st.sampled_from([None, 0, 1])


def pixel_range(representation: int | None) -> list[Node]:
    """Elements whose VR in implicit VR follows Pixel Representation (0028,0103)."""
    vr = "SS" if representation else "US"
    present = [] if representation is None else [number(0x00280103, representation)]
    return [*present, Node(0x00280106, vr, b"\1\x80"), Node(0x00280120, vr, b"\xff\xff")]


def sequence(tag: int, content: st.SearchStrategy[Nodes], *, most: int = 3) -> NodeStrategy:
    return st.builds(
        lambda items, undefined_length, undefined_items: Node(
            tag, "SQ", items=tuple(items), undefined_length=undefined_length, undefined_items=undefined_items
        ),
        st.lists(content, max_size=most),
        st.booleans(),
        st.booleans(),
    )


def items_of(leaves: NodeStrategy) -> st.SearchStrategy[Nodes]:
    """Items nested up to a few levels deep, with Pixel Representation of their own now and then."""
    flat = st.builds(in_order, st.lists(leaves, max_size=4), own_pixels)
    return st.recursive(
        flat,
        lambda inner: st.builds(
            in_order,
            st.lists(leaves, max_size=3),
            st.lists(st.sampled_from(SEQUENCES).flatmap(lambda tag: sequence(tag, inner, most=2)), max_size=2),
        ),
        max_leaves=6,
    )


own_pixels: Final[st.SearchStrategy[list[Node]]] = st.one_of(st.just([]), st.integers(0, 1).map(pixel_range))


def sequences_of(leaves: NodeStrategy) -> NodeStrategy:
    return st.sampled_from(SEQUENCES + OTHER_SEQUENCES).flatmap(lambda tag: sequence(tag, items_of(leaves)))


native_pixels: Final[st.SearchStrategy[list[Node]]] = st.one_of(
    st.just([]),
    values("OW").map(lambda value: [Node(0x7FE00010, "OW", value)]),
    st.binary(max_size=4).map(lambda value: [Node(0x7FE00010, "OW", value * 2)]),
)
trailing_padding: Final = st.sampled_from([[], [Node(0xFFFCFFFC, "OB", bytes(4))]])
length_to_end: Final = st.sampled_from([[], [Node(0x00080001, "UL", bytes(4))]])


@st.composite
def data_sets(draw: st.DrawFn, leaves: NodeStrategy, extra: NodeStrategy) -> Nodes:
    """A composite instance with anything in it."""
    return in_order(
        list(instance()),
        draw(length_to_end),
        pixel_range(draw(signed_pixels)),
        draw(st.lists(st.one_of(standard, overlays, extra), max_size=8)),
        draw(st.lists(sequences_of(leaves), max_size=3)),
        draw(native_pixels),
        draw(trailing_padding),
    )


everything: Final = data_sets(
    st.one_of(standard, standard, standard, private, group_lengths, never_signed), st.one_of(private, group_lengths)
)
well_known: Final = data_sets(st.one_of(standard, group_lengths), group_lengths)
encapsulated_pixels: Final = st.lists(st.binary(max_size=5).map(lambda value: value * 2), max_size=4).map(
    lambda fragments: Node(0x7FE00010, "OB", fragments=(b"", *fragments))
)

# --- the rules ---


def assert_digest_is_that_of_the_oracle(data: bytes) -> None:
    """Signed over exactly the C.2 attributes, or refused because one of them cannot be signed."""
    present = creator_elements(parse(data).elements)
    if not all(map(is_signable, present)):
        with pytest.raises(DicomError) as refusal:
            sign_without_key(data)
        assert refusal.value.code == "unsignable-element"
        return
    result = sign_without_key(data)
    signature = newest_signature(result.signed)
    assert result.digests == (signature.stream_digest(),)
    assert signature.tags == tuple(node.tag for node in present)
    assert_nothing_else_changed(data, result.signed)


@pytest.mark.parametrize("encoding", NATIVE_ENCODINGS)
@EXAMPLES
@given(nodes=everything)
def test_digest_is_that_of_the_oracle(encoding: str, nodes: Nodes) -> None:
    assert_digest_is_that_of_the_oracle(part10(nodes, encoding))


@EXAMPLES
@given(nodes=everything, pixels=encapsulated_pixels)
@example(nodes=instance(), pixels=Node(0x7FE00010, "OB", fragments=()))
def test_digest_of_encapsulated_pixel_data_is_that_of_the_oracle(nodes: Nodes, pixels: Node) -> None:
    assert_digest_is_that_of_the_oracle(part10(in_order([pixels], list(nodes)), RLE_LOSSLESS))


@EXAMPLES
@given(nodes=well_known)
def test_one_content_has_one_stream_in_every_encoding(nodes: Nodes) -> None:
    streams = {encoding: stream_without_signature_item(part10(nodes, encoding)) for encoding in NATIVE_ENCODINGS}
    assert len(set(streams.values())) == 1


def stream_without_signature_item(data: bytes) -> bytes:
    """The part of the stream that depends on the content only: every signature has a UID and a time of its own."""
    result = sign_without_key(data)
    signature = newest_signature(result.signed)
    assert result.digests == (signature.stream_digest(),)
    return signature.stream[: signature.stream.rindex(b"\x00\x04\x05\x00US")]


@EXAMPLES
@given(nodes=well_known)
def test_length_forms_and_group_lengths_are_not_in_the_stream(nodes: Nodes) -> None:
    plain = in_plain_form(nodes)
    assert stream_without_signature_item(part10(plain)) == stream_without_signature_item(part10(nodes))


def in_plain_form(nodes: Nodes) -> Nodes:
    """Sequences of defined length, and no group lengths."""
    return tuple(
        Node(node.tag, node.vr, node.value, items=node.items and tuple(map(in_plain_form, node.items)))
        for node in nodes
        if node.tag & 0xFFFF
    )


@pytest.mark.parametrize("representation", [0, 1])
@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("tag", [0x00409211, 0x00280106])
def test_items_inherit_pixel_representation_where_the_vr_is_not_written(
    tag: int, depth: int, representation: int
) -> None:
    node = Node(tag, "SS" if representation else "US", b"\0\x80")
    for _ in range(depth):
        node = Node(0x00409096, "SQ", items=((node,),))
    nodes = in_order([*instance(), number(0x00280103, representation), node])
    explicit = stream_without_signature_item(part10(nodes))
    assert stream_without_signature_item(part10(nodes, IMPLICIT_LITTLE_ENDIAN)) == explicit


@pytest.mark.parametrize("tag", [0x50003000, 0x60003000, 0x7FE00010])
def test_bulk_data_have_the_vr_of_ps3_5_a_1_in_implicit_vr(tag: int) -> None:
    node = Node(tag, "OB" if tag == 0x50003000 else "OW", b"\1\2\3\4")
    explicit = stream_without_signature_item(part10(in_order([*instance(), node])))
    assert stream_without_signature_item(part10(in_order([*instance(), node]), IMPLICIT_LITTLE_ENDIAN)) == explicit


@pytest.mark.parametrize("size", range(299_980, 300_020, 2))
def test_a_large_deflated_instance_may_end_with_a_pad_byte(size: int) -> None:
    """PS3.5 A.5 pads a deflated data set of odd length with one zero byte."""
    nodes = (*instance(), Node(0x7FE00010, "OW", bytes(size)))
    assert_digest_is_that_of_the_oracle(part10(nodes, DEFLATED_EXPLICIT_LITTLE_ENDIAN))
