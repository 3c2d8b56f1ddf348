"""From the bytes of an image to its judgement: what the verifier reports is what the policy understands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.report import IdentityLevel, InstanceReport
from agent.dicom.sign import SignaturePlan
from agent.dicom.signer_chain import TrustMaterial
from agent.dicom.verify import Verification, verify_instance
from agent.policy.evaluate import evaluate
from agent.policy.judgement import Receipt
from agent.policy.model import Policy
from agent.policy.verdicts import Verdict
from tests.support.pki import NOW, HospitalCa
from tests.support.policies import anchor, policy
from tests.support.product_signing import sign_bytes
from tests.support.raw_dicom import instance, part10, text

PROFILE: Final = load_profile(ProfileName.CREATOR_PLUS)
CA: Final = HospitalCa()
LISTED: Final = """
[[device]]
id = "ct1"
match.manufacturer = "ACME"
match.serial = "CT-000123"
signer.anchor = "hospital-ca"
signer.serial_number = "CT-000123"
expect = "signed"
from = 2026-11-01
"""
RULES: Final = policy(anchor("hospital-ca", "owner-ca", CA.certificate, "device"), LISTED)
STUDY_DATE, SERIES_DATE, ACQUISITION_DATE, CONTENT_DATE = 0x00080020, 0x00080021, 0x00080022, 0x00080023


def image(serial: str = "CT-000123", date: str = "20261122") -> bytes:
    """An image of the scanner, with its dates."""
    dates = [text(tag, "DA", date) for tag in (STUDY_DATE, SERIES_DATE, ACQUISITION_DATE, CONTENT_DATE)]
    return part10(instance(*dates, text(0x00080070, "LO", "ACME"), text(0x00181000, "LO", serial)))


@cache
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 3072)


def signed(data: bytes, ca: HospitalCa = CA, at: datetime = NOW) -> bytes:
    certificate = ca.issue(key().public_key(), begin=NOW - timedelta(days=400)).public_bytes(serialization.Encoding.DER)

    def sign(digest: bytes) -> bytes:
        return key().sign(digest, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))

    return sign_bytes(data, SignaturePlan(PROFILE, "sha256", "2.25.7", at), sign, certificate)


def verified(data: bytes, *anchors: HospitalCa) -> InstanceReport:
    material = TrustMaterial(tuple(ca.certificate for ca in (CA, *anchors)))
    return verify_instance(data, Verification(PROFILE, NOW, material))


def verdict(report: InstanceReport, rules: Policy | None = RULES) -> Verdict:
    return evaluate(report, Receipt(NOW), rules, NOW).verdict


def test_an_image_that_its_scanner_signed_is_of_the_expected_signer() -> None:
    judgement = evaluate(verified(signed(image())), Receipt(NOW), RULES, NOW)

    assert judgement.verdict is Verdict.VALID_EXPECTED_SIGNER
    assert judgement.identity_level is IdentityLevel.DEVICE
    assert judgement.rule_ids == ("ct1", "hospital-ca")


def test_an_image_that_another_scanner_signed_is_of_the_wrong_signer() -> None:
    assert verdict(verified(signed(image(serial="CT-000124")))) is Verdict.VALID_WRONG_SIGNER


def test_a_changed_image_is_broken() -> None:
    assert verdict(verified(signed(image()).replace(b"20261122", b"20261123"))) is Verdict.BROKEN


def test_an_image_under_an_anchor_of_the_verifier_alone_is_of_an_unknown_signer() -> None:
    elsewhere = HospitalCa("Elsewhere")
    report = verified(signed(image(), elsewhere), elsewhere)

    assert verdict(report) is Verdict.VALID_UNKNOWN_SIGNER
    assert verdict(report, None) is Verdict.VALID


def test_a_station_ae_title_that_somebody_writes_into_a_signed_image_chooses_no_exemption() -> None:
    """Creator-plus leaves (0008,0055) out, so the signature stays good."""
    exempt = (
        '[[device]]\nid = "us-old"\nmatch.ae = "US_OLD"\nmatch.modality = "CT"\nexpect = "unsigned"\nmode = "report"\n'
        'until = 2028-12-31\nreason = "it cannot sign"\n'
        '[[rule]]\nid = "later"\nmatch.modality = "CT"\nexpect = "signed"\nfrom = 2029-01-01\n'
    )
    sources = '[[rule]]\nid = "derived"\nmatch.content = "DERIVED"\nexpect = "signed-with-sources"\nmode = "warn"\n'
    rules = policy(anchor("hospital-ca", "owner-ca", CA.certificate, "device"), exempt, sources)
    markers = (text(0x00080008, "CS", "DERIVED\\SECONDARY"), text(0x00080055, "AE", "CT_ONE"))
    made = signed(part10(instance(*markers, text(0x00080060, "CS", "CT"), text(0x00181000, "LO", "CT-000123"))))
    edited = made.replace(b"CT_ONE", b"US_OLD")

    honest, claiming = (evaluate(verified(data), Receipt(NOW), rules, NOW) for data in (made, edited))

    assert edited != made
    assert honest.verdict is Verdict.DERIVED_UNVERIFIED_SOURCE
    assert claiming == honest


@pytest.mark.parametrize("date", ["19900101", "20200101", "20261031", "20261101", "20991231", ""])
@pytest.mark.parametrize("received", [datetime(2026, 10, 31, tzinfo=UTC), NOW])
def test_no_date_of_the_header_changes_what_an_unsigned_image_comes_to(date: str, received: datetime) -> None:
    expected = evaluate(verified(image()), Receipt(received), RULES, NOW)

    assert evaluate(verified(image(date=date)), Receipt(received), RULES, NOW) == expected


@pytest.mark.parametrize("days", [0, 30, 200, 399])
def test_no_claimed_time_changes_what_a_signed_image_comes_to(days: int) -> None:
    dated = verified(signed(image(), at=NOW - timedelta(days=days)))

    assert verdict(dated) is Verdict.VALID_EXPECTED_SIGNER
