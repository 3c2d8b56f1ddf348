"""A scanner that has an identity from the hospital's CA and renews it at the stub."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from enroll.clock import SystemClock
from enroll.enroller import Enroller
from enroll.flows.base import Pending
from enroll.flows.offline import Errand
from enroll.flows.offline.desk import OfflineDesk
from enroll.flows.settings import (
    AcmeChallenge,
    AcmeIdentifier,
    AcmeSettings,
    CmpSettings,
    EstSettings,
    FlowName,
    OfflineSettings,
    ScepSettings,
)
from enroll.identity import Generation, IdentityName
from enroll.issue import NotAsked
from enroll.offline_request import read_offline_request
from tests.support.cmp_scanner import deliver
from tests.support.enrolling import Scanner, settings
from tests.support.hostile_ca.certifying import asked_of, certs_only
from tests.support.hostile_ca.right_acme import HOST
from tests.support.hostile_ca.server import HostileCa
from tests.support.pki import HospitalCa

DEVICE = IdentityName.DEVICE
TIMEOUT = 1  # second, for one exchange
LONGEST_SLEEP = 0.02  # seconds
VENDOR = HospitalCa("Vendor CA")


class HastyClock(SystemClock):
    """The time, for somebody who hardly sleeps."""

    def sleep(self, seconds: float) -> None:
        """A CA that wants to be waited for gets less than that."""
        super().sleep(min(seconds, LONGEST_SLEEP))


@dataclass(frozen=True)
class Customer:
    """A scanner, and the way that its identity comes.

    Args:
        folder: All that it has.
        flow: The way.
        stub: The CA.
    """

    folder: Path
    flow: FlowName
    stub: HostileCa

    @property
    def scanner(self) -> Scanner:
        """The process after a start."""
        folder, anchor_file = self.folder, self.folder / "anchors.pem"
        password_file = folder / "password"
        password_file.write_text("Tr0ub4dor&3")
        password_file.chmod(0o600)
        url = self.stub.url
        configured = replace(
            settings(folder, EstSettings(url, username="ct-1", password_file=password_file, timeout=TIMEOUT)),
            acme=AcmeSettings(
                directory_url=f"{url}/acme/directory",
                anchor_file=anchor_file,
                identifier_type=AcmeIdentifier.DNS,
                identifier=HOST,
                challenge=AcmeChallenge.HTTP,
                hook=Path("/bin/true"),
                patience=TIMEOUT,
                timeout=TIMEOUT,
            ),
            cmp=CmpSettings(url=f"{url}/cmp", anchor_file=anchor_file, timeout=TIMEOUT),
            scep=ScepSettings(
                enabled=True, url=f"{url}/scep", anchor_file=anchor_file, challenge_file=password_file, timeout=TIMEOUT
            ),
            offline=OfflineSettings(anchor_file=anchor_file),
        )
        return Scanner(configured, (self.stub.ca.certificate,), HastyClock())

    def enrolled(self) -> Customer:
        """The same with an identity in use."""
        if self.flow is FlowName.CMP:
            deliver(self.scanner, VENDOR)
        generation = self.renew()
        assert isinstance(generation, Generation)
        self.stub.in_use[self.flow] = generation.certificate
        return self

    def copied(self, folder: Path) -> Customer:
        """The same scanner with another disk."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return replace(self, folder=folder)

    def renew(self) -> Generation | Pending | NotAsked:
        """As the timer does it, or as a person carries it."""
        scanner = self.scanner
        if self.flow is FlowName.OFFLINE:
            return self._by_hand(scanner)
        with Enroller(scanner.context) as enroller:
            return enroller.enroll(DEVICE, self.flow)

    def _by_hand(self, scanner: Scanner) -> Generation:
        desk, files = OfflineDesk(scanner.context), list[bytes]()
        desk.export(DEVICE, Errand(desk.number_for(DEVICE), "", "request.txt", files.append))
        asked = asked_of(read_offline_request(files[0]).signed)
        message = certs_only(*self.stub.issued(FlowName.OFFLINE, asked))
        (generation,) = desk.take_in({"answer": self.stub.carried(message)})
        return generation
