"""`scanseal agent`."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from agent import daemon
from agent.cli.options import config_option, configuration
from agent.daemon.renewal import renewal_command
from enroll.clock import SystemClock
from enroll.statefile import StateFiles


@click.command("agent")
@config_option
@click.option(
    "--with-renewal",
    is_flag=True,
    help="Start `scanseal renew --unattended` every ten minutes, and at once when a key in memory needs a certificate. "
    "For machines without systemd, whose units do this otherwise.",
)
def command(config: Path, *, with_renewal: bool) -> int:
    """Offer signatures on the local socket until stopped.

    Systemd may hand over the listening socket; otherwise the agent makes it at [socket] path, mode 0660.

    \b
    Example: scanseal agent --with-renewal --config /etc/scanseal/scanseal.toml

    \b
    Exit code: 0 stopped on request, 75 another agent is running, 78 the configuration, a key or a certificate
               has to be corrected; the message says which.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    renewal = renewal_command(config) if with_renewal else ()
    return daemon.run(configuration(config), SystemClock(), StateFiles(), renewal)
