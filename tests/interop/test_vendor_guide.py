"""What the guide for vendors tells a reader to type, typed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from agent.cli import exits
from agent.policy.verdicts import ExitCode
from tests.support.agent_process import wait_until
from tests.support.dicom_samples import ct_slice
from tests.support.openssl import needs_openssl

pytestmark = needs_openssl

ROOT: Final = Path(__file__).parents[2]
GUIDE: Final = (ROOT / "docs/vendor.md").read_text("utf-8")
SERVE, PASSPHRASE, REQUEST, TICKET, ISSUE, FIRST_OFFLINE, LATER_OFFLINE, IMPORT, AGENT, SIGN = (
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


def typed(place: Path, command: str, answer: str = "", code: int = exits.OK) -> str:
    with shell(place, command) as process:
        said, complaints = process.communicate(answer, timeout=60)
    assert process.returncode == code, f"{command}\n{said}{complaints}"
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

    for command in (*FIRST_OFFLINE, *LATER_OFFLINE):
        typed(place, command)

    make, take, status = IMPORT
    assert "names no device" in typed(place, make)
    assert "proves the vendor only" in typed(place, take)
    assert "proves the vendor only" in typed(place, status)

    signing = SIGNING.replace("/home/me", str(place)).replace("user:me", f"user:{os.getuid()}")
    (place / "scanseal.toml").write_text(settings + signing, "utf-8")
    assert re.search(r"signs as +vendor; it proves the vendor only", typed(place, status))
    (place / "image.dcm").write_bytes(ct_slice(64, 64))
    with agent(place):
        sign, verify = SIGN
        typed(place, sign)
        assert " VALID_VENDOR_ONLY:" in typed(place, verify)
        verdict, _, _ = verify.partition(" || ")
        typed(place, verdict, code=ExitCode.VALID_WITH_RESERVATIONS)


@contextmanager
def agent(place: Path) -> Iterator[None]:
    (command,) = AGENT
    with shell(place, f"exec {command} 2>agent.log >&2") as process:
        try:
            wait_until((place / "sign.sock").exists)
            yield
        finally:
            process.send_signal(signal.SIGTERM)


def test_a_scanner_without_a_network_gets_both_identities(place: Path, url: str) -> None:
    settings = SETTINGS.replace("/home/me", str(place)).replace("https://127.0.0.1:8444", url)
    (place / "scanseal.toml").write_text(settings, "utf-8")

    for command in (*PASSPHRASE, *FIRST_OFFLINE):
        typed(place, command)
    *_, take = (typed(place, command) for command in LATER_OFFLINE)

    assert "vendor: " in take
    assert not any("--unproved" in command for command in LATER_OFFLINE)
    issued = typed(place, "openssl x509 -in scanner/identities/vendor/current/certificate.pem -noout -subject")
    assert "O = St Elsewhere" in issued
