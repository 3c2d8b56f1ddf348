"""The key stores that the contract is checked on, and what a test needs to know of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from enroll.algorithms import HmacAlgorithm, KeyAlgorithm
from enroll.config import KeyStoreSettings, SoftwareStoreSettings, StoreName, TpmStoreSettings
from enroll.keystore import open_store
from enroll.keystore.base import HmacKey, KeyStore, PrivateKey, Protection
from enroll.statefile import StateFiles
from tests.support.softhsm import SoftHsm
from tests.support.tpm2_pkcs11 import LABEL, TokenInTpm

WRONG_SECRET = "not-the-secret-9876"

ALGORITHMS = (KeyAlgorithm.RSA_2048, KeyAlgorithm.RSA_3072, KeyAlgorithm.P_256, KeyAlgorithm.P_384)
HMACS = tuple(HmacAlgorithm)


@dataclass(frozen=True)
class Traits:
    """What a kind of store can do; everything else has to be refused.

    Args:
        algorithms: The keys that it makes; RSA-4096 takes too long for a test.
        hmacs: The secrets that it makes.
        any_salt: Whether PSS takes salts of every length, or only that of the digest.
        survives: Whether another store object finds the keys, with a PIN or passphrase.
        protection: What it says of its keys.
    """

    algorithms: tuple[KeyAlgorithm, ...] = ALGORITHMS
    hmacs: tuple[HmacAlgorithm, ...] = HMACS
    any_salt: bool = True
    survives: bool = True
    protection: Protection = Protection.SOFTWARE


# A simulated TPM has the keys of a real one; SHA-384 is the longest hash of its HMAC.
_OF_A_TPM = Traits(any_salt=False)
TRAITS: Mapping[str, Traits] = {
    "in_files": Traits(),
    "in_memory": Traits(survives=False, protection=Protection.MEMORY),
    "through_proxy": Traits(),
    "direct": Traits(),
    "tpm2_pkcs11": Traits(hmacs=(), any_salt=False),
    "in_tpm": _OF_A_TPM,
}


@dataclass
class Backend:
    """A key store and what the contract needs to know about it.

    Args:
        traits: What it can do.
        make: A new store on the same keys; takes the file of its PIN or passphrase.
        right, wrong: Files with the right secret and a wrong one.
        hostile_uris: URIs of the store's own scheme that must name nothing.
        arguments: Library, token and PIN file for a program that opens the same token in its own process.
    """

    traits: Traits
    make: Callable[[Path], KeyStore]
    right: Path
    wrong: Path
    hostile_uris: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    store: KeyStore = field(init=False)
    uris: dict[KeyAlgorithm | HmacAlgorithm, str] = field(default_factory=dict)
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

    def secret(self, algorithm: HmacAlgorithm) -> HmacKey:
        """A secret that all tests share."""
        if algorithm not in self.uris:
            self.uris[algorithm] = self.store.generate_secret(f"shared-{algorithm}", algorithm)
        return self.store.load_secret(self.uris[algorithm])

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

    right = secret_file(directory / "right", "the-right-passphrase")
    wrong = secret_file(directory / "wrong", WRONG_SECRET)
    return Backend(TRAITS["in_files"], make, right, wrong, _files_elsewhere("software"))


def memory(directory: Path) -> Backend:
    def make(_: Path) -> KeyStore:
        return open_store(StoreName.MEMORY, KeyStoreSettings(), directory, StateFiles())

    return Backend(TRAITS["in_memory"], make, directory, directory, ("memory:", "memory:x", "memory:shared-rsa-2048 "))


def tpm(directory: Path, tcti: str) -> Backend:
    """Keys of a TPM that is spoken to directly.

    Args:
        directory: For the wrapped keys.
        tcti: How several connections reach the TPM at the same time.
    """

    def make(authorization_file: Path) -> KeyStore:
        settings = KeyStoreSettings(tpm=TpmStoreSettings(tcti, directory / "keys", authorization_file))
        return open_store(StoreName.TPM, settings, directory, StateFiles())

    right = secret_file(directory / "right", "the-right-authorization-value")
    return Backend(
        TRAITS["in_tpm"], make, right, secret_file(directory / "wrong", WRONG_SECRET), _files_elsewhere("tpm")
    )


def token(hsm: SoftHsm, name: str, module: Path, label: str, directory: Path) -> Backend:
    def make(pin_file: Path) -> KeyStore:
        return hsm.store(module, label, pin_file)

    # A copy of SoftHSM's library is only needed where the proxy has loaded it already.
    arguments = (str(module if module == hsm.proxy else hsm.library), label, str(hsm.pin_file))
    wrong = secret_file(directory / "wrong", WRONG_SECRET)
    return Backend(TRAITS[name], make, hsm.pin_file, wrong, _uris_of_others(label), arguments)


def tpm_as_token(in_tpm: TokenInTpm, directory: Path) -> Backend:
    arguments = (str(in_tpm.library), LABEL, str(in_tpm.pin_file))
    wrong = secret_file(directory / "wrong", WRONG_SECRET)
    return Backend(TRAITS["tpm2_pkcs11"], in_tpm.store, in_tpm.pin_file, wrong, _uris_of_others(LABEL), arguments)


def _files_elsewhere(scheme: str) -> tuple[str, ...]:
    return tuple(f"{scheme}:{name}" for name in ("../keys/x", "/etc/passwd", "a/b", ".", "a\0b", ""))


def _uris_of_others(label: str) -> tuple[str, ...]:
    key = f"pkcs11:token={label};object=scanseal-x"
    return (
        "pkcs11:",
        "pkcs11:object=x",
        f"pkcs11:token={label}",
        f"{key};{key}",
        f"{key};id=%0",
        f"{key};type=cert",
        "pkcs11:token=elsewhere;object=x",
        f"{key}?module-path=/tmp/x.so",
        f"{key};object=%00",
        f"{key};serial=1",
    )
