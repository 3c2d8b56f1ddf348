"""What every key store offers.

A store hands out keys that *are* `cryptography` private keys, so everything that takes such a key (requests,
certificates, CMS) works with a key in a token as well. URIs name keys: `software:`, `pkcs11:` (RFC 7512), `tpm:` and
`memory:`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from enroll.algorithms import HmacAlgorithm, KeyAlgorithm
from enroll.config import Pkcs11StoreSettings
from enroll.errors import KeyStoreError

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
KEY_PARSE_ERRORS = (  # what `cryptography` raises for a private key that it cannot read
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    InternalError,  # for one of RFC 8410 with the length of another
)
KEY_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?")


class Protection(StrEnum):
    """Where a key really lives."""

    HARDWARE = "hardware"
    MEMORY = "memory"
    SOFTWARE = "software"


class HmacKey(Protocol):
    """A secret that authenticates messages and stays in its store."""

    def sign(self, data: bytes) -> bytes:
        """The HMAC over `data` (RFC 2104), of the full length of its hash.

        Raises:
            KeyStoreError: The store cannot compute it.
        """


class KeyStore(Protocol):
    """A place where private keys live."""

    scheme: str

    def generate(self, name: str, algorithm: KeyAlgorithm) -> str:
        """Make a key that never leaves the store.

        Args:
            name: Unique in the store; letters, digits and hyphens.
            algorithm: The kind of key.

        Returns:
            The URI that names the key from now on.

        Raises:
            KeyStoreError: The store refused, or the name is taken.
        """

    def load(self, uri: str) -> PrivateKey:
        """The key that `uri` names.

        Raises:
            KeyNotFound: No such key.
            KeyStoreError: The store cannot be used.
        """

    def generate_secret(self, name: str, algorithm: HmacAlgorithm) -> str:
        """Make a secret for message authentication that never leaves the store; see `generate`."""

    def load_secret(self, uri: str) -> HmacKey:
        """The secret that `uri` names.

        Raises:
            KeyNotFound: No such secret; a private key is none.
            KeyStoreError: The store cannot be used.
        """

    def protection(self, uri: str) -> Protection:
        """Where the key or secret really lives; never better than what the store can show."""

    def list(self) -> tuple[str, ...]:
        """The URIs of all keys and secrets of this store, sorted."""

    def destroy(self, uri: str) -> None:
        """Remove the key for good; nothing happens where there is none."""

    def check(self) -> None:
        """Find out whether keys can be made now, before anything depends on it.

        Raises:
            KeyStoreError: The store cannot be used, for example without its secret.
        """

    def close(self) -> None:
        """Release the store; keys handed out before may stop working."""


@dataclass(frozen=True)
class KeyFile:
    """A key as `ssl.SSLContext.load_cert_chain` wants it.

    Args:
        path: The key file.
        passphrase: Called when the file is read.
    """

    path: Path
    passphrase: Callable[[], bytes] = field(repr=False)


@dataclass(frozen=True)
class StoredKey:
    """A key that stays in its store, for TLS.

    Args:
        uri: Its name.
        key: The key itself.
        token: The settings of its token, where it is in one.
    """

    uri: str
    key: PrivateKey
    token: Pkcs11StoreSettings | None = None


TlsKey: TypeAlias = KeyFile | StoredKey


@runtime_checkable
class TlsKeyFiles(Protocol):
    """What a store offers whose keys are files that TLS can read."""

    def tls_key_file(self, uri: str) -> KeyFile:
        """The key that `uri` names, for TLS.

        Raises:
            KeyNotFound: No such key.
            KeyStoreError: The store cannot be used.
        """


@runtime_checkable
class Importing(Protocol):
    """What a store offers that takes keys which were made elsewhere."""

    def import_key(self, name: str, key: PrivateKey) -> str:
        """Keep a key under a new name; see `KeyStore.generate` for the name, the answer and the errors."""


@runtime_checkable
class Pausing(Protocol):
    """What a store offers that may keep others in this process from what it has open."""

    def pause(self) -> None:
        """Let it go until the next use of a key; keys handed out before go on working."""


def check_key_name(name: str) -> None:
    """Refuse what could be more than a name: names become parts of paths and of labels in a token.

    Raises:
        KeyStoreError: Not 1 to 64 letters, digits and inner hyphens.
    """
    if not KEY_NAME.fullmatch(name):
        raise KeyStoreError("This is not the name of a key.", remedy="Use 1 to 64 letters, digits and inner hyphens.")
