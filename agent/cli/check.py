"""`scanseal check`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from agent.checks import Finding, State
from agent.cli import exits
from agent.cli.checking import findings
from agent.cli.deciding import believe
from agent.cli.options import config_option, configuration, echo_over_progress, json_option
from agent.daemon.hardening import protect_memory
from enroll.clock import SystemClock
from enroll.statefile import StateFiles

_SHOWN = {
    State.OK: "ok",
    State.WARNING: "WARNING",
    State.FAILED: "FAILED",
    State.UNAVAILABLE: "NOT NOW",
    State.NOT_APPLICABLE: "-",
}


@click.command("check")
@config_option
@click.option("--speed", is_flag=True, help="Measure how many signatures per second the key of each identity makes.")
@click.option(
    "--clock-is-right",
    is_flag=True,
    help="First write down that the clock of this machine is right as it is now, where scanseal does not believe it.",
)
@json_option
def command(config: Path, *, speed: bool, clock_is_right: bool, as_json: bool) -> int:
    """Find out whether this scanner can do its work, before anything depends on it.

    Looks at the configuration, the state directory, the clock, every key store and every identity. Each token is
    logged in to once; a PIN that is refused is not sent again. The CA is not asked. Run it as the user of the
    service, whose files it has to read. With --speed, the key of an identity that is not enrolled yet is made for the
    measurement and destroyed.

    With --clock-is-right, which is for root and for the user of the service, a person vouches for the clock: compare
    it with another one first. The audit trail says who did.

    \b
    Exit code: 0 the scanner can do its work, 69 something is not available now, 78 something has to be corrected;
               each finding says what to do.

    \b
    Example: runuser -u scanseal -- scanseal check --speed
    """
    protect_memory()
    on_terminal = sys.stderr.isatty() and not as_json

    def measured(identity: str) -> None:
        if on_terminal:
            click.echo(f"Measuring the key of {identity} ...\r", nl=False, err=True)

    if clock_is_right:
        believe(configuration(config).enroll.state_directory, StateFiles(), SystemClock())
    answers = []
    for finding in findings(config, StateFiles(), SystemClock(), measured if speed else None):
        answers.append(finding)
        if not as_json:
            echo_over_progress(_text(finding))
    states = {answer.state for answer in answers}
    if as_json:
        click.echo(json.dumps({"findings": [asdict(answer) for answer in answers]}))
    else:
        click.echo(_conclusion(answers))
    if State.FAILED in states:
        return exits.CONFIGURATION
    return exits.UNAVAILABLE if State.UNAVAILABLE in states else exits.OK


def _text(finding: Finding) -> str:
    name = f"{finding.check} ({finding.subject})" if finding.subject else finding.check
    code = f" [{finding.code}]" if finding.code else ""
    line = f"{_SHOWN[finding.state]:8} {name}{code}: {finding.what}"
    return f"{line}\n         {finding.remedy}" if finding.remedy else line


def _conclusion(answers: list[Finding]) -> str:
    counts = {state: sum(answer.state is state for answer in answers) for state in State}
    wrong = [
        f"{counts[state]} {words}"
        for state, words in (
            (State.FAILED, "to be corrected"),
            (State.UNAVAILABLE, "not available now"),
            (State.WARNING, "worth a look"),
        )
        if counts[state]
    ]
    return f"{len(answers)} checks: {', '.join(wrong) or 'all is well'}"
