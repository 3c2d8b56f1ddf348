"""Makes time stamp tokens of any kind, right or wrong, with an encoder of its own (RFC 3161, RFC 5652, RFC 5035)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from enroll.der import OCTET_STRING, SEQUENCE, encode, object_identifier
from tests.support.time_stamp_authority import POLICY, Tsa

SET = 0x31
INTEGER = 0x02
NULL = b"\x05\x00"

TST_INFO = "1.2.840.113549.1.9.16.1.4"
SIGNED_DATA = "1.2.840.113549.1.7.2"
DATA = "1.2.840.113549.1.7.1"
CONTENT_TYPE = "1.2.840.113549.1.9.3"
MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
SIGNING_CERTIFICATE = "1.2.840.113549.1.9.16.2.12"
SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.47"
RSA_ENCRYPTION = "1.2.840.113549.1.1.1"

DIGESTS = {
    "md5": "1.2.840.113549.2.5",
    "sha1": "1.3.14.3.2.26",
    "sha256": "2.16.840.1.101.3.4.2.1",
    "sha384": "2.16.840.1.101.3.4.2.2",
    "sha512": "2.16.840.1.101.3.4.2.3",
}
ECDSA = {"sha256": "1.2.840.10045.4.3.2", "sha384": "1.2.840.10045.4.3.3", "sha512": "1.2.840.10045.4.3.4"}
HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303 - a wrong token is made with it
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
Attributes = dict[str, list[bytes]]


def sequence(*values: bytes) -> bytes:
    return encode(SEQUENCE, b"".join(values))


def set_of(*values: bytes) -> bytes:
    return encode(SET, b"".join(sorted(values)))


def integer(number: int) -> bytes:
    return encode(INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))


def algorithm(dotted: str, parameters: bytes = b"") -> bytes:
    return sequence(object_identifier(dotted), parameters)


def unchanged(attributes: Attributes) -> Attributes:
    return attributes


@dataclass(frozen=True)
class Recipe:
    """How a token is made; the defaults make a right one.

    Args:
        imprint_hash: Of what is stamped.
        imprint: The digest, where it is not that of what is stamped.
        nonce: Of the query.
        extra: More fields of TSTInfo, encoded: accuracy, ordering, tsa or extensions, behind the nonce.
        accuracy: Encoded.
        version: Of TSTInfo.
        content_type: Of the signed content.
        digest: Hash of the content and the attributes.
        signature_algorithm: Encoded; by the key where empty.
        attributes: Changes the signed attributes, object identifier -> values.
        certificate_id: "sha1" for an ESSCertID, else the hash of an ESSCertIDv2.
        by_key_identifier: Whether the signer is named by the identifier of its key.
        certificates: In the token; the authority's and its chain where None.
        signers: How many.
        after_signing: Changes TSTInfo when it is signed already.
    """

    imprint_hash: str = "sha256"
    imprint: bytes | None = None
    nonce: int | None = None
    accuracy: bytes = b""
    extra: bytes = b""
    version: int = 1
    content_type: str = TST_INFO
    digest: str = "sha256"
    signature_algorithm: bytes = b""
    attributes: Callable[[Attributes], Attributes] = field(default=unchanged)
    certificate_id: str = "sha256"
    by_key_identifier: bool = False
    certificates: Sequence[x509.Certificate] | None = None
    signers: int = 1
    after_signing: Callable[[bytes], bytes] = field(default=lambda info: info)


def token(tsa: Tsa, stamped: bytes, at: datetime, recipe: Recipe | None = None) -> bytes:
    """A token of an authority over some bytes, made at a time."""
    recipe = recipe or Recipe()
    info = _info(stamped, at, recipe)
    certificates = (tsa.certificate, *tsa.chain) if recipe.certificates is None else recipe.certificates
    bag = b"".join(certificate.public_bytes(serialization.Encoding.DER) for certificate in certificates)
    signers = [_signer(tsa, info, recipe, salt) for salt in range(recipe.signers)]
    content = encode(OCTET_STRING, recipe.after_signing(info))
    signed_data = sequence(
        integer(3),
        set_of(algorithm(DIGESTS[recipe.digest])),
        sequence(object_identifier(recipe.content_type), encode(0xA0, content)),
        encode(0xA0, bag) if certificates else b"",
        set_of(*signers),
    )
    return sequence(object_identifier(SIGNED_DATA), encode(0xA0, signed_data))


def _info(stamped: bytes, at: datetime, recipe: Recipe) -> bytes:
    imprint = hashlib.new(recipe.imprint_hash, stamped).digest() if recipe.imprint is None else recipe.imprint
    utc = at.astimezone(UTC)
    fraction = f".{utc.microsecond:06}".rstrip("0") if utc.microsecond else ""
    return sequence(
        integer(recipe.version),
        object_identifier(POLICY),
        sequence(algorithm(DIGESTS[recipe.imprint_hash], NULL), encode(OCTET_STRING, imprint)),
        integer(42),
        encode(0x18, f"{utc:%Y%m%d%H%M%S}{fraction}Z".encode("ascii")),
        recipe.accuracy,
        b"" if recipe.nonce is None else integer(recipe.nonce),
        recipe.extra,
    )


def _signer(tsa: Tsa, info: bytes, recipe: Recipe, salt: int) -> bytes:
    certificate = tsa.certificate
    attributes: Attributes = {
        CONTENT_TYPE: [object_identifier(recipe.content_type)],
        MESSAGE_DIGEST: [encode(OCTET_STRING, hashlib.new(recipe.digest, info).digest())],
        **_certificate_id(certificate, recipe.certificate_id),
    }
    if salt:  # two signers must differ, or a SET OF would not hold both
        attributes["1.3.6.1.4.1.32473.7.9"] = [integer(salt)]
    changed = recipe.attributes(attributes)
    encoded = [sequence(object_identifier(kind), set_of(*values)) for kind, values in changed.items()]
    signed = set_of(*encoded)
    return sequence(
        integer(3 if recipe.by_key_identifier else 1),
        _signer_identifier(certificate, by_key=recipe.by_key_identifier),
        algorithm(DIGESTS[recipe.digest]),
        b"\xa0" + signed[1:] if encoded else b"",
        recipe.signature_algorithm or _signature_algorithm(tsa, recipe.digest),
        encode(OCTET_STRING, _signature(tsa, signed, HASHES[recipe.digest])),
    )


def _certificate_id(certificate: x509.Certificate, hash_name: str) -> Attributes:
    encoded = certificate.public_bytes(serialization.Encoding.DER)
    digest = encode(OCTET_STRING, hashlib.new(hash_name, encoded).digest())
    if hash_name == "sha1":
        return {SIGNING_CERTIFICATE: [sequence(sequence(sequence(digest)))]}
    named = b"" if hash_name == "sha256" else algorithm(DIGESTS[hash_name])
    return {SIGNING_CERTIFICATE_V2: [sequence(sequence(sequence(named, digest)))]}


def _signer_identifier(certificate: x509.Certificate, *, by_key: bool) -> bytes:
    if by_key:
        identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return encode(0x80, identifier.digest)
    return sequence(certificate.issuer.public_bytes(), integer(certificate.serial_number))


def _signature_algorithm(tsa: Tsa, digest: str) -> bytes:
    return algorithm(RSA_ENCRYPTION, NULL) if isinstance(tsa.key, rsa.RSAPrivateKey) else algorithm(ECDSA[digest])


def _signature(tsa: Tsa, data: bytes, hash_algorithm: hashes.HashAlgorithm) -> bytes:
    if isinstance(tsa.key, rsa.RSAPrivateKey):
        return tsa.key.sign(data, padding.PKCS1v15(), hash_algorithm)
    return tsa.key.sign(data, ec.ECDSA(hash_algorithm))
