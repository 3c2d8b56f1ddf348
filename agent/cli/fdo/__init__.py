"""`scanseal fdo`."""

from __future__ import annotations

import click

from agent.cli.command_group import CommandGroup

COMMANDS = {
    "init": "in the factory: make the key of this scanner, and fetch its first credential from the manufacturer",
    "voucher": "show, check and pass on ownership vouchers: who has owned this scanner?",
    "approve": "let an owner have this scanner who waits for that",
}


@click.group(
    "fdo",
    cls=CommandGroup,
    modules={name: f"agent.cli.fdo.{name}" for name in COMMANDS},
    described=COMMANDS,
    title="Commands",
)
def command() -> None:
    """Keep what FIDO Device Onboard needs: the credential of this scanner, and the vouchers of its owners.

    The owner takes the scanner over by `scanseal enroll fdo`.

    \b
    Exit code: 64 no command is named; otherwise that of the command, see its --help.

    \b
    Examples: scanseal fdo init --serial-number CT-4711
              scanseal fdo voucher show voucher.pem
    """
