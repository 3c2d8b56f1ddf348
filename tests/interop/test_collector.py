"""What is in a token after rotations and after crashes: keys that something needs, and the keys of other scanners."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pkcs11
import pytest

from enroll.algorithms import KeyAlgorithm
from enroll.collector import collect, unneeded
from enroll.config import EnrollSettings, KeyStoreSettings, Pkcs11StoreSettings, StoreName
from enroll.identity import Generation, IdentityName
from enroll.keystore.base import KeyStore
from tests.support.enrolling import CaFlow, Scanner, settings
from tests.support.pki import HospitalCa
from tests.support.softhsm import SoftHsm, softhsm_of_this_process

CA = HospitalCa()
SIGNING = IdentityName.SIGNING
LABEL = "spare"
ORPHAN = "signing-0123456789abcdef"


class Killed(BaseException):
    """Not an Exception: nothing in the program gets to handle it."""


@pytest.fixture(scope="module")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    return softhsm_of_this_process(tmp_path_factory.getbasetemp())


@pytest.fixture
def module(hsm: SoftHsm) -> Path:
    return hsm.copy("collector")


@pytest.fixture
def neighbour(hsm: SoftHsm, module: Path) -> Iterator[KeyStore]:
    """The key store of another scanner that shares the token; the token is empty before and after."""
    _empty(hsm, module)
    with closing(hsm.store(module, LABEL)) as store:
        yield store
    _empty(hsm, module)


@pytest.fixture
def scanner(tmp_path: Path, hsm: SoftHsm, module: Path, neighbour: KeyStore) -> Iterator[Scanner]:
    assert neighbour.list() == ()
    scanner = Scanner(in_token(tmp_path, hsm, module), (CA.certificate,))
    yield scanner
    scanner.stores.close()


def in_token(folder: Path, hsm: SoftHsm, module: Path) -> EnrollSettings:
    """The keys that sign are in the token."""
    plain = settings(folder)
    pkcs11_settings = Pkcs11StoreSettings(module, LABEL, hsm.pin_file, 2)
    signing = replace(plain.identity.signing, key_store=StoreName.PKCS11)
    return replace(
        plain,
        keystore=KeyStoreSettings(plain.keystore.software, pkcs11_settings),
        identity=replace(plain.identity, signing=signing),
    )


def _empty(hsm: SoftHsm, module: Path) -> None:
    with closing(hsm.store(module, LABEL)) as store:
        for uri in store.list():
            store.destroy(uri)


def renewed(scanner: Scanner) -> Generation:
    generation = scanner.issue(CaFlow(CA, scanner.clock))
    assert isinstance(generation, Generation)
    return generation


def restarted(scanner: Scanner) -> Scanner:
    """The next process; the token is opened anew."""
    scanner.stores.close()
    return scanner.restarted()


def collected(scanner: Scanner) -> list[str]:
    with scanner.identities.kept_lock():
        return [left.name for left in collect(scanner.identities, scanner.stores)]


def public_halves(module: Path) -> int:
    """Public keys in the token, which no key store lists."""
    token = pkcs11.lib(str(module)).get_token(token_label=LABEL)
    with token.open() as session:
        return len(list(session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PUBLIC_KEY})))


def test_after_rotations_there_are_the_keys_in_use_and_of_the_generation_before(
    scanner: Scanner, neighbour: KeyStore, module: Path
) -> None:
    generations = [renewed(scanner) for _ in range(6)]

    assert neighbour.list() == tuple(sorted(generation.key_uri for generation in generations[-2:]))
    assert public_halves(module) == 2


def test_a_key_that_was_made_when_the_process_was_killed_is_destroyed_by_the_next_one(
    scanner: Scanner, neighbour: KeyStore, module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between C_GenerateKeyPair and the moment at which anybody hears the URI."""

    def killed(*_: object) -> NoReturn:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("enroll.keystore.pkcs11.KnownKey.of", killed)
        with pytest.raises(Killed):
            renewed(scanner)
    (orphan,) = neighbour.list()

    generation = renewed(restarted(scanner))

    assert generation.key_uri != orphan
    assert neighbour.list() == (generation.key_uri,)
    assert public_halves(module) == 1


def test_half_a_pair_is_destroyed_as_well(scanner: Scanner, neighbour: KeyStore, module: Path) -> None:
    """The public half alone is what no list of keys shows."""
    uri = scanner.stores.generate(StoreName.PKCS11, ORPHAN, KeyAlgorithm.P_256)
    token = pkcs11.lib(str(module)).get_token(token_label=LABEL)
    with token.open(rw=True) as session:  # the process is logged in already
        for found in session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY}):
            found.destroy()
    assert uri not in neighbour.list()
    assert public_halves(module) == 1

    assert collected(restarted(scanner)) == []

    assert public_halves(module) == 0


def test_keys_of_another_scanner_with_names_like_ours_stay(scanner: Scanner, neighbour: KeyStore) -> None:
    similar = [f"{ORPHAN}0", f"x{ORPHAN}", "signing-fedcba9876543210", "device-0123456789abcdef"]
    theirs = {neighbour.generate(name, KeyAlgorithm.P_256) for name in similar}
    ours = scanner.stores.generate(StoreName.PKCS11, ORPHAN, KeyAlgorithm.P_256)

    assert collected(scanner) == []

    assert ours not in neighbour.list()
    assert set(neighbour.list()) == theirs


def test_a_token_that_was_away_is_tidied_when_it_is_back(scanner: Scanner, neighbour: KeyStore, hsm: SoftHsm) -> None:
    generation = renewed(scanner)
    scanner.stores.generate(StoreName.PKCS11, ORPHAN, KeyAlgorithm.P_256)
    scanner.stores.close()
    neighbour.close()
    away = hsm.tokens.with_name("away")
    hsm.tokens.rename(away)
    try:
        hsm.tokens.mkdir()
        assert collected(scanner.restarted()) == [ORPHAN]
        hsm.tokens.rmdir()
    finally:
        away.rename(hsm.tokens)
    assert unneeded(scanner.identities) == ((ORPHAN,), ())

    back = scanner.restarted()
    assert collected(back) == []

    assert back.stores.list() == (generation.key_uri,)
    back.stores.close()
