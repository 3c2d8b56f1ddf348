"""`scanseal owner`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from agent.cli import exits, releasing
from agent.cli.deciding import Decision
from agent.cli.options import config_option, configuration, json_option, show
from agent.daemon.hardening import protect_memory
from enroll.clock import SystemClock
from enroll.clock_sense import ClockSense
from enroll.enroller import Enroller
from enroll.flows.base import FlowContext
from enroll.identity import IdentityStore
from enroll.keystore import KeyStores
from enroll.owner_record import ENABLE
from enroll.owner_release import Inventory, OwnerRelease
from enroll.statefile import StateFiles


@click.group("owner")
def command() -> None:
    """For the owner of this scanner."""


@command.command("disable")
@config_option
@click.option("--reason", metavar="TEXT", default="", help="Why, in one line; for status and the audit trail.")
@json_option
def disable(config: Path, *, reason: str, as_json: bool) -> int:
    """Have nothing signed and nothing enrolled on this scanner, from now on and over every restart.

    An agent that runs signs nothing more at once. Keys and certificates stay as they are. Run it as root or as the user
    of the service.

    \b
    Exit code: 0 disabled, 69 the disk refused, 78 the state directory has to be corrected.

    \b
    Example: scanseal owner disable --reason "it is lent to another hospital"
    """
    decision = Decision(configuration(config).enroll.state_directory, StateFiles(), SystemClock())
    record = decision.disable(reason)
    since = f"{record.since:%Y-%m-%d %H:%M} UTC"
    shown = {"state": "disabled", "since": record.since.isoformat(), "reason": record.reason}
    show(shown, f"The scanner is disabled since {since}. To undo: {ENABLE}", as_json=as_json)
    return exits.OK


@command.command("enable")
@config_option
@click.option(
    "--reset-record",
    "reset",
    is_flag=True,
    help="Also where the record of the owner is damaged or missing, so that nobody knows whether it was disabled.",
)
@json_option
def enable(config: Path, *, reset: bool, as_json: bool) -> int:
    """Let this scanner sign and enroll again. Run it as root or as the user of the service.

    \b
    Exit code: 0 enabled, or not disabled at all, 69 the disk refused, 78 the record of the owner is damaged or missing.

    \b
    Example: scanseal owner enable
    """
    decision = Decision(configuration(config).enroll.state_directory, StateFiles(), SystemClock())
    is_new = decision.enable(reset=reset)
    text = "The scanner is enabled." if is_new else "The scanner was not disabled."
    show({"state": "enabled", "changed": is_new}, text, as_json=as_json)
    return exits.OK


@command.command("release")
@config_option
@click.option("--dry-run", is_flag=True, help="Only say what goes, what stays, and what is left to do.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--without-token",
    "without_tokens",
    metavar="LABEL",
    multiple=True,
    help="A token that is lost for good: its keys are not destroyed, only named. May be given several times.",
)
@json_option
def release(config: Path, *, dry_run: bool, yes: bool, without_tokens: Sequence[str], as_json: bool) -> int:
    """Give this scanner up, before it is sold: destroy the keys and certificates of its owner.

    The agent stops signing with them at once. What the vendor has given stays, the FDO credential with it, so that the
    next owner can take the scanner over: scanseal enroll fdo. Run that when the scanner has left this network, or its
    owner up to now takes it over again. The audit trail stays, too.

    A release that was cut off, or for which a token was away, is finished by the next run, or by the timer.

    \b
    Exit code: 0 released, 69 a token or TPM is away: run it again, 75 an enrollment is running,
               78 a key store has to be corrected, 130 you did not agree, or stopped it.

    \b
    Example: scanseal owner release --dry-run
    """
    protect_memory()
    settings, files = configuration(config).enroll, StateFiles()
    state = settings.state_directory
    # As in scanseal.toml, without what the owner has said by FDO: that is nothing to be removed by hand.
    stores = KeyStores(settings.keystore, state, files, without_tokens)
    identities = IdentityStore(state, files)
    clock = ClockSense.configured(SystemClock(), identities)
    context = FlowContext(settings, stores, identities, clock, files)
    with Enroller(context):
        owner_release = OwnerRelease(context)
        inventory = owner_release.inventory()
        if dry_run:
            show(asdict(inventory), f"{_text(inventory)}\nNothing was changed.", as_json=as_json)
            return exits.OK
        has_something = owner_release.is_under_way or bool(inventory.goes)
        if not (yes or _agreed(inventory)):
            click.echo(releasing.UNFINISHED if owner_release.is_under_way else "Nothing was released.", err=True)
            return exits.INTERRUPTED
        files.check_owner(state)
        by_hand = releasing.release(context)
    done = "The scanner is released." if has_something else "Nothing of an owner was there."
    show({"state": "released", "by_hand": by_hand}, "\n".join([done, *_list("By hand", by_hand)]), as_json=as_json)
    return exits.OK


def _agreed(inventory: Inventory) -> bool:
    click.echo(_text(inventory), err=True)
    try:
        return click.confirm("Destroy what goes?" if inventory.goes else "Go on?", err=True)
    except click.Abort:  # nobody is there, or it was interrupted
        click.echo(err=True)
        return False


def _text(inventory: Inventory) -> str:
    goes = _list("Goes", inventory.goes or ("nothing: no key or certificate of an owner is here",))
    return "\n".join([*goes, *_list("Stays", inventory.stays), *_list("By hand", inventory.by_hand)])


def _list(title: str, entries: Sequence[str]) -> list[str]:
    return [f"{title if number == 0 else '':8} {entry}" for number, entry in enumerate(entries)]
