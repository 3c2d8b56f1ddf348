"""An owner gives the scanner up: the owner's keys are destroyed in every key store, the scanner's own stay (ADR 33)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from enroll.algorithms import HmacAlgorithm, KeyAlgorithm
from enroll.config import KeyStoreSettings, Pkcs11StoreSettings, StoreName, TpmStoreSettings
from enroll.fdo.credential import CredentialStore, DeviceCredential
from enroll.identity import Generation, IdentityName
from enroll.journal import PendingRequest, Step
from enroll.owner_release import OWNERS_IDENTITIES, OwnerRelease
from tests.support.enrolling import CaFlow, Scanner, settings
from tests.support.fdo.credentials import CA, credential, owned
from tests.support.key_stores import secret_file
from tests.support.softhsm import SoftHsm
from tests.support.swtpm import ResourceManager

TOKEN = "through-proxy"
FDO_KEY, FDO_SECRET = "release-fdo", "release-fdo-hmac"


class OwnedScanner:
    """Its owner's keys and its own are in one store."""

    def __init__(self, folder: Path, store: StoreName, keystore: KeyStoreSettings) -> None:
        self.store = store
        plain = settings(folder)
        chosen = {
            name: replace(getattr(plain.identity, name), key_store=store, key_algorithm=KeyAlgorithm.P_256)
            for name in ("device", "signing")
        }
        changed = replace(plain, keystore=keystore, identity=replace(plain.identity, **chosen))
        self.scanner = Scanner(changed, (CA.certificate,))
        self.before = set(self.scanner.stores.list())
        self.own = {
            self.scanner.stores.generate(store, FDO_KEY, KeyAlgorithm.P_256),
            self.scanner.stores.generate_secret(store, FDO_SECRET, HmacAlgorithm.SHA256),
        }
        self._enroll()
        self.credentials.commit(self.credential)

    def _enroll(self) -> None:
        flow = CaFlow(CA, self.scanner.clock)
        for identity in (IdentityName.DEVICE, IdentityName.SIGNING, IdentityName.SIGNING):
            assert isinstance(self.scanner.issue(flow, identity), Generation)
        names = "derivation-0123456789abcdef", "synthesis-0123456789abcdef"
        uris = [self.scanner.stores.generate(self.store, name, KeyAlgorithm.P_256) for name in names]
        # The power went before the URI of the second key was written down.
        for name, uri, step in zip(names, (uris[0], ""), (Step.SENT, Step.PLANNED), strict=True):
            request = PendingRequest(step, name, uri, "{}", self.scanner.clock.now())
            self.scanner.identities.journal(IdentityName(name.partition("-")[0])).write(request)

    @property
    def credentials(self) -> CredentialStore:
        """Those of FDO."""
        return CredentialStore(self.scanner.settings.state_directory / "fdo", self.scanner.stores, self.scanner.files)

    @property
    def credential(self) -> DeviceCredential:
        """The one that the owner has left."""
        key, secret = sorted(self.own, key=len)
        return owned(replace(credential(secret), key_uri=key))

    @property
    def keys(self) -> set[str]:
        """What has been made in the store and is still there."""
        return set(self.scanner.stores.list()) - self.before

    def clean_up(self) -> None:
        for uri in self.keys:
            self.scanner.stores.destroy(uri)
        self.scanner.stores.close()


@pytest.fixture(params=[StoreName.PKCS11, StoreName.TPM])
def scanner(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnedScanner]:
    match request.param:
        case StoreName.PKCS11:
            hsm: SoftHsm = request.getfixturevalue("softhsm")
            keystore = KeyStoreSettings(pkcs11=Pkcs11StoreSettings(hsm.proxy, TOKEN, hsm.pin_file))
        case _:
            tpm: ResourceManager = request.getfixturevalue("one_tpm")
            for name, value in tpm.environment.items():
                monkeypatch.setenv(name, value)
            secret = secret_file(tmp_path / "secret", "an authorization value")
            keystore = KeyStoreSettings(tpm=TpmStoreSettings(tpm.tcti, tmp_path / "keys", secret))
    made = OwnedScanner(tmp_path, request.param, keystore)
    yield made
    made.clean_up()


def test_the_keys_of_the_owner_go_and_those_of_the_scanner_stay(scanner: OwnedScanner) -> None:
    assert len(scanner.keys) == 7

    assert OwnerRelease(scanner.scanner.context).run() == ()

    assert scanner.keys == scanner.own
    assert [scanner.scanner.identities.current(name) for name in OWNERS_IDENTITIES] == [None] * 4
    released = scanner.credentials.current()
    assert released == replace(scanner.credential, owner=None, was_owned=True)
    message = b"to whom it may concern"
    assert scanner.scanner.stores.load_secret(released.secret_uri).sign(message)
