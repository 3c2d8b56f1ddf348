"""CMS SignedData (RFC 5652 5) as it passes from hand to hand: a statement that an identity signed, or certificates.

    sign(statement, signer)          one signer, the statement inside, no signed attributes
    open_signed(message)             what was signed, and by whom; the chain of the signer is for the caller to judge
    certificates_in(message)         those of a certs-only message (RFC 5652 5.1), or of any other: nothing is verified

Without signed attributes the signature is over the statement itself. Nobody can pass off signed attributes of another
message as a statement: they begin with the tag of a SET, and no statement does. `openssl cms -verify` reads it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509 import ObjectIdentifier

from enroll import der
from enroll.keystore.base import PrivateKey
from enroll.time_stamp_syntax import SIGNED_DATA, AlgorithmIdentifier, IssuerAndSerialNumber, decoded, whole
from enroll.trust import CERTIFICATE_LIMIT, CERTIFICATES_LIMIT

_DATA = ObjectIdentifier("1.2.840.113549.1.7.1")
_HASHES: dict[ObjectIdentifier, type[hashes.SHA256 | hashes.SHA384 | hashes.SHA512]] = {
    ObjectIdentifier("2.16.840.1.101.3.4.2.1"): hashes.SHA256,
    ObjectIdentifier("2.16.840.1.101.3.4.2.2"): hashes.SHA384,
    ObjectIdentifier("2.16.840.1.101.3.4.2.3"): hashes.SHA512,
}


@dataclass(frozen=True)
class Signed:
    """What was signed, the certificate whose key did it, and those that came along."""

    content: bytes
    signer: x509.Certificate
    others: tuple[x509.Certificate, ...]


@asn1.sequence
class _SignerInfo:
    """RFC 5652 5.3, without attributes."""

    version: int
    sid: IssuerAndSerialNumber
    digest_algorithm: AlgorithmIdentifier
    signature_algorithm: AlgorithmIdentifier
    signature: bytes


@asn1.sequence
class _EncapsulatedContentInfo:
    """RFC 5652 5.2."""

    e_content_type: ObjectIdentifier
    # EXPLICIT, and so the same bytes as a list of one element.
    e_content: Annotated[list[asn1.TLV] | None, asn1.Implicit(0)]


@asn1.sequence
class _SignedData:
    """RFC 5652 5.1."""

    version: int
    digest_algorithms: asn1.SetOf[asn1.TLV]
    encap_content_info: _EncapsulatedContentInfo
    # A SET OF; but some authorities do not sort it, and its order means nothing.
    certificates: Annotated[list[asn1.TLV] | None, asn1.Implicit(0)]
    crls: Annotated[list[asn1.TLV] | None, asn1.Implicit(1)]
    signer_infos: asn1.SetOf[asn1.TLV]


@asn1.sequence
class _ContentInfo:
    """RFC 5652 3, of SignedData."""

    content_type: ObjectIdentifier
    content: Annotated[_SignedData, asn1.Explicit(0)]


def sign(content: bytes, key: PrivateKey, chain: Sequence[x509.Certificate]) -> bytes:
    """A message with `content` in it, in DER.

    Args:
        content: What is signed.
        key: Of the first certificate.
        chain: The signer's certificate and its intermediates.

    Raises:
        KeyStoreError: The key's store refused to sign.
    """
    wide = isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > hashes.SHA256.digest_size * 8
    signer, *others = chain
    hash_algorithm = hashes.SHA384() if wide else hashes.SHA256()
    builder = pkcs7.PKCS7SignatureBuilder().set_data(content).add_signer(signer, key, hash_algorithm)
    for certificate in others:
        builder = builder.add_certificate(certificate)
    options = [pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.NoAttributes]
    return builder.sign(serialization.Encoding.DER, options)


def open_signed(message: bytes) -> Signed:
    """What one signer signed, as `sign` makes it.

    Raises:
        ValueError: It is not such a message, or the signature is wrong; or another of `PARSE_ERRORS`.
    """
    signed_data = _decoded(message)
    encapsulated = signed_data.encap_content_info
    if encapsulated.e_content_type != _DATA or not encapsulated.e_content or len(encapsulated.e_content) != 1:
        raise ValueError("nothing inside")
    content = decoded(bytes, whole(encapsulated.e_content[0]))
    infos = [decoded(_SignerInfo, whole(info)) for info in signed_data.signer_infos.as_list()]
    if len(infos) != 1:
        raise ValueError("not exactly one signer")
    certificates = _certificates(signed_data)
    named = [certificate for certificate in certificates if _is_named(certificate, infos[0].sid)]
    if len(named) != 1:
        raise ValueError("not exactly one certificate of the signer")
    _verify(named[0], infos[0], content)
    return Signed(content, named[0], tuple(other for other in certificates if other != named[0]))


def certificates_in(message: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates that a message carries; their order means nothing.

    Raises:
        ValueError: It is no SignedData in DER, or carries too many or too large ones; or another of `PARSE_ERRORS`.
    """
    return _certificates(_decoded(message))


def read_certificate(data: bytes) -> x509.Certificate:
    """One certificate in DER.

    Raises:
        ValueError: It is none, or too large; or another of `PARSE_ERRORS`.
    """
    if len(data) > CERTIFICATE_LIMIT:
        raise ValueError(f"a certificate of more than {CERTIFICATE_LIMIT} bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about serial numbers of old CAs; `enroll.trust` judges what is used
        return x509.load_der_x509_certificate(data)


def _decoded(message: bytes) -> _SignedData:
    if not der.is_one_value(message):
        raise ValueError("not one DER value")
    info = decoded(_ContentInfo, message)
    if info.content_type != SIGNED_DATA:
        raise ValueError("not signedData")
    return info.content


def _certificates(signed_data: _SignedData) -> tuple[x509.Certificate, ...]:
    values = signed_data.certificates or []
    if len(values) > CERTIFICATES_LIMIT:
        raise ValueError(f"more than {CERTIFICATES_LIMIT} certificates")
    return tuple(read_certificate(whole(value)) for value in values)


def _is_named(certificate: x509.Certificate, sid: IssuerAndSerialNumber) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in `read_certificate`
        serial_number = certificate.serial_number
    return serial_number == sid.serial_number and certificate.issuer.public_bytes() == whole(sid.issuer)


def _verify(certificate: x509.Certificate, info: _SignerInfo, content: bytes) -> None:
    """The key decides which algorithm is tried; what the message names beside the hash changes nothing."""
    hash_class = _HASHES.get(info.digest_algorithm.algorithm)
    if hash_class is None:
        raise ValueError("not signed with SHA-256, SHA-384 or SHA-512")
    key = certificate.public_key()
    try:
        match key:
            case rsa.RSAPublicKey():
                key.verify(info.signature, content, padding.PKCS1v15(), hash_class())
            case ec.EllipticCurvePublicKey():
                key.verify(info.signature, content, ec.ECDSA(hash_class()))
            case _:
                raise ValueError("signed with an unknown kind of key")
    except InvalidSignature as error:
        raise ValueError("the signature is wrong") from error
