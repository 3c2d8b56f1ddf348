"""Signs in two threads at the same time, and checks every signature: MODULE TOKEN PIN_FILE COUNT URI...

A program of its own, because the fault it looks for ends the process.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from enroll.config import KeyStoreSettings, Pkcs11StoreSettings
from enroll.keystore import KeyStores
from enroll.keystore.base import PrivateKey
from enroll.statefile import StateFiles

THREADS = 2


def sign(key: PrivateKey, thread: int, count: int) -> int:
    """Sign `count` messages of this thread; any wrong signature raises."""
    for number in range(count):
        message = f"{thread}:{number}".encode()
        if isinstance(key, rsa.RSAPrivateKey):
            signature = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
            key.public_key().verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        else:
            signature = key.sign(message, ec.ECDSA(hashes.SHA256()))
            key.public_key().verify(signature, message, ec.ECDSA(hashes.SHA256()))
    return count


def main(module: str, token: str, pin_file: str, count: str, *uris: str) -> None:
    settings = KeyStoreSettings(pkcs11=Pkcs11StoreSettings(Path(module), token, Path(pin_file), THREADS))
    stores = KeyStores(settings, Path(), StateFiles())
    keys = [stores.load(uri) for uri in uris]
    with ThreadPoolExecutor(THREADS) as pool:
        for key in keys:
            signed = pool.map(lambda thread, key=key: sign(key, thread, int(count)), range(THREADS))
            sys.stdout.write(f"{sum(signed)}\n")
    stores.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
