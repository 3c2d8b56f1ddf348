"""Debian's scepserver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from enroll.flows.settings import FlowName
from enroll.identity import IdentityName
from tests.support.flow_servers import FlowServer
from tests.support.scep_server import scep_site


@contextmanager
def server(folder: Path) -> Iterator[FlowServer]:
    """The challenge password is the proof, and this server wants it in renewals, too."""
    with scep_site(folder) as running:
        yield FlowServer(
            running.scanner,
            FlowName.SCEP,
            IdentityName.DEVICE,
            stop=running.server.stop,
            refuse=lambda: running.challenge("another one"),
            issued=running.server.issued,
        )
