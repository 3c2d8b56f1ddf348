"""VRs of which implicit VR keeps none are restored where the bytes mean the same (PS3.5 A.1)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pytest

from agent.dicom.diagnosis.diagnose import Examination
from tests.support.certificates import Authority, Signer, rsa_key
from tests.support.diagnosing import as_signed, diagnosed, examine, sequence_as_signed, signed_over
from tests.support.dicom_tree import EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from tests.support.raw_dicom import Node, Nodes, instance, number, text

PIXEL_DATA: Final = 0x7FE00010
OVERLAY_DATA, LUT_DATA, WAVEFORM_DATA = 0x60003000, 0x00283006, 0x54001010
LUT_DESCRIPTOR, WAVEFORM_SEQUENCE = 0x00283002, 0x54000100
ITEM: Final = b"\xfe\xff\x00\xe0"
WORDS: Final = b"\0\xfc\1\0"


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Authority(tmp_path_factory.mktemp("pki"), datetime.now(UTC)).issue("Scanner", rsa_key(2048))


def signed_under(
    vr: str, stored: Node, signer: Signer, *more: Node, transfer_syntax: str = EXPLICIT_LITTLE_ENDIAN
) -> bytes:
    """An element that was signed under another VR than it is stored under."""
    stream = as_signed([replace(stored, vr=vr)])
    return signed_over(stream, [stored.tag], instance(*more, stored), signer, transfer_syntax=transfer_syntax)


@pytest.mark.parametrize("transfer_syntax", [EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN])
@pytest.mark.parametrize(
    ("tag", "before", "name"),
    [
        (PIXEL_DATA, "OB", "pixel-vr"),
        (OVERLAY_DATA, "OB", "overlay-vr"),
        (OVERLAY_DATA | 0x00FE0000, "OB", "overlay-vr"),
        (LUT_DATA, "US", "lookup-table-vr"),
        (WAVEFORM_DATA, "OB", "waveform-vr"),
    ],
)
def test_a_vr_that_implicit_vr_does_not_keep_is_restored(
    signer: Signer, tag: int, before: str, name: str, transfer_syntax: str
) -> None:
    signed = signed_under(before, Node(tag, "OW", WORDS), signer, transfer_syntax=transfer_syntax)

    assert diagnosed(examine(signed)) == (name, True)


@pytest.mark.parametrize(("tag", "before", "now"), [(OVERLAY_DATA, "OW", "OB"), (LUT_DATA, "OW", "US")])
def test_the_vr_may_have_been_the_other_one_as_well(signer: Signer, tag: int, before: str, now: str) -> None:
    assert diagnosed(examine(signed_under(before, Node(tag, now, WORDS), signer)))[1]


@pytest.mark.parametrize(("bits", "restored"), [(8, True), (16, False)])
def test_words_that_somebody_calls_bytes_stay_unexplained(signer: Signer, bits: int, *, restored: bool) -> None:
    """PS3.5 A.2: of more than 8 bits they must be OW, and a change of byte order would no longer swap them."""
    signed = signed_under("OW", Node(PIXEL_DATA, "OB", WORDS), signer, number(0x00280100, bits))

    assert (examine(signed) != Examination()) is restored


def test_elements_lose_their_vrs_each_on_its_own(signer: Signer) -> None:
    pixels, overlay = Node(PIXEL_DATA, "OW", WORDS), Node(OVERLAY_DATA, "OB", WORDS)
    stored = (Node(OVERLAY_DATA, "OW", WORDS), pixels)
    tags = [overlay.tag, pixels.tag]
    one = signed_over(as_signed([overlay, pixels]), tags, instance(*stored), signer)
    both = as_signed([overlay, replace(pixels, vr="OB")])

    assert diagnosed(examine(one)) == ("overlay-vr", True)
    assert diagnosed(examine(signed_over(both, tags, instance(*stored), signer))) == ("pixel-vr+overlay-vr", True)


def test_a_lost_vr_inside_an_item_is_restored(signer: Signer) -> None:
    before, now = Node(WAVEFORM_DATA, "OB", WORDS), Node(WAVEFORM_DATA, "OW", WORDS)
    sequence = Node(WAVEFORM_SEQUENCE, "SQ", items=((now,),))
    signed = signed_over(sequence_as_signed(sequence.tag, (before,)), [sequence.tag], instance(sequence), signer)

    assert diagnosed(examine(signed)) == ("waveform-vr", True)


def test_two_kinds_of_lost_vrs_are_restored_together(signer: Signer) -> None:
    creator, private = text(0x00290010, "LO", "SIEMENS CSA HEADER"), text(0x00291008, "CS", "IMAGE NUM 4")
    pixels = Node(PIXEL_DATA, "OB", WORDS)
    stored = (creator, replace(private, vr="UN"), replace(pixels, vr="OW"))
    stream = as_signed([creator, private, pixels])
    signed = signed_over(stream, [creator.tag, private.tag, pixels.tag], instance(*stored), signer)

    assert diagnosed(examine(signed)) == ("pixel-vr+private-vr", True)


@pytest.mark.parametrize("tag", [PIXEL_DATA, OVERLAY_DATA, LUT_DATA, WAVEFORM_DATA])
def test_no_vr_excuses_a_changed_value(signer: Signer, tag: int) -> None:
    stored = Node(tag, "OW", WORDS)
    signed = signed_over(as_signed([replace(stored, value=bytes(4))]), [tag], instance(stored), signer)

    assert examine(signed) == Examination()


@pytest.mark.parametrize("before", ["US", "OB", "UN"])
def test_a_vr_that_the_standard_does_not_offer_is_not_tried(signer: Signer, before: str) -> None:
    assert examine(signed_under(before, Node(0x00660016, "OF", WORDS), signer)) == Examination()


def test_a_number_that_lost_its_sign_is_explained_and_not_excused(signer: Signer) -> None:
    """The same two bytes are 64512 or -1024, and programs go by the VR that they see."""
    before, now = Node(LUT_DESCRIPTOR, "SS", WORDS + b"\0\0"), Node(LUT_DESCRIPTOR, "US", WORDS + b"\0\0")
    sequence, sign = Node(0x00283000, "SQ", items=((now,),)), number(0x00280103, 1)
    stream = as_signed([sign]) + sequence_as_signed(sequence.tag, (before,))
    signed = signed_over(stream, [sign.tag, sequence.tag], instance(sign, sequence), signer)

    assert diagnosed(examine(signed)) == ("sign-lost", False)


@pytest.mark.parametrize(
    "hidden",
    [
        text(0x00041130, "CS", "HIDDEN"),
        Node(0x00080000, "UN", b"HIDDEN"),
        text(0x00080001, "LT", "HIDDEN"),
        Node(0xFFFAFFFA, "SQ", items=((text(0x00100020, "LO", "12345"),),)),
    ],
    ids=["directory group", "group length", "length to end", "signatures"],
)
@pytest.mark.parametrize("deeper", [True, False])
def test_a_private_sequence_in_which_something_hides_is_not_restored(
    signer: Signer, hidden: Node, *, deeper: bool
) -> None:
    """PS3.3 C.12.1.1.3.1.1: no signature covers such elements, wherever they are."""
    meaning, creator = text(0x00080104, "LO", "meaning"), text(0x00090010, "LO", "SOMEONE")

    def examined(item: Nodes) -> Examination | None:
        stored = Node(0x00091002, "UN", items=((Node(0x0040A730, "SQ", items=(item,)),) if deeper else item,))
        content = sequence_as_signed(0x0040A730, (meaning,)) if deeper else as_signed([meaning])
        sequence = sequence_as_signed(stored.tag, ()).replace(ITEM, ITEM + content)
        stream, tags = as_signed([creator]) + sequence, [creator.tag, stored.tag]
        signed = signed_over(stream, tags, instance(creator, stored), signer)
        return examine(signed, dictionary=lambda: lambda tag, _: b"SQ" if tag == stored.tag else b"")

    assert diagnosed(examined((meaning,))) == ("private-vr", True)
    assert examined(tuple(sorted((meaning, hidden), key=lambda node: node.tag))) == Examination(None, ())
