"""`scanseal audit`."""

from __future__ import annotations

from pathlib import Path

import click

from agent.audit import verify
from agent.cli.options import config_option, configuration, json_option, show


@click.group("audit")
def command() -> None:
    """Look after the audit trail.

    \b
    verify   check that no line was changed, dropped or moved
    """


@command.command("verify")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@config_option
@json_option
def verify_trail(file: Path | None, config: Path, *, as_json: bool) -> None:
    """Check the chain of an audit trail from its first line to its last.

    FILE defaults to the trail of the configured agent. Lines cut off at the end cannot be noticed: compare the last
    hash with one that was noted elsewhere.

    \b
    Exit code: 0 whole, 78 changed or unreadable; the message names the line.

    \b
    Example: scanseal audit verify /var/lib/scanseal/audit/audit.jsonl
    """
    path = file or configuration(config).enroll.state_directory / "audit" / "audit.jsonl"
    summary = verify(path)
    cut = f", {len(summary.torn)} lines cut short by a crash and named" if summary.torn else ""
    show(
        {"file": str(path), "records": summary.records, "torn": summary.torn, "last_hash": summary.last_hash},
        f"{path}: {summary.records} records, unbroken{cut}. Last hash: {summary.last_hash}",
        as_json=as_json,
    )
