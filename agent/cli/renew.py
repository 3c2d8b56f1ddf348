"""`scanseal renew`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from agent.cli import enrolling, exits, releasing
from agent.cli.enrolling import OWNER_IDENTITIES, USUAL_IDENTITIES, command_by_hand, enroll_by
from agent.cli.options import config_option, configuration, json_option, show
from agent.daemon.hardening import protect_memory
from enroll.clock import Clock, SystemClock
from enroll.config import EnrollSettings
from enroll.enroller import Enroller, flow_of
from enroll.errors import ConfigurationError, ScansealError
from enroll.flows.offline import memory_key
from enroll.flows.offline.requests import HOPEFUL, Requests
from enroll.flows.settings import FlowName
from enroll.identity import VENDORS_IDENTITIES, Generation, IdentityName, IdentityStore
from enroll.issue import NotAsked, made_by_agent, waiting_offer
from enroll.journal import Step
from enroll.owner_release import OwnerRelease
from enroll.revocation.record import RevocationRecords
from enroll.revocation.watch import watch_revocations
from enroll.rotation import renewal_due, renewal_time
from enroll.statefile import StateFiles
from enroll.suggestion import suggested_renewal
from enroll.vendor.case import ServiceCase
from enroll.wanted import Wish

# In each half, the first identity proves who asks for the others.
_IN_ORDER = (IdentityName.IDEVID, IdentityName.VENDOR, *OWNER_IDENTITIES)
_UNDECIDED = {"pending", "export-due", "answer-due"}


@click.command("renew")
@config_option
@click.option("--force", is_flag=True, help="Renew now, whether due or not.")
@click.option("--dry-run", is_flag=True, help="Only say what is due.")
@json_option
def command(config: Path, *, force: bool, dry_run: bool, as_json: bool) -> int:
    """Renew what is due: new key, new certificate, then the switch.

    What `scanseal enroll` asked for and has not got yet is asked for again.

    First the CAs are asked whether they have revoked a certificate of this scanner. The agent stops signing with one
    that they have, and it is renewed at once where they say that it was only superseded; else a person has to enroll.

    The agent notices the switch by itself, between two requests. A timer runs this command; when nothing is due it does
    nothing. A key in memory (key_store = "memory") is made by the agent, which asks for the next certificate by itself:
    it is due when the agent has asked, and --force changes nothing.

    \b
    Exit code: 0 nothing due or renewed, 75 the CA has not decided yet, or a certificate that came by hand is due and
               waits for a person (scanseal enroll offline), otherwise that of the first failure.
    """
    protect_memory()
    settings = configuration(config).enroll
    clock = SystemClock()
    identities = IdentityStore(settings.state_directory, StateFiles())
    if not dry_run:
        _finish_release(settings, clock)
        watch_revocations(settings, clock, identities)
    records, lines, codes = [], [], []
    for identity in _IN_ORDER:
        # The factory identity lives as long as the scanner, and is replaced with a service ticket.
        if identity is IdentityName.IDEVID and _wish(identity, settings, identities) is None:
            continue
        try:
            at_once = force or RevocationRecords(identities).calls_for_renewal(identity)
            record, line = _renewed(identity, settings, clock, force=force, at_once=at_once, dry_run=dry_run)
            codes.append(exits.TRY_LATER if record["state"] in _UNDECIDED else exits.OK)
        except ScansealError as error:
            # One identity that cannot be renewed must not keep the others from it.
            codes.append(exits.exit_code(error))
            record = {"identity": identity, "state": "failed", "error": exits.described(error)}
            line = "\n    ".join([f"{identity}: not renewed [{error.code}]", *exits.told(record["error"])])
        records.append(record)
        # Most scanners have only the usual identities, and nobody has to get another.
        if identity in USUAL_IDENTITIES or record["state"] != "absent":
            lines.append(line)
    show({"identities": records}, "\n".join(lines), as_json=as_json)
    return next((code for code in codes if code not in {exits.OK, exits.TRY_LATER}), max(codes))


def _finish_release(settings: EnrollSettings, clock: Clock) -> None:
    """Go on with what `scanseal owner release` could not bring to its end."""
    with Enroller.configured(settings, clock, StateFiles()) as enroller:
        if OwnerRelease(enroller.context).is_under_way:
            tasks = releasing.release(enroller.context)
            click.echo("The scanner is released: what was begun is finished.", err=True)
            for task in tasks:
                click.echo(f"By hand: {task}", err=True)


def _renewed(  # noqa: PLR0913 - what is to be done
    identity: IdentityName, settings: EnrollSettings, clock: Clock, *, force: bool, at_once: bool, dry_run: bool
) -> tuple[dict[str, Any], str]:
    """What was done, for programs and for people."""
    identities = IdentityStore(settings.state_directory, StateFiles())
    if made_by_agent(identity, settings):
        return _served(identity, settings, clock, force=force, dry_run=dry_run)
    current = identities.current(identity)
    if current is None:
        stays = _absent(identity, settings, clock, identities, dry_run=dry_run)
        if stays is not None:
            return stays
    else:
        suggested = _suggested(current, settings, clock, dry_run=dry_run)
        due_at = renewal_time(current.certificate, suggested)
        due = renewal_due(current.certificate, clock.now(), suggested)
        if dry_run or not (due or at_once):
            command = command_by_hand(current)
            when = f"{'due' if not command else 'due by hand'} {'since' if due else 'on'}"
            line = f"{identity}: {when} {due_at:%Y-%m-%d %H:%M} UTC{command and f' ({command})'}"
            return {
                "identity": identity,
                "state": "due" if due else "not-due",
                "due_at": due_at.isoformat(),
            }, line
        if current.flow == FlowName.OFFLINE:
            return _by_hand(current, settings, clock, due_at, due=due)
    flow = flow_of(identity, settings, identities)
    answer = enroll_by(flow, identity, settings, clock)
    return enrolling.record(identity, answer), enrolling.text(identity, answer, flow)


def _absent(
    identity: IdentityName, settings: EnrollSettings, clock: Clock, identities: IdentityStore, *, dry_run: bool
) -> tuple[dict[str, Any], str] | None:
    """What is said of an identity without a certificate; None where it is to be asked for."""
    request = identities.journal(identity).read()
    if request is not None:
        if not dry_run:
            return None
        unsent = request.step in {Step.PLANNED, Step.GENERATED}
        line = f"{identity}: the first request is {'prepared, not sent yet' if unsent else 'still with the CA'}"
        return {"identity": identity, "state": "prepared" if unsent else "waiting"}, line
    _check_not_offered(identity, identities, clock)
    wish = _wish(identity, settings, identities)
    if wish is None:
        return {"identity": identity, "state": "absent"}, f"{identity}: not enrolled yet, nothing to renew"
    first = IdentityName.IDEVID if identity in VENDORS_IDENTITIES else IdentityName.DEVICE
    waits = identity is not first and _wish(first, settings, identities) is not None
    if not (waits or dry_run):
        return None
    line = f"{identity}: asked for by {wish.flow} on {wish.since:%Y-%m-%d %H:%M} UTC, not issued yet"
    return {"identity": identity, "state": "wanted"}, f"{line}; {first} comes first" if waits else line


def _wish(identity: IdentityName, settings: EnrollSettings, identities: IdentityStore) -> Wish | None:
    """What was asked for and has not come; the vendor is asked as long as there is a ticket."""
    if identities.pointer(identity) is not None:
        return None
    wish = identities.wanted(identity).read()
    if wish is None or identity not in VENDORS_IDENTITIES:
        return wish
    return wish if ServiceCase(settings.state_directory, identities.files).ticket() else None


def _by_hand(
    current: Generation, settings: EnrollSettings, clock: Clock, due_at: datetime, *, due: bool
) -> tuple[dict[str, Any], str]:
    """What came by hand is renewed by hand: nobody would carry a request that was made here."""
    identity = current.identity
    with Enroller.configured(settings, clock, StateFiles()) as enroller:
        out = [request.number for request in Requests(enroller.context).of(identity) if request.state in HOPEFUL]
    do = (
        f"request {', '.join(out)} waits for its answer"
        if out
        else f"run: scanseal enroll offline export --identity {identity}"
    )
    when = f"{'due since' if due else 'due on'} {due_at:%Y-%m-%d %H:%M} UTC"
    line = f"{identity}: {when}; its certificate came by hand: {do}"
    state = "answer-due" if out else "export-due"
    return {"identity": identity, "state": state, "due_at": due_at.isoformat(), "requests": out}, line


def _suggested(current: Generation, settings: EnrollSettings, clock: Clock, *, dry_run: bool) -> datetime | None:
    """The moment that the CA suggests, which is asked where it is time to."""
    files = StateFiles()
    if dry_run:
        return suggested_renewal(current, IdentityStore(settings.state_directory, files), files)
    with Enroller.configured(settings, clock, files) as enroller:
        return enroller.suggested_renewal(current)


def _check_not_offered(identity: IdentityName, identities: IdentityStore, clock: Clock) -> None:
    """No agent waits for a certificate that the configuration does not ask for (any more).

    Raises:
        ConfigurationError: One does.
    """
    if waiting_offer(identity, identities, clock.now()) is not None:
        raise ConfigurationError(
            f"The agent waits for a certificate of a key in memory, but [identity.{identity}] key_store is not "
            '"memory".',
            remedy='Set key_store = "memory"; or restart the agent and run: scanseal enroll.',
        )


def _served(
    identity: IdentityName, settings: EnrollSettings, clock: Clock, *, force: bool, dry_run: bool
) -> tuple[dict[str, Any], str]:
    """The same for an identity whose keys the agent makes."""
    identities = IdentityStore(settings.state_directory, StateFiles())
    if dry_run and waiting_offer(identity, identities, clock.now()) is not None:
        return {"identity": identity, "state": "due"}, f"{identity}: the agent has asked for a certificate"
    flow = flow_of(identity, settings, identities)
    if flow is FlowName.OFFLINE and waiting_offer(identity, identities, clock.now()) is not None:
        raise memory_key(identity)
    answer = NotAsked() if dry_run else enroll_by(flow, identity, settings, clock)
    if isinstance(answer, NotAsked):
        line = f"{identity}: the agent asks for the next key by itself"
        return enrolling.record(identity, answer), f"{line}; --force does not apply" if force else line
    return enrolling.record(identity, answer), enrolling.text(identity, answer)
