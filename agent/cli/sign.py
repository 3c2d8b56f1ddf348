"""`scanseal sign`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from agent.cli import exits
from agent.cli.options import config_option, configuration, json_option, progress, regular_file, show, written_whole
from agent.client import SigningClient, apply_splice
from agent.daemon.wire import HashName, Role
from agent.dicom.profile import ProfileName
from agent.dicom.purposes import PURPOSES
from agent.errors import OutputFileError
from enroll.errors import ScansealError

_WARNINGS = {
    "proves-vendor-only": "its certificate is for all devices of the vendor, and does not prove which one has signed",
    "clock-suspect": "the clock of this machine is not believed, and the time in the signature comes from it",
    "device-identity-missing": "it does not say which device made it: no Device Serial Number, no Device UID",
}


@click.command("sign")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, readable=False), metavar="FILE...")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Where the signed instance goes, for one FILE.")
@click.option(
    "--output-directory",
    type=click.Path(path_type=Path),
    help="Where the signed instances go, under the names of the FILEs. Made if it is not there.",
)
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default="acquisition",
    show_default=True,
    help="What is signed.",
)
@click.option(
    "--profile",
    type=click.Choice([name.value for name in ProfileName]),
    help="What is covered. Default: [signing] profile of the agent.",
)
@click.option(
    "--algorithm",
    type=click.Choice([name.value for name in HashName]),
    help="Hash of the signature. Default: [signing] hash of the agent.",
)
@click.option(
    "--purpose",
    type=click.Choice(list(PURPOSES)),
    metavar="CODE",
    help="Why it is signed: a code of DICOM CID 7007 from 1 to 18, such as 1 author, 5 verification, 14 source.",
)
@click.option("--force", is_flag=True, help="Replace signed files that are there already.")
@click.option("--socket", type=click.Path(path_type=Path), help="The agent's socket. Default: [socket] path.")
@config_option
@json_option
def command(  # noqa: PLR0913, PLR0917 - one argument for each option
    files: tuple[Path, ...],
    output: Path | None,
    output_directory: Path | None,
    role: str,
    profile: str | None,
    algorithm: str | None,
    purpose: str | None,
    socket: Path | None,
    config: Path,
    *,
    force: bool,
    as_json: bool,
) -> int:
    """Have DICOM files signed by the agent.

    The originals are not touched, and nothing is replaced without --force. A file that cannot be signed is named, and
    the next one is signed.

    \b
    Exit code: 0 all signed, 65 one cannot be signed, 66 one cannot be read, 69 the agent cannot sign now,
               73 one cannot be written, 77 you may not sign in this role.

    \b
    Example: scanseal sign --output-directory signed/ study/*.dcm
    """
    targets = _targets(files, output, output_directory)
    path = socket or configuration(config).agent.socket.path
    results: list[dict[str, Any]] = []
    failures: list[int] = []
    how = {"role": role, "profile": profile or "", "algorithm": algorithm or "", "purpose": purpose or ""}
    with progress(files, "Signing") as sent, SigningClient(path, on_sent=sent) as client:
        for source, target in zip(files, targets, strict=True):
            try:
                _check_target(source, target, force=force)
                results.append(_signed(client, source, target, **how))
            except ScansealError as error:
                failures.append(exits.exit_code(error))
                results.append({"file": str(source), "error": exits.described(error)})
    show({"files": results}, "\n".join(map(_text, results)), as_json=as_json)
    return failures[0] if failures else exits.OK


def _targets(files: Sequence[Path], output: Path | None, output_directory: Path | None) -> list[Path]:
    if (output is None) == (output_directory is None):
        raise click.UsageError("Say where the signed files go: --output FILE or --output-directory DIRECTORY.")
    if output_directory is None:
        if output is None or len(files) != 1:
            raise click.UsageError("--output takes one FILE. Use --output-directory for several.")
        return [output]
    names = Counter(file.name for file in files)
    name, count = names.most_common(1)[0]
    if count > 1:
        raise click.UsageError(
            f"{count} FILEs are called {name!r}, so one would replace the other. Sign them separately."
        )
    return [output_directory / file.name for file in files]


def _check_target(source: Path, target: Path, *, force: bool) -> None:
    """Keep what is there already.

    Raises:
        OutputFileError: Something is, and must not be replaced.
    """
    if not target.exists():
        return
    if source.exists() and target.samefile(source):
        raise OutputFileError(f"{target} is the original.", remedy="Choose another place for the signed file.")
    if not force:
        raise OutputFileError(f"{target} exists.", remedy="Choose another place, or replace it with --force.")


def _signed(client: SigningClient, source: Path, target: Path, **how: str) -> dict[str, Any]:
    with regular_file(source) as instance:
        splice = client.splice_instance(instance, **how)
        with written_whole(target) as signed:
            apply_splice(instance, splice.edits, signed)
    return {
        "file": str(source),
        "signed": str(target),
        "sop_instance_uid": splice.sop_instance_uid,
        "signature_uid": splice.signature_uid,
        "key_generation": splice.key_generation,
        "warnings": splice.warnings,
    }


def _text(result: dict[str, Any]) -> str:
    if error := result.get("error"):
        return f"{result['file']}: not signed ({error['code']}). {error['what']} {error['remedy']}"
    lines = [f"{result['file']}: signed, written to {result['signed']}"]
    lines += [
        f"    warning ({code}): {_WARNINGS.get(code, 'see docs/socket-protocol.md')}" for code in result["warnings"]
    ]
    return "\n".join(lines)
