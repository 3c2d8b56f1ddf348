"""A PIN is sent as seldom as can be (`enroll.keystore.pkcs11.tries`); tokens count, and so does OpenSC's spy here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from enroll.algorithms import KeyAlgorithm
from enroll.config import KeyStoreSettings, Pkcs11StoreSettings, StoreName, TokenSettings
from enroll.errors import KeyStoreUnavailable, PinRefused
from enroll.keystore import KeyStores
from enroll.keystore.base import PrivateKey
from enroll.keystore.tokenuri import TokenUri
from enroll.statefile import StateFiles
from tests.support.key_stores import WRONG_SECRET, secret_file
from tests.support.reliability.measured import measured
from tests.support.softhsm import PIN, SoftHsm

ROOT = Path(__file__).parents[2]


def sign(key: PrivateKey) -> bytes:
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.sign(b"message", ec.ECDSA(hashes.SHA256()))


@pytest.fixture
def logins(softhsm: SoftHsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A library that writes down every call, and where it does."""
    spy = next(Path("/usr/lib").glob("*/pkcs11-spy.so"), None)
    if spy is None:
        pytest.skip("no pkcs11-spy.so: apt-get install opensc")
    module = tmp_path / "spy.so"
    module.write_bytes(spy.read_bytes())
    monkeypatch.setenv("PKCS11SPY", str(softhsm.copy(tmp_path.name)))
    monkeypatch.setenv("PKCS11SPY_OUTPUT", str(tmp_path / "calls"))
    return module, tmp_path / "calls"


def two_tokens(softhsm: SoftHsm, module: Path, pin_file: Path, directory: Path) -> KeyStores:
    """The token "spare", and "direct" with this PIN file."""
    settings = Pkcs11StoreSettings(module, "spare", softhsm.pin_file, tokens={"direct": TokenSettings(pin_file)})
    return KeyStores(KeyStoreSettings(pkcs11=settings), directory, StateFiles())


def test_a_refused_pin_is_sent_once_and_a_corrected_one_is_tried(
    softhsm: SoftHsm, tmp_path: Path, logins: tuple[Path, Path]
) -> None:
    module, calls = logins
    pin_file = secret_file(tmp_path / "pin", WRONG_SECRET)
    store = softhsm.store(module, "spare", pin_file)

    for _ in range(5):
        with pytest.raises(PinRefused) as caught:
            store.list()
        assert str(pin_file) in caught.value.remedy
    assert calls.read_text().count("C_Login") == 1

    secret_file(pin_file, PIN)
    store.list()
    store.list()
    assert calls.read_text().count("C_Login") == 2
    store.close()


_A_RUN = """
import sys
from pathlib import Path
from enroll.config import KeyStoreSettings, Pkcs11StoreSettings, StoreName
from enroll.errors import PinRefused
from enroll.keystore import KeyStores
from enroll.statefile import StateFiles
module, pin_file, state = map(Path, sys.argv[1:])
stores = KeyStores(KeyStoreSettings(pkcs11=Pkcs11StoreSettings(module, "spare", pin_file)), state, StateFiles())
try:
    stores.check(StoreName.PKCS11)
    print("accepted")
except PinRefused as error:
    print(error)
stores.close()
"""


def test_a_refused_pin_is_not_sent_again_by_the_next_process(
    softhsm: SoftHsm, tmp_path: Path, logins: tuple[Path, Path]
) -> None:
    """A timer starts one every hour, and after three the token would be locked."""
    module, calls = logins
    pin_file = secret_file(tmp_path / "pin", WRONG_SECRET)
    state = tmp_path / "state"
    state.mkdir()

    def run() -> str:
        command = [sys.executable, "-c", _A_RUN, str(module), str(pin_file), str(state)]
        ended = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
        return ended.stdout

    said = [run() for _ in range(4)]

    assert calls.read_text().count("C_Login") == 1
    assert all("not sent again" in line and str(pin_file) in line for line in said[1:])
    (note,) = (state / "tokens").iterdir()
    assert WRONG_SECRET not in note.read_text()

    secret_file(pin_file, PIN)
    assert run() == "accepted\n"
    assert not [*(state / "tokens").iterdir()]
    assert calls.read_text().count("C_Login") == 2


def test_the_token_is_logged_in_to_once(softhsm: SoftHsm, logins: tuple[Path, Path]) -> None:
    module, calls = logins
    store = softhsm.store(module, "spare")

    uri = store.generate("one-login", KeyAlgorithm.P_256)
    key = store.load(uri)
    assert all(sign(key) for _ in range(5))
    store.destroy(uri)
    store.close()

    assert calls.read_text().count("C_Login") == 1
    assert calls.read_text().count("C_Logout") == 1


def test_a_refused_pin_is_sent_once_by_a_process(softhsm: SoftHsm, tmp_path: Path, logins: tuple[Path, Path]) -> None:
    """The enroller opens its stores anew for each identity, and cards have three tries."""
    module, calls = logins
    pin_file = secret_file(tmp_path / "pin", WRONG_SECRET)

    for _ in range(3):
        store = softhsm.store(module, "spare", pin_file)
        with pytest.raises(PinRefused):
            store.check()
        store.close()

    logins_sent = calls.read_text().count("C_Login")
    assert logins_sent == 1
    measured("R7", "a wrong PIN, by three openings of the store in one process", logins=logins_sent)


def test_each_of_several_tokens_is_logged_in_to_once(
    softhsm: SoftHsm, tmp_path: Path, logins: tuple[Path, Path]
) -> None:
    module, calls = logins
    stores = two_tokens(softhsm, module, softhsm.pin_file, tmp_path)
    uris = [stores.generate(StoreName.PKCS11, "in-each", KeyAlgorithm.P_256, token) for token in ("", "direct")]
    keys = [stores.load(uri) for uri in uris]

    assert [TokenUri.parse(uri).token for uri in uris] == ["spare", "direct"]
    assert keys[0].public_key() != keys[1].public_key()
    assert all(sign(key) for key in keys * 3)
    assert set(uris) <= set(stores.list())
    for uri in uris:
        stores.destroy(uri)
    assert set(uris).isdisjoint(stores.list())
    stores.close()

    assert calls.read_text().count("C_Login") == 2


def test_a_token_that_is_configured_twice_is_listed_once(softhsm: SoftHsm, tmp_path: Path) -> None:
    tokens = {"spare": TokenSettings(softhsm.pin_file)}
    settings = Pkcs11StoreSettings(softhsm.copy("twice"), "spare", softhsm.pin_file, tokens=tokens)
    stores = KeyStores(KeyStoreSettings(pkcs11=settings), tmp_path, StateFiles())
    uri = stores.generate(StoreName.PKCS11, "listed-once", KeyAlgorithm.P_256)

    assert stores.list().count(uri) == 1
    stores.destroy(uri)
    stores.close()


def test_a_wrong_pin_of_one_token_does_not_disturb_the_other(
    softhsm: SoftHsm, tmp_path: Path, logins: tuple[Path, Path]
) -> None:
    module, calls = logins
    stores = two_tokens(softhsm, module, secret_file(tmp_path / "wrong", WRONG_SECRET), tmp_path)
    key = stores.load(uri := stores.generate(StoreName.PKCS11, "undisturbed", KeyAlgorithm.P_256))

    for _ in range(5):
        with pytest.raises(PinRefused, match="direct"):
            stores.check(StoreName.PKCS11, "direct")
        assert sign(key)
    stores.destroy(uri)
    stores.close()

    assert calls.read_text().count("C_Login") == 2


def test_a_pin_file_that_is_not_set_is_named_with_its_token(softhsm: SoftHsm, tmp_path: Path) -> None:
    tokens = {"direct": TokenSettings()}
    settings = Pkcs11StoreSettings(softhsm.proxy, "spare", softhsm.pin_file, tokens=tokens)
    stores = KeyStores(KeyStoreSettings(pkcs11=settings), tmp_path, StateFiles())

    with pytest.raises(KeyStoreUnavailable, match="direct is not set"):
        stores.check(StoreName.PKCS11, "direct")


def test_bytes_that_are_no_text_are_not_sent(softhsm: SoftHsm, tmp_path: Path, logins: tuple[Path, Path]) -> None:
    module, calls = logins
    pin_file = secret_file(tmp_path / "pin", "")
    pin_file.write_bytes(b"\xff\xfe")

    with pytest.raises(PinRefused, match="UTF-8"):
        softhsm.store(module, "spare", pin_file).list()

    assert not calls.exists()
