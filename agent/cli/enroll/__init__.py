"""`scanseal enroll`."""

from __future__ import annotations

import click

from agent.cli.command_group import CommandGroup
from agent.cli.exits import check_command_name

# In the order of preference of the help text.
FLOWS = {
    "est": "the CA speaks EST (RFC 7030)",
    "acme": "it speaks ACME (RFC 8555), as step-ca does, and the keys are in a TPM or token",
    "cmp": "it speaks CMP (RFC 9483), and the scanner has an identity from its factory",
    "offline": "any CA, by USB stick or mail: AD CS (Microsoft), or a scanner without a network",
    "scep": "it has nothing but SCEP (RFC 8894), as NDES: the last choice, off unless configured",
    "vendor": "instead of the owner's CA the vendor of the scanner: a factory identity, or a certificate that signs",
    "fdo": "instead of all that, where the owner has the voucher of the scanner: FIDO Device Onboard",
}


class _Flows(CommandGroup):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        check_command_name(args[0], FLOWS)
        if args[0] not in FLOWS:
            raise click.UsageError(f"There is no way {args[0]!r} to a certificate. The ways are: {', '.join(FLOWS)}.")
        return super().resolve_command(ctx, args)


@click.group(
    "enroll",
    cls=_Flows,
    modules={name: f"agent.cli.enroll.{name}" for name in FLOWS},
    described=FLOWS,
    title="Ways",
    subcommand_metavar="WAY [OPTIONS]...",
)
def command() -> None:
    """Get certificates for this scanner: one that says which scanner it is, one that signs images.

    Which way? Ask the operator of the CA what it speaks, and take the first that fits. What is needed for it stands in
    the table of its name in scanseal.toml. docs/operations/hospital-it.md has every step.

    \b
    Exit code: 64 no way is named; otherwise that of the way, see its --help.

    \b
    Examples: scanseal check                     is everything in place?
              scanseal enroll est --dry-run      what would be sent to whom? Nothing is sent
              scanseal enroll est
    """
