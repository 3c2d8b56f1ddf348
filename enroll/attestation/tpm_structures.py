"""The structures of a TPM that evidence consists of, read strictly; no TPM software is needed for it.

Numbers and layouts are those of the TPM 2.0 Library, Part 2 "Structures"; its section stands at each. Only what a key
for signatures can be is understood, so that nothing has two readings: every byte is read, and none may be left over.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import STRICT, IntEnum, IntFlag

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from enroll.attestation.evidence import STRUCTURE_LIMIT, malformed
from enroll.keystore.base import PublicKey

GENERATED_VALUE = 0xFF544347  # TPM_GENERATED_VALUE (6.2): no key of a TPM that is not restricted signs what begins so
ATTEST_CERTIFY = 0x8017  # TPM_ST_ATTEST_CERTIFY (6.9)


class Algorithm(IntEnum):
    """TPM_ALG_ID (6.3), as far as keys for signatures have them."""

    RSA = 0x0001
    SHA256 = 0x000B
    SHA384 = 0x000C
    SHA512 = 0x000D
    NULL = 0x0010
    RSASSA = 0x0014
    RSAPSS = 0x0016
    ECDSA = 0x0018
    ECC = 0x0023


class Attribute(IntFlag, boundary=STRICT):
    """TPMA_OBJECT (8.3): what may happen to a key, for as long as it exists."""

    FIXED_TPM = 1 << 1
    ST_CLEAR = 1 << 2
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    ADMIN_WITH_POLICY = 1 << 7
    FIRMWARE_LIMITED = 1 << 8
    SVN_LIMITED = 1 << 9
    NO_DA = 1 << 10
    ENCRYPTED_DUPLICATION = 1 << 11
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18
    X509_SIGN = 1 << 19


# Made by this TPM, and can never leave it.
BOUND_TO_THE_TPM = Attribute.FIXED_TPM | Attribute.FIXED_PARENT | Attribute.SENSITIVE_DATA_ORIGIN

HASHES = {Algorithm.SHA256: "sha256", Algorithm.SHA384: "sha384", Algorithm.SHA512: "sha512"}
_CURVES: dict[int, ec.EllipticCurve] = {3: ec.SECP256R1(), 4: ec.SECP384R1(), 5: ec.SECP521R1()}  # TPM_ECC_CURVE (6.4)
_SCHEMES = {Algorithm.RSA: (Algorithm.RSASSA, Algorithm.RSAPSS), Algorithm.ECC: (Algorithm.ECDSA,)}
_DEFAULT_EXPONENT = 65537  # what 0 stands for (12.2.3.5)


@dataclass(frozen=True)
class Scheme:
    """How a key signs: TPMT_RSA_SCHEME (11.2.4.2), TPMT_ECC_SCHEME (11.2.5.6)."""

    algorithm: Algorithm
    hash: Algorithm


@dataclass(frozen=True)
class PublicArea:
    """A key as its TPM describes it: TPMT_PUBLIC (12.2.4).

    Args:
        name: Names the key and all its attributes: the hash of this structure (Part 1, 16).
        attributes: What may happen to it.
        scheme: The only way it signs; None where the caller chooses.
        key: The public key.
    """

    name: bytes
    attributes: Attribute
    scheme: Scheme | None
    key: PublicKey


@dataclass(frozen=True)
class Certification:
    """What TPM2_Certify says: TPMS_ATTEST (10.12.12) with TPMS_CERTIFY_INFO (10.12.3).

    Args:
        magic: Is `GENERATED_VALUE` where a TPM says it.
        extra_data: What the caller had put in.
        name: Of the key that it speaks of.
    """

    magic: int
    extra_data: bytes
    name: bytes


@dataclass(frozen=True)
class Signature:
    """TPMT_SIGNATURE (11.3.4) of an RSA key."""

    scheme: Scheme
    value: bytes


class _Reader:
    def __init__(self, data: bytes) -> None:
        if len(data) > STRUCTURE_LIMIT:
            raise malformed(f"A structure of the TPM has more than {STRUCTURE_LIMIT} bytes.")
        self._data = data

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def sized(self) -> bytes:
        """A TPM2B: two bytes of size, then the value."""
        return self.take(self.number(2))

    def take(self, size: int) -> bytes:
        if size > len(self._data):
            raise malformed("A structure of the TPM ends too early.")
        value, self._data = self._data[:size], self._data[size:]
        return value

    def algorithm(self) -> Algorithm:
        number = self.number(2)
        try:
            return Algorithm(number)
        except ValueError as error:
            raise malformed(f"The TPM's algorithm {number:#06x} is none of a key for signatures.") from error

    def hash(self) -> Algorithm:
        algorithm = self.algorithm()
        if algorithm not in HASHES:
            raise malformed(f"{algorithm.name} is not used as a hash.")
        return algorithm

    def attributes(self) -> Attribute:
        number = self.number(4)
        try:
            return Attribute(number)
        except ValueError as error:
            raise malformed(f"The attributes {number:#010x} have reserved bits.") from error

    def name(self) -> bytes:
        """TPM2B_NAME (10.5.3) of an object: the algorithm of a hash, and the hash."""
        reader = _Reader(name := self.sized())
        reader.take(hashlib.new(HASHES[reader.hash()]).digest_size)
        reader.end()
        return name

    def none(self, what: str) -> None:
        """An algorithm that such a key must not have."""
        if self.algorithm() is not Algorithm.NULL:
            raise malformed(f"A key for signatures has no {what}.")

    def end(self) -> None:
        if self._data:
            raise malformed("A structure of the TPM is followed by more bytes.")


def read_public_area(data: bytes) -> PublicArea:
    """Read a TPMT_PUBLIC.

    Raises:
        EvidenceRefused: It is none of a key for signatures.
    """
    reader = _Reader(data)
    kind = reader.algorithm()
    if kind not in _SCHEMES:
        raise malformed(f"{kind.name} is no kind of key.")
    name_hash = reader.hash()
    attributes = reader.attributes()
    reader.sized()  # authPolicy
    reader.none("symmetric cipher")
    scheme = _read_scheme(reader, kind)
    key = _read_rsa_key(reader) if kind is Algorithm.RSA else _read_elliptic_curve_key(reader)
    reader.end()
    name = name_hash.to_bytes(2, "big") + hashlib.new(HASHES[name_hash], data).digest()
    return PublicArea(name, attributes, scheme, key)


def read_certification(data: bytes) -> Certification:
    """Read a TPMS_ATTEST of TPM2_Certify.

    Raises:
        EvidenceRefused: It is none.
    """
    reader = _Reader(data)
    magic = reader.number(4)
    if reader.number(2) != ATTEST_CERTIFY:
        raise malformed("The TPM says something else than TPM2_Certify does.")
    reader.name()  # qualifiedSigner
    extra_data = reader.sized()
    reader.take(8 + 4 + 4)  # TPMS_CLOCK_INFO (10.11.1): clock, resetCount, restartCount
    if reader.number(1) not in (0, 1):
        raise malformed("TPMI_YES_NO is neither.")
    reader.take(8)  # firmwareVersion
    name = reader.name()
    reader.name()  # qualifiedName
    reader.end()
    return Certification(magic, extra_data, name)


def read_signature(data: bytes) -> Signature:
    """Read a TPMT_SIGNATURE of an RSA key.

    Raises:
        EvidenceRefused: It is none.
    """
    reader = _Reader(data)
    algorithm = reader.algorithm()
    if algorithm not in _SCHEMES[Algorithm.RSA]:
        raise malformed(f"{algorithm.name} is no signature of an RSA key.")
    signature = Signature(Scheme(algorithm, reader.hash()), reader.sized())
    reader.end()
    return signature


def _read_scheme(reader: _Reader, kind: Algorithm) -> Scheme | None:
    algorithm = reader.algorithm()
    if algorithm is Algorithm.NULL:
        return None
    if algorithm not in _SCHEMES[kind]:
        raise malformed(f"{algorithm.name} is no signature of an {kind.name} key.")
    return Scheme(algorithm, reader.hash())


def _read_rsa_key(reader: _Reader) -> rsa.RSAPublicKey:
    """TPMS_RSA_PARMS (12.2.3.5) from keyBits on, then TPM2B_PUBLIC_KEY_RSA (11.2.4.5)."""
    bits, exponent = reader.number(2), reader.number(4) or _DEFAULT_EXPONENT
    modulus = int.from_bytes(reader.sized(), "big")
    if modulus.bit_length() != bits:
        raise malformed("The modulus has not the length that it is said to have.")
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise malformed("The modulus is none.") from error


def _read_elliptic_curve_key(reader: _Reader) -> ec.EllipticCurvePublicKey:
    """TPMS_ECC_PARMS (12.2.3.6) from curveID on, then TPMS_ECC_POINT (11.2.5.2)."""
    curve = _CURVES.get(reader.number(2))
    if curve is None:
        raise malformed("The curve is none of P-256, P-384 and P-521.")
    reader.none("key derivation")
    x, y = (int.from_bytes(reader.sized(), "big") for _ in range(2))
    try:
        return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise malformed("The point is not on the curve.") from error
