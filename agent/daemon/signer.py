"""The identities the keyholder works with: which key signs for which role. Runs in the keyholder."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from agent.audit import AuditTrail
from agent.daemon.active_key import ALWAYS, ActiveKey, enrolling, signing_error
from agent.daemon.demands import Demands
from agent.daemon.device import DeviceWatch
from agent.daemon.memory_identity import MemoryIdentity
from agent.daemon.wire import Role
from agent.errors import KeyRefused, NotEnrolled, SigningError
from enroll.certificates import pem, serial_text
from enroll.clock import Clock
from enroll.clock_sense import ClockSense
from enroll.config import StoreName
from enroll.errors import (
    KeyDamaged,
    KeyNotFound,
    KeyStoreError,
    KeyStoreUnavailable,
    PinRefused,
    ScansealError,
    StateDamaged,
    StateError,
)
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.keystore import KeyStores
from enroll.revocation.lists import Revocation
from enroll.revocation.record import RevocationRecords, RevocationState

# A role signs with its own key and never with that of another. Originals may be signed by that of the vendor instead.
IDENTITY_OF: Mapping[Role, IdentityName] = {
    Role.ACQUISITION: IdentityName.SIGNING,
    Role.DERIVATION: IdentityName.DERIVATION,
    Role.SYNTHESIS: IdentityName.SYNTHESIS,
}
FOLLOWED = (*IDENTITY_OF.values(), IdentityName.DEVICE, IdentityName.VENDOR)

RETRY_SECONDS = 30.0  # a new generation that was refused is tried again
TOKEN_RETRY_SECONDS = 2.0  # a token that is away comes back, and signing with it

_NO_DEMANDS = Demands()
_NONE_IN_MEMORY: Mapping[IdentityName, MemoryIdentity] = MappingProxyType({})

logger = logging.getLogger("scanseal.keyholder")


@dataclass(frozen=True)
class IdentityView:
    """One identity at one moment; replaced as a whole, so a signature never mixes two generations.

    Args:
        generation: What is in use; nothing before the first enrollment.
        active: The same with its key, of an identity that signs.
        refused: Why the newest generation is not in use, where it is not.
    """

    generation: Generation | None = None
    active: ActiveKey | None = None
    refused: ScansealError | None = None


@dataclass(frozen=True)
class _Noted:
    """What the audit trail knows of an identity: what it could not take is told again at the next look.

    Args:
        generation: The one that was revoked.
        revocation: What the CA said of it; None where it is not revoked.
        refusal: Why the newest generation is not in use.
    """

    generation: int = 0
    revocation: Revocation | None = None
    refusal: str = ""


class Identities:
    """Follows the identity directory.

    Args:
        store: The identity directory.
        keys: The key stores.
        audit: Hears of every change.
        clock: For retrying.
        demands: What a key must be before it signs.
        in_memory: The identities whose keys are made here.
        originals: The identity that signs original images; no other ever takes its place.

    Attributes:
        identity_of: The identity that signs in each role.
        device: Whether the owner lets anything be signed.

    Raises:
        ScansealError: There is an identity, but it cannot be used. Acquisition comes first: a token that is away is
            waited for, and so is a new generation where a key is lost; what is wrong with the identities of the other
            roles does not keep it from signing, and is only reported.
    """

    def __init__(  # noqa: PLR0913 - what the keyholder knows about keys
        self,
        store: IdentityStore,
        keys: KeyStores,
        audit: AuditTrail,
        clock: Clock,
        *,
        demands: Demands = _NO_DEMANDS,
        in_memory: Mapping[IdentityName, MemoryIdentity] = _NONE_IN_MEMORY,
        originals: IdentityName = IdentityName.SIGNING,
    ) -> None:
        self.identity_of = {**IDENTITY_OF, Role.ACQUISITION: originals}
        self.device = DeviceWatch(store, audit)
        self._store = store
        self._keys = keys
        self._audit = audit
        self._clock = ClockSense.of(clock)
        self._demands = demands
        self._in_memory = in_memory
        self._revocations = RevocationRecords(store)
        self._pointers: dict[IdentityName, str | None] = {}
        self._retry_at: dict[IdentityName, float] = {}
        self._views = dict.fromkeys(FOLLOWED, IdentityView())
        self._noted = dict.fromkeys(FOLLOWED, _Noted())
        self.device.refresh()
        for name in FOLLOWED:
            try:
                self._pointers[name] = store.pointer(name)
                self._use(name, self._load(name))
                self._note_damage(name)
            except ScansealError as error:
                if self._stops_the_start(name, error):
                    raise
                self._refuse(name, error)
        self._tend_memory()

    @property
    def offers(self) -> int:
        """How often a certificate request has been offered to the enroller."""
        return sum(memory.offers for memory in self._in_memory.values())

    @property
    def awaiting(self) -> bool:
        """Whether an identity waits for the certificate of a key in memory and signs nothing until then."""
        return any(self._views[name].active is None for name in self._in_memory)

    def view(self, name: IdentityName) -> IdentityView:
        """An identity as it is now; of one that is not followed, nothing."""
        return self._views.get(name, IdentityView())

    def active_key(self, name: IdentityName) -> ActiveKey:
        """The key of an identity that signs; no other ever takes its place.

        Raises:
            SigningError: There is none now.
        """
        view = self.view(name)
        if view.active is not None:
            return view.active
        if view.refused is not None:
            error = view.refused
            raise (
                signing_error(error, name)
                if isinstance(error, KeyStoreError)
                else SigningError(error.what, remedy=error.remedy)
            )
        if name in self._in_memory:
            raise self._in_memory[name].why_not_ready()
        raise not_enrolled(name)

    def refresh(self, *, at_once: bool = False) -> None:
        """Take up new generations, revocations and what the owner decides; to be called at least once a second.

        A generation that cannot be used changes nothing but the status: what signed before goes on signing.

        Args:
            at_once: Load again even if nothing seems to have changed.
        """
        self.device.refresh()
        for name in FOLLOWED:
            before = self._views[name].refused
            self._refresh(name, at_once=at_once)
            self._use(name, self._views[name])
            self._note_refusal(name)
            refused = self._views[name].refused
            if refused is not before and isinstance(refused, PinRefused):
                break  # the next identity may lie in the same token, which locks after a few wrong PINs
        self._tend_memory()

    def chain(self, name: IdentityName) -> bytes | None:
        """The certificates of an identity in PEM, its own first; nothing where there is none."""
        generation = self.view(name).generation
        return pem((generation.certificate, *generation.chain)) if generation else None

    def _refresh(self, name: IdentityName, *, at_once: bool) -> None:
        try:
            before = self._pointers.pop(name, None)  # one that cannot be read any more names no generation
            pointer = self._pointers[name] = self._store.pointer(name)
            if pointer == before and not at_once and not self._retry_is_due(name):
                return
            view = self._load(name)
            self._check_loaded_stays(name, view)
            self._check_usable(name, view.active)
            if view.active is not None and _number(self._views[name]) != _number(view):
                fields: dict[str, str | int] = {
                    "identity": name,
                    "key_generation": _number(view),
                    "proves": view.active.proves,
                }
                self._audit.record("identity-in-use", fields, durable=True)
                logger.info("Generation %s of the identity %s is in use.", _number(view), name)
            if view.generation is None and self._views[name].generation is not None:
                self._audit.record("identity-gone", {"identity": name}, durable=True)
                logger.warning("The identity %s is gone: the owner has given the scanner up.", name)
        except ScansealError as error:
            self._refuse(name, error)
            return
        self._use(name, dataclasses.replace(view, refused=self._views[name].refused) if _damage(view) else view)
        self._note_damage(name)

    def _note_damage(self, name: IdentityName) -> None:
        """Say that the generation before is in use, because the newest is damaged."""
        damage = _damage(self._views[name])
        if damage is not None:
            self._refuse(name, damage)

    def _use(self, name: IdentityName, view: IdentityView) -> None:
        """Put a view into use, together with what the CA says about its certificate."""
        before, active = self._views[name].active, view.active
        if active is None:
            self._views[name] = view
            return
        known = before.revocation if before and _number(self._views[name]) == active.generation.number else None
        revocation = self._revocation(active.generation, known)
        active = dataclasses.replace(active, revocation=revocation)
        self._views[name] = dataclasses.replace(view, active=active)
        event = "certificate-revoked" if revocation else "certificate-revocation-lifted"
        if revocation != known:
            logger.warning("%s: generation %d of the identity %s.", event, active.generation.number, name)
        noted = self._noted[name]
        if revocation == (noted.revocation if noted.generation == active.generation.number else None):
            return
        self._audit.record(
            event,
            {
                "identity": name,
                "key_generation": active.generation.number,
                "serial_number": serial_text(active.generation.certificate),
                "reason": revocation.reason if revocation else "",
            },
            durable=True,
        )
        self._noted[name] = dataclasses.replace(noted, generation=active.generation.number, revocation=revocation)

    def _revocation(self, generation: Generation, known: Revocation | None) -> Revocation | None:
        """What is known now; nothing but the word of the CA lifts what was known."""
        try:
            record = self._revocations.of(generation)
        except StateError:
            return known  # `scanseal status` says that the record is damaged
        if record is None or (record.revocation is None and record.state is not RevocationState.GOOD):
            return known
        return record.revocation

    def _load(self, name: IdentityName) -> IdentityView:
        generation = self._store.current(name)
        if generation is not None:
            self._clock.learn(generation.certificate.not_valid_before_utc)
        if generation is None or name not in self.identity_of.values():
            return IdentityView(generation)
        before = self._views[name].active
        memory = self._in_memory.get(name)
        usage = memory.usage(generation.key_uri) if memory else ALWAYS
        if usage is None or (memory is None and _is_in_memory(generation)):
            # Of an earlier process, as after every restart. What signs now goes on.
            if before is not None:
                raise KeyNotFound(
                    f"The key of generation {generation.number} of the identity {name} is not in this process.",
                    remedy="You need do nothing: the agent asks for a certificate for the key that it has.",
                )
            return IdentityView(generation)
        active = ActiveKey.load(generation, self._keys, usage)
        return IdentityView(generation, self._demands.met_by(active, before, self._audit, self._clock))

    def _tend_memory(self) -> None:
        """Have the keys in memory made, offered and destroyed."""
        for name, memory in self._in_memory.items():
            view = self._views[name]
            if view.active is not None and memory.has_ended(view.active):
                # Whatever happens: nothing may sign with it any more, so nothing holds it any more.
                view = self._views[name] = dataclasses.replace(view, active=None)
            try:
                memory.tend(view.active)
            except ScansealError as error:
                logger.error("The next key of the identity %s: %s", name, error)  # noqa: TRY400 - the message says it all

    def _check_loaded_stays(self, name: IdentityName, view: IdentityView) -> None:
        """What was loaded before its files were damaged goes on, and not the generation before it."""
        damage, before = _damage(view), self._views[name].generation
        if damage is not None and view.generation and before and before.number > view.generation.number:
            raise damage

    def _check_usable(self, name: IdentityName, new: ActiveKey | None) -> None:
        """A certificate that is not valid yet must not replace one that is: clocks differ."""
        sense, old = self._clock.sense(), self._views[name].active
        if new and old and not old.refusal(old.judged_at(sense)) and (refusal := new.refusal(new.judged_at(sense))):
            raise refusal

    def _stops_the_start(self, name: IdentityName, error: ScansealError) -> bool:
        if isinstance(error, KeyStoreUnavailable | KeyNotFound | KeyDamaged):
            return False  # what is away comes back, and for what is lost a new generation comes
        needed = (self.identity_of[Role.ACQUISITION], IdentityName.DEVICE)
        return name in needed or error.code == "hardware-required"

    def _retry_is_due(self, name: IdentityName) -> bool:
        # A PIN that was refused is not tried again: tokens lock after a few wrong ones. A key that is not what is
        # demanded stays so, and measuring it again would only keep the token from its work.
        refused = self._views[name].refused
        return (
            refused is not None
            and not isinstance(refused, PinRefused | KeyRefused)
            and self._clock.monotonic() > self._retry_at[name]
        )

    def _refuse(self, name: IdentityName, error: ScansealError) -> None:
        before = self._views[name]
        # The frames of its traceback would keep keys in memory that are destroyed meanwhile.
        error.__cause__ = error.__context__ = None
        self._views[name] = dataclasses.replace(before, refused=error.with_traceback(None))
        pause = TOKEN_RETRY_SECONDS if isinstance(error, KeyStoreUnavailable) else RETRY_SECONDS
        self._retry_at[name] = self._clock.monotonic() + pause
        if str(before.refused) != str(error):
            pointer = self._pointers.get(name)
            generation = f"Generation {int(pointer.rpartition('/')[2])} of the" if pointer else "The"
            logger.error("%s identity %s cannot be used: %s", generation, name, error)
        self._note_refusal(name)

    def _note_refusal(self, name: IdentityName) -> None:
        """Have the audit trail say why a generation is not in use, if it does not yet; it may have been full."""
        error, noted = self._views[name].refused, self._noted[name]
        refusal = str(error) if error else ""
        if refusal == noted.refusal:
            return
        if error is not None:
            fields: dict[str, str | int] = {"identity": name, "code": error.code, "detail": error.what}
            self._audit.record("identity-refused", fields, durable=True)
        self._noted[name] = dataclasses.replace(noted, refusal=refusal)


def not_enrolled(name: IdentityName) -> NotEnrolled:
    """What to raise where there is no certificate, or only one whose key was in the memory of an earlier process."""
    # Which way leads to one depends on the configuration, and on an owner by FDO: the keyholder knows neither.
    remedy = f"Run `{enrolling(name)}`, on the way that `scanseal check` names; no restart is needed."
    return NotEnrolled(f"The {name} identity has no certificate yet.", remedy=remedy)


def _damage(view: IdentityView) -> StateDamaged | None:
    return view.generation.damage if view.generation else None


def _is_in_memory(generation: Generation) -> bool:
    return generation.key_uri.partition(":")[0] == StoreName.MEMORY


def _number(view: IdentityView) -> int:
    return view.generation.number if view.generation else 0
