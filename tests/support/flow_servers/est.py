"""The evaluation CA behind EST."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from enroll.clock import SystemClock
from enroll.errors import EnrollmentRefused
from enroll.evaluation.ca import USERNAME, EvaluationCa
from enroll.evaluation.est_server import EstServer
from enroll.flows.settings import EstSettings, FlowName
from enroll.identity import IdentityName
from tests.support.enrolling import Scanner, settings
from tests.support.flow_servers import FlowServer


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
            refuse=lambda: setattr(ca, "issue", _refuse),
        )


def _refuse(*_: object) -> NoReturn:
    raise EnrollmentRefused("This scanner gets nothing.", remedy="Ask the CA's operator.")
