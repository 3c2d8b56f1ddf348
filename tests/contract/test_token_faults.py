"""What happens when a token is lost, replaced, locked or full (`enroll.keystore.pkcs11`).

The documented error within a second, never another key, and signing goes on by itself within five seconds after the
token is back.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from enroll.algorithms import HmacAlgorithm, KeyAlgorithm
from enroll.errors import KeyMismatch, KeyStoreError, KeyStoreUnavailable, PinRefused
from enroll.keystore.base import KeyStore, PrivateKey
from enroll.keystore.tokenuri import TokenUri
from tests.support.key_stores import WRONG_SECRET, secret_file
from tests.support.reliability.measured import measured
from tests.support.softhsm import SoftHsm, new_softhsm
from tests.support.swtpm import SwTpm, running_swtpm
from tests.support.tpm2_pkcs11 import TokenInTpm, token_in_tpm

pkcs11 = pytest.importorskip("pkcs11", reason="python-pkcs11 is missing: pip install '.[pkcs11]'")
from enroll.keystore.pkcs11 import objects  # noqa: E402 - needs it

ROOT = Path(__file__).parents[2]
ERROR_WITHIN, BACK_WITHIN = 1.0, 5.0  # seconds
LABEL = "lost"
MESSAGE = b"message"


def sign(key: PrivateKey) -> None:
    """Sign, and check the signature."""
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(MESSAGE, padding.PKCS1v15(), hashes.SHA256())
        key.public_key().verify(signature, MESSAGE, padding.PKCS1v15(), hashes.SHA256())
    else:
        key.public_key().verify(key.sign(MESSAGE, ec.ECDSA(hashes.SHA256())), MESSAGE, ec.ECDSA(hashes.SHA256()))


def fails(act: Callable[[], object], error: type[KeyStoreError] = KeyStoreUnavailable) -> KeyStoreError:
    """The error of an act that has to fail in time."""
    begun = time.monotonic()
    with pytest.raises(error) as caught:
        act()
    assert time.monotonic() - begun < ERROR_WITHIN
    assert caught.value.remedy
    return caught.value


def works_again(act: Callable[[], object]) -> None:
    """Repeat what the daemon would repeat, until it works or the time is over."""
    begun = time.monotonic()
    while True:
        try:
            act()
        except KeyStoreError:
            assert time.monotonic() - begun < BACK_WITHIN
            time.sleep(0.02)
        else:
            return


def until(end: float) -> Iterator[int]:
    """As many numbers as there is time for."""
    return itertools.takewhile(lambda _: time.monotonic() < end, itertools.count())


def run(program: list[str], hsm: SoftHsm) -> str:
    """What a program says that reaches these tokens."""
    environment = {**os.environ, **hsm.environment}
    done = subprocess.run(program, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def softhsm_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    """A token that may be moved and replaced."""
    hsm = new_softhsm(tmp_path / "hsm", [LABEL])
    for name, value in hsm.environment.items():
        monkeypatch.setenv(name, value)
    return hsm


class TestRemoved:
    @pytest.mark.parametrize("through_proxy", [True, False], ids=["proxy", "direct"])
    def test_while_two_threads_sign(self, tmp_path: Path, *, through_proxy: bool) -> None:
        hsm = new_softhsm(tmp_path / "hsm", [LABEL])
        module = hsm.proxy if through_proxy else hsm.library
        program = [sys.executable, "-c", MAKE_KEYS, str(module), LABEL, str(hsm.pin_file), str(tmp_path)]
        uris = run(program, hsm).split()

        program = [sys.executable, "-m", "tests.support.sign_while_the_token_goes"]
        report = json.loads(run([*program, str(module), LABEL, str(hsm.pin_file), str(hsm.tokens), *uris], hsm))

        assert report["wrong"] == 0
        assert set(report["codes"]) <= {"key-store-unavailable", "key-not-found"}
        assert report["first_error"] < ERROR_WITHIN
        assert report["longest_call"] < ERROR_WITHIN
        assert report["signed_again"] < BACK_WITHIN
        measured(
            "R7",
            f"token taken out while two threads sign, {'through p11-kit' if through_proxy else 'directly'}",
            seconds_to_the_error=report["first_error"],
            longest_call_seconds=report["longest_call"],
            seconds_to_the_next_signature=report["signed_again"],
            wrong_signatures=report["wrong"],
        )

    def test_it_is_named_and_not_asked_for_again_at_once(self, softhsm_of_its_own: SoftHsm) -> None:
        hsm = softhsm_of_its_own
        store = hsm.store(hsm.copy("own"), LABEL)
        key = store.load(store.generate("k", KeyAlgorithm.P_256))
        hsm.tokens.rename(hsm.directory / "elsewhere")
        hsm.tokens.mkdir()

        fails(lambda: sign(key))
        errors = {str(fails(lambda: sign(key))) for _ in range(200)}

        assert len(errors) == 1
        assert f"0 tokens with the label {LABEL}" in errors.pop()
        hsm.tokens.rmdir()
        (hsm.directory / "elsewhere").rename(hsm.tokens)
        works_again(lambda: sign(key))
        store.close()

    def test_the_neighbour_in_the_same_library_goes_on(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The library is started anew in search of the lost token, which ends the sessions of all tokens."""
        hsm = new_softhsm(tmp_path / "hsm", [LABEL, "neighbour"])
        for name, value in hsm.environment.items():
            monkeypatch.setenv(name, value)
        module = hsm.copy("own")
        lost, neighbour = hsm.store(module, LABEL), hsm.store(module, "neighbour")
        its_key = lost.load(lost.generate("k", KeyAlgorithm.P_256))
        key = neighbour.load(neighbour.generate("k", KeyAlgorithm.P_256))
        place = next(path for path in hsm.tokens.iterdir() if LABEL.encode() in (path / "token.object").read_bytes())

        place.rename(hsm.directory / "elsewhere")
        end = time.monotonic() + 4

        def go_on() -> None:
            for _ in until(end):
                sign(key)

        with ThreadPoolExecutor(4) as threads:
            searching = threads.submit(lambda: [fails(lambda: sign(its_key)) for _ in until(end)])
            signing = [threads.submit(go_on) for _ in range(3)]
        assert len(searching.result()) > 1
        for one in signing:
            one.result()

        (hsm.directory / "elsewhere").rename(place)
        works_again(lambda: sign(its_key))
        sign(key)
        lost.close()
        sign(key)
        neighbour.close()


class TestReplaced:
    """Another token with the same label, and in it another key with the same label and the same id."""

    @pytest.mark.parametrize("algorithm", [KeyAlgorithm.RSA_2048, KeyAlgorithm.P_256])
    def test_another_key_never_signs(self, softhsm_of_its_own: SoftHsm, algorithm: KeyAlgorithm) -> None:
        hsm = softhsm_of_its_own
        module = hsm.copy("own")
        store = hsm.store(module, LABEL)
        uri = store.generate("k", algorithm)
        secret_uri = store.generate_secret("s", HmacAlgorithm.SHA256)
        key, secret = store.load(uri), store.load_secret(secret_uri)
        code = secret.sign(MESSAGE)
        self.swap(hsm)
        impostor = hsm.store(module, LABEL)
        works_again(impostor.check)
        with impostor._token() as connection, connection.writing() as session:  # type: ignore[attr-defined]
            objects.generate(session, TokenUri.parse(uri), algorithm)
            objects.generate_secret(session, TokenUri.parse(secret_uri), HmacAlgorithm.SHA256)

        works_again(lambda: fails(lambda: sign(key), KeyMismatch))
        fails(lambda: secret.sign(MESSAGE), KeyMismatch)

        impostor.close()
        self.swap(hsm)
        works_again(lambda: sign(key))
        assert secret.sign(MESSAGE) == code
        store.close()

    def test_a_pin_that_another_token_refused_is_sent_to_the_right_one(self, softhsm_of_its_own: SoftHsm) -> None:
        hsm = softhsm_of_its_own
        store = hsm.store(hsm.copy("own"), LABEL)
        key = store.load(store.generate("k", KeyAlgorithm.P_256))
        self.swap(hsm)
        secret_file(hsm.pin_file, WRONG_SECRET)

        works_again(lambda: fails(lambda: sign(key), PinRefused))
        assert "was not sent again" in fails(lambda: sign(key), PinRefused).what

        secret_file(hsm.pin_file, "correct-horse-4711")
        self.swap(hsm)
        works_again(lambda: sign(key))
        store.close()

    def swap(self, hsm: SoftHsm) -> None:
        """Exchange the token for the other one, which is made at the first call."""
        other = hsm.directory / "other"
        if not other.exists():
            new_softhsm(other, [LABEL])
        between = hsm.directory / "between"
        hsm.tokens.rename(between)
        (other / "tokens").rename(hsm.tokens)
        between.rename(other / "tokens")


class TestTpm:
    """A TPM behind tpm2-pkcs11, which keeps its connection and its sessions with the TPM as long as it can."""

    def test_reset(self, tpm: SwTpm, key: PrivateKey) -> None:
        tpm.reset()

        fails(lambda: sign(key))
        works_again(lambda: sign(key))

    def test_switched_off(self, tpm: SwTpm, key: PrivateKey) -> None:
        tpm.stop()
        for _ in range(20):
            fails(lambda: sign(key))

        tpm.start()
        works_again(lambda: sign(key))

    def test_lockout(self, tpm: SwTpm, token: TokenInTpm, key: PrivateKey) -> None:
        """Many wrong authorizations anywhere in the TPM lock the PIN; nothing is wrong with the PIN itself."""
        token.disconnect()
        tpm.lock_out()
        tpm.run("tpm2_flushcontext", "--transient-object")

        fails(lambda: sign(key))  # which finds out that the connection was let go of
        locked = fails(lambda: sign(key))
        assert "locked" in locked.what
        assert "tpm2_dictionarylockout --clear-lockout" in locked.remedy

        token.disconnect()
        tpm.run("tpm2_dictionarylockout", "--clear-lockout")
        works_again(lambda: sign(key))

    def test_cleared(self, tpm: SwTpm, token: TokenInTpm, store: KeyStore, key: PrivateKey) -> None:
        token.disconnect()
        tpm.clear()

        fails(lambda: sign(key))
        for act in (lambda: sign(key), store.list, store.check):
            assert "cleared or replaced" in fails(act).remedy

    def test_no_room_for_another_object(self, tpm: SwTpm, token: TokenInTpm, key: PrivateKey) -> None:
        token.disconnect()
        tpm.run("tpm2_flushcontext", "--transient-object")
        for number in range(3):  # as many as a TPM must have room for
            tpm.run("tpm2_createprimary", "-c", str(tpm.directory / f"{number}.context"))

        fails(lambda: sign(key))
        fails(lambda: sign(key))

        token.disconnect()
        tpm.run("tpm2_flushcontext", "--transient-object")
        works_again(lambda: sign(key))

    @pytest.fixture
    def tpm(self, tmp_path: Path) -> Iterator[SwTpm]:
        with running_swtpm(tmp_path / "swtpm") as tpm:
            # Switching off is held to be a try to evade the lockout, and counts as a wrong authorization.
            tpm.run("tpm2_dictionarylockout", "--setup-parameters", "--max-tries=1000", "--recovery-time=1000")
            yield tpm

    @pytest.fixture
    def token(self, tpm: SwTpm, tmp_path: Path) -> Iterator[TokenInTpm]:
        with token_in_tpm(tmp_path / "token", tpm.tcti) as token:
            yield token

    @pytest.fixture
    def store(self, token: TokenInTpm) -> Iterator[KeyStore]:
        store = token.store()
        yield store
        store.close()

    @pytest.fixture
    def key(self, store: KeyStore) -> PrivateKey:
        key = store.load(store.generate("k", KeyAlgorithm.P_256))
        sign(key)
        return key


MAKE_KEYS = """
import sys
from pathlib import Path
from enroll.algorithms import KeyAlgorithm
from enroll.config import KeyStoreSettings, Pkcs11StoreSettings, StoreName
from enroll.keystore import KeyStores
from enroll.statefile import StateFiles
module, token, pin_file, directory = sys.argv[1:]
settings = KeyStoreSettings(pkcs11=Pkcs11StoreSettings(Path(module), token, Path(pin_file)))
stores = KeyStores(settings, Path(directory), StateFiles())
for name, algorithm in (("one", KeyAlgorithm.RSA_2048), ("two", KeyAlgorithm.P_256)):
    print(stores.generate(StoreName.PKCS11, name, algorithm))
stores.close()
"""
