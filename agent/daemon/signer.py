"""The identities the keyholder works with, and the signatures it makes. Runs in the keyholder."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from agent.audit import AuditTrail
from agent.daemon.wire import HashName, Role
from agent.errors import CertificateNotUsable, SigningError
from enroll.certificates import check_pair, pem
from enroll.clock import Clock
from enroll.errors import KeyStoreError, PinRefused, ScansealError, UnsupportedKey
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.keystore import KeyStores

# A role signs with its own key and never with that of another.
IDENTITY_OF: Mapping[Role, IdentityName] = {
    Role.ACQUISITION: IdentityName.SIGNING,
    Role.DERIVATION: IdentityName.DERIVATION,
    Role.SYNTHESIS: IdentityName.SYNTHESIS,
}
FOLLOWED = (*IDENTITY_OF.values(), IdentityName.DEVICE)

RETRY_SECONDS = 30.0  # a new generation that was refused is tried again: tokens are sometimes busy

_HASHES: Mapping[HashName, Prehashed] = {
    HashName.SHA256: Prehashed(hashes.SHA256()),
    HashName.SHA384: Prehashed(hashes.SHA384()),
    HashName.SHA512: Prehashed(hashes.SHA512()),
}

logger = logging.getLogger("scanseal.keyholder")


@dataclass(frozen=True)
class ActiveKey:
    """A generation of an identity that signs, whose key is loaded and belongs to its certificate."""

    generation: Generation
    key: rsa.RSAPrivateKey = field(repr=False)
    certificate: bytes = field(repr=False)

    @classmethod
    def load(cls, generation: Generation, stores: KeyStores) -> ActiveKey:
        """Load the key and check that it fits.

        Raises:
            KeyStoreError: It cannot be loaded, is not RSA, or belongs to another certificate.
        """
        key = stores.load(generation.key_uri)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise UnsupportedKey(
                f"The key of the identity {generation.identity} is not an RSA key.",
                remedy="Image signatures need RSA (PS3.15 C.2): "
                f"set identity.{generation.identity}.key_algorithm and enroll again.",
            )
        check_pair(key, generation.certificate)
        return cls(generation, key, generation.certificate.public_bytes(serialization.Encoding.DER))

    def refusal(self, now: datetime) -> CertificateNotUsable | None:
        """Why the certificate cannot be used at `now`, or nothing."""
        not_before = self.generation.certificate.not_valid_before_utc
        not_after = self.generation.certificate.not_valid_after_utc
        if now < not_before:
            return CertificateNotUsable(
                f"The certificate is valid from {not_before:%Y-%m-%d %H:%M} UTC on.",
                remedy="Check the clock of this machine.",
                code="certificate-not-yet-valid",
            )
        if now > not_after:
            return CertificateNotUsable(
                f"The certificate expired on {not_after:%Y-%m-%d %H:%M} UTC.",
                remedy="Run `scanseal renew`, and check the clock of this machine.",
                code="certificate-expired",
            )
        return None

    def sign(self, digest: bytes, hash_name: HashName, now: datetime) -> bytes:
        """RSASSA-PKCS1-v1_5 over a digest (PS3.15 C.1).

        Raises:
            CertificateNotUsable: Not within the validity of the certificate.
            SigningError: The key store failed.
        """
        if (refusal := self.refusal(now)) is not None:
            raise refusal
        try:
            return self.key.sign(digest, padding.PKCS1v15(), _HASHES[hash_name])
        except KeyStoreError as error:
            raise SigningError(error.what, remedy=error.remedy) from error


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


class Identities:
    """Follows the identity directory.

    Args:
        store: The identity directory.
        keys: The key stores.
        audit: Hears of every change.
        clock: For retrying.

    Raises:
        ScansealError: There is an identity, but it cannot be used. Acquisition comes first: what is wrong with the
            identities of the other roles does not keep it from signing, and is only reported.
    """

    def __init__(self, store: IdentityStore, keys: KeyStores, audit: AuditTrail, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._audit = audit
        self._clock = clock
        self._pointers: dict[IdentityName, str | None] = {}
        self._retry_at: dict[IdentityName, float] = {}
        self._views = dict.fromkeys(FOLLOWED, IdentityView())
        for name in FOLLOWED:
            try:
                self._pointers[name] = store.pointer(name)
                self._views[name] = self._load(name)
            except ScansealError as error:
                if name in (IdentityName.SIGNING, IdentityName.DEVICE):
                    raise
                self._refuse(name, error)

    def view(self, name: IdentityName) -> IdentityView:
        """An identity as it is now; of one that is not followed, nothing."""
        return self._views.get(name, IdentityView())

    def refresh(self, *, at_once: bool = False) -> None:
        """Take up new generations, if there are any; to be called at least once a second.

        A generation that cannot be used changes nothing but the status: what signed before goes on signing.

        Args:
            at_once: Load again even if nothing seems to have changed.
        """
        for name in FOLLOWED:
            before = self._views[name].refused
            self._refresh(name, at_once=at_once)
            refused = self._views[name].refused
            if refused is not before and isinstance(refused, PinRefused):
                return  # the next identity may lie in the same token, which locks after a few wrong PINs

    def chain(self, name: IdentityName) -> bytes | None:
        """The certificates of an identity in PEM, its own first; nothing where there is none."""
        generation = self.view(name).generation
        return pem((generation.certificate, *generation.chain)) if generation else None

    def _refresh(self, name: IdentityName, *, at_once: bool) -> None:
        try:
            pointer = self._store.pointer(name)
            if pointer == self._pointers.get(name) and not at_once and not self._retry_is_due(name):
                return
            self._pointers[name] = pointer
            view = self._load(name)
            self._check_usable(name, view.active)
        except ScansealError as error:
            self._refuse(name, error)
            return
        before, self._views[name] = self._views[name], view
        if name in IDENTITY_OF.values() and _number(before) != _number(view):
            logger.info("Generation %s of the identity %s is in use.", _number(view), name)
            fields: dict[str, str | int] = {"identity": name, "key_generation": _number(view)}
            self._audit.record("identity-in-use", fields, durable=True)

    def _load(self, name: IdentityName) -> IdentityView:
        generation = self._store.current(name)
        if generation is None or name not in IDENTITY_OF.values():
            return IdentityView(generation)
        return IdentityView(generation, ActiveKey.load(generation, self._keys))

    def _check_usable(self, name: IdentityName, new: ActiveKey | None) -> None:
        """A certificate that is not valid yet must not replace one that is: clocks differ."""
        now, old = self._clock.now(), self._views[name].active
        if new and old and not old.refusal(now) and (refusal := new.refusal(now)):
            raise refusal

    def _retry_is_due(self, name: IdentityName) -> bool:
        # A PIN that was refused is not tried again: tokens lock after a few wrong ones.
        refused = self._views[name].refused
        return (
            refused is not None
            and not isinstance(refused, PinRefused)
            and self._clock.monotonic() > self._retry_at[name]
        )

    def _refuse(self, name: IdentityName, error: ScansealError) -> None:
        before = self._views[name]
        self._views[name] = dataclasses.replace(before, refused=error)
        self._retry_at[name] = self._clock.monotonic() + RETRY_SECONDS
        if str(before.refused) != str(error):
            logger.error("The new generation of the identity %s is not used: %s", name, error)
            fields: dict[str, str | int] = {"identity": name, "code": error.code, "detail": error.what}
            self._audit.record("identity-refused", fields, durable=True)


def _number(view: IdentityView) -> int:
    return view.generation.number if view.generation else 0
