"""`scanseal status`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from agent.cli import attested, device, enrollment_state, exits, onboarding_state, running
from agent.cli.checking_ways import leftover_keys
from agent.cli.enrolling import command_by_hand
from agent.cli.options import config_option, configuration, json_option, show
from agent.client import SigningClient
from agent.config import Configuration
from agent.enrollment_checks import way_for
from agent.errors import AgentError
from enroll.attestation.attest import Attestation
from enroll.certificates import name_text
from enroll.clock import SystemClock
from enroll.clock_sense import CLOCK_SUSPECT, ClockSense
from enroll.clock_sense import REMEDY as CLOCK_REMEDY
from enroll.config import EnrollSettings
from enroll.enroller import Enroller
from enroll.errors import ConfigurationError, StateError, StateUnreadable
from enroll.flows.settings import FlowName
from enroll.identity import VENDORS_IDENTITIES, IdentityName, IdentityStore
from enroll.proves import VENDOR_ONLY, Proves, proves
from enroll.renewal.spread import spread_renewal_time
from enroll.statefile import StateFiles
from enroll.suggestion import suggested_renewal


@click.command("status")
@config_option
@click.option("--attestation", "with_attestation", is_flag=True, help="Also check now what proves where the keys live.")
@json_option
def command(config: Path, *, with_attestation: bool, as_json: bool) -> int:
    """Show the identities of this scanner, and whether the agent signs.

    First comes the state of the scanner as a whole: unowned, owned, disabled, key-lost or needs-service, with what has
    to be done next, and by whom.

    Where a key is, is what the running agent finds; of a key that it does not use, what was found at the enrollment.
    Shown are, too, requests under way, the last failure with who must act, and whether the CA has revoked something.

    \b
    Exit code: 0 the agent can sign with every identity that is enrolled, 69 it cannot or is not running,
               78 an identity is damaged.
    """
    settings = configuration(config)
    identities = {name: _identity(name, settings.enroll) for name in IdentityName}
    if with_attestation:
        _add_attestation(identities, settings.enroll)
    agent, agent_text = _agent(settings)
    release, warnings = _release_under_way(settings.enroll), running.warnings(agent)
    warnings += _leftover_keys(settings.enroll)
    _add_keys_in_use(identities, agent)
    # Most scanners have only these two identities, and nobody has to get another.
    signs_as = IdentityName(settings.agent.signing.identity)
    needed = (IdentityName.DEVICE, signs_as)
    shown = {
        name: record
        for name, record in identities.items()
        if name in needed or record["state"] != "absent" or any(enrollment_state.lines(record))
    }
    clock = _clock(settings.enroll)
    warnings += _clock_warnings(clock)
    fdo = onboarding_state.record(settings.enroll, StateFiles(), clock)
    may_onboard = fdo is not None and identities[IdentityName.DEVICE]["state"] == "absent"
    ways = {name: _way(name, settings.enroll, may_onboard=may_onboard) for name in shown}
    device_record = device.record(settings.enroll, agent, ways[IdentityName.DEVICE])
    lines = _warning_lines(release)
    lines += [f"{'' if number else 'scanner':10} {line}" for number, line in enumerate(device.lines(device_record))]
    lines += [line for name, record in shown.items() for line in _identity_lines(name, record, ways[name])]
    lines += [f"{'' if number else 'fdo':10} {line}" for number, line in enumerate(onboarding_state.lines(fdo))]
    lines.append(f"{'signs as':10} {signs_as}{_remark(identities[signs_as])}")
    lines.append(f"{'agent':10} {agent_text}")
    lines += _warning_lines(warnings)
    shown_as_json = {
        "device": device_record,
        "identities": identities,
        "fdo": fdo,
        "signs_as": signs_as,
        "agent": agent,
        "clock": _clock_record(clock),
        "warnings": [*release, *warnings],
    }
    show(shown_as_json, "\n".join(lines), as_json=as_json)
    if any(record["state"] == "damaged" for record in identities.values()):
        return exits.CONFIGURATION
    return exits.OK if running.signs(agent) else exits.UNAVAILABLE


def _identity(name: IdentityName, settings: EnrollSettings) -> dict[str, Any]:
    context = Enroller.configured(settings, SystemClock(), StateFiles()).context
    identities, files = context.identities, context.files
    try:
        current = identities.current(name)
    except StateError as error:
        if isinstance(error, StateUnreadable):
            return {"state": "hidden", "error": exits.described(error)}
        more = enrollment_state.record(name, None, context)
        return {"state": "damaged", "error": exits.described(error), **more}
    more = enrollment_state.record(name, current, context)
    if current is not None and current.damage is not None:
        more.setdefault("problem", exits.described(current.damage))
    if current is None:
        return {"state": "absent", **more}
    certificate, suggested = current.certificate, suggested_renewal(current, identities, files)
    due = spread_renewal_time(certificate, suggested, settings.device.serial_number, name)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return {
        "state": "valid" if _clock(settings).sense().within(begin, end) <= end else "expired",
        "generation": current.number,
        "damaged_newer": current.damaged_newer,
        "subject": name_text(certificate.subject),
        "issuer": name_text(certificate.issuer),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "proves": proves(certificate),
        "renewed_by_hand_with": command_by_hand(current),
        "renewal_due_at": None if name is IdentityName.IDEVID else due.isoformat(),
        "protection": current.protection,
        "flow": current.flow,
        **more,
    }


def _clock(settings: EnrollSettings) -> ClockSense:
    return ClockSense.configured(SystemClock(), IdentityStore(settings.state_directory, StateFiles()))


def _clock_record(clock: ClockSense) -> dict[str, Any]:
    sense = clock.sense()
    moments = {"time": sense.wall, "estimate": sense.now, "floor": sense.floor, "since": sense.since}
    described = {name: moment.isoformat(timespec="seconds") if moment else None for name, moment in moments.items()}
    return {"doubt": sense.doubt, **described}


def _clock_warnings(clock: ClockSense) -> list[dict[str, str]]:
    sense = clock.sense()
    return [{"what": f"[{CLOCK_SUSPECT}] {sense.explanation()}", "remedy": CLOCK_REMEDY}] if sense.doubt else []


def _release_under_way(settings: EnrollSettings) -> list[dict[str, str]]:
    try:
        IdentityStore(settings.state_directory, StateFiles()).check_kept()
    except StateError as error:
        return [{"what": error.what, "remedy": error.remedy}]
    return []


def _leftover_keys(settings: EnrollSettings) -> list[dict[str, str]]:
    try:
        return [{"what": each.what, "remedy": each.remedy} for each in leftover_keys(settings, StateFiles())]
    except StateError:
        return []  # who may not read the state directory hears that of every identity


def _warning_lines(warnings: Sequence[Mapping[str, str]]) -> list[str]:
    return [f"{'warning':10} {warning['what']} {warning['remedy']}" for warning in warnings]


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


def _way(name: IdentityName, settings: EnrollSettings, *, may_onboard: bool) -> str:
    """What follows `scanseal enroll`, which says the rest: nothing, where there are several ways."""
    if name in VENDORS_IDENTITIES:
        return " vendor"
    return " fdo" if way_for(name, settings, may_onboard=may_onboard) == FlowName.FDO else ""


def _identity_lines(name: IdentityName, record: dict[str, Any], way: str) -> list[str]:
    first, *more = exits.told(record["error"]) if "error" in record else [_identity_text(record, way)]
    if "error" in record:
        first = f"[{record['error']['code']}] {first}"
    lines = [f"{name:10} {first}", *(f"{'':10} {line}" for line in more)]
    if "attestation" in record:
        lines.append(f"{'':10} attestation {attested.text(record['attestation'])}")
    lines += [f"{'':10} {line}" for line in enrollment_state.lines(record)]
    return lines


def _identity_text(record: dict[str, Any], way: str) -> str:
    if record["state"] == "absent":
        if record["wanted"] or record["pending"]:
            return "not enrolled yet"
        return f"not enrolled. Run: scanseal enroll{way}"
    return (
        f"generation {record['generation']}, {record['subject']}, issued by {record['issuer']} ({record['flow']}), "
        f"key in {_key_text(record)}, {record['state']} until {record['not_after'][:10]}, "
        f"{_renewal_text(record)}{_remark(record)}"
    )


def _renewal_text(record: dict[str, Any]) -> str:
    due_at, command = record["renewal_due_at"], record["renewed_by_hand_with"]
    if due_at is None:
        return "never renewed by itself"
    return f"due by hand from {due_at[:10]} ({command})" if command else f"renewed from {due_at[:10]}"


def _remark(record: dict[str, Any]) -> str:
    return f"; it {VENDOR_ONLY}" if record.get("proves") == Proves.VENDOR else ""


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
        return {"state": "unknown", "error": exits.described(error)}, str(error)
    return status, running.text(status)
