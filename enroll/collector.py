"""Destroys keys that nothing needs any more: those of old generations, of requests that were given up or cut off.

A key of the ledger (`enroll.keystore.ledger`) is needed as long as one of these names it:

    a generation     the one in use, the newest before it that has another key, and those that are not in use yet
    a journal        of the request under way, or of one that is carried by hand
    acme/account.json    for the key of the ACME account, and the next one

Nothing ever names one that was made to be measured (`scanseal check --speed`), which is done under the same lock.

Where one of them cannot be read, all keys stay that it might name. What cannot be destroyed, because its token is away
for example, stays in the ledger: the next run tries again, and `scanseal status` says so. Nothing else depends on that.

The keys of the FDO credential are in the ledger and never collected here: there is one pair in the life of a scanner,
and `enroll.fdo.di` removes what it has begun.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

from enroll.errors import ScansealError, StateError, StateUnreadable, UnsupportedKey
from enroll.identity import IdentityName, IdentityStore
from enroll.keystore import KeyStores, name_in
from enroll.keystore.ledger import Ledger, Place
from enroll.record import damaged, read_document

_ACCOUNT = "acme-account"
MEASURED = "check"  # before a hyphen, the name of a key that is made to be measured
# A shorter name would not be one of ours.
_COLLECTED = re.compile(rf"({'|'.join([*IdentityName, _ACCOUNT, MEASURED])})-[0-9a-f]{{16}}")

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Leftover:
    """A key that nothing needs and that is still there.

    Args:
        name: Its name. Where nobody can say which keys of an identity are needed, that of the identity (or of
            the ACME account); empty where not even the ledger could be read.
        why: What was in the way.
    """

    name: str
    why: ScansealError


def collect(identities: IdentityStore, stores: KeyStores) -> tuple[Leftover, ...]:
    """Destroy what nothing needs. For the holder of the lock of `identities`.

    Returns:
        What could not be destroyed; a key that no key store can destroy, now or later, is named once and forgotten.
    """
    ledger = Ledger(identities.root, identities.files)
    try:
        names, unknown = unneeded(identities)
    except StateError as error:
        _LOG.warning("No key is destroyed for now: %s", error.what)
        return (Leftover("", error),)
    left = list(unknown)
    for name in names:
        try:
            _destroy(name, ledger, stores)
        except ScansealError as error:
            _LOG.warning("The unneeded key %s stays for now: %s", name, error.what)
            left.append(Leftover(name, error))
    return tuple(left)


def unneeded(identities: IdentityStore) -> tuple[tuple[str, ...], tuple[Leftover, ...]]:
    """The keys of the ledger that nothing needs; an enrollment that is running may be destroying them.

    Returns:
        Their names; and for which identities nobody can say.

    Raises:
        StateUnreadable: Not for the user who runs this.
        StateError: The ledger cannot be read.
    """
    found: list[str] = []
    unknown: list[Leftover] = []
    by_owner: dict[str, list[str]] = {}
    for name in Ledger(identities.root, identities.files).names():
        if match := _COLLECTED.fullmatch(name):
            by_owner.setdefault(match[1], []).append(name)
    for owner, names in by_owner.items():
        try:
            needed = set(_named(owner, identities))
        except StateUnreadable:
            raise
        except StateError as error:
            _LOG.warning("No key of %s is destroyed for now: %s", owner, error.what)
            unknown.append(Leftover(owner, error))
            continue
        found += [name for name in names if name not in needed]
    return tuple(found), tuple(unknown)


def place_of(name: str, identities: IdentityStore) -> Place | None:
    """Where a key of the ledger is; None where that is not known any more."""
    try:
        return Ledger(identities.root, identities.files).place(name)
    except StateError:
        return None


def _destroy(name: str, ledger: Ledger, stores: KeyStores) -> None:
    try:
        place = ledger.place(name)
    except StateUnreadable:
        raise
    except StateError as error:
        _LOG.warning("The key %s is looked for in every key store: %s", name, error.what)
        for uri in stores.list():
            if name_in(uri) == name:
                stores.destroy(uri)
        ledger.cross_out(name)
        return
    try:
        stores.destroy_named(name, place)
    except UnsupportedKey:
        ledger.cross_out(name)
        raise


def _named(owner: str, identities: IdentityStore) -> Iterator[str]:
    if owner == MEASURED:
        return iter(())
    if owner == _ACCOUNT:
        return _of_account(identities)
    return _of_identity(IdentityName(owner), identities)


def _of_identity(name: IdentityName, identities: IdentityStore) -> Iterator[str]:
    """The names of the keys that an identity needs."""
    pointer, in_use, before = identities.pointer(name), "", 0
    current = int(pointer.rpartition("/")[2]) if pointer else 0
    for number in sorted(identities.generations(name), reverse=True):
        uri = identities.key_uri(name, number)
        yield name_in(uri)
        if number == current:
            in_use, before = uri, identities.number_before(name, number) or number
        elif current and number < current and uri != in_use and number <= before:
            break
    by_hand = (identities.journal_by_hand(name, request) for request in identities.requests_by_hand(name))
    for journal in (identities.journal(name), *by_hand):
        pending = journal.read()
        if pending is not None:
            yield pending.key_name


def _of_account(identities: IdentityStore) -> Iterator[str]:
    path = identities.root / "acme" / "account.json"  # `enroll.flows.acme.account` writes it
    if identities.files.exists(path):
        values = read_document(path, identities.files)
        if not isinstance(values, dict) or not {"key_name", "next_key_name"} <= values.keys():
            raise damaged(path)
        yield from (values["key_name"], values["next_key_name"])
