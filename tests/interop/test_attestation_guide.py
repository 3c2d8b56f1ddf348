"""What the guide to attestation tells a reader to type, typed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.agent_process import wait_until
from tests.support.openssl import needs_openssl
from tests.support.swtpm import listening_ports, two_free_ports

pytestmark = needs_openssl
pytest.importorskip("tpm2_pytss", reason="tpm2-pytss is missing: pip install '.[tpm]'")

ROOT: Final = Path(__file__).parents[2]
GUIDE: Final = (ROOT / "docs/attestation.md").read_text("utf-8")
TPM, CA, SCANNER, CHECK = ([*block.splitlines()] for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL))
(STOP,) = re.findall(r"`(swtpm_ioctl [^`]+)`", GUIDE)
(SETTINGS,) = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder, with scanseal on the PATH."""
    if not shutil.which("swtpm_setup") or not shutil.which("swtpm"):
        pytest.skip("no swtpm on the PATH: apt-get install swtpm swtpm-tools")
    program = tmp_path / "bin" / "scanseal"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m agent.cli.main "$@"\n', "ascii")
    program.chmod(0o755)
    return tmp_path


def shell(place: Path, command: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{place / 'bin'}:{os.environ['PATH']}"}
    arguments = ["sh", "-c", command]
    return subprocess.Popen(
        arguments, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def typed(place: Path, command: str) -> str:
    with shell(place, command) as process:
        said, complaints = process.communicate(timeout=60)
    assert process.returncode == 0, f"{command}\n{said}{complaints}"
    return said


@pytest.fixture
def tpm_port(place: Path) -> Iterator[int]:
    """Where the TPM of the guide is; only its ports are not as printed."""
    *preparation, start = TPM
    for command in preparation:
        as_root = " --runas root" if command.startswith("swtpm_setup") and os.geteuid() == 0 else ""
        typed(place, command + as_root)
    port = two_free_ports()
    process = place / "process"
    typed(place, on_ports(f"{start} --pid file={process}", port))
    try:
        wait_until(lambda: {port, port + 1} <= listening_ports(int(process.read_text("ascii"))))
        yield port
    finally:
        typed(place, on_ports(STOP, port))


def on_ports(command: str, port: int) -> str:
    return command.replace("2321", str(port)).replace("2322", str(port + 1))


@pytest.fixture
def attestation_ca(place: Path, tpm_port: int) -> Iterator[str]:
    """The two CAs of the guide, on free ports instead of the usual ones; where the attestation CA is."""
    (command,) = CA
    command = f"exec {command.replace('9443', '0')} --port 0"
    with shell(place, command) as process:
        assert process.stdout
        banner: list[str] = []
        for line in process.stdout:
            banner.append(line)
            if line.startswith("Stop with"):
                break
        try:
            yield re.findall(r"url +(https://\S+)", "".join(banner))[-1]
        finally:
            process.send_signal(signal.SIGTERM)


def test_every_step_of_the_guide_works_as_printed(place: Path, tpm_port: int, attestation_ca: str) -> None:
    configuration = place / "ca" / "scanseal.toml"
    wait_until(configuration.exists)
    settings = SETTINGS.replace("/home/me", str(place)).replace("port=2321", f"port={tpm_port}")
    settings = settings.replace("https://127.0.0.1:9443", attestation_ca)
    configuration.write_text(configuration.read_text("utf-8") + settings, "utf-8")

    enroll, attest, status = SCANNER
    assert "device" in typed(place, enroll)
    assert "simulated TPM" in typed(place, attest)
    # The agent is not running, so status ends with 69.
    assert "attestation tpm, key of generation 1 in the simulated TPM id:00001014" in typed(place, f"{status} || true")

    said = [typed(place, command) for command in CHECK]
    assert "ak.pem: OK" in said[3]
    assert "Verified OK" in said[5]
    assert said[7].split("= ")[1].strip() in said[8]

    typed(place, "scanseal renew --config ca/scanseal.toml --force")
    assert "key of generation 2 in the simulated TPM" in typed(place, f"{status} || true")
