"""What the README tells a newcomer to type, typed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from agent.cli.try_out import SERIAL_NUMBER
from tests.support.agent_process import wait_until
from tests.support.dicom_samples import ct_slice

ROOT = Path(__file__).parents[2]
TIMEOUT = 300  # seconds


def commands_of_the_first_walk() -> list[list[str]]:
    text = (ROOT / "README.md").read_text("utf-8")
    _, found, rest = text.partition("A first walk by hand")
    assert found
    block = re.search(r"```sh\n(.*?)```", rest, re.DOTALL)
    assert block
    return [shlex.split(line, comments=True) for line in block[1].splitlines()]


def scanseal(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "agent.cli.main", *arguments]


@contextmanager
def background(folder: Path, arguments: list[str]) -> Iterator[IO[str]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        scanseal(*arguments), cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        try:
            yield process.stdout
        finally:
            process.terminate()


def test_the_first_walk_by_hand_works_as_printed(tmp_path_factory: pytest.TempPathFactory) -> None:
    ca, enroll, agent, sign, verify = commands_of_the_first_walk()
    folder = tmp_path_factory.mktemp("walk")
    (folder / "image.dcm").write_bytes(ct_slice(64, 64, SERIAL_NUMBER))

    def run(command: list[str]) -> str:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        ran = subprocess.run(
            scanseal(*command[1:]), cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    # A free port instead of the usual one is the only thing that is not typed as printed.
    with background(folder, [*ca[1:], "--port", "0"]) as banner:
        assert "NOT FOR PRODUCTION" in banner.readline()
        wait_until((folder / "ca" / "scanseal.toml").exists)
        assert "signing" in run(enroll)
    with background(folder, agent[1:]):
        wait_until((folder / "ca" / "sign.sock").exists)
        run(sign)
    assert "VALID" in run(verify)


@pytest.fixture
def fresh_copy(tmp_path: Path) -> Path:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout, so there is no list of what a newcomer gets: git clone the project")
    for name in filter(None, listed.stdout.decode().split("\0")):
        target = tmp_path / "clone" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)  # a golden state directory has links to directories
    return tmp_path / "clone"


def test_the_demo_runs_from_nothing_and_proves_what_it_says(fresh_copy: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    ran = subprocess.run(
        ["scripts/demo"], cwd=fresh_copy, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "BROKEN" in ran.stdout
    proved, where = ran.stdout.splitlines()[-2:]
    assert proved.startswith("Proved: 4 images were signed")
    assert where == (
        f"The files are in {fresh_copy}/scanseal-demo: signed images in signed/, the CA's certificate is ca/root.pem."
    )
    assert ("dcmsign confirms" in proved) == bool(shutil.which("dcmsign"))
