"""Keys in a PKCS#11 token: a TPM, a network HSM, a smart card, SoftHSM.

Keys and secrets are made in the token and stay there (CKA_SENSITIVE, not CKA_EXTRACTABLE). The token is logged in to
once. A PIN that it has refused is not sent to it again (`tries`); a corrected PIN file is tried.

When the token is lost, the call under way fails and the next one opens the token anew. As long as it cannot be opened,
or is locked, calls fail at once; it is tried again every second. What is found there has to prove that it is the same
key as before (`known`). A process forked from this one cannot use the store.

Locks, in the order in which they are taken: that of the store, around opening and closing; the library, where others
may be as well; a session. Whoever is inside the library never waits for a store.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pkcs11

from enroll.algorithms import HmacAlgorithm, KeyAlgorithm
from enroll.config import Pkcs11StoreSettings
from enroll.errors import KeyMismatch, KeyNotFound, KeyStoreError, KeyStoreUnavailable, PinRefused, UnsupportedKey
from enroll.keystore.base import KEY_NAME, HmacKey, PrivateKey, Protection, check_key_name
from enroll.keystore.keys import Scheme, stored_key
from enroll.keystore.pkcs11 import library, objects
from enroll.keystore.pkcs11.connection import Connection, find_token
from enroll.keystore.pkcs11.known import KnownKey, KnownObject, KnownSecret
from enroll.keystore.pkcs11.library import Library
from enroll.keystore.pkcs11.refused import RefusedPins
from enroll.keystore.secretfile import read_secret
from enroll.keystore.tokenuri import OWN_LABEL, SCHEME, ObjectType, TokenUri
from enroll.statefile import StateFiles

IDENTIFIER_SIZE = 16  # bytes of CKA_ID
RETRY_SECONDS = 1.0  # between two attempts to open a token that is not there or locked

# The token is fine and does not do what was asked. After any other error it is opened anew.
_UNSUPPORTED = (
    pkcs11.ArgumentsBad,
    pkcs11.AttributeTypeInvalid,
    pkcs11.AttributeValueInvalid,
    pkcs11.DataLenRange,
    pkcs11.DomainParamsInvalid,
    pkcs11.FunctionNotSupported,
    pkcs11.KeySizeRange,
    pkcs11.KeyTypeInconsistent,
    pkcs11.MechanismInvalid,
    pkcs11.MechanismParamInvalid,
    pkcs11.TemplateInconsistent,
)


class Pkcs11KeyStore:
    """One token, found by its label.

    Args:
        settings: `[keystore.pkcs11]`.
        state_directory: Where is noted which PIN was refused.
        files: Reads the PIN.
    """

    scheme = SCHEME

    def __init__(self, settings: Pkcs11StoreSettings, state_directory: Path, files: StateFiles) -> None:
        self._settings = settings
        self._files = files
        self._refused_pins = RefusedPins(state_directory, files)
        self._process = os.getpid()
        self._guard = threading.Lock()
        self._connection: Connection | None = None
        self._opened_at = 0.0  # monotonic clock
        self._given_up: tuple[KeyStoreError, float] | None = None  # why, and until when
        self._closed = False

    def generate(self, name: str, algorithm: KeyAlgorithm) -> str:
        """Make a key in the token; see `KeyStore.generate`."""
        uri = self._new(name, ObjectType.PRIVATE)
        with self._token() as connection, connection.writing() as session:
            _check_free(session, uri)
            public, private = objects.generate(session, uri, algorithm)
            KnownKey.of(uri, objects.public_key(public)).prove(private)
        return str(uri)

    def load(self, uri: str) -> PrivateKey:
        """The key that `uri` names; see `KeyStore.load`."""
        wanted = self._parse(uri, ObjectType.PRIVATE)
        with self._token() as connection, connection.signing() as session:
            public_key = objects.public_key(objects.find_public(session.handle, wanted))
            known = KnownKey.of(wanted, public_key)
            session.find(known)
        return stored_key(public_key, partial(self._sign, known))

    def generate_secret(self, name: str, algorithm: HmacAlgorithm) -> str:
        """Make a secret in the token; see `KeyStore.generate_secret`."""
        uri = self._new(name, ObjectType.SECRET_KEY)
        with self._token() as connection, connection.writing() as session:
            _check_free(session, uri)
            objects.generate_secret(session, uri, algorithm)
        return str(uri)

    def load_secret(self, uri: str) -> HmacKey:
        """The secret that `uri` names; see `KeyStore.load_secret`."""
        wanted = self._parse(uri, ObjectType.SECRET_KEY)
        with self._token() as connection, connection.signing() as session:
            known = KnownSecret.of(wanted, objects.find(session.handle, wanted))
        return TokenHmacKey(self, known)

    def protection(self, uri: str) -> Protection:
        """Hardware only for a key that was made in a slot that calls itself hardware and can never have left it."""
        wanted = self._parse(uri)
        with self._token() as connection, connection.signing() as session:
            in_hardware = objects.never_left(objects.find(session.handle, wanted)) and connection.is_hardware
        return Protection.HARDWARE if in_hardware else Protection.SOFTWARE

    def list(self) -> tuple[str, ...]:
        """The URIs of what was made here, sorted; other keys of the token are not ours to judge."""
        with self._token() as connection, connection.signing() as session:
            return tuple(sorted(str(uri) for uri in objects.uris(session.handle, self._settings.token) if _is_own(uri)))

    def destroy(self, uri: str) -> None:
        """Remove a key that was made here; nothing happens where there is none."""
        wanted = self._parse(uri)
        if not _is_own(wanted):
            raise KeyStoreError("This key was not made by scanseal.", remedy="Remove it with the tool that made it.")
        with self._token() as connection, connection.writing() as session:
            objects.destroy(session, wanted)
            connection.forget_keys()

    def check(self) -> None:
        """Whether the token can be logged in to; see `KeyStore.check`."""
        self._connect()

    def close(self) -> None:
        """Log out; keys handed out before stop working."""
        self._closed = True
        with suppress(KeyStoreUnavailable), self._guarded():
            self._disconnect()

    def authentication_code(self, known: KnownSecret, data: bytes) -> bytes:
        """The HMAC over `data` with a secret of this token; see `HmacKey`."""
        with self._known(known) as secret:
            return objects.authentication_code(secret, data, known.algorithm)

    def _sign(self, known: KnownKey, digest: bytes, scheme: Scheme) -> bytes:
        with self._known(known) as key:
            return objects.signature(key, digest, scheme)

    @contextmanager
    def _known(self, known: KnownObject) -> Iterator[pkcs11.Object]:
        """What was loaded before."""
        with self._token() as connection, connection.signing() as session:
            try:
                found = session.find(known)
            except (KeyNotFound, KeyMismatch):
                connection.is_in_doubt = True  # perhaps this is another token, and the right one comes back
                raise
            yield found

    def _new(self, name: str, type_: ObjectType) -> TokenUri:
        check_key_name(name)
        return TokenUri(self._settings.token, OWN_LABEL + name, secrets.token_bytes(IDENTIFIER_SIZE), type_)

    def _parse(self, uri: str, type_: ObjectType | None = None) -> TokenUri:
        wanted = TokenUri.parse(uri)
        if wanted.token != self._settings.token:
            raise KeyNotFound(
                f"The key is in the token {wanted.token}, and {self._settings.token} is configured.",
                remedy="Set [keystore.pkcs11] token.",
            )
        if type_ not in (None, wanted.type):
            raise KeyNotFound(f"This URI names no {type_}.", remedy="Enroll again.")
        return wanted

    @contextmanager
    def _token(self) -> Iterator[Connection]:
        """The open token. Errors of the library leave as ours, and a broken connection is not used again."""
        while True:
            connection = self._connect()
            with self._translated(connection), connection.library.entered():
                if connection.is_open:  # still, after waiting for those who closed it or restarted the library
                    yield connection
                    return

    @contextmanager
    def _translated(self, connection: Connection) -> Iterator[None]:
        try:
            yield
        except _UNSUPPORTED as error:
            raise UnsupportedKey(
                f"The token does not do this ({_name(error)}).", remedy="Choose another kind of key or signature."
            ) from error
        except pkcs11.DeviceMemory as error:
            raise KeyStoreError("The token is full.", remedy="Remove keys that are not used any more.") from error
        except pkcs11.PKCS11Error as error:
            connection.give_up()  # the next call closes it, when nobody is in it any more
            raise KeyStoreUnavailable(
                f"The token {self._settings.token} failed ({_name(error)}).",
                remedy="Check that it is connected; the next call opens it anew.",
            ) from error

    def _connect(self) -> Connection:
        if os.getpid() != self._process:
            raise KeyStoreUnavailable("The token was opened by another process.", remedy="Open it after the fork.")
        connection = self._connection
        if connection is not None and self._is_usable(connection):
            return connection
        with self._guarded():
            if self._closed:
                raise KeyStoreUnavailable("The token has been closed.", remedy="Open the key store again.")
            if self._connection is not None and not self._is_usable(self._connection):
                self._disconnect()
            if self._connection is None:
                self._connection, self._opened_at = self._open(), time.monotonic()
            return self._connection

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        if not self._guard.acquire(timeout=library.PATIENCE):
            raise library.busy()
        try:
            yield
        finally:
            self._guard.release()

    def _is_usable(self, connection: Connection) -> bool:
        is_believed = not connection.is_in_doubt or time.monotonic() < self._opened_at + RETRY_SECONDS
        return connection.is_open and is_believed

    def _open(self) -> Connection:
        pin = read_secret(self._settings.pin_file, f"pin_file of the token {self._settings.token}", self._files)
        if self._given_up is not None and time.monotonic() < self._given_up[1]:
            raise _same(self._given_up[0])
        try:
            return self._reach(pin)
        except pkcs11.PinLocked as error:
            raise self._give_up(self._pin_locked()) from error
        except pkcs11.PKCS11Error as error:
            raise self._give_up(self._cannot_be_opened(error)) from error
        except KeyStoreUnavailable as error:
            raise self._give_up(error) from error.__cause__

    def _reach(self, pin: bytes) -> Connection:
        """Log in; where that fails, start the library anew, because some look for tokens only then."""
        try:
            text = pin.decode("utf-8")
        except UnicodeDecodeError:
            raise self._pin_is_no_text() from None  # the cause would show the PIN
        its_library = library.load(self._settings.module)
        try:
            return self._log_in(its_library, text)
        except pkcs11.PinLocked:
            raise
        except (pkcs11.PKCS11Error, KeyStoreUnavailable):
            its_library.restart()
        return self._log_in(its_library, text)

    def _log_in(self, its_library: Library, pin: str) -> Connection:
        with its_library.entered():
            token = find_token(its_library.slots(), self._settings.token)
            connection = Connection(its_library, token, self._settings.sessions)
            try:
                self._send(pin, token, connection)
            except (pkcs11.PKCS11Error, PinRefused):
                connection.close()
                raise
            return connection

    def _send(self, pin: str, token: pkcs11.Token, connection: Connection) -> None:
        pin_file = self._settings.pin_file
        if pin_file is not None:
            self._refused_pins.check(token, pin_file)
        try:
            # Another store of this process may have logged in; then that one logs out as well.
            with suppress(pkcs11.UserAlreadyLoggedIn):
                connection.library.tries.log_in(token, pin, connection.log_in, pin_file)
        except PinRefused as error:
            if pin_file is not None and isinstance(error.__cause__, pkcs11.PKCS11Error):  # this very time, by the token
                self._refused_pins.note(token, pin_file)
            raise
        self._refused_pins.forget(token)

    def _give_up(self, failure: KeyStoreError) -> KeyStoreError:
        self._given_up = (_same(failure), time.monotonic() + RETRY_SECONDS)
        return failure

    def _cannot_be_opened(self, error: pkcs11.PKCS11Error) -> KeyStoreUnavailable:
        return KeyStoreUnavailable(
            f"The token {self._settings.token} cannot be opened ({_name(error)}).",
            remedy=f"Check that it is connected and that {self._settings.module} is its library. If its TPM was "
            "cleared or replaced, the keys are gone: set up the token again, and enroll again.",
        )

    def _pin_is_no_text(self) -> PinRefused:
        return PinRefused(
            f"The PIN of the token {self._settings.token} is not UTF-8.",
            remedy=f"Put the right PIN into {self._settings.pin_file}.",
        )

    def _pin_locked(self) -> KeyStoreUnavailable:
        return KeyStoreUnavailable(
            f"The PIN of the token {self._settings.token} is locked, after too many wrong ones.",
            remedy="Unlock it with the PIN of its security officer. A TPM unlocks itself after a while; its owner "
            "unlocks it with: tpm2_dictionarylockout --clear-lockout. Signing goes on by itself then.",
        )

    def _disconnect(self) -> None:
        # Inside the guard: logging out must not hit the login of the next connection.
        if self._connection is not None:
            with self._connection.library.alone():
                self._connection.close()
            self._connection = None


class TokenHmacKey:
    """A secret in a token.

    Args:
        store: Opens the token.
        known: Which secret.
    """

    def __init__(self, store: Pkcs11KeyStore, known: KnownSecret) -> None:
        self._store = store
        self._known = known

    def __repr__(self) -> str:
        return f"TokenHmacKey({self._known.algorithm})"

    def sign(self, data: bytes) -> bytes:
        """The HMAC over `data`; see `HmacKey`."""
        return self._store.authentication_code(self._known, data)


def _check_free(session: pkcs11.Session, uri: TokenUri) -> None:
    if objects.with_label(session, uri):
        raise KeyStoreError(
            f"There is a key {(uri.label or '').removeprefix(OWN_LABEL)} already.",
            remedy="Choose another name, or destroy that key.",
        )


def _is_own(uri: TokenUri) -> bool:
    label = uri.label or ""
    return label.startswith(OWN_LABEL) and KEY_NAME.fullmatch(label.removeprefix(OWN_LABEL)) is not None


def _same(error: KeyStoreError) -> KeyStoreError:
    """The error again. One that was raised is not kept: it holds on to the PIN that was sent."""
    return type(error)(error.what, remedy=error.remedy)


def _name(error: pkcs11.PKCS11Error) -> str:
    return type(error).__name__
