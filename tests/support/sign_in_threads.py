"""Signs in two threads at the same time, and checks every signature: MODULE TOKEN PIN_FILE COUNT URI...

COUNT is how many each thread makes with each key, or for how long, as in "60s". Prints how many there were of each key.
A program of its own, because the fault it looks for ends the process.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from enroll.config import KeyStoreSettings, Pkcs11StoreSettings
from enroll.keystore import KeyStores
from enroll.keystore.base import PrivateKey
from enroll.statefile import StateFiles

THREADS = 2


def numbers(count: str) -> Iterator[int]:
    """As many numbers as `count` says, or as there is time for."""
    if not count.endswith("s"):
        return iter(range(int(count)))
    end = time.monotonic() + float(count.removesuffix("s"))
    return itertools.takewhile(lambda _: time.monotonic() < end, itertools.count())


def sign(key: PrivateKey, thread: int, count: str) -> int:
    """Sign messages of this thread; any wrong signature raises."""
    signed = 0
    for number in numbers(count):
        message = f"{thread}:{number}".encode()
        if isinstance(key, rsa.RSAPrivateKey):
            signature = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
            key.public_key().verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        else:
            signature = key.sign(message, ec.ECDSA(hashes.SHA256()))
            key.public_key().verify(signature, message, ec.ECDSA(hashes.SHA256()))
        signed += 1
    return signed


def main(module: str, token: str, pin_file: str, count: str, *uris: str) -> None:
    settings = KeyStoreSettings(pkcs11=Pkcs11StoreSettings(Path(module), token, Path(pin_file), THREADS))
    stores = KeyStores(settings, Path(), StateFiles())
    keys = [stores.load(uri) for uri in uris]
    with ThreadPoolExecutor(THREADS) as pool:
        for key in keys:
            signed = pool.map(lambda thread, key=key: sign(key, thread, count), range(THREADS))
            sys.stdout.write(f"{sum(signed)}\n")
    stores.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
