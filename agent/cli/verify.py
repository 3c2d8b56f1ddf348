"""`scanseal verify`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import click

from agent.cli.options import echo_over_progress, input_files, json_option, progress
from agent.cli.verification_text import summary_of
from agent.cli.verifying import FileResult, FileVerifier, Question, results_of
from agent.dicom.profile import ProfileName
from agent.policy.verdicts import ExitCode, Verdict

_file = click.Path(path_type=Path, readable=False)


@click.command("verify")
@click.argument("paths", nargs=-1, required=True, type=_file, metavar="PATH...")
@click.option("--anchor", type=_file, help="CA certificates you trust, PEM or DER. Without it no signer is known.")
@click.option("--intermediate", type=_file, help="CA certificates that may stand between, PEM or DER.")
@click.option("--time-stamp-anchor", type=_file, help="CA certificates you trust for time stamps, PEM or DER.")
@click.option("--revocation-list", type=_file, help="File with the CRLs of your CAs, PEM or DER.")
@click.option("--policy", type=_file, help="Policy file: which device should sign from which day. See docs/policy.md.")
@click.option(
    "--received",
    type=click.DateTime(["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%d"]),
    help="When you first received the files and their sources; a bare date is read as UTC. Default: now.",
)
@click.option("--sending-ae", default="", help="Application entity title that sent them to you.")
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
               Of several files: 0 only if all are; else that of the verdict that stands highest (docs/policy.md).

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
    verifier = FileVerifier(question)
    hidden = as_json and sys.stdout.isatty()  # the document is one line
    with progress(files, "Verifying", hidden=hidden) as done, closing(results_of(files, verifier, jobs)) as results:
        if as_json:
            return _print_json(results, done)
        return _print_text(results, done, quiet=quiet)


@dataclass
class _Tally:
    """What all files come to.

    Attributes:
        verdicts: How many there are of each.
        exit_code: Of the worst: never 0 if one is not, and of the others that whose verdict stands highest.
    """

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    exit_code: ExitCode = ExitCode.AS_EXPECTED
    _worst: tuple[bool, int] = (True, len(Verdict))

    def add(self, result: FileResult) -> None:
        """One file more."""
        self.verdicts[result.verdict] += 1
        place = (result.exit_code is ExitCode.AS_EXPECTED, result.verdict.rank)
        if place < self._worst:
            self._worst, self.exit_code = place, result.exit_code


def _print_json(results: Iterator[FileResult], done: Callable[[int], None]) -> ExitCode:
    """One document on one line; a part of it is printed as soon as it is known."""
    tally = _Tally()
    opening = '{"files": ['
    for result in results:
        click.echo(f"{opening}{result.shown}", nl=False)
        opening = ", "
        tally.add(result)
        done(result.size)
    click.echo(f'], "summary": {json.dumps(tally.verdicts)}}}')
    return tally.exit_code


def _print_text(results: Iterator[FileResult], done: Callable[[int], None], *, quiet: bool) -> ExitCode:
    """The answer for each file as soon as it is known, and the summary."""
    tally = _Tally()
    silent = True
    for result in results:
        if result.exit_code is not ExitCode.AS_EXPECTED or not quiet:
            echo_over_progress(result.shown)
            silent = False
        tally.add(result)
        done(result.size)
    if silent or tally.verdicts.total() > 1:
        echo_over_progress(summary_of(tally.verdicts))
    return tally.exit_code
