"""What an entry of the catalogue consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Final

from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.report import InstanceReport
from agent.dicom.verify import Verification, Verifier
from agent.errors import DicomError
from tests.support.attacks.editing import Change
from tests.support.attacks.images import ct_slice
from tests.support.attacks.signers import trust
from tests.support.pki import NOW

NO_SIGNATURE: Final = "no signature"


class Dcmsign(StrEnum):
    """What `dcmsign --verify +rc` of DCMTK 3.6.7 says."""

    ACCEPTS = "**accepts it**"
    REFUSES = "refuses it"
    CANNOT_READ = "cannot read it"


@dataclass(frozen=True)
class Attack:
    """Something that is done to a signed instance, by somebody or by accident, and has to be noticed.

    Attributes:
        name: Stable.
        what: What is done and why it could work, for the owner of an archive.
        change: Makes the attacked file of the honest one.
        findings: What has to be found at least: "fact: code", "instance: code", "nested fact: code" or "refused: code".
        dcmsign: What the other free implementation says.
        honest: The file that it starts from.
        known: What is found of the honest file already, because less than creator-plus demands was signed.
    """

    name: str
    what: str
    change: Change
    findings: tuple[str, ...]
    dcmsign: Dcmsign = Dcmsign.REFUSES
    honest: Callable[[], bytes] = ct_slice
    known: tuple[str, ...] = ()

    def file(self) -> bytes:
        """The attacked file."""
        return self.change(self.honest())


@dataclass(frozen=True)
class Limit:
    """Something that no signature under creator-plus shows.

    Attributes:
        name: Stable.
        what: What is done.
        why: Why it is not noticed, and what helps instead.
        change: Makes the changed file of the honest one.
        listed: The tag that the report lists as not covered on purpose, where there is one.
        honest: The file that it starts from.
    """

    name: str
    what: str
    why: str
    change: Change
    listed: int | None = None
    honest: Callable[[], bytes] = ct_slice

    def file(self) -> bytes:
        """The changed file."""
        return self.change(self.honest())


@dataclass(frozen=True)
class Family:
    """Attacks of one kind."""

    title: str
    attacks: tuple[Attack, ...]


@cache
def _verifier() -> Verifier:
    """All files of the catalogue are judged alike."""
    return Verifier(Verification(load_profile(ProfileName.CREATOR_PLUS), NOW, trust()))


def report_on(data: bytes) -> InstanceReport:
    """The product's report.

    Raises:
        DicomError: It refuses the instance.
    """
    return _verifier().verify(data)


def found(data: bytes) -> tuple[str, ...]:
    """Everything that the product notices, as in `Attack.findings`; nothing for a file without any fault."""
    try:
        report = report_on(data)
    except DicomError as error:
        return (f"refused: {error.code}",)
    return tuple(dict.fromkeys(_noticed(report)))


def _noticed(report: InstanceReport) -> Iterator[str]:
    if not report.signatures:
        yield NO_SIGNATURE
    for finding in report.findings:
        yield f"instance: {finding.code}"
    for signature in (*report.signatures, *report.nested):
        nested = "nested " if signature.location else ""
        for name, fact in signature.facts.items():
            yield from (f"{nested}{name}: {finding.code}" for finding in fact.findings)
