"""Opens a token, forks, and exits with 0 if the child could not use what it inherited: MODULE TOKEN PIN_FILE URI."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from enroll.config import KeyStoreSettings, Pkcs11StoreSettings
from enroll.errors import KeyStoreUnavailable
from enroll.keystore import KeyStores
from enroll.statefile import StateFiles


def refused_attempts(stores: KeyStores, key: ec.EllipticCurvePrivateKey, uri: str) -> int:
    """How many of the three ways to sign with the inherited store are refused."""
    refused = 0
    for attempt in (
        lambda: key.sign(b"", ec.ECDSA(hashes.SHA256())),
        lambda: stores.load(uri),
        lambda: stores.protection(uri),
    ):
        try:
            attempt()
        except KeyStoreUnavailable:
            refused += 1
    return refused


def main(module: str, token: str, pin_file: str, uri: str) -> int:
    settings = KeyStoreSettings(pkcs11=Pkcs11StoreSettings(Path(module), token, Path(pin_file)))
    stores = KeyStores(settings, Path(), StateFiles())
    key = stores.load(uri)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return 10
    key.sign(b"", ec.ECDSA(hashes.SHA256()))
    child = os.fork()
    if child == 0:
        os._exit(3 - refused_attempts(stores, key, uri))
    _, status = os.waitpid(child, 0)
    key.sign(b"", ec.ECDSA(hashes.SHA256()))  # the parent goes on
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
