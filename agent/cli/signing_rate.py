"""How many signatures a key makes in a second, whatever it is and wherever it lives."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from enroll.clock import Clock
from enroll.keystore.base import PrivateKey

SECONDS = 2.0
_SHA256 = hashes.SHA256()
_DIGEST = Prehashed(_SHA256)


def kind_of(key: PrivateKey) -> str:
    """Which kind of key it is, as the configuration names it."""
    return f"rsa-{key.key_size}" if isinstance(key, rsa.RSAPrivateKey) else f"p-{key.key_size}"


def sign_digest(key: PrivateKey, digest: bytes) -> bytes:
    """A signature over a SHA-256 digest, as images (RSA) and connections (ECDSA) have it."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(digest, padding.PKCS1v15(), _DIGEST)
    return key.sign(digest, ec.ECDSA(_DIGEST))


def measure(key: PrivateKey, threads: int, clock: Clock, seconds: float = SECONDS) -> float:
    """Signatures per second, by so many threads at the same time; at least one signature is made by each.

    Raises:
        KeyStoreError: Its store failed.
    """
    digest = os.urandom(_SHA256.digest_size)
    sign_digest(key, digest)  # the first one searches for the key
    begun = clock.monotonic()

    def work(_: int) -> int:
        made = 0
        while made == 0 or clock.monotonic() - begun < seconds:
            sign_digest(key, digest)
            made += 1
        return made

    with ThreadPoolExecutor(threads, "signing-rate") as pool:
        made = sum(pool.map(work, range(threads)))
    return made / (clock.monotonic() - begun)
