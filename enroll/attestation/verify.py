"""Judging evidence: what an ACME server such as step-ca checks, and a little more. No TPM and none of its software.

| check       | tpm                                             | step                       | code              |
|-------------|-------------------------------------------------|----------------------------|-------------------|
| 1 form      | all is read to its last byte                    | the same                   | malformed         |
| 2 chain     | from the certificate to a given root, valid now | the same                   | untrusted         |
| 3 issuer    | an AK certificate: version 3, no subject,       | no CA; signs               | wrong-certificate |
|             | no CA, TPM details, purpose 2.23.133.8.3 first; |                            |                   |
|             | its key signs                                   |                            |                   |
| 4 device    | permanentIdentifier is the expected one         | so is the extension        | wrong-device      |
| 5 signature | RSASSA with SHA-256 by the AK, over certInfo as | by the key, over the       | wrong-signature   |
|             | only a TPM writes it                            | challenge                  |                   |
| 6 challenge | extraData is its SHA-256                        | see 5                      | wrong-challenge   |
| 7 key       | the name in certInfo is that of pubArea         | that of the certificate    | wrong-key         |
| 8 bound     | fixedTPM, fixedParent, sensitiveDataOrigin;     |                            | not-bound         |
|             | not restricted                                  |                            |                   |
| 9 strength  | RSA of 2048 bits and up, P-256, P-384, P-521    | RSA as there, P-256        | weak-key          |

Codes begin with "evidence-". Stricter than step-ca: the device must be named in the AK certificate; a keyUsage must
allow signatures; RSASSA-PSS, SHA-1 and bytes after a structure are refused. Revocation is not looked at, as there.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeGuard

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from enroll.attestation.evidence import CHAIN_LIMIT, Evidence, StepEvidence, TpmEvidence, malformed
from enroll.attestation.names import (
    AK_CERTIFICATE,
    TpmDetails,
    managed_device_of,
    parsed,
    permanent_identifiers,
    tpm_details,
)
from enroll.attestation.tpm_structures import (
    BOUND_TO_THE_TPM,
    GENERATED_VALUE,
    Algorithm,
    Attribute,
    Scheme,
    read_certification,
    read_public_area,
    read_signature,
)
from enroll.certificates import PARSE_ERRORS, public_key_info
from enroll.errors import CertificateRefused, EvidenceRefused
from enroll.foreign import printable
from enroll.keystore.base import PublicKey
from enroll.trust import CERTIFICATE_LIMIT, verify_chain

AK_SCHEME = Scheme(Algorithm.RSASSA, Algorithm.SHA256)

_RSA_BITS = 2048


@dataclass(frozen=True)
class Attested:
    """What evidence proves.

    Args:
        public_key: Of the key that it speaks of.
        identifier: The device.
        chain: The certificate of who says it, up to the root.
        tpm: The TPM that holds the key; None where the manufacturer of a token says it.
    """

    public_key: PublicKey
    identifier: str
    chain: tuple[x509.Certificate, ...]
    tpm: TpmDetails | None


def verify_evidence(
    evidence: Evidence, *, challenge: bytes, identifier: str, roots: Iterable[x509.Certificate], now: datetime
) -> Attested:
    """Decide what evidence proves.

    Args:
        evidence: From anywhere.
        challenge: What it must have been made for.
        identifier: The device that it must speak of: its serial number.
        roots: Who is believed when they say that a key is in a TPM or a token. Pin an attestation CA here and nothing
            else: whatever such a root issued is believed.
        now: The time of the decision.

    Raises:
        EvidenceRefused: One of the checks failed; `code` says which.
    """
    certificates = _certificates(evidence.x5c)
    if isinstance(evidence, StepEvidence):
        chain = _chain(certificates, roots, now)
        return Attested(_verify_step(evidence, certificates[0], challenge, identifier), identifier, chain, None)
    chain, details = verify_ak_certificate(certificates, identifier=identifier, roots=roots, now=now)
    return Attested(_verify_tpm(evidence, certificates[0], challenge), identifier, chain, details)


def verify_identity_evidence(
    evidence: Evidence,
    certificate: x509.Certificate,
    *,
    identifier: str,
    roots: Iterable[x509.Certificate],
    now: datetime,
) -> Attested:
    """Decide whether evidence proves where the key of a certificate lives; see `identity_challenge`.

    Raises:
        EvidenceRefused: One of the checks failed, or it speaks of another key (`evidence-wrong-key`).
    """
    challenge = identity_challenge(certificate)
    attested = verify_evidence(evidence, challenge=challenge, identifier=identifier, roots=roots, now=now)
    try:
        same = public_key_info(attested.public_key) == public_key_info(certificate.public_key())
    except PARSE_ERRORS:
        same = False
    if not same:
        raise _refused("wrong-key", "It speaks of another key than that of the certificate.")
    return attested


def verify_ak_certificate(
    certificates: Sequence[x509.Certificate], *, identifier: str, roots: Iterable[x509.Certificate], now: datetime
) -> tuple[tuple[x509.Certificate, ...], TpmDetails]:
    """Checks 2 to 4 for a TPM: what its attestation key says of a device can be believed.

    Args:
        certificates: The certificate of the attestation key first, then its intermediates.
        identifier: The device.
        roots: See `verify_evidence`.
        now: See `verify_evidence`.

    Returns:
        The path to the root, and which TPM it is.

    Raises:
        EvidenceRefused: One of the checks failed.
    """
    chain = _chain(certificates, roots, now)
    details = _check_ak_certificate(certificates[0])
    devices = permanent_identifiers(certificates[0])
    if identifier not in devices:
        raise _wrong_device(", ".join(devices), identifier)
    return chain, details


def identity_challenge(certificate: x509.Certificate) -> bytes:
    """What evidence for an identity is made for: its certificate, so that it serves no other one."""
    return certificate.public_bytes(serialization.Encoding.DER)


def qualifying_data(challenge: bytes) -> bytes:
    """What a TPM puts into its certification: the SHA-256 of the challenge, as ACME has it."""
    return hashlib.sha256(challenge).digest()


def _certificates(x5c: Sequence[bytes]) -> tuple[x509.Certificate, ...]:
    """Check 1 for certificates."""
    if len(x5c) > CHAIN_LIMIT or any(len(entry) > CERTIFICATE_LIMIT for entry in x5c):
        raise malformed("It has too many certificates, or one that is too large.")
    try:
        return tuple(parsed(entry) for entry in x5c)
    except ValueError as error:
        raise malformed("A certificate is none.") from error


def _chain(
    certificates: Sequence[x509.Certificate], roots: Iterable[x509.Certificate], now: datetime
) -> tuple[x509.Certificate, ...]:
    """Check 2."""
    if not certificates:
        raise malformed("It has no certificate.")
    try:
        return verify_chain(certificates[0], certificates[1:], roots, now)
    except CertificateRefused as error:
        raise EvidenceRefused(error.what, remedy=error.remedy, code="evidence-untrusted") from error


def _check_ak_certificate(certificate: x509.Certificate) -> TpmDetails:
    """Check 3 for a TPM (WebAuthn Level 2, 8.3.1)."""
    if certificate.version is not x509.Version.v3:
        raise _wrong_certificate("is not of version 3")
    if len(certificate.subject):
        raise _wrong_certificate("has a subject, and shall have none")
    _check_usage(certificate)
    try:
        purposes = list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound as error:
        raise _wrong_certificate("has no extended key usage") from error
    if purposes[:1] != [AK_CERTIFICATE]:
        raise _wrong_certificate(f"is not for attestation first ({AK_CERTIFICATE.dotted_string})")
    details = tpm_details(certificate)
    if details is None:
        raise _wrong_certificate("does not say manufacturer, model and version of one TPM")
    return details


def _check_usage(certificate: x509.Certificate) -> None:
    """Check 3 for both: RFC 5280 4.2.1.9 and 4.2.1.3, which may be absent."""
    for extension in certificate.extensions:
        match extension.value:
            case x509.BasicConstraints(ca=True):
                raise _wrong_certificate("is one of a CA")
            case x509.KeyUsage(digital_signature=False):
                raise _wrong_certificate("is not for signatures")


def _verify_tpm(evidence: TpmEvidence, certificate: x509.Certificate, challenge: bytes) -> PublicKey:
    """Checks 5 to 9 for a TPM."""
    certification = read_certification(evidence.cert_info)
    signature = read_signature(evidence.signature)
    attested = read_public_area(evidence.public_area)
    if signature.scheme != AK_SCHEME:
        raise _wrong_signature("is not RSASSA with SHA-256")
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey) or not _signed(key, signature.value, evidence.cert_info):
        raise _wrong_signature("was not made by the key of the AK certificate")
    if certification.magic != GENERATED_VALUE:
        raise _wrong_signature("is over something that no TPM wrote")
    if not hmac.compare_digest(certification.extra_data, qualifying_data(challenge)):
        raise _refused("wrong-challenge", "It was made for something else, or an earlier certificate.")
    if certification.name != attested.name:
        raise _refused("wrong-key", "The TPM speaks of another key.")
    if attested.attributes & BOUND_TO_THE_TPM != BOUND_TO_THE_TPM:
        raise _refused("not-bound", "The key was not made in the TPM, or may leave it.")
    if attested.attributes & Attribute.RESTRICTED:
        raise _refused("not-bound", "The key signs only what the TPM says itself.")
    if isinstance(attested.key, rsa.RSAPublicKey) and attested.key.key_size < _RSA_BITS:
        raise _weak_key()
    return attested.key


def _verify_step(evidence: StepEvidence, certificate: x509.Certificate, challenge: bytes, identifier: str) -> PublicKey:
    """Checks 3 to 9 for a token."""
    _check_usage(certificate)
    device = managed_device_of(certificate)
    if not device or device != identifier:
        raise _wrong_device(device, identifier)
    key = certificate.public_key()
    if not is_step_key(key):
        raise _weak_key()
    if not _signed(key, evidence.signature, challenge):
        raise _wrong_signature("over the challenge was not made by the key of the certificate")
    return key


def is_step_key(key: object) -> TypeGuard[PublicKey]:
    """Whether evidence of format step can be about such a key (check 9)."""
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= _RSA_BITS
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)


def _signed(key: PublicKey, signature: bytes, data: bytes) -> bool:
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        else:
            key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _wrong_certificate(what: str) -> EvidenceRefused:
    return _refused("wrong-certificate", f"The certificate of who attests {what}.")


def _wrong_device(named: str, expected: str) -> EvidenceRefused:
    what = f"It speaks of the device {printable(named)}" if named else "It names no device"
    return _refused("wrong-device", f"{what}; {printable(expected)} is expected.")


def _wrong_signature(what: str) -> EvidenceRefused:
    return _refused("wrong-signature", f"The signature {what}.")


def _weak_key() -> EvidenceRefused:
    return _refused("weak-key", "The key is too short, or of a kind that such evidence cannot be about.")


def _refused(check: str, what: str) -> EvidenceRefused:
    return EvidenceRefused(what, remedy="The key may live anywhere. Make the evidence again.", code=f"evidence-{check}")
