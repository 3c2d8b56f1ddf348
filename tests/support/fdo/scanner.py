"""A scanner below one folder that its factory has given an FDO credential."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from enroll.algorithms import KeyAlgorithm
from enroll.clock import SystemClock
from enroll.config import EnrollSettings, StoreName
from enroll.enroller import Enroller
from enroll.fdo.cose import Sign1
from enroll.fdo.credential import CredentialStore, DeviceCredential
from enroll.fdo.devmod import DeviceDescription
from enroll.fdo.di import Initialization, Product
from enroll.fdo.key_exchange import suites_for
from enroll.fdo.public_key import KeyEncoding
from enroll.fdo.service_info import DeviceModule
from enroll.fdo.to1 import find_owner
from enroll.fdo.to2 import Session, Terms
from enroll.fdo.transport import Channel
from enroll.fdo.tunnel import CipherSuite
from enroll.flows.base import Pending
from enroll.flows.settings import FdoApproval, FlowName
from enroll.identity import Generation, IdentityName
from enroll.keystore.base import PrivateKey
from tests.support.enrolling import Scanner, settings


class FdoScanner:
    """A scanner; `scanner` is what the tests of other flows work with."""

    def __init__(self, folder: Path, **fdo: Any) -> None:
        folder.mkdir(exist_ok=True)
        plain = settings(folder)
        # Whether somebody approves the next owner is the subject of few tests.
        self._take(replace(plain, fdo=replace(plain.fdo, **{"approval": FdoApproval.NEVER, **fdo})))

    def _take(self, changed: EnrollSettings) -> None:
        self.scanner = Scanner(changed, (), SystemClock())
        self.directory = changed.state_directory / "fdo"
        self.credentials = CredentialStore(self.directory, self.scanner.stores, self.scanner.files)

    def configure(self, **fdo: Any) -> None:
        """Change `[fdo]`, and start anew."""
        self.change(fdo=replace(self.scanner.settings.fdo, **fdo))

    def change(self, **tables: Any) -> None:
        """Change whole tables of the configuration, and start anew."""
        self._take(replace(self.scanner.settings, **tables))

    def initialize(
        self,
        channel: Channel,
        algorithm: KeyAlgorithm = KeyAlgorithm.P_256,
        encoding: KeyEncoding = KeyEncoding.X509,
        store: StoreName = StoreName.SOFTWARE,
        token: str = "",
    ) -> DeviceCredential:
        """In the factory (DI)."""
        device = self.scanner.settings.device
        product = Product(device.serial_number, device.model, store, token, algorithm, encoding)
        run = Initialization(product, self.scanner.stores, self.credentials, self.directory, self.scanner.files)
        return run.run(channel)

    @property
    def credential(self) -> DeviceCredential:
        """The one in use."""
        credential = self.credentials.current()
        assert credential is not None
        return credential

    @property
    def key(self) -> PrivateKey:
        """The device key."""
        return self.scanner.stores.load(self.credential.key_uri)

    def find_owner(self, channel: Channel) -> Sign1:
        """TO1."""
        return find_owner(channel, self.credential, self.key)

    def session(self, channel: Channel, redirect: Sign1 | None = None, **terms: Any) -> Session:
        """TO2, not begun; `terms` are those of `Terms` that are not the usual ones."""
        credential = self.credential
        usual = Terms(
            suites_for(self.key.public_key())[0],
            CipherSuite.A256GCM,
            None,
            DeviceDescription.of_this_machine(credential.device_info),
            reuse=False,
            judge=lambda _: None,
            redirect=redirect,
            clock=SystemClock(),
        )
        secret = self.scanner.stores.load_secret(credential.secret_uri)
        return Session(channel, credential, self.key, secret, replace(usual, **terms))

    def take_over(
        self, channel: Channel, redirect: Sign1 | None = None, modules: Sequence[DeviceModule] = (), **terms: Any
    ) -> DeviceCredential:
        """All of TO2 but a certificate; the credential that is in use then."""
        with self.session(channel, redirect, **terms) as session:
            session.begin()
            session.talk(modules)
            self.credentials.propose(session.next_credential)
            session.finish()
            self.credentials.commit(session.next_credential)
        return self.credential

    def release(self) -> None:
        """Its owner gives it up."""
        self.credentials.release()

    def wait(self) -> None:
        """The time to search for the owner again has come."""
        journal = self.scanner.identities.journal(IdentityName.DEVICE)
        if (pending := journal.read()) is not None:
            journal.write(replace(pending, until=None))
        self.scanner.files.remove(self.directory / "attempt.json")

    def onboard(self) -> Generation | Pending:
        """One run of the enroller by FDO, as after a restart."""
        with Enroller(self.scanner.restarted().context) as enroller:
            answer = enroller.enroll(IdentityName.DEVICE, FlowName.FDO)
        assert isinstance(answer, Generation | Pending)
        return answer
