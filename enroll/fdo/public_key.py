"""Public keys of manufacturers and owners, and how they sign: FDO 1.1, 3.3.4 "PublicKey" and 3.3.5."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from enroll.certificates import PARSE_ERRORS, public_key_info
from enroll.fdo import cbor
from enroll.fdo.fault import Fault
from enroll.fdo.hashes import HashAlgorithm
from enroll.keystore.base import PublicKey

CHAIN_LIMIT = 8  # certificates
KEY_LIMIT = 4 * 1024  # bytes of one key
CERTIFICATE_LIMIT = 8 * 1024  # bytes

_RSA_BITS = (2048, 3072)
_RSA_EXPONENT = 65537
# COSE key parameters: RFC 9053 7.1.1.
_KEY_TYPE, _CURVE, _X, _Y, _EC2 = 1, -1, -2, -3, 2
_UNCOMPRESSED = b"\x04"  # SEC 1 2.3.3


class KeyType(IntEnum):
    """What a key is."""

    RSA_2048_RESTRICTED = 1
    RSA_PKCS = 5
    RSA_PSS = 6
    SECP256R1 = 10
    SECP384R1 = 11


class KeyEncoding(IntEnum):
    """How a key is written."""

    CRYPTO = 0
    X509 = 1
    X5CHAIN = 2
    COSEKEY = 3


class SignatureType(IntEnum):
    """How a key signs: the COSE algorithm, which FDO also calls sgType."""

    ES256 = -7
    ES384 = -35
    PS256 = -37
    PS384 = -38
    RS256 = -257
    RS384 = -258


@dataclass(frozen=True)
class _Curve:
    curve: ec.EllipticCurve
    cose_number: int
    size: int  # bytes of a coordinate


_CURVES = {
    KeyType.SECP256R1: _Curve(ec.SECP256R1(), 1, 32),
    KeyType.SECP384R1: _Curve(ec.SECP384R1(), 2, 48),
}


@dataclass(frozen=True)
class FdoPublicKey:
    """A public key as FDO writes it.

    Args:
        kind: What it is.
        encoding: How it is written.
        key: The key.
        chain: Its certificate and those above, where it is written as such; nothing of it has been verified.
        raw: All of its bytes, which FDO hashes.
    """

    kind: KeyType
    encoding: KeyEncoding
    key: PublicKey
    chain: tuple[x509.Certificate, ...]
    raw: bytes

    @classmethod
    def read(cls, item: cbor.Item) -> Self:
        """From what was received.

        Raises:
            Fault: It is none, or none of a kind that is known here.
        """
        number, written, body = item.array(3)
        if number.unsigned() not in list(KeyType) or written.unsigned() not in list(KeyEncoding):
            raise Fault(f"There is no public key of the type {number.unsigned()} in the encoding {written.unsigned()}.")
        kind, encoding = KeyType(number.unsigned()), KeyEncoding(written.unsigned())
        chain: tuple[x509.Certificate, ...] = ()
        match encoding:
            case KeyEncoding.X509:
                key = _key_from_info(body.bytes(KEY_LIMIT))
            case KeyEncoding.X5CHAIN:
                chain = read_chain(body)
                key = _key_of(chain[0])
            case KeyEncoding.COSEKEY:
                key = _key_from_cose(kind, body)
            case _:
                raise Fault("Public keys in the encoding Crypto are not used.")
        _check_kind(kind, key)
        return cls(kind, encoding, key, chain, item.raw)

    @classmethod
    def make(
        cls,
        key: PublicKey | Sequence[x509.Certificate],
        encoding: KeyEncoding = KeyEncoding.X509,
        kind: KeyType | None = None,
    ) -> Self:
        """A key to be sent.

        Args:
            key: It; for X5CHAIN its certificate and those above.
            encoding: How it is to be written; COSEKEY is for elliptic curves.
            kind: Which of the types of an RSA key; the most usual by default.

        Raises:
            Fault: It could not be read again.
        """
        chain = tuple(key) if isinstance(key, Sequence) else ()
        plain = _key_of(chain[0]) if chain else _supported(key)
        chosen = kind or key_types(plain)[0]
        _check_kind(chosen, plain)
        body: cbor.Encodable
        match encoding:
            case KeyEncoding.X509:
                body = public_key_info(plain)
            case KeyEncoding.X5CHAIN if chain:
                body = [each.public_bytes(serialization.Encoding.DER) for each in chain]
            case KeyEncoding.COSEKEY:
                body = _cose_key(chosen, plain)
            case _:
                raise Fault(f"A public key cannot be written in the encoding {encoding.name}.")
        return cls(chosen, encoding, plain, chain, cbor.encode([chosen, encoding, body]))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the SubjectPublicKeyInfo (RFC 5280 4.1.2.7), 64 hexadecimal digits: the same in every encoding."""
        return hashlib.sha256(public_key_info(self.key)).hexdigest()

    @property
    def signature_type(self) -> SignatureType:
        """How it signs."""
        return signature_type(self.key, self.kind)

    def is_same_key(self, other: FdoPublicKey) -> bool:
        """Whether both are one key, however it is written."""
        return self.fingerprint == other.fingerprint


def key_types(key: PublicKey) -> tuple[KeyType, ...]:
    """The types that a key may be said to be of; the most usual is first."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return tuple(kind for kind, curve in _CURVES.items() if curve.curve.name == key.curve.name)
    restricted = (KeyType.RSA_2048_RESTRICTED,) if key.key_size == _RSA_BITS[0] else ()
    return (*restricted, KeyType.RSA_PKCS, KeyType.RSA_PSS)


def signature_type(key: PublicKey, kind: KeyType | None = None) -> SignatureType:
    """How a key signs.

    Args:
        key: It.
        kind: As it is said to be, where that is known: RSA keys sign in two ways.
    """
    strong = strength(key) is HashAlgorithm.SHA384
    if isinstance(key, ec.EllipticCurvePublicKey):
        return SignatureType.ES384 if strong else SignatureType.ES256
    if kind is KeyType.RSA_PSS:
        return SignatureType.PS384 if strong else SignatureType.PS256
    return SignatureType.RS384 if strong else SignatureType.RS256


def strength(key: PublicKey) -> HashAlgorithm:
    """The hash that goes with a key: SHA-384 with P-384 and RSA-3072."""
    strong = key.key_size == (384 if isinstance(key, ec.EllipticCurvePublicKey) else _RSA_BITS[1])
    return HashAlgorithm.SHA384 if strong else HashAlgorithm.SHA256


def read_chain(item: cbor.Item) -> tuple[x509.Certificate, ...]:
    """An X5CHAIN: the certificate of a key, then those above it. Nothing of it is verified.

    Raises:
        Fault: It is none, or too long.
    """
    parts = item.array()
    if not 1 <= len(parts) <= CHAIN_LIMIT:
        raise Fault(f"A chain has {len(parts)} certificates; it may have 1 to {CHAIN_LIMIT}.")
    return tuple(_certificate(part.bytes(CERTIFICATE_LIMIT)) for part in parts)


def _certificate(encoded: bytes) -> x509.Certificate:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what cryptography only warns about, it will refuse one day
            certificate = x509.load_der_x509_certificate(encoded)
            warnings.simplefilter("ignore")  # names of devices are longer than they may be
            # Read on demand, so that a fault in them would show wherever they are first looked at.
            for name in (certificate.subject, certificate.issuer):
                name.rfc4514_string()
    except (*PARSE_ERRORS, Warning) as error:
        raise Fault("A certificate of a chain cannot be read.") from error
    if certificate.public_bytes(serialization.Encoding.DER) != encoded:
        raise Fault("A certificate of a chain is not in DER.")
    return certificate


def read_point(curve: ec.EllipticCurve, x: bytes, y: bytes) -> ec.EllipticCurvePublicKey:
    """A point from its coordinates, both at full length (SP 800-56A 5.6.2.3.3).

    Raises:
        Fault: It is not on the curve, or a coordinate is not below the prime of the field.
    """
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, _UNCOMPRESSED + x + y)
    except ValueError as error:
        raise Fault("A point is not on its curve.") from error


def _key_from_info(encoded: bytes) -> PublicKey:
    try:
        key = _supported(serialization.load_der_public_key(encoded))
    except PARSE_ERRORS as error:
        raise Fault("A public key cannot be read.") from error
    if public_key_info(key) != encoded:
        raise Fault("A public key is not in the one form that it has (RFC 5480 2 and RFC 3279 2.3.1).")
    return key


def _key_of(certificate: x509.Certificate) -> PublicKey:
    try:
        return _supported(certificate.public_key())
    except PARSE_ERRORS as error:
        raise Fault("The key of a certificate cannot be read.") from error


def _key_from_cose(kind: KeyType, item: cbor.Item) -> PublicKey:
    """RFC 9053 7.1.1. One implementation leaves out kty, so it need not be there; see `_coordinate` for another."""
    if kind not in _CURVES:
        raise Fault("Only keys on elliptic curves are written as COSE keys.")
    values, curve = item.map(), _CURVES[kind]
    if any(name not in values for name in (_CURVE, _X, _Y)):
        raise Fault("A COSE key is not complete.")
    said = values[_KEY_TYPE].integer() if _KEY_TYPE in values else _EC2
    if (said, values[_CURVE].integer()) != (_EC2, curve.cose_number):
        raise Fault(f"A COSE key is not of the type {kind.name} that it is said to be.")
    x, y = (_coordinate(values[name].bytes(at_most=curve.size, at_least=1), curve.size) for name in (_X, _Y))
    return read_point(curve.curve, x, y)


def _coordinate(written: bytes, size: int) -> bytes:
    """RFC 9053 7.1.1 keeps leading zeros. One implementation leaves them out: all or none, no third form."""
    if len(written) < size and written.startswith(b"\0"):
        raise Fault("A coordinate of a COSE key has some of its leading zeros, but not all.")
    return written.rjust(size, b"\0")


def _cose_key(kind: KeyType, key: PublicKey) -> dict[int, cbor.Encodable]:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Fault("Only keys on elliptic curves are written as COSE keys.")
    curve, point = _CURVES[kind], key.public_numbers()
    x, y = point.x.to_bytes(curve.size, "big"), point.y.to_bytes(curve.size, "big")
    return {_KEY_TYPE: _EC2, _CURVE: curve.cose_number, _X: x, _Y: y}


def _check_kind(kind: KeyType, key: PublicKey) -> None:
    if kind not in key_types(key):
        raise Fault(f"A public key is not of the type {kind.name} that it is said to be.")


def _supported(key: object) -> PublicKey:
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in {c.curve.name for c in _CURVES.values()}:
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS and key.public_numbers().e == _RSA_EXPONENT:
        return key
    raise Fault("A public key is neither of P-256, P-384, RSA-2048 nor RSA-3072 with the exponent 65537.")
