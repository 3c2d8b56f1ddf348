"""`scanseal renew`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.cli import exits
from agent.cli.enroll import OWNER_IDENTITIES, described, enroll_by_est
from agent.cli.options import config_option, configuration, json_option, show
from enroll.clock import Clock, SystemClock
from enroll.config import EnrollSettings
from enroll.errors import ScansealError
from enroll.identity import IdentityName, IdentityStore
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
    nothing.

    \b
    Exit code: 0 nothing due or renewed, 75 the CA has not decided yet, otherwise that of the first failure.
    """
    settings = configuration(config).enroll
    clock = SystemClock()
    results, failures = [], []
    for identity in OWNER_IDENTITIES:
        try:
            results.append(_renewed(identity, settings, clock, force=force, dry_run=dry_run))
        except ScansealError as error:
            # One identity that cannot be renewed must not keep the other from it.
            failures.append(exits.exit_code(error))
            text = f"{identity}: not renewed. {error.what} {error.remedy}"
            results.append({"identity": identity, "state": "failed", "error": exits.described(error), "text": text})
    show({"identities": results}, "\n".join(result["text"] for result in results), as_json=as_json)
    if failures:
        return failures[0]
    return exits.TRY_LATER if any(result["state"] == "pending" for result in results) else exits.OK


def _renewed(
    identity: IdentityName, settings: EnrollSettings, clock: Clock, *, force: bool, dry_run: bool
) -> dict[str, Any]:
    identities = IdentityStore(settings.state_directory, StateFiles())
    current = identities.current(identity)
    if current is None and identities.journal(identity).read() is None:
        return {"identity": identity, "state": "absent", "text": f"{identity}: not enrolled yet, nothing to renew"}
    if current is None:
        # The first request is still with the CA.
        return described(identity, enroll_by_est(identity, settings, clock))
    due = renewal_due(current.certificate, clock.now())
    due_at = renewal_time(current.certificate)
    if dry_run or not (due or force):
        state = "due" if due else "not-due"
        text = f"{identity}: {'due since' if due else 'due on'} {due_at:%Y-%m-%d %H:%M} UTC"
        return {"identity": identity, "state": state, "due_at": due_at.isoformat(), "text": text}
    return described(identity, enroll_by_est(identity, settings, clock))
