"""Looks at a scanner for `scanseal check`: what is seen here, `agent.checks` judges.

A token is logged in to once, and a PIN that it refuses is not sent again, because everything goes through one
`KeyStores`. Nothing is changed, except that a key which is to be measured and not there yet is made and destroyed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from agent import checks, enrollment_checks
from agent.checks import Finding, State
from agent.cli import device, renewal_plan
from agent.cli.checking_ways import enrollment, leftover_keys, release_under_way, way_for
from agent.cli.signing_rate import kind_of, measure, trial_key
from agent.cli.surroundings import (
    AGENT_SERVICE,
    callers,
    can_be_made,
    limits_of_services,
    own_memory_lock,
    state_places,
    user_name,
)
from agent.client import SigningClient
from agent.config import Configuration, load
from agent.daemon.active_key import ActiveKey
from agent.daemon.demands import Demands
from agent.errors import AgentError
from enroll.certificates import check_pair
from enroll.clock import Clock
from enroll.clock_sense import ClockSense
from enroll.config import IdentitySettings, StoreName
from enroll.errors import KeyDamaged, KeyNotFound, KeyStoreError, ScansealError, StateError, StateUnreadable
from enroll.failure import Failures
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.issue import owned
from enroll.keystore import KeyStores, open_store, token_settings
from enroll.keystore.base import PrivateKey, Protection
from enroll.keystore.secretfile import read_secret
from enroll.keystore.tokenuri import TokenUri
from enroll.proves import remark
from enroll.revocation.record import RevocationRecords
from enroll.revocation.watch import Places
from enroll.statefile import StateFiles
from enroll.tls import RouteName, tls_route

PROXY = "p11-kit-proxy.so"

_OF_DEVICE = (IdentityName.IDEVID, IdentityName.DEVICE)  # these say who the scanner is, the others sign
_OF_ROLES = (IdentityName.DERIVATION, IdentityName.SYNTHESIS)  # needed only by those who have the role


@dataclass(frozen=True)
class StorePlace:
    """A key store that this scanner uses.

    Args:
        store: Which kind.
        token: Label of the token, for PKCS#11.
    """

    store: StoreName
    token: str = ""

    def __str__(self) -> str:
        return f"{self.store} {self.token}".rstrip()

    @classmethod
    def of_key(cls, uri: str) -> StorePlace:
        """Where a key is.

        Raises:
            KeyNotFound: The URI names no key.
        """
        scheme = uri.partition(":")[0]
        if scheme not in list(StoreName):
            raise KeyNotFound("No key store handles the name of the key.", remedy="Enroll again.")
        store = StoreName(scheme)
        return cls(store, TokenUri.parse(uri).token if store is StoreName.PKCS11 else "")


def findings(path: Path, files: StateFiles, clock: Clock, measured: Callable[[str], None] | None) -> Iterator[Finding]:
    """The answer to every check, one after the other.

    Args:
        path: scanseal.toml.
        files: Reads.
        clock: The clocks.
        measured: Hears whose key is measured next; None where nothing is to be measured.
    """
    try:
        configuration = load(path, files)
    except ScansealError as error:
        yield checks.failure("configuration", error)
        return
    yield Finding("configuration", State.OK, f"{path} can be used")
    sense = ClockSense.configured(clock, IdentityStore(configuration.enroll.state_directory, files))
    with closing(KeyStores(configuration.enroll.keystore, configuration.enroll.state_directory, files)) as stores:
        yield from _Inspection(configuration, stores, files, sense, measured).findings()


@dataclass
class _Inspection:
    """One look at a scanner. What was seen first decides whether the rest can be looked at."""

    configuration: Configuration
    stores: KeyStores
    files: StateFiles
    clock: ClockSense
    measured: Callable[[str], None] | None
    generations: dict[IdentityName, Generation] = field(default_factory=dict)
    places: dict[IdentityName, StorePlace] = field(default_factory=dict)
    damaged: dict[IdentityName, ScansealError] = field(default_factory=dict)
    opened: set[StorePlace] = field(default_factory=set)
    keys: dict[IdentityName, PrivateKey] = field(default_factory=dict)
    protections: dict[IdentityName, Protection] = field(default_factory=dict)
    rates: dict[IdentityName, float] = field(default_factory=dict)
    lost: list[IdentityName] = field(default_factory=list)
    status: Mapping[str, Any] | None = None

    def findings(self) -> Iterator[Finding]:
        """See the function of this name."""
        yield from release_under_way(self.configuration.enroll, self.files)
        try:
            yield from self._state_directory()
        except StateUnreadable as error:
            yield checks.failure("state-directory", error)
            return  # everything else would end for the same reason
        except StateError as error:
            yield checks.failure("state-directory", error)
        self._read_identities()
        yield checks.clock(self.clock.sense())
        yield callers(self.configuration.agent)
        yield from enrollment(self.configuration.enroll, self.files, self.clock, self.generations, self.damaged)
        yield self._agent()
        names = self._names()
        for place in sorted({*map(self._place, names), *map(self._next_place, names)}, key=str):
            yield from self._key_store(place)
        for name in names:
            yield from self._identity(name)
            yield from self._past_enrollment(name)
        yield from (checks.not_needed(name) for name in _OF_ROLES if name not in names)
        yield from self._leftover_keys()
        yield self._device_state()
        yield self._tls_route()
        yield from self._demands()
        yield from self._limits()

    def _state_directory(self) -> Iterator[Finding]:
        root = self.configuration.enroll.state_directory
        if can_be_made(root):
            yield checks.state_directory_to_come(root)
            return
        places = tuple(state_places(root, self.files))
        yield checks.state_directory(places)
        yield checks.user(os.geteuid(), places[0].owner, user_name(places[0].owner))

    def _read_identities(self) -> None:
        identities = IdentityStore(self.configuration.enroll.state_directory, self.files)
        for name in IdentityName:
            try:
                generation = identities.current(name)
                if generation is not None:
                    self.places[name] = StorePlace.of_key(generation.key_uri)
                    self.generations[name] = generation
            except ScansealError as error:
                self.damaged[name] = error

    def _device_state(self) -> Finding:
        identities = IdentityStore(self.configuration.enroll.state_directory, self.files)
        try:
            return device.finding(identities, self.lost, self._way(IdentityName.DEVICE))
        except StateError as error:
            return checks.failure("device-state", error)

    def _past_enrollment(self, name: IdentityName) -> Iterator[Finding]:
        identities = IdentityStore(self.configuration.enroll.state_directory, self.files)
        settings = self.configuration.enroll.revocation
        try:
            failure = Failures(identities).last(name)
            if failure is not None:
                yield enrollment_checks.last_enrollment(name, failure)
            generation = self.generations.get(name)
            if generation is not None:
                yield enrollment_checks.revocation(
                    name,
                    RevocationRecords(identities).of(generation),
                    published=settings.watch and bool(Places.of(generation, settings)),
                    now=self.clock.now(),
                    patience=timedelta(days=settings.patience),
                )
        except StateError as error:
            yield checks.failure("revocation", error, name)

    def _leftover_keys(self) -> Iterator[Finding]:
        try:
            yield from leftover_keys(self.configuration.enroll, self.files)
        except StateError as error:
            yield checks.failure("leftover-key", error)

    def _agent(self) -> Finding:
        try:
            with SigningClient(self.configuration.agent.socket.path) as client:
                self.status = client.status()
        except AgentError as error:
            what = f"{error.what} Before its first start this is as it should be."
            return Finding("agent", State.WARNING, what, error.remedy, code=error.code)
        return checks.agent_state(self.status, self._way(self._originals))

    def _way(self, name: IdentityName) -> str:
        return way_for(name, self.configuration.enroll, self.files, {*self.generations, *self.damaged})

    def _names(self) -> list[IdentityName]:
        """The identities that somebody has got, or needs."""
        roles, needed = self.configuration.agent.roles, [IdentityName.DEVICE, self._originals]
        if self.configuration.enroll.vendor.url:
            needed.append(IdentityName.IDEVID)
        wanted = {IdentityName.DERIVATION: roles.derivation, IdentityName.SYNTHESIS: roles.synthesis}
        return [
            name
            for name in IdentityName
            if name in needed or name in self.generations or name in self.damaged or wanted.get(name)
        ]

    def _place(self, name: IdentityName) -> StorePlace:
        """Where the key of an identity is, or will be."""
        return self.places.get(name) or self._next_place(name)

    def _next_place(self, name: IdentityName) -> StorePlace:
        """Where the next key will be."""
        made, default = self._settings(name), self.configuration.enroll.keystore.pkcs11.token
        return StorePlace(made.key_store, (made.token or default) if made.key_store is StoreName.PKCS11 else "")

    def _settings(self, name: IdentityName) -> IdentitySettings:
        """How the next key of an identity is made."""
        _, made = owned(name, self.configuration.enroll)
        return made

    @property
    def _originals(self) -> IdentityName:
        """The identity that signs original images."""
        return IdentityName(self.configuration.agent.signing.identity)

    def _key_store(self, place: StorePlace) -> Iterator[Finding]:
        if place.store is StoreName.MEMORY:
            return
        subject, check = str(place), "key-store"
        try:
            self._check_secret(place)
            # Apart from the token itself, which may only be away for now.
            settings = self.configuration.enroll
            open_store(place.store, settings.keystore, settings.state_directory, self.files, place.token).close()
        except KeyStoreError as error:
            yield Finding(check, State.FAILED, error.what, error.remedy, subject, error.code)
            return
        try:
            self.stores.check(place.store, place.token)
        except ScansealError as error:
            yield checks.failure(check, error, subject)
            return
        self.opened.add(place)
        yield Finding(check, State.OK, "it opens", "", subject)
        if place.store is StoreName.PKCS11:
            module = token_settings(settings.keystore.pkcs11, place.token).module
            yield checks.token_threads(subject, through_proxy=module.name == PROXY)

    def _check_secret(self, place: StorePlace) -> None:
        stores = self.configuration.enroll.keystore
        match place.store:
            case StoreName.SOFTWARE:
                read_secret(stores.software.passphrase_file, "[keystore.software] passphrase_file", self.files)
            case StoreName.TPM:
                read_secret(stores.tpm.authorization_file, "[keystore.tpm] authorization_file", self.files)
            case StoreName.PKCS11:
                token = token_settings(stores.pkcs11, place.token)
                read_secret(token.pin_file, f"pin_file of the token {token.token}", self.files)
                if not token.module.exists():
                    raise KeyStoreError(
                        f"There is no {token.module}.", remedy="Set [keystore.pkcs11] module, or install its package."
                    )

    def _identity(self, name: IdentityName) -> Iterator[Finding]:
        if name in self.damaged:
            yield checks.failure("identity", self.damaged[name], name)
            return
        generation = self.generations.get(name)
        if generation is None:
            in_memory = self._place(name).store is StoreName.MEMORY
            yield checks.not_enrolled(name, in_memory=in_memory, way=self._way(name))
            return
        due = renewal_plan.due_at(generation, self.configuration.enroll, self.files)
        yield checks.certificate(name, generation.certificate, self.clock.now(), due)
        if damage := generation.damage:
            yield Finding("identity", State.WARNING, damage.what, damage.remedy, name, damage.code)
        if told := remark(generation.certificate):
            yield Finding("proves", State.OK, f"it {told}", "", name)
        place = self._place(name)
        if place.store is StoreName.MEMORY:
            self.protections[name] = Protection.MEMORY
            yield checks.held_by_agent(name, self.status, generation.number)
        elif place in self.opened:
            yield self._key(generation)
        else:
            yield Finding("key", State.NOT_APPLICABLE, f"its key store ({place}) does not open", "", name)

    def _key(self, generation: Generation) -> Finding:
        name = generation.identity
        try:
            self.keys[name] = self._loaded(generation)
            self.protections[name] = protection = self.stores.protection(generation.key_uri)
        except ScansealError as error:
            if isinstance(error, KeyNotFound | KeyDamaged):
                self.lost.append(name)
            return checks.failure("key", error, name)
        return checks.protection(name, str(self._place(name)), protection, generation.protection)

    def _loaded(self, generation: Generation) -> PrivateKey:
        """The key of an identity, after it has signed something that its certificate verifies."""
        if generation.identity in _OF_DEVICE:
            key = self.stores.load(generation.key_uri)
            check_pair(key, generation.certificate)
            return key
        return ActiveKey.load(generation, self.stores).key

    def _tls_route(self) -> Finding:
        place = self._place(IdentityName.DEVICE)
        if place.store is StoreName.PKCS11 and place not in self.opened:
            return Finding("tls-route", State.NOT_APPLICABLE, f"the key store of the device ({place}) does not open")
        settings = self.configuration.enroll.keystore.pkcs11
        route = tls_route(place.store, token_settings(settings, place.token))
        if route.name is RouteName.NONE:
            return Finding("tls-route", State.FAILED, route.reason, route.remedy)
        return Finding("tls-route", State.OK, f"{route.name}: {route.reason}", route.remedy)

    def _demands(self) -> Iterator[Finding]:
        for name in self._names() if self.measured else []:
            yield self._signing_rate(name)
        yield self._require_hardware()
        in_token = self._place(self._originals).store in (StoreName.PKCS11, StoreName.TPM)
        needed = self.configuration.agent.signing.images_per_second
        yield checks.speed(needed, self.rates.get(self._originals), in_token=in_token)

    def _require_hardware(self) -> Finding:
        signing = self.configuration.agent.signing
        try:
            Demands.of(signing, threads=1).check_stores(self.configuration.enroll.identity)
        except ScansealError as error:
            return checks.failure("require-hardware", error)
        protections = {name: found for name, found in self.protections.items() if name not in _OF_DEVICE}
        return checks.hardware(protections, required=signing.require_hardware)

    def _signing_rate(self, name: IdentityName) -> Finding:
        place, check = self._place(name), "signing-rate"
        if place.store is not StoreName.MEMORY and place not in self.opened:
            return Finding(check, State.NOT_APPLICABLE, f"its key store ({place}) does not open", "", name)
        if self.measured:
            self.measured(name)
        try:
            with self._key_to_measure(name, place) as key:
                self.rates[name] = measure(key, os.cpu_count() or 1, self.clock)
                kind = kind_of(key)
        except ScansealError as error:
            return checks.failure(check, error, name)
        what = f"{self.rates[name]:.1f} signatures per second ({place}, {kind})"
        return Finding(check, State.OK, what, "", name)

    @contextmanager
    def _key_to_measure(self, name: IdentityName, place: StorePlace) -> Iterator[PrivateKey]:
        """The key of an identity, or one like it that is gone afterwards: at the latest when the timer has run."""
        if name in self.keys:
            yield self.keys[name]
            return
        identities = IdentityStore(self.configuration.enroll.state_directory, self.files)
        algorithm = self._settings(name).key_algorithm
        with trial_key(self.stores, identities, place.store, algorithm, place.token) as key:
            yield key

    def _limits(self) -> Iterator[Finding]:
        services = limits_of_services()
        service = services.get(AGENT_SERVICE)
        in_memory = any(self._next_place(name).store is StoreName.MEMORY for name in self._names())
        where, possible = "this user", own_memory_lock()
        if self.status is not None and "memory_locked" in self.status:
            where, possible = "the agent", self.status["memory_locked"] is True
        elif service is not None:
            where, possible = AGENT_SERVICE, service.memory_lock is None
        yield checks.memory_lock(where, possible=possible, in_memory=in_memory)
        yield checks.core_dumps({name: limits.core for name, limits in services.items()})
