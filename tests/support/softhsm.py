"""SoftHSM tokens of the tests' own: a PKCS#11 peer that touches nothing of the machine.

A PKCS#11 library reads its configuration when it is initialised, once for each process, and does not see tokens that
another process makes later. So a test process has one directory with all its tokens, made before the first use.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from enroll.config import KeyStoreSettings, Pkcs11StoreSettings, StoreName
from enroll.keystore import open_store
from enroll.keystore.base import KeyStore
from enroll.statefile import StateFiles

PIN = "correct-horse-4711"
SECURITY_OFFICER_PIN = "87654321"
TOKENS = ("through-proxy", "direct", "spare", "twins", "twins")

_LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")


@dataclass(frozen=True)
class SoftHsm:
    """Where the parts are.

    Args:
        directory: All files of the tokens.
        proxy: p11-kit-proxy, through which several threads may sign.
        library: SoftHSM's own library, which the proxy loads.
        pin_file: The user PIN of all tokens.
    """

    directory: Path
    proxy: Path
    library: Path
    pin_file: Path

    @property
    def tokens(self) -> Path:
        """The tokens themselves; away while the directory has another name."""
        return self.directory / "tokens"

    @property
    def environment(self) -> dict[str, str]:
        """What the libraries read when they are initialised."""
        return {
            "SOFTHSM2_CONF": str(self.directory / "softhsm2.conf"),
            "XDG_CONFIG_HOME": str(self.directory),
            # Keeps tpm2-pkcs11, where it is installed and root's p11-kit loads it, out of $HOME and from talking.
            "TPM2_PKCS11_STORE": str(self.directory),
            "TSS2_LOG": "all+none",
        }

    def copy(self, name: str) -> Path:
        """A copy of the library: apart from all others it can be initialised, and broken, in the same process."""
        path = self.directory / f"{name}.so"
        if not path.exists():
            shutil.copyfile(self.library, path)
        return path

    def store(self, module: Path, token: str, pin_file: Path | None = None, sessions: int = 2) -> KeyStore:
        """A key store on one of the tokens."""
        settings = Pkcs11StoreSettings(module, token, pin_file or self.pin_file, sessions)
        return open_store(StoreName.PKCS11, KeyStoreSettings(pkcs11=settings), self.directory, StateFiles())


@cache
def softhsm_of_this_process(base: Path) -> SoftHsm:
    """The tokens; made at the first call.

    Args:
        base: pytest's temporary directory for this process.
    """
    hsm = new_softhsm(base / "softhsm", TOKENS)
    os.environ.update(hsm.environment)
    return hsm


def new_softhsm(directory: Path, tokens: Sequence[str]) -> SoftHsm:
    """Tokens of one test's own, for a copy of the library that is initialised in their environment.

    Args:
        directory: For them alone; it is made.
        tokens: Their labels.
    """
    pytest.importorskip("pkcs11", reason="python-pkcs11 is missing: pip install '.[pkcs11]'")
    if shutil.which("softhsm2-util") is None:
        pytest.skip("no softhsm2-util on the PATH: apt-get install softhsm2")
    hsm = SoftHsm(
        directory=directory,
        proxy=_library("p11-kit-proxy.so", "p11-kit-modules"),
        library=_library("softhsm/libsofthsm2.so", "softhsm2"),
        pin_file=directory / "pin",
    )
    _configure(hsm)
    pins = ["--pin", PIN, "--so-pin", SECURITY_OFFICER_PIN]
    for token in tokens:
        command = ["softhsm2-util", "--init-token", "--free", "--label", token, *pins]
        subprocess.run(command, env={**os.environ, **hsm.environment}, check=True, capture_output=True)
    return hsm


def _configure(hsm: SoftHsm) -> None:
    modules = hsm.directory / "pkcs11" / "modules"
    hsm.tokens.mkdir(parents=True)
    modules.mkdir(parents=True)
    hsm.pin_file.write_text(f"{PIN}\n", "utf-8")
    hsm.pin_file.chmod(0o600)
    (hsm.directory / "softhsm2.conf").write_text(
        f"directories.tokendir = {hsm.tokens}\nobjectstore.backend = file\nlog.level = ERROR\n", "utf-8"
    )
    # Only SoftHSM is loaded. Root's p11-kit ignores this and loads every module of the machine; SoftHSM is one of them.
    (hsm.directory / "pkcs11" / "pkcs11.conf").write_text("user-config: only\n", "utf-8")
    (modules / "softhsm2.module").write_text(f"module: {hsm.library}\n", "utf-8")


def _library(name: str, package: str) -> Path:
    for folder in _LIBRARIES:
        if (path := Path(folder, name)).exists():
            return path
    pytest.skip(f"no {name}: apt-get install {package}")
