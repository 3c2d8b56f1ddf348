"""The table of key stores and the choice among them (`enroll.keystore`)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from enroll.algorithms import KeyAlgorithm
from enroll.config import KeyStoreSettings, Pkcs11StoreSettings, SoftwareStoreSettings, StoreName
from enroll.errors import UnsupportedKey
from enroll.keystore import KeyStores
from enroll.keystore.base import KeyFile, Protection
from enroll.statefile import StateFiles

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(tmp_path: Path) -> KeyStoreSettings:
    passphrase_file = tmp_path / "passphrase"
    passphrase_file.write_text("a passphrase", "utf-8")
    passphrase_file.chmod(0o600)
    return KeyStoreSettings(
        SoftwareStoreSettings(passphrase_file=passphrase_file), Pkcs11StoreSettings(Path("/none.so"))
    )


@pytest.fixture
def stores(settings: KeyStoreSettings, tmp_path: Path) -> KeyStores:
    return KeyStores(settings, tmp_path / "state", StateFiles())


def test_the_uri_chooses_the_store(stores: KeyStores, tmp_path: Path) -> None:
    uri = stores.generate(StoreName.SOFTWARE, "device-1", KeyAlgorithm.P_256)

    assert stores.load(uri).key_size == 256
    assert stores.protection(uri) is Protection.SOFTWARE
    key_file = stores.tls_key(uri)
    assert isinstance(key_file, KeyFile)
    assert key_file.path == tmp_path / "state" / "keys" / "device-1.pem"
    assert stores.list() == (uri,)
    stores.destroy(uri)
    assert stores.list() == ()
    stores.close()


@pytest.mark.parametrize("uri", ["hsm:x", "file:/etc/passwd", "", "Software:x", "pkcs12:pin-value=1234"])
def test_an_unknown_scheme_is_refused_and_not_repeated(stores: KeyStores, uri: str) -> None:
    for use in (stores.load, stores.protection, stores.destroy, stores.tls_key):
        with pytest.raises(UnsupportedKey) as caught:
            use(uri)
        assert "1234" not in str(caught.value)
        assert "software, pkcs11" in caught.value.remedy


def test_a_store_is_opened_when_it_is_needed(stores: KeyStores) -> None:
    """The settings name a library that does not exist, and a software key does not care."""
    stores.generate(StoreName.SOFTWARE, "device-1", KeyAlgorithm.P_256)

    assert len(stores.list()) == 1
    assert (StoreName.PKCS11, "") not in stores._opened


def test_without_python_pkcs11_only_tokens_cannot_be_used(tmp_path: Path) -> None:
    program = f"""
import sys
sys.modules["pkcs11"] = None
from pathlib import Path
from enroll.config import KeyStoreSettings
from enroll.errors import KeyStoreUnavailable
from enroll.keystore import KeyStores
from enroll.statefile import StateFiles
stores = KeyStores(KeyStoreSettings(), Path({str(tmp_path)!r}), StateFiles())
assert stores.list() == ()
try:
    stores.load("pkcs11:token=scanseal;object=o")
except KeyStoreUnavailable as error:
    print(error.remedy)
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)

    assert run.stdout == "Run: pip install 'scanseal[pkcs11]'\n"
