"""What a command writes into the audit trail, where no agent runs that would notice it and write it down itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agent.audit import AuditTrail, only_writer
from agent.errors import AlreadyRunning
from enroll.clock import Clock
from enroll.statefile import StateFiles


def note(state: Path, files: StateFiles, clock: Clock, event: str, fields: Mapping[str, str]) -> bool:
    """Write a line; nothing happens where an agent runs, which is the only writer then.

    Returns:
        Whether it is written.

    Raises:
        StateError: It cannot be written.
    """
    files.make_directory(state / "audit", 0o750)
    try:
        with only_writer(state, files):
            trail = AuditTrail(state / "audit" / "audit.jsonl", clock)
            try:
                trail.record(event, fields, durable=True)
            finally:
                trail.close()
    except AlreadyRunning:
        return False
    return True
