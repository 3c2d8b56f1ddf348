"""Evidence of where a key lives, in the two formats that ACME servers know as `tpm` and `step`.

| format | who says it                 | what is signed                                                           |
|--------|-----------------------------|--------------------------------------------------------------------------|
| tpm    | the TPM that holds the key  | TPM2_Certify: the key's name and attributes, SHA-256 of the challenge    |
| step   | whoever made the token      | a certificate for the key; and by the key itself, the challenge          |

The challenge is what the evidence is for: the certificate of an identity, or what a server asks.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from enroll.errors import EvidenceRefused

STRUCTURE_LIMIT = 4096  # bytes of one structure of a TPM; RSA-4096 takes a fifth of it
CHAIN_LIMIT = 5  # certificates, the anchor left out

_FIELDS = {"tpm": {"format", "x5c", "certInfo", "pubArea", "sig"}, "step": {"format", "x5c", "sig"}}


@dataclass(frozen=True)
class TpmEvidence:
    """What a TPM says of a key that it holds.

    Args:
        x5c: DER; the certificate of the attestation key first, then its intermediates.
        cert_info: TPMS_ATTEST, without a size.
        signature: TPMT_SIGNATURE over it by the attestation key.
        public_area: TPMT_PUBLIC of the key that it speaks of, without a size.
    """

    x5c: tuple[bytes, ...]
    cert_info: bytes
    signature: bytes
    public_area: bytes

    format: ClassVar = "tpm"


@dataclass(frozen=True)
class StepEvidence:
    """What a manufacturer says of a key in a token that it delivered.

    Args:
        x5c: DER; the certificate of the key itself first, then its intermediates.
        signature: By the key over the challenge: PKCS #1 v1.5 or ECDSA, with SHA-256.
    """

    x5c: tuple[bytes, ...]
    signature: bytes

    format: ClassVar = "step"


Evidence: TypeAlias = TpmEvidence | StepEvidence


def evidence_to_json(evidence: Evidence) -> dict[str, Any]:
    """Evidence for JSON: binary values in base64, under the names that ACME gives them."""
    values: dict[str, Any] = {"format": evidence.format, "x5c": [_encoded(entry) for entry in evidence.x5c]}
    if isinstance(evidence, TpmEvidence):
        values |= {"certInfo": _encoded(evidence.cert_info), "pubArea": _encoded(evidence.public_area)}
    return values | {"sig": _encoded(evidence.signature)}


def evidence_from_json(values: Mapping[str, Any]) -> Evidence:
    """What `evidence_to_json` made; nothing of it has been checked.

    Raises:
        EvidenceRefused: It is not what that function makes, or too large (`evidence-malformed`).
    """
    name, chain = values.get("format"), values.get("x5c")
    if not isinstance(name, str) or values.keys() != _FIELDS.get(name, set()):
        raise malformed("It is of an unknown format.")
    if not isinstance(chain, list) or not 0 < len(chain) <= CHAIN_LIMIT:
        raise malformed(f"It has not one to {CHAIN_LIMIT} certificates.")
    x5c = tuple(_decoded(entry) for entry in chain)
    if name == StepEvidence.format:
        return StepEvidence(x5c, _decoded(values["sig"]))
    return TpmEvidence(x5c, _decoded(values["certInfo"]), _decoded(values["sig"]), _decoded(values["pubArea"]))


def malformed(what: str) -> EvidenceRefused:
    """What to raise for evidence that cannot be read."""
    return EvidenceRefused(
        f"The evidence cannot be read: {what}", remedy="Make it again: scanseal attest.", code="evidence-malformed"
    )


def _encoded(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _decoded(value: object) -> bytes:
    if not isinstance(value, str) or len(value) > 2 * STRUCTURE_LIMIT:
        raise malformed("A value is no text, or too long.")
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise malformed("A value is not base64.") from error
