"""What a CA has said about certificates of a scanner, as the enroller writes it down."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from enroll.certificates import serial_text
from enroll.identity import Generation
from enroll.revocation.lists import Revocation, Statement
from enroll.revocation.record import RevocationRecord, RevocationRecords
from tests.support.agent_process import Scanner

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
STOLEN = Revocation(NOW, "keyCompromise")
HOLD = Revocation(NOW, "certificateHold")


def said(revocation: Revocation | None, since: datetime = NOW) -> Statement:
    return Statement(since, since + 24 * HOUR, revocation)


def after(record: RevocationRecord, revocation: Revocation | None, since: datetime = NOW) -> RevocationRecord:
    return record.after(said(revocation, since), "http://ca", NOW + HOUR)


def noted(scanner: Scanner, generation: Generation, revocation: Revocation | None, *, later: bool = False) -> None:
    """The enroller writes down what a CA said."""
    records = RevocationRecords(scanner.identities)
    known = records.of(generation) or RevocationRecord(generation.number, serial_text(generation.certificate), NOW)
    records.write(generation, after(known, revocation, NOW + HOUR if later else NOW))
