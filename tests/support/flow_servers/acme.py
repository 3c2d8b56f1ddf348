"""pebble behind ACME, for the host name of the scanner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from enroll.flows.settings import FlowName
from enroll.identity import IdentityName
from tests.support.acme.pebble import running_pebble
from tests.support.flow_servers import FlowServer


@contextmanager
def server(folder: Path) -> Iterator[FlowServer]:
    """http-01 is the proof; pebble refuses where the hook does not put it there."""
    with running_pebble(folder / "pebble") as pebble:
        yield FlowServer(
            pebble.scanner(folder / "scanner"),
            FlowName.ACME,
            IdentityName.DEVICE,
            stop=pebble.stop,
            refuse=pebble.silent.touch,
            issued=pebble.issued,
            gives_again=True,
        )
