"""Whatever interrupts the factory leaves no key behind, wherever keys live: FDO 1.1, 5.2."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from enroll.config import KeyStoreSettings, Pkcs11StoreSettings, SoftwareStoreSettings, StoreName, TpmStoreSettings
from enroll.errors import ProtocolViolation, StateError
from enroll.fdo.messages import MessageType
from tests.support.fdo.factory import PRODUCT, CutFiles, NewScanner, ScriptedManufacturer
from tests.support.key_stores import secret_file
from tests.support.softhsm import SoftHsm
from tests.support.swtpm import ResourceManager
from tests.unit.test_issue_power_cuts import PowerCut


@pytest.fixture(params=[StoreName.SOFTWARE, StoreName.PKCS11, StoreName.TPM])
def settings(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyStoreSettings:
    """Key stores of which one is used."""
    secret = secret_file(tmp_path / "secret", "a passphrase")
    match request.param:
        case StoreName.SOFTWARE:
            return KeyStoreSettings(SoftwareStoreSettings(tmp_path / "keys", secret))
        case StoreName.PKCS11:
            hsm: SoftHsm = request.getfixturevalue("softhsm")
            return KeyStoreSettings(pkcs11=Pkcs11StoreSettings(hsm.proxy, "through-proxy", hsm.pin_file))
        case _:
            tpm: ResourceManager = request.getfixturevalue("one_tpm")
            for name, value in tpm.environment.items():
                monkeypatch.setenv(name, value)
            return KeyStoreSettings(tpm=TpmStoreSettings(tpm.tcti, tmp_path / "keys", secret))


class FactoryLine:
    """Scanners with the same key store, of which each has a folder of its own."""

    def __init__(self, folder: Path, settings: KeyStoreSettings, store: StoreName) -> None:
        self._folder = folder
        self._settings = settings
        self._product = replace(PRODUCT, key_store=store)
        self._running: NewScanner | None = None

    def scanner(self, name: str, files: CutFiles | None = None) -> NewScanner:
        """The scanner with that folder, after a restart."""
        self._stop()
        self._running = NewScanner(self._folder / name, self._settings, self._product, files)
        return self._running

    def _stop(self) -> None:
        if self._running is not None:
            self._running.stores.close()  # as the end of a process does: a resource manager has few connections

    def close(self) -> None:
        last = self.scanner("last")
        for uri in last.made():
            last.stores.destroy(uri)
        self._stop()

    def assert_the_next_run_ends_well(self, name: str) -> None:
        """With one credential, and no key that it does not name."""
        scanner = self.scanner(name)
        if scanner.credentials.current() is None:
            scanner.initialize()
        else:
            with pytest.raises(StateError, match="already"):
                scanner.initialize()
        current = scanner.credentials.current()
        assert current is not None
        assert scanner.made() == {current.key_uri, current.secret_uri}
        for uri in scanner.made():
            scanner.stores.destroy(uri)


@pytest.fixture
def line(
    request: pytest.FixtureRequest, settings: KeyStoreSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FactoryLine]:
    # The cuts are between operations, so nothing has to reach the disk.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    made = FactoryLine(tmp_path, settings, request.node.callspec.params["settings"])
    yield made
    made.close()


def test_the_keys_of_a_credential_are_in_the_store(line: FactoryLine) -> None:
    scanner = line.scanner("one")

    credential = scanner.initialize()

    assert scanner.made() == {credential.key_uri, credential.secret_uri}
    assert line.scanner("one").credentials.current() == credential


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_power_cut_at_any_operation_leaves_no_key(line: FactoryLine, *, after: bool) -> None:
    for operation in itertools.count(1):
        name = f"trial-{operation}"
        try:
            line.scanner(name, CutFiles(operation, after=after)).initialize()
        except PowerCut:
            line.assert_the_next_run_ends_well(name)
        else:
            line.assert_the_next_run_ends_well(name)
            break
    assert operation > 5


@pytest.mark.parametrize("number", [MessageType.DI_APP_START, MessageType.DI_SET_HMAC])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_power_cut_at_any_message_leaves_no_key(line: FactoryLine, number: MessageType, *, after: bool) -> None:
    files = CutFiles(10_000, after=False)

    def cut(message: MessageType) -> None:
        if message is number:
            files.left = 0
            raise PowerCut

    scanner = line.scanner("trial", files)
    with pytest.raises(PowerCut):
        scanner.initialize(ScriptedManufacturer(after=cut) if after else ScriptedManufacturer(before=cut))

    assert line.scanner("trial").made()
    line.assert_the_next_run_ends_well("trial")


def test_a_manufacturer_that_is_none_leaves_no_key(line: FactoryLine) -> None:
    for manufacturer in (ScriptedManufacturer(b""), ScriptedManufacturer(done=b"")):
        scanner = line.scanner("one")
        with pytest.raises(ProtocolViolation):
            scanner.initialize(manufacturer)
        scanner.assert_untouched()
