"""What the commands that get certificates have in common."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from agent.cli import exits
from agent.cli.options import config_option, configuration, json_option, show
from agent.config import Configuration
from agent.daemon.hardening import protect_memory
from enroll.attestation.attest import Attestation
from enroll.certificates import name_text
from enroll.clock import Clock, SystemClock
from enroll.config import EnrollSettings
from enroll.enroller import Enroller, asked_for
from enroll.errors import ConfigurationError, ScansealError, StateError
from enroll.fdo.credential import fdo_directory, has_credential
from enroll.fdo.owner_policy import AWAITED, COMPARE
from enroll.flows.base import Pending, PlannedExchange
from enroll.flows.settings import FlowName
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.issue import NotAsked
from enroll.keystore.base import Protection
from enroll.proves import Proves, proves
from enroll.statefile import StateFiles

# The device identity authenticates the enrollment of the others, so it comes first.
USUAL_IDENTITIES = (IdentityName.DEVICE, IdentityName.SIGNING)
OWNER_IDENTITIES = (*USUAL_IDENTITIES, IdentityName.DERIVATION, IdentityName.SYNTHESIS)

_COMMON_HELP = """\
Keys in memory (key_store = "memory") are made by the agent, which asks for their certificates by itself.

\b
Exit code: 0 enrolled, 69 no answer from the CA, or it is not the one you named,
           75 the CA has not decided yet: run the command again, 77 the CA refused,
           78 the configuration or a key store has to be corrected.

\b
Example: scanseal enroll {flow} --config /etc/scanseal/scanseal.toml
"""

_DEVICE_MISSING = "device-not-enrolled"  # what flows say whose other requests the device identity proves

logger = logging.getLogger("scanseal.enroll")


def network_command(flow: FlowName, help_text: str) -> click.Command:
    """`scanseal enroll est` and its like: the same options and exit codes for every flow over the network."""

    @click.command(flow.value, help=f"{help_text}\n\n{_COMMON_HELP.format(flow=flow)}")
    @config_option
    @click.option(
        "--identity",
        type=click.Choice([identity.value for identity in OWNER_IDENTITIES]),
        help="Only this identity. Default: first the device's own, which proves who asks, then the one that signs "
        "original images. What is processed, or made by a model, is signed by derivation and synthesis.",
    )
    @click.option("--dry-run", is_flag=True, help="Only say what would be sent to whom.")
    @json_option
    def run(config: Path, identity: str | None, *, dry_run: bool, as_json: bool) -> int:
        protect_memory()
        whole = configuration(config)
        chosen = (IdentityName(identity),) if identity else USUAL_IDENTITIES
        if dry_run:
            return _show_plan(flow, chosen, whole.enroll, as_json=as_json)
        return _enroll_all(flow, chosen, whole, as_json=as_json)

    return run


@contextmanager
def _with_another_way(settings: EnrollSettings) -> Iterator[None]:
    """Name FDO as well, where something is not configured that the first certificate does not need by FDO."""
    try:
        yield
    except ConfigurationError as error:
        files = StateFiles()
        is_first = IdentityStore(settings.state_directory, files).readable(IdentityName.DEVICE) is None
        if is_first and has_credential(fdo_directory(settings.state_directory), files):
            error.remedy = f"{error.remedy} Or let its owner take the scanner over: scanseal enroll fdo"
        raise


def _enroll_all(flow: FlowName, chosen: Sequence[IdentityName], whole: Configuration, *, as_json: bool) -> int:
    clock = SystemClock()
    identities = IdentityStore(whole.enroll.state_directory, StateFiles())
    answers: dict[IdentityName, Generation | Pending | NotAsked] = {}
    with _with_another_way(whole.enroll), asked_for(chosen, flow, identities, clock):
        for name in chosen:
            answers[name] = enroll_by(flow, name, whole.enroll, clock)
            if isinstance(answers[name], Pending):
                break
    show(
        {"identities": [record(name, answer) for name, answer in answers.items()]},
        "\n".join(text(name, answer) for name, answer in answers.items()),
        as_json=as_json,
    )
    if whole.agent.signing.require_hardware:
        warn_of_software(answers)
    return exits.TRY_LATER if any(isinstance(answer, Pending) for answer in answers.values()) else exits.OK


def _show_plan(flow: FlowName, chosen: Sequence[IdentityName], settings: EnrollSettings, *, as_json: bool) -> int:
    plans: dict[IdentityName, Sequence[PlannedExchange]] = {}
    with _with_another_way(settings), Enroller.configured(settings, SystemClock(), StateFiles()) as enroller:
        for name in chosen:
            try:
                plans[name] = enroller.plan(name, flow)
            except StateError as error:
                if error.code != _DEVICE_MISSING or IdentityName.DEVICE not in plans:
                    raise
                to, what = plans[IdentityName.DEVICE][-1].to, f"the same for {name}, once device has its certificate"
                plans[name] = (PlannedExchange(to, what, "the device identity"),)
    return show_plans(plans, as_json=as_json)


def show_plans(
    plans: Mapping[IdentityName, Sequence[PlannedExchange]], *, as_json: bool, ending: str = "Nothing was sent."
) -> int:
    """Say what would be sent to whom."""
    lines = [
        f"{name}: to {exchange.to}\n    {exchange.what}\n    proved by {exchange.proof}"
        for name, plan in plans.items()
        for exchange in plan
    ]
    records = [{"identity": name, "exchanges": [asdict(exchange) for exchange in plan]} for name, plan in plans.items()]
    show({"identities": records}, "\n".join([*lines, ending]), as_json=as_json)
    return exits.OK


def warn_of_software(answers: Mapping[IdentityName, Generation | Pending | NotAsked]) -> None:
    """Say which new keys the agent refuses for [signing] require_hardware. The device identity signs no images."""
    for name, answer in answers.items():
        if name is IdentityName.DEVICE or not isinstance(answer, Generation):
            continue
        if answer.protection != Protection.HARDWARE:
            click.echo(
                "The agent will not sign with this key: [signing] require_hardware is true, and the key of "
                f"{name} is in {answer.protection}.",
                err=True,
            )


def command_by_hand(generation: Generation) -> str:
    """What a person runs when a certificate is due that no timer renews; empty where the timer does."""
    if generation.flow == FlowName.OFFLINE:
        return f"scanseal enroll offline export --identity {generation.identity}"
    is_wide = proves(generation.certificate) is Proves.VENDOR
    return "scanseal enroll vendor import" if is_wide else ""


def enroll_by(
    flow: FlowName, identity: IdentityName, settings: EnrollSettings, clock: Clock, *, at_once: bool = False
) -> Generation | Pending | NotAsked:
    """Get a new key and certificate, or go on with a request that is under way; see `enroll.issue.issue`."""
    files = StateFiles()
    with Enroller.configured(settings, clock, files, at_once=at_once) as enroller:
        answer = enroller.enroll(identity, flow)
    if isinstance(answer, Generation):
        attest_again(answer, settings, clock, files)
    return answer


def attest_again(generation: Generation, settings: EnrollSettings, clock: Clock, files: StateFiles) -> None:
    """Renew the evidence together with the key, where that needs no CA. The certificate is in use in any case."""
    if settings.attestation.anchor_file is None:
        return
    try:
        Attestation.configured(settings, clock, files).attest_alone(generation)
    except ScansealError as error:
        logger.warning("The new key of %s is not attested: %s", generation.identity, error)


def record(identity: IdentityName, answer: Generation | Pending | NotAsked) -> dict[str, Any]:
    """The result of an enrollment for programs."""
    if isinstance(answer, NotAsked):
        return {"identity": identity, "state": "not-asked"}
    if isinstance(answer, Pending):
        until = answer.until.isoformat()
        return {"identity": identity, "state": "pending", "until": until, "reason": answer.reason}
    certificate = answer.certificate
    return {
        "identity": identity,
        "state": "issued",
        "generation": answer.number,
        "subject": name_text(certificate.subject),
        "issuer": name_text(certificate.issuer),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "protection": answer.protection,
    }


def text(identity: IdentityName, answer: Generation | Pending | NotAsked, flow: FlowName | None = None) -> str:
    """The result of an enrollment for people; `flow` is the way that it went, where that makes a difference."""
    if isinstance(answer, NotAsked):
        return f"{identity}: the agent has not asked for a certificate. Start the agent; it asks by itself."
    if isinstance(answer, Pending) and flow is FlowName.FDO:
        return _not_onboarded(identity, answer)
    if isinstance(answer, Pending):
        return f"{identity}: the CA has not decided yet. Try again after {answer.until:%Y-%m-%d %H:%M} UTC."
    certificate = answer.certificate
    # After a release there is none in whose place it comes.
    again = f"new key and certificate (generation {answer.number}): " if answer.number > 1 else ""
    return (
        f"{identity}: {again}{name_text(certificate.subject)}, issued by {name_text(certificate.issuer)}, "
        f"valid until {certificate.not_valid_after_utc:%Y-%m-%d}, key in {answer.protection}"
    )


def _not_onboarded(identity: IdentityName, answer: Pending) -> str:
    """Two things take time: somebody has to approve the owner, or the owner has to be where the scanner looks."""
    reason = answer.reason.rstrip(".")
    if reason.startswith(AWAITED.rstrip(".")):
        return f"{identity}: {reason}. {COMPARE}\nThe timer goes on by itself; at once: scanseal enroll fdo"
    return (
        f"{identity}: no certificate from an owner in this run. {reason}. To act: hospital IT.\n"
        f"The timer asks again after {answer.until:%Y-%m-%d %H:%M} UTC; at once: scanseal enroll fdo"
    )
