"""`scanseal renew`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from agent.cli import exits, releasing
from agent.cli.options import config_option, configuration, json_option, show
from agent.cli.renewing import Outcome, Renewals
from agent.daemon.hardening import protect_memory
from enroll.clock import SystemClock
from enroll.clock_sense import ClockSense
from enroll.device_state import DeviceEvent
from enroll.enroller import Enroller
from enroll.errors import DeviceDisabled
from enroll.owner_release import OwnerRelease
from enroll.revocation.watch import watch_revocations
from enroll.statefile import StateFiles


@click.command("renew")
@config_option
@click.option("--force", is_flag=True, help="Renew now, whether due or not.")
@click.option(
    "--unattended",
    is_flag=True,
    help="For the timer: heed [renewal] and the pauses after failures, try again after a minute, say only what is new.",
)
@click.option("--dry-run", is_flag=True, help="Only say what is due, when it is tried next, and why not now.")
@json_option
def command(config: Path, *, force: bool, unattended: bool, dry_run: bool, as_json: bool) -> int:
    """Renew what is due: new key, new certificate, then the switch.

    What `scanseal enroll` asked for and has not got yet is asked for again.

    First the CAs are asked whether they have revoked a certificate of this scanner. The agent stops signing with one
    that they have, and it is renewed at once where they say that it was only superseded; else a person has to enroll.

    The agent notices the switch by itself, between two requests. A timer runs this command with --unattended; when
    nothing is due it does nothing. A key in memory (key_store = "memory") is made by the agent, which asks for the next
    certificate by itself: it is due when the agent has asked, and --force changes nothing.

    After a failure the timer tries again after 1, 10 and 100 minutes, then daily, and more often near the end. It
    never gives up. Without --unattended what is due is tried now, whatever failed before.

    \b
    Exit code: 0 nothing due or renewed, 75 the CA has not decided yet, or what failed is tried again later, or a
               certificate that came by hand is due and waits for a person (scanseal enroll offline), otherwise that
               of the first failure.
    """
    if force and unattended:
        raise click.UsageError("--force is for people, --unattended for the timer.")
    protect_memory()
    settings = configuration(config).enroll
    with Enroller.configured(settings, SystemClock(), StateFiles()) as enroller:
        try:
            if dry_run:
                enroller.context.identities.owner_file.check_allowed(DeviceEvent.RENEW)
            else:
                _prepare(enroller, unattended=unattended)
        except DeviceDisabled as error:
            if not unattended:
                raise
            click.echo(error.what, err=True)  # somebody wants it so, and need not be told by a failed service
            return exits.OK
    renewals = Renewals(settings, SystemClock(), unattended=unattended, force=force, dry_run=dry_run)
    return _show(renewals.run(), as_json=as_json, unattended=unattended and not dry_run)


def _prepare(enroller: Enroller, *, unattended: bool) -> None:
    """What comes before renewals."""
    context = enroller.context
    _finish_release(enroller)
    ClockSense.of(context.clock).keep()
    # Also while the scanner is disabled: whoever enables it gets none that signs with a revoked certificate.
    watch_revocations(context.settings, context.clock, context.identities, patient=unattended)
    context.identities.owner_file.check_allowed(DeviceEvent.RENEW)
    enroller.collect()


def _finish_release(enroller: Enroller) -> None:
    """Go on with what `scanseal owner release` could not bring to its end."""
    if OwnerRelease(enroller.context).is_under_way:
        tasks = releasing.release(enroller.context)
        click.echo("The scanner is released: what was begun is finished.", err=True)
        for task in tasks:
            click.echo(f"By hand: {task}", err=True)


def _show(outcomes: Sequence[Outcome], *, as_json: bool, unattended: bool) -> int:
    said = [outcome.line for outcome in outcomes if outcome.is_shown and not (unattended and outcome.quiet)]
    if said or as_json:
        show({"identities": [outcome.record for outcome in outcomes]}, "\n".join(said), as_json=as_json)
    codes = [outcome.code for outcome in outcomes]
    return next((code for code in codes if code not in {exits.OK, exits.TRY_LATER}), max(codes))
