"""Every command of scanseal, and every flag that makes it do something else: where it is killed, or why it need not be.

`tests/unit/test_kill_commands.py` compares this with the commands that there are, and looks that what is said to change
nothing changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import click

from agent.cli.main import scanseal
from tests.support.reliability import kill_at_ca, kill_decisions, kill_flows, kill_stages
from tests.support.reliability.kill_flows import MakeAgentStage
from tests.support.reliability.kill_stages import MakeStage

STAGES: Mapping[str, MakeStage | MakeAgentStage] = {
    **kill_stages.STAGES,
    **kill_flows.STAGES,
    **kill_decisions.STAGES,
    **kill_at_ca.STAGES,
}

# What a flag only says, or asks, or forbids.
HARMLESS = {"--json", "--help", "--yes", "--quiet", "--version"}

CHANGES_NOTHING = "it changes nothing"
ONE_FILE = "it writes files that somebody names, each whole or not at all, and no state"
TRIAL = "it plays somebody else, for trying out: no scanner depends on what it keeps"

SWEPT: Mapping[str, tuple[str, ...]] = {
    "acme-account": ("acme-account",),
    "acme-account --new-key": ("acme-account-new-key",),
    "agent": ("agent-first-signature",),
    "attest": ("attest-token", "attest-tpm"),
    "check --clock-is-right": ("check-clock-is-right",),
    "check --speed": ("check-speed",),
    "enroll acme": ("enroll-acme",),
    "enroll cmp": ("enroll-cmp",),
    "enroll est": ("enroll-est", "enroll-est-tpm"),
    "enroll fdo": ("enroll-fdo",),
    "enroll offline cancel": ("enroll-offline-cancel",),
    "enroll offline export": ("enroll-offline-export",),
    "enroll offline import": ("enroll-offline-import",),
    "enroll scep": ("enroll-scep",),
    "enroll vendor import": ("enroll-vendor-import",),
    "enroll vendor issue": ("enroll-vendor",),
    "enroll vendor issue --dry-run": ("enroll-vendor-ticket",),
    "enroll vendor request": ("enroll-vendor-request",),
    "enroll vendor request --new": ("enroll-vendor-request-new",),
    "fdo approve": ("fdo-approve",),
    "fdo approve --none": ("fdo-approve-none",),
    "fdo init": ("fdo-init",),
    "owner disable": ("owner-disable",),
    "owner enable": ("owner-enable",),
    "owner enable --reset-record": ("owner-enable-over-a-missing-record", "owner-enable-over-a-damaged-record"),
    "owner release": ("owner-release",),
    "renew": ("renew-est", "renew-est-token", "renew-and-hear-of-a-revocation"),
    "renew --unattended": ("renew-unattended-without-a-ca",),
    "revoke": ("revoke-acme", "revoke-cmp"),
}

NOT_SWEPT: Mapping[str, str] = {
    "audit verify": CHANGES_NOTHING,
    "check": CHANGES_NOTHING,
    **{f"enroll {way} --dry-run": CHANGES_NOTHING for way in ("acme", "cmp", "est", "fdo", "offline export", "scep")},
    "enroll offline list": CHANGES_NOTHING,
    "enroll offline show": CHANGES_NOTHING,
    "fdo voucher owners": CHANGES_NOTHING,
    "fdo voucher show": CHANGES_NOTHING,
    "fdo voucher verify": CHANGES_NOTHING,
    "renew --dry-run": CHANGES_NOTHING,
    "owner release --dry-run": CHANGES_NOTHING,
    "status": CHANGES_NOTHING,
    "status --attestation": CHANGES_NOTHING,
    "verify": CHANGES_NOTHING,
    "agent --with-renewal": "it starts renew --unattended",
    "renew --force": "it does what renew does when something is due",
    "fdo voucher extend": ONE_FILE,
    "fdo voucher extend --force": ONE_FILE,
    "sign": f"{ONE_FILE}; the signature and its line are the agent's, see agent",
    "sign --force": ONE_FILE,
    "timestamp": ONE_FILE,
    "timestamp --force": ONE_FILE,
    "timestamp --in-place": ONE_FILE,
    "demo": TRIAL,
    "evaluation-ca": TRIAL,
    "evaluation-fdo": TRIAL,
    "evaluation-vendor answer": TRIAL,
    "evaluation-vendor serve": TRIAL,
    "evaluation-vendor ticket": TRIAL,
    "evaluation-vendor vendor-wide": TRIAL,
}


# Of those that change nothing: what is watched. The others know of no scanner, having no --config.
WATCHED = (
    "audit verify",
    "check",
    "enroll est --dry-run",
    "enroll offline export --dry-run --output .",
    "enroll offline list",
    "owner release --dry-run",
    "renew --dry-run",
    "status",
    "status --attestation",
)


def commands() -> Iterator[tuple[str, click.Command]]:
    """All that do something by themselves, each with the words that it is called by."""
    yield from _below((), scanseal)


def _below(words: tuple[str, ...], command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield " ".join(words), command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None
        yield from _below((*words, name), inner)


def flags(command: click.Command) -> set[str]:
    """What may make a command do something else."""
    named = {option for each in command.params if getattr(each, "is_flag", False) for option in each.opts}
    return {option for option in named if option.startswith("--")} - HARMLESS
