"""`scanseal enroll cmp`."""

from __future__ import annotations

from agent.cli.enrolling import network_command
from enroll.flows.settings import FlowName

command = network_command(FlowName.CMP, "Get new keys and certificates from the CA in [cmp] (RFC 9483).")
