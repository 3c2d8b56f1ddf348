"""Servers that listen on all addresses, each in a network namespace of its own, spoken to over pipes.

`tests.support.cmp_peer` and `tests.support.scep_peer` are the ends inside: they start the server and pass messages on.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 20.0

_ENTER = ["unshare", "--user", "--map-root-user", "--net"]
_LENGTH = 4  # bytes


def need_peer(program: str, package: str) -> None:
    """Skip the test where the server is missing, or where no namespace can be made."""
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on the PATH: apt-get install {package}")
    command = [*_ENTER, "ip", "link", "set", "lo", "up"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
    except (OSError, subprocess.SubprocessError):
        pytest.skip(
            "no network namespaces: apt-get install util-linux iproute2, sysctl kernel.unprivileged_userns_clone=1"
        )


class Peer:
    """One server.

    Args:
        module: The end inside.
        options: Of the server.
    """

    def __init__(self, module: str, options: Sequence[str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        command = [*_ENTER, sys.executable, "-m", module, *options]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
        )
        self._read()  # it says that it listens

    def ask(self, message: bytes) -> tuple[int, bytes]:
        """HTTP status of the answer, and what the end inside says of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(len(message).to_bytes(_LENGTH, "big") + message)
        self._process.stdin.flush()
        data = self._read()
        return int.from_bytes(data[:2], "big"), data[2:]

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _read(self) -> bytes:
        assert self._process.stdout is not None
        length = self._process.stdout.read(_LENGTH)
        if len(length) < _LENGTH:
            self._log.seek(0)
            raise AssertionError(self._log.read().decode("utf-8", errors="replace"))
        return self._process.stdout.read(int.from_bytes(length, "big"))
