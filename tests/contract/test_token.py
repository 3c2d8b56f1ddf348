"""What is true of keys in a token beyond the contract of all stores (`enroll.keystore.pkcs11`)."""

from __future__ import annotations

import copy
import gc
import itertools
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from enroll.algorithms import HmacAlgorithm, KeyAlgorithm
from enroll.errors import KeyNotFound, KeyStoreError, KeyStoreUnavailable, UnsupportedKey
from enroll.keystore.base import KeyStore, PrivateKey, Protection
from enroll.keystore.tokenuri import TokenUri
from tests.support.key_stores import Backend
from tests.support.softhsm import SoftHsm

pkcs11 = pytest.importorskip("pkcs11", reason="python-pkcs11 is missing: pip install '.[pkcs11]'")
from pkcs11.util.rsa import decode_rsa_private_key  # noqa: E402 - an optional extra

from enroll.keystore.pkcs11 import connection as connection_module  # noqa: E402 - needs it
from enroll.keystore.pkcs11 import library, objects  # noqa: E402 - needs it
from enroll.keystore.pkcs11.known import KnownKey  # noqa: E402 - needs it

ROOT = Path(__file__).parents[2]
ECDSA = ec.ECDSA(hashes.SHA256())
EITHER_KIND = pytest.mark.parametrize("algorithm", [KeyAlgorithm.RSA_2048, KeyAlgorithm.P_256])


def sign(key: PrivateKey) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(b"message", padding.PKCS1v15(), hashes.SHA256())
    return key.sign(b"message", ECDSA)


@pytest.fixture
def spare(softhsm: SoftHsm, request: pytest.FixtureRequest) -> Iterator[tuple[KeyStore, Path]]:
    """A store and its library, which nothing else in this process uses: it may be broken."""
    module = softhsm.copy(request.node.name)
    store = softhsm.store(module, "spare")
    yield store, module
    store.close()


class TestTheKeyStays:
    @EITHER_KIND
    def test_the_token_refuses_to_show_it(self, in_token: Backend, algorithm: KeyAlgorithm) -> None:
        uri = TokenUri.parse(in_token.uri(algorithm))
        with in_token.store._token() as connection, connection.signing() as session:  # type: ignore[attr-defined]
            key = objects.find(session.handle, uri)
            secret = pkcs11.Attribute.VALUE if algorithm is KeyAlgorithm.P_256 else pkcs11.Attribute.PRIVATE_EXPONENT

            assert key[pkcs11.Attribute.SENSITIVE]
            assert key[pkcs11.Attribute.PRIVATE]
            assert not key[pkcs11.Attribute.EXTRACTABLE]
            assert not any(key[use] for use in (pkcs11.Attribute.DECRYPT, pkcs11.Attribute.UNWRAP))
            with pytest.raises(pkcs11.PKCS11Error):
                key[secret]

    @EITHER_KIND
    def test_the_key_object_has_nothing_to_show(self, in_token: Backend, algorithm: KeyAlgorithm) -> None:
        key = in_token.key(algorithm)

        with pytest.raises(UnsupportedKey, match="does not leave"):
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        with pytest.raises(UnsupportedKey, match="does not leave"):
            key.private_numbers()
        with pytest.raises(UnsupportedKey, match="does not leave"):
            pickle.dumps(key)

    @EITHER_KIND
    def test_a_copy_is_the_key_itself(self, in_token: Backend, algorithm: KeyAlgorithm) -> None:
        key = in_token.key(algorithm)

        assert copy.copy(key) is key
        assert copy.deepcopy({"key": key})["key"] is key

    def test_old_hashes_are_refused(self, in_token: Backend) -> None:
        key = in_token.key(KeyAlgorithm.RSA_2048)
        assert isinstance(key, rsa.RSAPrivateKey)

        for old in (hashes.SHA1(), hashes.MD5()):  # noqa: S303 - must be refused
            with pytest.raises(UnsupportedKey, match="hash"):
                key.sign(b"message", padding.PKCS1v15(), old)


@EITHER_KIND
def test_of_a_key_that_nobody_holds_any_more_nothing_is_kept(in_token: Backend, algorithm: KeyAlgorithm) -> None:
    """A keyholder takes up generation after generation, for fifteen years."""
    uri = TokenUri.parse(in_token.uri(algorithm))

    def known() -> int:
        gc.collect()
        return sum(isinstance(each, KnownKey) and each.uri == uri for each in gc.get_objects())

    before = known()
    held = in_token.store.load(str(uri))
    sign(held)
    assert known() > before

    del held

    assert known() == before


class TestProtection:
    """Never better than what the token can show."""

    def test_a_slot_that_is_not_hardware_makes_no_hardware_key(self, in_token: Backend) -> None:
        assert in_token.store.protection(in_token.uri(KeyAlgorithm.P_256)) is Protection.SOFTWARE

    def test_a_simulated_tpm_calls_its_slot_hardware_and_is_not_believed(
        self, tpm2_pkcs11: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uri = tpm2_pkcs11.uri(KeyAlgorithm.RSA_2048)
        assert tpm2_pkcs11.store.protection(uri) is Protection.SOFTWARE

        monkeypatch.setattr(connection_module, "is_simulated", lambda _: False)
        believing = tpm2_pkcs11.make(tpm2_pkcs11.right)

        assert believing.protection(uri) is Protection.HARDWARE
        believing.close()

    def test_in_a_hardware_slot_it_counts_where_the_key_was_made(self, spare: tuple[KeyStore, Path]) -> None:
        store, _ = spare
        made_here = store.generate("made-here", KeyAlgorithm.RSA_2048)
        made_here_as_well = store.generate_secret("made-here-as-well", HmacAlgorithm.SHA256)
        imported = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        with store._token() as connection, connection.writing() as session:  # type: ignore[attr-defined]
            template = decode_rsa_private_key(imported)
            template |= {pkcs11.Attribute.TOKEN: True, pkcs11.Attribute.LABEL: "scanseal-imported"}
            session.create_object(template)
            connection.is_hardware = True

        assert store.protection(made_here) is Protection.HARDWARE
        assert store.protection(made_here_as_well) is Protection.HARDWARE
        assert store.protection("pkcs11:token=spare;object=scanseal-imported") is Protection.SOFTWARE
        for uri in store.list():
            store.destroy(uri)


class TestKeysOfOthers:
    def test_are_loaded_but_neither_listed_nor_destroyed(self, in_token: Backend) -> None:
        uri = TokenUri.parse(in_token.store.generate(in_token.new_name(), KeyAlgorithm.P_256))
        with in_token.store._token() as connection, connection.writing() as session:  # type: ignore[attr-defined]
            for kind in (pkcs11.ObjectClass.PRIVATE_KEY, pkcs11.ObjectClass.PUBLIC_KEY):
                template = {pkcs11.Attribute.CLASS: kind, pkcs11.Attribute.ID: uri.identifier}
                for found in list(session.get_objects(template)):
                    found[pkcs11.Attribute.LABEL] = "somebody else's"
        theirs = str(TokenUri(uri.token, "somebody else's", None))

        assert sign(in_token.store.load(theirs))
        assert not [listed for listed in in_token.store.list() if "somebody" in listed]
        with pytest.raises(KeyStoreError, match="not made by scanseal"):
            in_token.store.destroy(theirs)
        assert sign(in_token.store.load(theirs))


class TestTheToken:
    def test_a_lost_session_fails_once(self, spare: tuple[KeyStore, Path]) -> None:
        store, module = spare
        uri = store.generate("lost-session", KeyAlgorithm.P_256)
        key = store.load(uri)

        pkcs11.lib(str(module)).reinitialize()  # closes all sessions

        with pytest.raises(KeyStoreUnavailable) as caught:
            sign(key)
        assert "SessionHandleInvalid" in caught.value.what
        assert "anew" in caught.value.remedy
        assert sign(key)
        store.destroy(uri)

    def test_a_destroyed_key_that_is_still_asked_for_disturbs_no_other(self, through_proxy: Backend) -> None:
        """It may be that the token was exchanged; so it is opened anew now and then, but not while others sign."""
        store, key = through_proxy.store, through_proxy.key(KeyAlgorithm.P_256)
        end = time.monotonic() + 3

        def go_on(_: int) -> int:
            return sum(
                1 for _ in itertools.takewhile(lambda _: sign(key) and time.monotonic() < end, itertools.count())
            )

        with ThreadPoolExecutor(6) as others:
            counts = others.map(go_on, range(6))
            while time.monotonic() < end:
                uri = store.generate(through_proxy.new_name(), KeyAlgorithm.P_256)
                destroyed = store.load(uri)
                store.destroy(uri)
                for _ in range(5):
                    with pytest.raises(KeyNotFound):
                        sign(destroyed)

        assert all(counts)

    def test_two_stores_of_a_process_share_the_login(self, spare: tuple[KeyStore, Path], softhsm: SoftHsm) -> None:
        first, module = spare
        uri = first.generate("shared-login", KeyAlgorithm.P_256)
        second = softhsm.store(module, "spare")
        key = second.load(uri)

        first.close()  # logs out for both

        with pytest.raises(KeyStoreUnavailable):
            sign(key)
        assert sign(key)
        second.destroy(uri)
        second.close()

    def test_a_busy_token_is_not_waited_for_without_end(
        self, through_proxy: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = through_proxy.key(KeyAlgorithm.P_256)
        monkeypatch.setattr(library, "PATIENCE", 0.05)

        with (
            through_proxy.store._token() as connection,  # type: ignore[attr-defined]
            connection.signing(),
            connection.signing(),
            pytest.raises(KeyStoreUnavailable, match="busy") as caught,
        ):
            sign(key)
        assert "sessions" in caught.value.remedy
        assert sign(key)

    def test_a_library_without_locks_is_not_waited_for_without_end(
        self, direct: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = direct.key(KeyAlgorithm.P_256)
        monkeypatch.setattr(library, "PATIENCE", 0.05)

        with ThreadPoolExecutor(1) as other, direct.store._token():  # type: ignore[attr-defined]
            error = other.submit(sign, key).exception(timeout=5)
        assert isinstance(error, KeyStoreUnavailable)
        assert "busy" in error.what
        assert sign(key)

    @pytest.mark.parametrize("algorithm", [KeyAlgorithm.RSA_2048, KeyAlgorithm.P_256])
    def test_whoever_waits_for_longest_signs_next(self, through_proxy: Backend, algorithm: KeyAlgorithm) -> None:
        """Otherwise two of eight threads sign all the time, and the others never."""
        key, end = through_proxy.key(algorithm), time.monotonic() + 1

        def count(_: int) -> int:
            return sum(
                1 for _ in itertools.takewhile(lambda _: time.monotonic() < end, map(sign, itertools.repeat(key)))
            )

        with ThreadPoolExecutor(8) as threads:
            counts = list(threads.map(count, range(8)))

        assert min(counts) > max(counts) / 4

    def test_those_who_wait_hear_of_the_loss_at_once(self, through_proxy: Backend) -> None:
        key = through_proxy.key(KeyAlgorithm.P_256)
        with ThreadPoolExecutor(6) as threads, through_proxy.store._token() as connection:  # type: ignore[attr-defined]
            with connection.signing(), connection.signing():
                waiting = [threads.submit(sign, key) for _ in range(6)]
                time.sleep(0.1)
                connection.give_up()
            errors = [one.exception(timeout=1) for one in waiting]

        assert {type(error) for error in errors} == {KeyStoreUnavailable}
        assert sign(key)

    def test_a_closed_store_stays_closed(self, softhsm: SoftHsm) -> None:
        store = softhsm.store(softhsm.copy("closed"), "spare")
        key = store.load(store.generate("closed", KeyAlgorithm.P_256))

        store.close()

        with pytest.raises(KeyStoreUnavailable, match="closed"):
            sign(key)
        with pytest.raises(KeyStoreUnavailable, match="closed"):
            store.list()

    def test_a_destroyed_key_stops_signing(self, in_token: Backend) -> None:
        uri = in_token.store.generate(in_token.new_name(), KeyAlgorithm.P_256)
        key = in_token.store.load(uri)
        sign(key)

        in_token.store.destroy(uri)

        with pytest.raises(KeyNotFound):
            sign(key)

    @pytest.mark.parametrize(
        ("token", "reason"), [("absent", "0 tokens"), ("twins", "2 tokens")], ids=["missing", "ambiguous"]
    )
    def test_there_must_be_exactly_one(self, softhsm: SoftHsm, token: str, reason: str) -> None:
        store = softhsm.store(softhsm.copy("which-token"), token)

        with pytest.raises(KeyStoreUnavailable, match=reason):
            store.list()

    @pytest.mark.parametrize("library", ["/nowhere/libpkcs11.so", "/etc/passwd", "/"])
    def test_what_is_no_library_is_named(self, softhsm: SoftHsm, library: str) -> None:
        store = softhsm.store(Path(library), "spare")

        with pytest.raises(KeyStoreUnavailable) as caught:
            store.list()
        assert library in caught.value.remedy

    def test_does_not_work_in_a_forked_process(self, in_token: Backend) -> None:
        program = [sys.executable, "-m", "tests.support.sign_after_fork", *in_token.arguments]

        subprocess.run([*program, in_token.uri(KeyAlgorithm.P_256)], cwd=ROOT, check=True, timeout=60)


class TestThreads:
    """python-pkcs11 crashes a process in which two threads are inside most libraries."""

    @pytest.mark.parametrize("attempt", range(5))
    def test_signing_through_the_proxy(self, through_proxy: Backend, attempt: int) -> None:
        self.sign(through_proxy)

    def test_signing_under_the_lock(self, direct: Backend) -> None:
        self.sign(direct)

    def sign(self, backend: Backend) -> None:
        uris = [backend.uri(algorithm) for algorithm in (KeyAlgorithm.RSA_2048, KeyAlgorithm.P_256)]
        program = [sys.executable, "-m", "tests.support.sign_in_threads", *backend.arguments, "400"]

        run = subprocess.run([*program, *uris], cwd=ROOT, check=False, capture_output=True, text=True, timeout=60)

        assert (run.returncode, run.stdout) == (0, "800\n800\n"), run.stderr
