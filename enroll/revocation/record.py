"""What is known about the revocation of a certificate in use: written by `enroll.revocation.watch`, read by everybody.

    identities/<name>/revocation.json       of the last generation that was asked about
    identities/<name>/revoked/<NNNN>.json   the same of each one that is revoked, so that one damaged file does not
                                            make anybody forget it, and no older generation comes back as good;
                                            where its generation is damaged as well, none is in use (`IdentityStore`)

Each speaks of one generation; for another one it means nothing. What the CA has signed counts by the time when it said
so (thisUpdate), not by the time when it arrived: whoever sits in the network can hold an answer back or repeat an old
one, and neither takes back a revocation that was seen.

| before           | then the CA says                       | now     |
|------------------|----------------------------------------|---------|
| anything         | revoked, for good                      | revoked |
| revoked for good | anything                               | revoked |
| on hold          | good, and later than the hold          | good    |
| good or on hold  | anything that is older than what it said before | as before |
| anything         | nothing, or nothing that proves anything | as before; what was good is unknown after a while |
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from enroll.certificates import serial_text
from enroll.errors import CertificateRefused, CertificateRevoked, StateError, StateUnreadable
from enroll.foreign import printable
from enroll.generation_use import revoked_file
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.record import damaged, read_record, read_time, write_record
from enroll.revocation.lists import Revocation, Statement
from enroll.statefile import GROUP_DIRECTORY, StateFiles

_FILE_NAME = "revocation.json"
_FILE_MODE = 0o640
_NEVER = datetime.min.replace(tzinfo=UTC)
_TIMES = ("revoked_at", "as_of", "next", "answered_at", "checked_at")
_FIELDS = ("generation", "serial", "state", "reason", "source", "problem", *_TIMES)
_GENERATION = re.compile(r"[1-9][0-9]{0,8}")
# RFC 5280 5.3.1: a CA that has set up something new says so by these. Whoever says anything else, or nothing, has to be
# asked: the next certificate could be as worthless as this one.
_REPLACED_BY_ITSELF = frozenset(("superseded", "cessationOfOperation"))


class RevocationState(StrEnum):
    """What is known."""

    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class RevocationRecord:
    """What is known about one certificate.

    Args:
        generation: Number of the generation.
        serial: Serial number of its certificate, in hexadecimal.
        checked_at: When it was asked about last.
        state: What the CA said last.
        revocation: Where it is revoked.
        as_of: Of when that is (thisUpdate).
        next: When the CA wants to have said more (nextUpdate).
        answered_at: When an answer came last that counts.
        source: Who gave it.
        problem: Why the last question brought nothing; empty where it did.
    """

    generation: int
    serial: str
    checked_at: datetime
    state: RevocationState = RevocationState.UNKNOWN
    revocation: Revocation | None = None
    as_of: datetime | None = None
    next: datetime | None = None
    answered_at: datetime | None = None
    source: str = ""
    problem: str = ""

    def is_of(self, generation: Generation) -> bool:
        """Whether it speaks of the certificate of a generation."""
        return (self.generation, self.serial) == (generation.number, serial_text(generation.certificate))

    def standing(self, now: datetime, patience: timedelta) -> RevocationState:
        """The state, where what was good has become unknown after too long a silence."""
        silent = self.answered_at is None or now > self.answered_at + patience
        return RevocationState.UNKNOWN if self.state is RevocationState.GOOD and silent else self.state

    @property
    def is_final(self) -> bool:
        """Whether it is revoked for good."""
        return self.revocation is not None and self.revocation.is_final

    @property
    def replaced_by_itself(self) -> bool:
        """Whether the timer may get the next certificate without a person."""
        return self.revocation is not None and self.revocation.reason in _REPLACED_BY_ITSELF

    def without_answer(self, problem: str, now: datetime) -> RevocationRecord:
        """The record after a question that brought nothing."""
        return replace(self, checked_at=now, problem=printable(problem))

    def after(self, statement: Statement, source: str, now: datetime) -> RevocationRecord:
        """The record after an answer that proves something."""
        known, said = self.revocation, statement.revocation
        if self.is_final:
            return replace(self, checked_at=now, problem="")
        if said is None or not said.is_final:
            older = self.as_of is not None and statement.since < self.as_of
            lifts = known is not None and said is None
            if older or (lifts and statement.since == self.as_of):
                return self.without_answer(
                    f"{source} repeats an answer that is older than what the CA said before", now
                )
        return replace(
            self,
            checked_at=now,
            state=RevocationState.GOOD if said is None else RevocationState.REVOKED,
            revocation=said,
            as_of=statement.since,
            next=statement.until,
            answered_at=now,
            source=printable(source),
            problem="",
        )


class RevocationRecords:
    """The records of all identities.

    Args:
        identities: The identity directory.
    """

    def __init__(self, identities: IdentityStore) -> None:
        self._identities = identities
        self._files = identities.files

    def of(self, generation: Generation) -> RevocationRecord | None:
        """What is known about the certificate of a generation; None where it was never asked about.

        Raises:
            StateError: The record cannot be read.
        """
        found, problems = [], []
        for path in (self._kept(generation), self._path(generation.identity)):
            try:
                if self._files.exists(path):
                    found.append(_read(path, self._files))
            except StateError as error:
                problems.append(error)
        if problems and not any(record.is_of(generation) for record in found):
            raise problems[-1]
        # Whoever wrote may have been cut off between the two: what the CA said later counts, else the kept one.
        both = (record for record in found if record.is_of(generation))
        return max(both, key=lambda record: (record.is_final, record.as_of or _NEVER), default=None)

    def write(self, generation: Generation, record: RevocationRecord) -> None:
        """Keep what is known.

        Raises:
            StateError: The disk refused.
        """
        revocation = record.revocation
        times = {
            "revoked_at": revocation.at if revocation else None,
            "as_of": record.as_of,
            "next": record.next,
            "answered_at": record.answered_at,
            "checked_at": record.checked_at,
        }
        values = {
            "generation": str(record.generation),
            "serial": record.serial,
            "state": str(record.state),
            "reason": revocation.reason if revocation else "",
            "source": record.source,
            "problem": record.problem,
            **{name: moment.isoformat() if moment else "" for name, moment in times.items()},
        }
        path, kept = self._path(generation.identity), self._kept(generation)
        if revocation is not None:
            self._files.make_directory(kept.parent, GROUP_DIRECTORY)
            write_record(kept, values, self._files, _FILE_MODE)
        write_record(path, values, self._files, _FILE_MODE)
        if revocation is None:
            self._files.remove(kept)

    def calls_for_renewal(self, name: IdentityName) -> bool:
        """Whether a revocation is a reason to renew at once; without one, or where it is only unknown, it is none.

        Raises:
            CertificateRevoked: There is one, and a person has to look into it first.
        """
        try:
            generation = self._identities.current(name)
        except StateUnreadable:
            raise
        except StateError:
            return False  # whoever renews says so
        record = self._known(generation) if generation else None
        if record is None or record.revocation is None:
            return False
        if record.replaced_by_itself:
            return True
        reason = record.revocation.reason or "no reason is given"
        raise CertificateRevoked(
            f"The CA has revoked the certificate of the identity {name} ({reason}).",
            remedy="Find out why: a stolen key or a mistake. Then run scanseal enroll for this identity, or "
            "scanseal renew --force.",
        )

    def check_not_revoked(self, generation: Generation) -> None:
        """Refuse to prove anything with a certificate that is known to be revoked: nobody would believe it.

        Raises:
            CertificateRefused: It is (`certificate-revoked`).
        """
        record = self._known(generation)
        if record is not None and record.state is RevocationState.REVOKED:
            raise CertificateRefused(
                f"The certificate of the identity {generation.identity} is revoked.",
                remedy="It proves nothing any more; another proof is needed, as for the first certificate.",
                code="certificate-revoked",
            )

    def _known(self, generation: Generation) -> RevocationRecord | None:
        try:
            return self.of(generation)
        except StateUnreadable:
            raise
        except StateError:
            return None  # unknown, as `scanseal check` says

    def _path(self, name: IdentityName) -> Path:
        return self._identities.directory(name) / _FILE_NAME

    def _kept(self, generation: Generation) -> Path:
        return revoked_file(self._identities.directory(generation.identity), generation.number)


def _read(path: Path, files: StateFiles) -> RevocationRecord:
    values = read_record(path, _FIELDS, files)
    if values["state"] not in list(RevocationState) or not _GENERATION.fullmatch(values["generation"]):
        raise damaged(path)
    times = {name: read_time(values[name], path) if values[name] else None for name in _TIMES}
    state, revoked_at, checked_at = RevocationState(values["state"]), times["revoked_at"], times["checked_at"]
    if checked_at is None or (state is RevocationState.REVOKED) != (revoked_at is not None):
        raise damaged(path)
    return RevocationRecord(
        generation=int(values["generation"]),
        serial=values["serial"],
        checked_at=checked_at,
        state=state,
        revocation=Revocation(revoked_at, values["reason"]) if revoked_at else None,
        as_of=times["as_of"],
        next=times["next"],
        answered_at=times["answered_at"],
        source=values["source"],
        problem=values["problem"],
    )
