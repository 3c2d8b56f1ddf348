"""Destroys keys that nothing needs any more. What fails stays in its store, and is only said: nothing depends on it."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection

from enroll.errors import KeyStoreError, StateError
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
