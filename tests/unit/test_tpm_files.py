"""The file of a wrapped key is read as what anybody may have written."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tpm2_pytss", reason="tpm2-pytss is missing: pip install '.[tpm]'")

import tpm2_pytss

from enroll.errors import UnsupportedKey
from enroll.keystore.tpm.objects import WrappedObject, authorization_value

BEGIN, END = b"-----BEGIN TSS2 PRIVATE KEY-----\n", b"-----END TSS2 PRIVATE KEY-----\n"
FIPS_180 = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"  # its example of two blocks for SHA-256


def wrapped(kind: str = "ecc256") -> WrappedObject:
    public = tpm2_pytss.TPM2B_PUBLIC(tpm2_pytss.TPMT_PUBLIC.parse(kind))
    return WrappedObject(tpm2_pytss.TPM2B_PRIVATE(b"p" * 120), public, int(tpm2_pytss.TPM2_RH.OWNER))


def armored(der: bytes) -> bytes:
    text = base64.b64encode(der)
    return BEGIN + b"".join(text[start : start + 64] + b"\n" for start in range(0, len(text), 64)) + END


def test_what_is_written_is_read() -> None:
    there = wrapped()
    back = WrappedObject.from_pem(there.to_pem())

    assert (back.identity, bytes(back.private), back.parent) == (there.identity, b"p" * 120, there.parent)


@given(st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    for data in (noise, armored(noise)):
        with pytest.raises(ValueError, match=r"."):
            WrappedObject.from_pem(data)


@given(st.data())
def test_a_damaged_file_is_refused_or_is_another_object(data: st.DataObject) -> None:
    """What still has the form is refused by the TPM: both halves are bound to each other."""
    whole = bytearray(base64.b64decode(wrapped().to_pem()[len(BEGIN) : -len(END)]))
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= data.draw(st.integers(1, 255))

    try:
        read = WrappedObject.from_pem(armored(bytes(whole)))
    except ValueError:
        return
    assert read.to_pem() == armored(bytes(whole)) != wrapped().to_pem()
    if not read.is_secret:
        with pytest.raises((ValueError, UnsupportedKey)):
            read.public_key()  # the point of this one is empty


def test_an_authorization_value_is_what_was_given_or_its_hash() -> None:
    """TPM 2.0 Library, Part 1, 19.6.4.3: it is no longer than a digest of the name's hash."""
    assert authorization_value(b"x" * 32) == b"x" * 32
    assert authorization_value(b"") == b""
    assert authorization_value(FIPS_180).hex() == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
