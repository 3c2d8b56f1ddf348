"""Keys that live in the memory of one process: made there, never on disk, gone with it; named `memory:<name>`.

For the short-lived keys that sign images where a token is too slow. No other process can load them, and after a
restart no name leads to them. The process locks its memory and cannot be dumped (`agent.daemon.hardening`).
"""

from __future__ import annotations

import hmac
import secrets
import threading
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from enroll.algorithms import HmacAlgorithm, KeyAlgorithm
from enroll.errors import KeyNotFound, KeyStoreError, UnsupportedKey
from enroll.keystore.base import PrivateKey, Protection, check_key_name
from enroll.keystore.keys import CURVES, HMAC_HASHES, RSA_BITS, RSA_EXPONENT


class MemoryKeyStore:
    """The keys of this process."""

    scheme = "memory"

    def __init__(self) -> None:
        self._held: dict[str, PrivateKey | MemoryHmacKey] = {}
        self._guard = threading.Lock()

    def generate(self, name: str, algorithm: KeyAlgorithm) -> str:
        """Make a key; see `KeyStore.generate`."""
        check_key_name(name)
        key: PrivateKey
        if algorithm in RSA_BITS:
            key = rsa.generate_private_key(RSA_EXPONENT, RSA_BITS[algorithm])
        else:
            key = ec.generate_private_key(CURVES[algorithm])
        return self._keep(name, key)

    def load(self, uri: str) -> PrivateKey:
        """The key that `uri` names; see `KeyStore.load`."""
        key = self._find(uri)
        if isinstance(key, MemoryHmacKey):
            raise _not_here()
        return key

    def generate_secret(self, name: str, algorithm: HmacAlgorithm) -> str:
        """Make a secret; see `KeyStore.generate_secret`."""
        check_key_name(name)
        return self._keep(name, MemoryHmacKey(algorithm))

    def load_secret(self, uri: str) -> MemoryHmacKey:
        """The secret that `uri` names; see `KeyStore.load_secret`."""
        key = self._find(uri)
        if not isinstance(key, MemoryHmacKey):
            raise _not_here()
        return key

    def protection(self, uri: str) -> Protection:
        """Always memory."""
        self._find(uri)
        return Protection.MEMORY

    def list(self) -> tuple[str, ...]:
        """The URIs of all keys and secrets of this process, sorted."""
        return tuple(sorted(self._held))

    def destroy(self, uri: str) -> None:
        """Forget the key; nothing happens where there is none."""
        self._held.pop(uri, None)

    def check(self) -> None:
        """Nothing is needed; see `KeyStore.check`."""

    def close(self) -> None:
        """Forget all keys."""
        self._held.clear()

    def _keep(self, name: str, key: PrivateKey | MemoryHmacKey) -> str:
        uri = f"{self.scheme}:{name}"
        with self._guard:
            if uri in self._held:
                raise KeyStoreError(
                    f"There is a key {name} already.", remedy="Choose another name, or destroy that key."
                )
            self._held[uri] = key
        return uri

    def _find(self, uri: str) -> PrivateKey | MemoryHmacKey:
        try:
            return self._held[uri]
        except KeyError:
            raise _not_here() from None


class MemoryHmacKey:
    """A secret in memory.

    Args:
        algorithm: Decides its length, which is that of the hash (RFC 2104 section 3).
    """

    def __init__(self, algorithm: HmacAlgorithm) -> None:
        self._hash = HMAC_HASHES[algorithm]
        self._secret = secrets.token_bytes(self._hash.digest_size)

    def __repr__(self) -> str:
        return f"MemoryHmacKey({self._hash.name})"

    def __reduce__(self) -> NoReturn:
        raise UnsupportedKey("This secret does not leave its store.", remedy="Use it where it is.")

    def sign(self, data: bytes) -> bytes:
        """The HMAC over `data`; see `HmacKey`."""
        return hmac.digest(self._secret, data, self._hash.name)


def _not_here() -> KeyNotFound:
    return KeyNotFound(
        "This process holds no such key in memory.",
        remedy="Keys in memory are held by the agent that made them, and are gone when it ends; it asks for a new "
        "certificate by itself.",
    )
