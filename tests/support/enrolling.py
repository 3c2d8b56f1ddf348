"""A scanner that enrolls: settings, key store and identity directory below one folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptography import x509

from enroll.algorithms import KeyAlgorithm
from enroll.certificates import check_pair
from enroll.clock import Clock
from enroll.config import (
    EnrollSettings,
    EstSettings,
    IdentitiesSettings,
    IdentitySettings,
    KeyStoreSettings,
    SigningIdentitySettings,
    SoftwareStoreSettings,
)
from enroll.flows.base import Enrollment, Flow, Issued, Pending, Refused
from enroll.flows.est import EstFlow
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.issue import issue
from enroll.keystore import KeyStores
from enroll.statefile import StateFiles
from tests.support.clocks import SteppedClock
from tests.support.pki import DEVICE, Content, HospitalCa


def settings(folder: Path, est: EstSettings | None = None) -> EnrollSettings:
    """Software keys, P-256 for both identities because they are made quickly."""
    passphrase_file = folder / "passphrase"
    passphrase_file.write_text("a passphrase\n")
    passphrase_file.chmod(0o600)
    quick = IdentitySettings(key_algorithm=KeyAlgorithm.P_256)
    return EnrollSettings(
        device=DEVICE,
        state_directory=folder / "state",
        keystore=KeyStoreSettings(software=SoftwareStoreSettings(passphrase_file=passphrase_file)),
        identity=IdentitiesSettings(device=quick, signing=SigningIdentitySettings(key_algorithm=KeyAlgorithm.P_256)),
        est=est or EstSettings(),
    )


@dataclass
class CaFlow:
    """A flow without a network: `answer` decides, or the CA issues what is asked for."""

    ca: HospitalCa
    clock: Clock
    name: str = "est"
    answer: Callable[[Enrollment], Issued | Pending | Refused] | None = None
    asked: list[Enrollment] = field(default_factory=list)

    def enroll(self, enrollment: Enrollment) -> Issued | Pending | Refused:
        self.asked.append(enrollment)
        if self.answer:
            return self.answer(enrollment)
        content = Content.asked(enrollment.request, self.clock.now())
        return Issued((self.ca.issue(enrollment.key.public_key(), content),))

    def anchors_and_intermediates(self) -> tuple[x509.Certificate, ...]:
        return (self.ca.certificate,)


class Scanner:
    """A scanner with its folder; a new one on the same folder is the process after a restart."""

    def __init__(
        self,
        settings: EnrollSettings,
        anchors: tuple[x509.Certificate, ...],
        clock: Clock | None = None,
        files: StateFiles | None = None,
    ) -> None:
        self.settings = settings
        self.anchors = anchors
        self.clock = clock or SteppedClock()
        self.files = files or StateFiles()
        self.stores = KeyStores(settings.keystore, settings.state_directory, self.files)
        self.identities = IdentityStore(settings.state_directory, self.files)

    def issue(self, flow: Flow, identity: IdentityName = IdentityName.SIGNING) -> Generation | Pending:
        return issue(
            identity,
            self.settings,
            stores=self.stores,
            identities=self.identities,
            flow=flow,
            anchors=self.anchors,
            clock=self.clock,
        )

    def connect(self, identity: IdentityName) -> EstFlow:
        return EstFlow.connect(
            identity,
            self.settings,
            stores=self.stores,
            identities=self.identities,
            anchors=self.anchors,
            clock=self.clock,
            files=self.files,
        )

    def enroll(self, identity: IdentityName) -> Generation:
        """The whole way over EST."""
        with self.connect(identity) as flow:
            issued = self.issue(flow, identity)
        assert isinstance(issued, Generation)
        return issued

    def matching_pair(self, identity: IdentityName = IdentityName.SIGNING) -> Generation | None:
        """What is in use, after its key and certificate have proved to belong together."""
        current = self.identities.current(identity)
        if current is not None:
            check_pair(self.stores.load(current.key_uri), current.certificate)
        return current

    def restarted(self, **changes: Any) -> Scanner:
        """The process after a restart, with other settings where a test wants them."""
        return Scanner(replace(self.settings, **changes), self.anchors, self.clock)
