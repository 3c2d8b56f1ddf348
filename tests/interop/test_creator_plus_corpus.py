"""Every DICOM file that ships with pydicom, signed with creator-plus: dcmsign accepts it, also after reconciliation."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from agent.dicom.profile import Profile, ProfileName, load_profile
from agent.errors import DicomError
from tests.support import dcmsign
from tests.support.certificates import Authority, Signer, rsa_key
from tests.support.dcmsign import Exit, needs_dcmsign
from tests.support.dicom_samples import TRANSFER_SYNTAX_SAMPLES, Sample, corpus, needs_whole_corpus, sample
from tests.support.product_signing import assert_nothing_else_changed, newest_signature, plan, sign_bytes

CREATOR_RSA: Final = load_profile(ProfileName.CREATOR_RSA)
CREATOR_PLUS: Final = load_profile(ProfileName.CREATOR_PLUS)
WITH_PRIVATE_ELEMENTS: Final = load_profile(ProfileName.CREATOR_PLUS, private_elements=True)

OUTCOMES: Final = {
    "signed": 220,
    "mandatory-element-missing": 24,
    "not-dicom": 5,
    "truncated": 4,
    "unsignable-element": 3,
    "length-wrong": 1,
    "tag-duplicate": 1,
    "transfer-syntax-missing": 1,
    "vr-unknown": 1,
}
# Values with excess padding: dcmsign strips it before it hashes, PS3.3 C.12.1.1.3.1.1 says as encoded.
NOT_ACCEPTED_BY_DCMSIGN: Final = {
    "pydicom/test_files/SC_rgb_gdcm_KY.dcm",
    "pydicom-data/SC_rgb_gdcm2k_uncompressed.dcm",
    "pydicom-data/gdcm-US-ALOKA-16.dcm",
}

RECONCILED: Final = {
    "PatientName": "Other^Name",
    "PatientID": "OTHER-1",
    "StudyDescription": "Other procedure",
    "AccessionNumber": "OTHER-2",
}
# What else an archive overwrites from the worklist or writes for itself (docs/adr/0013-creator-plus.md): before, after.
COERCED: Final = {
    "IssuerOfPatientID": ("CLINIC", "HOSPITAL"),
    "PatientWeight": ("70", "75"),
    "ReferringPhysicianName": ("First^Physician", "Other^Physician"),
    "PerformingPhysicianName": ("First^Physician", "Other^Physician"),
    "StudyID": ("1", "2"),
    "SeriesDescription": ("First", "Other"),
    "RequestingService": ("WARD 1", "WARD 2"),
    "AdmissionID": ("1", "2"),
    "ReasonForPerformedProcedureCodeSequence[0].CodeValue": ("1", "2"),
    "RequestAttributesSequence[0].RequestedProcedureID": ("1", "2"),
    "OriginalAttributesSequence[0].ReasonForTheAttributeModification": ("CORRECT", "COERCE"),
    "InstanceCoercionDateTime": ("20261121120000+0000", "20261122120000+0000"),
    "InstanceOriginStatus": ("LOCAL", "IMPORTED"),
    "SOPInstanceStatus": ("OR", "AO"),
    "RetrieveAETitle": ("SCANNER", "ARCHIVE"),
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), datetime.now(UTC))


@pytest.fixture(scope="module")
def signer(authority: Authority) -> Signer:
    return authority.issue("signer", rsa_key(2048))


def sign(one: Sample, profile: Profile, signer: Signer) -> bytes:
    data = one.path.read_bytes()
    return sign_bytes(data, replace(plan(), profile=profile), signer.sign_digest("sha256"), signer.certificate_der)


def outcome(one: Sample, profile: Profile, signer: Signer) -> str:
    try:
        sign(one, profile, signer)
    except DicomError as refusal:
        return refusal.code
    return "signed"


def modify(path: Path, changes: Mapping[str, str]) -> None:
    options = [part for attribute, value in changes.items() for part in ("-i", f"{attribute}={value}")]
    subprocess.run(["dcmodify", "-nb", *options, path], env=dcmsign.environment(), check=True, capture_output=True)


@needs_whole_corpus
def test_creator_plus_refuses_exactly_what_creator_rsa_refuses(signer: Signer) -> None:
    outcomes = {one.name: outcome(one, CREATOR_PLUS, signer) for one in corpus()}
    assert outcomes == {one.name: outcome(one, CREATOR_RSA, signer) for one in corpus()}
    assert Counter(outcomes.values()) == OUTCOMES


@needs_dcmsign
@pytest.mark.parametrize("one", corpus(), ids=str)
def test_dcmsign_accepts_what_was_signed_before_and_after_reconciliation(
    one: Sample, tmp_path: Path, authority: Authority, signer: Signer
) -> None:
    if (code := outcome(one, CREATOR_RSA, signer)) != "signed":
        assert outcome(one, CREATOR_PLUS, signer) == code
        return
    signed = tmp_path / "signed.dcm"
    signed.write_bytes(sign(one, CREATOR_PLUS, signer))
    assert_nothing_else_changed(one.path.read_bytes(), signed.read_bytes())
    expected = Exit.VERIFICATION_FAILED if one.name in NOT_ACCEPTED_BY_DCMSIGN else Exit.OK
    before = dcmsign.verify(signed, authority.certificate_file)
    modify(signed, RECONCILED)
    after = dcmsign.verify(signed, authority.certificate_file)
    assert (before.exit_code, after.exit_code) == (expected, expected), before.output + after.output


@needs_dcmsign
@pytest.mark.parametrize("profile", [CREATOR_PLUS, WITH_PRIVATE_ELEMENTS], ids=["default", "private-elements"])
@pytest.mark.parametrize("name", TRANSFER_SYNTAX_SAMPLES.values())
def test_what_an_archive_coerces_does_not_break_the_signature(
    name: str, profile: Profile, tmp_path: Path, authority: Authority, signer: Signer
) -> None:
    coerced = tmp_path / "coerced.dcm"
    coerced.write_bytes(sample(name).path.read_bytes())
    # They must be there when it is signed: adding something would prove nothing.
    modify(
        coerced, dict.fromkeys(RECONCILED, "FIRST") | {attribute: first for attribute, (first, _) in COERCED.items()}
    )
    coerced.write_bytes(sign(Sample(name, coerced), profile, signer))
    modify(coerced, RECONCILED | {attribute: other for attribute, (_, other) in COERCED.items()})
    run = dcmsign.verify(coerced, authority.certificate_file)
    assert run.exit_code == Exit.OK, run.output


@needs_dcmsign
@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("PixelSpacing", r"1\1"),
        ("ImageOrientationPatient", r"-1\0\0\0\1\0"),
        ("Modality", "MR"),
        ("Laterality", "L"),
        ("QualityControlSubject", "YES"),
        ("DerivationDescription", "none"),
        ("SpecificCharacterSet", "ISO_IR 192"),
    ],
)
def test_what_c_2_leaves_open_to_forgers_is_closed(
    attribute: str, value: str, tmp_path: Path, authority: Authority, signer: Signer
) -> None:
    original = tmp_path / "original.dcm"
    original.write_bytes(sample(TRANSFER_SYNTAX_SAMPLES["explicit-little-endian"]).path.read_bytes())
    modify(original, {"Laterality": "R", "QualityControlSubject": "NO", "DerivationDescription": "reformatted"})
    codes = []
    for profile in (CREATOR_RSA, CREATOR_PLUS):
        forged = tmp_path / f"{profile.name}.dcm"
        forged.write_bytes(sign(Sample(profile.name, original), profile, signer))
        modify(forged, {attribute: value})
        codes.append(dcmsign.verify(forged, authority.certificate_file).exit_code)
    assert codes == [Exit.OK, Exit.VERIFICATION_FAILED]


def test_private_elements_are_covered_only_where_the_switch_is_set(signer: Signer) -> None:
    one = sample(TRANSFER_SYNTAX_SAMPLES["explicit-little-endian"])
    without, with_them = (
        [tag for tag in newest_signature(sign(one, profile, signer)).tags if tag >> 16 & 1]
        for profile in (CREATOR_PLUS, WITH_PRIVATE_ELEMENTS)
    )
    assert without == []
    assert len(with_them) > 100
