"""`scanseal enroll acme`."""

from __future__ import annotations

from agent.cli.enrolling import network_command
from enroll.flows.settings import FlowName

command = network_command(FlowName.ACME, "Get new keys and certificates from the CA in [acme] (RFC 8555).")
