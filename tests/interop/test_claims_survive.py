"""What recompressing without loss does to what a signed image says of itself (PS3.3 C.7.6.1.1.2, C.12.4).

`dcmcjpeg` notes in Derivation Description (0008,2111) that it compressed, also where nothing is lost. That is a remark
of its own about an image whose maker signed that it is an original.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pytest

from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.report import ContentClass, InstanceReport
from agent.dicom.signer_chain import TrustMaterial
from agent.dicom.verify import Verification, verify_instance
from agent.policy.evaluate import evaluate
from agent.policy.judgement import Judgement, Receipt
from agent.policy.verdicts import EXIT_CODES, Action, Verdict
from tests.support import product_signing
from tests.support.certificates import Authority, Signer, rsa_key
from tests.support.dicom_samples import ct_slice
from tests.support.dicom_tools import filtered, modified, needs_dcmtk

pytestmark = needs_dcmtk

LOSSLESS: Final = ("+e1", "+el")  # JPEG lossless: selection value 1, and any
DERIVED: Final = Verdict.DERIVED_UNVERIFIED_SOURCE


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), datetime.now(UTC))


@pytest.fixture(scope="module")
def scanner(authority: Authority) -> Signer:
    return authority.issue("scanner", rsa_key(3072))


def signed(data: bytes, signer: Signer, profile: ProfileName = ProfileName.CREATOR_PLUS) -> bytes:
    plan = replace(product_signing.plan(), profile=load_profile(profile))
    return product_signing.sign_bytes(data, plan, signer.sign_digest("sha256"), signer.certificate_der)


def verified(data: bytes, authority: Authority, profile: ProfileName) -> tuple[InstanceReport, Judgement]:
    now = datetime.now(UTC)  # when these tests run, others have taken minutes
    trust = TrustMaterial(anchors=(authority.certificate,))
    report = verify_instance(data, Verification(load_profile(profile), now, trust))
    return report, evaluate(report, Receipt(now), None, now)


@pytest.mark.parametrize("profile", ProfileName)
@pytest.mark.parametrize("process", LOSSLESS)
def test_a_signed_original_stays_one_when_an_archive_recompresses_it_without_loss(
    process: str, profile: ProfileName, authority: Authority, scanner: Signer
) -> None:
    stored = filtered(signed(ct_slice(64, 64), scanner, profile), "dcmcjpeg", process)
    report, judgement = verified(stored, authority, profile)
    assert report.content == {ContentClass.ORIGINAL}
    assert [claim.meaning for claim in report.claims] == ["original", "derivation-remark"]
    assert [finding.code for finding in report.findings] == ["derivation-remark"]
    assert judgement.action is Action.FLAG
    assert DERIVED not in {judgement.verdict, *judgement.beside}
    assert judgement.exit_code == EXIT_CODES[Verdict.VALID_PARTIAL_COVERAGE]


def test_the_remark_stays_one_when_the_archive_decompresses_again(authority: Authority, scanner: Signer) -> None:
    stored = filtered(filtered(signed(ct_slice(64, 64), scanner), "dcmcjpeg"), "dcmdjpeg")
    report, judgement = verified(stored, authority, ProfileName.CREATOR_PLUS)
    assert report.content == {ContentClass.ORIGINAL}
    assert judgement.verdict is Verdict.VALID_PARTIAL_COVERAGE


def test_an_unsigned_original_with_the_same_remark_counts_as_derived(authority: Authority) -> None:
    report, judgement = verified(filtered(ct_slice(64, 64), "dcmcjpeg"), authority, ProfileName.CREATOR_PLUS)
    assert report.content == {ContentClass.ORIGINAL, ContentClass.DERIVED}
    assert judgement.verdict is DERIVED


def test_what_was_compressed_with_loss_counts_as_derived(authority: Authority, scanner: Signer) -> None:
    """`dcmcjpeg` then says so in Lossy Image Compression (0028,2110) and Derivation Code Sequence (0008,9215)."""
    stored = filtered(signed(ct_slice(64, 64), scanner), "dcmcjpeg", "+ee")
    report, _ = verified(stored, authority, ProfileName.CREATOR_PLUS)
    assert ContentClass.DERIVED in report.content


@pytest.mark.parametrize(
    "addition",
    [
        "(0008,2112)[0].(0008,1155)=2.25.1",
        "(0008,9215)[0].(0008,0100)=113072",
        "(0028,2110)=01",
    ],
)
def test_any_other_trace_of_a_derivation_makes_it_count(addition: str, authority: Authority, scanner: Signer) -> None:
    stored = filtered(signed(ct_slice(64, 64), scanner), "dcmcjpeg")
    report, judgement = verified(modified(stored, "-i", addition), authority, ProfileName.CREATOR_PLUS)
    assert ContentClass.DERIVED in report.content
    assert DERIVED in {judgement.verdict, *judgement.beside}


def test_a_description_that_is_signed_is_no_remark(authority: Authority, scanner: Signer) -> None:
    described = modified(ct_slice(64, 64), "-i", "DerivationDescription=enhanced")
    report, judgement = verified(signed(described, scanner), authority, ProfileName.CREATOR_PLUS)
    assert report.content == {ContentClass.ORIGINAL, ContentClass.DERIVED}
    assert judgement.verdict is Verdict.VALID
    removed, broken = verified(
        modified(signed(described, scanner), "-e", "DerivationDescription"), authority, ProfileName.CREATOR_PLUS
    )
    assert removed.content == {ContentClass.ORIGINAL}
    assert broken.verdict is Verdict.BROKEN
