"""The key stores: each is chosen by the scheme of the URI that names a key.

    software:NAME                               encrypted PKCS#8 file
    pkcs11:token=...;object=...;id=...          key in a token (RFC 7512)

Left out: `tpm:`, because a TPM is reached as a token through libtpm2_pkcs11; unencrypted key files, because they
protect nothing; keys of a cloud service, because what signs images opens no network connection; keys that live in
memory only, because no name leads to them after a restart.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from enroll.algorithms import KeyAlgorithm
from enroll.config import KeyStoreSettings, StoreName
from enroll.errors import KeyStoreUnavailable, UnsupportedKey
from enroll.keystore.base import KeyStore, PrivateKey, Protection, TlsKey, TlsKeyFiles
from enroll.keystore.software import SoftwareKeyStore
from enroll.statefile import StateFiles


def _software(settings: KeyStoreSettings, state_directory: Path, files: StateFiles) -> KeyStore:
    directory = settings.software.directory or state_directory / "keys"
    return SoftwareKeyStore(directory, settings.software.passphrase_file, files)


def _pkcs11(settings: KeyStoreSettings, _state_directory: Path, files: StateFiles) -> KeyStore:
    try:
        # python-pkcs11 is an optional extra, and a process without a token need not load it.
        from enroll.keystore.pkcs11 import Pkcs11KeyStore  # noqa: PLC0415
    except ImportError as error:
        raise KeyStoreUnavailable(
            "The token cannot be used: python-pkcs11 is not installed.", remedy="Run: pip install 'scanseal[pkcs11]'"
        ) from error
    return Pkcs11KeyStore(settings.pkcs11, files)


KEY_STORES: Mapping[str, Callable[[KeyStoreSettings, Path, StateFiles], KeyStore]] = {
    "software": _software,
    "pkcs11": _pkcs11,
}


class KeyStores:
    """All key stores of a process; each is opened at its first use.

    Make one for a process: a token is logged in to once, and the login belongs to the process.

    Args:
        settings: `[keystore]`.
        state_directory: Where key files lie if the settings name no other place.
        files: Reads secrets, writes key files.
    """

    def __init__(self, settings: KeyStoreSettings, state_directory: Path, files: StateFiles) -> None:
        self._settings = settings
        self._state_directory = state_directory
        self._files = files
        self._opened: dict[str, KeyStore] = {}
        self._guard = threading.Lock()

    def check(self, store: StoreName) -> None:
        """Find out whether `store` can be used; see `KeyStore.check`."""
        self._store(store).check()

    def generate(self, store: StoreName, name: str, algorithm: KeyAlgorithm) -> str:
        """Make a key in `store` and return its URI; see `KeyStore.generate`."""
        return self._store(store).generate(name, algorithm)

    def load(self, uri: str) -> PrivateKey:
        """The key that `uri` names; see `KeyStore.load`."""
        return self._store_of(uri).load(uri)

    def protection(self, uri: str) -> Protection:
        """Where the key that `uri` names really lives."""
        return self._store_of(uri).protection(uri)

    def destroy(self, uri: str) -> None:
        """Remove the key for good; nothing happens where there is none."""
        self._store_of(uri).destroy(uri)

    def tls_key_file(self, uri: str) -> TlsKey:
        """The key that `uri` names, for a TLS client.

        Raises:
            UnsupportedKey: Keys of this store cannot authenticate a TLS client.
        """
        store = self._store_of(uri)
        if not isinstance(store, TlsKeyFiles):
            raise UnsupportedKey(
                f"A key of the store {store.scheme} cannot authenticate a TLS connection.",
                remedy='Set key_store = "software" for the identity that authenticates.',
            )
        return store.tls_key_file(uri)

    def list(self) -> tuple[str, ...]:
        """The URIs of our keys in every store that has its secret configured."""
        secrets = {
            StoreName.SOFTWARE: self._settings.software.passphrase_file,
            StoreName.PKCS11: self._settings.pkcs11.pin_file,
        }
        return tuple(uri for name, secret in secrets.items() if secret for uri in self._store(name).list())

    def close(self) -> None:
        """Release all stores; keys handed out before may stop working."""
        with self._guard:
            for store in self._opened.values():
                store.close()
            self._opened.clear()

    def _store_of(self, uri: str) -> KeyStore:
        scheme, _, _ = uri.partition(":")
        if scheme not in KEY_STORES:
            # The URI is not repeated: what cannot be understood may hold a PIN.
            raise UnsupportedKey("No key store handles this key URI.", remedy=f"Schemes: {', '.join(KEY_STORES)}.")
        return self._store(scheme)

    def _store(self, scheme: str) -> KeyStore:
        with self._guard:
            if scheme not in self._opened:
                self._opened[scheme] = KEY_STORES[scheme](self._settings, self._state_directory, self._files)
            return self._opened[scheme]
