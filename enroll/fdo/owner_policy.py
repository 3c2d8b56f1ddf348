"""Whether somebody who has proved to be the owner by the voucher may have this scanner.

The voucher says who owns it. Whoever runs it may want more: a root that owners must lead to, fingerprints that came on
another way, or a person who looks at it and approves.

    fdo/approval.json       the owner that waits for approval, or has it
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509

from enroll.certificates import name_text
from enroll.clock import Clock
from enroll.errors import (
    OPERATOR,
    CertificateRefused,
    ConfigurationError,
    EnrollmentError,
    EnrollmentRefused,
)
from enroll.fdo.credential import DeviceCredential
from enroll.fdo.public_key import FdoPublicKey
from enroll.fdo.voucher import OwnerChain
from enroll.flows.settings import FdoApproval, FdoSettings
from enroll.record import read_record, write_record
from enroll.statefile import StateFiles
from enroll.trust import read_ca_certificates, verify_chain

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


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
        if known is not None:
            if owner.fingerprint not in (known.fingerprint, known.next_fingerprint):
                raise OwnerRefused(
                    f"This scanner has another owner than {_described(owner)}.",
                    remedy="Its owner has to give it up first: scanseal owner release",
                )
            return  # who has it already needs no leave
        if not self._is_listed(chain):
            raise OwnerRefused(
                f"{_described(owner)} may not own this scanner: neither its certificates nor its fingerprint nor that "
                f"of its voucher, {chain.fingerprint}, is on the lists of [fdo].",
                remedy="If it is the right owner, add it to [fdo] owner_fingerprints or owner_anchor_file.",
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
        """
        waiting = self.candidate()
        if waiting is None:
            raise ConfigurationError(
                "No owner waits for approval.", remedy="Run: scanseal enroll fdo; it says who the owner is."
            )
        if _normalized(fingerprint, "The fingerprint") not in (waiting.owner, waiting.voucher):
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
        owners = [_normalized(each, "[fdo] owner_fingerprints") for each in settings.owner_fingerprints]
        vouchers = [_normalized(each, "[fdo] voucher_fingerprints") for each in settings.voucher_fingerprints]
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
        approval = self.settings.approval
        if approval is FdoApproval.NEVER or (approval is FdoApproval.REOWNING and not credential.was_owned):
            return
        known = self.candidate()
        asked = Candidate(chain.owner.fingerprint, chain.fingerprint, _name(chain.owner))
        if known is not None and known.is_approved and known.owner == asked.owner:
            return
        self._write(asked)
        raise ApprovalAwaited(
            f"{_described(chain.owner)} wants to own this scanner, and somebody here has to approve it.",
            remedy=f"If it is the right owner: scanseal fdo approve {asked.owner}",
        )

    def _write(self, candidate: Candidate) -> None:
        self.files.make_directory(self.directory)
        values = {
            "owner": candidate.owner,
            "voucher": candidate.voucher,
            "name": candidate.name,
            "approved": "yes" if candidate.is_approved else "no",
        }
        write_record(self._record, values, self.files)


def _leads_to(
    leaf: x509.Certificate, above: list[x509.Certificate], anchors: tuple[x509.Certificate, ...], clock: Clock
) -> bool:
    try:
        verify_chain(leaf, tuple(above), anchors, clock.now())
    except CertificateRefused:
        return False
    return True


def _name(owner: FdoPublicKey) -> str:
    return name_text(owner.chain[0].subject) if owner.chain else ""


def _described(owner: FdoPublicKey) -> str:
    name = f" ({_name(owner)})" if owner.chain else ""
    return f"The owner with the fingerprint {owner.fingerprint}{name}"


def _normalized(fingerprint: str, where: str) -> str:
    text = re.sub(r"[\s:]", "", fingerprint).lower()
    if not _FINGERPRINT.fullmatch(text):
        raise ConfigurationError(
            f"{where} is no SHA-256 fingerprint.",
            remedy="Give 64 hexadecimal digits, as scanseal fdo voucher show does.",
        )
    return text
