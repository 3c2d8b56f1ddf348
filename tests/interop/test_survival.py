"""What signatures survive: each row of docs/survival.md, done by a real tool and judged by scanseal and by dcmsign."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.report import InstanceReport
from agent.dicom.report import Outcome as FactOutcome
from agent.dicom.verify import Verification, verify_instance
from agent.errors import DicomError
from tests.support import dcmsign, product_signing
from tests.support.certificates import Authority, Signer, rsa_key
from tests.support.dicom_samples import ct_slice, enhanced_multiframe
from tests.support.dicom_tools import needs_dcmtk, sent
from tests.support.dicom_tree import parse
from tests.support.survival import DOCUMENT, SECTIONS, Outcome, Row, document
from tests.support.survival_images import IMAGES

pytestmark = needs_dcmtk

ROWS: Final = [
    pytest.param(row, profile, name, id=f"{row.what}, {profile}, {name}")
    for section in SECTIONS
    for row in section.rows
    for profile in ProfileName
    for name in row.images
]
LARGEST_SIGNATURE: Final = 3 << 10  # bytes that one signature adds to a file


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), datetime.now(UTC))


@pytest.fixture(scope="module")
def signer(authority: Authority) -> Signer:
    return authority.issue("signer", rsa_key(3072))


@pytest.fixture
def dcmsign_exit(tmp_path: Path, authority: Authority) -> Callable[[bytes, str], int]:
    """What dcmsign says of an instance when +rg or +rc is required."""

    def ends_with(data: bytes, require: str) -> int:
        file = tmp_path / "changed.dcm"
        file.write_bytes(data)
        return dcmsign.verify(file, authority.certificate_file, require=require).exit_code

    return ends_with


def signed(data: bytes, profile: str, signer: Signer) -> bytes:
    plan = replace(product_signing.plan(), profile=load_profile(ProfileName(profile)))
    return product_signing.sign_bytes(data, plan, signer.sign_digest("sha256"), signer.certificate_der)


def verified(data: bytes, profile: str) -> InstanceReport:
    return verify_instance(data, Verification(load_profile(ProfileName(profile)), datetime.now(UTC)))


def outcome(report: InstanceReport) -> Outcome:
    """What became of the first signature, on condition that those that came later are intact."""
    first, *later = (*report.signatures, *report.nested)
    if first.intact is None:
        return Outcome.NOT_CHECKABLE
    if first.intact and first.diagnosis:
        of_pixels = first.diagnosis.variant == "lossless-recompression"
        return Outcome.RESTORED if of_pixels else Outcome.VR_RESTORED
    if not first.intact or not all(other.intact for other in later):
        return Outcome.BREAKS
    return Outcome.HOLDS if first.coverage.outcome is FactOutcome.PASSED else Outcome.ADDED


def found(data: bytes, profile: str) -> Outcome:
    """What became of the first signature, if the instance is read at all."""
    try:
        return outcome(verified(data, profile))
    except DicomError:
        return Outcome.REFUSED


@pytest.mark.parametrize(("row", "profile", "name"), ROWS)
def test_a_signature_survives_or_breaks_as_the_table_says(
    row: Row, profile: str, name: str, signer: Signer, dcmsign_exit: Callable[[bytes, str], int]
) -> None:
    if row.decoder:
        pytest.importorskip(row.decoder, reason="no decoder: pip install 'scanseal[decompress]'")
    original = signed(row.before(IMAGES[name]()), profile, signer)
    assert outcome(verified(original, profile)) is Outcome.HOLDS
    changed = row.change(original, signer)
    assert found(changed, profile) is row.outcome(profile)
    any_signature, creator_signature = row.exits(profile)
    assert dcmsign_exit(changed, "+rg") == any_signature
    if creator_signature is not None:
        assert dcmsign_exit(changed, "+rc") == creator_signature


@pytest.mark.parametrize("profile", ProfileName)
@pytest.mark.parametrize("name", ["slice", "frames"])
def test_c_store_delivers_the_signed_data_set_byte_for_byte(name: str, profile: str, signer: Signer) -> None:
    data = signed(IMAGES[name](), profile, signer)
    assert parse(sent(data, receiver=("+B",))).body == parse(data).body


@pytest.mark.parametrize("profile", ProfileName)
@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_a_signature_adds_at_most_3_kb(bits: int, profile: str, authority: Authority) -> None:
    key = authority.issue(f"rsa-{bits}", rsa_key(bits))
    for data in (ct_slice(64, 64), enhanced_multiframe(40)):
        once = signed(data, profile, key)
        twice = signed(once, profile, key)
        assert len(once) - len(data) <= LARGEST_SIGNATURE
        assert len(twice) - len(once) <= LARGEST_SIGNATURE


def test_the_document_is_this_table() -> None:
    assert DOCUMENT.read_text("utf-8") == document()
