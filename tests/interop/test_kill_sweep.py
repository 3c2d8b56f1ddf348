"""R2: SIGKILL at every write, sync, rename, unlink, token call and word to the network, of every command with a state.

After each one the next run ends well: one matching pair, the request that was under way gone on with, no certificate
asked for twice, no key that nothing names, no line of the audit trail lost. How many steps there are stands in
tests/golden/kill_points.json, and may not shrink.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.reliability import kill_flows, kill_stages
from tests.support.reliability.kill_points import Commands
from tests.support.reliability.measured import measured

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "kill_points.json").read_text("utf-8"))
STAGES = {**kill_stages.STAGES, **kill_flows.STAGES}
TOLERANCE = 0.98  # what a library says to the network in one piece or in two is not ours
IN_MEMORY = Path("/dev/shm")


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with Commands() as commands, tempfile.TemporaryDirectory() as folder:
        commands.skip_unless_watched(Path(folder) / "output")
        yield commands


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        yield Path(folder)


@pytest.mark.parametrize("command", STAGES)
def test_a_command_that_is_killed_at_any_step_is_finished_by_the_next_run(
    folder: Path, commands: Commands, command: str
) -> None:
    with STAGES[command](folder, commands) as stage:
        killed = stage.sweep()

    measured("R2", f"kill sweep: {command}", kill_points=killed, bad=0)
    assert killed >= GOLDEN.get(command, 0) * TOLERANCE
