"""Proof that a signature is one of the key that was asked for."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from enroll.errors import KeyMismatch
from enroll.keystore.base import PublicKey
from enroll.keystore.keys import Ecdsa, RsaPkcs1v15, RsaPss, Scheme

_BY_NAME: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_BY_LENGTH = {each.digest_size: each for each in _BY_NAME.values()}


def check_signature(public_key: PublicKey, signature: bytes, digest: bytes, scheme: Scheme) -> None:
    """Refuse a signature that does not verify.

    Args:
        public_key: Of the key that was asked for.
        signature: What the TPM gave.
        digest: What it was to sign.
        scheme: How.

    Raises:
        KeyMismatch: It is of another key, or was computed wrongly.
    """
    try:
        match scheme, public_key:
            case RsaPkcs1v15(hash_name), rsa.RSAPublicKey():
                public_key.verify(signature, digest, padding.PKCS1v15(), Prehashed(_BY_NAME[hash_name]))
            case RsaPss(hash_name, salt_length), rsa.RSAPublicKey():
                hashed_with = _BY_NAME[hash_name]
                pss = padding.PSS(padding.MGF1(hashed_with), salt_length)
                public_key.verify(signature, digest, pss, Prehashed(hashed_with))
            case Ecdsa(), ec.EllipticCurvePublicKey():
                public_key.verify(signature, digest, ec.ECDSA(Prehashed(_BY_LENGTH[len(digest)])))
            case _:
                raise _mismatch()
    except InvalidSignature as error:
        raise _mismatch() from error


def _mismatch() -> KeyMismatch:
    return KeyMismatch(
        "The TPM gave a signature that does not verify with the key that was asked for; it was not used.",
        remedy="Try again; if it stays, the TPM is faulty or the key was exchanged: enroll again.",
    )
