"""Whether somebody who has proved to be the owner by the voucher may have this scanner.

The voucher says who owns it. Whoever runs it may want more: a root that owners must lead to, fingerprints that came on
another way, or a person who looks at it and approves.

    fdo/approval.json       the owner that waits for approval, or has it
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from enroll.clock import Clock
from enroll.errors import EnrollmentError, EnrollmentRefused
from enroll.fdo.credential import DeviceCredential
from enroll.fdo.voucher import OwnerChain
from enroll.flows.settings import FdoSettings
from enroll.statefile import StateFiles


class OwnerRefused(EnrollmentRefused):
    """Who has proved to be the owner by the voucher may not have this scanner."""

    code = "owner-refused"


class ApprovalAwaited(EnrollmentError):
    """A person has to approve the owner first."""

    code = "owner-not-approved"


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
    is_approved: bool


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
        """
        raise NotImplementedError

    def candidate(self) -> Candidate | None:
        """Who waits for approval, or has it."""
        raise NotImplementedError

    def approve(self, fingerprint: str) -> Candidate:
        """Approve the owner that waits.

        Raises:
            ConfigurationError: None waits, or it has another fingerprint.
        """
        raise NotImplementedError

    def forget(self) -> None:
        """Nobody waits, and nobody is approved."""
        raise NotImplementedError
