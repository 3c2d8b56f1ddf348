"""What is true of keys in a TPM 2.0 alone, and of no other store (TPM 2.0 Library); on a simulated one."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from enroll.algorithms import HmacAlgorithm, KeyAlgorithm
from enroll.config import KeyStoreSettings, StoreName, TpmStoreSettings
from enroll.errors import (
    KeyDamaged,
    KeyMismatch,
    KeyNotFound,
    KeyStoreError,
    KeyStoreUnavailable,
    PinRefused,
    UnsupportedKey,
)
from enroll.keystore import open_store
from enroll.keystore.base import KeyStore, PrivateKey, Protection
from enroll.statefile import StateFiles
from tests.support.key_stores import WRONG_SECRET, secret_file
from tests.support.swtpm import SwTpm, resource_manager, running_swtpm

pytest.importorskip("tpm2_pytss", reason="tpm2-pytss is missing: pip install '.[tpm]'")

import tpm2_pytss

from enroll.keystore.tpm import TpmKeyStore, objects
from enroll.keystore.tpm import connection as connection_module
from enroll.keystore.tpm.connection import TpmModel
from enroll.keystore.tpm.objects import STORAGE_KEY, WrappedObject

ROOT = Path(__file__).parents[2]
AUTHORIZATION = "an authorization value that is longer than 32 bytes"
AT_ONCE = 1.0  # seconds until an error
SOON = 5.0  # seconds until signing resumes

BOTH_KINDS = pytest.mark.parametrize("algorithm", [KeyAlgorithm.RSA_2048, KeyAlgorithm.P_256])


class Place:
    """A TPM and a directory of wrapped keys."""

    def __init__(self, tpm: SwTpm, directory: Path) -> None:
        self.tpm = tpm
        self.keys = directory / "keys"
        self.authorization = secret_file(directory / "authorization", AUTHORIZATION)
        self.store = self.open()

    def open(self, tcti: str = "", authorization: Path | None = None) -> TpmKeyStore:
        settings = TpmStoreSettings(tcti or self.tpm.tcti, self.keys, authorization or self.authorization)
        store = open_store(StoreName.TPM, KeyStoreSettings(tpm=settings), self.keys.parent, StateFiles())
        assert isinstance(store, TpmKeyStore)
        return store

    def file(self, uri: str) -> Path:
        return self.keys / f"{uri.removeprefix('tpm:')}.pem"

    def wrapped(self, uri: str) -> WrappedObject:
        return WrappedObject.from_pem(self.file(uri).read_bytes())

    def keep_storage_key(self) -> None:
        """As the owner of the TPM does."""
        self.store.close()
        self.tpm.run("tpm2_createprimary", "-C", "o", "-G", "rsa2048", "-c", "storage.context")
        self.tpm.run("tpm2_evictcontrol", "-C", "o", "-c", "storage.context", hex(STORAGE_KEY))
        self.tpm.run("tpm2_flushcontext", "--transient-object")
        self.store = self.open()

    def loaded(self) -> set[str]:
        with self.store._connection.commands() as tpm:
            return set(tpm.loaded)


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[SwTpm]:
    with running_swtpm(tmp_path / "tpm") as tpm:
        yield tpm


@pytest.fixture
def place(tpm: SwTpm, tmp_path: Path) -> Iterator[Place]:
    place = Place(tpm, tmp_path)
    yield place
    place.store.close()


def sign(key: PrivateKey, message: bytes = b"message") -> bytes:
    """A signature that has been verified."""
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        key.public_key().verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
    else:
        signature = key.sign(message, ec.ECDSA(hashes.SHA256()))
        key.public_key().verify(signature, message, ec.ECDSA(hashes.SHA256()))
    return signature


def refused(kind: type[KeyStoreError], use: Callable[[], object]) -> KeyStoreError:
    """The error that comes at once."""
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        use()
    assert time.monotonic() - began < AT_ONCE
    assert caught.value.remedy
    return caught.value


class TestTheKeyStays:
    @BOTH_KINDS
    def test_no_other_tpm_can_load_it_and_it_does_nothing_but_sign(self, place: Place, algorithm: KeyAlgorithm) -> None:
        """Part 1, 27.2: the TPM checks these attributes whenever it loads the key."""
        uri = place.store.generate("key", algorithm)
        place.store.load(uri)

        with place.store._connection.commands() as tpm:
            public, *_ = tpm.esapi.read_public(tpm.loaded["key"].handle)

        expected = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign"
        assert public.publicArea.objectAttributes == tpm2_pytss.TPMA_OBJECT.parse(expected)

    @BOTH_KINDS
    def test_the_tpm_refuses_to_duplicate_it(self, place: Place, algorithm: KeyAlgorithm) -> None:
        """Part 3, 13.1: that takes a policy that allows it, and fixedParent clear; the key has neither."""
        place.store.load(place.store.generate("key", algorithm))

        with place.store._connection.commands() as tpm:
            esapi = tpm.esapi
            none = tpm2_pytss.TPMT_SYM_DEF_OBJECT(algorithm=tpm2_pytss.TPM2_ALG.NULL)
            policy = esapi.start_auth_session(
                tpm2_pytss.ESYS_TR.NONE,
                tpm2_pytss.ESYS_TR.NONE,
                tpm2_pytss.TPM2_SE.POLICY,
                tpm2_pytss.TPMT_SYM_DEF(algorithm=tpm2_pytss.TPM2_ALG.NULL),
                tpm2_pytss.TPM2_ALG.SHA256,
            )
            esapi.policy_command_code(policy, tpm2_pytss.TPM2_CC.Duplicate)
            with pytest.raises(tpm2_pytss.TSS2_Exception) as caught:
                esapi.duplicate(tpm.loaded["key"].handle, tpm2_pytss.ESYS_TR.NULL, b"", none, session1=policy)

        assert caught.value.error == tpm2_pytss.TPM2_RC.POLICY_FAIL

    def test_the_object_has_nothing_to_show(self, place: Place) -> None:
        key = place.store.load(place.store.generate("key", KeyAlgorithm.RSA_2048))

        for show in (
            lambda: key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            key.private_numbers,
            lambda: pickle.dumps(key),
            lambda: pickle.dumps(place.store.load_secret(place.store.generate_secret("s", HmacAlgorithm.SHA256))),
        ):
            refused(UnsupportedKey, show)
        assert copy.deepcopy(key) is key

    def test_files_are_for_their_owner_only(self, place: Place) -> None:
        uri = place.store.generate("key", KeyAlgorithm.P_256)

        assert place.file(uri).stat().st_mode & 0o777 == 0o600
        assert place.keys.stat().st_mode & 0o777 == 0o700

    def test_other_tools_can_use_the_file(self, place: Place) -> None:
        """Nobody is locked in: this is the format of tpm2-openssl, and its parent is the one that it makes."""
        key = place.store.load(place.store.generate("key", KeyAlgorithm.P_256))
        place.store.close()
        esapi = tpm2_pytss.ESAPI(place.tpm.tcti)
        theirs = tpm2_pytss.tsskey.TSSPrivKey.from_pem(place.file("tpm:key").read_bytes())

        handle = theirs.load(esapi, objects.authorization_value(AUTHORIZATION.encode()))
        scheme = tpm2_pytss.TPMT_SIG_SCHEME(scheme=tpm2_pytss.TPM2_ALG.ECDSA)
        scheme.details.any.hashAlg = tpm2_pytss.TPM2_ALG.SHA256
        digest = hashes.Hash(hashes.SHA256())
        signature = bytes(esapi.sign(handle, digest.finalize(), scheme))
        esapi.close()

        assert isinstance(key, ec.EllipticCurvePrivateKey)
        key.public_key().verify(signature, b"", ec.ECDSA(hashes.SHA256()))


class TestKinds:
    def test_what_the_tpm_cannot_make_is_refused_and_leaves_nothing(self, place: Place) -> None:
        refused(UnsupportedKey, lambda: place.store.generate("big", KeyAlgorithm.RSA_4096))

        assert place.store.list() == ()

    def test_pss_has_the_salt_of_a_tpm_or_none(self, place: Place) -> None:
        key = place.store.load(place.store.generate("key", KeyAlgorithm.RSA_2048))
        assert isinstance(key, rsa.RSAPrivateKey)
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)

        signature = key.sign(b"message", pss, hashes.SHA256())

        key.public_key().verify(signature, b"message", pss, hashes.SHA256())
        for salt in (0, 20, padding.PSS.MAX_LENGTH):
            other = padding.PSS(padding.MGF1(hashes.SHA256()), salt)
            refused(UnsupportedKey, lambda other=other: key.sign(b"message", other, hashes.SHA256()))  # type: ignore[misc]

    @pytest.mark.parametrize("algorithm", list(HmacAlgorithm))
    def test_a_secret_authenticates_messages_of_any_length(self, place: Place, algorithm: HmacAlgorithm) -> None:
        """Part 3, 17: what is longer than TPM_PT_INPUT_BUFFER goes as a sequence, of any lengths of its parts."""
        secret = place.store.load_secret(place.store.generate_secret("secret", algorithm))
        message = os.urandom(3000)
        whole = {length: secret.sign(message[:length]) for length in (0, 1, 999, 1000, 1001, 2000, 2001, 3000)}

        place.store._connection.drop()
        with place.store._connection.commands() as tpm:
            place.store._connection._tpm = connection_module.OpenTpm(tpm.esapi, tpm.model, 1000)

        assert {length: secret.sign(message[:length]) for length in whole} == whole
        assert {len(code) for code in whole.values()} == {32 if algorithm is HmacAlgorithm.SHA256 else 48}
        assert len(set(whole.values())) == len(whole)

    def test_a_secret_is_no_key_and_a_key_no_secret(self, place: Place) -> None:
        key = place.store.generate("key", KeyAlgorithm.P_256)
        secret = place.store.generate_secret("secret", HmacAlgorithm.SHA256)

        refused(KeyNotFound, lambda: place.store.load(secret))
        refused(KeyNotFound, lambda: place.store.load_secret(key))
        assert place.store.list() == (key, secret)


class TestProtection:
    """Never better than what the TPM shows."""

    def test_a_simulator_makes_no_hardware_key(self, place: Place) -> None:
        assert place.store.protection(place.store.generate("key", KeyAlgorithm.P_256)) is Protection.SOFTWARE

    def test_a_chip_does_where_it_made_the_key(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        made_here = place.store.generate("made-here", KeyAlgorithm.P_256)
        monkeypatch.setattr(objects, "_SIGNS", objects._SIGNS & ~tpm2_pytss.TPMA_OBJECT.FIXEDPARENT)
        monkeypatch.setattr(objects, "_SIGNS", objects._SIGNS & ~tpm2_pytss.TPMA_OBJECT.FIXEDTPM)
        may_leave = place.store.generate("may-leave", KeyAlgorithm.P_256)

        monkeypatch.setattr(TpmModel, "is_hardware", True)

        assert place.store.protection(made_here) is Protection.HARDWARE
        assert place.store.protection(may_leave) is Protection.SOFTWARE

    def test_a_changed_file_does_not_make_it_better(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """Part 1, 27.2: the attributes are part of the name, which the encrypted half is bound to."""
        uri = place.store.generate("key", KeyAlgorithm.P_256)
        wrapped = place.wrapped(uri)
        wrapped.public.publicArea.objectAttributes ^= tpm2_pytss.TPMA_OBJECT.NODA
        place.file(uri).write_bytes(wrapped.to_pem())

        refused(KeyDamaged, lambda: place.store.protection(uri))


class TestTheStorageKey:
    def test_the_one_that_the_owner_keeps_is_used(self, place: Place) -> None:
        """TCG TPM v2.0 Provisioning Guidance, 7.5.1: it is at 0x81000001."""
        before = place.store.generate("before", KeyAlgorithm.P_256)
        place.keep_storage_key()

        after = place.store.generate("after", KeyAlgorithm.P_256)

        assert place.wrapped(before).parent == tpm2_pytss.TPM2_RH.OWNER
        assert place.wrapped(after).parent == STORAGE_KEY
        assert sign(place.store.load(before))
        assert sign(place.store.load(after))

    def test_a_hierarchy_with_an_authorization_value_needs_one(self, place: Place) -> None:
        place.store.close()
        place.tpm.run("tpm2_changeauth", "-c", "owner", "the-owner")
        place.store = place.open()

        error = refused(KeyStoreUnavailable, place.store.check)
        refused(KeyStoreUnavailable, lambda: place.store.generate("key", KeyAlgorithm.P_256))

        assert "tpm2_evictcontrol" in error.remedy
        assert place.store.list() == ()

    def test_a_key_below_one_that_is_gone_is_lost(self, place: Place) -> None:
        place.keep_storage_key()
        key = place.store.load(place.store.generate("key", KeyAlgorithm.P_256))
        place.tpm.reset()
        place.tpm.run("tpm2_evictcontrol", "-C", "o", "-c", hex(STORAGE_KEY))

        error = refused(KeyDamaged, lambda: sign(key))

        assert hex(STORAGE_KEY) in error.what


class TestTheAuthorizationValue:
    def test_a_wrong_one_never_locks_and_a_corrected_one_works(self, place: Place) -> None:
        uri = place.store.generate("key", KeyAlgorithm.RSA_2048)
        secret = place.store.generate_secret("secret", HmacAlgorithm.SHA256)
        wrong = place.open(authorization=secret_file(place.keys.parent / "wrong", WRONG_SECRET))

        for _ in range(20):
            refused(PinRefused, lambda: wrong.load(uri))
        error = refused(PinRefused, lambda: wrong.load_secret(secret))
        refused(PinRefused, lambda: wrong.protection(uri))

        assert WRONG_SECRET not in f"{error} {error!r} {error.__cause__!r}"
        assert "authorization_file" in error.remedy
        assert place.loaded() <= {"key", "secret"}
        assert sign(place.store.load(uri))
        secret_file(place.keys.parent / "wrong", AUTHORIZATION)
        assert sign(wrong.load(uri))
        wrong.close()

    @pytest.mark.parametrize("length", [1, 31, 32, 33, 1000])
    def test_may_have_any_length(self, place: Place, length: int) -> None:
        secret_file(place.authorization, "x" * length)

        key = place.store.load(place.store.generate("key", KeyAlgorithm.P_256))

        assert sign(key)
        secret_file(place.authorization, "x" * (length - 1) + "y")
        place.store._connection.drop()
        refused(PinRefused, lambda: sign(key))

    def test_is_needed_for_every_key(self, place: Place) -> None:
        store = place.open(authorization=place.keys.parent / "missing")

        refused(KeyStoreUnavailable, store.check)
        refused(KeyStoreUnavailable, lambda: store.generate("key", KeyAlgorithm.P_256))


class TestTheTpm:
    """Every fault is named within a second, no other key signs, and signing resumes by itself."""

    @pytest.fixture(params=[KeyAlgorithm.RSA_2048, KeyAlgorithm.P_256])
    def key(self, place: Place, request: pytest.FixtureRequest) -> PrivateKey:
        """A key that is loaded in the TPM."""
        key = place.store.load(place.store.generate("key", request.param))
        sign(key)
        return key

    def test_after_a_reset_the_key_is_loaded_again(self, place: Place, key: PrivateKey) -> None:
        secret = place.store.load_secret(place.store.generate_secret("secret", HmacAlgorithm.SHA256))
        code = secret.sign(b"message")

        place.tpm.reset()
        began = time.monotonic()
        assert sign(key)
        place.tpm.reset()
        assert secret.sign(b"message") == code

        assert time.monotonic() - began < SOON

    def test_another_key_that_has_the_handle_after_a_reset_does_not_sign_for_it(
        self, place: Place, key: PrivateKey
    ) -> None:
        """Handles begin at the same number again, and without a resource manager all processes share them."""
        other = place.store.generate("other", KeyAlgorithm.P_256)
        place.tpm.reset()
        other_process = place.open()
        others = other_process.load(other)

        assert sign(key)

        assert sign(others)
        other_process.close()

    def test_another_secret_that_has_the_handle_after_a_reset_does_not_authenticate_for_it(self, place: Place) -> None:
        first, second = (place.store.generate_secret(name, HmacAlgorithm.SHA256) for name in ("first", "second"))
        secret = place.store.load_secret(first)
        code = secret.sign(b"message")
        place.tpm.reset()
        other_process = place.open()
        others = other_process.load_secret(second)

        assert secret.sign(b"message") == code != others.sign(b"message")
        other_process.close()

    def test_another_object_that_was_loaded_meanwhile_does_not_stop_us(self, place: Place, key: PrivateKey) -> None:
        place.tpm.reset()
        place.tpm.run("tpm2_createprimary", "-C", "o", "-G", "ecc", "-c", "theirs.context")

        assert sign(key)

    def test_a_tpm_that_is_away_is_named_and_found_again(self, place: Place, key: PrivateKey) -> None:
        place.tpm.stop()
        for use in (lambda: sign(key), place.store.check, lambda: place.store.protection("tpm:key")):
            error = refused(KeyStoreUnavailable, use)
            assert place.tpm.tcti in error.what
        assert place.store.list() == ("tpm:key",)

        place.tpm.start()
        began = time.monotonic()
        assert sign(key)
        assert time.monotonic() - began < SOON

    def test_while_signing_it_goes_and_comes_back(self, place: Place, key: PrivateKey) -> None:
        """Whatever the moment: a right signature or the documented error."""
        outcomes: list[str] = []
        over = threading.Event()

        def signing() -> None:
            while not over.is_set():
                try:
                    sign(key)
                    outcomes.append("signed")
                except KeyStoreUnavailable:
                    outcomes.append("unavailable")
                    time.sleep(0.005)

        with ThreadPoolExecutor(2) as pool:
            threads = [pool.submit(signing) for _ in range(2)]
            for _ in range(3):
                time.sleep(0.1)
                place.tpm.stop()
                time.sleep(0.1)
                place.tpm.start()
            over.set()
            for thread in threads:
                thread.result(SOON)

        assert {"signed", "unavailable"} <= set(outcomes)
        assert sign(key)

    def test_a_cleared_one_has_lost_its_keys_for_good(self, place: Place, key: PrivateKey) -> None:
        place.tpm.clear()

        for use in (lambda: sign(key), lambda: place.store.load("tpm:key")):
            error = refused(KeyDamaged, use)
            assert "cleared" in error.what
            assert "enroll again" in error.remedy.lower()
        assert sign(place.store.load(place.store.generate("new", KeyAlgorithm.P_256)))

    def test_a_lockout_does_not_stop_us(self, place: Place, key: PrivateKey) -> None:
        """Part 1, 19.8: objects with noDA are not subject to it."""
        place.tpm.lock_out()

        assert sign(key)
        assert sign(place.store.load("tpm:key"))
        assert sign(place.store.load(place.store.generate("new", KeyAlgorithm.P_256)))

    def test_a_full_one_is_named_and_used_again_when_there_is_room(self, place: Place, key: PrivateKey) -> None:
        place.tpm.reset()
        for number in range(3):
            place.tpm.run("tpm2_createprimary", "-C", "o", "-G", "ecc", "-c", f"theirs.{number}")

        for use in (lambda: sign(key), lambda: place.store.generate("new", KeyAlgorithm.P_256)):
            error = refused(KeyStoreUnavailable, use)
            assert "0x902" in error.what
            assert "a simulator has room for one program" in error.remedy

        place.tpm.run("tpm2_flushcontext", "--transient-object")
        assert sign(key)

    def test_more_keys_than_it_has_room_for_take_turns(self, place: Place) -> None:
        keys = [place.store.load(place.store.generate(f"key-{number}", KeyAlgorithm.P_256)) for number in range(5)]

        assert all(sign(key) for _ in range(2) for key in keys)
        assert len(place.loaded()) <= 3

    def test_nothing_stays_loaded_after_close(self, place: Place, key: PrivateKey) -> None:
        place.store.generate_secret("secret", HmacAlgorithm.SHA256)
        place.store.close()

        assert place.tpm.run("tpm2_getcap", "handles-transient") == b""
        refused(KeyStoreUnavailable, lambda: sign(key))
        refused(KeyStoreUnavailable, lambda: place.store.load("tpm:key"))

    def test_a_paused_one_is_free_for_others_and_its_keys_go_on(self, place: Place, key: PrivateKey) -> None:
        """A simulator serves one connection, and the proof of where a key is needs one of its own."""
        place.store.pause()

        assert place.tpm.run("tpm2_getcap", "handles-transient") == b""
        assert sign(key)
        assert place.store.list() == ("tpm:key",)

    def test_a_busy_one_is_not_waited_for_without_end(
        self, place: Place, key: PrivateKey, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connection_module, "BUSY_SECONDS", 0.05)

        with place.store._connection.commands():
            refused(KeyStoreUnavailable, lambda: sign(key))

        assert sign(key)

    def test_it_says_nothing_on_standard_error(self, place: Place, capfd: pytest.CaptureFixture[str]) -> None:
        store = place.open(tcti="swtpm:host=127.0.0.1,port=1")
        refused(KeyStoreUnavailable, store.check)
        refused(KeyStoreUnavailable, place.open(tcti="nonsense:x").check)
        refused(UnsupportedKey, lambda: place.store.generate("big", KeyAlgorithm.RSA_4096))

        assert capfd.readouterr().err == ""


class TestFiles:
    @pytest.fixture
    def uri(self, place: Place) -> str:
        return place.store.generate("key", KeyAlgorithm.P_256)

    def test_every_damage_is_named(self, place: Place, uri: str) -> None:
        pem = place.file(uri).read_bytes()
        body = pem.splitlines(keepends=True)

        for damaged in (
            b"",
            b"\0" * 500,
            pem[:-1],
            pem[: len(pem) // 2],
            pem + b"x",
            b"x" + pem,
            pem.replace(b"TSS2 PRIVATE KEY", b"PRIVATE KEY"),
            b"".join([body[0], *body[2:]]),
            b"".join([*body[:2], body[1], *body[2:]]),
            pem * 100,
        ):
            place.file(uri).write_bytes(damaged)
            refused(KeyDamaged, lambda: place.store.load(uri))

    def test_every_changed_character_is_noticed(self, place: Place, uri: str) -> None:
        pem = place.file(uri).read_bytes()

        for position in range(0, len(pem), 3):
            changed = bytearray(pem)
            changed[position] = ord("A") if pem[position] != ord("A") else ord("B")
            place.file(uri).write_bytes(changed)
            with pytest.raises((KeyDamaged, KeyStoreUnavailable, UnsupportedKey)):
                place.store.load(uri)

    def test_a_key_of_another_tpm_is_refused(self, place: Place, uri: str, tmp_path: Path) -> None:
        with running_swtpm(tmp_path / "other-tpm") as other:
            store = place.open(tcti=other.tcti)
            refused(KeyDamaged, lambda: store.load(uri))
            store.close()

    def test_a_key_that_was_exchanged_does_not_sign(self, place: Place, uri: str) -> None:
        key = place.store.load(uri)
        other = place.open()
        other.destroy(uri)
        other.generate("key", KeyAlgorithm.P_256)
        place.store._connection.drop()

        refused(KeyMismatch, lambda: sign(key))

        assert sign(place.store.load(uri))
        other.close()

    def test_a_name_that_was_given_again_means_the_new_key(self, place: Place, uri: str) -> None:
        place.store.load(uri)
        other = place.open()
        other.destroy(uri)
        other.generate("key", KeyAlgorithm.P_256)

        assert sign(place.store.load(uri))  # though the old one is still loaded
        other.close()

    def test_a_destroyed_key_stops_signing_and_the_tpm_is_not_needed_for_that(self, place: Place, uri: str) -> None:
        key = place.store.load(uri)
        place.tpm.stop()

        place.store.destroy(uri)

        place.tpm.start()
        refused(KeyNotFound, lambda: sign(key))


class TestProcessesAndThreads:
    def test_threads_share_one_connection(self, place: Place) -> None:
        keys = [
            place.store.load(place.store.generate(algorithm, algorithm))
            for algorithm in (KeyAlgorithm.RSA_2048, KeyAlgorithm.P_256, KeyAlgorithm.P_384)
        ]

        with ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(sign, keys[number % 3], str(number).encode()) for number in range(150)]

        assert all(job.result() for job in jobs)

    def test_a_forked_process_cannot_use_it(self, place: Place) -> None:
        uri = place.store.generate("key", KeyAlgorithm.P_256)
        program = [sys.executable, "-m", "tests.support.sign_in_tpm_after_fork", place.tpm.tcti, str(place.keys)]

        subprocess.run([*program, str(place.authorization), uri], cwd=ROOT, check=True, timeout=60)

    def test_processes_share_a_tpm_through_a_resource_manager(
        self, tpm: SwTpm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with resource_manager(tpm, tmp_path) as manager:
            for name, value in manager.environment.items():
                monkeypatch.setenv(name, value)
            place = Place(tpm, tmp_path)
            stores: list[KeyStore] = [place.open(manager.tcti) for _ in range(3)]
            keys = []
            for number, store in enumerate(stores):
                names = [f"key-{number}-{each}" for each in range(3)]
                keys += [store.load(store.generate(name, KeyAlgorithm.P_256)) for name in names]

            with ThreadPoolExecutor(3) as pool:
                assert all(pool.map(sign, keys * 3))
            for store in stores:
                store.close()

    def test_a_resource_manager_that_was_restarted_is_found_again(
        self, tpm: SwTpm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever is asked of it first: nobody should have to ask twice."""
        with resource_manager(tpm, tmp_path) as manager:
            for name, value in manager.environment.items():
                monkeypatch.setenv(name, value)
            store = Place(tpm, tmp_path).open(manager.tcti)
            key = store.load(store.generate("key", KeyAlgorithm.P_256))
            for use in (
                lambda: sign(key),
                lambda: store.protection("tpm:key"),
                store.check,
                lambda: store.generate("new", KeyAlgorithm.P_256),
                lambda: store.generate_secret("secret", HmacAlgorithm.SHA256),
            ):
                sign(key)
                manager.stop()
                manager.start()
                use()
            store.close()
