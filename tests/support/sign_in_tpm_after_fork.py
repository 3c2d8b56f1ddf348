"""Opens a TPM, forks, and exits with 0 if the child could not use it: TCTI DIRECTORY AUTHORIZATION_FILE URI."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from enroll.config import KeyStoreSettings, TpmStoreSettings
from enroll.keystore import KeyStores
from enroll.statefile import StateFiles
from tests.support.sign_after_fork import refused_attempts


def main(tcti: str, directory: str, authorization_file: str, uri: str) -> int:
    settings = KeyStoreSettings(tpm=TpmStoreSettings(tcti, Path(directory), Path(authorization_file)))
    stores = KeyStores(settings, Path(), StateFiles())
    key = stores.load(uri)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return 10
    child = os.fork()
    if child == 0:
        os._exit(3 - refused_attempts(stores, key, uri))
    _, status = os.waitpid(child, 0)
    stores.load(uri)  # the parent goes on
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
