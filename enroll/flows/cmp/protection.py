"""Protection of CMP messages by signatures: RFC 9810 5.1.3.3, with the algorithms of RFC 9481 3.

Every message is signed, ours by an identity of this scanner. An answer is believed when the certificate of its signer
leads to a pinned anchor and may speak for a CA: its keyUsage allows digitalSignature, and it is that of a CA, or its
extendedKeyUsage names a CA or registration authority (RFC 9810 4.5), or the configuration names it. Otherwise whoever
has a certificate of the hospital could answer for the CA.

Shared secrets (PBM) are not offered: docs/adr/0028-cmp.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

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
}
_MAY_LET_ANSWER = _MAY_ANSWER | {ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
_WIDE_CURVE = 256  # bits; above, the hash is wider too
Kind = TypeVar("Kind", bound=x509.ExtensionType)


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


@dataclass(frozen=True)
class Authority:
    """Who may answer.

    Args:
        anchors: The pinned CA certificates.
        known: CA certificates and signers that came before, and may be left out now (RFC 9483 3.3).
        answered_by: The subject of who may answer because the configuration says so; see `[cmp]`.
    """

    anchors: Sequence[x509.Certificate]
    known: Sequence[x509.Certificate] = ()
    answered_by: str = ""


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
    authority: Authority,
    now: datetime,
) -> None:
    """Believe an answer, or not.

    Args:
        signed: What the signature is over.
        algorithm: protectionAlg of the header.
        signature: The protection.
        certificates: That came with it.
        authority: Who may have signed.
        now: The time of the decision.

    Raises:
        ProtocolViolation: The answer is not to be believed.
    """
    oid = _algorithm(algorithm)
    candidates = tuple(dict.fromkeys((*certificates, *authority.known, *authority.anchors)))
    signers = [one for one in candidates if _has_signed(one, signed, oid, signature)]
    # A server may have an old and a new certificate for one key.
    refusals = [_refusal(signer, candidates, authority, now) for signer in signers]
    if not refusals:
        raise violation("an answer whose signature was not made by any certificate that came with it")
    if all(refusals):
        raise next(filter(None, refusals))


def _refusal(
    signer: x509.Certificate, candidates: Sequence[x509.Certificate], authority: Authority, now: datetime
) -> ProtocolViolation | None:
    """Why a signer is not believed; None where it is."""
    try:
        chain = verify_chain(signer, candidates, authority.anchors, now)
        refusal = _usage_refusal(chain, authority.answered_by)
    except CertificateRefused as error:
        return violation(f"an answer whose signer is not trusted: {error.what.rstrip('.')}", error.remedy)
    except PARSE_ERRORS:
        return violation("an answer whose signer has a certificate that cannot be read")
    if not refusal:
        return None
    subject = name_text(signer.subject)
    return violation(
        f"an answer signed by {subject!r}, which may not speak for a CA: {refusal}",
        "The certificate of the CMP server needs digitalSignature in keyUsage, and cmcRA or cmcCA in extendedKeyUsage. "
        f"If this is the CMP server and cannot have them, set [cmp] answered_by = {subject!r}.",
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


def _usage_refusal(chain: Sequence[x509.Certificate], answered_by: str) -> str:
    """Why a certificate may not sign answers, by itself and by the CAs above it; empty where it may."""
    signer = chain[0]
    usage = _extension(signer, x509.KeyUsage)
    if usage is None or not usage.digital_signature:  # RFC 9483 3.2
        return "keyUsage does not allow digital signatures"
    if name_text(signer.subject) == answered_by:
        return ""
    constraints, purposes = _extension(signer, x509.BasicConstraints), _extension(signer, x509.ExtendedKeyUsage)
    is_ca = constraints is not None and constraints.ca
    if not (is_ca if purposes is None else _MAY_ANSWER & set(purposes)):
        return "it is neither that of a CA nor does extendedKeyUsage say that it answers for one"
    for link in chain[1:-1]:
        granted = _extension(link, x509.ExtendedKeyUsage)
        if granted is not None and not _MAY_LET_ANSWER & set(granted):
            return f"extendedKeyUsage of {name_text(link.subject)!r} above it is for something else"
    return ""


def _extension(certificate: x509.Certificate, kind: type[Kind]) -> Kind | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def violation(what: str, remedy: str = "") -> ProtocolViolation:
    """The answer breaks the protocol."""
    return ProtocolViolation(
        f"The CA sent {what}.", remedy=remedy or "Check that the address and the anchor are those of the CMP server."
    )
