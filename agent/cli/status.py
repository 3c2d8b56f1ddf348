"""`scanseal status`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.cli import exits
from agent.cli.options import config_option, configuration, json_option, show
from agent.client import SigningClient
from agent.config import Configuration
from agent.errors import AgentError
from enroll.certificates import name_text
from enroll.clock import SystemClock
from enroll.config import EnrollSettings
from enroll.errors import StateError
from enroll.identity import IdentityName, IdentityStore
from enroll.rotation import renewal_time
from enroll.statefile import StateFiles


@click.command("status")
@config_option
@json_option
def command(config: Path, *, as_json: bool) -> int:
    """Show the identities of this scanner, and whether the agent signs.

    \b
    Exit code: 0 the agent can sign, 69 it cannot or is not running, 78 an identity is damaged.
    """
    settings = configuration(config)
    identities = [_identity(name, settings.enroll) for name in IdentityName]
    agent = _agent(settings)
    lines = [f"{entry['identity']:8} {entry['text']}" for entry in identities]
    lines.append(f"{'agent':8} {agent['text']}")
    show({"identities": identities, "agent": agent}, "\n".join(lines), as_json=as_json)
    if any(entry["state"] == "damaged" for entry in identities):
        return exits.CONFIGURATION
    return exits.OK if agent["state"] == "ready" else exits.UNAVAILABLE


def _identity(name: IdentityName, settings: EnrollSettings) -> dict[str, Any]:
    try:
        current = IdentityStore(settings.state_directory, StateFiles()).current(name)
    except StateError as error:
        text = f"{error.what} {error.remedy}"
        return {"identity": name, "state": "damaged", "error": exits.described(error), "text": text}
    if current is None:
        return {"identity": name, "state": "absent", "text": "not enrolled"}
    certificate = current.certificate
    state = "valid" if SystemClock().now() <= certificate.not_valid_after_utc else "expired"
    due = renewal_time(certificate)
    return {
        "identity": name,
        "state": state,
        "generation": current.number,
        "subject": name_text(certificate.subject),
        "issuer": name_text(certificate.issuer),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "renewal_due_at": due.isoformat(),
        "protection": current.protection,
        "flow": current.flow,
        "text": (
            f"{name_text(certificate.subject)}, key in {current.protection}, {state} until "
            f"{certificate.not_valid_after_utc:%Y-%m-%d}, renewed from {due:%Y-%m-%d}"
        ),
    }


def _agent(settings: Configuration) -> dict[str, Any]:
    try:
        with SigningClient(settings.agent.socket.path) as client:
            status = client.status()
    except AgentError as error:
        text = f"not running: {error.what} {error.remedy}"
        return {"state": "unreachable", "error": exits.described(error), "text": text}
    return {**status, "text": f"{status['state']}"}
