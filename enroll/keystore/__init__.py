"""The key stores: each is chosen by the scheme of the URI that names a key.

    software:NAME                               encrypted PKCS#8 file
    pkcs11:token=...;object=...;id=...          key in a token (RFC 7512)
    tpm:NAME                                    key of a TPM 2.0, wrapped by it
    memory:NAME                                 key in the memory of this process

Left out: unencrypted key files, because they protect nothing; keys of a cloud service, because what signs images opens
no network connection.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Collection
from pathlib import Path

from enroll.algorithms import HmacAlgorithm, KeyAlgorithm
from enroll.config import KeyStoreSettings, Pkcs11StoreSettings, StoreName
from enroll.errors import KeyStoreUnavailable, UnsupportedKey
from enroll.keystore.base import (
    HmacKey,
    Importing,
    KeyStore,
    Pausing,
    PrivateKey,
    Protection,
    StoredKey,
    TlsKey,
    TlsKeyFiles,
)
from enroll.keystore.ledger import Ledger, Place
from enroll.keystore.memory import MemoryKeyStore
from enroll.keystore.software import SoftwareKeyStore
from enroll.keystore.tokenuri import OWN_LABEL, TokenUri
from enroll.statefile import StateFiles


def open_store(
    name: StoreName, settings: KeyStoreSettings, state_directory: Path, files: StateFiles, token: str = ""
) -> KeyStore:
    """A key store.

    Args:
        name: Which.
        settings: `[keystore]`.
        state_directory: Where key files lie if the settings name no other place.
        files: Reads secrets, writes key files.
        token: Label of the token, for PKCS#11; empty for the one that `[keystore.pkcs11]` names.

    Raises:
        KeyStoreUnavailable: The package that it needs is not installed, or no such token is configured.
    """
    match name:
        case StoreName.SOFTWARE:
            directory = settings.software.directory or state_directory / "keys"
            return SoftwareKeyStore(directory, settings.software.passphrase_file, files)
        case StoreName.PKCS11:
            return _open_token(token_settings(settings.pkcs11, token), state_directory, files)
        case StoreName.TPM:
            return _open_tpm(settings, state_directory, files)
        case StoreName.MEMORY:
            return MemoryKeyStore()


def _open_token(settings: Pkcs11StoreSettings, state_directory: Path, files: StateFiles) -> KeyStore:
    try:
        # python-pkcs11 is an optional extra, and a process without a token need not load it.
        from enroll.keystore.pkcs11 import Pkcs11KeyStore  # noqa: PLC0415
    except ImportError as error:
        raise KeyStoreUnavailable(
            "The token cannot be used: python-pkcs11 is not installed.", remedy="Run: pip install 'scanseal[pkcs11]'"
        ) from error
    return Pkcs11KeyStore(settings, state_directory, files)


def _open_tpm(settings: KeyStoreSettings, state_directory: Path, files: StateFiles) -> KeyStore:
    try:
        # tpm2-pytss is an optional extra, and needs the TPM software stack.
        from enroll.keystore.tpm import TpmKeyStore  # noqa: PLC0415
    except ImportError as error:
        raise KeyStoreUnavailable(
            "The TPM cannot be used: tpm2-pytss is not installed.", remedy="Run: pip install 'scanseal[tpm]'"
        ) from error
    return TpmKeyStore(settings.tpm, settings.tpm.directory or state_directory / "tpm", files)


def token_settings(settings: Pkcs11StoreSettings, label: str) -> Pkcs11StoreSettings:
    """The settings of one of several tokens.

    Args:
        settings: `[keystore.pkcs11]`.
        label: Of the token; empty for the one that is named there.

    Raises:
        KeyStoreUnavailable: No such token is configured.
    """
    if label in ("", settings.token):
        return settings
    if label not in settings.tokens:
        raise KeyStoreUnavailable(
            f"No token {label} is configured.", remedy=f"Add [keystore.pkcs11.tokens.{label}], or correct the label."
        )
    other = settings.tokens[label]
    return dataclasses.replace(
        settings, token=label, pin_file=other.pin_file, module=other.module or settings.module, tokens={}
    )


def name_in(uri: str) -> str:
    """The name that a key was made under; empty where it was not made here.

    Raises:
        KeyNotFound: This is the URI of no key in a token.
    """
    scheme, _, name = uri.partition(":")
    if scheme != StoreName.PKCS11:
        return name
    label = TokenUri.parse(uri).label or ""
    return label.removeprefix(OWN_LABEL) if label.startswith(OWN_LABEL) else ""


class KeyStores:
    """All key stores of a process; each is opened at its first use.

    Make one for a process: a token is logged in to once, and the login belongs to the process.

    Args:
        settings: `[keystore]`.
        state_directory: Where key files lie if the settings name no other place.
        files: Reads secrets, writes key files.
        without_tokens: Labels of tokens that are lost for good: no key of theirs can be used, none is listed.
    """

    def __init__(
        self,
        settings: KeyStoreSettings,
        state_directory: Path,
        files: StateFiles,
        without_tokens: Collection[str] = (),
    ) -> None:
        self._settings = settings
        self._state_directory = state_directory
        self._files = files
        self._without_tokens = without_tokens
        self._opened: dict[tuple[StoreName, str], KeyStore] = {}
        self._guard = threading.Lock()

    def check(self, store: StoreName, token: str = "") -> None:
        """Find out whether `store` can be used; see `KeyStore.check`."""
        self._store(store, token).check()

    def generate(self, store: StoreName, name: str, algorithm: KeyAlgorithm, token: str = "") -> str:
        """Make a key in `store` and return its URI; see `KeyStore.generate`. It is in the ledger before it is made."""
        opened = self._store(store, token)
        self._note(store, name, token)
        return opened.generate(name, algorithm)

    def generate_for_trial(self, store: StoreName, name: str, algorithm: KeyAlgorithm, token: str = "") -> str:
        """The same for a key that is destroyed at once, whether or not there is a state directory yet.

        Where there is none, nothing is written down of it. Else call it under the lock of the enrollers: their
        collector destroys it.
        """
        if self._state_directory.is_dir():
            return self.generate(store, name, algorithm, token)
        return self._store(store, token).generate(name, algorithm)

    def generate_secret(self, store: StoreName, name: str, algorithm: HmacAlgorithm, token: str = "") -> str:
        """Make a secret in `store` and return its URI; see `KeyStore.generate_secret`, and `generate`."""
        opened = self._store(store, token)
        self._note(store, name, token)
        return opened.generate_secret(name, algorithm)

    def load(self, uri: str) -> PrivateKey:
        """The key that `uri` names; see `KeyStore.load`."""
        return self._store_of(uri).load(uri)

    def load_secret(self, uri: str) -> HmacKey:
        """The secret that `uri` names; see `KeyStore.load_secret`."""
        return self._store_of(uri).load_secret(uri)

    def protection(self, uri: str) -> Protection:
        """Where the key that `uri` names really lives."""
        return self._store_of(uri).protection(uri)

    def destroy(self, uri: str) -> None:
        """Remove the key for good, and from the ledger; nothing happens where there is none."""
        self._store_of(uri).destroy(uri)
        self._ledger.cross_out(name_in(uri))

    def destroy_named(self, name: str, place: Place) -> None:
        """Remove what was made under a name, of which nobody may have heard the URI; see `destroy`.

        Raises:
            UnsupportedKey: No key store can do that, now or later.
            KeyStoreError: It failed.
        """
        # Without an identifier, so that whatever has this label is meant, the public half of half a pair as well.
        in_token = place.store is StoreName.PKCS11
        self.destroy(str(TokenUri(place.token, OWN_LABEL + name, None)) if in_token else f"{place.store}:{name}")

    def tls_key(self, uri: str) -> TlsKey:
        """The key that `uri` names, for a TLS client.

        It is loaded, and so is whatever would refuse it: OpenSSL would not say what is wrong, and might ask.

        Raises:
            KeyNotFound: No such key.
            KeyStoreError: The store cannot be used.
        """
        store = self._store_of(uri)
        if isinstance(store, TlsKeyFiles):
            return store.tls_key_file(uri)
        in_token = store.scheme == StoreName.PKCS11
        token = token_settings(self._settings.pkcs11, TokenUri.parse(uri).token) if in_token else None
        return StoredKey(uri, store.load(uri), token)

    def import_key(self, store: StoreName, name: str, key: PrivateKey) -> str:
        """Keep a key that was made elsewhere, and return its URI.

        Raises:
            UnsupportedKey: This store takes only keys that it makes.
            KeyStoreError: The store refused.
        """
        importing = self._store(store)
        if not isinstance(importing, Importing):
            raise UnsupportedKey(
                f"The key store {store} takes no key from a file.",
                remedy="Put the key into the token with the token's own tool, and name it by its URI.",
            )
        self._note(store, name)
        return importing.import_key(name, key)

    def pause(self, uri: str) -> None:
        """Let the TPM go that holds the key that `uri` names, so that others in this process can use it."""
        store = self._store_of(uri)
        if isinstance(store, Pausing):
            store.pause()

    def list(self) -> tuple[str, ...]:
        """The URIs of our keys in every store that has its secret configured, and in memory."""
        settings = self._settings
        secrets = {
            (StoreName.SOFTWARE, ""): settings.software.passphrase_file,
            (StoreName.PKCS11, ""): settings.pkcs11.pin_file,
            **{(StoreName.PKCS11, label): token.pin_file for label, token in settings.pkcs11.tokens.items()},
            (StoreName.TPM, ""): settings.tpm.authorization_file,
        }
        places = [place for place, secret in secrets.items() if secret and not self._is_lost(*place)]
        stores = dict.fromkeys(self._store(*place) for place in (*places, (StoreName.MEMORY, "")))
        return tuple(uri for store in stores for uri in store.list())

    def close(self) -> None:
        """Release all stores; keys handed out before may stop working."""
        with self._guard:
            for store in self._opened.values():
                store.close()
            self._opened.clear()

    @property
    def _ledger(self) -> Ledger:
        return Ledger(self._state_directory, self._files)

    def _note(self, store: StoreName, name: str, token: str = "") -> None:
        if store is not StoreName.MEMORY:  # what is there goes with the process
            in_token = store is StoreName.PKCS11
            self._ledger.note(name, Place(store, (token or self._settings.pkcs11.token) if in_token else ""))

    def _store_of(self, uri: str) -> KeyStore:
        scheme, _, _ = uri.partition(":")
        if scheme not in list(StoreName):
            # The URI is not repeated: what cannot be understood may hold a PIN.
            raise UnsupportedKey("No key store handles this key URI.", remedy=f"Schemes: {', '.join(StoreName)}.")
        store = StoreName(scheme)
        token = TokenUri.parse(uri).token if store is StoreName.PKCS11 else ""
        if self._is_lost(store, token):
            raise UnsupportedKey(
                f"{uri} is in the token {token}, which is lost for good.", remedy="If the token is found, destroy it."
            )
        return self._store(store, token)

    def _is_lost(self, store: StoreName, token: str) -> bool:
        return store is StoreName.PKCS11 and (token or self._settings.pkcs11.token) in self._without_tokens

    def _store(self, store: StoreName, token: str = "") -> KeyStore:
        if token == self._settings.pkcs11.token:
            token = ""  # one login, whether or not it is called by its name
        with self._guard:
            if (store, token) not in self._opened:
                opened = open_store(store, self._settings, self._state_directory, self._files, token)
                self._opened[store, token] = opened
            return self._opened[store, token]
