"""The evaluation servers of FIDO Device Onboard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cryptography import x509

from enroll.errors import EnrollmentRefused
from enroll.evaluation.fdo.certificate_sources import CaBehind
from enroll.flows.settings import FlowName
from enroll.identity import IdentityName
from tests.support.fdo.parties import Parties, certificates_of
from tests.support.fdo.scanner import FdoScanner
from tests.support.flow_servers import FlowServer


@contextmanager
def server(folder: Path) -> Iterator[FlowServer]:
    """The factory has given the scanner its credential; its owner has registered."""
    with Parties(folder / "parties") as parties:
        device = FdoScanner(folder / "scanner")
        device.initialize(parties.http_channel())

        def refuse() -> None:
            modules = certificates_of(_SaysNo(parties.ca), folder)
            parties.owner = replace(parties.owner, make_modules=modules)

        yield FlowServer(
            device.scanner,
            FlowName.FDO,
            IdentityName.DEVICE,
            stop=parties.server.stop,
            refuse=refuse,
            searches=True,
        )


class _SaysNo(CaBehind):
    """A CA that issues nothing any more."""

    def issue(self, request: x509.CertificateSigningRequest) -> x509.Certificate:
        raise EnrollmentRefused(f"There is nothing for {request.subject}.", remedy="Ask the owner.")
