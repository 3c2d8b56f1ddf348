"""A PKCS#11 token in a TPM: tpm2-pkcs11, with its database in a directory of the test's own.

The library reads its environment when it is initialised, and then keeps one connection to the TPM. So each token has a
copy of the library, and the environment holds as long as the token is in use.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from enroll.config import KeyStoreSettings, Pkcs11StoreSettings, StoreName
from enroll.keystore import open_store
from enroll.keystore.base import KeyStore
from enroll.statefile import StateFiles

LABEL = "in-a-tpm"
PIN = "battery-staple-0815"
SECURITY_OFFICER_PIN = "87654321"


@dataclass(frozen=True)
class TokenInTpm:
    """Where the parts are.

    Args:
        library: tpm2-pkcs11, a copy of its own.
        pin_file: The user PIN.
        environment: What the library reads when it is initialised.
    """

    library: Path
    pin_file: Path
    environment: Mapping[str, str]

    def store(self, pin_file: Path | None = None) -> KeyStore:
        """A key store on the token."""
        settings = Pkcs11StoreSettings(self.library, LABEL, pin_file or self.pin_file)
        return open_store(StoreName.PKCS11, KeyStoreSettings(pkcs11=settings), self.library.parent, StateFiles())

    def disconnect(self) -> None:
        """Let go of the TPM; the next use of the library connects again."""
        pkcs11 = pytest.importorskip("pkcs11")
        with contextlib.suppress(pkcs11.PKCS11Error):
            pkcs11.lib(os.path.realpath(self.library)).finalize()


@contextmanager
def token_in_tpm(directory: Path, tcti: str, environment: Mapping[str, str] | None = None) -> Iterator[TokenInTpm]:
    """A token for one block.

    Args:
        directory: For it alone.
        tcti: How the TPM is reached, in the words of the TPM software stack.
        environment: What is needed for that.
    """
    pytest.importorskip("pkcs11", reason="python-pkcs11 is missing: pip install '.[pkcs11]'")
    library = next(Path("/usr/lib").glob("*/pkcs11/libtpm2_pkcs11.so"), None)
    if library is None:
        pytest.skip("no libtpm2_pkcs11.so: apt-get install libtpm2-pkcs11-1")
    if shutil.which("pkcs11-tool") is None:
        pytest.skip("no pkcs11-tool on the PATH: apt-get install opensc")
    database = directory / "database"
    database.mkdir(parents=True)
    variables = {
        **(environment or {}),
        "TPM2_PKCS11_STORE": str(database),
        "TPM2_PKCS11_TCTI": tcti,
        "TPM2_PKCS11_BACKEND": "esysdb",
        "TSS2_LOG": "all+none",
    }
    token = TokenInTpm(directory / "tpm2_pkcs11.so", directory / "pin", variables)
    shutil.copyfile(library, token.library)
    token.pin_file.write_text(PIN, "utf-8")
    token.pin_file.chmod(0o600)
    officer = ["--so-pin", SECURITY_OFFICER_PIN]
    _pkcs11_tool(token, "--init-token", "--slot-index", "0", "--label", LABEL, *officer)
    _pkcs11_tool(
        token, "--init-pin", "--token-label", LABEL, "--login", "--login-type", "so", *officer, "--new-pin", PIN
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        try:
            yield token
        finally:
            token.disconnect()


def _pkcs11_tool(token: TokenInTpm, *arguments: str) -> None:
    command = ["pkcs11-tool", "--module", str(token.library), *arguments]
    environment = {**os.environ, **token.environment}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
