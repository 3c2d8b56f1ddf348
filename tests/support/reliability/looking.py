"""What a state directory says of itself, as a process finds it that has just been started: JSON on its output.

It uses the readers of the product and changes nothing. `Look` is the same for a test.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import audit
from agent.cli.options import configuration
from enroll.certificates import check_pair, serial_text
from enroll.clock import SystemClock
from enroll.enroller import Enroller
from enroll.errors import KeyStoreError, ScansealError
from enroll.fdo.credential import CredentialStore, fdo_directory
from enroll.flows.base import FlowContext
from enroll.identity import IdentityName
from enroll.journal import Journal, PendingRequest
from enroll.statefile import StateFiles


@dataclass(frozen=True)
class Look:
    """What is there.

    Args:
        current: Identity -> its generation in use: `number`, `serial`, `key`, `store`.
        damaged: What cannot be read, in words. Nothing may be.
        journals: Identity -> the request under way: `step`, `key`, `name`.
        by_hand: Identity -> how many requests wait that a person carries.
        wanted: The identities that were asked for and have not come.
        keys: All keys in all stores.
        named: The keys that something names: generations, requests, accounts, credentials.
        releasing: Whether the owner gives the scanner up.
        owner: What `owner.json` says; empty where there is none.
        credentials: The GUIDs of FIDO Device Onboard.
        audited: The lines of the audit trail; -1 where there is none.
    """

    current: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    damaged: Sequence[str] = ()
    journals: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    by_hand: Mapping[str, int] = field(default_factory=dict)
    wanted: Sequence[str] = ()
    keys: Sequence[str] = ()
    named: Sequence[str] = ()
    releasing: bool = False
    owner: Mapping[str, Any] = field(default_factory=dict)
    credentials: Sequence[str] = ()
    audited: int = -1

    def keys_of(self, identity: str) -> set[str]:
        """The keys of one identity."""
        return {key for key in self.keys if f"{identity}-" in key}

    @property
    def orphans(self) -> set[str]:
        """Keys that nothing names."""
        return set(self.keys) - set(self.named)


def look(arguments: Sequence[str]) -> int:
    """Print it.

    Args:
        arguments: The configuration.
    """
    settings = configuration(Path(arguments[0])).enroll
    with Enroller.configured(settings, SystemClock(), StateFiles()) as enroller:
        sys.stdout.write(json.dumps(_Looking(enroller.context).everything()))
    return 0


class _Looking:
    def __init__(self, context: FlowContext) -> None:
        self._context = context
        self._damaged: list[str] = []
        self._named: set[str] = set()

    def everything(self) -> dict[str, Any]:
        context = self._context
        current = {name: found for name in IdentityName if (found := self._current(name))}
        journals = {name: found for name in IdentityName if (found := self._journal(name))}
        credentials = self._name_others()
        state = context.settings.state_directory
        trail, owner = state / "audit" / "audit.jsonl", state / "owner.json"
        audited = -1
        if trail.exists():
            try:
                audited = audit.verify(trail).records
            except ScansealError as error:
                self._damaged.append(error.what)
        found = {
            "current": current,
            "journals": journals,
            "by_hand": {name: count for name in IdentityName if (count := self._by_hand(name))},
            "wanted": [name for name in IdentityName if context.identities.wanted(name).read()],
            "keys": sorted(context.stores.list()),
            "releasing": context.identities.release_record.exists(),
            "owner": json.loads(owner.read_bytes()).get("values", {}) if owner.exists() else {},
            "credentials": credentials,
            "audited": audited,
        }
        return found | {"named": sorted(self._named), "damaged": self._damaged}

    def _current(self, name: IdentityName) -> dict[str, Any]:
        identities, stores = self._context.identities, self._context.stores
        try:
            current = identities.current(name)
            self._named |= {identities.key_uri(name, number) for number in identities.generations(name)}
            if current is None:
                return {}
            if not current.key_uri.startswith("memory:"):
                check_pair(stores.load(current.key_uri), current.certificate)
        except (ScansealError, KeyStoreError) as error:
            self._damaged.append(f"{name}: {error.what}")
            return {}
        serial = serial_text(current.certificate)
        return {"number": current.number, "serial": serial, "key": current.key_uri}

    def _journal(self, name: IdentityName) -> dict[str, str]:
        pending = self._read(name, self._context.identities.journal(name))
        if pending is None:
            return {}
        return {"step": pending.step, "key": pending.key_uri, "name": pending.key_name}

    def _by_hand(self, name: IdentityName) -> int:
        identities = self._context.identities
        journals = [identities.journal_by_hand(name, request) for request in identities.requests_by_hand(name)]
        return sum(self._read(name, journal) is not None for journal in journals)

    def _read(self, name: IdentityName, journal: Journal) -> PendingRequest | None:
        try:
            pending = journal.read()
        except ScansealError as error:
            self._damaged.append(f"{name}: {error.what}")
            return None
        if pending is not None:
            self._named |= {uri for uri in self._context.stores.list() if pending.key_name in uri}
        return pending

    def _name_others(self) -> list[str]:
        """Name the keys of the ACME account, and of the credential of FDO; the GUIDs."""
        state = self._context.settings.state_directory
        account = state / "acme" / "account.json"
        if account.exists():
            values = json.loads(account.read_bytes())
            values = values.get("values", values)
            names = {values["key_name"], values["next_key_name"]} - {""}
            self._named |= {uri for uri in self._context.stores.list() for name in names if name in uri}
        credentials = CredentialStore(fdo_directory(state), self._context.stores, self._context.files)
        found = credentials.candidates()
        for credential in found:
            self._named |= {credential.key_uri, credential.secret_uri}
        return [credential.guid.hex() for credential in found]
