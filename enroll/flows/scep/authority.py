"""What a SCEP server says of itself, unauthenticated: GetCACaps and GetCACert (RFC 8894 3.5 and 4.2).

GetCACert also brings certificates of a registration authority (RA). They are told from those of other scanners, which
lead to the same anchor: one is of a CA, or its extendedKeyUsage says that it may ask for others. Without this rule a
scanner could show its own certificate, read the challenge password, and answer for the CA.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ObjectIdentifier

from enroll.certificates import PARSE_ERRORS
from enroll.errors import CertificateRefused, ProtocolViolation
from enroll.foreign import printable
from enroll.http import Answer
from enroll.signed_data import certificates_in, read_certificate
from enroll.trust import verify_chain

CAPABILITIES_LIMIT = 4096  # bytes
RENEWAL = "renewal"

_ONE_CERTIFICATE = "application/x-x509-ca-cert"  # RFC 8894 4.2.1.1
_SEVERAL = "application/x-x509-ca-ra-cert"  # RFC 8894 4.2.1.2
# AES is used whether or not it is announced: NDES announces DES3 alone, and its system can do both.
_NEEDED = {"postpkioperation": "POSTPKIOperation", "sha-256": "SHA-256"}
_STANDARD = "scepstandard"  # RFC 8894 3.5.2: means both
_MAY_SPEAK = {
    ObjectIdentifier("1.3.6.1.4.1.311.20.2.1"),  # certificate request agent: what NDES has
    ObjectIdentifier("1.3.6.1.5.5.7.3.27"),  # id-kp-cmcCA, RFC 6402 2.10
    ObjectIdentifier("1.3.6.1.5.5.7.3.28"),  # id-kp-cmcRA
}


@dataclass(frozen=True)
class Authority:
    """The certificates of a SCEP server.

    Args:
        certificates: All that it shows.
        speakers: Those that may sign answers: of the CA, or of its RA.
        recipient: That requests are encrypted to.
        issuer: The name of the CA.
    """

    certificates: tuple[x509.Certificate, ...]
    speakers: tuple[x509.Certificate, ...]
    recipient: x509.Certificate
    issuer: x509.Name


def read_capabilities(answer: Answer) -> frozenset[str]:
    """What the server can do, in lower case.

    Raises:
        ProtocolViolation: Not what is needed. MD5, DES and triple DES are never used instead.
    """
    text = answer.body[:CAPABILITIES_LIMIT].decode("ascii", "replace")
    capabilities = frozenset(line.strip().lower() for line in text.splitlines())
    missing = [name for key, name in _NEEDED.items() if not capabilities & {key, _STANDARD}]
    if missing:
        raise ProtocolViolation(
            f"The SCEP server does not offer {', '.join(missing)}, and weaker ways are not used. "
            f"It offers: {printable(', '.join(text.split()))}.",
            remedy="Update the SCEP server, or have it offer these. Otherwise: scanseal enroll offline",
            code="scep-capabilities",
        )
    return capabilities


def read_authority(answer: Answer, anchors: Sequence[x509.Certificate], now: datetime) -> Authority:
    """The certificates of GetCACert.

    Args:
        answer: Of the server; anybody may have sent it.
        anchors: The pinned CA certificates.
        now: The time of the decision.

    Raises:
        ProtocolViolation: Not what SCEP allows.
        CertificateRefused: None of them is of a CA or an RA that leads to an anchor, or has an RSA key.
    """
    certificates = _certificates(answer)
    speakers, reason = [], "it shows none of a CA or RA"
    for certificate in certificates:
        try:
            if _is_ca(certificate) or _is_agent(certificate):
                verify_chain(certificate, certificates, anchors, now)
                speakers.append(certificate)
        except CertificateRefused as error:
            reason = error.what.rstrip(".")
        except PARSE_ERRORS as error:
            raise violation("a certificate that cannot be read") from error
    readers = [each for each in speakers if isinstance(each.public_key(), rsa.RSAPublicKey)]
    if not readers:
        raise CertificateRefused(
            f"The SCEP server has no certificate that a request could be encrypted to: {reason}.",
            remedy="Compare [scep] anchor_file with the CA of the server. SCEP needs RSA keys at the CA or its RA.",
            code="scep-authority-untrusted",
        )
    authorities = _lowest_first([each for each in speakers if _is_ca(each)])
    issuer = authorities[0].subject if authorities else readers[0].issuer
    recipient = min(_lowest_first(readers), key=lambda each: (not _may_encipher(each), _is_ca(each)))
    return Authority(certificates, tuple(speakers), recipient, issuer)


def violation(what: str, remedy: str = "") -> ProtocolViolation:
    """The answer breaks the protocol."""
    return ProtocolViolation(
        f"The SCEP server sent {what}.", remedy=remedy or "Check that the address and the anchor are those of the CA."
    )


def _certificates(answer: Answer) -> tuple[x509.Certificate, ...]:
    try:
        if answer.content_type == _ONE_CERTIFICATE:
            return (read_certificate(answer.body),)
        if answer.content_type == _SEVERAL:
            return certificates_in(answer.body)
    except PARSE_ERRORS as error:
        raise violation("something else than its certificates") from error
    raise violation(f"{printable(answer.content_type)!r} in place of its certificates")


def _is_ca(certificate: x509.Certificate) -> bool:
    return any(isinstance(e.value, x509.BasicConstraints) and e.value.ca for e in certificate.extensions)


def _is_agent(certificate: x509.Certificate) -> bool:
    values = [e.value for e in certificate.extensions]
    return any(isinstance(value, x509.ExtendedKeyUsage) and _MAY_SPEAK & set(value) for value in values)


def _may_encipher(certificate: x509.Certificate) -> bool:
    """RFC 8894 2.2 wants keyEncipherment; some servers have one certificate, and that without it."""
    usages = [e.value for e in certificate.extensions if isinstance(e.value, x509.KeyUsage)]
    return not usages or usages[0].key_encipherment


def _lowest_first(certificates: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """Before the certificate of a CA those that it issued: a root that comes along issues nothing for scanners."""
    issuers = [each.issuer for each in certificates if each.issuer != each.subject]
    return sorted(certificates, key=lambda each: each.subject in issuers)
