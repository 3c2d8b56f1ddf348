"""Why an image was made, by its own account: the markers of PS3.3 and what each of them means.

Whether a signature covers a marker decides what it is worth. No marker is taken for more than the standard gives it:
Calibration Image says that an object of known size is in the picture, which may still be one of a patient. Reasons for
the procedure are given only where their code is one of `_REASONS`; any other is about somebody's health.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from itertools import chain

from agent.dicom.content import IMAGE_TYPE, SYNTHETIC_DATA
from agent.dicom.data_set import DataSet
from agent.dicom.elements import ALL_PIXEL_DATA, CODE_VALUE, CODING_SCHEME_DESIGNATOR, SOP_CLASS_UID, tag_name
from agent.dicom.headers import malformed
from agent.dicom.provenance.sources import StatedSources, stated_sources
from agent.dicom.report import Claim, ContentClass, Finding, Outcome
from enroll.foreign import printable

PRESENTATION_INTENT_TYPE = 0x00080068
DERIVATION_DESCRIPTION = 0x00082111
DERIVATION_CODE_SEQUENCE = 0x00089215
QUALITY_CONTROL_SUBJECT = 0x00100200
CLINICAL_TRIAL_SPONSOR_NAME = 0x00120010
CLINICAL_TRIAL_PROTOCOL_ID = 0x00120020
PATIENT_IDENTITY_REMOVED = 0x00120062
CONTENT_QUALIFICATION = 0x00189004
CONTRIBUTING_EQUIPMENT_SEQUENCE = 0x0018A001
QUALITY_CONTROL_IMAGE = 0x00280300
LOSSY_IMAGE_COMPRESSION = 0x00282110
REASON_FOR_PERFORMED_PROCEDURE_CODE_SEQUENCE = 0x00401012
CONCEPT_NAME_CODE_SEQUENCE = 0x0040A043
PURPOSE_OF_REFERENCE_CODE_SEQUENCE = 0x0040A170
CALIBRATION_IMAGE = 0x00500004
SEGMENT_SEQUENCE = 0x00620002
SEGMENTATION_ALGORITHM_IDENTIFICATION_SEQUENCE = 0x00620007
SEGMENT_ALGORITHM_TYPE = 0x00620008
ALGORITHM_FAMILY_CODE_SEQUENCE = 0x0066002F
INSTANCE_ORIGIN_STATUS = 0x04000600

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
_MOST_ITEMS = 10_000  # of one sequence; no real object has a tenth of it
_MOST_CLAIMS = 100  # different ones; no real object has a tenth of it


class Meaning(StrEnum):
    """What a marker means."""

    ORIGINAL = "original"
    DERIVED = "derived"
    DERIVATION_REMARK = "derivation-remark"  # of a later tool, about what was signed as an original
    SYNTHETIC = "synthetic"
    NOT_SYNTHETIC = "not-synthetic"
    PATIENT = "patient"
    PHANTOM = "phantom"
    QUALITY_CONTROL = "quality-control"
    CALIBRATION = "calibration"
    SERVICE = "service"
    RESEARCH = "research"
    PRODUCT = "product"
    TRAINING = "training"
    CLINICAL_TRIAL = "clinical-trial"
    DE_IDENTIFIED = "de-identified"
    FOR_PRESENTATION = "for-presentation"
    FOR_PROCESSING = "for-processing"
    PROCESSED = "processed"
    MODIFIED = "modified"
    ARTIFICIAL_INTELLIGENCE = "artificial-intelligence"
    AUTOMATIC = "automatic"
    SEMI_AUTOMATIC = "semi-automatic"
    MANUAL = "manual"
    LOCAL = "local"
    IMPORTED = "imported"
    UNKNOWN = "unknown"  # a value that the standard does not have


_YES = "YES"
_NO = "NO"
_TERMS: dict[int, dict[str, Meaning | None]] = {  # None: a term that claims nothing
    SYNTHETIC_DATA: {_YES: Meaning.SYNTHETIC, _NO: Meaning.NOT_SYNTHETIC},
    PRESENTATION_INTENT_TYPE: {
        "FOR PRESENTATION": Meaning.FOR_PRESENTATION,
        "FOR PROCESSING": Meaning.FOR_PROCESSING,
    },
    QUALITY_CONTROL_SUBJECT: {_YES: Meaning.PHANTOM, _NO: Meaning.PATIENT},
    PATIENT_IDENTITY_REMOVED: {_YES: Meaning.DE_IDENTIFIED, _NO: None},
    CONTENT_QUALIFICATION: {
        "PRODUCT": Meaning.PRODUCT,
        "RESEARCH": Meaning.RESEARCH,
        "SERVICE": Meaning.SERVICE,
    },
    QUALITY_CONTROL_IMAGE: {_YES: Meaning.QUALITY_CONTROL, _NO: Meaning.PATIENT},
    CALIBRATION_IMAGE: {_YES: Meaning.CALIBRATION, _NO: None},
    INSTANCE_ORIGIN_STATUS: {"LOCAL": Meaning.LOCAL, "IMPORTED": Meaning.IMPORTED},
}
# Neither YES nor NO may be read as YES by somebody, so no role but synthesis signs it (`content.check_role`).
_OTHER_TERMS = {SYNTHETIC_DATA: Meaning.SYNTHETIC}
_SEGMENT_ALGORITHM_TYPES = {
    "AUTOMATIC": Meaning.AUTOMATIC,
    "SEMIAUTOMATIC": Meaning.SEMI_AUTOMATIC,
    "MANUAL": Meaning.MANUAL,
}
# All of the coding scheme DCM (PS3.16 Annex D). Purposes of CID 7005; 109101 is the scanner itself.
_CONTRIBUTIONS = {
    "109100": Meaning.SYNTHETIC,
    "109102": Meaning.PROCESSED,
    "109103": Meaning.MODIFIED,
    "109104": Meaning.DE_IDENTIFIED,
    "109105": Meaning.DERIVED,  # frames were taken out of another instance
    "109106": Meaning.DERIVED,  # converted from other instances
}
_ALGORITHM_FAMILIES = {"123110": Meaning.ARTIFICIAL_INTELLIGENCE}
# Reasons for a procedure, and titles of key object documents (CID 7010), that say it was not for the patient's sake.
_REASONS = {
    "110002": Meaning.QUALITY_CONTROL,
    "113680": Meaning.QUALITY_CONTROL,
    "121730": Meaning.QUALITY_CONTROL,
    "128205": Meaning.QUALITY_CONTROL,
    "113004": Meaning.TRAINING,
    "128710": Meaning.TRAINING,
    "113009": Meaning.RESEARCH,
    "128713": Meaning.RESEARCH,
}

_CLASSES = {
    Meaning.ORIGINAL: ContentClass.ORIGINAL,
    Meaning.DERIVED: ContentClass.DERIVED,
    Meaning.ARTIFICIAL_INTELLIGENCE: ContentClass.DERIVED,
    Meaning.SYNTHETIC: ContentClass.SYNTHETIC,
    Meaning.PHANTOM: ContentClass.PHANTOM,
    Meaning.QUALITY_CONTROL: ContentClass.TEST,
    Meaning.SERVICE: ContentClass.TEST,
    Meaning.RESEARCH: ContentClass.TEST,
    Meaning.TRAINING: ContentClass.TEST,
}


def claims_of(data_set: DataSet, covered: frozenset[int]) -> tuple[Claim, ...]:
    """The markers of an instance, each different one once.

    Args:
        data_set: The data set of the instance.
        covered: The tags that an intact signature of the data set covers.

    Raises:
        DicomError: More items than can be looked at.
    """
    found = chain(
        _image_type(data_set, covered),
        _terms(data_set, covered),
        _clinical_trial(data_set, covered),
        _codes(data_set, covered),
        _segments(data_set, covered),
        _derivations(data_set, covered),  # last, because only these can be of any number
    )
    different: dict[Claim, None] = {}
    for claim in found:
        different[claim] = None
        if len(different) == _MOST_CLAIMS:
            break
    claims = tuple(different)
    if not _described_later(data_set, covered, claims):
        return claims
    return tuple(
        replace(claim, meaning=Meaning.DERIVATION_REMARK) if claim.tag == DERIVATION_DESCRIPTION else claim
        for claim in claims
    )


def content_of(claims: Iterable[Claim]) -> frozenset[ContentClass]:
    """The kinds of content that the markers come to, covered or not."""
    meanings = {claim.meaning for claim in claims}
    return frozenset(content for meaning, content in _CLASSES.items() if meaning in meanings)


def remark_findings(claims: Iterable[Claim]) -> Iterator[Finding]:
    """That the markers hold a remark on a derivation which the signer does not confirm."""
    if any(claim.meaning == Meaning.DERIVATION_REMARK for claim in claims):
        what = "It is signed as an original; no signature covers the remark in Derivation Description (0008,2111)."
        yield Finding("derivation-remark", what, Outcome.FLAGGED)


def _image_type(data_set: DataSet, covered: frozenset[int]) -> Iterator[Claim]:
    """PS3.3 C.7.6.1.1.2: value 1 is about the pixels; value 2, PRIMARY or SECONDARY, about the examination.

    MIXED stands for frames of both kinds (PS3.3 C.8.16.1.1). Any other word than ORIGINAL may be read as DERIVED by
    somebody, so it counts as that.
    """
    if values := data_set.texts(IMAGE_TYPE):
        meaning = Meaning.ORIGINAL if values[0].upper() == "ORIGINAL" else Meaning.DERIVED
        yield Claim(IMAGE_TYPE, printable("\\".join(values)), meaning, IMAGE_TYPE in covered)


def _terms(data_set: DataSet, covered: frozenset[int]) -> Iterator[Claim]:
    for tag, terms in _TERMS.items():
        value = "\\".join(data_set.texts(tag)) if tag in data_set else ""
        meaning = terms.get(value.upper(), _OTHER_TERMS.get(tag, Meaning.UNKNOWN)) if value else None
        if meaning:
            yield Claim(tag, printable(value), meaning, tag in covered)


def _clinical_trial(data_set: DataSet, covered: frozenset[int]) -> Iterator[Claim]:
    """Sponsor and protocol; what else the trial modules hold is about the patient."""
    for tag in (CLINICAL_TRIAL_SPONSOR_NAME, CLINICAL_TRIAL_PROTOCOL_ID):
        if value := data_set.text(tag):
            yield Claim(tag, printable(value), Meaning.CLINICAL_TRIAL, tag in covered)


def _codes(data_set: DataSet, covered: frozenset[int]) -> Iterator[Claim]:
    contributors = CONTRIBUTING_EQUIPMENT_SEQUENCE
    for equipment in _items(data_set, contributors):
        yield from _known_codes(equipment, PURPOSE_OF_REFERENCE_CODE_SEQUENCE, _CONTRIBUTIONS, covered, contributors)
    yield from _known_codes(data_set, REASON_FOR_PERFORMED_PROCEDURE_CODE_SEQUENCE, _REASONS, covered)
    if CONCEPT_NAME_CODE_SEQUENCE in data_set and data_set.text(SOP_CLASS_UID) == KEY_OBJECT_SELECTION:
        yield from _known_codes(data_set, CONCEPT_NAME_CODE_SEQUENCE, _REASONS, covered)


def _segments(data_set: DataSet, covered: frozenset[int]) -> Iterator[Claim]:
    """How the segments of a segmentation were made (PS3.3 C.8.20.2, 10.16)."""
    for segment in _items(data_set, SEGMENT_SEQUENCE):
        kind = segment.text(SEGMENT_ALGORITHM_TYPE)
        if meaning := _SEGMENT_ALGORITHM_TYPES.get(kind.upper()):
            yield Claim(SEGMENT_ALGORITHM_TYPE, kind, meaning, SEGMENT_SEQUENCE in covered, SEGMENT_SEQUENCE)
        for algorithm in _items(segment, SEGMENTATION_ALGORITHM_IDENTIFICATION_SEQUENCE):
            family = ALGORITHM_FAMILY_CODE_SEQUENCE
            yield from _known_codes(algorithm, family, _ALGORITHM_FAMILIES, covered, SEGMENT_SEQUENCE)


def _derivations(data_set: DataSet, covered: frozenset[int]) -> Iterator[Claim]:
    """What the whole image says; that some frames are derived, Image Type tells (PS3.3 C.8.16.1.1)."""
    if value := "\\".join(data_set.texts(DERIVATION_DESCRIPTION)):
        yield Claim(DERIVATION_DESCRIPTION, printable(value), Meaning.DERIVED, DERIVATION_DESCRIPTION in covered)
    for code in _items(data_set, DERIVATION_CODE_SEQUENCE):
        value = printable("^".join((code.text(CODE_VALUE), code.text(CODING_SCHEME_DESIGNATOR))))
        yield Claim(DERIVATION_CODE_SEQUENCE, value, Meaning.DERIVED, DERIVATION_CODE_SEQUENCE in covered)


def _described_later(data_set: DataSet, covered: frozenset[int], claims: Sequence[Claim]) -> bool:
    """Whether what a signature covers says ORIGINAL, and nothing but an unsigned description speaks of a derivation.

    Programs that compress without loss write one (ADR 20). Whatever else says so, covered or not, is believed.
    """
    if DERIVATION_DESCRIPTION not in data_set or DERIVATION_DESCRIPTION in covered:
        return False
    pixels = [tag for tag in ALL_PIXEL_DATA if tag in data_set]
    original = any(claim.tag == IMAGE_TYPE and claim.meaning == Meaning.ORIGINAL for claim in claims)
    others = (claim for claim in claims if claim.tag != DERIVATION_DESCRIPTION)
    return (
        original
        and bool(pixels)
        and covered.issuperset((IMAGE_TYPE, *pixels))
        and set(data_set.texts(LOSSY_IMAGE_COMPRESSION)) <= {"00"}
        and DERIVATION_CODE_SEQUENCE not in data_set
        and ContentClass.DERIVED not in content_of(others)
        and stated_sources(data_set, covered) == StatedSources()
    )


def _known_codes(
    holder: DataSet, tag: int, meanings: dict[str, Meaning], covered: frozenset[int], sequence: int | None = None
) -> Iterator[Claim]:
    for code in _items(holder, tag):
        value = code.text(CODE_VALUE)
        if value in meanings and code.text(CODING_SCHEME_DESIGNATOR) == "DCM":
            yield Claim(tag, f"{value}^DCM", meanings[value], (sequence or tag) in covered, sequence)


def _items(holder: DataSet, sequence: int) -> Iterator[DataSet]:
    for number, item in enumerate(holder.items(sequence)):
        if number == _MOST_ITEMS:
            raise malformed(f"{tag_name(sequence)} has more than {_MOST_ITEMS} items.", "too-many-elements")
        yield item
