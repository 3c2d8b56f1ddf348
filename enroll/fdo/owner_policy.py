"""Whether somebody who has proved to be the owner by the voucher may have this scanner.

The voucher says who owns it. Whoever runs it may want more: a root that owners must lead to, fingerprints that came on
another way, or a person who looks at it and approves.

    fdo/approval.json       the owners that wait for approval, and the one that has it
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509

from enroll.certificates import subject_text
from enroll.clock import Clock
from enroll.errors import (
    OPERATOR,
    CertificateRefused,
    ConfigurationError,
    EnrollmentError,
    EnrollmentRefused,
    StateDamaged,
)
from enroll.fdo.credential import DeviceCredential
from enroll.fdo.public_key import FdoPublicKey
from enroll.fdo.voucher import OwnerChain
from enroll.flows.settings import FdoApproval, FdoSettings
from enroll.foreign import printable
from enroll.record import damaged, read_record, write_record
from enroll.statefile import GROUP_DIRECTORY, StateFiles
from enroll.trust import read_ca_certificates, verify_chain

COMPARE = (
    "Compare the fingerprint with what the owner gave you on paper. If it is the same, type it from there: "
    "scanseal fdo approve FINGERPRINT"
)
AWAITED = "Somebody has to approve the owner."  # how the reason for waiting begins, in the journal
MOST_WAITING = 4
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_FILE_MODE = 0o640  # administrators may see who waits
_FIELDS = ("owners", "vouchers", "names", "approved")
_LOG = logging.getLogger(__name__)


def read_fingerprint(text: str, where: str) -> str:
    """The digits of a SHA-256 fingerprint; people write it with colons, spaces and capitals.

    Args:
        text: What they wrote.
        where: What it is, for messages.

    Raises:
        ConfigurationError: It is none.
    """
    digits = re.sub(r"[\s:]", "", text).lower()
    if not _FINGERPRINT.fullmatch(digits):
        raise ConfigurationError(
            f"{where} is no SHA-256 fingerprint.",
            remedy="Give 64 hexadecimal digits, as scanseal fdo voucher show does.",
        )
    return digits


class OwnerRefused(EnrollmentRefused):
    """Who has proved to be the owner by the voucher may not have this scanner."""

    code = "owner-refused"
    who_must_act = OPERATOR
    what_next = "Nothing was changed: the owner was told that the device does not go on."


class ApprovalAwaited(EnrollmentError):
    """A person has to approve the owner first."""

    code = "owner-not-approved"
    who_must_act = OPERATOR
    what_next = "Nothing was changed. Once the owner is approved, the next run goes on."


@dataclass(frozen=True)
class Candidate:
    """An owner that waits for approval, or has it.

    Args:
        owner: Fingerprint of its key.
        voucher: Fingerprint of its voucher.
        name: Subject of its certificate, for people; empty where it has none. Proved by nobody.
        is_approved: Whether somebody has approved it.
    """

    owner: str
    voucher: str
    name: str
    is_approved: bool = False


@dataclass(frozen=True)
class OwnerPolicy:
    """The rules of one scanner.

    Args:
        settings: `[fdo]`.
        directory: `fdo` below the state directory.
        files: Reads and writes.
        clock: For the dates of certificates.
    """

    settings: FdoSettings
    directory: Path
    files: StateFiles
    clock: Clock

    def judge(self, chain: OwnerChain, credential: DeviceCredential) -> None:
        """Whether this owner may have the scanner.

        Raises:
            OwnerRefused: It may not: it is on no list, or the scanner has another owner, who has not released it.
            ApprovalAwaited: Somebody has to approve it; it has been written down.
            ConfigurationError: A fingerprint that is configured is none, or the file of roots cannot be used.
        """
        owner, known = chain.owner, credential.owner
        if known is not None and owner.fingerprint == known.fingerprint:
            return  # who has it already needs no leave; another key does, also one that the owner has named itself
        if known is not None and owner.fingerprint != known.next_fingerprint:
            raise OwnerRefused(
                f"This scanner has another owner. {_described(owner)} may not have it.",
                remedy="Its owner has to give it up first: scanseal owner release",
            )
        if not self._is_listed(chain):
            raise OwnerRefused(
                f"{_described(owner)} may not own this scanner: it is on no list of [fdo].",
                remedy="If it is the right owner, add it to [fdo] owner_fingerprints or owner_anchor_file; or its "
                f"voucher, which has the fingerprint {chain.fingerprint}, to voucher_fingerprints.",
            )
        self._check_approved(chain, credential)

    def candidates(self) -> tuple[Candidate, ...]:
        """Who waits for approval, or has it; who asked last comes last.

        Raises:
            StateError: The record is damaged.
        """
        if not self.files.exists(self._record):
            return ()
        values = read_record(self._record, _FIELDS, self.files)
        columns = values["owners"].split(), values["vouchers"].split(), values["names"].split("\n")
        try:
            rows = tuple(zip(*columns, strict=True))
        except ValueError as error:
            raise damaged(self._record) from error
        return tuple(Candidate(*row, is_approved=row[1] == values["approved"]) for row in rows)

    def approve(self, fingerprint: str) -> Candidate:
        """Approve an owner that waits; no other one has approval then.

        Args:
            fingerprint: Of its key, or of its voucher; with colons, spaces and capitals as people write it.

        Raises:
            ConfigurationError: None waits, or none has this fingerprint.
            StateError: The record is damaged, or the disk refused.
        """
        waiting = self.candidates()
        if not waiting:
            raise ConfigurationError(
                "No owner waits for approval.", remedy="Run: scanseal enroll fdo; it says who the owner is."
            )
        wanted = read_fingerprint(fingerprint, "The fingerprint")
        chosen = next((each for each in reversed(waiting) if wanted in (each.owner, each.voucher)), None)
        if chosen is None:
            raise ConfigurationError(
                f"No owner that waits has this fingerprint, nor has its voucher. {_who_waits(waiting)}",
                remedy="Compare them with what the owner gave you on paper. If they differ, approve nothing.",
            )
        self._write(replace(each, is_approved=each == chosen) for each in waiting)
        return replace(chosen, is_approved=True)

    def take_back(self) -> None:
        """Nobody is approved any more; who waits goes on waiting.

        Raises:
            StateError: The record is damaged, or the disk refused.
        """
        if waiting := self.candidates():
            self._write(replace(each, is_approved=False) for each in waiting)

    def forget(self) -> None:
        """Nobody waits, and nobody is approved.

        Raises:
            StateError: The disk refused.
        """
        self.files.remove(self._record)

    @property
    def _record(self) -> Path:
        return self.directory / "approval.json"

    def _is_listed(self, chain: OwnerChain) -> bool:
        settings = self.settings
        owners = [read_fingerprint(each, "[fdo] owner_fingerprints") for each in settings.owner_fingerprints]
        vouchers = [read_fingerprint(each, "[fdo] voucher_fingerprints") for each in settings.voucher_fingerprints]
        if not (owners or vouchers or settings.owner_anchor_file):
            return True
        if chain.owner.fingerprint in owners or chain.fingerprint in vouchers:
            return True
        if settings.owner_anchor_file is None or not chain.owner.chain:
            return False
        leaf, *above = chain.owner.chain
        anchors = read_ca_certificates(settings.owner_anchor_file, self.files)
        return _leads_to(leaf, above, anchors, self.clock)

    def _check_approved(self, chain: OwnerChain, credential: DeviceCredential) -> None:
        approval, is_first = self.settings.approval, credential.owner is None and not credential.was_owned
        if approval is FdoApproval.NEVER or (approval is FdoApproval.REOWNING and is_first):
            return
        # Only what it is called is foreign; the other two are digits.
        asked = Candidate(chain.owner.fingerprint, chain.fingerprint, printable(_name(chain.owner)))
        known = self._known()
        # What was approved is this owner by this voucher: by a shorter one an earlier owner would come back.
        if replace(asked, is_approved=True) in known:
            return
        self._note(asked, known)
        name = f"; it calls itself {asked.name}" if asked.name else ""
        raise ApprovalAwaited(f"{AWAITED} Its fingerprint is {asked.owner}{name}.", remedy=COMPARE)

    def _note(self, asked: Candidate, known: tuple[Candidate, ...]) -> None:
        """Keep who waits: each owner once, who asked last at the end, and the approved one in any case."""
        # Each can make its voucher out to itself as often as it likes, and must not displace another owner by that.
        kept = [*(each for each in known if each.is_approved or each.owner != asked.owner), asked]
        while len(kept) > MOST_WAITING:
            kept.remove(next(each for each in kept if not each.is_approved))
        if tuple(kept) != known:
            self._write(kept)

    def _known(self) -> tuple[Candidate, ...]:
        """Who has approval or waits for it; nobody where that is damaged: then the question is asked again."""
        try:
            return self.candidates()
        except StateDamaged as error:
            _LOG.warning("The owner has to be approved again: %s", error.what)
            return ()

    def _write(self, candidates: Iterable[Candidate]) -> None:
        self.files.make_directory(self.directory, GROUP_DIRECTORY)
        kept = tuple(candidates)
        values = {
            "owners": " ".join(each.owner for each in kept),
            "vouchers": " ".join(each.voucher for each in kept),
            "names": "\n".join(each.name for each in kept),
            "approved": next((each.voucher for each in kept if each.is_approved), ""),
        }
        write_record(self._record, values, self.files, _FILE_MODE)


def _who_waits(candidates: Iterable[Candidate]) -> str:
    return " ".join(f"There is {each.owner}, with the voucher {each.voucher}." for each in candidates)


def _leads_to(
    leaf: x509.Certificate, above: list[x509.Certificate], anchors: tuple[x509.Certificate, ...], clock: Clock
) -> bool:
    # The clock of a scanner that nobody has set up yet may be years behind: nothing fails because it has not begun.
    moment = max(clock.now(), *(each.not_valid_before_utc for each in (leaf, *above)))
    try:
        verify_chain(leaf, tuple(above), anchors, moment)
    except CertificateRefused:
        return False
    return True


def _name(owner: FdoPublicKey) -> str:
    return subject_text(owner.chain[0]) if owner.chain else ""


def _described(owner: FdoPublicKey) -> str:
    name = f" ({_name(owner)})" if owner.chain else ""
    return f"The owner with the fingerprint {owner.fingerprint}{name}"
