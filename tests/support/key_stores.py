"""The key stores that the contract is checked on, and what a test needs to know of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from enroll.algorithms import KeyAlgorithm
from enroll.config import KeyStoreSettings, SoftwareStoreSettings, StoreName
from enroll.keystore import open_store
from enroll.keystore.base import KeyStore, PrivateKey
from enroll.statefile import StateFiles
from tests.support.softhsm import SoftHsm

WRONG_SECRET = "not-the-secret-9876"


@dataclass
class Backend:
    """A key store and what the contract needs to know about it.

    Args:
        make: A new store on the same keys; takes the file of its PIN or passphrase.
        right, wrong: Files with the right secret and a wrong one.
        hostile_uris: URIs of the store's own scheme that must name nothing.
        arguments: Library, token and PIN file for a program that opens the same token in its own process.
    """

    make: Callable[[Path], KeyStore]
    right: Path
    wrong: Path
    hostile_uris: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    store: KeyStore = field(init=False)
    uris: dict[KeyAlgorithm, str] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.store = self.make(self.right)

    def uri(self, algorithm: KeyAlgorithm) -> str:
        """A key that all tests share; keys are slow to make."""
        if algorithm not in self.uris:
            self.uris[algorithm] = self.store.generate(f"shared-{algorithm}", algorithm)
        return self.uris[algorithm]

    def key(self, algorithm: KeyAlgorithm) -> PrivateKey:
        """The same, loaded."""
        return self.store.load(self.uri(algorithm))

    def new_name(self) -> str:
        """The name of a key of one test's own."""
        return f"own-{next(self.numbers)}"


def secret_file(path: Path, secret: str) -> Path:
    path.write_text(secret, "utf-8")
    path.chmod(0o600)
    return path


def software(directory: Path) -> Backend:
    def make(passphrase_file: Path) -> KeyStore:
        settings = KeyStoreSettings(SoftwareStoreSettings(directory / "keys", passphrase_file))
        return open_store(StoreName.SOFTWARE, settings, directory, StateFiles())

    hostile = ("software:../keys/x", "software:/etc/passwd", "software:a/b", "software:.", "software:a\0b", "software:")
    right = secret_file(directory / "right", "the-right-passphrase")
    return Backend(make, right, secret_file(directory / "wrong", WRONG_SECRET), hostile)


def token(hsm: SoftHsm, module: Path, label: str, directory: Path) -> Backend:
    def make(pin_file: Path) -> KeyStore:
        return hsm.store(module, label, pin_file)

    key = f"pkcs11:token={label};object=scanseal-x"
    hostile = (
        "pkcs11:",
        "pkcs11:object=x",
        f"pkcs11:token={label}",
        f"{key};{key}",
        f"{key};id=%0",
        f"{key};type=cert",
    )
    elsewhere = (
        "pkcs11:token=elsewhere;object=x",
        f"{key}?module-path=/tmp/x.so",
        f"{key};object=%00",
        f"{key};serial=1",
    )
    # A copy of SoftHSM's library is only needed where the proxy has loaded it already.
    arguments = (str(module if module == hsm.proxy else hsm.library), label, str(hsm.pin_file))
    wrong = secret_file(directory / "wrong", WRONG_SECRET)
    return Backend(make, hsm.pin_file, wrong, hostile + elsewhere, arguments)
