"""A signature that does not verify is explained by the reading under which it does, and by nothing less."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import pytest

from agent.dicom.diagnosis.decompress import compressed_images
from agent.dicom.diagnosis.diagnose import Examination
from agent.dicom.elements import MOST_NAMED
from agent.dicom.report import Finding, Outcome
from tests.support.certificates import Authority, Signer, rsa_key
from tests.support.data_sets import data_set
from tests.support.diagnosing import (
    as_signed,
    codes,
    diagnosed,
    examine,
    fragments_as_signed,
    sequence_as_signed,
    signed_over,
    variant,
)
from tests.support.dicom_tree import EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from tests.support.raw_dicom import Node, Nodes, instance, number, text

RLE: Final = "1.2.840.10008.1.2.5"
JPEG_2000: Final = "1.2.840.10008.1.2.4.91"
NAME: Final = text(0x00100010, "PN", "Doe^Jane")
PATIENT_ID: Final = text(0x00100020, "LO", "12345")
ORIGINAL_ATTRIBUTES, MODIFIED_ATTRIBUTES = 0x04000561, 0x04000550
FRAGMENTS: Final = (b"", b"\1\0\0\0\x40" + bytes(59) + b"\3\1\2\3\4\0")


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Authority(tmp_path_factory.mktemp("pki"), datetime.now(UTC)).issue("Scanner", rsa_key(2048))


def what(examination: Examination | None) -> str:
    """What it says to people."""
    assert examination is not None
    assert examination.diagnosis is not None
    return examination.diagnosis.what


def compressed(*more: Node, vr: str = "OB") -> Nodes:
    """An image of 2 x 2 pixels, with its Pixel Data in fragments."""
    return instance(
        number(0x00280002, 1),
        number(0x00280010, 2),
        number(0x00280011, 2),
        number(0x00280100, 8),
        number(0x00280101, 8),
        number(0x00280103, 0),
        Node(0x7FE00010, vr, fragments=FRAGMENTS),
        *more,
    )


def test_a_signature_that_verifies_needs_no_explanation(signer: Signer) -> None:
    assert variant(signed_over(as_signed([NAME]), [NAME.tag], instance(NAME), signer)) == "intact"


def test_a_changed_value_is_explained_by_nothing(signer: Signer) -> None:
    signed = signed_over(as_signed([NAME]), [NAME.tag], instance(text(NAME.tag, "PN", "Doe^John")), signer)

    assert examine(signed) == Examination()


def test_what_no_reading_can_explain_is_not_looked_into(signer: Signer) -> None:
    disordered = signed_over(as_signed([NAME]), [PATIENT_ID.tag, NAME.tag], instance(NAME, PATIENT_ID), signer)

    assert examine(disordered) is None


# --- encapsulated Pixel Data (PS3.5 A.4) ---


def test_fragments_hashed_under_ow_are_recognised(signer: Signer) -> None:
    stream = fragments_as_signed(b"OW", FRAGMENTS)
    signed = signed_over(
        stream, [0x7FE00010], compressed(vr="OW"), signer, transfer_syntax=RLE, mac_transfer_syntax=RLE
    )

    assert diagnosed(examine(signed)) == ("pixel-data-ow", False)


def test_the_lengths_of_fragments_in_the_old_format_of_dcmtk_are_recognised(signer: Signer) -> None:
    stream = fragments_as_signed(b"OB", FRAGMENTS, lengths=True)
    signed = signed_over(stream, [0x7FE00010], compressed(), signer, transfer_syntax=RLE, mac_transfer_syntax=RLE)

    assert diagnosed(examine(signed)) == ("dcmtk-old-format", False)


def test_pixels_signed_in_another_compression_cannot_be_checked(signer: Signer) -> None:
    stream = fragments_as_signed(b"OB", FRAGMENTS)
    signed = signed_over(stream, [0x7FE00010], compressed(), signer, transfer_syntax=RLE, mac_transfer_syntax=JPEG_2000)

    assert codes(examine(signed)) == ["compressed-original-lost"]


def test_decompressed_pixels_that_were_signed_compressed_cannot_be_checked(signer: Signer) -> None:
    native = instance(Node(0x7FE00010, "OW", bytes(8)))
    signed = signed_over(b"", [0x7FE00010], native, signer, mac_transfer_syntax=JPEG_2000)

    assert codes(examine(signed)) == ["compressed-original-lost"]


def test_what_lossy_compression_lost_is_not_restored(signer: Signer) -> None:
    pixels = Node(0x7FE00010, "OB", b"\1\2\3\4")
    signed = signed_over(as_signed([pixels]), [pixels.tag], compressed(), signer, transfer_syntax=JPEG_2000)
    examination = examine(signed)

    assert codes(examination) == ["compression-lossy"]
    assert examination is not None
    assert examination.diagnosis is None


def test_pixels_compressed_without_loss_are_what_was_signed(signer: Signer) -> None:
    pixels = Node(0x7FE00010, "OW", b"\1\2\3\4")
    signed = signed_over(as_signed([pixels]), [pixels.tag], compressed(), signer, transfer_syntax=RLE)

    assert diagnosed(examine(signed)) == ("lossless-recompression", True)


def test_other_pixels_compressed_without_loss_are_not(signer: Signer) -> None:
    pixels = Node(0x7FE00010, "OW", b"\1\2\3\5")
    signed = signed_over(as_signed([pixels]), [pixels.tag], compressed(), signer, transfer_syntax=RLE)

    assert examine(signed) == Examination()


# --- padding (PS3.5 6.2) ---


@pytest.mark.parametrize(
    ("stored", "hashed"),
    [
        (Node(0x00100010, "PN", b"Doe^Jane    "), NAME),
        (Node(0x00100010, "PN", b"Doe^Jane\0\0"), NAME),
        (Node(0x00080018, "UI", b" 2.25.2\0"), Node(0x00080018, "UI", b"2.25.2")),
        (Node(0x00080018, "UI", b"2.25.2\0\0\0\0"), Node(0x00080018, "UI", b"2.25.2")),
        (Node(0x00080070, "LO", b"    "), Node(0x00080070, "LO", b"")),
    ],
)
def test_strings_padded_anew_before_hashing_are_recognised(signer: Signer, stored: Node, hashed: Node) -> None:
    others = tuple(node for node in instance() if node.tag != stored.tag)
    nodes = tuple(sorted((*others, stored), key=lambda node: node.tag))
    signed = signed_over(as_signed([hashed]), [stored.tag], nodes, signer)

    assert diagnosed(examine(signed)) == ("dcmtk-normalisation", False)


def test_leading_spaces_are_never_taken_away_but_in_uids(signer: Signer) -> None:
    signed = signed_over(as_signed([NAME]), [NAME.tag], instance(Node(NAME.tag, "PN", b"  Doe^Jane")), signer)

    assert variant(signed) == "none"


# --- the VR of private elements (PS3.5 7.8, 6.2.2) ---

CREATOR: Final = text(0x00090010, "LO", "SOMEONE")
THICKNESS: Final = text(0x00091001, "DS", "1.5")


def dictionary_of_someone() -> Callable[[int, str], bytes]:
    """Knows two private elements of one creator."""
    known = {(0x00091001, "SOMEONE"): b"DS", (0x00091002, "SOMEONE"): b"SQ"}
    return lambda tag, creator: known.get((tag, creator), b"")


@pytest.mark.parametrize("transfer_syntax", [EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN])
def test_a_private_element_that_lost_its_vr_is_what_was_signed(signer: Signer, transfer_syntax: str) -> None:
    stored = Node(THICKNESS.tag, "UN", THICKNESS.value)
    stream, tags = as_signed([CREATOR, THICKNESS]), [CREATOR.tag, THICKNESS.tag]
    signed = signed_over(stream, tags, instance(CREATOR, stored), signer, transfer_syntax=transfer_syntax)
    examination = examine(signed, dictionary=dictionary_of_someone)

    assert diagnosed(examination) == ("private-vr", True)
    assert "(0009,1001)" in what(examination)
    assert "(0009,0010)" not in what(examination)


def test_the_creator_of_a_private_element_is_that_of_its_own_item(signer: Signer) -> None:
    stored = Node(THICKNESS.tag, "UN", THICKNESS.value)
    sequence = Node(0x0040A730, "SQ", items=((CREATOR, stored),))
    stream = sequence_as_signed(sequence.tag, (CREATOR, THICKNESS))
    signed = signed_over(stream, [sequence.tag], instance(sequence), signer)

    assert diagnosed(examine(signed, dictionary=dictionary_of_someone)) == ("private-vr", True)


@pytest.mark.parametrize("undefined_length", [True, False])
def test_a_private_sequence_that_lost_its_vr_is_read_as_implicit(signer: Signer, *, undefined_length: bool) -> None:
    inside = text(0x00080104, "LO", "meaning")
    stored = Node(0x00091002, "UN", items=((inside,),), undefined_length=undefined_length)
    stream = as_signed([CREATOR]) + sequence_as_signed(stored.tag, (inside,))
    signed = signed_over(stream, [CREATOR.tag, stored.tag], instance(CREATOR, stored), signer)

    assert diagnosed(examine(signed, dictionary=dictionary_of_someone)) == ("private-vr", True)


def test_an_element_of_the_standard_that_lost_its_vr_is_named_and_not_restored(signer: Signer) -> None:
    """PS3.5 6.2.2: many programs take no notice of it any more, and show something else than was signed."""
    nodes = instance(Node(NAME.tag, "UN", NAME.value))
    examination = examine(signed_over(as_signed([NAME]), [NAME.tag], nodes, signer))

    assert diagnosed(examination) == ("standard-vr", False)
    assert "(0010,0010)" in what(examination)


def test_an_element_of_the_standard_in_an_item_is_not_restored_either(signer: Signer) -> None:
    inside = text(0x00080104, "LO", "meaning")
    stored = Node(0x0040A730, "SQ", items=((Node(inside.tag, "UN", inside.value),),))
    signed = signed_over(sequence_as_signed(stored.tag, (inside,)), [stored.tag], instance(stored), signer)

    assert diagnosed(examine(signed)) == ("standard-vr", False)


def test_private_elements_and_such_of_the_standard_are_not_restored_together(signer: Signer) -> None:
    stored = Node(THICKNESS.tag, "UN", THICKNESS.value)
    nodes = instance(Node(NAME.tag, "UN", NAME.value), CREATOR, stored)
    signed = signed_over(as_signed([CREATOR, THICKNESS, NAME]), [CREATOR.tag, THICKNESS.tag, NAME.tag], nodes, signer)

    assert diagnosed(examine(signed, dictionary=dictionary_of_someone)) == ("standard-vr+private-vr", False)


def test_of_many_elements_only_some_are_named(signer: Signer) -> None:
    tags = [0x00080070, 0x00080080, 0x00081030, 0x0008103E, 0x00081040, 0x00081090, 0x00100020, 0x00100021]
    tags += [0x00101000, 0x00101040, 0x00181000, 0x00181020, 0x00181030]
    texts = [text(tag, "LO", "text") for tag in tags]
    nodes = instance(*(Node(node.tag, "UN", node.value) for node in texts))
    examination = examine(signed_over(as_signed(texts), tags, nodes, signer))

    assert diagnosed(examination) == ("standard-vr", False)
    assert what(examination).count("(00") == MOST_NAMED
    assert f"and {len(tags) - MOST_NAMED} more" in what(examination)


def test_a_private_element_whose_creator_lost_its_vr_is_not_restored(signer: Signer) -> None:
    """PS3.5 7.8.1: who goes by the VR does not know any more whose element it is."""
    nodes = instance(Node(CREATOR.tag, "UN", CREATOR.value), Node(THICKNESS.tag, "UN", THICKNESS.value))
    signed = signed_over(as_signed([CREATOR, THICKNESS]), [CREATOR.tag, THICKNESS.tag], nodes, signer)
    of_element = signed_over(as_signed([THICKNESS]), [THICKNESS.tag], nodes, signer)

    assert examine(signed, dictionary=dictionary_of_someone) == Examination()
    assert examine(of_element, dictionary=dictionary_of_someone) == Examination()


def test_a_private_element_under_the_vr_of_somebody_else_is_named_and_not_restored(signer: Signer) -> None:
    stored = Node(THICKNESS.tag, "SH", THICKNESS.value)
    signed = signed_over(
        as_signed([CREATOR, THICKNESS]), [CREATOR.tag, THICKNESS.tag], instance(CREATOR, stored), signer
    )

    assert diagnosed(examine(signed, dictionary=dictionary_of_someone)) == ("private-vr-differs", False)


def test_a_reading_takes_back_only_what_it_explains(signer: Signer) -> None:
    stored = Node(THICKNESS.tag, "UN", THICKNESS.value)
    stream, tags = as_signed([CREATOR, THICKNESS]), [CREATOR.tag, THICKNESS.tag]
    examination = examine(
        signed_over(stream, tags, instance(CREATOR, stored), signer), dictionary=dictionary_of_someone
    )
    unrelated = Finding("certificate-malformed", "")
    assert examination is not None

    left, restored = examination.instead_of((Finding("signed-element-unsignable", ""), unrelated))
    assert left == unrelated
    assert (restored.code, restored.outcome) == ("restored", Outcome.FLAGGED)
    assert "What a viewer shows" in restored.what
    assert Examination().instead_of((unrelated,)) == (unrelated,)


def test_a_private_element_hashed_as_un_is_recognised(signer: Signer) -> None:
    stream = as_signed([CREATOR, Node(THICKNESS.tag, "UN", THICKNESS.value)])
    signed = signed_over(stream, [CREATOR.tag, THICKNESS.tag], instance(CREATOR, THICKNESS), signer)

    assert diagnosed(examine(signed, dictionary=dictionary_of_someone)) == ("private-un", False)


def test_without_a_private_dictionary_the_report_says_so(signer: Signer) -> None:
    stored = Node(THICKNESS.tag, "UN", THICKNESS.value)
    signed = signed_over(
        as_signed([CREATOR, THICKNESS]), [CREATOR.tag, THICKNESS.tag], instance(CREATOR, stored), signer
    )

    assert codes(examine(signed, dictionary=lambda: None)) == ["private-dictionary-missing"]


def test_a_changed_private_value_is_explained_by_no_vr(signer: Signer) -> None:
    stored = Node(THICKNESS.tag, "UN", b"2.5 ")
    signed = signed_over(
        as_signed([CREATOR, THICKNESS]), [CREATOR.tag, THICKNESS.tag], instance(CREATOR, stored), signer
    )

    assert examine(signed, dictionary=dictionary_of_someone) == Examination()


# --- a recorded change (PS3.3 C.12.1.1.9.1) ---


def history(*before: Nodes) -> Node:
    """Original Attributes Sequence, one item for each change."""
    items = tuple((Node(MODIFIED_ATTRIBUTES, "SQ", items=(values,)),) for values in before)
    return Node(ORIGINAL_ATTRIBUTES, "SQ", items=items)


def test_a_recorded_change_of_the_patient_is_named(signer: Signer) -> None:
    now = text(NAME.tag, "PN", "Miller^Jane")
    nodes = instance(now, PATIENT_ID, history((NAME,)))
    signed = signed_over(as_signed([NAME, PATIENT_ID]), [NAME.tag, PATIENT_ID.tag], nodes, signer)
    examination = examine(signed)

    assert diagnosed(examination) == ("patient-level-change", False)
    assert examination is not None
    assert examination.diagnosis is not None
    assert "(0010,0010)" in examination.diagnosis.what
    assert "(0010,0020)" not in examination.diagnosis.what


def test_of_several_recorded_changes_the_first_kept_what_was_signed(signer: Signer) -> None:
    between, now = text(NAME.tag, "PN", "Smith^Jane"), text(NAME.tag, "PN", "Miller^Jane")
    nodes = instance(now, text(PATIENT_ID.tag, "LO", "999"), history((NAME,), (between, PATIENT_ID)))
    signed = signed_over(as_signed([NAME, PATIENT_ID]), [NAME.tag, PATIENT_ID.tag], nodes, signer)

    assert diagnosed(examine(signed)) == ("patient-level-change", False)


def test_an_attribute_that_was_removed_is_found_in_the_record(signer: Signer) -> None:
    signed = signed_over(as_signed([NAME]), [NAME.tag], instance(history((NAME,))), signer)

    assert diagnosed(examine(signed)) == ("patient-level-change", False)


def test_a_record_of_other_values_explains_nothing(signer: Signer) -> None:
    now, recorded = text(NAME.tag, "PN", "Miller^Jane"), text(NAME.tag, "PN", "Smith^Jane")
    signed = signed_over(as_signed([NAME]), [NAME.tag], instance(now, history((recorded,))), signer)

    assert examine(signed) == Examination()


def test_a_record_does_not_excuse_another_change(signer: Signer) -> None:
    nodes = instance(text(NAME.tag, "PN", "Miller^Jane"), text(PATIENT_ID.tag, "LO", "999"), history((NAME,)))
    signed = signed_over(as_signed([NAME, PATIENT_ID]), [NAME.tag, PATIENT_ID.tag], nodes, signer)

    assert examine(signed) == Examination()


# --- several at once, and limits ---


def test_two_readings_together_are_legitimate_only_if_both_are(signer: Signer) -> None:
    pixels, name = Node(0x7FE00010, "OW", b"\1\2\3\4"), Node(NAME.tag, "PN", b"Doe^Jane    ")
    signed = signed_over(
        as_signed([NAME, pixels]), [NAME.tag, pixels.tag], compressed(name), signer, transfer_syntax=RLE
    )

    assert diagnosed(examine(signed)) == ("dcmtk-normalisation+lossless-recompression", False)


def test_lost_vrs_and_lossless_compression_together_are_legitimate(signer: Signer) -> None:
    pixels, stored = Node(0x7FE00010, "OW", b"\1\2\3\4"), Node(THICKNESS.tag, "UN", THICKNESS.value)
    stream, tags = as_signed([CREATOR, THICKNESS, pixels]), [CREATOR.tag, THICKNESS.tag, pixels.tag]
    signed = signed_over(stream, tags, compressed(CREATOR, stored), signer, transfer_syntax=RLE)

    assert diagnosed(examine(signed, dictionary=dictionary_of_someone)) == ("private-vr+lossless-recompression", True)


def test_a_search_that_costs_too_much_is_ended_and_says_so(signer: Signer) -> None:
    items = tuple((text(0x00080104, "LO", f"{index}"),) for index in range(20_000))
    nodes = instance(NAME, Node(0x0040A730, "SQ", items=items))
    signed = signed_over(b"", [NAME.tag, 0x0040A730], nodes, signer)

    assert codes(examine(signed, work=1 << 20)) == ["diagnosis-incomplete"]


def test_numbers_of_big_endian_files_are_hashed_in_little_endian(signer: Signer) -> None:
    """PS3.3 C.12.1.1.3.1.1: so that only the padding has to be undone."""
    rows = number(0x00280010, 512)
    nodes = instance(Node(NAME.tag, "PN", b"Doe^Jane  "), rows, Node(0x00189087, "FD", struct.pack("<d", 1.5)))
    stream = as_signed([NAME, Node(0x00189087, "FD", struct.pack("<d", 1.5)), rows])
    signed = signed_over(stream, [NAME.tag, 0x00189087, rows.tag], nodes, signer, transfer_syntax="1.2.840.10008.1.2.2")

    assert variant(signed) == "dcmtk-normalisation"


def test_looking_for_compressed_images_asks_nothing_of_other_elements() -> None:
    """A text of another VR is no reason to doubt the instance as long as nobody reads it (PS3.5 6.2)."""
    icon = Node(0x00880200, "SQ", items=((Node(0x7FE00010, "OB", fragments=(b"", b"\xff\xd8")),),))
    found = data_set(Node(0x00204000, "OB", b"remark"), icon, transfer_syntax="1.2.840.10008.1.2.4.70")
    assert [place for place, _ in compressed_images(found, found.tags)] == [(0x00880200, 0)]
    assert not found.misread
