"""Code that runs as another user: permissions mean nothing to root, as whom tests often run.

It is started as ourselves, imports what it needs and then becomes the other user, who may not be able to read the
interpreter. It works in the current directory, so that the folders above need not be opened to that user.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOBODY = 65534

_PROGRAM = """
import os, sys
from pathlib import Path
from agent.config import load
from enroll.errors import ScansealError
from enroll.identity import IdentityName, IdentityStore
from enroll.keystore.software import SoftwareKeyStore
from enroll.statefile import StateFiles
folder, files = Path(), StateFiles()
user, group = map(int, sys.argv[2:])
os.umask(0o027)
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)
try:
    exec(sys.argv[1])
except ScansealError as error:
    print(type(error).__name__, error.code, error)
"""


def run_as(user: int, group: int, statements: str, folder: Path) -> str:
    """What statements print, and the class, code and text of the error that ends them.

    Args:
        user: Who runs them, if we are root; otherwise ourselves.
        group: Of that user, the only one.
        statements: See `folder`, `files`, and what the program above imports.
        folder: Where they run.
    """
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM, statements, str(user), str(group)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return ran.stdout.strip() + ran.stderr


def error_of(expression: str, forbidden: Path, folder: Path) -> str:
    """What an expression raises for a user without any right while `forbidden` is closed (mode 000)."""
    modes = {path: path.stat().st_mode for path in (folder, forbidden)}
    folder.chmod(0o755)
    forbidden.chmod(0)
    try:
        return run_as(NOBODY, NOBODY, expression, folder)
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
