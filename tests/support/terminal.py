"""What a command shows on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Sequence
from typing import Any

from tests.support.agent_process import ROOT


def on_a_terminal(command: Sequence[str], streams: tuple[str, ...]) -> tuple[str, str]:
    """What a terminal is sent, and what standard output holds if that is no terminal."""
    ours, theirs = pty.openpty()
    ends: dict[str, Any] = {"stdout": subprocess.PIPE, **dict.fromkeys(streams, theirs)}
    process = subprocess.Popen(command, cwd=ROOT, text=True, **ends)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 1 << 16):
            shown += piece
    except OSError:  # EIO: nobody has the other end any more
        pass
    os.close(ours)
    output, _ = process.communicate()
    return shown.decode(), output or ""
