"""A key that is lost is replaced where `key_store` says, and nowhere else (ADR 37)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from enroll.config import StoreName
from enroll.errors import KeyNotFound, KeyStoreUnavailable
from enroll.identity import Generation, IdentityName
from enroll.keystore import KeyStores
from enroll.keystore.base import KeyStore, Protection
from enroll.keystore.memory import MemoryKeyStore
from tests.support.enrolling import CaFlow, Scanner, settings
from tests.support.pki import HospitalCa

CA = HospitalCa()
SIGNING = IdentityName.SIGNING
STORES = (StoreName.SOFTWARE, StoreName.TPM)


class PretendTpm(MemoryKeyStore):
    """It can be cleared, and away."""

    scheme = StoreName.TPM.value

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False

    def check(self) -> None:
        if self.is_away:
            raise KeyStoreUnavailable("The TPM does not answer.")

    def protection(self, uri: str) -> Protection:
        super().protection(uri)
        return Protection.HARDWARE


class StoresWithTpm(KeyStores):
    """Of one process."""

    def __init__(self, scanner: Scanner) -> None:
        super().__init__(scanner.settings.keystore, scanner.settings.state_directory, scanner.files)
        self.tpm = PretendTpm()

    def _store(self, store: StoreName, token: str = "") -> KeyStore:
        return self.tpm if store is StoreName.TPM else super()._store(store, token)


def configured(scanner: Scanner, store: StoreName) -> Scanner:
    """The next process, with another `[identity.signing] key_store`, and the same key stores."""
    identity = scanner.settings.identity
    signing = replace(identity.signing, key_store=store)
    after = scanner.restarted(identity=replace(identity, signing=signing))
    after.stores = scanner.stores
    return after


def issue(scanner: Scanner) -> Generation:
    generation = scanner.issue(CaFlow(CA, scanner.clock))
    assert isinstance(generation, Generation)
    return generation


def keys(scanner: Scanner) -> set[str]:
    """All there are."""
    assert isinstance(scanner.stores, StoresWithTpm)
    return {*scanner.stores.list(), *scanner.stores.tpm.list()}


@pytest.fixture
def scanner(tmp_path: Path) -> Scanner:
    scanner = Scanner(settings(tmp_path), (CA.certificate,))
    scanner.stores = StoresWithTpm(scanner)
    return scanner


@pytest.mark.parametrize("wanted", STORES)
@pytest.mark.parametrize("lost", STORES)
def test_after_a_key_was_lost_the_next_one_is_made_in_the_configured_key_store(
    scanner: Scanner, lost: StoreName, wanted: StoreName
) -> None:
    """Wherever the lost one was."""
    first = issue(configured(scanner, lost))
    scanner.stores.destroy(first.key_uri)
    with pytest.raises(KeyNotFound):
        scanner.matching_pair()

    second = issue(configured(scanner, wanted))

    assert (second.number, second.key_uri.partition(":")[0]) == (2, wanted)
    assert (second.protection is Protection.HARDWARE) == (wanted is StoreName.TPM)
    assert keys(scanner) == {second.key_uri}
    assert scanner.matching_pair() == second


def test_where_the_configured_key_store_is_away_no_key_is_made_anywhere_else(scanner: Scanner) -> None:
    """As where a TPM was taken out: a key in a file would be less than what its owner has asked for."""
    scanner = configured(scanner, StoreName.TPM)
    first = issue(scanner)
    assert isinstance(scanner.stores, StoresWithTpm)
    scanner.stores.destroy(first.key_uri)
    scanner.stores.tpm.is_away = True

    with pytest.raises(KeyStoreUnavailable):
        issue(scanner)

    assert keys(scanner) == set()
    assert scanner.identities.generations(SIGNING) == (1,)
