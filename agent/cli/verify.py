"""`scanseal verify`."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import click

from agent.cli.options import input_files, json_option, progress
from agent.cli.verification_text import summary_of
from agent.cli.verifying import FileResult, FileVerifier, Question, verified
from agent.dicom.profile import ProfileName

FILES_AT_ONCE = 32  # files that one process is given at a time

_file = click.Path(path_type=Path, readable=False)


@click.command("verify")
@click.argument("paths", nargs=-1, required=True, type=_file, metavar="PATH...")
@click.option(
    "--anchor", type=_file, help="PEM file with the CA certificates you trust. Without it no signer is known."
)
@click.option("--intermediate", type=_file, help="PEM file with CA certificates that may stand between.")
@click.option("--time-stamp-anchor", type=_file, help="PEM file with the CA certificates you trust for time stamps.")
@click.option("--revocation-list", type=_file, help="File with the CRLs of your CAs, PEM or DER.")
@click.option("--policy", type=_file, help="Policy file: which device should sign from which day. See docs/policy.md.")
@click.option(
    "--received",
    type=click.DateTime(["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%d"]),
    help="When you first received the files; a bare date is read as UTC. Default: now.",
)
@click.option("--sending-ae", default="", help="Application entity title that sent the files to you.")
@click.option("--sources", multiple=True, type=_file, help="File or folder with what the files were made from.")
@click.option(
    "--profile",
    type=click.Choice([name.value for name in ProfileName]),
    default="creator-plus",
    show_default=True,
    help="What a signature is expected to cover.",
)
@click.option("--jobs", type=click.IntRange(1, 256), help="Processes. Default: one for each CPU, for many files.")
@click.option("--quiet", "-q", is_flag=True, help="Print only what is not as it should be, and the summary.")
@json_option
def command(  # noqa: PLR0913, PLR0917 - one argument for each option
    paths: tuple[Path, ...],
    anchor: Path | None,
    intermediate: Path | None,
    time_stamp_anchor: Path | None,
    revocation_list: Path | None,
    policy: Path | None,
    received: datetime | None,
    sending_ae: str,
    sources: tuple[Path, ...],
    profile: str,
    jobs: int | None,
    *,
    quiet: bool,
    as_json: bool,
) -> int:
    """Check the signatures of DICOM files, and of all files in folders.

    \b
    Exit code: 0 all as expected, 1 one was changed, 2 one is unsigned and should not be, 3 valid with a reservation,
               4 unsigned and not expected to be signed, 5 algorithm or key not accepted, 6 derived from something
               unverified, 7 one could not be read or judged, 78 an anchor or policy file cannot be used.
               Of several files, the worst.

    \b
    Examples: scanseal verify --anchor hospital-ca.pem study/
              scanseal verify --anchor cas.pem --policy policy.toml --received 2027-01-05 inbox/
    """
    files = input_files(paths)
    question = Question(
        profile=ProfileName(profile),
        anchor=anchor,
        intermediate=intermediate,
        time_stamp_anchor=time_stamp_anchor,
        revocation_list=revocation_list,
        policy=policy,
        received=received.replace(tzinfo=received.tzinfo or UTC) if received else None,
        sending_ae=sending_ae,
        sources=tuple(input_files(sources)) if sources else (),
        as_json=as_json,
    )
    FileVerifier(question)  # says at once what cannot be used
    results: list[FileResult] = []
    with progress(files, "Verifying") as done:
        for result in results_of(files, question, jobs):
            results.append(result)
            done(result.size)
    verdicts = Counter(result.verdict for result in results)
    if as_json:
        shown = ", ".join(result.shown for result in results)
        click.echo(f'{{"files": [{shown}], "summary": {json.dumps(verdicts)}}}')
    else:
        lines = [result.shown for result in results if not quiet or result.exit_code]
        click.echo("\n".join((*lines, summary_of(verdicts)) if len(results) > 1 or not lines else lines))
    return min(results, key=lambda result: (result.verdict.rank, -result.exit_code)).exit_code


def results_of(files: Sequence[Path], question: Question, jobs: int | None) -> Iterator[FileResult]:
    """The result for each file, in order.

    Args:
        files: Which.
        question: What is asked of each.
        jobs: Processes; None for one for each CPU.
    """
    batches = [files[first : first + FILES_AT_ONCE] for first in range(0, len(files), FILES_AT_ONCE)]
    processes = min(jobs or len(os.sched_getaffinity(0)), len(batches))
    if processes == 1:
        for batch in batches:
            yield from verified(batch, question)
        return
    with ProcessPoolExecutor(processes) as pool:
        for batch_results in pool.map(_whole_batch, batches, [question] * len(batches)):
            yield from batch_results


def _whole_batch(files: Sequence[Path], question: Question) -> list[FileResult]:
    return list(verified(files, question))
