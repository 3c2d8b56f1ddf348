"""Public keys as tokens show them (PKCS#11 v2.40, 2.1.2 and 2.3.3)."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from enroll import der
from enroll.errors import UnsupportedKey

pkcs11 = pytest.importorskip("pkcs11", reason="python-pkcs11 is missing: pip install '.[pkcs11]'")
from pkcs11 import Attribute, KeyType  # noqa: E402 - an optional extra

from enroll.keystore.pkcs11.objects import public_key  # noqa: E402 - needs it

P_256 = der.object_identifier("1.2.840.10045.3.1.7")
P_384 = der.object_identifier("1.3.132.0.34")
SECP256K1 = der.object_identifier("1.3.132.0.10")
KEY = ec.derive_private_key(4711, ec.SECP256R1()).public_key()
POINT = KEY.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def curve_key(parameters: bytes, point: bytes) -> Any:
    return {Attribute.KEY_TYPE: KeyType.EC, Attribute.EC_PARAMS: parameters, Attribute.EC_POINT: point}


def rsa_key(modulus: int, exponent: int) -> Any:
    return {
        Attribute.KEY_TYPE: KeyType.RSA,
        Attribute.MODULUS: modulus.to_bytes(512, "big"),
        Attribute.PUBLIC_EXPONENT: exponent.to_bytes(4, "big"),
    }


@pytest.mark.parametrize("point", [POINT, der.encode(der.OCTET_STRING, POINT)], ids=["plain", "octet string"])
def test_a_point_is_read_in_both_forms(point: bytes) -> None:
    assert public_key(curve_key(P_256, point)) == KEY


def test_an_rsa_key_is_read() -> None:
    numbers = rsa.RSAPublicNumbers(65537, (1 << 2047) + 1)

    assert public_key(rsa_key(numbers.n, numbers.e)) == numbers.public_key()


@pytest.mark.parametrize(
    "shown",
    [
        curve_key(P_256, b""),
        curve_key(P_256, b"\x04"),
        curve_key(P_256, POINT[:-1]),
        curve_key(P_256, POINT[:-1] + bytes([POINT[-1] ^ 1])),
        curve_key(P_384, POINT),
        curve_key(SECP256K1, POINT),
        curve_key(b"", POINT),
        rsa_key(0, 65537),
        rsa_key((1 << 2047) + 1, 0),
        rsa_key((1 << 2047) + 1, 2),
        {Attribute.KEY_TYPE: KeyType.DSA},
    ],
)
def test_what_is_no_key_of_ours_is_refused(shown: Any) -> None:
    with pytest.raises(UnsupportedKey) as caught:
        public_key(shown)
    assert caught.value.remedy
