"""Destroys keys that nothing needs any more. What fails stays in its store, and is only said: nothing depends on it.

Only where the owner gives the scanner up (`enroll.owner_release`), it depends on it: `destroy_all` fails.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Collection

from enroll.errors import KeyNotFound, KeyStoreError, StateError, StateUnreadable, UnsupportedKey
from enroll.identity import IdentityName, IdentityStore
from enroll.journal import PendingRequest
from enroll.keystore import KeyStores

_MADE_HERE = re.compile(r"[a-z]+-[0-9a-f]{16}")  # a shorter name, from a damaged journal, might fit other keys
_LOG = logging.getLogger(__name__)


def retire(identity: IdentityName, kept: Collection[str], identities: IdentityStore, stores: KeyStores) -> None:
    """Destroy the keys of all generations of an identity but those in `kept`; after the next commit it is tried again.

    Args:
        identity: Whose.
        kept: The URIs of the keys that stay.
        identities: Knows the generations.
        stores: Where the keys are.
    """
    for number in identities.generations(identity):
        try:
            uri = identities.key_uri(identity, number)
            if uri not in kept:
                stores.destroy(uri)
        except (StateError, KeyStoreError) as error:
            _LOG.warning("The key of generation %d of %s stays for now: %s", number, identity, error.what)


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


def destroy_unused(pending: PendingRequest, stores: KeyStores) -> None:
    """Destroy the key of a request that is given up; before it has a URI, it is found by the name it was to have."""
    if not pending.key_uri:
        destroy_named(pending.key_name, stores)
        return
    try:
        stores.destroy(pending.key_uri)
    except KeyStoreError as error:
        _LOG.warning("The unused key %s stays in its store: %s", pending.key_name, error.what)


def destroy_named(name: str, stores: KeyStores) -> None:
    """Destroy the keys and secrets that have a name, or one that begins with it."""
    try:
        for uri in _named(name, stores):
            stores.destroy(uri)
    except KeyStoreError as error:
        _LOG.warning("The unused key %s stays in its store: %s", name, error.what)


def _named(name: str, stores: KeyStores) -> list[str]:
    return [uri for uri in stores.list() if name in uri] if _MADE_HERE.fullmatch(name) else []
