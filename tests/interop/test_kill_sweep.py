"""R2: SIGKILL at every write, sync, rename, unlink, token call and word to the network, of every command with a state.

After each one the next run ends well: one matching pair, the request that was under way gone on with, no certificate
asked for twice, no key that nothing names, no line of the audit trail lost. How many steps there are stands in
tests/golden/kill_points.json, and may not shrink.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli import exits
from tests.support.reliability.kill_commands import STAGES, WATCHED
from tests.support.reliability.kill_flows import owned
from tests.support.reliability.kill_points import Commands
from tests.support.reliability.measured import measured

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "kill_points.json").read_text("utf-8"))
TOLERANCE = 0.98  # what a library says to the network in one piece or in two is not ours
IN_MEMORY = Path("/dev/shm")
NETWORK = ("connect", "send")
ENDS = (exits.OK, exits.UNAVAILABLE, exits.CONFIGURATION)  # of what looks at this machine


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with Commands() as commands, tempfile.TemporaryDirectory() as folder:
        commands.skip_unless_watched(Path(folder) / "output")
        yield commands


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        yield Path(folder)


@pytest.mark.parametrize("command", WATCHED)
def test_what_is_said_to_change_nothing_changes_nothing(folder: Path, commands: Commands, command: str) -> None:
    """So it need not be killed."""
    with owned(folder, commands) as scanner:
        ended = scanner.run(*command.split(), watched=True)

    assert ended.code in ENDS, scanner.said
    assert [call for call in ended.calls if call not in NETWORK] == []


@pytest.mark.parametrize("command", STAGES)
def test_a_command_that_is_killed_at_any_step_is_finished_by_the_next_run(
    folder: Path, commands: Commands, command: str
) -> None:
    begun = time.monotonic()
    with STAGES[command](folder, commands) as stage:
        killed = stage.sweep()

    seconds = round(time.monotonic() - begun)
    measured("R2", f"kill sweep: {command}", kill_points=killed, bad=0, seconds=seconds)
    assert killed >= GOLDEN.get(command, 0) * TOLERANCE
