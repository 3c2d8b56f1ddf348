"""Small files that an unguarded step would trip over, or that would cost much: typed results, within bounds."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from agent.dicom.diagnosis.patience import DIAGNOSIS_WORK
from agent.dicom.headers import DEFAULT_LIMITS
from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.report import InstanceReport
from agent.dicom.stored_instance import StoredInstance
from agent.dicom.verify import Verification, Verifier
from agent.errors import DicomError
from tests.support.certificates import Authority, Signer, rsa_key
from tests.support.dicom_samples import deflate_bomb, enhanced_multiframe
from tests.support.product_signing import sign
from tests.support.raw_dicom import Node, instance, part10, text

JPEG = "1.2.840.10008.1.2.4.70"


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Authority(tmp_path_factory.mktemp("ca"), datetime.now(UTC)).issue("signer", rsa_key(2048))


def verified(data: bytes, work: int = DIAGNOSIS_WORK) -> InstanceReport:
    profile = load_profile(ProfileName.CREATOR_PLUS)
    return Verifier(Verification(profile, datetime.now(UTC), diagnosis_work=work)).verify(data)


def test_an_item_that_holds_nothing_but_signatures_is_no_surprise() -> None:
    signatures = Node(0xFFFAFFFA, "SQ", items=((text(0x04000100, "UI", "2.25.1"),),))
    report = verified(part10(instance(Node(0x0040A730, "SQ", items=((signatures,),)))))
    assert [nested.location for nested in report.nested] == ["(0040,A730)[0]"]


@pytest.mark.parametrize("frames", ["+-5", "--5", "5-", "\N{ARABIC-INDIC DIGIT FIVE}", "1" * 12, "1.5", "+", ""])
def test_a_number_of_frames_that_is_none_is_a_finding(frames: str, signer: Signer) -> None:
    """PS3.5 6.2, IS."""
    pixels = Node(0x7FE00010, "OB", fragments=(b"", b"\xff\xd8\xff\xc3" + bytes(12)))
    number = Node(0x00280008, "IS", frames.encode().ljust(len(frames.encode()) + len(frames.encode()) % 2))
    (report,) = verified(sign(part10(instance(number, pixels), JPEG), signer)).signatures
    assert [finding.code for finding in report.integrity.findings] == ["fragments-wrong"]


def test_many_broken_signatures_together_take_no_longer_than_one(signer: Signer) -> None:
    data = enhanced_multiframe(400)
    for _ in range(8):
        data = sign(data, signer)
    started = time.monotonic()
    report = verified(data.replace(b"VOLUME", b"VELUME"), work=1 << 30)
    assert {signature.intact for signature in report.signatures} == {False}
    assert time.monotonic() - started < 60  # a bound against minutes, not a measurement


def test_what_a_deflated_instance_may_take_of_memory_is_bounded() -> None:
    """PS3.5 A.5; a megabyte on disk may be a gigabyte in memory."""
    with pytest.raises(DicomError) as refused:
        StoredInstance.read(deflate_bomb(300), DEFAULT_LIMITS)
    assert refused.value.code in {"deflate-bomb", "deflated-too-large"}
