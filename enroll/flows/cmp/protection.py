"""Protection of CMP messages by signatures: RFC 9810 5.1.3.3, with the algorithms of RFC 9481 3.

Every message is signed, ours by an identity of this scanner. An answer is believed when the certificate of its signer
leads to a pinned anchor and may speak for a CA: its keyUsage allows digitalSignature, and its extendedKeyUsage, where
there is one, names a CA, a registration authority or a key generation authority of CMP (RFC 9810 4.5). Without the last
rule another scanner of the same hospital could answer for the CA.

Shared secrets (PBM) are not offered: docs/adr/0028-cmp.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier, SignatureAlgorithmOID

from enroll import der
from enroll.certificates import PARSE_ERRORS, name_text
from enroll.errors import CertificateRefused, ProtocolViolation
from enroll.flows.cmp import syntax
from enroll.identity import IdentityName
from enroll.keystore.base import PrivateKey
from enroll.time_stamp_syntax import NULL, AlgorithmIdentifier, decoded, whole
from enroll.trust import CERTIFICATE_LIMIT, CERTIFICATES_LIMIT, verify_chain

_Hash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512

_ECDSA: dict[ObjectIdentifier, _Hash] = {
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: hashes.SHA256(),
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: hashes.SHA384(),
    SignatureAlgorithmOID.ECDSA_WITH_SHA512: hashes.SHA512(),
}
_RSA: dict[ObjectIdentifier, _Hash] = {
    SignatureAlgorithmOID.RSA_WITH_SHA256: hashes.SHA256(),
    SignatureAlgorithmOID.RSA_WITH_SHA384: hashes.SHA384(),
    SignatureAlgorithmOID.RSA_WITH_SHA512: hashes.SHA512(),
}
_MAY_ANSWER = {  # RFC 9810 4.5
    ObjectIdentifier("1.3.6.1.5.5.7.3.27"),  # id-kp-cmcCA
    ObjectIdentifier("1.3.6.1.5.5.7.3.28"),  # id-kp-cmcRA
    ObjectIdentifier("1.3.6.1.5.5.7.3.32"),  # id-kp-cmKGA
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
}
_WIDE_CURVE = 256  # bits; above, the hash is wider too


@dataclass(frozen=True)
class Signer:
    """What this side signs its messages with.

    Args:
        identity: Of this scanner.
        certificate: Of it.
        chain: Its intermediates.
        key: Of the certificate; stays in its store.
    """

    identity: IdentityName
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    key: PrivateKey = field(repr=False)


def algorithm_for(key: PrivateKey) -> AlgorithmIdentifier:
    """What a key signs with (RFC 9481 3.1 and 3.2)."""
    if isinstance(key, rsa.RSAPrivateKey):
        return AlgorithmIdentifier(algorithm=SignatureAlgorithmOID.RSA_WITH_SHA256, parameters=NULL)
    wide = key.curve.key_size > _WIDE_CURVE
    algorithm = SignatureAlgorithmOID.ECDSA_WITH_SHA384 if wide else SignatureAlgorithmOID.ECDSA_WITH_SHA256
    return AlgorithmIdentifier(algorithm=algorithm, parameters=None)


def sign(key: PrivateKey, data: bytes) -> bytes:
    """The signature over `data`, by `algorithm_for(key)`.

    Raises:
        KeyStoreError: The key's store refused to sign.
    """
    algorithm = algorithm_for(key).algorithm
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), _RSA[algorithm])
    return key.sign(data, ec.ECDSA(_ECDSA[algorithm]))


def protected_part(header: bytes, body: bytes) -> bytes:
    """What the signature of a message is over: ProtectedPart of RFC 9810 5.1.3."""
    return der.encode(der.SEQUENCE, header + body)


def certificates_of(values: Sequence[syntax.Undecoded] | None) -> tuple[x509.Certificate, ...]:
    """Certificates that came with a message, bounded in number and size.

    Raises:
        ProtocolViolation: Too many, too large, or not certificates.
    """
    encoded = [whole(value) for value in values or ()]
    if len(encoded) > CERTIFICATES_LIMIT or any(len(each) > CERTIFICATE_LIMIT for each in encoded):
        raise violation(f"more than {CERTIFICATES_LIMIT} certificates, or one of more than {CERTIFICATE_LIMIT} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # about what RFC 5280 forbids, and old CAs did
            return tuple(x509.load_der_x509_certificate(each) for each in encoded)
    except (*PARSE_ERRORS, Warning) as error:
        raise violation("something else where a certificate should be") from error


def verify(  # noqa: PLR0913 - a signature, and what it has to lead to
    signed: bytes,
    *,
    algorithm: Sequence[syntax.Undecoded] | None,
    signature: bytes,
    certificates: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    now: datetime,
) -> None:
    """Believe an answer, or not.

    Args:
        signed: What the signature is over.
        algorithm: protectionAlg of the header.
        signature: The protection.
        certificates: That came with it, its signer's first (RFC 9483 3.3). Where none came, an anchor may have signed.
        anchors: The pinned CA certificates.
        now: The time of the decision.

    Raises:
        ProtocolViolation: The answer is not to be believed.
    """
    oid = _algorithm(algorithm)
    signer = next((one for one in certificates or anchors if _has_signed(one, signed, oid, signature)), None)
    if signer is None:
        raise violation("an answer whose signature was not made by any certificate that came with it")
    try:
        verify_chain(signer, certificates, anchors, now)
        refusal = _usage_refusal(signer)
    except CertificateRefused as error:
        raise violation(f"an answer whose signer is not trusted: {error.what.rstrip('.')}", error.remedy) from error
    except PARSE_ERRORS as error:
        raise violation("an answer whose signer has a certificate that cannot be read") from error
    if refusal:
        raise violation(
            f"an answer signed by {name_text(signer.subject)!r}, which may not speak for a CA: {refusal}",
            "The certificate of the CMP server needs digitalSignature, and cmcCA or cmcRA where it has an "
            "extendedKeyUsage.",
        )


def _algorithm(algorithm: Sequence[syntax.Undecoded] | None) -> ObjectIdentifier:
    if not algorithm or len(algorithm) != 1:
        raise violation("an answer without protection")
    try:
        return decoded(AlgorithmIdentifier, whole(algorithm[0])).algorithm
    except ValueError as error:
        raise violation(
            "an answer protected by an algorithm that is not used here",
            "Have the server sign with ECDSA or RSASSA-PKCS1-v1_5 and SHA-2; shared secrets are not used.",
        ) from error


def _has_signed(certificate: x509.Certificate, data: bytes, algorithm: ObjectIdentifier, signature: bytes) -> bool:
    try:
        key = certificate.public_key()
        if isinstance(key, rsa.RSAPublicKey) and algorithm in _RSA:
            key.verify(signature, data, padding.PKCS1v15(), _RSA[algorithm])
            return True
        if isinstance(key, ec.EllipticCurvePublicKey) and algorithm in _ECDSA:
            key.verify(signature, data, ec.ECDSA(_ECDSA[algorithm]))
            return True
    except (InvalidSignature, *PARSE_ERRORS):
        return False
    return False


def _usage_refusal(certificate: x509.Certificate) -> str:
    """Why a certificate may not sign answers; empty where it may."""
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.KeyUsage) and not extension.value.digital_signature:
            return "keyUsage does not allow digital signatures"  # RFC 9483 3.2
        if isinstance(extension.value, x509.ExtendedKeyUsage) and not _MAY_ANSWER & set(extension.value):
            return "extendedKeyUsage is for something else"
    return ""


def violation(what: str, remedy: str = "") -> ProtocolViolation:
    """The answer breaks the protocol."""
    return ProtocolViolation(
        f"The CA sent {what}.", remedy=remedy or "Check that the address and the anchor are those of the CMP server."
    )
