"""Keys in a PKCS#11 token: a TPM, a network HSM, a smart card, SoftHSM.

Keys are made in the token and stay there (CKA_SENSITIVE, not CKA_EXTRACTABLE). The token is logged in to once. A PIN
that it has refused is not sent again, because tokens lock after a few wrong ones; a corrected PIN file is tried.

When the token is lost, the call under way fails and the next one opens the token anew. A process forked from this one
cannot use the store.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pkcs11
from pkcs11 import ObjectClass

from enroll.algorithms import KeyAlgorithm
from enroll.config import Pkcs11StoreSettings
from enroll.errors import KeyNotFound, KeyStoreError, KeyStoreUnavailable, PinRefused, UnsupportedKey
from enroll.keystore.base import KEY_NAME, PrivateKey, Protection, check_key_name
from enroll.keystore.keys import Scheme, stored_key
from enroll.keystore.pkcs11 import objects
from enroll.keystore.pkcs11.connection import LIBRARY, Connection
from enroll.keystore.secretfile import read_secret
from enroll.keystore.tokenuri import SCHEME, TokenUri
from enroll.statefile import StateFiles

OWN_LABEL = "scanseal-"  # begins the label of every key made here
IDENTIFIER_SIZE = 16  # bytes of CKA_ID

_PIN_ERRORS = (
    pkcs11.PinExpired,
    pkcs11.PinIncorrect,
    pkcs11.PinInvalid,
    pkcs11.PinLenRange,
    pkcs11.PinLocked,
    pkcs11.UserPinNotInitialized,
)
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
        files: Reads the PIN.
    """

    scheme = SCHEME

    def __init__(self, settings: Pkcs11StoreSettings, files: StateFiles) -> None:
        self._settings = settings
        self._files = files
        self._process = os.getpid()
        self._guard = threading.Lock()
        self._connection: Connection | None = None
        self._refused_pin: bytes | None = None
        self._closed = False

    def generate(self, name: str, algorithm: KeyAlgorithm) -> str:
        """Make a key in the token; see `KeyStore.generate`."""
        check_key_name(name)
        label = OWN_LABEL + name
        with self._token() as connection, connection.writing() as session:
            if objects.search(session, ObjectClass.PRIVATE_KEY, label=label):
                raise KeyStoreError(
                    f"There is a key {name} already.", remedy="Choose another name, or destroy that key."
                )
            identifier = secrets.token_bytes(IDENTIFIER_SIZE)
            objects.generate(session, label, identifier, algorithm)
        return str(TokenUri(self._settings.token, label, identifier))

    def load(self, uri: str) -> PrivateKey:
        """The key that `uri` names; see `KeyStore.load`."""
        wanted = self._parse(uri)
        with self._token() as connection, connection.signing() as session:
            session.private_key(wanted)
            public_key = objects.public_key(objects.find(session.handle, ObjectClass.PUBLIC_KEY, wanted))
        return stored_key(public_key, partial(self._sign, wanted))

    def protection(self, uri: str) -> Protection:
        """Hardware only for a key that was made in a slot that calls itself hardware and can never have left it."""
        wanted = self._parse(uri)
        with self._token() as connection, connection.signing() as session:
            key = session.private_key(wanted)
            in_hardware = connection.is_hardware and objects.never_left(key)
        return Protection.HARDWARE if in_hardware else Protection.SOFTWARE

    def list(self) -> tuple[str, ...]:
        """The URIs of the keys that were made here, sorted; other keys of the token are not ours to judge."""
        with self._token() as connection, connection.signing() as session:
            names = [objects.name_of(key) for key in objects.search(session.handle, ObjectClass.PRIVATE_KEY)]
        uris = [TokenUri(self._settings.token, label, identifier) for label, identifier in names]
        return tuple(sorted(str(uri) for uri in uris if _is_own(uri)))

    def destroy(self, uri: str) -> None:
        """Remove a key that was made here; nothing happens where there is none."""
        wanted = self._parse(uri)
        if not _is_own(wanted):
            raise KeyStoreError("This key was not made by scanseal.", remedy="Remove it with the tool that made it.")
        with self._token() as connection, connection.writing() as session:
            for kind in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY):
                for found in objects.search(session, kind, label=wanted.label, identifier=wanted.identifier):
                    found.destroy()
            connection.forget_keys()

    def check(self) -> None:
        """Whether the token can be logged in to; see `KeyStore.check`."""
        self._connect()

    def close(self) -> None:
        """Log out; keys handed out before stop working."""
        with self._guard:
            self._closed = True
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _sign(self, uri: TokenUri, digest: bytes, scheme: Scheme) -> bytes:
        with self._token() as connection, connection.signing() as session:
            return objects.signature(session.private_key(uri), digest, scheme)

    def _parse(self, uri: str) -> TokenUri:
        wanted = TokenUri.parse(uri)
        if wanted.token != self._settings.token:
            raise KeyNotFound(
                f"The key is in the token {wanted.token}, and {self._settings.token} is configured.",
                remedy="Set [keystore.pkcs11] token.",
            )
        return wanted

    @contextmanager
    def _token(self) -> Iterator[Connection]:
        """The open token. Errors of the library leave as ours, and a broken connection is not used again."""
        connection = self._connect()
        try:
            with connection.lock:
                yield connection
        except _UNSUPPORTED as error:
            raise UnsupportedKey(
                f"The token does not do this ({_name(error)}).", remedy="Choose another kind of key or signature."
            ) from error
        except pkcs11.DeviceMemory as error:
            raise KeyStoreError("The token is full.", remedy="Remove keys that are not used any more.") from error
        except pkcs11.PKCS11Error as error:
            self._drop(connection)
            raise KeyStoreUnavailable(
                f"The token {self._settings.token} failed ({_name(error)}).",
                remedy="Check that it is connected; the next call opens it anew.",
            ) from error

    def _connect(self) -> Connection:
        if os.getpid() != self._process:
            raise KeyStoreUnavailable("The token was opened by another process.", remedy="Open it after the fork.")
        with self._guard:
            if self._closed:
                raise KeyStoreUnavailable("The token has been closed.", remedy="Open the key store again.")
            if self._connection is None:
                self._connection = self._open()
            return self._connection

    def _open(self) -> Connection:
        pin = read_secret(self._settings.pin_file, "[keystore.pkcs11] pin_file", self._files)
        if pin == self._refused_pin:
            raise self._pin_refused("the same as before")
        try:
            with LIBRARY:
                return Connection(self._settings, pin.decode("utf-8"))
        except UnicodeDecodeError:
            raise self._pin_refused("not UTF-8") from None  # the cause would show the PIN
        except _PIN_ERRORS as error:
            self._refused_pin = pin
            raise self._pin_refused(_name(error)) from error
        except pkcs11.PKCS11Error as error:
            raise KeyStoreUnavailable(
                f"The token {self._settings.token} cannot be opened ({_name(error)}).",
                remedy=f"Check that it is connected and that {self._settings.module} is its library.",
            ) from error

    def _pin_refused(self, reason: str) -> PinRefused:
        return PinRefused(
            f"The token {self._settings.token} does not accept the PIN ({reason}).",
            remedy=f"Put the right PIN into {self._settings.pin_file}. A refused PIN is not tried again, because "
            "tokens lock after a few.",
        )

    def _drop(self, connection: Connection) -> None:
        # Closing inside the guard: logging out must not hit the login of the next connection.
        with self._guard:
            if self._connection is connection:
                self._connection = None
                connection.close()


def _is_own(uri: TokenUri) -> bool:
    label = uri.label or ""
    return label.startswith(OWN_LABEL) and KEY_NAME.fullmatch(label.removeprefix(OWN_LABEL)) is not None


def _name(error: pkcs11.PKCS11Error) -> str:
    return type(error).__name__
