"""Why an image was made, by its own account (PS3.3): every marker, what it means, and whether it is covered."""

from __future__ import annotations

import pytest
from pydicom import dcmread
from pydicom.datadict import dictionary_keyword
from pydicom.sr.codedict import codes

from agent.dicom import claims
from agent.dicom.claims import Meaning, claims_of, content_of, remark_findings
from agent.dicom.headers import DEFAULT_LIMITS
from agent.dicom.report import Claim, ContentClass, Outcome
from agent.dicom.stored_instance import StoredInstance
from agent.errors import DicomError
from tests.support.data_sets import code, data_set
from tests.support.dicom_samples import corpus
from tests.support.raw_dicom import NATIVE_ENCODINGS, Node, text

NOTHING: frozenset[int] = frozenset()
ORIGINAL, DERIVED, SYNTHETIC, PHANTOM, TEST = (
    ContentClass.ORIGINAL,
    ContentClass.DERIVED,
    ContentClass.SYNTHETIC,
    ContentClass.PHANTOM,
    ContentClass.TEST,
)


def found(*nodes: Node, covered: frozenset[int] = NOTHING) -> tuple[Claim, ...]:
    return claims_of(data_set(*nodes), covered)


def contributor(purpose: str) -> Node:
    return Node(0x0018A001, "SQ", items=((code(0x0040A170, purpose),),))


def segment(kind: str, *algorithm: Node) -> tuple[Node, ...]:
    identification = (Node(0x00620007, "SQ", items=(algorithm,)),) if algorithm else ()
    return (*identification, text(0x00620008, "CS", kind))


MARKERS: list[tuple[Node, str, set[ContentClass]]] = [
    (text(0x00080008, "CS", "ORIGINAL\\PRIMARY\\AXIAL"), "original", {ORIGINAL}),
    (text(0x00080008, "CS", "DERIVED\\SECONDARY"), "derived", {DERIVED}),
    (text(0x00080008, "CS", "MIXED\\PRIMARY\\VOLUME\\NONE"), "derived", {DERIVED}),
    (text(0x00080008, "CS", "SOMETHING\\ELSE"), "derived", {DERIVED}),
    (text(0x0008001C, "CS", "YES"), "synthetic", {SYNTHETIC}),
    (text(0x0008001C, "CS", "NO"), "not-synthetic", set()),
    (text(0x0008001C, "CS", "MAYBE"), "synthetic", {SYNTHETIC}),
    (text(0x00080068, "CS", "FOR PRESENTATION"), "for-presentation", set()),
    (text(0x00080068, "CS", "FOR PROCESSING"), "for-processing", set()),
    (text(0x00082111, "ST", "multiplanar reformatting"), "derived", {DERIVED}),
    (code(0x00089215, "113072"), "derived", {DERIVED}),
    (code(0x00089215, "own", "99ACME"), "derived", {DERIVED}),
    (text(0x00100200, "CS", "YES"), "phantom", {PHANTOM}),
    (text(0x00100200, "CS", "NO"), "patient", set()),
    (text(0x00100200, "CS", "MAYBE"), "unknown", set()),
    (text(0x00120010, "LO", "sponsor"), "clinical-trial", set()),
    (text(0x00120020, "LO", "protocol"), "clinical-trial", set()),
    (text(0x00120062, "CS", "YES"), "de-identified", set()),
    (text(0x00189004, "CS", "PRODUCT"), "product", set()),
    (text(0x00189004, "CS", "RESEARCH"), "research", {TEST}),
    (text(0x00189004, "CS", "SERVICE"), "service", {TEST}),
    (contributor("109100"), "synthetic", {SYNTHETIC}),
    (contributor("109102"), "processed", set()),
    (contributor("109103"), "modified", set()),
    (contributor("109104"), "de-identified", set()),
    (contributor("109105"), "derived", {DERIVED}),
    (contributor("109106"), "derived", {DERIVED}),
    (text(0x00280300, "CS", "YES"), "quality-control", {TEST}),
    (text(0x00280300, "CS", "NO"), "patient", set()),
    (code(0x00401012, "110002"), "quality-control", {TEST}),
    (code(0x00401012, "113004"), "training", {TEST}),
    (code(0x00401012, "113009"), "research", {TEST}),
    # An object of known size may be in the picture of a patient: no reason to take it for a test image.
    (text(0x00500004, "CS", "YES"), "calibration", set()),
    (Node(0x00620002, "SQ", items=(segment("AUTOMATIC"),)), "automatic", set()),
    (Node(0x00620002, "SQ", items=(segment("SEMIAUTOMATIC"),)), "semi-automatic", set()),
    (Node(0x00620002, "SQ", items=(segment("MANUAL"),)), "manual", set()),
    (
        Node(0x00620002, "SQ", items=(segment("", code(0x0066002F, "123110")),)),
        "artificial-intelligence",
        {DERIVED},
    ),
    (text(0x04000600, "CS", "LOCAL"), "local", set()),
    (text(0x04000600, "CS", "IMPORTED"), "imported", set()),
]


@pytest.mark.parametrize(("marker", "meaning", "content"), MARKERS)
def test_a_marker_has_its_meaning_and_its_class(marker: Node, meaning: str, content: set[ContentClass]) -> None:
    (claim,) = found(marker)
    assert claim.meaning == meaning
    assert not claim.covered
    assert content_of((claim,)) == content


@pytest.mark.parametrize("value", [b"DERIVED\0\\PRIMARY", b"\\DERIVED", b"DERIVED\xa0", b"DERIVEDX"])
def test_what_may_be_read_as_derived_is_no_original(value: bytes) -> None:
    """PS3.3 C.7.6.1.1.2 knows two words for value 1, and a reader may stop at a byte NUL."""
    assert content_of(found(Node(IMAGE_TYPE, "CS", value))) == {DERIVED}


@pytest.mark.parametrize("marker", [marker for marker, _, _ in MARKERS])
def test_a_marker_is_covered_where_its_attribute_of_the_data_set_is(marker: Node) -> None:
    (claim,) = found(marker, covered=frozenset((marker.tag,)))
    assert claim.covered


@pytest.mark.parametrize("marker", [marker for marker, _, _ in MARKERS])
def test_a_marker_in_an_item_names_the_attribute_of_the_data_set_whose_coverage_counts(marker: Node) -> None:
    """Data Elements Signed (0400,0020) lists attributes of the data set, whole sequences among them."""
    (claim,) = found(marker)
    assert claim.attribute == marker.tag


def test_every_meaning_has_a_marker_in_these_tests() -> None:
    depending_on_others = {Meaning.DERIVATION_REMARK}
    assert {meaning for _, meaning, _ in MARKERS} == set(Meaning) - depending_on_others


@pytest.mark.parametrize("encoding", NATIVE_ENCODINGS)
def test_markers_read_the_same_in_every_encoding(encoding: str) -> None:
    nodes = (MARKERS[0][0], MARKERS[4][0], contributor("109104"), text(0x00280300, "CS", "YES"))
    expected = claims_of(data_set(*nodes), NOTHING)
    assert claims_of(data_set(*nodes, transfer_syntax=encoding), NOTHING) == expected
    assert content_of(expected) == {ORIGINAL, SYNTHETIC, TEST}


def test_an_image_that_says_nothing_claims_nothing() -> None:
    assert found() == ()
    assert content_of(()) == frozenset()


@pytest.mark.parametrize(
    "marker",
    [
        text(0x0008001C, "CS", ""),
        text(0x00080008, "CS", ""),
        text(0x00120062, "CS", "NO"),
        text(0x00500004, "CS", "NO"),
        contributor("109101"),
        contributor("no code of ours"),
        Node(0x0018A001, "SQ", items=((code(0x0040A170, "109100", "99ACME"),),)),
        Node(0x00620002, "SQ", items=(segment("BY HAND"),)),
    ],
)
def test_a_marker_that_is_empty_or_denies_claims_nothing(marker: Node) -> None:
    assert found(marker) == ()


def test_a_reason_about_the_patients_health_is_not_repeated() -> None:
    assert found(code(0x00401012, "86406008", "SCT", "HIV infection")) == ()


def test_the_title_of_a_key_object_document_says_what_it_is_for() -> None:
    title = code(0x0040A043, "113004")
    key_objects = text(0x00080016, "UI", claims.KEY_OBJECT_SELECTION)
    assert [claim.meaning for claim in found(title, key_objects)] == [Meaning.TRAINING]
    assert found(title) == ()


def test_lower_case_is_understood_as_other_readers_may() -> None:
    assert [claim.meaning for claim in found(text(0x0008001C, "CS", "yes"))] == [Meaning.SYNTHETIC]


@pytest.mark.parametrize("value", ["YES\\YES", "YES\\NO", "NO\\YES", "NO\\", "Y", "TRUE"])
def test_what_may_be_read_as_synthetic_is_synthetic(value: str) -> None:
    """PS3.3 C.12.1 knows YES and NO, one of them."""
    assert [claim.meaning for claim in found(text(0x0008001C, "CS", value))] == [Meaning.SYNTHETIC]


def test_a_second_value_where_only_one_may_be_is_not_overlooked() -> None:
    assert [claim.meaning for claim in found(text(0x00100200, "CS", "NO\\YES"))] == [Meaning.UNKNOWN]


@pytest.mark.parametrize("vr", ["ST", "LO", "UN"])
@pytest.mark.parametrize("value", ["\\denoised", "\\", "denoised\\twice"])
def test_any_description_of_a_derivation_counts_wherever_its_backslashes_stand(vr: str, value: str) -> None:
    (claim,) = found(Node(DESCRIPTION, vr, value.encode() + b" " * (len(value) % 2)))
    assert (claim.meaning, claim.value) == (Meaning.DERIVED, value)


def test_claims_that_contradict_each_other_both_count() -> None:
    contradiction = found(text(0x00080008, "CS", "ORIGINAL\\PRIMARY"), text(0x00082111, "ST", "enhanced"))
    assert content_of(contradiction) == {ORIGINAL, DERIVED}


# An original as its maker signed it, and what DCMTK writes into it when it compresses without loss (ADR 20).
IMAGE_TYPE, DESCRIPTION, PIXELS = 0x00080008, 0x00082111, 0x7FE00010
SIGNED = frozenset((IMAGE_TYPE, 0x00282110, PIXELS))
AN_ORIGINAL = (text(IMAGE_TYPE, "CS", "ORIGINAL\\PRIMARY"), Node(PIXELS, "OW", b"\0\0"))
REMARK = text(DESCRIPTION, "ST", "Lossless JPEG compression, selection value 1")


def test_an_unsigned_description_of_a_signed_original_is_a_remark_and_no_derivation() -> None:
    for lossless in ((), (text(0x00282110, "CS", "00"),)):
        claims = found(*AN_ORIGINAL, REMARK, *lossless, covered=SIGNED)
        assert [claim.meaning for claim in claims] == [Meaning.ORIGINAL, Meaning.DERIVATION_REMARK]
        assert content_of(claims) == {ORIGINAL}
        (finding,) = remark_findings(claims)
        assert (finding.code, finding.outcome) == ("derivation-remark", Outcome.FLAGGED)


@pytest.mark.parametrize("covered", [NOTHING, {IMAGE_TYPE}, {PIXELS}, {*SIGNED, DESCRIPTION}])
def test_it_is_one_only_where_the_maker_signed_original_and_pixels_and_not_the_description(covered: set[int]) -> None:
    claims = found(*AN_ORIGINAL, REMARK, covered=frozenset(covered))
    assert content_of(claims) == {ORIGINAL, DERIVED}
    assert not list(remark_findings(claims))


@pytest.mark.parametrize(
    "trace",
    [
        text(IMAGE_TYPE, "CS", "DERIVED\\PRIMARY"),
        text(IMAGE_TYPE, "CS", "MIXED\\PRIMARY"),
        text(0x00282110, "CS", "01"),
        text(0x00282110, "CS", "00\\01"),
        text(0x00282110, "CS", "perhaps"),
        code(0x00089215, "113040"),
        Node(0x00089215, "SQ", items=()),
        Node(0x00082112, "SQ", items=((text(0x00081155, "UI", "2.25.1"),),)),
        Node(0x00089124, "SQ", items=((Node(0x00082112, "SQ", items=((text(0x00081155, "UI", "2.25.1"),),)),),)),
        contributor("109106"),
        Node(0x00620002, "SQ", items=(segment("", code(0x0066002F, "123110")),)),
    ],
)
@pytest.mark.parametrize("signed", [True, False])
def test_any_other_trace_of_a_derivation_is_believed_signed_or_not(trace: Node, *, signed: bool) -> None:
    nodes = {node.tag: node for node in (*AN_ORIGINAL, REMARK, trace)}
    claims = found(*nodes.values(), covered=SIGNED | {trace.tag} if signed else SIGNED)
    assert DERIVED in content_of(claims)
    assert not list(remark_findings(claims))


def test_an_image_type_without_an_image_makes_no_remark_of_a_description() -> None:
    assert content_of(found(AN_ORIGINAL[0], REMARK, covered=SIGNED)) == {ORIGINAL, DERIVED}


def test_an_original_without_a_description_holds_no_remark() -> None:
    assert not list(remark_findings(found(*AN_ORIGINAL, covered=SIGNED)))


def test_the_same_claim_of_many_segments_is_made_once() -> None:
    assert len(found(Node(0x00620002, "SQ", items=(segment("AUTOMATIC"),) * 500))) == 1


def test_a_flood_of_claims_is_bounded_and_hides_no_other() -> None:
    flood = tuple(code(0x00089215, f"C{number}", "99ACME").items[0] for number in range(5_000))  # type: ignore[index]
    marked = found(Node(0x00089215, "SQ", items=flood), MARKERS[-4][0], contributor("109100"))
    assert len(marked) == 100
    assert {Meaning.SYNTHETIC, Meaning.MANUAL} < {claim.meaning for claim in marked}


def test_more_items_than_can_be_looked_at_are_no_reason_to_look_away() -> None:
    contributors = contributor("109101").items or ()
    with pytest.raises(DicomError) as refusal:
        found(Node(0x0018A001, "SQ", items=(*contributors * 10_000, *(contributor("109100").items or ()))))
    assert refusal.value.code == "too-many-elements"


def test_hostile_text_is_shown_bounded_and_printable() -> None:
    (claim,) = found(Node(0x00082111, "ST", ("\x1b[31m" * 2_000).encode()))
    assert len(claim.value) <= 200
    assert claim.value.isprintable()


def test_the_attributes_are_those_of_the_data_dictionary() -> None:
    named = {
        name: tag for name, tag in vars(claims).items() if name.isupper() and isinstance(tag, int) and tag > 0xFFFF
    }
    words = {name: dictionary_keyword(tag) for name, tag in named.items()}
    assert {name: word for name, word in words.items() if word.upper() != name.replace("_", "")} == {}


@pytest.mark.parametrize(
    ("table", "context"),
    [("_CONTRIBUTIONS", "CID7005"), ("_ALGORITHM_FAMILIES", "CID7162")],
)
def test_the_codes_are_those_of_their_context_groups(table: str, context: str) -> None:
    group = getattr(codes, context.lower())
    assert set(vars(claims)[table]) <= {code.value for code in group.concepts.values()}


def test_the_reasons_are_codes_of_dicom() -> None:
    known = {code.value for code in codes.DCM.concepts.values()}
    assert set(claims._REASONS) <= known


def test_samples_claim_what_another_reader_finds_in_them() -> None:
    compared = 0
    for sample in corpus():
        try:
            ours = StoredInstance.read(sample.path.read_bytes(), DEFAULT_LIMITS).data_set
        except DicomError:
            continue
        theirs = dcmread(sample.path, stop_before_pixels=True, force=True)
        kind = str(theirs.ImageType[0]).strip().lower() if theirs.get("ImageType") else ""
        meanings = {claim.meaning for claim in claims_of(ours, NOTHING) if claim.tag == 0x00080008}
        assert meanings == ({kind} if kind else set()), sample.name
        compared += bool(kind)
    assert compared > 20
