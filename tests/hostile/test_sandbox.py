"""A worker that has been broken into cannot reach the files of the service (it runs as the same user)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, sys, tempfile
sys.path.insert(0, sys.argv[1])
from agent.daemon.sandbox import confine
if not confine(sys.argv[2]):
    sys.exit(77)
with tempfile.TemporaryFile(dir=sys.argv[2], buffering=0) as spool:
    spool.write(b"an image")
    assert os.pread(spool.fileno(), 8, 0) == b"an image"
for attempt in (
    lambda: open(sys.argv[3]),
    lambda: open(sys.argv[3], "a"),
    lambda: os.listdir(os.path.dirname(sys.argv[3])),
    lambda: os.unlink(sys.argv[3]),
    lambda: open("/etc/passwd"),
    lambda: os.execv("/bin/true", ["true"]),
):
    try:
        attempt()
    except PermissionError:
        continue
    sys.exit(1)
"""


def test_only_new_files_in_the_spool_directory_can_be_opened(tmp_path: Path) -> None:
    spool, key = tmp_path / "spool", tmp_path / "keys" / "signing.pem"
    spool.mkdir()
    key.parent.mkdir()
    key.write_text("a key")
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT), str(spool), str(key)], capture_output=True, text=True, check=False
    )
    if ran.returncode == 77:
        pytest.skip("this kernel has no Landlock: use Linux 5.13 or later with landlock among its security modules")
    assert ran.returncode == 0, ran.stderr
    assert key.read_text() == "a key"
