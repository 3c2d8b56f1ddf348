"""The form of signed requests (RFC 7515, RFC 7518, RFC 7638)."""

from __future__ import annotations

import hmac
import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from enroll.errors import UnsupportedKey
from enroll.flows.acme.jws import authenticated, base64url, from_base64url, public_jwk, signed, thumbprint

RSA_OF_RFC_7638 = (
    "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs"
    "tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn"
    "1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
)


def test_the_thumbprint_of_the_example_in_rfc_7638() -> None:
    """Section 3.1."""
    modulus = int.from_bytes(from_base64url(RSA_OF_RFC_7638), "big")

    assert (
        thumbprint(rsa.RSAPublicNumbers(65537, modulus).public_key()) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    )


@pytest.mark.parametrize(
    ("curve", "name", "algorithm", "digest", "size"),
    [
        (ec.SECP256R1(), "P-256", "ES256", hashes.SHA256(), 32),
        (ec.SECP384R1(), "P-384", "ES384", hashes.SHA384(), 48),
    ],
)
def test_ecdsa_signatures_are_two_numbers_as_long_as_the_curve(
    curve: ec.EllipticCurve, name: str, algorithm: str, digest: hashes.HashAlgorithm, size: int
) -> None:
    """RFC 7518 3.4 and 6.2.1; many times, for numbers that begin with zeros."""
    key = ec.generate_private_key(curve)
    for jws in [signed(key, {"nonce": f"{number}"}, b"payload") for number in range(300)]:
        signature = from_base64url(jws["signature"])
        assert len(signature) == 2 * size
        pair = (int.from_bytes(part, "big") for part in (signature[:size], signature[size:]))
        key.public_key().verify(encode_dss_signature(*pair), signed_part(jws), ec.ECDSA(digest))
        assert json.loads(from_base64url(jws["protected"]))["alg"] == algorithm
    jwk = public_jwk(key.public_key())
    assert jwk["crv"] == name
    assert {len(from_base64url(jwk[member])) for member in "xy"} == {size}


def test_rsa_signatures_are_rs256() -> None:
    """RFC 7518 3.3."""
    key = rsa.generate_private_key(65537, 2048)

    jws = signed(key, {}, b"")

    key.public_key().verify(from_base64url(jws["signature"]), signed_part(jws), padding.PKCS1v15(), hashes.SHA256())
    assert jws["payload"] == ""  # RFC 8555 6.3: POST-as-GET
    assert json.loads(from_base64url(jws["protected"])) == {"alg": "RS256"}


def test_an_external_account_is_bound_by_hmac() -> None:
    """RFC 8555 7.3.4."""
    jws = authenticated(b"a secret", {"kid": "one", "url": "https://ca.example/new"}, b"{}")

    assert from_base64url(jws["signature"]) == hmac.digest(b"a secret", signed_part(jws), "sha256")
    assert json.loads(from_base64url(jws["protected"]))["alg"] == "HS256"


def test_another_curve_is_refused() -> None:
    with pytest.raises(UnsupportedKey):
        signed(ec.generate_private_key(ec.SECP521R1()), {}, b"")


@pytest.mark.parametrize("text", ["a+b/", "YWJj=", "a b", "YWJj\n", "é"])
def test_only_base64url_without_padding_is_read(text: str) -> None:
    """RFC 7515 2."""
    with pytest.raises(ValueError, match="not base64url"):
        from_base64url(text)


def test_base64url_there_and_back() -> None:
    for length in range(10):
        data = bytes(range(250, 250 + min(length, 6))) + bytes(max(length - 6, 0))
        assert from_base64url(base64url(data)) == data


def signed_part(jws: dict[str, str]) -> bytes:
    return f"{jws['protected']}.{jws['payload']}".encode("ascii")
