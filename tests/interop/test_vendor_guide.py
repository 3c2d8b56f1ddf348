"""What the guide for vendors tells a reader to type, typed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.openssl import needs_openssl

pytestmark = needs_openssl

ROOT: Final = Path(__file__).parents[2]
GUIDE: Final = (ROOT / "docs/vendor.md").read_text("utf-8")
SERVE, PASSPHRASE, REQUEST, TICKET, ISSUE, OFFLINE, IMPORT = (
    block.splitlines() for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
)
SETTINGS, SIGNING = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder, with scanseal on the PATH."""
    program = tmp_path / "bin" / "scanseal"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m agent.cli.main "$@"\n', "ascii")
    program.chmod(0o755)
    return tmp_path


def shell(place: Path, command: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{place / 'bin'}:{os.environ['PATH']}"}
    pipe = subprocess.PIPE
    arguments = ["sh", "-c", command]
    return subprocess.Popen(arguments, cwd=place, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def typed(place: Path, command: str, answer: str = "") -> str:
    with shell(place, command) as process:
        said, complaints = process.communicate(answer, timeout=60)
    assert process.returncode == 0, f"{command}\n{said}{complaints}"
    return said


@pytest.fixture
def url(place: Path) -> Iterator[str]:
    """The service of the guide, on a free port instead of the usual one."""
    (command,) = SERVE
    with shell(place, f"exec {command} --port 0 --json") as process:
        assert process.stdout
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.send_signal(signal.SIGTERM)


def test_every_step_of_the_guide_works_as_printed(place: Path, url: str) -> None:
    settings = SETTINGS.replace("/home/me", str(place)).replace("https://127.0.0.1:8444", url)
    (place / "scanseal.toml").write_text(settings, "utf-8")
    for command in PASSPHRASE:
        typed(place, command)

    (request,), (ticket,) = REQUEST, TICKET
    (nonce,) = re.findall(r"nonce +(\S+)", typed(place, request))
    assert "good for 24 hours" in typed(place, ticket, f"{nonce}\n")

    issue, status, look = ISSUE
    assert "O=St Elsewhere" in typed(place, issue)
    assert "never renewed by itself" in typed(place, status)
    assert "notAfter=Dec 31 23:59:59 9999 GMT" in typed(place, look)

    for command in OFFLINE:
        typed(place, command)

    make, take, status = IMPORT
    assert "names no device" in typed(place, make)
    assert "proves the vendor only" in typed(place, take)
    assert "proves the vendor only" in typed(place, status)

    (place / "scanseal.toml").write_text(settings + SIGNING, "utf-8")
    assert re.search(r"signs as +vendor; it proves the vendor only", typed(place, status))
