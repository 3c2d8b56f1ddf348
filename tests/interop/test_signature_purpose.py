"""Signatures with a purpose, and of two signers with two purposes, are those that dcmsign makes and accepts."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.purposes import PURPOSES
from agent.dicom.signature_items import DIGITAL_SIGNATURE_PURPOSE_CODE_SEQUENCE
from tests.support import dcmsign
from tests.support.certificates import Authority, Signer, rsa_key
from tests.support.dcmsign import Exit, needs_dcmsign
from tests.support.dicom_samples import TRANSFER_SYNTAX_SAMPLES, sample
from tests.support.dicom_tree import DIGITAL_SIGNATURES, Element, find, parse
from tests.support.mac_oracle import signatures
from tests.support.product_signing import intact, plan, sign_bytes

pytestmark = needs_dcmsign

SAMPLES = {syntax: sample(name).path.read_bytes() for syntax, name in TRANSFER_SYNTAX_SAMPLES.items()}


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("vendor"), datetime.now(UTC), "Vendor CA")


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("owner"), datetime.now(UTC), "Owner CA")


@pytest.fixture(scope="module")
def by_vendor(vendor: Authority) -> Signer:
    return vendor.issue("vendor", rsa_key(2048))


@pytest.fixture(scope="module")
def by_owner(owner: Authority) -> Signer:
    return owner.issue("owner", rsa_key(2048))


@pytest.fixture
def verdict(tmp_path: Path, vendor: Authority, owner: Authority) -> Callable[[bytes], Exit]:
    """What dcmsign says of an instance when it trusts both: one of its signatures must be a creator's."""

    def ask(data: bytes) -> Exit:
        path = tmp_path / "asked.dcm"
        path.write_bytes(data)
        anchors = ("+cf", vendor.certificate_file, "+cf", owner.certificate_file)
        return Exit(dcmsign.run("--verify", *anchors, "+rc", path).exit_code)

    return ask


def signed(data: bytes, signer: Signer, purpose: str, profile: ProfileName = ProfileName.CREATOR_PLUS) -> bytes:
    how = replace(plan(), profile=load_profile(profile), purpose=purpose)
    return sign_bytes(data, how, signer.sign_digest("sha256"), signer.certificate_der)


def purpose_sequences(data: bytes) -> list[Element | None]:
    sequence = find(parse(data).elements, DIGITAL_SIGNATURES)
    assert sequence is not None
    return [find(item, DIGITAL_SIGNATURE_PURPOSE_CODE_SEQUENCE) for item in sequence.items or ()]


def codes(sequence: Element | None) -> list[tuple[int, str, bytes]]:
    assert sequence is not None
    (item,) = sequence.items or ()
    return [(element.tag, element.vr, element.value) for element in item]


def test_the_codes_are_those_that_dcmsign_lists() -> None:
    listed = re.findall(r"^ +(\d+): (.+)$", dcmsign.run("--list-purposes").output, re.MULTILINE)

    assert dict(listed) == dict(PURPOSES)


@pytest.mark.parametrize("purpose", PURPOSES)
def test_the_sequence_is_the_one_that_dcmsign_writes(purpose: str, tmp_path: Path, by_vendor: Signer) -> None:
    source, target = tmp_path / "source.dcm", tmp_path / "target.dcm"
    source.write_bytes(SAMPLES["explicit-little-endian"])
    run = dcmsign.sign(source, target, by_vendor.key_file, by_vendor.certificate_file, options=("+sp", purpose))
    assert run.accepted, run.output
    ours = signed(source.read_bytes(), by_vendor, purpose)

    (theirs,) = purpose_sequences(target.read_bytes())
    (own,) = purpose_sequences(ours)
    assert codes(own) == codes(theirs)


@pytest.mark.parametrize("profile", ProfileName)
@pytest.mark.parametrize("syntax", SAMPLES)
def test_dcmsign_accepts_a_purpose_in_every_transfer_syntax(
    syntax: str, profile: ProfileName, by_vendor: Signer, verdict: Callable[[bytes], Exit]
) -> None:
    data = signed(SAMPLES[syntax], by_vendor, "14", profile)

    assert verdict(data) == Exit.OK
    (signature,) = signatures(parse(data).elements)
    assert signature.recovered_digest() == signature.stream_digest()


@pytest.mark.parametrize("syntax", SAMPLES)
def test_vendor_and_owner_sign_one_instance_for_different_purposes(
    syntax: str, by_vendor: Signer, by_owner: Signer, verdict: Callable[[bytes], Exit]
) -> None:
    data = signed(signed(SAMPLES[syntax], by_vendor, "14"), by_owner, "5")

    assert [codes(sequence)[0][2].strip() for sequence in purpose_sequences(data)] == [b"14", b"5"]
    assert [signature.certificate for signature in signatures(parse(data).elements)] == [
        padded(signer.certificate_der) for signer in (by_vendor, by_owner)
    ]
    assert verdict(data) == Exit.OK
    assert intact(data) == [True, True]


def padded(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)


@pytest.mark.parametrize("by", ["vendor", "owner"])
def test_a_changed_purpose_breaks_the_signature_that_it_belongs_to(
    by: str, by_vendor: Signer, by_owner: Signer, verdict: Callable[[bytes], Exit]
) -> None:
    data = signed(signed(SAMPLES["explicit-little-endian"], by_vendor, "14"), by_owner, "15")
    code = {"vendor": b"SH\x02\x0014", "owner": b"SH\x02\x0015"}[by]
    assert data.count(code) == 1

    changed = data.replace(code, code[:-1] + b"6")

    assert verdict(changed) == Exit.VERIFICATION_FAILED
    assert intact(changed) == [by != "vendor", by != "owner"]
