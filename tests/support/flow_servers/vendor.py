"""The evaluation vendor's provisioning service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

from enroll.algorithms import KeyAlgorithm
from enroll.clock import SystemClock
from enroll.config import VendorIdentitySettings
from enroll.enroller import Enroller
from enroll.errors import EnrollmentRefused
from enroll.evaluation.vendor_ca import VendorCa
from enroll.evaluation.vendor_server import LABEL, VendorServer
from enroll.flows.settings import FlowName, VendorSettings
from enroll.identity import Generation, IdentityName
from enroll.vendor.case import ServiceCase
from enroll.vendor.ticket import IDENTITIES, read_ticket
from tests.support.enrolling import Scanner, settings
from tests.support.flow_servers import FlowServer


@contextmanager
def server(folder: Path) -> Iterator[FlowServer]:
    """A ticket is the proof at first; then the factory identity, which is there already, as from the factory."""
    with vendor_service(folder) as (ca, running, scanner):
        accept_ticket(scanner, ca)
        with Enroller(scanner.restarted().context) as enroller:
            assert isinstance(enroller.enroll(IdentityName.IDEVID, FlowName.VENDOR), Generation)

        def refuse() -> None:
            for operation in ("issue", "renew"):
                setattr(ca, operation, _refuse)

        yield FlowServer(scanner, FlowName.VENDOR, IdentityName.VENDOR, stop=running.stop, refuse=refuse)


@contextmanager
def vendor_service(folder: Path) -> Iterator[tuple[VendorCa, VendorServer, Scanner]]:
    """The service, and a scanner that knows where it is and has no ticket."""
    clock = SystemClock()
    ca = VendorCa.create_or_open(folder / "vendor-ca", clock)
    with VendorServer(ca) as running:
        vendor = VendorSettings(url=running.url, label=LABEL, anchor_file=ca.anchor_file, timeout=5)
        plain = settings(folder)
        quick = replace(plain.identity, vendor=VendorIdentitySettings(key_algorithm=KeyAlgorithm.RSA_2048))
        yield ca, running, Scanner(replace(plain, vendor=vendor, identity=quick), (), clock)


def accept_ticket(scanner: Scanner, ca: VendorCa, **said: str) -> str:
    """A ticket for what this scanner shows on its screen, which it keeps."""
    case = ServiceCase(scanner.settings.state_directory, scanner.files)
    make: Callable[..., str] = ca.make_ticket
    text = make(scanner.settings.device.serial_number, case.nonce(), IDENTITIES, timedelta(hours=24), **said)
    case.accept(text, read_ticket(text))
    return text


def _refuse(*_: object) -> NoReturn:
    raise EnrollmentRefused("This scanner gets nothing.", remedy="Ask the vendor.")
