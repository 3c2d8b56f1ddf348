"""The evaluation CA behind EST."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from enroll.clock import SystemClock
from enroll.evaluation.ca import USERNAME, EvaluationCa
from enroll.evaluation.est_server import EstServer
from enroll.flows.settings import EstSettings, FlowName
from enroll.identity import IdentityName
from tests.support.enrolling import Scanner, settings
from tests.support.flow_servers import FlowServer
from tests.support.pki import DEVICE


@contextmanager
def server(folder: Path) -> Iterator[FlowServer]:
    """The password of the first enrollment is the proof."""
    clock = SystemClock()
    ca = EvaluationCa.create_or_open(folder / "ca", clock)
    password_file = folder / "password"
    password_file.write_bytes(ca.password)
    password_file.chmod(0o600)
    with EstServer(ca) as running:
        est = EstSettings(url=running.url, username=USERNAME, password_file=password_file, timeout=5)
        scanner = Scanner(settings(folder, est), (ca.certificate,), clock)
        yield FlowServer(
            scanner,
            FlowName.EST,
            IdentityName.DEVICE,
            stop=running.stop,
            refuse=lambda: change(running, refused_serial_numbers=frozenset({DEVICE.serial_number})),
            wait=lambda: change(running, approve_by_hand=True),
            go_on=lambda: approve_all(running),
        )


def change(server: EstServer, **options: Any) -> None:
    """The operator wants something else from now on."""
    server.options = replace(server.options, **options)


def approve_all(server: EstServer) -> None:
    """The operator approves whatever waits."""
    for name in server.approvals.waiting():
        server.approvals.approve(name)
