"""`scanseal fdo`."""

from __future__ import annotations

import importlib

import click

from agent.cli.exits import check_command_name

# A command is loaded when it is asked for.
COMMANDS = {
    "init": "in the factory: make the key of this scanner, and fetch its first credential from the manufacturer",
    "voucher": "show, check and pass on ownership vouchers: who has owned this scanner?",
    "approve": "let an owner have this scanner who waits for that",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"agent.cli.fdo.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        check_command_name(args[0], COMMANDS)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group("fdo", cls=_Commands)
def command() -> None:
    """Keep what FIDO Device Onboard needs: the credential of this scanner, and the vouchers of its owners.

    The owner takes the scanner over by `scanseal enroll fdo`.

    \b
    Exit code: 64 no command is named; otherwise that of the command, see its --help.

    \b
    Examples: scanseal fdo init --serial-number CT-4711
              scanseal fdo voucher show voucher.pem
    """
