"""`scanseal enroll scep`."""

from __future__ import annotations

from agent.cli.enrolling import network_command
from enroll.flows.settings import FlowName

command = network_command(
    FlowName.SCEP,
    "Get new keys and certificates from the CA in [scep] (RFC 8894): the last choice, for a site with nothing else. "
    "The challenge password is the proof.",
)
