"""What is known of where the key of an identity lives, for people and for programs."""

from __future__ import annotations

from typing import Any

from agent.cli import exits
from enroll.attestation.attest import ATTESTABLE, Attestation, store_of
from enroll.attestation.kept import KeptEvidence
from enroll.attestation.verify import Attested
from enroll.certificates import name_text, serial_text
from enroll.errors import EvidenceRefused, ScansealError
from enroll.identity import Generation


def record(generation: Generation, attestation: Attestation | None) -> dict[str, Any]:
    """The attestation of an identity in use, checked now, for programs.

    Args:
        generation: The identity.
        attestation: None where no attestation CA is configured.
    """
    if store_of(generation) not in ATTESTABLE:
        return {"state": "none", "reason": f"a key in {generation.protection} has no evidence"}
    if attestation is None:
        return {"state": "none", "reason": "[attestation] anchor_file is not set"}
    try:
        kept = attestation.kept(generation)
        if kept is None:
            return {"state": "none", "reason": "not attested since the key was made; run: scanseal attest"}
        return {"state": "verified", **_facts(generation, kept, attestation.verify(generation, kept))}
    except EvidenceRefused as error:
        return {"state": "refused", "error": exits.described(error)}
    except ScansealError as error:
        return {"state": "unreadable", "error": exits.described(error)}


def text(shown: dict[str, Any]) -> str:
    """The same for people, in one line."""
    if shown["state"] == "none":
        return f"none: {shown['reason']}"
    if error := shown.get("error"):
        return f"{shown['state']}: {error['what']} {error['remedy']}"
    where = "said by its maker to be in a token"
    if tpm := shown["tpm"]:
        kind = "simulated TPM" if tpm["simulated"] else "TPM"
        where = f"in the {kind} {tpm['manufacturer']} {tpm['model']} {tpm['version']}"
    return (
        f"{shown['format']}, key of generation {shown['generation']} {where}, device {shown['device']}, "
        f"certified by {shown['certificate']['issuer']} until {shown['certificate']['not_after'][:10]}, "
        f"attested {shown['made_at'][:10]}"
    )


def _facts(generation: Generation, kept: KeptEvidence, attested: Attested) -> dict[str, Any]:
    certificate, tpm = attested.chain[0], attested.tpm
    described = tpm and {
        "manufacturer": tpm.manufacturer,
        "model": tpm.model,
        "version": tpm.version,
        "simulated": tpm.simulated,
    }
    return {
        "format": kept.evidence.format,
        "generation": generation.number,
        "device": attested.identifier,
        "made_at": kept.made_at.isoformat(),
        "certificate": {
            "issuer": name_text(certificate.issuer),
            "serial_number": serial_text(certificate),
            "not_after": certificate.not_valid_after_utc.isoformat(),
        },
        "tpm": described,
    }
