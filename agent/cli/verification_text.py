"""A verification as text, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from agent.cli.options import shown_name
from agent.dicom.provenance.graph import ProvenanceGraph
from agent.dicom.provenance.text import provenance_text
from agent.dicom.report import InstanceReport, Outcome, SignatureReport, Time
from agent.policy.judgement import Judgement
from agent.policy.verdicts import Action, Verdict

MEANING: dict[Verdict, str] = {
    Verdict.BROKEN: "was changed after it was signed, or the signature is damaged",
    Verdict.KEY_COMPROMISED: "is signed with a key that was stolen",
    Verdict.REVOKED: "is signed with a certificate that was revoked",
    Verdict.ALGORITHM_FORBIDDEN: "is signed with an algorithm that is not accepted",
    Verdict.ANTIQUE_UNPROVEN: "is signed with an algorithm that can be forged today, and nothing proves that it is old",
    Verdict.UNSIGNED_VIOLATION: "carries no signature that counts, and should",
    Verdict.VALID_WRONG_SIGNER: "is as it was signed, but not by the device that it names",
    Verdict.VALID_UNKNOWN_SIGNER: "is as it was signed, but nobody vouches for the signer",
    Verdict.INDETERMINATE: "could not be judged",
    Verdict.DERIVED_UNVERIFIED_SOURCE: "was derived from something that is not verified",
    Verdict.SYNTHETIC_UNVERIFIED: "was made by a model, and its source is not verified",
    Verdict.VALID_NO_TRUSTED_TIME: "is as it was signed, but nothing proves that this was in time",
    Verdict.VALID_PARTIAL_COVERAGE: "is as it was signed, but not everything that should be covered is",
    Verdict.VALID_VENDOR_ONLY: "is as it was signed, but the certificate names no single device",
    Verdict.VALID_UNLISTED_DEVICE: "is as it was signed, by a device that is not the one listed or named",
    Verdict.ANTIQUE_PROVEN: "is signed with an old algorithm, and known to be old",
    Verdict.UNSIGNED_IN_GRACE: "carries no signature, and need not for some days yet",
    Verdict.UNSIGNED_NOT_YET_EXPECTED: "carries no signature, and need not yet",
    Verdict.UNSIGNED_EXEMPT: "carries no signature, and is exempt",
    Verdict.UNSIGNED_NOT_COVERED: "carries no signature, and no rule asks for one",
    Verdict.UNSIGNED: "carries no signature",
    Verdict.DERIVED_VERIFIED_SOURCES: "was derived, and its sources are verified",
    Verdict.VALID_EXPECTED_SIGNER: "is as it was signed, by the device that the policy names",
    Verdict.VALID: "is as it was signed, by the device that it names, which leads to your anchor",
}


def text_of(file: Path, report: InstanceReport, judgement: Judgement, graph: ProvenanceGraph | None) -> str:
    """What was found of one file, and what it comes to, in lines."""
    restored = any(signature.intact and signature.restored for signature in report.signatures)
    lines = [headline(file, judgement.verdict, judgement.action, restored=restored)]
    lines += [f"    {line}" for line in judgement.explanation]
    for signature in (*report.signatures, *report.nested):
        lines += _signature(signature)
    lines += [f"    {finding.what}" for finding in report.findings]
    if graph:
        lines += [f"    {line}" for line in provenance_text(graph).splitlines()]
    return "\n".join(lines)


def headline(file: Path, verdict: Verdict, action: Action = Action.ACCEPT, *, restored: bool = False) -> str:
    """The line that says it all; `restored` tells that a signature is not right as the image is stored."""
    remarks = ["restored: see below"] * restored + [str(action)] * (action is not Action.ACCEPT)
    line = f"{shown_name(file)}: {verdict}: it {MEANING[verdict]}"
    return f"{line} ({', '.join(remarks)})" if remarks else line


def summary_of(verdicts: Mapping[Verdict, int]) -> str:
    """How many files came to what, the worst first."""
    counts = (f"{verdicts[verdict]} {verdict}" for verdict in Verdict if verdict in verdicts)
    total = sum(verdicts.values())
    return f"{total} file{'' if total == 1 else 's'}: {', '.join(counts)}"


def _signature(report: SignatureReport) -> Iterator[str]:
    where = f" in {report.location}" if report.location else ""
    yield f"    signed{where} {report.signed_at} by {report.signer}, {len(report.coverage.covered)} elements"
    if report.time.trusted:
        yield f"      time stamp: existed by {report.time.trusted:%Y-%m-%d %H:%M} UTC, says {report.time.authority}"
    yield from _key_usage(report.time)
    for name, fact in report.facts.items():
        if fact.findings:
            yield f"      {name} {fact.outcome}: {' '.join(finding.what for finding in fact.findings)}"
    if report.diagnosis and not report.restored:  # else it is a finding
        yield f"      diagnosis: {report.diagnosis.what}"


def _key_usage(time: Time) -> Iterator[str]:
    """Of a key that signs for a shorter time than its certificate is valid: when, and how much of that is proven."""
    period = time.key_usage_period
    if period is None:
        return
    in_time = "the signer says that it was"
    if time.trusted and period.not_after and time.trusted <= period.not_after:
        in_time = "the time stamp proves that it was not used later"
    if time.outcome is Outcome.FAILED:
        in_time = "see below"
    yield f"      key: to be used {period}; {in_time}"
