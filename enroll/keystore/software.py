"""Keys and secrets in encrypted files: `<directory>/<name>.pem`, PKCS#8 (RFC 5958), mode 0600, `software:<name>`.

This protects against a stolen backup or disk, not against root of the running machine. OpenSSL derives the file key
from the passphrase with 2048 rounds of PBKDF2 only, so the strength is that of the passphrase: make it by
`openssl rand -base64 32`.

The key is loaded into this process: what `load` returns is an ordinary `cryptography` key, and it can be exported.

A secret for message authentication is written as the private half of an X25519 or X448 key, which is 32 or 56 random
bytes (RFC 7748 5) and nothing else. PKCS#8 has no form for a plain secret, and encrypting files in a way of our own
would be worse than borrowing one. No such key is ever used for key agreement here.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import math
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeAlias

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x448, x25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from enroll import der
from enroll.algorithms import HmacAlgorithm, KeyAlgorithm
from enroll.errors import (
    DiskRefused,
    KeyDamaged,
    KeyNotFound,
    KeyStoreError,
    KeyStoreUnavailable,
    PinRefused,
    StateError,
    StateUnreadable,
    UnsupportedKey,
)
from enroll.keystore.base import KEY_NAME, KEY_PARSE_ERRORS, KeyFile, PrivateKey, Protection, check_key_name
from enroll.keystore.keys import CURVES, HMAC_HASHES, RSA_BITS, RSA_EXPONENT, check_supported
from enroll.keystore.secretfile import read_secret
from enroll.statefile import StateFiles

KEY_FILE_LIMIT = 16 * 1024  # bytes; RSA-4096 takes 3.4 KiB
_AnyContainer: TypeAlias = x25519.X25519PrivateKey | x448.X448PrivateKey


@dataclass(frozen=True)
class _Container:
    kind: type[_AnyContainer]
    size: int  # bytes


_CONTAINERS: Mapping[HmacAlgorithm, _Container] = {
    HmacAlgorithm.SHA256: _Container(x25519.X25519PrivateKey, 32),
    HmacAlgorithm.SHA384: _Container(x448.X448PrivateKey, 56),
}
_BEGIN, _END = b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"-----END ENCRYPTED PRIVATE KEY-----"


class SoftwareKeyStore:
    """The key files of one directory.

    The passphrase is read anew for each key and kept nowhere.

    Args:
        directory: Where the files lie; made with mode 0700 where it is missing.
        passphrase_file: Holds the passphrase of all of them.
        files: Reads and writes them.
    """

    scheme = "software"

    def __init__(self, directory: Path, passphrase_file: Path | None, files: StateFiles) -> None:
        self._directory = directory
        self._passphrase_file = passphrase_file
        self._files = files

    def generate(self, name: str, algorithm: KeyAlgorithm) -> str:
        """Make a key; see `KeyStore.generate`."""
        passphrase = self._passphrase_for_new(name)
        key: PrivateKey
        if algorithm in RSA_BITS:
            key = rsa.generate_private_key(RSA_EXPONENT, RSA_BITS[algorithm])
        else:
            key = ec.generate_private_key(CURVES[algorithm])
        return self._write(name, key, passphrase)

    def import_key(self, name: str, key: PrivateKey) -> str:
        """Keep a key that was made elsewhere; see `Importing`."""
        check_supported(key.public_key())
        return self._write(name, key, self._passphrase_for_new(name))

    def load(self, uri: str) -> PrivateKey:
        """The key that `uri` names; see `KeyStore.load`."""
        path = self._existing(uri)
        key = self._read(path)
        if isinstance(key, _AnyContainer):
            raise KeyNotFound(f"{path} holds a secret, and no key.", remedy="Enroll again.")
        if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            raise UnsupportedKey(f"{path} holds neither an RSA nor an elliptic curve key.", remedy="Enroll again.")
        check_supported(key.public_key())
        return key

    def generate_secret(self, name: str, algorithm: HmacAlgorithm) -> str:
        """Make a secret; see `KeyStore.generate_secret`."""
        passphrase = self._passphrase_for_new(name)
        container = _CONTAINERS[algorithm]
        secret = secrets.token_bytes(container.size)
        return self._write(name, container.kind.from_private_bytes(secret), passphrase)

    def load_secret(self, uri: str) -> SoftwareHmacKey:
        """The secret that `uri` names; see `KeyStore.load_secret`."""
        path = self._existing(uri)
        key = self._read(path)
        for algorithm, container in _CONTAINERS.items():
            if isinstance(key, container.kind):
                return SoftwareHmacKey(key.private_bytes_raw(), algorithm)
        raise KeyNotFound(f"{path} holds a key, and no secret.", remedy="Name the file of a secret.")

    def protection(self, uri: str) -> Protection:
        """Always software."""
        self._existing(uri)
        return Protection.SOFTWARE

    def list(self) -> tuple[str, ...]:
        """The URIs of all keys and secrets, sorted."""
        with _key_store_errors():
            files = self._files.names(self._directory)
        names = sorted(file.removesuffix(".pem") for file in files if file.endswith(".pem"))
        return tuple(f"{self.scheme}:{name}" for name in names if KEY_NAME.fullmatch(name))

    def destroy(self, uri: str) -> None:
        """Remove the file, and what a crash left while it was written; nothing happens where there is none."""
        with _key_store_errors():
            self._files.remove_with_leftovers(self._path(_name(uri)))

    def tls_key_file(self, uri: str) -> KeyFile:
        """The key that `uri` names, for TLS; see `TlsKeyFiles`."""
        self.load(uri)  # says what is wrong with it, which OpenSSL's TLS does not
        return KeyFile(self._existing(uri), self._passphrase)

    def check(self) -> None:
        """Whether there is a passphrase; see `KeyStore.check`."""
        self._passphrase()

    def close(self) -> None:
        """Nothing is held."""

    def _passphrase_for_new(self, name: str) -> bytes:
        check_key_name(name)
        with _key_store_errors():
            taken = self._files.exists(self._path(name))
        if taken:
            raise KeyStoreError(f"There is a key {name} already.", remedy="Choose another name, or destroy that key.")
        return self._passphrase()

    def _write(self, name: str, key: PrivateKey | _AnyContainer, passphrase: bytes) -> str:
        data = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase),
        )
        with _key_store_errors():
            self._files.make_directory(self._directory)
            self._files.write(self._path(name), data)
        return f"{self.scheme}:{name}"

    def _read(self, path: Path) -> PrivateKeyTypes:
        with _key_store_errors(KeyDamaged):
            data = self._files.read(path, KEY_FILE_LIMIT)
        if not _is_whole(data):
            raise KeyDamaged(f"{path} is not an encrypted key file.", remedy="Restore it, or enroll again.")
        passphrase = self._passphrase()
        try:
            # OpenSSL's own check looks for factors of the primes. That takes 0.2 s and holds the interpreter's lock, so
            # no image would be signed meanwhile. They were primes when the key was made, and have not changed.
            key = serialization.load_pem_private_key(data, passphrase, unsafe_skip_rsa_key_validation=True)
            if isinstance(key, rsa.RSAPrivateKey):
                _check_numbers(key.private_numbers())
            return key
        except KEY_PARSE_ERRORS as error:
            # A wrong passphrase decrypts to noise, which looks like a damaged key.
            raise PinRefused(
                f"The passphrase does not open {path}.",
                remedy="Put the passphrase that this key was made with into passphrase_file. If it is lost, remove "
                f"all key files in {self._directory}, because they have the same passphrase; then set [est] username "
                "and password_file, which are needed again, and enroll again.",
            ) from error

    def _passphrase(self) -> bytes:
        return read_secret(self._passphrase_file, "[keystore.software] passphrase_file", self._files)

    def _existing(self, uri: str) -> Path:
        path = self._path(_name(uri))
        with _key_store_errors():
            found = self._files.exists(path)
        if not found:
            raise KeyNotFound(
                f"There is no key file {path}.",
                remedy="Restore it from a backup, or enroll again. For the device's own key, that needs [est] username "
                "and password_file.",
            )
        return path

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.pem"


class SoftwareHmacKey:
    """A secret from a file, in this process.

    Args:
        secret: Its bytes.
        algorithm: What it is for.
    """

    def __init__(self, secret: bytes, algorithm: HmacAlgorithm) -> None:
        self._secret = secret
        self._algorithm = algorithm

    def __repr__(self) -> str:
        return f"SoftwareHmacKey({self._algorithm})"

    def __reduce__(self) -> NoReturn:
        raise UnsupportedKey("This secret does not leave its store.", remedy="Use it where it is.")

    def sign(self, data: bytes) -> bytes:
        """The HMAC over `data`; see `HmacKey`."""
        return hmac.digest(self._secret, data, HMAC_HASHES[self._algorithm].name)


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


def _is_whole(data: bytes) -> bool:
    """Whether this is an encrypted key from its first byte to its last, so that only the passphrase may be wrong."""
    text = data.strip()
    if not (text.startswith(_BEGIN) and text.endswith(_END)):
        return False
    try:
        return der.is_one_value(base64.b64decode(b"".join(text[len(_BEGIN) : -len(_END)].split()), validate=True))
    except ValueError:
        return False


def _check_numbers(key: rsa.RSAPrivateNumbers) -> None:
    """RFC 8017 3.2: a damaged file is not used, and OpenSSL need not make sense of its numbers.

    Raises:
        ValueError: The numbers of the key do not belong together.
    """
    p, q, d, public = key.p, key.q, key.d, key.public_numbers
    fits = p > q > 1 or q > p > 1
    fits = fits and p * q == public.n and (d * public.e - 1) % math.lcm(p - 1, q - 1) == 0
    if not (fits and (key.dmp1, key.dmq1) == (d % (p - 1), d % (q - 1)) and key.iqmp * q % p == 1):
        raise ValueError("these numbers are no RSA key")


def _name(uri: str) -> str:
    scheme, _, name = uri.partition(":")
    if scheme != SoftwareKeyStore.scheme or not KEY_NAME.fullmatch(name):
        raise KeyNotFound("This URI names no key file.", remedy=f"It must be {SoftwareKeyStore.scheme}:NAME.")
    return name
