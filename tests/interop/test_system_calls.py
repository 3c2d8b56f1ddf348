"""What the agent really asks of the kernel, held against what its unit allows."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from agent.client import SigningClient
from tests.support.agent_process import ROOT, START_SECONDS, child_processes, new_scanner

UNIT = ROOT / "systemd" / "scanseal.service"

# As systemd starts it: the listening socket is descriptor 3 (sd_listen_fds(3)).
HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Every system call of the keyholder and its workers, one a line, while they start, sign an image and stop."""
    if shutil.which("strace") is None:
        pytest.skip("strace is missing: apt-get install strace")
    if subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let strace trace: allow ptrace")
    directory = tmp_path_factory.mktemp("traced")
    trace, log = directory / "trace", directory / "agent.log"
    with new_scanner(directory) as scanner, socket.socket(socket.AF_UNIX) as listener:
        scanner.enroll()
        listener.bind(os.fspath(scanner.socket))
        listener.listen()
        traced = ["strace", "-f", "-qq", "-o", str(trace), sys.executable, "-c", HAND_OVER, str(listener.fileno())]
        agent = [sys.executable, "-m", "agent.cli.main", "agent", "--config", str(scanner.configure())]
        with log.open("wb") as stderr:
            process = subprocess.Popen([*traced, *agent], cwd=ROOT, stderr=stderr, pass_fds=[listener.fileno()])
        try:
            sign_one_image(scanner.socket)
            (keyholder,) = child_processes(process.pid)
            os.kill(keyholder, signal.SIGTERM)
            process.wait(START_SECONDS)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0, log.read_text("utf-8")
    return [line.partition(" ")[2].strip() for line in trace.read_text("utf-8", "replace").splitlines()]


def sign_one_image(path: Path) -> None:
    image = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
    with SigningClient(path) as client:
        client.sign_instance(image, io.BytesIO(), role="acquisition", profile="creator-rsa")


def allowed_calls(unit: Path) -> set[str]:
    """The system calls that the SystemCallFilter= lines of a unit allow, with the groups of this systemd."""
    allowed: set[str] = set()
    for remove, names in re.findall(r"^SystemCallFilter=(~?)(.*)$", unit.read_text("utf-8"), re.MULTILINE):
        named = expand(names.split())
        allowed = allowed - named if remove else allowed | named
    return allowed | expand(["@default"])


def expand(names: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for name in names:
        if name.startswith("@"):
            listed = subprocess.run(
                ["systemd-analyze", "--no-pager", "syscall-filter", name], check=True, capture_output=True, text=True
            )
            found |= expand(re.findall(r"^ +([@\w-]+)$", listed.stdout, re.MULTILINE))
        else:
            found.add(name)
    return found


def test_the_unit_allows_every_call_that_the_agent_makes(calls: list[str]) -> None:
    """systemd.exec(5), SystemCallFilter=: what is not allowed fails with EPERM in the field."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing: apt-get install systemd")
    made = {found[1] for line in calls if (found := re.match(r"(\w+)\(", line))}

    assert made - allowed_calls(UNIT) == set()


def test_no_memory_is_writable_and_executable(calls: list[str]) -> None:
    """systemd.exec(5), MemoryDenyWriteExecute=: such a mapping would fail in the field."""
    mapped = [line for line in calls if line.startswith("mmap(") and "PROT_WRITE|PROT_EXEC" in line]
    changed = [line for line in calls if re.match(r"(pkey_)?mprotect\(.*PROT_EXEC", line)]

    assert mapped + changed == []


def test_the_agent_opens_no_network_socket(calls: list[str]) -> None:
    families = {found[1] for line in calls if (found := re.match(r"socket(?:pair)?\((\w+)", line))}

    assert families == {"AF_UNIX"}
