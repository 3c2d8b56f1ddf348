"""What tokens show of their keys (PKCS#11 v2.40, 2.1.2 and 2.3.3), and of themselves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from enroll import der
from enroll.errors import UnsupportedKey

pkcs11 = pytest.importorskip("pkcs11", reason="python-pkcs11 is missing: pip install '.[pkcs11]'")
from pkcs11 import Attribute, KeyType  # noqa: E402 - an optional extra

from enroll.keystore.pkcs11.connection import is_simulated  # noqa: E402 - needs it
from enroll.keystore.pkcs11.objects import hmac_algorithm, public_key  # noqa: E402 - needs it

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


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_secret_of_another_length_is_refused(length: int) -> None:
    shown: Any = {Attribute.VALUE_LEN: length}

    with pytest.raises(UnsupportedKey) as caught:
        hmac_algorithm(shown)
    assert "hmac-sha256" in caught.value.remedy


# Maker of the slot, maker of the token, model: those of TPMs as tpm2-pkcs11 gives them, from the properties of the TPM.
@pytest.mark.parametrize(
    ("names", "simulated"),
    [
        (("SoftHSM project", "SoftHSM project", "SoftHSM v2"), True),
        (("IBM", "IBM", "SW   TPM"), True),
        (("IBM", "IBM", "Soft"), True),
        (("Virtual Smart Card Architecture", "", "Virtual PCD"), True),
        (("", "Utimaco IS GmbH", "CryptoServer Simulator"), True),
        (("VMW", "VMW", "VMware TPM"), True),
        (("MSFT", "MSFT", "xCG fTPM"), True),
        (("GOOG", "GOOG", "vTPM"), True),
        (("AMZN", "AMZN", "NitroTPM"), True),
        (("STM", "STM", "ST33TPHF2XSPI"), False),
        (("IFX", "IFX", "SLB9670"), False),
        (("INTC", "INTC", "Intel"), False),
        (("Yubico (www.yubico.com)", "Yubico (www.yubico.com)", "YubiHSM"), False),
        (("", "", ""), False),
    ],
)
def test_what_is_simulated_says_so(names: tuple[str, str, str], *, simulated: bool) -> None:
    maker_of_slot, maker, model = names
    slot = SimpleNamespace(manufacturer_id=maker_of_slot, slot_description="the label that the operator chose")
    token: Any = SimpleNamespace(slot=slot, manufacturer_id=maker, model=model)

    assert is_simulated(token) is simulated
