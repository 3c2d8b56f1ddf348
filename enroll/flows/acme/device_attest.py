"""The answer to device-attest-01: evidence of where the key lives, as a WebAuthn attestation object (CBOR).

    {"fmt": "tpm",  "attStmt": {"ver": "2.0", "alg", "x5c", "sig", "certInfo", "pubArea"}}
    {"fmt": "step", "attStmt": {"alg", "x5c", "sig"}}

draft-ietf-acme-device-attest 5 leaves authData out; the challenge that the evidence is made for is the key
authorization. Which device it is stands in the evidence itself, so the object is the same for a permanent-identifier
(RFC 4043) and for a hardware-module (RFC 4108).
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import rsa
from fido2 import cbor

from enroll.attestation.attest import Attestation
from enroll.attestation.evidence import Evidence, TpmEvidence
from enroll.errors import UnsupportedKey
from enroll.flows.base import Enrollment, FlowContext, OfferedEnrollment
from enroll.keystore.base import PublicKey

_TPM_VERSION = "2.0"  # WebAuthn Level 2, 8.3
_RS256, _ES256 = -257, -7  # RFC 8812 2, RFC 9053 2.1


def attestation_object(
    context: FlowContext, enrollment: Enrollment | OfferedEnrollment, key_authorization: bytes
) -> bytes:
    """What proves to an ACME server that the key to be certified is in a TPM or a token of this device.

    Args:
        context: Of the flow; its key stores may be open.
        enrollment: Whose key is to be certified.
        key_authorization: Of the challenge (RFC 8555 8.1).

    Raises:
        UnsupportedKey: The key is in no TPM and no token, or of a kind that cannot be attested.
        ConfigurationError: [attestation] is incomplete, or not that of the attestation CA that certified.
        ScansealError: The token, the TPM or the attestation CA failed.
    """
    if isinstance(enrollment, OfferedEnrollment):
        raise UnsupportedKey(
            "This key is in the memory of the agent; nothing can attest it.",
            remedy='Set key_store = "tpm" or "pkcs11" for this identity, or [acme] challenge to another one.',
        )
    attestation = Attestation.configured(context.settings, context.clock, context.files)
    evidence = attestation.evidence(enrollment.key_uri, key_authorization, context.stores)
    return encoded(evidence, enrollment.public_key)


def encoded(evidence: Evidence, key: PublicKey) -> bytes:
    """The attestation object for evidence about a key."""
    statement: dict[str, cbor.CborType] = {"x5c": evidence.x5c}
    if isinstance(evidence, TpmEvidence):
        # The attestation key is RSA, whatever the key is that it speaks of.
        statement |= {"ver": _TPM_VERSION, "alg": _RS256, "sig": evidence.signature}
        statement |= {"certInfo": evidence.cert_info, "pubArea": evidence.public_area}
    else:
        # step-ca wants the signature in CBOR of its own within the byte string.
        signature = cbor.encode(evidence.signature)
        statement |= {"alg": _RS256 if isinstance(key, rsa.RSAPublicKey) else _ES256, "sig": signature}
    return cbor.encode({"fmt": evidence.format, "attStmt": statement})
