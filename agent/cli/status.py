"""`scanseal status`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.cli import attested, exits
from agent.cli.enroll import USUAL_IDENTITIES
from agent.cli.options import config_option, configuration, json_option, show
from agent.client import SigningClient
from agent.config import Configuration
from agent.errors import AgentError
from enroll.attestation.attest import Attestation
from enroll.certificates import name_text
from enroll.clock import SystemClock
from enroll.config import EnrollSettings
from enroll.errors import ConfigurationError, StateError, StateUnreadable
from enroll.identity import IdentityName, IdentityStore
from enroll.rotation import renewal_time
from enroll.statefile import StateFiles


@click.command("status")
@config_option
@click.option("--attestation", "with_attestation", is_flag=True, help="Also check now what proves where the keys live.")
@json_option
def command(config: Path, *, with_attestation: bool, as_json: bool) -> int:
    """Show the identities of this scanner, and whether the agent signs.

    \b
    Exit code: 0 the agent can sign with every identity that is enrolled, 69 it cannot or is not running,
               78 an identity is damaged.
    """
    settings = configuration(config)
    identities = {name: _identity(name, settings.enroll) for name in IdentityName}
    if with_attestation:
        _add_attestation(identities, settings.enroll)
    agent = _agent(settings)
    # Most scanners have only the usual identities, and nobody has to get another.
    shown = {
        name: record for name, record in identities.items() if name in USUAL_IDENTITIES or record["state"] != "absent"
    }
    lines = [line for name, record in shown.items() for line in _identity_lines(name, record)]
    lines.append(f"{'agent':10} {_agent_text(agent)}")
    show({"identities": identities, "agent": agent}, "\n".join(lines), as_json=as_json)
    if any(record["state"] == "damaged" for record in identities.values()):
        return exits.CONFIGURATION
    return exits.OK if _signs(agent) else exits.UNAVAILABLE


def _identity(name: IdentityName, settings: EnrollSettings) -> dict[str, Any]:
    try:
        current = IdentityStore(settings.state_directory, StateFiles()).current(name)
    except StateError as error:
        state = "hidden" if isinstance(error, StateUnreadable) else "damaged"
        return {"state": state, "error": exits.described(error)}
    if current is None:
        return {"state": "absent"}
    certificate = current.certificate
    return {
        "state": "valid" if SystemClock().now() <= certificate.not_valid_after_utc else "expired",
        "generation": current.number,
        "subject": name_text(certificate.subject),
        "issuer": name_text(certificate.issuer),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "renewal_due_at": renewal_time(certificate).isoformat(),
        "protection": current.protection,
        "flow": current.flow,
    }


def _add_attestation(identities: dict[IdentityName, dict[str, Any]], settings: EnrollSettings) -> None:
    files = StateFiles()
    identity_store = IdentityStore(settings.state_directory, files)
    try:
        anchored = settings.attestation.anchor_file is not None
        attestation = Attestation.configured(settings, SystemClock(), files) if anchored else None
    except ConfigurationError as error:
        for record in identities.values():
            record["attestation"] = {"state": "unreadable", "error": exits.described(error)}
        return
    for name, record in identities.items():
        # What cannot be read has been said already.
        current = identity_store.current(name) if "generation" in record else None
        if current is not None:
            record["attestation"] = attested.record(current, attestation)


def _identity_lines(name: IdentityName, record: dict[str, Any]) -> list[str]:
    lines = [f"{name:10} {_identity_text(record)}"]
    if "attestation" in record:
        lines.append(f"{'':10} attestation {attested.text(record['attestation'])}")
    return lines


def _identity_text(record: dict[str, Any]) -> str:
    if error := record.get("error"):
        return f"{error['what']} {error['remedy']}"
    if record["state"] == "absent":
        return "not enrolled"
    return (
        f"generation {record['generation']}, {record['subject']}, key in {record['protection']}, "
        f"{record['state']} until {record['not_after'][:10]}, renewed from {record['renewal_due_at'][:10]}"
    )


def _agent(settings: Configuration) -> dict[str, Any]:
    try:
        with SigningClient(settings.agent.socket.path) as client:
            return client.status()
    except AgentError as error:
        return {"state": "unknown", "error": exits.described(error)}


def _signs(agent: dict[str, Any]) -> bool:
    """Whether it can sign, with every identity that is enrolled."""
    roles = agent.get("roles", {})
    return agent["state"] == "ready" and set(roles.values()) <= {"ready", "not-enrolled"}


def _agent_text(record: dict[str, Any]) -> str:
    if error := record.get("error"):
        return f"{error['what']} {error['remedy']}"
    if refused := record.get("refused_generation"):
        return f"{record['state']}, but the newest generation of {refused['identity']} was refused: {refused['detail']}"
    roles = record["roles"]
    states = ", ".join(f"{role} {state}" for role, state in roles.items() if state != "not-enrolled")
    return f"{record['state']}: {states}" if states else str(record["state"])
