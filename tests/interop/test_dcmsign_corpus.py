"""Every DICOM file that ships with pydicom: signed so that dcmsign accepts it, or refused with a code that says why."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from agent.errors import DicomError
from tests.support import dcmsign
from tests.support.certificates import Authority, Signer, rsa_key
from tests.support.creator_attributes import creator_elements
from tests.support.dcmsign import Exit, needs_dcmsign
from tests.support.dicom_samples import Sample, corpus, needs_whole_corpus, sample
from tests.support.dicom_tree import parse
from tests.support.product_signing import assert_nothing_else_changed, intact, newest_signature, sign

REFUSED_BY_CODE: Final[dict[str, tuple[str, ...]]] = {
    "not-dicom": (
        "pydicom/test_files/ExplVR_BigEndNoMeta.dcm",
        "pydicom/test_files/ExplVR_LitEndNoMeta.dcm",
        "pydicom/test_files/no_meta.dcm",
        "pydicom/test_files/rtstruct.dcm",
        "pydicom-data/OT-PAL-8-face.dcm",
    ),
    "transfer-syntax-missing": ("pydicom/test_files/meta_missing_tsyntax.dcm",),
    "truncated": (
        "pydicom/test_files/MR_truncated.dcm",
        "pydicom/test_files/dicomdirtests/DICOMDIR-nooffset",
        "pydicom/test_files/rtplan_truncated.dcm",
        "pydicom-data/emri_small_jpeg_2k_lossless_too_short.dcm",
    ),
    "vr-unknown": ("pydicom/test_files/SC_rgb_jpeg.dcm",),
    "length-wrong": ("pydicom/test_files/nested_priv_SQ.dcm",),
    "tag-duplicate": ("pydicom/palettes/winter.dcm",),
    "unsignable-element": (
        "pydicom/test_files/rtdose_rle.dcm",
        "pydicom/test_files/rtdose_rle_1frame.dcm",
        "pydicom-data/explicit_VR-UN.dcm",
    ),
    "mandatory-element-missing": (
        "pydicom/charset_files/chrSQEncoding.dcm",
        "pydicom/charset_files/chrSQEncoding1.dcm",
        "pydicom/palettes/fall.dcm",
        "pydicom/palettes/hotiron.dcm",
        "pydicom/palettes/hotmetalblue.dcm",
        "pydicom/palettes/pet.dcm",
        "pydicom/palettes/pet20step.dcm",
        "pydicom/palettes/spring.dcm",
        "pydicom/palettes/summer.dcm",
        "pydicom/test_files/JPEGLSNearLossless_08.dcm",
        "pydicom/test_files/JPEGLSNearLossless_16.dcm",
        "pydicom/test_files/SC_rgb_jls_lossy_line.dcm",
        "pydicom/test_files/SC_rgb_jls_lossy_sample.dcm",
        "pydicom/test_files/UN_sequence.dcm",
        "pydicom/test_files/dicomdirtests/DICOMDIR",
        "pydicom/test_files/dicomdirtests/DICOMDIR-bigEnd",
        "pydicom/test_files/dicomdirtests/DICOMDIR-empty.dcm",
        "pydicom/test_files/dicomdirtests/DICOMDIR-implicit",
        "pydicom/test_files/dicomdirtests/DICOMDIR-nopatient",
        "pydicom/test_files/dicomdirtests/DICOMDIR-reordered",
        "pydicom/test_files/dicomdirtests/TINY_ALPHA/DICOMDIR",
        "pydicom/test_files/empty_charset_LEI.dcm",
        "pydicom/test_files/no_meta_group_length.dcm",
        "pydicom/test_files/priv_SQ.dcm",
    ),
}
REFUSED: Final = {name: code for code, names in REFUSED_BY_CODE.items() for name in names}
SIGNED: Final = [one for one in corpus() if one.name not in REFUSED]
# dcmsign also reads what has no preamble, and can sign these four; PS3.10 7.1 demands the preamble.
SIGNED_BY_DCMSIGN_ONLY: Final = set(REFUSED_BY_CODE["not-dicom"]) - {"pydicom/test_files/no_meta.dcm"}
# Values with excess padding: dcmsign strips it before it hashes, PS3.3 C.12.1.1.3.1.1 says as encoded.
NOT_ACCEPTED_BY_DCMSIGN: Final = {
    "pydicom/test_files/SC_rgb_gdcm_KY.dcm",
    "pydicom-data/SC_rgb_gdcm2k_uncompressed.dcm",
    "pydicom-data/gdcm-US-ALOKA-16.dcm",
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), datetime.now(UTC))


@pytest.fixture(scope="module")
def signer(authority: Authority) -> Signer:
    return authority.issue("signer", rsa_key(2048))


@needs_whole_corpus
def test_the_corpus_is_the_one_the_tables_were_made_for() -> None:
    names = {one.name for one in corpus()}
    assert REFUSED.keys() <= names
    assert len(names) == 260
    assert sum(name.endswith(".dcm") for name in names) == 172
    assert sum(one.name.endswith(".dcm") for one in SIGNED) == 143 - len(SIGNED_BY_DCMSIGN_ONLY)


# --- signed ---


@pytest.mark.parametrize("one", SIGNED, ids=str)
def test_signing_changes_nothing_else_and_covers_what_c_2_says(one: Sample, signer: Signer) -> None:
    original = one.path.read_bytes()
    signed = sign(original, signer)
    assert_nothing_else_changed(original, signed)
    signature = newest_signature(signed)
    elements = parse(original).elements
    assert signature.recovered_digest() == signature.stream_digest()
    assert signature.tags == tuple(element.tag for element in creator_elements(elements))
    assert intact(signed) == [True]


@needs_dcmsign
@pytest.mark.parametrize("one", SIGNED, ids=str)
def test_dcmsign_accepts_it_as_a_creator_signature(
    one: Sample, tmp_path: Path, authority: Authority, signer: Signer
) -> None:
    signed = tmp_path / "signed.dcm"
    signed.write_bytes(sign(one.path.read_bytes(), signer))
    run = dcmsign.verify(signed, authority.certificate_file)
    expected = Exit.VERIFICATION_FAILED if one.name in NOT_ACCEPTED_BY_DCMSIGN else Exit.OK
    assert run.exit_code == expected, run.output


# --- refused ---


@pytest.mark.parametrize(("name", "code"), REFUSED.items())
def test_it_is_refused_with_a_code_that_says_why(name: str, code: str, signer: Signer) -> None:
    with pytest.raises(DicomError) as refusal:
        sign(sample(name).path.read_bytes(), signer)
    assert refusal.value.code == code
    assert refusal.value.remedy


@needs_dcmsign
@pytest.mark.parametrize("name", REFUSED)
def test_dcmsign_cannot_make_a_creator_signature_either(name: str, tmp_path: Path, signer: Signer) -> None:
    source = sample(name).path
    run = dcmsign.sign(
        source, tmp_path / "signed.dcm", signer.key_file, signer.certificate_file, options=dcmsign.CREATOR
    )
    expected = {Exit.OK} if name in SIGNED_BY_DCMSIGN_ONLY else {Exit.INPUT_UNREADABLE, Exit.CREATION_FAILED}
    assert run.exit_code in expected, run.output
