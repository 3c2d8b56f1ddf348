"""`scanseal fdo approve`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from agent.cli.options import config_option, configuration, json_option, show
from enroll.clock import SystemClock
from enroll.fdo.credential import fdo_directory
from enroll.fdo.owner_policy import OwnerPolicy
from enroll.statefile import StateFiles


@click.command("approve")
@config_option
@click.argument("fingerprint", required=False)
@click.option("--none", "nobody", is_flag=True, help="Take an approval back: nobody is approved.")
@json_option
def command(config: Path, fingerprint: str | None, *, nobody: bool, as_json: bool) -> None:
    """Let an owner that waits for it have this scanner; `scanseal status` shows who waits.

    FINGERPRINT is that of the owner's key or of its voucher, as the owner gave it to you: on paper, not on the screen
    of this scanner. Where the owner comes with another voucher later, it has to be approved again. One owner is
    approved at a time: to approve another one takes the approval of the first back.

    \b
    Exit code: 0 done, 78 nobody waits, or nobody with this fingerprint.

    \b
    Examples: scanseal fdo approve 7D:A1:56:...
              scanseal fdo approve --none
    """
    if nobody == (fingerprint is not None):
        raise click.UsageError("Give a fingerprint, or --none.")
    settings, files = configuration(config).enroll, StateFiles()
    files.check_owner(settings.state_directory)
    policy = OwnerPolicy(settings.fdo, fdo_directory(settings.state_directory), files, SystemClock())
    if fingerprint is None:
        policy.take_back()
        show({"is_approved": False}, "Nobody is approved.", as_json=as_json)
        return
    approved = policy.approve(fingerprint)
    name = f" ({approved.name})" if approved.name else ""
    text = (
        f"Approved: the owner with the fingerprint {approved.owner}{name}, by the voucher {approved.voucher}.\n"
        "The next run of scanseal renew goes on; or run: scanseal enroll fdo"
    )
    show(asdict(approved), text, as_json=as_json)
