"""Judging the time stamp of a signature: a time stamp token of RFC 3161, from Certified Timestamp (0400,0310).

| what must hold                                                                       | code, after time-stamp- |
|--------------------------------------------------------------------------------------|-------------------------|
| at most 64 KiB                                                                       | too-large               |
| it is all there                                                                      | truncated               |
| nothing follows it                                                                   | trailing-bytes          |
| DER of the prescribed shape, with the attributes that RFC 3161 2.4.2 demands         | malformed               |
| CMS signed data about a TSTInfo (id-ct-TSTInfo)                                      | wrong-content           |
| exactly one signer                                                                   | signers                 |
| the signer's certificate is there, at most ten others with it                        | certificate-missing     |
| ESSCertID or ESSCertIDv2, which the signature covers, names that certificate         | certificate-unbound     |
| SHA-2; RSA or ECDSA; no weak key in the path to the anchor                           | weak                    |
| content and signature are those that the authority made                              | changed                 |
| it is about this signature value                                                     | wrong-imprint           |
| it answers the query, where there is one                                             | wrong-nonce             |
| the certificate is for time stamping alone, critically (RFC 3161 2.3)                | wrong-usage             |
| the time has come, a slow clock of ours forgiven                                     | in-future               |
| the certificate was valid at that time                                               | certificate-expired     |
| it led to an anchor at that time                                                     | untrusted               |

Certificates are judged at the time of the token, not now: a token goes on proving its time when the authority's
certificate has expired. The field `tsa` is only a hint (RFC 3161 2.4.2) and not looked at. Revocation is not either:
`agent.dicom.signer_chain` has the lists.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ObjectIdentifier
from cryptography.x509.oid import ExtendedKeyUsageOID, PublicKeyAlgorithmOID, SignatureAlgorithmOID

from agent.dicom.algorithms import MAC_ALGORITHMS, MacAlgorithm, can_check, verifies
from enroll import der
from enroll import time_stamp_syntax as syntax
from enroll.certificates import PARSE_ERRORS
from enroll.errors import CertificateRefused, TimeStampError
from enroll.trust import CERTIFICATES_LIMIT, CLOCK_SKEW, verify_chain

TOKEN_LIMIT = 64 * 1024  # bytes
WORST_ACCURACY = timedelta(days=1)

_SHA_256, _SHA_384, _SHA_512 = (MAC_ALGORITHMS[name] for name in ("SHA256", "SHA384", "SHA512"))
_HASHES: dict[ObjectIdentifier, MacAlgorithm] = {
    syntax.SHA_256: _SHA_256,
    ObjectIdentifier("2.16.840.1.101.3.4.2.2"): _SHA_384,
    ObjectIdentifier("2.16.840.1.101.3.4.2.3"): _SHA_512,
}
# The kind of key, and the hash where the algorithm names one itself (RFC 5754 3).
_SIGNATURES: dict[ObjectIdentifier, tuple[type, MacAlgorithm | None]] = {
    PublicKeyAlgorithmOID.RSAES_PKCS1_v1_5: (rsa.RSAPublicKey, None),
    SignatureAlgorithmOID.RSA_WITH_SHA256: (rsa.RSAPublicKey, _SHA_256),
    SignatureAlgorithmOID.RSA_WITH_SHA384: (rsa.RSAPublicKey, _SHA_384),
    SignatureAlgorithmOID.RSA_WITH_SHA512: (rsa.RSAPublicKey, _SHA_512),
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: (ec.EllipticCurvePublicKey, _SHA_256),
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: (ec.EllipticCurvePublicKey, _SHA_384),
    SignatureAlgorithmOID.ECDSA_WITH_SHA512: (ec.EllipticCurvePublicKey, _SHA_512),
}
_Attributes = Mapping[ObjectIdentifier, bytes]
Shape = TypeVar("Shape")


@dataclass(frozen=True)
class TimeStamp:
    """What a token proves: the signature existed at this time.

    Args:
        time: When the authority saw the signature, UTC.
        accuracy: How far `time` may be off, where the authority says so.
        policy: The policy that the authority followed, a dotted object identifier.
        path: The authority's certificate first, the anchor last.
    """

    time: datetime
    accuracy: timedelta | None
    policy: str
    path: tuple[x509.Certificate, ...] = field(repr=False)

    @property
    def authority(self) -> x509.Certificate:
        """The certificate of the time stamp authority."""
        return self.path[0]

    @property
    def latest(self) -> datetime:
        """The time by which the signature existed for certain."""
        return self.time + (self.accuracy or timedelta())


def verify_time_stamp(  # noqa: PLR0913, PLR0917 - the token, and all that it is judged by
    token: bytes,
    signature: bytes,
    anchors: Sequence[x509.Certificate],
    now: datetime,
    intermediates: Sequence[x509.Certificate] = (),
    nonce: int | None = None,
) -> TimeStamp:
    """Judge the time stamp of a signature.

    Args:
        token: The TimeStampToken, as it stands in Certified Timestamp (0400,0310).
        signature: The value of Signature (0400,0120), without padding.
        anchors: The CA certificates that are trusted for time stamps.
        now: The time of the judgement, aware.
        intermediates: CA certificates that may stand between; not trusted by themselves.
        nonce: Of the query that the token answers, where there is one.

    Raises:
        TimeStampError: It proves nothing; `code` says why.
    """
    signed = _signed_data(token)
    signer = _only_signer(signed)
    info = _content(signed)
    found = tuple(_certificates(signed))
    attributes = _attributes(signer)
    certificate = _certificate(signer, attributes, (*found, *intermediates))
    _check_signature(signed, signer, attributes, certificate)
    _check_imprint(info.message_imprint, signature)
    if nonce is not None and info.nonce != nonce:
        raise _refused("wrong-nonce", "The time stamp answers another query.")
    _check_usage(certificate)
    time = info.gen_time.as_datetime()
    _check_time(time, certificate, now)
    try:
        path = verify_chain(certificate, (*found, *intermediates), anchors, time)
    except CertificateRefused as error:
        code = "weak" if error.code == "certificate-weak" else "untrusted"
        raise _refused(code, f"The time stamp authority is not trusted: {error.what}") from error
    return TimeStamp(time, _accuracy(info.accuracy), info.policy.dotted_string, path)


def _signed_data(token: bytes) -> syntax.SignedData:
    if len(token) > TOKEN_LIMIT:
        raise _refused("too-large", f"The time stamp has more than {TOKEN_LIMIT} bytes.")
    length = der.announced_length(token)
    if length is None or length > len(token):
        raise _refused("truncated", "The time stamp is cut off.")
    padding = b"\0" * (length % 2)  # PS3.5 6.2, OB
    if token[length:] not in (b"", padding):
        raise _refused("trailing-bytes", "Something follows the time stamp.")
    token = token[:length]
    if not der.is_one_value(token):
        raise _malformed("it is not DER")
    content_info = _read(syntax.ContentInfo, token)
    if content_info.content_type != syntax.SIGNED_DATA:
        raise _refused("wrong-content", "The time stamp is not signed data.")
    return content_info.content


def _only_signer(signed: syntax.SignedData) -> syntax.SignerInfo:
    signers = signed.signer_infos.as_list()
    if len(signers) != 1:
        raise _refused("signers", f"The time stamp has {len(signers)} signers instead of one.")
    return signers[0]


def _content(signed: syntax.SignedData) -> syntax.TstInfo:
    content = signed.encap_content_info
    if content.e_content_type != syntax.TST_INFO:
        raise _refused("wrong-content", "The signed data are not about a time.")
    if not der.is_one_value(content.e_content):
        raise _malformed("its content is not DER")
    info = _read(syntax.TstInfo, content.e_content)
    if info.version != 1:
        raise _malformed("its version is not 1")
    if any(extension.critical for extension in info.extensions or ()):
        raise _malformed("it has a critical extension, and none is known")
    return info


def _certificates(signed: syntax.SignedData) -> Iterator[x509.Certificate]:
    """The certificates in the token, those left out that cannot be read: they can help nobody."""
    stored = signed.certificates or ()
    if len(stored) > CERTIFICATES_LIMIT:
        raise _refused("certificate-missing", f"More than {CERTIFICATES_LIMIT} certificates are with the time stamp.")
    for value in stored:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # what cryptography only warns about, it will refuse one day
                certificate = x509.load_der_x509_certificate(syntax.whole(value))
                _ = certificate.subject, certificate.issuer  # read when they are asked for, and not before
        except (*PARSE_ERRORS, Warning):
            continue
        yield certificate


def _attributes(signer: syntax.SignerInfo) -> _Attributes:
    """The signed attributes, each of them there once and with one value (RFC 5652 11, RFC 5035 5)."""
    if signer.signed_attrs.tag_bytes != syntax.SIGNED_ATTRIBUTES_TAG:
        raise _malformed("it has no signed attributes")
    attributes = _read(syntax.SignedAttributes, der.encode(der.SEQUENCE, _to_be_signed(signer))).attributes.as_list()
    values = {attribute.attr_type: attribute.attr_values.as_list() for attribute in attributes}
    if len(values) != len(attributes) or any(len(stored) != 1 for stored in values.values()):
        raise _malformed("a signed attribute is not there exactly once")
    return {kind: syntax.whole(stored[0]) for kind, stored in values.items()}


def _to_be_signed(signer: syntax.SignerInfo) -> bytes:
    """The signed attributes as a SET OF, not under the tag that they are stored with (RFC 5652 5.4)."""
    return der.encode(syntax.SET_TAG, bytes(signer.signed_attrs.data))


def _certificate(
    signer: syntax.SignerInfo, attributes: _Attributes, available: Sequence[x509.Certificate]
) -> x509.Certificate:
    """The certificate that the signer names, provided that the signed attributes name it too."""
    named = [certificate for certificate in available if _is_named(signer.sid, certificate)]
    if not named:
        raise _refused("certificate-missing", "The certificate of the time stamp authority is not with the time stamp.")
    for certificate in named:
        bonds = list(_bonds(attributes, certificate.public_bytes(serialization.Encoding.DER)))
        if bonds and all(bonds):
            return certificate
    raise _refused("certificate-unbound", "The signed attributes do not name the authority's certificate.")


def _is_named(sid: syntax.IssuerAndSerialNumber | bytes, certificate: x509.Certificate) -> bool:
    try:
        if isinstance(sid, bytes):
            identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            return identifier.digest == sid
        issuer = certificate.issuer.public_bytes()
    except (*PARSE_ERRORS, x509.ExtensionNotFound):
        return False
    return certificate.serial_number == sid.serial_number and issuer == syntax.whole(sid.issuer)


def _bonds(attributes: _Attributes, certificate: bytes) -> Iterator[bool]:
    """Whether each of the two attributes that bind the certificate, where it is there, is about this one.

    SHA-1 is as RFC 2634 has it. To deceive it, somebody would have to find a second certificate for a given hash, which
    nobody can.
    """
    if stored := attributes.get(syntax.SIGNING_CERTIFICATE):
        first = _first(_read(syntax.SigningCertificate, stored).certs)
        yield first.cert_hash == hashlib.sha1(certificate, usedforsecurity=False).digest()
    if stored := attributes.get(syntax.SIGNING_CERTIFICATE_V2):
        first_v2 = _first(_read(syntax.SigningCertificateV2, stored).certs)
        algorithm = _hash(first_v2.hash_algorithm) if first_v2.hash_algorithm else _SHA_256
        yield first_v2.cert_hash == _digest(algorithm, certificate)


def _check_signature(
    signed: syntax.SignedData, signer: syntax.SignerInfo, attributes: _Attributes, certificate: x509.Certificate
) -> None:
    """RFC 5652 5.4 and 5.6."""
    algorithm = _hash(signer.digest_algorithm)
    content = signed.encap_content_info
    digest = der.encode(der.OCTET_STRING, _digest(algorithm, content.e_content))
    if attributes.get(syntax.CONTENT_TYPE) != der.object_identifier(content.e_content_type.dotted_string):
        raise _malformed("no signed attribute says what is signed")
    if syntax.MESSAGE_DIGEST not in attributes:
        raise _malformed("no signed attribute holds the message digest")
    if attributes[syntax.MESSAGE_DIGEST] != digest:
        raise _refused("changed", "The content of the time stamp was changed after it was made.")
    try:
        key = certificate.public_key()
    except PARSE_ERRORS as error:
        raise _refused("weak", "The key of the time stamp authority is of an unknown kind.") from error
    kind, named = _SIGNATURES.get(_signature_algorithm(signer), (None, None))
    if kind is None or not isinstance(key, kind) or not can_check(key) or named not in (None, algorithm):
        raise _refused("weak", "The time stamp is signed with an algorithm that is not accepted.")
    if not verifies(key, algorithm, _digest(algorithm, _to_be_signed(signer)), signer.signature):
        raise _refused("changed", "The signature of the time stamp authority does not verify.")


def _signature_algorithm(signer: syntax.SignerInfo) -> ObjectIdentifier:
    return _read(syntax.AlgorithmIdentifier, syntax.whole(signer.signature_algorithm)).algorithm


def _check_imprint(imprint: syntax.MessageImprint, signature: bytes) -> None:
    if imprint.hashed_message != _digest(_hash(imprint.hash_algorithm), signature):
        raise _refused("wrong-imprint", "The time stamp is that of something else than this signature.")


def _check_usage(certificate: x509.Certificate) -> None:
    """RFC 3161 2.3; keyUsage, where it is there, as `openssl ts -verify` has it."""
    try:
        extensions = certificate.extensions
        extended = extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound as error:
        raise _refused("wrong-usage", "The certificate is not one of a time stamp authority.") from error
    except PARSE_ERRORS as error:
        raise _malformed("its certificate cannot be read") from error
    if list(extended.value) != [ExtendedKeyUsageOID.TIME_STAMPING] or not extended.critical:
        raise _refused("wrong-usage", "The certificate is not for time stamps alone.")
    for usage in extensions:
        if isinstance(usage.value, x509.KeyUsage) and not (
            usage.value.digital_signature or usage.value.content_commitment
        ):
            raise _refused("wrong-usage", "keyUsage of the time stamp authority does not allow signatures.")


def _check_time(time: datetime, certificate: x509.Certificate, now: datetime) -> None:
    if time > now + CLOCK_SKEW:
        raise _refused("in-future", f"The time of the time stamp, {time:%Y-%m-%d %H:%M} UTC, lies in the future.")
    if not certificate.not_valid_before_utc <= time <= certificate.not_valid_after_utc:
        raise _refused(
            "certificate-expired", f"The authority's certificate was not valid at its time, {time:%Y-%m-%d %H:%M} UTC."
        )


def _accuracy(stated: syntax.Accuracy | None) -> timedelta | None:
    if stated is None:
        return None
    seconds, millis, micros = stated.seconds or 0, stated.millis or 0, stated.micros or 0
    if not 0 <= seconds <= WORST_ACCURACY.total_seconds() or not 0 <= millis < 1000 or not 0 <= micros < 1000:
        raise _malformed("its accuracy is none")
    return timedelta(seconds=seconds, milliseconds=millis, microseconds=micros)


def _hash(stated: syntax.AlgorithmIdentifier) -> MacAlgorithm:
    algorithm = _HASHES.get(stated.algorithm)
    if algorithm is None:
        raise _refused("weak", f"The time stamp uses the hash {stated.algorithm.dotted_string}, not SHA-2.")
    return algorithm


def _digest(algorithm: MacAlgorithm, data: bytes) -> bytes:
    return hashlib.new(algorithm.hash_name, data).digest()


def _first(identifiers: Sequence[Shape]) -> Shape:
    """The identifier that is about the signer; what follows is about the path (RFC 5035 3)."""
    if not identifiers:
        raise _malformed("a signed attribute names no certificate")
    return identifiers[0]


def _read(shape: type[Shape], data: bytes) -> Shape:
    try:
        return syntax.decoded(shape, data)
    except ValueError as error:
        raise _malformed("it is not of the prescribed shape") from error


def _malformed(why: str) -> TimeStampError:
    return _refused("malformed", f"The time stamp is not one of RFC 3161: {why}.")


def _refused(why: str, what: str) -> TimeStampError:
    return TimeStampError(
        what,
        remedy="It proves no time. Check the CA certificate of the authority, and this clock; or have it made again.",
        code=f"time-stamp-{why}",
    )
