"""A scanner whose keys come from a pool, where making them would take most of the time of a test."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

from enroll.algorithms import KeyAlgorithm
from enroll.config import StoreName
from enroll.keystore import KeyStores
from enroll.keystore.base import KeyStore, Protection
from enroll.keystore.memory import MemoryKeyStore
from tests.support.clocks import SteppedClock
from tests.support.enrolling import Scanner
from tests.support.enrolling import settings as scanner_settings
from tests.support.pki import HospitalCa


@cache
def pool(count: int) -> tuple[rsa.RSAPrivateKey, ...]:
    """As many keys that sign as one example may need; the next example takes them again."""
    return tuple(rsa.generate_private_key(65537, 2048) for _ in range(count))


class PooledKeys(MemoryKeyStore):
    """A token of the scanner: it outlives every process, and holds what it was given."""

    scheme = StoreName.SOFTWARE.value

    def __init__(self, signing: Iterable[rsa.RSAPrivateKey]) -> None:
        super().__init__()
        self._unused = iter(signing)

    def generate(self, name: str, algorithm: KeyAlgorithm) -> str:
        is_signing = algorithm is KeyAlgorithm.RSA_2048
        return self._keep(name, next(self._unused)) if is_signing else super().generate(name, algorithm)

    def protection(self, uri: str) -> Protection:
        super().protection(uri)
        return Protection.SOFTWARE

    def close(self) -> None:
        """A process has ended."""


class PooledStores(KeyStores):
    """The key stores of one process."""

    def __init__(self, scanner: Scanner, token: PooledKeys) -> None:
        super().__init__(scanner.settings.keystore, scanner.settings.state_directory, scanner.files)
        self._token = token

    def _store(self, store: StoreName, token: str = "") -> KeyStore:
        return self._token if store is StoreName.SOFTWARE else super()._store(store, token)


def new_scanner(folder: Path, ca: HospitalCa, clock: SteppedClock, token: PooledKeys) -> Scanner:
    """A scanner whose keys are in a token; another one on the same folder is the process after a restart."""
    plain = scanner_settings(folder)
    signing = replace(plain.identity.signing, key_algorithm=KeyAlgorithm.RSA_2048)
    identity = replace(plain.identity, signing=signing)
    scanner = Scanner(replace(plain, identity=identity), (ca.certificate,), clock)
    scanner.stores = PooledStores(scanner, token)
    return scanner
