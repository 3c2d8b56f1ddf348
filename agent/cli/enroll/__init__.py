"""`scanseal enroll`."""

from __future__ import annotations

import importlib

import click

from agent.cli.exits import check_command_name

# In the order of preference of the help text; a flow is loaded when it is asked for.
FLOWS = {
    "est": "from a CA that speaks Enrollment over Secure Transport (RFC 7030)",
    "acme": "from a CA that speaks ACME (RFC 8555), with evidence of where the key lives",
    "cmp": "from a CA that speaks the Certificate Management Protocol (RFC 9483)",
    "offline": "from any CA, by USB stick or mail; AD CS among them",
    "scep": "from a CA that speaks nothing but SCEP (RFC 8894); the last choice, off unless configured",
    "vendor": "from the vendor of the scanner: its factory identity, and certificates that sign",
}


class _Flows(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(FLOWS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in FLOWS:
            return None
        command: click.Command = importlib.import_module(f"agent.cli.enroll.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        check_command_name(args[0], FLOWS)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Ways"):
            formatter.write_dl(list(FLOWS.items()))


@click.group("enroll", cls=_Flows)
def command() -> None:
    """Get a certificate for this scanner."""
