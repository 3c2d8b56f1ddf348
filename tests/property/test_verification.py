"""Whatever a data set holds and however it is encoded: signed, it is intact; changed where it is covered, it is not.

PS3.3 C.12.1.1.3.1.1 for what is covered, PS3.5 for the encodings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.report import SignatureReport
from agent.dicom.verify import Verification, Verifier
from agent.errors import DicomError
from tests.support.dicom_tree import DIGITAL_SIGNATURES, MAC_PARAMETERS, SWAPPED_WIDTH
from tests.support.golden_objects import CONTENT_SEQUENCE
from tests.support.pki import NOW
from tests.support.raw_dicom import NATIVE_ENCODINGS, Node, Nodes, instance, number, part10, text
from tests.support.signed_seeds import Seed, in_order, seed

EXAMPLES: Final = settings(max_examples=60, deadline=None)
VERIFIER: Final = Verifier(Verification(load_profile(ProfileName.CREATOR_PLUS), NOW, diagnosis_work=0))

# --- data sets ---

EVEN_BYTES: Final = st.integers(0, 4).flatmap(lambda count: st.binary(min_size=8 * count, max_size=8 * count))
LEAVES: Final = (
    *((0x00080005, "CS"), (0x00080008, "CS"), (0x00080070, "LO"), (0x00081030, "LO"), (0x00090010, "LO")),
    *((0x00091001, "UN"), (0x00100010, "PN"), (0x00101010, "AS"), (0x00180050, "DS"), (0x00189219, "SS")),
    *((0x00200013, "IS"), (0x00204000, "LT"), (0x00209157, "UL"), (0x00209165, "AT"), (0x00280010, "US")),
    *((0x00280103, "US"), (0x0040A160, "UT"), (0x00720074, "FD"), (0x00720082, "SV"), (0x60003000, "OW")),
    *((0x00380010, "LO"), (0x00400007, "LO"), (0x7FE00010, "OW"), (0xFFFCFFFC, "OB")),
)
SEQUENCES: Final = (0x00081110, 0x00081140, 0x00082112, 0x00101002, 0x00400275, CONTENT_SEQUENCE, 0x52009230)


def leaf(kind: tuple[int, str]) -> st.SearchStrategy[Node]:
    """An element without items; Pixel Representation says unsigned, so that every VR is what it says."""
    tag, vr = kind
    if tag == 0x00280103:
        return st.just(number(tag, 0))
    return EVEN_BYTES.map(lambda value: Node(tag, vr, value if vr in SWAPPED_WIDTH else value.translate(PRINTABLE)))


PRINTABLE: Final = bytes(0x30 + byte % 64 for byte in range(256))


def data_sets(content: st.SearchStrategy[Node]) -> st.SearchStrategy[Nodes]:
    """Some of such elements, each tag once."""
    return st.lists(content, max_size=6, unique_by=lambda node: node.tag).map(lambda nodes: in_order(*nodes))


def sequences(items: st.SearchStrategy[Nodes]) -> st.SearchStrategy[Node]:
    return st.builds(
        lambda tag, content, open_end, open_items: Node(
            tag, "SQ", items=tuple(content), undefined_length=open_end, undefined_items=open_items
        ),
        st.sampled_from(SEQUENCES),
        st.lists(items, max_size=3),
        st.booleans(),
        st.booleans(),
    )


ELEMENTS: Final = st.recursive(
    st.sampled_from(LEAVES).flatmap(leaf), lambda inner: st.one_of(inner, sequences(data_sets(inner))), max_leaves=12
)
INSTANCES: Final = data_sets(ELEMENTS).map(lambda nodes: instance(*nodes))
ENCODINGS: Final = st.sampled_from(NATIVE_ENCODINGS)
PROFILES: Final = st.sampled_from(ProfileName)


def signed(nodes: Nodes, encoding: str, profile: ProfileName) -> Seed:
    """The instance with a signature; rejected where an element that must be signed cannot be."""
    try:
        return seed("", nodes, encoding, profile)
    except DicomError as error:
        assume(error.code != "unsignable-element")
        raise


def verified(data: bytes) -> SignatureReport:
    (report,) = VERIFIER.verify(data).signatures
    return report


# --- edits ---


def changed(node: Node) -> Node:
    """The same element with another value: one number, character or item more."""
    if node.items is not None:
        return replace(node, items=(*node.items, (text(0x0040A160, "UT", "more"),)))
    return replace(node, value=node.value + b"\1" * max(2, SWAPPED_WIDTH.get(node.vr, 2) * (1 + (node.vr == "AT"))))


def with_edit(instance_: Seed, tag: int, edit: Callable[[Node], Nodes]) -> bytes:
    """The signed instance, written again with one element edited."""
    nodes = tuple(new for node in instance_.nodes for new in (edit(node) if node.tag == tag else (node,)))
    return part10(nodes, instance_.transfer_syntax)


EDITS: Final[st.SearchStrategy[Callable[[Node], Nodes]]] = st.sampled_from(
    [lambda node: (changed(node),), lambda _: ()]
)
OF_SIGNATURES: Final = frozenset((MAC_PARAMETERS, DIGITAL_SIGNATURES))


# --- the rules ---


@EXAMPLES
@given(nodes=INSTANCES, encoding=ENCODINGS, profile=PROFILES)
def test_what_is_signed_is_intact(nodes: Nodes, encoding: str, profile: ProfileName) -> None:
    report = verified(signed(nodes, encoding, profile).data)
    assert report.intact
    assert report.integrity.findings == ()


@EXAMPLES
@given(nodes=INSTANCES, encoding=ENCODINGS, target=ENCODINGS)
def test_the_encoding_may_change(nodes: Nodes, encoding: str, target: str) -> None:
    """But for private elements, whose VR implicit VR does not keep."""
    before = signed(nodes, encoding, ProfileName.CREATOR_RSA)
    assume(not any(tag >> 16 & 1 for tag in verified(before.data).coverage.covered))
    assert verified(part10(before.nodes, target)).intact


@EXAMPLES
@given(nodes=INSTANCES, encoding=ENCODINGS, profile=PROFILES, edit=EDITS, data=st.data())
def test_a_covered_element_cannot_be_changed(
    nodes: Nodes, encoding: str, profile: ProfileName, edit: Callable[[Node], Nodes], data: st.DataObject
) -> None:
    before = signed(nodes, encoding, profile)
    tag = data.draw(st.sampled_from(verified(before.data).coverage.covered))
    assert verified(with_edit(before, tag, edit)).intact is False


@EXAMPLES
@given(nodes=INSTANCES, encoding=ENCODINGS, profile=PROFILES, edit=EDITS, data=st.data())
def test_an_element_that_is_not_covered_may_change(
    nodes: Nodes, encoding: str, profile: ProfileName, edit: Callable[[Node], Nodes], data: st.DataObject
) -> None:
    before = signed(nodes, encoding, profile)
    covered = verified(before.data).coverage.covered
    others = [node.tag for node in before.nodes if node.tag not in OF_SIGNATURES and node.tag not in covered]
    assume(others)
    tag = data.draw(st.sampled_from(others))
    assert verified(with_edit(before, tag, edit)).intact


@pytest.mark.parametrize("encoding", NATIVE_ENCODINGS)
def test_every_covered_element_of_an_image_is_needed(encoding: str) -> None:
    before = seed("", instance(*(Node(tag, vr, b"12345678") for tag, vr in LEAVES if vr != "UN")), encoding)
    for tag in verified(before.data).coverage.covered:
        for edit in (lambda node: (changed(node),), lambda _: ()):
            assert verified(with_edit(before, tag, edit)).intact is False, hex(tag)
