"""The server of `openssl cmp`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from enroll.flows.settings import FlowName
from enroll.identity import IdentityName
from tests.support.cmp_scanner import site
from tests.support.flow_servers import FlowServer


@contextmanager
def server(folder: Path) -> Iterator[FlowServer]:
    """The factory identity is the proof. What waits, waits for the second poll."""
    with site(folder) as running:
        openssl = running.server
        yield FlowServer(
            running.scanner,
            FlowName.CMP,
            IdentityName.SIGNING,
            stop=openssl.stop,
            refuse=lambda: openssl.options.extend(["-pkistatus", "2", "-failure", "23"]),
            wait=lambda: openssl.options.extend(["-poll_count", "2", "-check_after", "3600"]),
            go_on=lambda: None,
            issued=lambda: len(openssl.issued),
        )
