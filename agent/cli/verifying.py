"""Verifying many files: what is asked of each, and the answers, in a form that other processes can be given."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from math import ceil
from pathlib import Path

from cryptography import x509

from agent.cli import exits
from agent.cli.options import WORKING_MEMORY, any_mapped, instance_bytes
from agent.cli.processes import in_processes
from agent.cli.source_files import SourceFiles, standing
from agent.cli.verification_text import headline, text_of
from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.provenance.graph import NodeVerdict, ProvenanceGraph
from agent.dicom.report import ContentClass, InstanceReport
from agent.dicom.signer_chain import TrustMaterial
from agent.dicom.verify import Verification, Verifier
from agent.policy.evaluate import evaluate
from agent.policy.judgement import Judgement, Receipt
from agent.policy.load import load_policy
from agent.policy.model import Policy
from agent.policy.verdicts import EXIT_CODES, ExitCode, Verdict
from agent.verification_document import document_of
from enroll.clock import SystemClock
from enroll.errors import ScansealError
from enroll.revocation.lists import read_revocation_lists
from enroll.statefile import StateFiles
from enroll.trust import read_ca_certificates

FILES_PER_PROCESS = 32  # for fewer, it is not worth while to start another one


@dataclass(frozen=True)
class Question:
    """What is asked about files, as it was given on the command line.

    Args:
        profile: What a signature is expected to cover.
        anchor: File with the anchors.
        intermediate: File with CA certificates that may stand between.
        time_stamp_anchor: File with the anchors of time stamp authorities.
        revocation_list: File with revocation lists.
        policy: The policy file.
        received: When the files were received, the sources included; None for now.
        sending_ae: Who sent them.
        sources: Files that the verified ones may have been made from.
        as_json: Whether the answer is for programs.
    """

    profile: ProfileName
    anchor: Path | None = None
    intermediate: Path | None = None
    time_stamp_anchor: Path | None = None
    revocation_list: Path | None = None
    policy: Path | None = None
    received: datetime | None = None
    sending_ae: str = ""
    sources: tuple[Path, ...] = ()
    as_json: bool = False


@dataclass(frozen=True)
class FileResult:
    """The answer for one file.

    Args:
        verdict: What it comes to.
        exit_code: Of that.
        size: Bytes of the file.
        shown: What is printed: lines of text, or one JSON object.
    """

    verdict: Verdict
    exit_code: ExitCode
    size: int
    shown: str


class FileVerifier:
    """Verifies files and judges them, all as of the same time. What it learns of signers and sources it uses again.

    Args:
        question: What is asked.

    Raises:
        ConfigurationError: A file with anchors, lists or the policy cannot be used.
    """

    def __init__(self, question: Question) -> None:
        files = StateFiles()
        self._as_json = question.as_json
        self._source_files = question.sources
        self._memory = bytearray(WORKING_MEMORY)
        self._now = SystemClock().now()
        self._policy: Policy | None = load_policy(question.policy, files) if question.policy else None
        trust = TrustMaterial(
            anchors=_certificates(question.anchor, files),
            intermediates=_certificates(question.intermediate, files),
            time_stamp_anchors=_certificates(question.time_stamp_anchor, files),
            revocation_lists=read_revocation_lists(question.revocation_list, files) if question.revocation_list else (),
        )
        self._verifier = Verifier(Verification(load_profile(question.profile), self._now, trust))
        self._receipt = Receipt(question.received or self._now, question.sending_ae)
        self._sources = SourceFiles(question.sources, self._verifier, self._standing) if question.sources else None

    def maps_any(self, files: Sequence[Path]) -> bool:
        """Whether to verify these files means to map one, or one of the sources."""
        return any_mapped((*files, *self._source_files))

    def result(self, file: Path) -> FileResult:
        """The answer for one file."""
        size = 0
        try:
            with instance_bytes(file, self._memory) as data:
                size = len(data)
                report = self._verifier.verify(data)
        except ScansealError as error:
            return self.not_judged(file, error, size)
        graph = self._provenance(file, report)
        judgement = self._judgement(report, sources_verified=graph.sources_verified if graph else None)
        if self._as_json:
            document = {"file": str(file), "exit_code": judgement.exit_code, **document_of(report, judgement, graph)}
            shown = json.dumps(document)
        else:
            shown = text_of(file, report, judgement, graph)
        return FileResult(judgement.verdict, judgement.exit_code, size, shown)

    def not_judged(self, file: Path, error: ScansealError, size: int = 0) -> FileResult:
        """The answer for a file that could not be verified.

        Args:
            file: The file.
            error: Why.
            size: Its bytes, as far as they are known.
        """
        verdict = Verdict.INDETERMINATE
        code = EXIT_CODES[verdict]
        if self._as_json:
            document = {"file": str(file), "verdict": verdict, "exit_code": code, "error": exits.described(error)}
            return FileResult(verdict, code, size, json.dumps(document))
        return FileResult(verdict, code, size, f"{headline(file, verdict)}\n    {error.what} {error.remedy}")

    def _provenance(self, file: Path, report: InstanceReport) -> ProvenanceGraph | None:
        """From what it was made, where that can be looked up."""
        made_of_others = report.sources or report.content & {ContentClass.DERIVED, ContentClass.SYNTHETIC}
        return self._sources.graph(file, report.sop_instance_uid) if self._sources and made_of_others else None

    def _judgement(self, report: InstanceReport, *, sources_verified: bool | None) -> Judgement:
        return evaluate(report, self._receipt, self._policy, self._now, sources_verified=sources_verified)

    def _standing(self, report: InstanceReport) -> NodeVerdict:
        return standing(self._judgement(report, sources_verified=True))


def results_of(files: Sequence[Path], verifier: FileVerifier, jobs: int | None) -> Generator[FileResult, None, None]:
    """The answer for each file, in order.

    Args:
        files: Which.
        verifier: Answers.
        jobs: Processes at most; None for one for each CPU.

    Raises:
        ConfigurationError: There cannot be as many processes.
    """
    processes = min(jobs or len(os.sched_getaffinity(0)), ceil(len(files) / FILES_PER_PROCESS))
    if processes == 1 and not verifier.maps_any(files):
        yield from map(verifier.result, files)
        return
    lost = ScansealError(
        "The process that verified it ended before it had an answer.",
        remedy="If it or one of its sources was being written to, wait for the end of that and verify it again. "
        "If that fails as well, please report it.",
        code="process-lost",
    )
    yield from in_processes(verifier.result, files, processes, partial(verifier.not_judged, error=lost))


def _certificates(path: Path | None, files: StateFiles) -> tuple[x509.Certificate, ...]:
    return read_ca_certificates(path, files) if path else ()
