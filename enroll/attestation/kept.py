"""Evidence as it is kept beside an identity: `identities/<name>/attestation/<NNNN>.json`.

It has the number of the generation that it speaks of. A generation never changes, and evidence may be made long after
it, or anew when the certificate of the attestation key has been replaced; so it has a place of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from enroll.attestation.evidence import Evidence, evidence_from_json, evidence_to_json
from enroll.errors import EvidenceRefused
from enroll.identity import Generation, IdentityStore
from enroll.record import damaged, read_document, read_time, write_document
from enroll.statefile import GROUP_DIRECTORY, StateFiles

EVIDENCE_LIMIT = 64 * 1024  # bytes

_FILE_MODE = 0o640


@dataclass(frozen=True)
class KeptEvidence:
    """Evidence, and when it was made by the clock of the device."""

    evidence: Evidence
    made_at: datetime


class EvidenceStore:
    """The evidence of one scanner.

    Args:
        identities: Beside which it lies.
        files: Reads and writes it.
    """

    def __init__(self, identities: IdentityStore, files: StateFiles) -> None:
        self._identities = identities
        self._files = files

    def path(self, generation: Generation) -> Path:
        """Where the evidence for a generation lies."""
        return self._identities.directory(generation.identity) / "attestation" / f"{generation.number:04d}.json"

    def write(self, generation: Generation, kept: KeptEvidence) -> None:
        """Keep evidence for a generation, in place of what was there.

        Raises:
            StateError: The disk refused.
        """
        path = self.path(generation)
        values = {"made_at": kept.made_at.isoformat(), **evidence_to_json(kept.evidence)}
        self._files.make_directory(path.parent, GROUP_DIRECTORY)
        write_document(path, values, self._files, _FILE_MODE)

    def read(self, generation: Generation) -> KeptEvidence | None:
        """The evidence for a generation, unchecked; None where there is none.

        Raises:
            StateError: There is some, and it is damaged.
        """
        path = self.path(generation)
        if not self._files.exists(path):
            return None
        values = read_document(path, self._files, EVIDENCE_LIMIT)
        if not isinstance(values, dict) or not isinstance(values.get("made_at"), str):
            raise damaged(path)
        made_at = read_time(values.pop("made_at"), path)
        try:
            return KeptEvidence(evidence_from_json(values), made_at)
        except EvidenceRefused as error:
            raise damaged(path) from error
