"""Private keys that stay in their store, as `cryptography` key objects.

Whatever takes a `cryptography` private key works with these: requests, certificates, revocation lists, CMS. They hand
over the bytes to be signed; the key object hashes them, checks what is asked for, and lets its store do the private
operation on the digest. Signing channel and TLS hand over a digest (`Prehashed`).

Every RSA signature is verified before it is handed out: a fault while a store computes with the primes gives away the
key to whoever sees the result. Verifying costs a few percent of signing.

SHA-1 and MD5 are not refused by a rule that could be relaxed: there is no way to ask for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn, Protocol, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import (
    MGF1,
    PSS,
    AsymmetricPadding,
    PKCS1v15,
    calculate_max_pss_salt_length,
)
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from enroll.algorithms import HmacAlgorithm, KeyAlgorithm
from enroll.errors import KeyMismatch, KeyStoreError, UnsupportedKey
from enroll.keystore.base import PrivateKey, PublicKey

RSA_BITS: Mapping[KeyAlgorithm, int] = {
    KeyAlgorithm.RSA_2048: 2048,
    KeyAlgorithm.RSA_3072: 3072,
    KeyAlgorithm.RSA_4096: 4096,
}
RSA_EXPONENT = 65537
CURVES: Mapping[KeyAlgorithm, ec.EllipticCurve] = {
    KeyAlgorithm.P_256: ec.SECP256R1(),
    KeyAlgorithm.P_384: ec.SECP384R1(),
}
HMAC_HASHES: Mapping[HmacAlgorithm, hashes.HashAlgorithm] = {
    HmacAlgorithm.SHA256: hashes.SHA256(),
    HmacAlgorithm.SHA384: hashes.SHA384(),
}

Bytes: TypeAlias = bytes | bytearray | memoryview
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


@dataclass(frozen=True)
class RsaPkcs1v15:
    """RSASSA-PKCS1-v1_5 (RFC 8017 8.2)."""

    hash_name: str


@dataclass(frozen=True)
class RsaPss:
    """RSASSA-PSS with MGF1 over the same hash (RFC 8017 8.1).

    Args:
        hash_name: "sha256", "sha384" or "sha512".
        salt_length: In bytes.
    """

    hash_name: str
    salt_length: int


@dataclass(frozen=True)
class Ecdsa:
    """ECDSA (FIPS 186-5 6.4); the digest is not longer than the order of the curve."""


Scheme: TypeAlias = RsaPkcs1v15 | RsaPss | Ecdsa


class Signer(Protocol):
    """The private operation, done by a store."""

    def __call__(self, digest: bytes, scheme: Scheme) -> bytes:
        """The signature over a digest; of ECDSA in DER (RFC 3279 2.2.3).

        Raises:
            KeyStoreError: The store cannot sign.
        """


def check_supported(key: PublicKey) -> None:
    """Refuse kinds of key that are not used here.

    Raises:
        UnsupportedKey: Neither RSA of 2048 to 4096 bits nor P-256 nor P-384.
    """
    if isinstance(key, rsa.RSAPublicKey):
        supported = min(RSA_BITS.values()) <= key.key_size <= max(RSA_BITS.values())
    else:
        supported = any(key.curve.name == curve.name for curve in CURVES.values())
    if not supported:
        raise UnsupportedKey(
            f"Keys of this kind ({key.key_size} bits) are not used.", remedy=f"Make one of: {', '.join(KeyAlgorithm)}."
        )


def stored_key(public_key: PublicKey, signer: Signer) -> PrivateKey:
    """The key object for a private key in a store.

    Args:
        public_key: Its public half.
        signer: Signs with its private half.

    Raises:
        UnsupportedKey: See `check_supported`.
    """
    check_supported(public_key)
    if isinstance(public_key, rsa.RSAPublicKey):
        return StoredRsaKey(public_key, signer)
    return StoredEcKey(public_key, signer)


class _Stored:
    """What RSA and elliptic curve keys in a store have in common."""

    def private_bytes(self, *_arguments: object, **_named: object) -> NoReturn:
        """Refused: the key does not leave its store."""
        raise _does_not_leave()

    def private_numbers(self) -> NoReturn:
        """Refused: the key does not leave its store."""
        raise _does_not_leave()

    def __reduce__(self) -> NoReturn:
        raise _does_not_leave()


class StoredRsaKey(_Stored, rsa.RSAPrivateKey):
    """An RSA key in a store."""

    def __init__(self, public_key: rsa.RSAPublicKey, signer: Signer) -> None:
        self._public_key = public_key
        self._signer = signer

    def __repr__(self) -> str:
        return f"StoredRsaKey({self.key_size} bits)"

    @property
    def key_size(self) -> int:
        """Length of the modulus in bits."""
        return self._public_key.key_size

    def public_key(self) -> rsa.RSAPublicKey:
        """The public half."""
        return self._public_key

    def sign(self, data: Bytes, padding: AsymmetricPadding, algorithm: object) -> bytes:
        """The signature over `data`, or over the digest that it is if `algorithm` is `Prehashed`.

        Args:
            data: What is signed.
            padding: `PKCS1v15`, or `PSS` with a salt length in bytes, `DIGEST_LENGTH` or `MAX_LENGTH`.
            algorithm: SHA-256, SHA-384 or SHA-512, as it is or in `Prehashed`.

        Raises:
            UnsupportedKey: Another padding or hash.
            KeyMismatch: The store made a wrong signature.
            KeyStoreError: The store cannot sign, or the digest has not the length of its algorithm.
        """
        digest, hashed_with = _digest(data, algorithm)
        signature = self._signer(digest, self._scheme(padding, hashed_with))
        try:
            self._public_key.verify(signature, digest, padding, Prehashed(hashed_with))
        except InvalidSignature as error:
            raise KeyMismatch(
                "The key store made a wrong signature, which was not handed out.",
                remedy="Test the token: one that computes wrongly gives its key away. Then enroll again.",
            ) from error
        return signature

    def decrypt(self, *_arguments: object, **_named: object) -> NoReturn:
        """Refused: keys here sign and nothing else."""
        raise _only_signs()

    def __copy__(self) -> StoredRsaKey:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> StoredRsaKey:
        return self

    def _scheme(self, wanted: AsymmetricPadding, hashed_with: hashes.HashAlgorithm) -> Scheme:
        if isinstance(wanted, PKCS1v15):
            return RsaPkcs1v15(hashed_with.name)
        # Neither the mask generation nor the salt length has a public name in cryptography 42 to 50.
        if isinstance(wanted, PSS) and _mask_hash(wanted._mgf) == hashed_with.name:  # noqa: SLF001
            return RsaPss(hashed_with.name, self._salt_length(wanted._salt_length, hashed_with))  # noqa: SLF001
        raise UnsupportedKey("The key does not sign with this padding.", remedy="Use PKCS1v15, or PSS with MGF1.")

    def _salt_length(self, wanted: object, hashed_with: hashes.HashAlgorithm) -> int:
        longest = calculate_max_pss_salt_length(self, hashed_with)
        if wanted is PSS.DIGEST_LENGTH:
            return hashed_with.digest_size
        if wanted is PSS.MAX_LENGTH:
            return longest
        if isinstance(wanted, int) and 0 <= wanted <= longest:
            return wanted
        raise UnsupportedKey("The key does not sign with this PSS salt length.", remedy="Use PSS.DIGEST_LENGTH.")


class StoredEcKey(_Stored, ec.EllipticCurvePrivateKey):
    """An elliptic curve key in a store."""

    def __init__(self, public_key: ec.EllipticCurvePublicKey, signer: Signer) -> None:
        self._public_key = public_key
        self._signer = signer

    def __repr__(self) -> str:
        return f"StoredEcKey({self.curve.name})"

    @property
    def curve(self) -> ec.EllipticCurve:
        """The curve."""
        return self._public_key.curve

    @property
    def key_size(self) -> int:
        """Length of the order in bits."""
        return self._public_key.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public half."""
        return self._public_key

    def sign(self, data: Bytes, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """The signature over `data`, in DER, or over the digest that it is if the algorithm holds `Prehashed`.

        Args:
            data: What is signed.
            signature_algorithm: `ECDSA` with SHA-256, SHA-384 or SHA-512, as it is or in `Prehashed`.

        Raises:
            UnsupportedKey: Another algorithm or hash, or a deterministic signature.
            KeyStoreError: The store cannot sign, or the digest has not the length of its algorithm.
        """
        deterministic = getattr(signature_algorithm, "deterministic_signing", False)  # not there before 43
        if not isinstance(signature_algorithm, ec.ECDSA) or deterministic:
            raise UnsupportedKey("The key does not sign with this algorithm.", remedy="Use ECDSA.")
        digest, _ = _digest(data, signature_algorithm.algorithm)
        # FIPS 186-5 6.4.1: the leftmost bits count. Not every token cuts a longer digest itself.
        return self._signer(digest[: (self.key_size + 7) // 8], Ecdsa())

    def exchange(self, *_arguments: object, **_named: object) -> NoReturn:
        """Refused: keys here sign and nothing else."""
        raise _only_signs()

    def __copy__(self) -> StoredEcKey:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> StoredEcKey:
        return self


def _digest(data: Bytes, algorithm: object) -> tuple[bytes, hashes.HashAlgorithm]:
    # The digest size alone would take SHA3-256 for SHA-256; its algorithm has no public name in cryptography 42 to 50.
    hashed_with = algorithm._algorithm if isinstance(algorithm, Prehashed) else algorithm  # noqa: SLF001
    if not isinstance(hashed_with, _HASHES):
        raise UnsupportedKey("The key does not sign with this hash.", remedy="Use SHA-256, SHA-384 or SHA-512.")
    if isinstance(algorithm, Prehashed):
        if len(data) != hashed_with.digest_size:
            raise KeyStoreError(
                f"The digest has {len(data)} bytes.",
                remedy=f"{hashed_with.name} makes {hashed_with.digest_size} bytes.",
            )
        return bytes(data), hashed_with
    context = hashes.Hash(hashed_with)
    context.update(data)
    return context.finalize(), hashed_with


def _mask_hash(mask: object) -> str:
    return mask._algorithm.name if isinstance(mask, MGF1) else ""  # noqa: SLF001 - no public name


def _does_not_leave() -> UnsupportedKey:
    return UnsupportedKey("This key does not leave its store.", remedy="Use it where it is.")


def _only_signs() -> UnsupportedKey:
    return UnsupportedKey("Keys of a store only sign.", remedy="Use another key for this.")
