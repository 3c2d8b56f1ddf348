"""`scanseal renew`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.cli import enrolling, exits
from agent.cli.enrolling import OWNER_IDENTITIES, USUAL_IDENTITIES, enroll_by
from agent.cli.options import config_option, configuration, json_option, show
from agent.daemon.hardening import protect_memory
from enroll.clock import Clock, SystemClock
from enroll.config import EnrollSettings
from enroll.errors import ConfigurationError, ScansealError
from enroll.identity import IdentityName, IdentityStore
from enroll.issue import NotAsked, flow_of, made_by_agent, waiting_offer
from enroll.journal import Step
from enroll.rotation import renewal_due, renewal_time
from enroll.statefile import StateFiles


@click.command("renew")
@config_option
@click.option("--force", is_flag=True, help="Renew now, whether due or not.")
@click.option("--dry-run", is_flag=True, help="Only say what is due.")
@json_option
def command(config: Path, *, force: bool, dry_run: bool, as_json: bool) -> int:
    """Renew what is due: new key, new certificate, then the switch.

    The agent notices the switch by itself, between two requests. A timer runs this command; when nothing is due it does
    nothing. A key in memory (key_store = "memory") is made by the agent, which asks for the next certificate by itself:
    it is due when the agent has asked, and --force changes nothing.

    \b
    Exit code: 0 nothing due or renewed, 75 the CA has not decided yet, otherwise that of the first failure.
    """
    protect_memory()
    settings = configuration(config).enroll
    clock = SystemClock()
    records, lines, codes = [], [], []
    for identity in OWNER_IDENTITIES:
        try:
            record, line = _renewed(identity, settings, clock, force=force, dry_run=dry_run)
            codes.append(exits.TRY_LATER if record["state"] == "pending" else exits.OK)
        except ScansealError as error:
            # One identity that cannot be renewed must not keep the others from it.
            codes.append(exits.exit_code(error))
            record = {"identity": identity, "state": "failed", "error": exits.described(error)}
            line = f"{identity}: not renewed. {error.what} {error.remedy}"
        records.append(record)
        # Most scanners have only the usual identities, and nobody has to get another.
        if identity in USUAL_IDENTITIES or record["state"] != "absent":
            lines.append(line)
    show({"identities": records}, "\n".join(lines), as_json=as_json)
    return next((code for code in codes if code not in {exits.OK, exits.TRY_LATER}), max(codes))


def _renewed(
    identity: IdentityName, settings: EnrollSettings, clock: Clock, *, force: bool, dry_run: bool
) -> tuple[dict[str, Any], str]:
    """What was done, for programs and for people."""
    identities = IdentityStore(settings.state_directory, StateFiles())
    if made_by_agent(identity, settings):
        return _served(identity, settings, clock, force=force, dry_run=dry_run)
    current = identities.current(identity)
    if current is None:
        request = identities.journal(identity).read()
        if request is None:
            _check_not_offered(identity, identities, clock)
            return {"identity": identity, "state": "absent"}, f"{identity}: not enrolled yet, nothing to renew"
        if dry_run and request.step in {Step.PLANNED, Step.GENERATED}:
            line = f"{identity}: the first request is prepared, not sent yet"
            return {"identity": identity, "state": "prepared"}, line
        if dry_run:
            return {"identity": identity, "state": "waiting"}, f"{identity}: the first request is still with the CA"
    else:
        due_at = renewal_time(current.certificate)
        due = renewal_due(current.certificate, clock.now())
        if dry_run or not (due or force):
            line = f"{identity}: {'due since' if due else 'due on'} {due_at:%Y-%m-%d %H:%M} UTC"
            return {
                "identity": identity,
                "state": "due" if due else "not-due",
                "due_at": due_at.isoformat(),
            }, line
    answer = enroll_by(flow_of(identity, identities), identity, settings, clock)
    return enrolling.record(identity, answer), enrolling.text(identity, answer)


def _check_not_offered(identity: IdentityName, identities: IdentityStore, clock: Clock) -> None:
    """No agent waits for a certificate that the configuration does not ask for (any more).

    Raises:
        ConfigurationError: One does.
    """
    if waiting_offer(identity, identities, clock.now()) is not None:
        raise ConfigurationError(
            f"The agent waits for a certificate of a key in memory, but [identity.{identity}] key_store is not "
            '"memory".',
            remedy='Set key_store = "memory"; or restart the agent and run: scanseal enroll est.',
        )


def _served(
    identity: IdentityName, settings: EnrollSettings, clock: Clock, *, force: bool, dry_run: bool
) -> tuple[dict[str, Any], str]:
    """The same for an identity whose keys the agent makes."""
    identities = IdentityStore(settings.state_directory, StateFiles())
    if dry_run and waiting_offer(identity, identities, clock.now()) is not None:
        return {"identity": identity, "state": "due"}, f"{identity}: the agent has asked for a certificate"
    answer = NotAsked() if dry_run else enroll_by(flow_of(identity, identities), identity, settings, clock)
    if isinstance(answer, NotAsked):
        line = f"{identity}: the agent asks for the next key by itself"
        return enrolling.record(identity, answer), f"{line}; --force does not apply" if force else line
    return enrolling.record(identity, answer), enrolling.text(identity, answer)
