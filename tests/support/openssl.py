"""openssl and curl as independent peers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is missing: apt-get install openssl")
needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="curl is missing: apt-get install curl")


def openssl(*arguments: str | Path, stdin: bytes = b"", succeeds: bool = True) -> str:
    """What openssl prints on both streams."""
    done = subprocess.run(
        ["openssl", *map(str, arguments)],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=30,
    )
    text = done.stdout.decode("utf-8", errors="replace")
    assert (done.returncode == 0) is succeeds, text
    return text


def curl(*arguments: str | Path, stdin: bytes = b"") -> tuple[int, bytes]:
    """The HTTP status and the body; status 0 where there was no answer."""
    done = subprocess.run(
        ["curl", "--silent", "--write-out", "\n%{http_code}", "--max-time", "20", *map(str, arguments)],
        input=stdin,
        stdout=subprocess.PIPE,
        check=False,
        timeout=30,
    )
    body, _, status = done.stdout.rpartition(b"\n")
    return int(status), body
