"""Whether somebody who has proved to be the owner by the voucher may have this scanner.

The voucher says who owns it. Whoever runs it may want more: a root that owners must lead to, fingerprints that came on
another way, or a person who looks at it and approves.

    fdo/approval.json       the owner that waits for approval, or has it
"""

from __future__ import annotations

import logging
import re
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
    StateError,
    StateUnreadable,
)
from enroll.fdo.credential import DeviceCredential
from enroll.fdo.public_key import FdoPublicKey
from enroll.fdo.voucher import OwnerChain
from enroll.flows.settings import FdoApproval, FdoSettings
from enroll.record import read_record, write_record
from enroll.statefile import GROUP_DIRECTORY, StateFiles
from enroll.trust import read_ca_certificates, verify_chain

AWAITED = "Somebody has to approve the owner."  # how the reason for waiting begins, in the journal
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_FILE_MODE = 0o640  # administrators may see who waits
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

    def candidate(self) -> Candidate | None:
        """Who waits for approval, or has it.

        Raises:
            StateError: The record is damaged.
        """
        if not self.files.exists(self._record):
            return None
        values = read_record(self._record, ("owner", "voucher", "name", "approved"), self.files)
        return Candidate(values["owner"], values["voucher"], values["name"], values["approved"] == "yes")

    def approve(self, fingerprint: str) -> Candidate:
        """Approve the owner that waits.

        Args:
            fingerprint: Of its key, or of its voucher; with colons, spaces and capitals as people write it.

        Raises:
            ConfigurationError: None waits, or it has another fingerprint.
            StateError: The record is damaged, or the disk refused.
        """
        waiting = self.candidate()
        if waiting is None:
            raise ConfigurationError(
                "No owner waits for approval.", remedy="Run: scanseal enroll fdo; it says who the owner is."
            )
        if read_fingerprint(fingerprint, "The fingerprint") not in (waiting.owner, waiting.voucher):
            raise ConfigurationError(
                f"The owner that waits has the fingerprint {waiting.owner}, its voucher {waiting.voucher}.",
                remedy="Compare them with what the owner gave you on paper. If they differ, approve nothing.",
            )
        approved = replace(waiting, is_approved=True)
        self._write(approved)
        return approved

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
        asked = Candidate(chain.owner.fingerprint, chain.fingerprint, _name(chain.owner))
        # What was approved is this owner by this voucher: by a shorter one an earlier owner would come back.
        if self._known() == replace(asked, is_approved=True):
            return
        self._write(asked)
        raise ApprovalAwaited(
            f"{_described(chain.owner)} wants to own this scanner, and somebody here has to approve it.",
            remedy=f"If the owner gave you this on paper: scanseal fdo approve {asked.owner}",
        )

    def _known(self) -> Candidate | None:
        """Who has approval or waits for it; None where that is damaged: then the question is asked again."""
        try:
            return self.candidate()
        except StateUnreadable:
            raise
        except StateError as error:
            _LOG.warning("The owner has to be approved again: %s", error.what)
            return None

    def _write(self, candidate: Candidate) -> None:
        self.files.make_directory(self.directory, GROUP_DIRECTORY)
        values = {
            "owner": candidate.owner,
            "voucher": candidate.voucher,
            "name": candidate.name,
            "approved": "yes" if candidate.is_approved else "no",
        }
        write_record(self._record, values, self.files, _FILE_MODE)


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
