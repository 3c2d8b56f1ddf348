"""`scanseal`: finds the command, runs it, and turns whatever happens into a message and an exit code."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Sequence

import click

import agent
from agent.cli import exits
from agent.cli.command_group import CommandGroup
from enroll.errors import ScansealError

COMMANDS = {
    "demo": "agent.cli.demo",
    "agent": "agent.cli.agent",
    "enroll": "agent.cli.enroll",
    "fdo": "agent.cli.fdo",
    "renew": "agent.cli.renew",
    "revoke": "agent.cli.revoke",
    "owner": "agent.cli.owner",
    "acme-account": "agent.cli.acme_account",
    "attest": "agent.cli.attest",
    "status": "agent.cli.status",
    "check": "agent.cli.check",
    "sign": "agent.cli.sign",
    "verify": "agent.cli.verify",
    "timestamp": "agent.cli.timestamp",
    "audit": "agent.cli.audit",
    "evaluation-ca": "agent.cli.evaluation_ca",
    "evaluation-vendor": "agent.cli.evaluation_vendor",
    "evaluation-fdo": "agent.cli.evaluation_fdo",
}


@click.group(cls=CommandGroup, modules=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(agent.__version__, message="%(version)s")
def scanseal() -> None:
    """Gives a scanner an identity of its own, and lets it sign every image it makes.

    \b
    Try it out:             scanseal demo
    Get a certificate:      scanseal enroll
    Offer signatures:       scanseal agent
    Sign and verify:        scanseal sign image.dcm --output signed.dcm
                            scanseal verify signed.dcm --anchor ca.pem
    """


def run(arguments: Sequence[str]) -> int:  # noqa: PLR0911 - one for each kind of end
    """Run a command.

    Returns:
        The exit code, as listed in `agent.cli.exits`.
    """
    try:
        result = scanseal.main(args=list(arguments), prog_name="scanseal", standalone_mode=False)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.ClickException as error:
        error.show()
        return exits.USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return exits.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone; there is nobody left to tell.
        sys.stdout = None
        return exits.OUTPUT
    except ScansealError as error:
        _report(error, as_json="--json" in arguments)
        return exits.exit_code(error)
    except Exception:  # noqa: BLE001 - the top loop: whatever it is, it must not look like a verdict
        traceback.print_exc()
        click.echo("This is a fault of scanseal. Please report it together with the lines above.", err=True)
        return exits.INTERNAL
    return result if isinstance(result, int) else exits.OK


def _report(error: ScansealError, *, as_json: bool) -> None:
    described = exits.described(error)
    if as_json:
        click.echo(json.dumps({"error": described}))
        return
    first, *more = exits.told(described)
    click.echo("\n       ".join([f"Error [{error.code}]: {first}", *more]), err=True)


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
