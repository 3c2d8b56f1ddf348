"""Checking the signatures of an instance (PS3.3 C.12.1.1.3, PS3.15 C.2).

The instance is read strictly first: whatever two readers could understand differently is an error of the whole. Then,
for each signature of the data set and of its items, six facts are established and none is taken for another:

1. integrity: its two items are complete, belong together and hold nothing else; what they list is there; the MAC
   fits the covered bytes; the fragments are those of the frames.
2. coverage: what the expected profile demands, and what is there, against what is covered.
3. algorithms: what it was made with, and whether that can be forged today.
4. time: what the signer states, and what a certified time stamp proves.
5. chain: whether the certificate leads to an anchor, may sign documents, and was not revoked.
6. identity: whether the signer is the device that the image names.

What follows from these facts is the policy's to say (`agent.policy`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from agent.dicom.claims import claims_of, content_of, remark_findings
from agent.dicom.coverage import coverage_of, nested_coverage_of
from agent.dicom.data_set import DataSet
from agent.dicom.diagnosis.diagnose import FailedSignature, diagnose
from agent.dicom.diagnosis.patience import DIAGNOSIS_WORK, Patience
from agent.dicom.elements import SOP_CLASS_UID, SOP_INSTANCE_UID, Encoding, tag_name, tag_names
from agent.dicom.fragments import fragment_findings
from agent.dicom.headers import DEFAULT_LIMITS, Limits
from agent.dicom.mac_check import CheckedSignature, SignerCertificates, check_mac
from agent.dicom.profile import Profile
from agent.dicom.provenance.sources import stated_sources
from agent.dicom.remembered import remembered
from agent.dicom.report import (
    Algorithms,
    Chain,
    Coverage,
    Diagnosis,
    Equipment,
    Finding,
    Identity,
    InstanceReport,
    Integrity,
    Outcome,
    SignatureReport,
    Time,
)
from agent.dicom.signature_items import MacParameters
from agent.dicom.signer_chain import SignerChains, TrustMaterial, claimed_time, stamped_time
from agent.dicom.signer_identity import equipment_of, function_fault, identity_of
from agent.dicom.stored_instance import StoredInstance, signature_items
from agent.dicom.stored_signatures import DigitalSignature, mac_parameters_of
from agent.dicom.transfer_syntax import TransferSyntax
from agent.errors import DicomError

TIFF_BEGINNINGS = (b"II*\0", b"MM\0*")
TIFF_HEADER_SIZE = 8  # bytes


@dataclass(frozen=True)
class Verification:
    """By what signatures are judged.

    Args:
        profile: What a signature is expected to cover.
        now: The time of the verification, aware.
        trust: What signers are judged by.
        limits: What the instance may demand.
        diagnosis_work: How much is tried to find the reasons why signatures do not verify; 0 for nothing.
    """

    profile: Profile
    now: datetime
    trust: TrustMaterial = field(default_factory=TrustMaterial)
    limits: Limits = DEFAULT_LIMITS
    diagnosis_work: int = DIAGNOSIS_WORK


@dataclass(frozen=True)
class _Subject:
    """What signatures are checked over.

    Args:
        data_set: Of the instance, or a sequence item in it.
        syntax: How the instance is stored.
        equipment: Of the instance; None for an item, which names none.
        patience: For explaining signatures that fail.
    """

    data_set: DataSet
    syntax: TransferSyntax
    equipment: Equipment | None
    patience: Patience


def verify_instance(data: bytes | memoryview, verification: Verification) -> InstanceReport:
    """Check the signatures of one instance; for many, keep a `Verifier`.

    Raises:
        DicomError: The instance is not well-formed.
    """
    return Verifier(verification).verify(data)


class Verifier:
    """Checks instances; what it learns of signers it uses again.

    Args:
        verification: By what they are judged.
    """

    def __init__(self, verification: Verification) -> None:
        self._verification = verification
        self._certificates = SignerCertificates()
        self._chains = SignerChains(verification.trust, verification.now)
        # The images of a series differ in their pixels, and hardly in what is asked here.
        self._mac_parameters_of = remembered(mac_parameters_of)
        self._coverage_of = remembered(partial(coverage_of, verification.profile))
        self._identity_of = remembered(identity_of)

    def verify(self, data: bytes | memoryview) -> InstanceReport:
        """Check all signatures of an instance.

        Args:
            data: A DICOM file.

        Raises:
            DicomError: The instance is not well-formed.
        """
        return self.report_on(StoredInstance.read(data, self._verification.limits))

    def report_on(self, instance: StoredInstance) -> InstanceReport:
        """Check all signatures of an instance that was read."""
        data_set, syntax = instance.data_set, instance.meta.syntax
        patience = Patience(self._verification.diagnosis_work)
        equipment = equipment_of(data_set)
        signatures = tuple(self._signatures(_Subject(data_set, syntax, equipment, patience)))
        nested = tuple(
            replace(report, location=location)
            for location, item in instance.signed_items()
            for report in self._signatures(_Subject(item, syntax, None, patience))
        )
        covered = frozenset[int]().union(*(report.coverage.covered for report in signatures if report.intact))
        claims = claims_of(data_set, covered)
        content = content_of(claims)
        sources = stated_sources(data_set, covered)
        return InstanceReport(
            sop_class_uid=data_set.text(SOP_CLASS_UID),
            sop_instance_uid=data_set.text(SOP_INSTANCE_UID),
            transfer_syntax=syntax.uid,
            signatures=tuple(_with_function(report, data_set) for report in signatures),
            nested=nested,
            equipment=equipment,
            content=content,
            claims=claims,
            sources=tuple(source.reference for source in sources.sources),
            findings=(
                *self._instance_findings(instance, signatures),
                *_copies(signatures),
                *remark_findings(claims),
                *sources.findings,
                *(_misread(data_set) if signatures or nested else ()),
            ),
        )

    def _signatures(self, subject: _Subject) -> Iterator[SignatureReport]:
        data_set, syntax = subject.data_set, subject.syntax
        encoded = signature_items(data_set.survey.outline.signatures)
        if not encoded:
            return
        parameters = self._mac_parameters(data_set, syntax.encoding)
        fragments = fragment_findings(data_set, syntax.uid) if syntax.encapsulated else ()
        for item in encoded:
            yield _with_fragments(self._signature(subject, item, parameters), fragments)

    def _signature(self, subject: _Subject, item: bytes, parameters: Sequence[MacParameters]) -> SignatureReport:
        data_set, syntax = subject.data_set, subject.syntax
        try:
            signature = DigitalSignature.read(item, syntax.encoding)
        except DicomError as error:
            return _unreadable(Finding(error.code, error.what))
        checked = check_mac(data_set, syntax, signature, parameters, self._certificates)
        integrity, diagnosis = self._diagnosed(subject, checked)
        time, chain = self._signer(checked)
        signed_tags = checked.parameters.signed_tags if checked.parameters else ()
        if subject.equipment is None:
            coverage = nested_coverage_of(data_set, signed_tags)
            identity = Identity()
        else:
            here = tuple(data_set.tags), frozenset(data_set.survey.unsignable)
            coverage = self._coverage_of(*here, signed_tags)
            identity = self._identity_of(checked.certificate, subject.equipment, frozenset(signed_tags))
        return SignatureReport(
            mac_id=signature.mac_id,
            uid=signature.uid,
            signed_at=signature.signed_at,
            purposes=signature.purposes,
            certificate=checked.certificate,
            integrity=integrity,
            coverage=coverage,
            algorithms=checked.algorithms,
            time=time,
            chain=chain,
            identity=identity,
            diagnosis=diagnosis,
        )

    def _diagnosed(self, subject: _Subject, checked: CheckedSignature) -> tuple[Integrity, Diagnosis | None]:
        """What was found wrong, and the reading under which it would be right."""
        failed = FailedSignature.of(subject.data_set, subject.syntax, checked)
        if failed is None or not self._verification.diagnosis_work:
            return checked.integrity, None
        examination = diagnose(failed, subject.patience)
        findings = examination.instead_of(checked.integrity.findings)
        return replace(checked.integrity, findings=findings), examination.diagnosis

    def _instance_findings(self, instance: StoredInstance, signatures: Sequence[SignatureReport]) -> Iterator[Finding]:
        """What no signature covers and what yet shows that something was done."""
        meta, data_set = instance.meta, instance.data_set
        for name, stated, tag in (
            ("SOP Class UID", meta.sop_class_uid, SOP_CLASS_UID),
            ("SOP Instance UID", meta.sop_instance_uid, SOP_INSTANCE_UID),
        ):
            if stated and stated != data_set.text(tag) and (tag in data_set or not meta.is_directory):
                what = f"Media Storage {name} of the file meta information is not the {name} of the data set."
                yield Finding("meta-contradicts", what, Outcome.FLAGGED)
        parameters = self._mac_parameters(data_set, meta.syntax.encoding)
        if {item.mac_id for item in parameters}.difference(report.mac_id for report in signatures):
            what = "There are MAC parameters (4FFE,0001) without a signature: one was removed."
            yield Finding("signature-removed", what, Outcome.FLAGGED)
        if len(parameters) != len(signature_items(data_set.survey.outline.mac_parameters)):
            yield Finding("mac-parameters-malformed", "An item of (4FFE,0001) cannot be read.", Outcome.FLAGGED)
        # PS3.10 7.1 foresees that the file is a TIFF image as well, and some scanners write its header.
        if any(instance.preamble[TIFF_HEADER_SIZE if instance.preamble.startswith(TIFF_BEGINNINGS) else 0 :]):
            what = "The preamble is not empty: a program that is no DICOM reader may see something else in this file."
            yield Finding("preamble-not-empty", what, Outcome.FLAGGED)
        if signatures and (hidden := data_set.survey.outline.hidden):
            what = f"{tag_name(hidden[0])} has no place there, and no signature covers it."
            yield Finding("element-hidden", what, Outcome.FLAGGED)
        for location, item in instance.items_with_fragments():
            for finding in fragment_findings(item, meta.syntax.uid):
                yield replace(finding, what=f"{location}: {finding.what}")

    def _mac_parameters(self, data_set: DataSet, encoding: Encoding) -> list[MacParameters]:
        """Those that can be read; a signature that needs another one will say so."""
        readable = []
        for item in signature_items(data_set.survey.outline.mac_parameters):
            with suppress(DicomError):
                readable.append(self._mac_parameters_of(item, encoding))
        return readable

    def _signer(self, checked: CheckedSignature) -> tuple[Time, Chain]:
        time = stamped_time(
            claimed_time(checked.signature.signed_at),
            checked.signature,
            checked.value,
            self._verification.trust,
            self._verification.now,
        )
        if checked.certificate is None:
            return time, Chain(findings=(Finding("certificate-malformed", "There is no certificate to go by."),))
        return self._chains.judge(checked.certificate, time)


def _copies(signatures: Sequence[SignatureReport]) -> Iterator[Finding]:
    for uid, count in Counter(report.uid for report in signatures if report.uid).items():
        if count > 1:
            what = f"Digital Signature UID {uid} is there {count} times."
            yield Finding("signature-uid-duplicate", what, Outcome.FLAGGED)


def _misread(data_set: DataSet) -> Iterator[Finding]:
    """What was looked for above, is there, and is not of the kind that the standard says."""
    if data_set.misread:
        what = (
            f"{tag_names(data_set.misread)} cannot be read for certain: under the VR that is stored, such as UN, some "
            "programs find something else than others, or nothing (PS3.5 6.2.2)."
        )
        yield Finding("attribute-unreadable", what, Outcome.INDETERMINATE)


def _with_function(report: SignatureReport, data_set: DataSet) -> SignatureReport:
    covered = report.coverage.covered
    fault = function_fault(report.certificate, data_set, covered) if report.certificate else None
    if fault is None:
        return report
    return replace(report, identity=replace(report.identity, findings=(*report.identity.findings, fault)))


def _with_fragments(report: SignatureReport, findings: Sequence[Finding]) -> SignatureReport:
    """The MAC does not show where fragments end; something else has to."""
    for finding in findings:
        if finding.outcome is Outcome.FLAGGED:
            coverage = replace(report.coverage, findings=(*report.coverage.findings, finding))
            report = replace(report, coverage=coverage)
        else:
            report = _noticed(report, finding)
    return report


def _noticed(report: SignatureReport, finding: Finding) -> SignatureReport:
    return replace(report, integrity=Integrity(findings=(*report.integrity.findings, finding)))


def _unreadable(finding: Finding) -> SignatureReport:
    """The report on an item that is no signature."""
    nothing = Finding(finding.code, "The signature cannot be read.", Outcome.INDETERMINATE)
    return SignatureReport(
        integrity=Integrity(findings=(finding,)),
        coverage=Coverage(findings=(nothing,)),
        algorithms=Algorithms(findings=(nothing,)),
        time=Time(findings=(nothing,)),
        chain=Chain(findings=(nothing,)),
        identity=Identity(findings=(nothing,)),
    )
