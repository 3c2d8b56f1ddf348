"""A file so large that it is mapped, and cut off while it is read, costs its own answer and no other."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.cli.options import LARGEST_IN_MEMORY
from agent.policy.verdicts import EXIT_CODES, Verdict
from tests.support.agent_process import ROOT
from tests.support.dicom_samples import ct_slice

# The large file is cut off between being mapped and being read.
VERIFY = """
import os, sys
from pathlib import Path
from agent.cli import main, verifying
from agent.dicom.stored_instance import StoredInstance

mapped, arguments = Path(sys.argv[1]), sys.argv[2:]
size = mapped.stat().st_size
verifying.FILES_PER_PROCESS = 1
read = StoredInstance.read

def read_what_is_cut_off(data, limits):
    if len(data) == size:
        os.truncate(mapped, 0)
    return read(data, limits)

StoredInstance.read = read_what_is_cut_off
sys.exit(main.run(["verify", "--json", *arguments]))
"""


def verified(mapped: Path, *arguments: object) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and answers of the command."""
    command = [sys.executable, "-c", VERIFY, str(mapped), *map(str, arguments)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert ran.stdout.endswith("}\n"), (ran.returncode, ran.stderr)
    return ran.returncode, json.loads(ran.stdout)["files"]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Four images without signatures; the second is large."""
    paths = [tmp_path / f"{number}.dcm" for number in range(4)]
    for path in paths:
        path.write_bytes(ct_slice(16, 16))
    with paths[1].open("wb") as large:
        large.write(ct_slice(16, 16)[: -16 * 16 * 2 - 4] + struct.pack("<L", LARGEST_IN_MEMORY))
        large.truncate(large.tell() + LARGEST_IN_MEMORY)  # a hole, which takes no room
    return paths


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_large_file_that_becomes_shorter_costs_no_other_answer(files: list[Path], jobs: int) -> None:
    code, answers = verified(files[1], "--jobs", jobs, *files)
    assert [answer["verdict"] for answer in answers] == ["UNSIGNED", "INDETERMINATE", "UNSIGNED", "UNSIGNED"]
    assert answers[1]["error"]["code"] == "process-lost"
    assert "written to" in answers[1]["error"]["remedy"]
    assert code == EXIT_CODES[Verdict.INDETERMINATE]


def test_one_that_stands_alone_is_answered_for_as_well(files: list[Path]) -> None:
    _, (answer,) = verified(files[1], files[1])
    assert answer["error"]["code"] == "process-lost"


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_large_source_that_becomes_shorter_is_no_source(files: list[Path], jobs: int) -> None:
    _, answers = verified(files[1], "--jobs", jobs, "--sources", files[1], files[0], files[2])
    assert [answer["verdict"] for answer in answers] == ["UNSIGNED", "UNSIGNED"]
