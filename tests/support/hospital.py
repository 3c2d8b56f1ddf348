"""A hospital with a CA that is there at times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from enroll.clock import SystemClock
from enroll.evaluation.ca import USERNAME, EvaluationCa
from enroll.evaluation.est_server import EstServer


class Hospital:
    """The CA, which answers at the same address whenever it answers."""

    def __init__(self, directory: Path) -> None:
        self.ca = EvaluationCa.create_or_open(directory, SystemClock())
        server = EstServer(self.ca)
        self.url = server.url
        with server:
            pass

    def answers(self) -> EstServer:
        """The server; it answers within a `with` block."""
        return EstServer(self.ca, ("127.0.0.1", int(self.url.rpartition(":")[2])))

    def tables(self) -> dict[str, dict[str, Any]]:
        """What the scanner has to know of it."""
        return {
            "est": {
                "url": self.url,
                "anchor_file": str(self.ca.anchor_file),
                "username": USERNAME,
                "password_file": str(self.ca.password_file),
            }
        }
