"""The Online Certificate Status Protocol (RFC 6960): one question about one certificate, and what its answer proves.

| check     | what must hold of an answer                                                                           |
|-----------|-------------------------------------------------------------------------------------------------------|
| form      | DER of at most 64 KiB, successful, with exactly one answer about the certificate that was asked for   |
| signer    | the issuer of the certificate itself, or one whom it certified for this (RFC 6960 4.2.2.2), valid now |
| signature | SHA-2, by a key that `enroll.chain` does not call weak                                                |
| nonce     | ours, where there is one (RFC 9654); many responders sign beforehand and cannot know it               |
| time      | thisUpdate is not in the future, nextUpdate not over; without a nextUpdate it is at most a day old    |

An answer whose time alone is wrong still proves a revocation that cannot be taken back. Signatures by RSASSA-PSS are
not understood. Whether a certified responder was itself revoked is not asked: RFC 6960 4.2.2.2.1 has the CA choose a
short life for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from enroll import der
from enroll.certificates import PARSE_ERRORS
from enroll.chain import STRONG_HASHES, check_strength
from enroll.errors import CertificateRefused, ProtocolViolation
from enroll.revocation.lists import CLOCK_SKEW, Revocation, Statement

REQUEST_TYPE = "application/ocsp-request"
RESPONSE_TYPE = "application/ocsp-response"
RESPONSE_LIMIT = 64 * 1024  # bytes
NONCE_OCTETS = 32  # RFC 9654 2.1
LONGEST_AGE = timedelta(days=1)  # of an answer without nextUpdate

_RSA_SIGNATURES = (
    SignatureAlgorithmOID.RSA_WITH_SHA256,
    SignatureAlgorithmOID.RSA_WITH_SHA384,
    SignatureAlgorithmOID.RSA_WITH_SHA512,
)


def question(certificate: x509.Certificate, issuer: x509.Certificate, nonce: bytes) -> bytes:
    """The DER of a request (RFC 6960 4.1).

    Args:
        certificate: Whose status is asked for.
        issuer: Its issuer.
        nonce: `NONCE_OCTETS` at random.
    """
    builder = ocsp.OCSPRequestBuilder()
    # It names the issuer and protects nothing. Responders that answer beforehand know no other (RFC 5019 2.1.1).
    builder = builder.add_certificate(certificate, issuer, hashes.SHA1())  # noqa: S303
    return builder.add_extension(x509.OCSPNonce(nonce), critical=False).build().public_bytes(serialization.Encoding.DER)


def statement(
    body: bytes, certificate: x509.Certificate, issuer: x509.Certificate, nonce: bytes, now: datetime
) -> Statement:
    """What an answer proves.

    Args:
        body: The response.
        certificate: Whose status was asked for.
        issuer: Its issuer.
        nonce: Of the request.
        now: The time of the decision.

    Raises:
        ProtocolViolation: It proves nothing.
    """
    if len(body) > RESPONSE_LIMIT or not der.is_one_value(body):
        raise _useless("is not DER of a sensible size")
    try:
        response = ocsp.load_der_ocsp_response(body)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise _useless(f"is an error: {response.response_status.name.lower()}")
        single = _about(response, certificate, issuer)
        _check_nonce(response, nonce)
        _check_signature(response, issuer, now)
        return _statement(single, now)
    except PARSE_ERRORS as error:
        raise _useless("cannot be read") from error


def _statement(single: ocsp.OCSPSingleResponse, now: datetime) -> Statement:
    begin, end = single.this_update_utc, single.next_update_utc
    until = begin + LONGEST_AGE if end is None else end
    fresh = begin - CLOCK_SKEW <= now <= until + CLOCK_SKEW
    revocation = None
    if single.certificate_status is ocsp.OCSPCertStatus.REVOKED and single.revocation_time_utc is not None:
        reason = single.revocation_reason
        revocation = Revocation(single.revocation_time_utc, str(reason.value) if reason else "")
    elif single.certificate_status is not ocsp.OCSPCertStatus.GOOD:
        raise _useless("says that the responder does not know the certificate")
    if not fresh and (revocation is None or not revocation.is_final):
        raise _useless(f"is of {begin:%Y-%m-%d %H:%M} UTC and counts until {until:%Y-%m-%d %H:%M}: not now")
    return Statement(begin, until, revocation)


def _about(
    response: ocsp.OCSPResponse, certificate: x509.Certificate, issuer: x509.Certificate
) -> ocsp.OCSPSingleResponse:
    """The one answer about the certificate (RFC 6960 4.1.1: CertID)."""
    found = [single for single in response.responses if _matches(single, certificate, issuer)]
    if len(found) != 1:
        raise _useless("is about another certificate")
    return found[0]


def _matches(single: ocsp.OCSPSingleResponse, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    if single.serial_number != certificate.serial_number:
        return False
    ours = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, single.hash_algorithm).build()
    return (single.issuer_name_hash, single.issuer_key_hash) == (ours.issuer_name_hash, ours.issuer_key_hash)


def _check_nonce(response: ocsp.OCSPResponse, nonce: bytes) -> None:
    for extension in response.extensions:
        if isinstance(extension.value, x509.OCSPNonce):
            if extension.value.nonce != nonce:
                raise _useless("is the answer to another question")
        elif extension.critical:
            raise _useless("has a critical extension that is not known here")


def _check_signature(response: ocsp.OCSPResponse, issuer: x509.Certificate, now: datetime) -> None:
    if not isinstance(response.signature_hash_algorithm, STRONG_HASHES):
        raise _useless("is not signed with SHA-256, SHA-384 or SHA-512")
    signer = next(_signers(response, issuer, now), None)
    if signer is None:
        raise _useless("names a signer whom the CA has not certified for this")
    try:
        check_strength(signer, is_anchor=signer == issuer)
        _verify(signer.public_key(), response, response.signature_hash_algorithm)
    except (CertificateRefused, InvalidSignature) as error:
        raise _useless("has a signature that does not hold") from error


def _signers(response: ocsp.OCSPResponse, issuer: x509.Certificate, now: datetime) -> Iterator[x509.Certificate]:
    """Whose certificate fits the responder's name: the issuer, or one whom it certified (RFC 6960 4.2.2.2)."""
    if _is_named(issuer, response):
        yield issuer
    for candidate in response.certificates:
        if _is_named(candidate, response) and _is_certified(candidate, issuer, now):
            yield candidate


def _is_named(candidate: x509.Certificate, response: ocsp.OCSPResponse) -> bool:
    if response.responder_name is not None:
        return candidate.subject == response.responder_name
    identifier = x509.SubjectKeyIdentifier.from_public_key(candidate.public_key())  # RFC 6960 4.2.1: SHA-1 of the key
    return identifier.digest == response.responder_key_hash


def _is_certified(candidate: x509.Certificate, issuer: x509.Certificate, now: datetime) -> bool:
    begin, end = candidate.not_valid_before_utc, candidate.not_valid_after_utc
    try:
        candidate.verify_directly_issued_by(issuer)
        usage = candidate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (*PARSE_ERRORS, InvalidSignature, x509.ExtensionNotFound):
        return False
    return ExtendedKeyUsageOID.OCSP_SIGNING in usage and begin - CLOCK_SKEW <= now <= end + CLOCK_SKEW


def _verify(key: CertificatePublicKeyTypes, response: ocsp.OCSPResponse, hash_algorithm: hashes.HashAlgorithm) -> None:
    signature, signed = response.signature, response.tbs_response_bytes
    if isinstance(key, rsa.RSAPublicKey) and response.signature_algorithm_oid in _RSA_SIGNATURES:
        key.verify(signature, signed, padding.PKCS1v15(), hash_algorithm)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, signed, ec.ECDSA(hash_algorithm))
    else:
        raise InvalidSignature


def _useless(what: str) -> ProtocolViolation:
    return ProtocolViolation(
        f"The answer of the OCSP responder {what}.",
        remedy="Check the address of the responder and this clock; otherwise ask the CA's operator.",
        code="revocation-answer-useless",
    )
