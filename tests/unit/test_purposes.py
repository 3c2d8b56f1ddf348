"""Why a signature was made: Digital Signature Purpose Code Sequence (0400,0401) is written, and is part of the MAC."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pydicom
import pytest

from agent.dicom.purposes import CODING_SCHEME, PURPOSES
from tests.support.certificates import Authority, Signer, rsa_key
from tests.support.dicom_tree import parse
from tests.support.mac_oracle import signatures
from tests.support.product_signing import assert_nothing_else_changed, plan, sign_bytes
from tests.support.raw_dicom import NATIVE_ENCODINGS, instance, part10


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Authority(tmp_path_factory.mktemp("ca"), datetime.now(UTC)).issue("signer", rsa_key(2048))


def signed_for(purpose: str, data: bytes, signer: Signer) -> bytes:
    return sign_bytes(data, replace(plan(), purpose=purpose), signer.sign_digest("sha256"), signer.certificate_der)


def purposes(signed: bytes) -> Iterator[tuple[str, str, str]]:
    """Code Value, Coding Scheme Designator and Code Meaning as pydicom reads them; none where there is no sequence."""
    for item in pydicom.dcmread(io.BytesIO(signed)).DigitalSignaturesSequence:
        for code in item.get("DigitalSignaturePurposeCodeSequence", ()):
            yield code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning


@pytest.mark.parametrize("syntax", NATIVE_ENCODINGS)
@pytest.mark.parametrize("purpose", ["1", "14", "17"], ids=["odd value", "even value", "longest meaning"])
def test_the_purpose_is_written_and_covered_in_every_encoding(purpose: str, syntax: str, signer: Signer) -> None:
    """PS3.3 C.12.1.1.3.1.1: all of the item but certificate, signature and time stamp."""
    data = part10(instance(), syntax)

    signed = signed_for(purpose, data, signer)

    assert list(purposes(signed)) == [(purpose, CODING_SCHEME, PURPOSES[purpose])]
    (signature,) = signatures(parse(signed).elements)
    assert signature.recovered_digest() == signature.stream_digest()
    assert_nothing_else_changed(data, signed)


def test_without_a_purpose_there_is_no_sequence(signer: Signer) -> None:
    assert list(purposes(signed_for("", part10(instance()), signer))) == []


def test_the_codes_are_those_of_a_short_string_and_a_long_one() -> None:
    """PS3.5 6.2: SH of at most 16 characters, LO of 64."""
    assert list(PURPOSES) == [str(number) for number in range(1, 19)]
    assert max(map(len, (CODING_SCHEME, *PURPOSES))) <= 16
    assert max(map(len, PURPOSES.values())) <= 64
