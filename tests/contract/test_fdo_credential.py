"""The credential of a device, authenticated by a secret in every key store that has secrets: FDO 1.1, 3.5."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from enroll.algorithms import HmacAlgorithm
from enroll.errors import KeyNotFound, StateError
from enroll.fdo import cbor
from enroll.fdo.credential import CredentialStore
from enroll.keystore import KeyStores
from enroll.keystore.base import KeyStore
from enroll.statefile import StateFiles
from tests.support.fdo.credentials import credential, owned
from tests.support.key_stores import Backend


def credentials(directory: Path, store: KeyStore) -> CredentialStore:
    # Of all stores it only needs the one that its secret is in.
    return CredentialStore(directory, cast("KeyStores", store), StateFiles())


def secret(backend: Backend, algorithm: HmacAlgorithm) -> str:
    backend.secret(algorithm)
    return backend.uris[algorithm]


def test_a_credential_is_proposed_taken_into_use_and_found_by_the_next_process(
    lasting: Backend, hmac_algorithm: HmacAlgorithm, tmp_path: Path
) -> None:
    store = credentials(tmp_path, lasting.store)
    uri = secret(lasting, hmac_algorithm)
    first, second = credential(uri, 1, hmac_algorithm), owned(credential(uri, 2, hmac_algorithm))
    assert (store.current(), store.pending(), store.candidates()) == (None, None, ())

    store.propose(first)
    assert (store.current(), store.pending(), store.candidates()) == (None, first, (first,))
    store.commit(first)
    assert (store.current(), store.pending(), store.candidates()) == (first, None, (first,))
    store.propose(second)

    other = lasting.make(lasting.right)
    assert credentials(tmp_path, other).candidates() == (second, first)
    other.close()

    store.withdraw()
    assert store.candidates() == (first,)
    store.commit(second)
    assert store.candidates() == (second,)


def test_what_another_secret_authenticates_is_refused(
    lasting: Backend, hmac_algorithm: HmacAlgorithm, tmp_path: Path
) -> None:
    """The secret that a credential names authenticates it, and no other one of the same store."""
    store = credentials(tmp_path, lasting.store)
    foreign = lasting.store.generate_secret(lasting.new_name(), hmac_algorithm)
    store.commit(credential(foreign, 1, hmac_algorithm))
    own = credential(secret(lasting, hmac_algorithm), 1, hmac_algorithm)
    path = tmp_path / "credential.current"
    _, tag = cbor.read(path.read_bytes()).array(2)
    store.commit(own)
    content, _ = cbor.read(path.read_bytes()).array(2)

    path.write_bytes(cbor.encode([content.bytes(), tag.bytes()]))

    with pytest.raises(StateError, match="not written by this device") as refused:
        store.current()
    assert refused.value.code == "credential-forged"
    assert "backup" not in refused.value.remedy
    store.commit(credential(foreign, 1, hmac_algorithm))
    lasting.store.destroy(foreign)
    with pytest.raises(KeyNotFound):
        store.current()


def test_what_was_changed_is_refused(lasting: Backend, hmac_algorithm: HmacAlgorithm, tmp_path: Path) -> None:
    store = credentials(tmp_path, lasting.store)
    store.commit(credential(secret(lasting, hmac_algorithm), 1, hmac_algorithm))
    path = tmp_path / "credential.current"
    whole = path.read_bytes()

    for place in range(3, len(whole), 11):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises((StateError, KeyNotFound)):
            store.current()
