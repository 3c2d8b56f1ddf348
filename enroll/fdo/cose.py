"""COSE_Sign1 (RFC 9052 4.2) as FDO uses it; `tunnel` has Encrypt0 and Mac0.

What is signed is signed by a key of the key store, which is an ordinary `cryptography` key wherever it lives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from enroll.fdo import cbor
from enroll.fdo.fault import ErrorCode, Fault
from enroll.fdo.public_key import SignatureType
from enroll.keystore.base import PrivateKey, PublicKey

ALGORITHM = 1  # header parameter: RFC 9052 3.1
SIGN1_TAG = 18

_HASHES: Mapping[SignatureType, hashes.HashAlgorithm] = {
    SignatureType.ES256: hashes.SHA256(),
    SignatureType.ES384: hashes.SHA384(),
    SignatureType.PS256: hashes.SHA256(),
    SignatureType.PS384: hashes.SHA384(),
    SignatureType.RS256: hashes.SHA256(),
    SignatureType.RS384: hashes.SHA384(),
}
_CURVE_BYTES = {SignatureType.ES256: 32, SignatureType.ES384: 48}
_PSS = (SignatureType.PS256, SignatureType.PS384)
_SIGNATURE_LIMIT = 512  # bytes; RSA-4096


@dataclass(frozen=True)
class Sign1:
    """A signed payload (RFC 9052 4.2).

    Args:
        algorithm: As the protected header says.
        protected: The protected header, encoded, without the byte string around it.
        unprotected: The other header, which nobody has signed.
        payload: What is signed.
        signature: Of the signer.
        raw: All of its bytes, with the tag.
    """

    algorithm: SignatureType
    protected: bytes
    unprotected: Mapping[int | str, cbor.Item]
    payload: cbor.Item
    signature: bytes
    raw: bytes

    @classmethod
    def read(cls, item: cbor.Item) -> Self:
        """From what was received; says nothing about the signature.

        Raises:
            Fault: It is no COSE_Sign1 of this kind.
        """
        protected, unprotected, payload, signature = item.tagged(SIGN1_TAG).array(4)
        headers = protected.embedded().map()
        if list(headers) != [ALGORITHM] or headers[ALGORITHM].integer() not in list(SignatureType):
            raise Fault("The protected header of a signature does not name one known algorithm, and nothing else.")
        unsigned = unprotected.map()
        if ALGORITHM in unsigned:
            raise Fault("A signature names its algorithm in both headers.")  # RFC 9052 3
        return cls(
            SignatureType(headers[ALGORITHM].integer()),
            protected.bytes(),
            unsigned,
            payload.embedded(),
            signature.bytes(_SIGNATURE_LIMIT),
            item.raw,
        )

    def check(self, key: PublicKey, algorithm: SignatureType) -> None:
        """Whether `key` has signed it in this way.

        Raises:
            Fault: It has not.
        """
        signed = _to_be_signed(self.protected, self.payload.raw)
        if self.algorithm is not algorithm or not _verifies(key, algorithm, self.signature, signed):
            raise Fault("A signature is not that of its key.", ErrorCode.INVALID_OWNER_SIGNATURE)


def sign1(
    key: PrivateKey,
    algorithm: SignatureType,
    payload: bytes,
    unprotected: Mapping[int, cbor.Encodable] | None = None,
) -> bytes:
    """A signed payload, encoded with its tag.

    Args:
        key: Signs; may live in a token.
        algorithm: How.
        payload: Encoded.
        unprotected: The header that nobody signs.

    Raises:
        KeyStoreError: The key cannot sign.
    """
    protected = cbor.encode({ALGORITHM: algorithm})
    signature = _sign(key, algorithm, _to_be_signed(protected, payload))
    return cbor.encode(cbor.Tagged(SIGN1_TAG, [protected, unprotected or {}, payload, signature]))


def _to_be_signed(protected: bytes, payload: bytes) -> bytes:
    """Sig_structure: RFC 9052 4.4."""
    return cbor.encode(["Signature1", protected, b"", payload])


def _sign(key: PrivateKey, algorithm: SignatureType, data: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, _padding(algorithm), _HASHES[algorithm])
    # RFC 9053 2.1: both numbers at full length, one after the other.
    size = _CURVE_BYTES[algorithm]
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(_HASHES[algorithm])))
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def _verifies(key: PublicKey, algorithm: SignatureType, signature: bytes, data: bytes) -> bool:
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            size = _CURVE_BYTES.get(algorithm, 0)
            if 8 * size != key.key_size or len(signature) != 2 * size:
                return False
            numbers = (int.from_bytes(part, "big") for part in (signature[:size], signature[size:]))
            key.verify(encode_dss_signature(*numbers), data, ec.ECDSA(_HASHES[algorithm]))
        elif algorithm in _CURVE_BYTES:
            return False
        else:
            key.verify(signature, data, _padding(algorithm), _HASHES[algorithm])
    except InvalidSignature:
        return False
    return True


def _padding(algorithm: SignatureType) -> padding.AsymmetricPadding:
    """RFC 8230 2 and RFC 8812 2."""
    if algorithm in _PSS:
        return padding.PSS(padding.MGF1(_HASHES[algorithm]), padding.PSS.DIGEST_LENGTH)
    return padding.PKCS1v15()
