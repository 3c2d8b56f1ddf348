"""`scanseal status`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.cli import attested, exits, running
from agent.cli.enrolling import USUAL_IDENTITIES
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

    Where a key is, is what the running agent finds; of a key that it does not use, what was found at the enrollment.

    \b
    Exit code: 0 the agent can sign with every identity that is enrolled, 69 it cannot or is not running,
               78 an identity is damaged.
    """
    settings = configuration(config)
    identities = {name: _identity(name, settings.enroll) for name in IdentityName}
    if with_attestation:
        _add_attestation(identities, settings.enroll)
    agent, agent_text = _agent(settings)
    warnings = running.warnings(agent)
    _add_keys_in_use(identities, agent)
    # Most scanners have only the usual identities, and nobody has to get another.
    shown = {
        name: record for name, record in identities.items() if name in USUAL_IDENTITIES or record["state"] != "absent"
    }
    lines = [line for name, record in shown.items() for line in _identity_lines(name, record)]
    lines.append(f"{'agent':10} {agent_text}")
    lines += [f"{'warning':10} {warning['what']} {warning['remedy']}" for warning in warnings]
    shown_as_json = {"identities": identities, "agent": agent, "warnings": warnings}
    show(shown_as_json, "\n".join(lines), as_json=as_json)
    if any(record["state"] == "damaged" for record in identities.values()):
        return exits.CONFIGURATION
    return exits.OK if running.signs(agent) else exits.UNAVAILABLE


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


def _add_keys_in_use(identities: dict[IdentityName, dict[str, Any]], agent: running.Status) -> None:
    for name, record in identities.items():
        if "generation" in record:
            record["signs_until"] = None
            record.update(running.key_in_use(agent, name, record["generation"]) or {})


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
        f"generation {record['generation']}, {record['subject']}, key in {_key_text(record)}, "
        f"{record['state']} until {record['not_after'][:10]}, renewed from {record['renewal_due_at'][:10]}"
    )


def _key_text(record: dict[str, Any]) -> str:
    end = record["signs_until"]
    if end is None:
        return f"{record['protection']} when it was enrolled"
    return record["protection"] if end == record["not_after"] else f"{record['protection']} until {end[:10]}"


def _agent(settings: Configuration) -> tuple[dict[str, Any], str]:
    """What the agent says, or why it says nothing; the same for people."""
    try:
        with SigningClient(settings.agent.socket.path) as client:
            status = client.status()
    except AgentError as error:
        return {"state": "unknown", "error": exits.described(error)}, f"{error.what} {error.remedy}"
    return status, running.text(status)
