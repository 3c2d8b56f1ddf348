"""Keys in a TPM 2.0, spoken to directly: `<directory>/<name>.pem`, encrypted by the TPM, mode 0600, named `tpm:<name>`.

The files are worth nothing without the TPM that made them, and nothing without the authorization value, which the TPM
compares. It goes to the TPM in the clear: who can listen on the bus of a TPM chip learns it, and never a key. A copy
of a file still works after `destroy`, in the same TPM, with the same value.

A key is used by the TPM only. It is loaded when it is needed, stays loaded as long as there is room, and is loaded
again after a reset. No signature leaves unverified: it might be of another key, whose handle is the same after a reset,
and one that a faulty computation made can give an RSA key away.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from tpm2_pytss import TSS2_Exception as TssError

from enroll.algorithms import HmacAlgorithm, KeyAlgorithm
from enroll.config import TpmStoreSettings
from enroll.errors import (
    DiskRefused,
    KeyDamaged,
    KeyMismatch,
    KeyNotFound,
    KeyStoreError,
    KeyStoreUnavailable,
    StateError,
    StateUnreadable,
    UnsupportedKey,
)
from enroll.keystore.base import KEY_NAME, PrivateKey, Protection, PublicKey, check_key_name
from enroll.keystore.keys import Ecdsa, RsaPkcs1v15, Scheme, check_supported, stored_key
from enroll.keystore.secretfile import read_secret
from enroll.keystore.tpm import objects
from enroll.keystore.tpm.connection import Connection, LoadedObject, OpenTpm
from enroll.keystore.tpm.faults import ConnectionLost
from enroll.keystore.tpm.objects import WrappedObject
from enroll.keystore.tpm.proof import check_signature
from enroll.statefile import StateFiles

KEY_FILE_LIMIT = 16 * 1024  # bytes; RSA-4096 takes 3 KiB

Outcome = TypeVar("Outcome")


class TpmKeyStore:
    """The keys of one TPM.

    The authorization value is read anew whenever a key is loaded, and kept nowhere but in the software stack.

    Args:
        settings: `[keystore.tpm]`.
        directory: Where the wrapped keys lie; made with mode 0700 where it is missing.
        files: Reads and writes them.
    """

    scheme = "tpm"

    def __init__(self, settings: TpmStoreSettings, directory: Path, files: StateFiles) -> None:
        self._settings = settings
        self._directory = directory
        self._files = files
        self._connection = Connection(settings.tcti)

    def generate(self, name: str, algorithm: KeyAlgorithm) -> str:
        """Make a key in the TPM; see `KeyStore.generate`."""
        return self._generate(name, algorithm)

    def load(self, uri: str) -> PrivateKey:
        """The key that `uri` names; see `KeyStore.load`."""
        name = _name(uri)
        wrapped = self._read(name)
        if wrapped.is_secret:
            raise _not_of_this_kind(name)
        public_key = _public_key(name, wrapped)
        key = stored_key(public_key, partial(self._sign, name, wrapped, public_key))
        self._use(name, wrapped, lambda _tpm, _handle: None)
        return key

    def generate_secret(self, name: str, algorithm: HmacAlgorithm) -> str:
        """Make a secret in the TPM; see `KeyStore.generate_secret`."""
        return self._generate(name, algorithm)

    def load_secret(self, uri: str) -> TpmHmacKey:
        """The secret that `uri` names; see `KeyStore.load_secret`."""
        name = _name(uri)
        wrapped = self._read(name)
        if not wrapped.is_secret:
            raise _not_of_this_kind(name)
        self._use(name, wrapped, lambda _tpm, _handle: None)
        return TpmHmacKey(partial(self._authenticate, name, wrapped))

    def protection(self, uri: str) -> Protection:
        """Hardware only for a key that the TPM made and that can never have left it, and no TPM in software."""
        name = _name(uri)
        wrapped = self._read(name)
        in_hardware = self._use(name, wrapped, lambda tpm, _: tpm.model.is_hardware and wrapped.never_left)
        return Protection.HARDWARE if in_hardware else Protection.SOFTWARE

    def list(self) -> tuple[str, ...]:
        """The URIs of all keys and secrets, sorted."""
        with _key_store_errors():
            files = self._files.names(self._directory)
        names = sorted(file.removesuffix(".pem") for file in files if file.endswith(".pem"))
        return tuple(f"{self.scheme}:{name}" for name in names if KEY_NAME.fullmatch(name))

    def destroy(self, uri: str) -> None:
        """As the same of key files (`enroll.keystore.software`). The TPM need not be there."""
        name = _name(uri)
        with _key_store_errors():
            self._files.remove_with_leftovers(self._path(name))
        self._connection.forget(name)

    def check(self) -> None:
        """Whether the TPM would make keys for us; see `KeyStore.check`."""
        self._authorization()
        self._connection.run(objects.check_storage_key)

    def pause(self) -> None:
        """Flush what is loaded and let the TPM go; see `Pausing`."""
        self._connection.pause()

    def close(self) -> None:
        """Flush what is loaded; keys handed out before stop working."""
        self._connection.close()

    def _generate(self, name: str, kind: KeyAlgorithm | HmacAlgorithm) -> str:
        check_key_name(name)
        path = self._path(name)
        authorization = self._authorization()

        def make(tpm: OpenTpm) -> None:
            with _key_store_errors():
                taken = self._files.exists(path)
            if taken:
                raise KeyStoreError(
                    f"There is a key {name} already.", remedy="Choose another name, or destroy that key."
                )
            wrapped = objects.create(tpm, kind, authorization)
            with _key_store_errors():
                self._files.make_directory(self._directory)
                self._files.write(path, wrapped.to_pem())

        self._connection.run(make)
        return f"{self.scheme}:{name}"

    def _sign(self, name: str, wrapped: WrappedObject, public_key: PublicKey, digest: bytes, scheme: Scheme) -> bytes:
        def check(signature: bytes) -> None:
            check_signature(public_key, signature, digest, scheme)

        return self._use(name, wrapped, lambda tpm, key: objects.sign(tpm, key, digest, scheme), check)

    def _authenticate(self, name: str, wrapped: WrappedObject, data: bytes) -> bytes:
        def authenticate(tpm: OpenTpm, secret: LoadedObject) -> bytes:
            code = objects.authenticate(tpm, name, secret, data)
            objects.check_loaded(tpm, secret)  # the code itself does not show whether it is of another secret
            return code

        return self._use(name, wrapped, authenticate)

    def _use(
        self,
        name: str,
        wrapped: WrappedObject,
        operation: Callable[[OpenTpm, LoadedObject], Outcome],
        check: Callable[[Outcome], None] = lambda _: None,
    ) -> Outcome:
        """What the operation gives, checked; once more where the TPM has forgotten what was loaded.

        Without a resource manager in between another object may even have its handle now.
        """
        try:
            outcome = self._use_once(name, wrapped, operation)
            check(outcome)
        except (ConnectionLost, KeyMismatch):
            self._connection.drop()
            outcome = self._use_once(name, wrapped, operation)
            check(outcome)
        return outcome

    def _use_once(
        self, name: str, wrapped: WrappedObject, operation: Callable[[OpenTpm, LoadedObject], Outcome]
    ) -> Outcome:
        with self._connection.commands() as tpm:
            found = tpm.loaded.get(name)
            if found is None or found.identity != wrapped.identity:
                tpm.forget(name)
                found = self._load(tpm, name, wrapped)
            tpm.loaded.pop(name, None)
            tpm.loaded[name] = found  # at the end, as what was used last
            try:
                return operation(tpm, found)
            except TssError:
                objects.check_loaded(tpm, found)
                raise

    def _load(self, tpm: OpenTpm, name: str, wanted: WrappedObject) -> LoadedObject:
        """Load what is kept under this name, if it is what was asked for and the TPM lets us use it."""
        wrapped = self._read(name)
        if wrapped.identity != wanted.identity:
            raise KeyMismatch(
                f"There is another key under the name {name} now; it was not used.", remedy="Load the key anew."
            )
        found = objects.load(tpm, name, wrapped, self._authorization())
        probe = secrets.token_bytes(hashes.SHA256.digest_size)
        try:
            if wrapped.is_secret:
                objects.authenticate(tpm, name, found, probe)
            else:
                public_key = _public_key(name, wrapped)
                scheme = RsaPkcs1v15("sha256") if isinstance(public_key, rsa.RSAPublicKey) else Ecdsa()
                check_signature(public_key, objects.sign(tpm, found, probe, scheme), probe, scheme)
        except (TssError, KeyStoreError):
            tpm.flush(found.handle)
            raise
        return found

    def _read(self, name: str) -> WrappedObject:
        path = self._path(name)
        with _key_store_errors():
            found = self._files.exists(path)
        if not found:
            raise KeyNotFound(
                f"There is no key file {path}.",
                remedy="Restore it from a backup of this machine, or enroll again. For the device's own key, that "
                "needs [est] username and password_file.",
            )
        with _key_store_errors(KeyDamaged):
            data = self._files.read(path, KEY_FILE_LIMIT)
        try:
            return WrappedObject.from_pem(data)
        except ValueError as error:
            raise _damaged(name) from error

    def _authorization(self) -> bytes:
        secret = read_secret(self._settings.authorization_file, "[keystore.tpm] authorization_file", self._files)
        return objects.authorization_value(secret)

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.pem"


class TpmHmacKey:
    """A secret in a TPM.

    Args:
        authenticate: Computes the HMAC.
    """

    def __init__(self, authenticate: Callable[[bytes], bytes]) -> None:
        self._authenticate = authenticate

    def __repr__(self) -> str:
        return "TpmHmacKey()"

    def __reduce__(self) -> NoReturn:
        raise UnsupportedKey("This secret does not leave its store.", remedy="Use it where it is.")

    def sign(self, data: bytes) -> bytes:
        """The HMAC over `data`; see `HmacKey`."""
        return self._authenticate(data)


@contextlib.contextmanager
def _key_store_errors(kind: type[KeyStoreError] = KeyStoreError) -> Iterator[None]:
    try:
        yield
    except StateUnreadable as error:
        raise KeyStoreUnavailable(error.what, remedy="Run this as root or as the user scanseal.") from error
    except DiskRefused as error:  # the key may be as it was
        raise KeyStoreUnavailable(error.what, remedy=error.remedy) from error
    except StateError as error:
        raise kind(error.what, remedy=error.remedy) from error


def _public_key(name: str, wrapped: WrappedObject) -> PublicKey:
    try:
        public_key = wrapped.public_key()
    except ValueError as error:
        raise _damaged(name) from error
    check_supported(public_key)
    return public_key


def _name(uri: str) -> str:
    scheme, _, name = uri.partition(":")
    if scheme != TpmKeyStore.scheme or not KEY_NAME.fullmatch(name):
        raise KeyNotFound("This URI names no key of a TPM.", remedy=f"It must be {TpmKeyStore.scheme}:NAME.")
    return name


def _damaged(name: str) -> KeyDamaged:
    return KeyDamaged(f"The file of the key {name} is damaged.", remedy="Restore it, or enroll again.")


def _not_of_this_kind(name: str) -> KeyNotFound:
    return KeyNotFound(
        f"What the TPM store keeps as {name} is of the other kind.", remedy="Private keys sign; secrets authenticate."
    )
