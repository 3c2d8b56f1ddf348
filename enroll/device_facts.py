"""What `enroll.device_state` judges, as the state directory shows it. No token is opened for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from enroll.config import StoreName
from enroll.device_state import DeviceFacts
from enroll.errors import KeyNotFound, KeyStoreError, StateDamaged, StateError, StateUnreadable
from enroll.identity import VENDORS_IDENTITIES, Generation, IdentityName, IdentityStore
from enroll.keystore import KeyStores


def device_facts(identities: IdentityStore, lost: Collection[IdentityName]) -> DeviceFacts:
    """What is found.

    Args:
        identities: The identity directory.
        lost: The identities whose key was looked for and not found; see `lost_key_files`.

    Raises:
        StateUnreadable: Not for the user who runs this.
        StateError: The disk refused.
    """
    in_use, damaged = [], []
    for name in IdentityName:
        try:
            if identities.current(name) is not None:
                in_use.append(name)
        except StateDamaged:
            damaged.append(name)
    facts = DeviceFacts(
        owners=tuple(name for name in in_use if name not in VENDORS_IDENTITIES),
        damaged=tuple(damaged),
        lost=tuple(name for name in in_use if name in lost),
        is_releasing=identities.files.exists(identities.release_record),
    )
    try:
        return dataclasses.replace(facts, record=identities.owner_file.read())
    except StateUnreadable:
        raise
    except StateError as error:
        return dataclasses.replace(facts, record_problem=error)


def lost_key_files(identities: IdentityStore, stores: KeyStores) -> tuple[IdentityName, ...]:
    """The identities in use whose key was in a file that is gone. Only a key store that opens shows more.

    Args:
        identities: The identity directory.
        stores: Where the keys are.
    """
    return tuple(name for name in IdentityName if _is_lost(identities.readable(name), stores))


def _is_lost(generation: Generation | None, stores: KeyStores) -> bool:
    if generation is None or generation.key_uri.partition(":")[0] != StoreName.SOFTWARE:
        return False
    try:
        stores.protection(generation.key_uri)
    except KeyNotFound:
        return True
    except (KeyStoreError, StateError):  # whoever opens the store hears of it
        return False
    return False
