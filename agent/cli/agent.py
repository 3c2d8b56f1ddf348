"""`scanseal agent`."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from agent import daemon
from agent.cli.options import config_option, configuration
from enroll.clock import SystemClock
from enroll.statefile import StateFiles


@click.command("agent")
@config_option
def command(config: Path) -> int:
    """Offer signatures on the local socket until stopped.

    Systemd may hand over the listening socket; otherwise the agent makes it at [socket] path, mode 0660.

    \b
    Exit code: 0 stopped on request, 75 another agent is running, 78 the configuration, a key or a certificate
               has to be corrected; the message says which.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    return daemon.run(configuration(config), SystemClock(), StateFiles())
