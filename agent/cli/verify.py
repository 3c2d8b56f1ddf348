"""`scanseal verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.cli import exits
from agent.cli.options import json_option, mapped, progress, show
from agent.dicom.elements import tag_name
from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.report import SignatureReport, Verdict, VerificationReport
from agent.dicom.verify import Verification, verify_instance
from enroll.clock import SystemClock
from enroll.errors import ScansealError
from enroll.statefile import StateFiles
from enroll.trust import read_anchors

# The worst first: of several files, the first that applies is the exit code.
EXIT_CODES: dict[str, int] = {
    Verdict.BROKEN: exits.BROKEN,
    Verdict.UNKNOWN_SIGNER: exits.VALID_WITH_RESERVATIONS,
    Verdict.INDETERMINATE: exits.INDETERMINATE,
    Verdict.PARTIAL_COVERAGE: exits.VALID_WITH_RESERVATIONS,
    Verdict.UNSIGNED: exits.UNSIGNED,
    Verdict.VALID: exits.OK,
}
MEANING: dict[str, str] = {
    Verdict.BROKEN: "was changed after it was signed, or the signature is damaged",
    Verdict.UNKNOWN_SIGNER: "is as it was signed, but nobody vouches for the signer",
    Verdict.INDETERMINATE: "could not be judged",
    Verdict.PARTIAL_COVERAGE: "is as it was signed, but not everything that should be covered is",
    Verdict.UNSIGNED: "carries no signature",
    Verdict.VALID: "is as it was signed, by a signer that leads to your anchor",
}


@click.command("verify")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, readable=False), metavar="FILE...")
@click.option(
    "--anchor",
    type=click.Path(path_type=Path, readable=False),
    help="PEM file with the CA certificates you trust. Without it no signer is known.",
)
@json_option
def command(files: tuple[Path, ...], anchor: Path | None, *, as_json: bool) -> int:
    """Check the signatures of DICOM files.

    \b
    Exit code: 0 all valid, 1 one was changed, 3 signer unknown or coverage partial,
               4 one is unsigned, 7 one could not be read or judged, 78 the anchor file cannot be used.

    \b
    Example: scanseal verify --anchor hospital-ca.pem study/*.dcm
    """
    verification = Verification(
        profile=load_profile(ProfileName.CREATOR_RSA),
        now=SystemClock().now(),
        anchors=read_anchors(anchor, StateFiles()) if anchor else (),
    )
    results = []
    with progress(files, "Verifying") as done:
        for file in files:
            results.append(_verified(file, verification))
            done(file.stat().st_size if file.is_file() else 0)
    text = "\n".join(_text(result) for result in results)
    show({"files": results}, text, as_json=as_json)
    verdicts = {result["verdict"] for result in results}
    return next(code for verdict, code in EXIT_CODES.items() if verdict in verdicts)


def _verified(file: Path, verification: Verification) -> dict[str, Any]:
    try:
        with mapped(file) as data:
            report = verify_instance(data, verification)
    except ScansealError as error:
        return {"file": str(file), "verdict": Verdict.INDETERMINATE, "error": exits.described(error)}
    return {"file": str(file), **described(report)}


def described(report: VerificationReport) -> dict[str, Any]:
    """A report for programs."""
    return {"verdict": report.verdict, "signatures": [_signature(signature) for signature in report.signatures]}


def _signature(signature: SignatureReport) -> dict[str, Any]:
    return {
        "verdict": signature.verdict,
        "intact": signature.intact,
        "trusted": signature.trusted,
        "reason": signature.reason,
        "signer": signature.signer,
        "signed_at": signature.signed_at,
        "signature_uid": signature.uid,
        "mac_algorithm": signature.algorithm,
        "covered": [tag_name(tag) for tag in signature.covered],
        "not_covered": [tag_name(tag) for tag in signature.not_covered],
    }


def _text(result: dict[str, Any]) -> str:
    lines = [f"{result['file']}: {result['verdict']}: it {MEANING[result['verdict']]}"]
    if error := result.get("error"):
        lines.append(f"    {error['what']} {error['remedy']}")
    for signature in result.get("signatures", ()):
        lines.append(
            f"    signed {signature['signed_at']} by {signature['signer']}, {len(signature['covered'])} elements"
        )
        if signature["reason"]:
            lines.append(f"    {signature['reason']}")
        if signature["not_covered"]:
            lines.append(f"    not covered: {', '.join(signature['not_covered'])}")
    return "\n".join(lines)
