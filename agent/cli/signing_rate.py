"""How many signatures a key makes in a second, whatever it is and wherever it lives."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from enroll.algorithms import KeyAlgorithm
from enroll.clock import Clock
from enroll.collector import MEASURED
from enroll.config import StoreName
from enroll.identity import IdentityStore
from enroll.keystore import KeyStores
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


@contextmanager
def trial_key(
    stores: KeyStores, identities: IdentityStore, store: StoreName, algorithm: KeyAlgorithm, token: str
) -> Iterator[PrivateKey]:
    """A key that is made to be measured, and destroyed: after a crash by the collector, at the next `scanseal renew`.

    Raises:
        KeyStoreError: Its store failed.
        StateError: An enrollment is running, or the disk refused.
    """
    # The collector must not destroy it now. Where there is no scanner yet, and no process that has keys in its memory,
    # there is no collector.
    is_kept = store is not StoreName.MEMORY and identities.root.is_dir()
    with identities.release_lock() if is_kept else nullcontext():
        uri = stores.generate_for_trial(store, f"{MEASURED}-{secrets.token_hex(8)}", algorithm, token)
        try:
            yield stores.load(uri)
        finally:
            stores.destroy(uri)


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
