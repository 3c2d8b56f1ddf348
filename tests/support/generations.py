"""The files of generations, and what is noted of their revocation."""

from __future__ import annotations

from pathlib import Path

from enroll.certificates import serial_text
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.revocation.lists import Revocation
from enroll.revocation.record import RevocationRecord, RevocationRecords, RevocationState
from tests.support.agent_process import Scanner as AgentScanner
from tests.support.enrolling import Scanner
from tests.support.pki import NOW

SIGNING = IdentityName.SIGNING
STOLEN = Revocation(NOW, "keyCompromise")


def noted(identities: IdentityStore, generation: Generation, revocation: Revocation | None) -> RevocationRecord:
    state = RevocationState.REVOKED if revocation else RevocationState.GOOD
    serial = serial_text(generation.certificate)
    record = RevocationRecord(generation.number, serial, NOW, state, revocation, as_of=NOW, answered_at=NOW)
    RevocationRecords(identities).write(generation, record)
    return record


def file(scanner: Scanner | AgentScanner, number: int, name: str = "chain.pem") -> Path:
    return scanner.identities.directory(SIGNING) / "generations" / f"{number:04d}" / name
