"""`scanseal enroll est`."""

from __future__ import annotations

from agent.cli.enrolling import network_command
from enroll.flows.settings import FlowName

command = network_command(
    FlowName.EST,
    "Get new keys and certificates from the CA in [est] (RFC 7030). The first certificate is proved by the factory "
    "identity or the password, all others by the device identity.",
)
