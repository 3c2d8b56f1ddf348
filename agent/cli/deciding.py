"""What people decide, written down for the agent and for whoever enrolls.

That is `scanseal owner disable` and `enable`, and `scanseal check --clock-is-right`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from agent.cli.noting import note
from enroll.clock import Clock
from enroll.clock_sense import ClockSense
from enroll.errors import StateError
from enroll.identity import IdentityStore
from enroll.owner_file import OwnerFile
from enroll.owner_record import OwnerDecision, OwnerRecord
from enroll.statefile import StateFiles


@dataclass(frozen=True)
class Decision:
    """What the owner decides about one scanner.

    Args:
        state: The state directory.
        files: Reads and writes there.
        clock: The time.
    """

    state: Path
    files: StateFiles
    clock: Clock

    def disable(self, reason: str) -> OwnerRecord:
        """Have nothing signed and nothing enrolled. It holds as soon as this returns, whether or not an agent runs.

        Raises:
            StateError: The disk refused; nothing has changed.
        """
        with as_service(self.state, self.files):
            record = self._owner_file.disable(os.getuid(), reason, self.clock.now())
            try:
                if self._note(record.untold):
                    self._owner_file.forget(record.untold)
            except StateError as error:  # what matters is that nothing is signed
                click.echo(f"The audit trail does not say so yet; the agent writes it when it can. {error}", err=True)
            return record

    def enable(self, *, reset: bool) -> bool:
        """Let the scanner sign and enroll again, after the audit trail says so; an agent that runs sees to that.

        Returns:
            Whether there was anything to change.

        Raises:
            DeviceNeedsService: The record is damaged or missing, and not to be written anew.
            StateError: The disk refused; nothing has changed.
        """
        with as_service(self.state, self.files):
            return self._owner_file.enable(os.getuid(), self.clock.now(), self._note, reset=reset)

    @property
    def _owner_file(self) -> OwnerFile:
        return IdentityStore(self.state, self.files).owner_file

    def _note(self, decisions: Collection[OwnerDecision]) -> bool:
        return all(note(self.state, self.files, self.clock, each.event, each.fields()) for each in decisions)


def believe(state: Path, files: StateFiles, clock: Clock) -> None:
    """Take the word of whoever runs this that the clock of the machine is right.

    The agent takes it up within a second, or at its next start, and writes into the audit trail who has said so.

    Raises:
        StateError: It cannot be right; or this is not for whoever runs it, or the disk refused.
    """
    with as_service(state, files):
        ClockSense.configured(clock, IdentityStore(state, files)).confirm_by_person(f"uid {os.getuid()}")


@contextmanager
def as_service(state: Path, files: StateFiles) -> Iterator[None]:
    """Write as the user of the service, whoever runs this: the service has to read it.

    Raises:
        StateError: There is no scanner here, or it is for neither root nor that user.
    """
    try:
        owner = state.stat()
    except OSError as error:
        raise StateError(
            f"There is no scanner in {state}: {error.strerror}.",
            remedy="Name its configuration: --config /etc/scanseal/scanseal.toml",
            code="not-enrolled",
        ) from error
    if os.geteuid() != 0 or owner.st_uid == 0:
        files.check_owner(state)
        yield
        return
    group = os.getegid()
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
