"""`scanseal enroll fdo`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import click

from agent.cli import enrolling, exits
from agent.cli.enrolling import USUAL_IDENTITIES, enroll_by, show_plans, warn_of_software
from agent.cli.options import config_option, configuration, json_option, show
from agent.daemon.hardening import protect_memory
from agent.enrollment_checks import ways
from enroll.clock import SystemClock
from enroll.config import EnrollSettings
from enroll.enroller import Enroller, asked_for, flow_of
from enroll.fdo.hand_over import renewal_flow, with_hand_over
from enroll.flows.base import Pending, PlannedExchange
from enroll.flows.settings import FlowName
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.issue import NotAsked
from enroll.statefile import StateFiles

_TELLS = ("enroll.fdo", "enroll.flows.fdo")  # the loggers that say how far it is


@click.command("fdo")
@config_option
@click.option("--dry-run", is_flag=True, help="Only say what would be sent to whom.")
@json_option
def command(config: Path, *, dry_run: bool, as_json: bool) -> int:
    """Let the owner of this scanner take it over (FIDO Device Onboard 1.1), and get certificates from its CA.

    The scanner asks the servers that its voucher names who the owner is. The owner proves itself by the voucher, and
    its server issues the certificate of the device identity. From then on that is renewed by EST, ACME or CMP, as the
    owner says or [fdo] renewal does, and the certificate that signs images comes on that way, too.

    Who may be the owner can be limited in [fdo]. Where nobody answers yet, the timer (scanseal renew) goes on, when the
    voucher says; this command asks at once.

    \b
    Exit code: 0 enrolled, 69 no proper answer from the owner,
               75 no owner is found yet, or it waits for approval (scanseal fdo approve),
               77 the owner may not have this scanner, or its CA refused,
               78 there is no FDO credential, or the configuration or a key store has to be corrected.

    \b
    Example: scanseal enroll fdo --config /etc/scanseal/scanseal.toml
    """
    protect_memory()
    whole, clock = configuration(config), SystemClock()
    settings = whole.enroll
    if dry_run:
        return _show_plan(settings, as_json=as_json)
    identities = IdentityStore(settings.state_directory, StateFiles())
    answers: dict[IdentityName, Generation | Pending | NotAsked] = {}
    with asked_for(USUAL_IDENTITIES, FlowName.FDO, identities, clock), nullcontext() if as_json else _told():
        answers[IdentityName.DEVICE] = enroll_by(FlowName.FDO, IdentityName.DEVICE, settings, clock, at_once=True)
    # From here on the scanner has its owner: whatever goes wrong now, the timer goes on with it.
    if isinstance(answers[IdentityName.DEVICE], Generation):
        flow = flow_of(IdentityName.SIGNING, settings, identities)
        answers[IdentityName.SIGNING] = enroll_by(flow, IdentityName.SIGNING, settings, clock)
    show(
        {"identities": [enrolling.record(name, answer) for name, answer in answers.items()]},
        "\n".join(enrolling.text(name, answer, FlowName.FDO) for name, answer in answers.items()),
        as_json=as_json,
    )
    if whole.agent.signing.require_hardware:
        warn_of_software(answers)
    return exits.TRY_LATER if any(isinstance(answer, Pending) for answer in answers.values()) else exits.OK


def _show_plan(settings: EnrollSettings, *, as_json: bool) -> int:
    files = StateFiles()
    with Enroller.configured(settings, SystemClock(), files) as enroller:
        device = enroller.plan(IdentityName.DEVICE, FlowName.FDO)
    renewal = renewal_flow(settings, files)
    way = ways(with_hand_over(settings, files)).get(renewal) if renewal else None
    to = way.to if way else "the server that the owner names"
    what = "the certificate request for signing, once device has its certificate"
    signing = PlannedExchange(to, what, "the device identity")
    return show_plans({IdentityName.DEVICE: device, IdentityName.SIGNING: (signing,)}, as_json=as_json)


@contextmanager
def _told() -> Iterator[None]:
    """Say on standard error how far it is, for whoever waits."""
    handler = logging.StreamHandler(sys.stderr)
    loggers = [logging.getLogger(name) for name in _TELLS]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.setLevel(logging.NOTSET)
