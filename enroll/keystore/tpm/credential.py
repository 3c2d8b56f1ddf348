"""What a CA asks a TPM: a secret that only the TPM with this EK can read, and only if it holds this AK as well.

Needs the software of TPMs and no TPM. TPM 2.0 Library, Part 1, 24 "Credential Protection".
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from tpm2_pytss import TPM2B_ECC_PARAMETER, TPM2B_NAME, TPM2B_PUBLIC, TPM2B_PUBLIC_KEY_RSA, TPMT_PUBLIC
from tpm2_pytss.utils import NoSuchIndex, create_ek_template
from tpm2_pytss.utils import make_credential as encrypted_for

from enroll.errors import UnsupportedKey

EK_BITS = 2048
EK_TEMPLATES = ("EK-RSA2048", "EK-ECC256")  # L-1 and L-2 of the TCG EK Credential Profile, which every TPM can have


def make_credential(endorsement_key: CertificatePublicKeyTypes, name: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """Encrypt a secret for a TPM.

    Args:
        endorsement_key: From the certificate of its EK; made from a template that has its number, as all are.
        name: Of the AK: its algorithm and its hash.
        secret: At most 32 bytes.

    Returns:
        The contents of TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET.

    Raises:
        UnsupportedKey: The EK is neither of RSA-2048 nor of P-256.
    """
    blob, encrypted_secret = encrypted_for(_public_area(endorsement_key), secret, TPM2B_NAME(name))
    return bytes(blob), bytes(encrypted_secret)


def ek_template(kind: str, read: Callable[[int], bytes | None]) -> tuple[bytes | None, TPMT_PUBLIC]:
    """The certificate of an EK, and the template that makes the key again.

    Args:
        kind: One of `EK_TEMPLATES`.
        read: The content of an NV index of the TPM; None where there is none. Templates may be changed by it.
    """

    def content(index: int) -> bytes:
        found = read(int(index))
        if found is None:
            raise NoSuchIndex(index)
        return found

    certificate, template = create_ek_template(kind, content)
    # A copy: the library's own template must stay as it is.
    area, _ = TPMT_PUBLIC.unmarshal(template.publicArea.marshal())
    return certificate, area


def _public_area(key: CertificatePublicKeyTypes) -> TPM2B_PUBLIC:
    rsa_kind, elliptic_curve_kind = EK_TEMPLATES
    if isinstance(key, rsa.RSAPublicKey) and key.key_size == EK_BITS:
        _, area = ek_template(rsa_kind, lambda _: None)
        area.unique.rsa = TPM2B_PUBLIC_KEY_RSA(key.public_numbers().n.to_bytes(EK_BITS // 8, "big"))
    elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        _, area = ek_template(elliptic_curve_kind, lambda _: None)
        point = key.public_numbers()
        area.unique.ecc.x = TPM2B_ECC_PARAMETER(point.x.to_bytes(32, "big"))
        area.unique.ecc.y = TPM2B_ECC_PARAMETER(point.y.to_bytes(32, "big"))
    else:
        raise UnsupportedKey("This is no endorsement key of RSA-2048 or P-256.", remedy="Use the other EK of the TPM.")
    return TPM2B_PUBLIC(area)
