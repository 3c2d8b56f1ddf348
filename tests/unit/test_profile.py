"""The signature profiles: PS3.15 C.2, and creator-plus, which covers all that may not rightly change."""

from __future__ import annotations

import pytest
from pydicom.datadict import dictionary_has_tag, tag_for_keyword

from agent.dicom.profile import Profile, ProfileName, load_profile
from tests.support.creator_attributes import CREATOR, CREATOR_VERSION_UID, is_creator_attribute
from tests.support.excluded_attributes import (
    ALTHOUGH_EXCLUDED,
    COERCION_PRONE,
    DECIDED,
    GROUPS,
    OF_MODULES,
    STUDY_INSTANCE_UID,
)

RSA = load_profile(ProfileName.CREATOR_RSA)
PLUS = load_profile(ProfileName.CREATOR_PLUS)
PLUS_PRIVATE = load_profile(ProfileName.CREATOR_PLUS, private_elements=True)

OVERLAY_GROUPS = range(0x6000, 0x6100, 2)
CURVE_GROUPS = range(0x5000, 0x5100, 2)
INVENTED = [0x00080FFE, 0x00187FFE, 0x00289FFE, 0x00900010, 0x300AFFFE, 0x7FE0FFFE]


def covers(profile: Profile, tag: int) -> bool:
    return profile.selection().selects(tag)


def tag_of(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    return tag


# --- what C.2 demands comes first ---


def test_creator_plus_covers_everything_that_c_2_demands() -> None:
    selects = PLUS.selection().selects
    assert [tag for tag in sorted(RSA.creator) if not selects(tag)] == []
    assert RSA.creator >= CREATOR


def test_what_c_2_demands_is_covered_although_it_is_excluded() -> None:
    excluded = {tag for tag in RSA.creator if tag in PLUS.excluded or tag >> 16 in PLUS.excluded_groups}
    assert excluded == {
        tag_of("InstitutionName"),
        tag_of("InstitutionAddress"),
        tag_of("InstitutionalDepartmentName"),
        tag_of("InstitutionalDepartmentTypeCodeSequence"),
        tag_of("ExaminedBodyThickness"),
        STUDY_INSTANCE_UID,
    }
    assert all(covers(PLUS, tag) and not PLUS.reason(tag) for tag in excluded)


@pytest.mark.parametrize("profile", [RSA, PLUS, PLUS_PRIVATE])
def test_only_what_c_2_demands_must_be_signable(profile: Profile) -> None:
    must_be_signable = profile.selection().must_be_signable
    assert all(map(must_be_signable, RSA.creator))
    assert not any(map(must_be_signable, [tag_of("Modality"), tag_of("PixelSpacing"), *INVENTED]))


def test_every_profile_needs_the_same_four_uids() -> None:
    uids = {"SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"}
    assert {tag_of(keyword) for keyword in uids} == RSA.mandatory == PLUS.mandatory


# --- what is left out ---


def test_the_excluded_attributes_are_those_of_the_modules_and_those_decided_on() -> None:
    assert len(OF_MODULES) == 111
    assert len(OF_MODULES | COERCION_PRONE) == 117
    assert set(PLUS.excluded) == OF_MODULES | COERCION_PRONE | DECIDED | {STUDY_INSTANCE_UID}
    assert set(PLUS.excluded_groups) == set(GROUPS)


REASONS = {
    "PatientName": "patient",
    "PatientID": "patient",
    "PatientWeight": "patient",
    "PatientIdentityRemoved": "patient",
    "EthnicGroup": "patient",
    "StudyDescription": "study",
    "AccessionNumber": "study",
    "RequestedProcedureDescription": "study",
    "ReasonForPerformedProcedureCodeSequence": "study",
    "AdmissionID": "visit",
    "CurrentPatientLocation": "visit",
    "ClinicalTrialProtocolID": "clinical trial",
    "ClinicalTrialSeriesID": "clinical trial",
    "RequestAttributesSequence": "coercion",
    "PerformingPhysicianName": "coercion",
    "SeriesDescription": "coercion",
    "OriginalAttributesSequence": "coercion",
    "InstanceOriginStatus": "coercion",
    "SOPInstanceStatus": "status",
    "RetrieveAETitle": "delivery",
    "QueryRetrieveView": "delivery",
}


@pytest.mark.parametrize(("keyword", "reason"), REASONS.items())
def test_what_may_rightly_change_is_not_covered_and_the_profile_says_why(keyword: str, reason: str) -> None:
    tag = tag_of(keyword)
    assert not covers(PLUS, tag)
    assert PLUS.reason(tag) == reason


@pytest.mark.parametrize("tag", [0x00100FFE, 0x00120FFE, 0x00320FFE, 0x00380FFE])
def test_what_later_editions_say_of_patient_trial_request_and_visit_is_not_covered(tag: int) -> None:
    assert not dictionary_has_tag(tag)
    assert not covers(PLUS, tag)


def test_creator_rsa_says_of_everything_else_that_c_2_does_not_name_it() -> None:
    assert RSA.reason(tag_of("Modality")) == "not in PS3.15 C.2"
    assert not covers(RSA, tag_of("Modality"))


# --- what is covered all the same ---


@pytest.mark.parametrize(
    "keyword",
    [
        "QualityControlSubject",
        "SyntheticData",
        "CalibrationImage",
        "ContentQualification",
        "DerivationDescription",
        "DerivationCodeSequence",
        "SourceImageSequence",
        "ContributingEquipmentSequence",
        "AnatomicalOrientationType",
    ],
)
def test_why_and_from_what_an_image_was_made_is_covered_even_if_it_is_excluded(keyword: str) -> None:
    tag = tag_of(keyword)
    assert covers(PLUS, tag)
    assert PLUS.reason(tag) == ""
    assert tag in ALTHOUGH_EXCLUDED


@pytest.mark.parametrize(
    "keyword",
    [
        "Modality",
        "PixelSpacing",
        "ImageOrientationPatient",
        "ImagePositionPatient",
        "Laterality",
        "SpecificCharacterSet",
        "TimezoneOffsetFromUTC",
        "FloatPixelData",
        "ReferencedPerformedProcedureStepSequence",
        "BeamSequence",
    ],
)
def test_what_c_2_leaves_out_is_covered(keyword: str) -> None:
    assert covers(PLUS, tag_of(keyword))
    assert not covers(RSA, tag_of(keyword))


@pytest.mark.parametrize("tag", INVENTED)
def test_an_attribute_invented_after_this_release_is_covered(tag: int) -> None:
    assert not dictionary_has_tag(tag)
    assert covers(PLUS, tag)
    assert PLUS.reason(tag) == ""
    assert not covers(RSA, tag)


# --- repeating groups (PS3.5 7.6) ---


@pytest.mark.parametrize("group", OVERLAY_GROUPS)
def test_overlays_are_covered_in_every_group(group: int) -> None:
    elements = [element for element in range(0x2000) if is_creator_attribute(group << 16 | element)]
    assert len(elements) == 12  # and Overlay Data
    tags = {group << 16 | element for element in (*elements, 0x3000)}
    assert all(covers(RSA, tag) and covers(PLUS, tag) and PLUS.selection().must_be_signable(tag) for tag in tags)


@pytest.mark.parametrize("group", CURVE_GROUPS)
def test_curves_are_covered_in_every_group(group: int) -> None:
    assert covers(PLUS, group << 16 | 0x3000)
    assert covers(RSA, group << 16 | 0x3000) is (group <= 0x501E)


# --- private elements ---


def test_private_elements_are_covered_by_a_switch() -> None:
    assert not covers(PLUS, 0x00090010)
    assert not covers(PLUS, 0x60011234)
    assert PLUS.reason(0x00091001) == "private"
    assert covers(PLUS_PRIVATE, 0x00090010)
    assert covers(PLUS_PRIVATE, 0x60011234)
    assert PLUS_PRIVATE.reason(0x00091001) == ""


def test_the_switch_does_not_take_in_anything_else() -> None:
    assert [covers(PLUS_PRIVATE, tag_of(keyword)) for keyword in REASONS] == [False] * len(REASONS)


def test_creator_rsa_does_not_know_the_switch() -> None:
    assert load_profile(ProfileName.CREATOR_RSA, private_elements=True) == RSA


@pytest.mark.parametrize("profile", [RSA, PLUS, PLUS_PRIVATE])
def test_the_private_elements_of_raw_data_are_covered_and_must_be_signable(profile: Profile) -> None:
    """PS3.15 C.2 names the Raw Data module; its data are private elements (PS3.3 C.19.1)."""
    selection = profile.selection()
    assert all(map(selection.selects, (0x00080018, CREATOR_VERSION_UID, 0x00090010, 0x70211010)))
    assert selection.must_be_signable(0x70211010)


def test_other_private_elements_of_unknown_vr_are_left_out() -> None:
    selection = PLUS_PRIVATE.selection()
    assert all(map(selection.selects, (0x00080018, 0x00090010, 0x70211010)))
    assert not selection.must_be_signable(0x70211010)


def test_what_is_raw_data_in_one_data_set_is_not_in_the_next() -> None:
    assert PLUS.selection().selects(CREATOR_VERSION_UID)
    assert not covers(PLUS, 0x70211010)
