"""How many signatures a token makes in a second: measured, because data sheets and names say little."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding

from agent.daemon.active_key import HASHES, ActiveKey
from agent.daemon.wire import DIGEST_SIZES, HashName
from enroll.clock import Clock
from enroll.errors import KeyMismatch

ROUNDS = 3
ROUND_SECONDS = 1.0

_SHORTEST = 1e-6  # seconds; a clock may stand still


def measure(key: ActiveKey, hash_name: HashName, needed: int, threads: int, clock: Clock) -> float:
    """Sign as many digests as one second of images has, on several threads; the best of a few rounds.

    A round ends after a second, whether or not it is ready; a token that is quick enough is not measured twice.

    Args:
        key: The key; every signature that it makes is verified.
        hash_name: The hash that is signed.
        needed: Signatures per second that are enough.
        threads: Signatures at the same time.
        clock: Measures.

    Returns:
        Signatures per second.

    Raises:
        KeyMismatch: A signature is wrong.
        KeyStoreError: The token failed.
    """
    best = 0.0
    for _ in range(ROUNDS):
        best = max(best, _round(key, hash_name, max(needed, threads), threads, clock))
        if best >= needed:
            break
    return best


def _round(key: ActiveKey, hash_name: HashName, count: int, threads: int, clock: Clock) -> float:
    begun, left = clock.monotonic(), iter(range(count))

    def sign_on(_thread: int) -> int:
        made = 0
        while clock.monotonic() - begun < ROUND_SECONDS and next(left, None) is not None:
            _sign_and_verify(key, hash_name)
            made += 1
        return made

    with ThreadPoolExecutor(threads, "self-benchmark") as pool:
        made = sum(pool.map(sign_on, range(threads)))
    return made / max(clock.monotonic() - begun, _SHORTEST)


def _sign_and_verify(key: ActiveKey, hash_name: HashName) -> None:
    digest = os.urandom(DIGEST_SIZES[hash_name])
    signature = key.key.sign(digest, padding.PKCS1v15(), HASHES[hash_name])
    public_key = key.key.public_key()
    try:
        public_key.verify(signature, digest, padding.PKCS1v15(), HASHES[hash_name])
    except InvalidSignature as error:
        raise KeyMismatch(
            "The token made a wrong signature.", remedy="Do not use it; test it, or have it replaced."
        ) from error
