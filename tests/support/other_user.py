"""Code that runs as a user without any right: file permissions mean nothing to root, as whom tests often run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOBODY = 65534


def error_of(expression: str, forbidden: Path, folder: Path) -> str:
    """What an expression raises while `forbidden` is closed to us: class, code and text, or "nothing".

    Args:
        expression: Sees `folder`, `StateFiles`, `IdentityStore`, `IdentityName`, `SoftwareKeyStore` and `issue_again`.
        forbidden: A file or directory, mode 000 meanwhile.
        folder: The folder of the test.
    """
    program = f"""
import os, sys
from pathlib import Path
from agent.config import load
from enroll.errors import ScansealError
from enroll.identity import IdentityName, IdentityStore
from enroll.keystore.software import SoftwareKeyStore
from enroll.statefile import StateFiles
folder = Path({str(folder)!r})
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
try:
    {expression}
    print("nothing")
except ScansealError as error:
    print(type(error).__name__, error.code, error)
"""
    opened = [
        parent for parent in (folder, *folder.parents) if os.geteuid() == 0 and parent.stat().st_mode & 0o005 != 5
    ]
    modes = {path: path.stat().st_mode for path in (*opened, forbidden)}
    for path in opened:
        path.chmod(0o755)
    forbidden.chmod(0)
    try:
        ran = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
        )
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    return ran.stdout.strip() or ran.stderr
