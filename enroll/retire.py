"""Destroys all keys of an identity that is given up with its owner (`enroll.owner_release`).

Whatever else is not needed any more is for `enroll.collector`. Here something depends on it: what cannot be destroyed
is an error, or is told.
"""

from __future__ import annotations

import contextlib
import re

from enroll.errors import KeyNotFound, StateError, StateUnreadable, UnsupportedKey
from enroll.identity import IdentityName, IdentityStore
from enroll.keystore import KeyStores

_MADE_HERE = re.compile(r"[a-z]+-[0-9a-f]{16}")  # a shorter name, from a damaged journal, might fit other keys


def destroy_all(identity: IdentityName, identities: IdentityStore, stores: KeyStores) -> tuple[str, ...]:
    """Destroy every key of an identity: those of its generations, and of requests under way.

    Returns:
        In words, which keys are not destroyed: their names are lost, or no key store can do it.

    Raises:
        KeyStoreError: A store is away, or refuses; once it is back, it can be done again.
        StateUnreadable: Not for the user who runs this.
    """
    lost: list[tuple[str, str]] = []
    for number in identities.generations(identity):
        try:
            lost.append((f"generation {number}", destroy_key(identities.key_uri(identity, number), "", stores)))
        except StateUnreadable:
            raise
        except StateError as error:
            lost.append((f"generation {number}", error.what))
    by_hand = (identities.journal_by_hand(identity, request) for request in identities.requests_by_hand(identity))
    for journal in (identities.journal(identity), *by_hand):
        try:
            pending = journal.read()
        except StateUnreadable:
            raise
        except StateError as error:
            lost.append(("a request", error.what))
            continue
        if pending is not None:
            lost.append(("a request", destroy_key(pending.key_uri, pending.key_name, stores)))
    return tuple(f"the key of {whose} of {identity}: {why}" for whose, why in lost if why)


def destroy_key(uri: str, name: str, stores: KeyStores) -> str:
    """Destroy a key by its URI, or before it has one, by its name; raises as `destroy_all`.

    Returns:
        Why no key store can do that, now or later; empty where the key is gone.
    """
    try:
        for each in (uri,) if uri else _named(name, stores):
            with contextlib.suppress(KeyNotFound):
                stores.destroy(each)
    except UnsupportedKey as error:
        return error.what
    return ""


def _named(name: str, stores: KeyStores) -> list[str]:
    return [uri for uri in stores.list() if name in uri] if _MADE_HERE.fullmatch(name) else []
