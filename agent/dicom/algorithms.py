"""What signatures were and are made with (PS3.15 C.1): checking all of it, grading each, making none.

A signature under an antique algorithm can be forged today, so it proves something only if it is known to have existed
before that. This module says whether it is mathematically right and what it was made with; what that is worth at which
date is the policy's to say. There is no way to sign here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from agent.dicom.stream import Hash
from agent.errors import DicomError
from enroll.certificates import PARSE_ERRORS

SMALLEST_CURRENT_RSA = 2048  # bits
# A larger key makes one signature cost a verifier seconds.
LARGEST_RSA = 16_384  # bits
# RFC 8017 9.2, note 1: DigestInfo of RIPEMD-160 up to the digest; cryptography has no such hash for RSA.
_RIPEMD160_DIGEST_INFO = bytes.fromhex("3021300906052b2403020105000414")


@dataclass(frozen=True)
class MacAlgorithm:
    """A value of MAC Algorithm (0400,0015).

    Args:
        name: The defined term.
        hash_name: That of `hashlib`.
        hashed: For checking signatures; None for RIPEMD-160.
        antique: Whether collisions can be made, or will be soon.
    """

    name: str
    hash_name: str
    hashed: hashes.HashAlgorithm | None
    antique: bool = False

    def new(self) -> Hash:
        """The hash, nothing hashed yet.

        Raises:
            DicomError: The cryptographic library of this machine does not have it.
        """
        try:
            # Antique ones protect nothing here: they recompute what was signed once.
            return hashlib.new(self.hash_name, usedforsecurity=not self.antique)
        except ValueError as error:
            raise DicomError(
                f"The cryptographic library of this machine does not offer {self.name}.",
                remedy="Verify this instance on a machine whose OpenSSL has its legacy algorithms.",
                code="algorithm-unavailable",
            ) from error


MAC_ALGORITHMS = {
    algorithm.name: algorithm
    for algorithm in (
        MacAlgorithm("RIPEMD160", "ripemd160", None, antique=True),
        MacAlgorithm("MD5", "md5", hashes.MD5(), antique=True),  # noqa: S303 - to read antique signatures
        MacAlgorithm("SHA1", "sha1", hashes.SHA1(), antique=True),  # noqa: S303 - the same
        MacAlgorithm("SHA256", "sha256", hashes.SHA256()),
        MacAlgorithm("SHA384", "sha384", hashes.SHA384()),
        MacAlgorithm("SHA512", "sha512", hashes.SHA512()),
    )
}


def key_name(key: PublicKeyTypes) -> str:
    """The kind of key, such as RSA-3072 or ECDSA-P256."""
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA-{key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ECDSA-{key.curve.name.replace('secp', 'P').removesuffix('r1')}"
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "ED25519"
    return "ED448" if isinstance(key, ed448.Ed448PublicKey) else type(key).__name__.removesuffix("PublicKey")


def can_check(key: PublicKeyTypes) -> bool:
    """Whether signatures of such a key are checked here: RSA (PS3.15 C.1), and ECDSA, which some add outside of it."""
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size <= LARGEST_RSA
    return isinstance(key, ec.EllipticCurvePublicKey)


def is_antique_key(key: PublicKeyTypes) -> bool:
    """Whether the key can be broken with what is known today."""
    return isinstance(key, rsa.RSAPublicKey) and key.key_size < SMALLEST_CURRENT_RSA


def verifies(key: PublicKeyTypes, algorithm: MacAlgorithm, digest: bytes, signature: bytes) -> bool:
    """Whether a signature is that of a digest: RSASSA-PKCS1-v1_5, or ECDSA with a DER value.

    Args:
        key: One that `can_check`.
        algorithm: The hash that made the digest.
        digest: The digest.
        signature: Without padding.
    """
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            if algorithm.hashed is None:
                return False
            key.verify(signature, digest, ec.ECDSA(utils.Prehashed(algorithm.hashed)))
            return True
        if not isinstance(key, rsa.RSAPublicKey):
            return False
        if algorithm.hashed is None:
            recovered = key.recover_data_from_signature(signature, padding.PKCS1v15(), None)
            return recovered == _RIPEMD160_DIGEST_INFO + digest
        key.verify(signature, digest, padding.PKCS1v15(), utils.Prehashed(algorithm.hashed))
    except (InvalidSignature, *PARSE_ERRORS):
        return False
    return True
