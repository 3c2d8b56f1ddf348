"""R2: no command that changes state is left out of the kill sweep, also none that comes later."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from tests.support.reliability.kill_commands import (
    CHANGES_NOTHING,
    NOT_SWEPT,
    STAGES,
    SWEPT,
    TRIAL,
    WATCHED,
    commands,
    flags,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "kill_points.json").read_text("utf-8"))


def test_every_command_is_killed_or_has_a_reason_not_to_be() -> None:
    """A flag that makes a command do something else counts as one; those of trials do not."""
    there = {words for words, _ in commands()}
    there |= {
        f"{words} {flag}" for words, command in commands() if NOT_SWEPT.get(words) != TRIAL for flag in flags(command)
    }

    assert Counter([*SWEPT, *NOT_SWEPT]) == Counter(there)


def test_every_stage_belongs_to_one_command_and_its_number_of_kills_is_kept() -> None:
    named = [stage for stages in SWEPT.values() for stage in stages]

    assert Counter(named) == Counter(STAGES.keys())
    assert set(GOLDEN) == set(STAGES)
    assert all(GOLDEN.values())


def test_what_is_said_to_change_nothing_is_watched_or_knows_of_no_scanner() -> None:
    """That a dry run of `enroll` changes nothing is the same code for all ways but those by hand."""
    knows = {words for words, command in commands() if any("--config" in each.opts for each in command.params)}
    changes_nothing = {words for words, why in NOT_SWEPT.items() if why == CHANGES_NOTHING}
    watched = {words for words in changes_nothing if any(f"{each} ".startswith(f"{words} ") for each in WATCHED)}

    others = {words for words in changes_nothing - watched if words.partition(" --")[0] in knows}
    assert others == {
        "enroll acme --dry-run",
        "enroll cmp --dry-run",
        "enroll fdo --dry-run",
        "enroll scep --dry-run",
    }
