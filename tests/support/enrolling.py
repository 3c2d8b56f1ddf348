"""A scanner that enrolls: settings, key store and identity directory below one folder."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509

from enroll.algorithms import KeyAlgorithm
from enroll.certificates import check_pair, pem
from enroll.clock import Clock
from enroll.config import (
    EnrollSettings,
    IdentitiesSettings,
    IdentitySettings,
    KeyStoreSettings,
    SigningIdentitySettings,
    SoftwareStoreSettings,
    StoreName,
)
from enroll.csr import CertificateRequest, Usage, build
from enroll.flows.base import (
    Enrollment,
    Flow,
    FlowContext,
    Handle,
    Issued,
    OfferedEnrollment,
    Pending,
    PlannedExchange,
    Refused,
)
from enroll.flows.est import EstFlow
from enroll.flows.settings import EstSettings
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.issue import NotAsked, issue
from enroll.keystore import KeyStores
from enroll.keystore.base import Protection
from enroll.keystore.memory import MemoryKeyStore
from enroll.offer import Offer, write_offer
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


def with_memory_key(settings: EnrollSettings) -> EnrollSettings:
    """The same scanner, whose agent makes the key that signs."""
    signing = replace(settings.identity.signing, key_store=StoreName.MEMORY)
    return replace(settings, identity=replace(settings.identity, signing=signing))


@dataclass
class CaFlow:
    """A flow without a network: `answer` decides, or the CA issues what is asked for."""

    ca: HospitalCa
    clock: Clock
    name: str = "est"
    answer: Callable[[Enrollment | OfferedEnrollment], Issued | Pending | Refused] | None = None
    asked: list[Enrollment | OfferedEnrollment] = field(default_factory=list)
    confirmed: list[x509.Certificate | None] = field(default_factory=list)
    hears_of_it: bool = False

    def enroll(self, enrollment: Enrollment | OfferedEnrollment) -> Issued | Pending | Refused:
        self.asked.append(enrollment)
        if self.answer:
            return self.answer(enrollment)
        content = Content.asked(enrollment.request, self.clock.now())
        return Issued((self.ca.issue(enrollment.public_key, content),))

    @property
    def anchors(self) -> tuple[x509.Certificate, ...]:
        return (self.ca.certificate,)

    def anchors_and_intermediates(self) -> tuple[x509.Certificate, ...]:
        return self.anchors

    def asks_for(self, request: CertificateRequest) -> CertificateRequest:
        return request

    def plan(self, request: CertificateRequest, renews: x509.Certificate | None) -> tuple[PlannedExchange, ...]:
        return ()

    def confirm(self, handle: Handle, certificate: x509.Certificate | None) -> bool:
        self.confirmed.append(certificate)
        return self.hears_of_it


class Scanner:
    """A scanner with its folder; a new one on the same folder is the process after a restart."""

    def __init__(
        self,
        settings: EnrollSettings,
        anchors: tuple[x509.Certificate, ...],
        clock: Clock | None = None,
        files: StateFiles | None = None,
    ) -> None:
        anchor_file = settings.state_directory.with_name("anchors.pem")
        anchor_file.write_bytes(pem(anchors))
        self.settings = replace(settings, est=replace(settings.est, anchor_file=anchor_file))
        self.anchors = anchors
        self.clock = clock or SteppedClock()
        self.files = files or StateFiles()
        self.stores = KeyStores(settings.keystore, settings.state_directory, self.files)
        self.identities = IdentityStore(settings.state_directory, self.files)

    def issue(self, flow: Flow, identity: IdentityName = IdentityName.SIGNING) -> Generation | Pending | NotAsked:
        return issue(
            identity,
            self.settings,
            stores=self.stores,
            identities=self.identities,
            flow=flow,
            clock=self.clock,
        )

    def connect(self, identity: IdentityName) -> EstFlow:
        return EstFlow.connect(identity, self.context)

    @property
    def context(self) -> FlowContext:
        """What flows work with."""
        return FlowContext(self.settings, self.stores, self.identities, self.clock, self.files)

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

    def forget_until(self, identity: IdentityName) -> None:
        """The time to ask again has come."""
        journal = self.identities.journal(identity)
        pending = journal.read()
        assert pending is not None
        journal.write(replace(pending, until=None))

    def restarted(self, **changes: Any) -> Scanner:
        """The process after a restart, with other settings where a test wants them."""
        return Scanner(replace(self.settings, **changes), self.anchors, self.clock)


class Keyholder:
    """The agent's side of keys in memory: makes them, and offers requests for them."""

    def __init__(self, scanner: Scanner) -> None:
        self.scanner = scanner
        self.keys = MemoryKeyStore()
        self.pending = scanner.identities.directory(IdentityName.SIGNING) / "pending"

    def offer(self) -> Offer:
        """A new key, offered as the agent offers it."""
        wanted = self.scanner.settings.identity.signing
        now = self.scanner.clock.now()
        uri = self.keys.generate(f"signing-{secrets.token_hex(8)}", wanted.key_algorithm)
        request = build(
            self.keys.load(uri),
            CertificateRequest.for_device(self.scanner.settings.device, Usage.SIGNING),
            usage_period=(now - timedelta(minutes=5), now + timedelta(days=wanted.key_lifetime)),
            protection=Protection.MEMORY,
        )
        offer = Offer(uri, request)
        write_offer(offer, self.pending, StateFiles())
        return offer

    def matching_pair(self) -> Generation | None:
        """What is in use, after the key that is held and the certificate have proved to belong together."""
        current = self.scanner.identities.current(IdentityName.SIGNING)
        if current is not None:
            check_pair(self.keys.load(current.key_uri), current.certificate)
        return current
