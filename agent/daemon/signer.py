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
from agent.daemon.wire import HashName
from agent.errors import CertificateNotUsable, SigningError
from enroll.certificates import check_pair, pem
from enroll.clock import Clock
from enroll.errors import KeyStoreError, PinRefused, ScansealError, UnsupportedKey
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.keystore import KeyStores

RETRY_SECONDS = 30.0  # a new generation that was refused is tried again: tokens are sometimes busy

_HASHES: Mapping[HashName, Prehashed] = {
    HashName.SHA256: Prehashed(hashes.SHA256()),
    HashName.SHA384: Prehashed(hashes.SHA384()),
    HashName.SHA512: Prehashed(hashes.SHA512()),
}

logger = logging.getLogger("scanseal.keyholder")


@dataclass(frozen=True)
class ActiveKey:
    """A generation of the signing identity whose key is loaded and belongs to its certificate."""

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
                "The key of the signing identity is not an RSA key.",
                remedy="Image signatures need RSA (PS3.15 C.2): set identity.signing.key_algorithm and enroll again.",
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
    """The identities at one moment; replaced as a whole, so a signature never mixes two generations.

    Args:
        signing: What signs now; nothing before the first enrollment.
        device: The device identity; nothing before the first enrollment.
        refused: Why the newest generation is not in use, where it is not.
    """

    signing: ActiveKey | None = None
    device: Generation | None = None
    refused: ScansealError | None = None


class Identities:
    """Follows the identity directory.

    Args:
        store: The identity directory.
        keys: The key stores.
        audit: Hears of every change.
        clock: For retrying.

    Raises:
        ScansealError: There is an identity, but it cannot be used.
    """

    def __init__(self, store: IdentityStore, keys: KeyStores, audit: AuditTrail, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._audit = audit
        self._clock = clock
        self._pointers = self._read_pointers()
        self._retry_at = 0.0
        self.view = self._load()

    def refresh(self, *, at_once: bool = False) -> None:
        """Take up a new generation, if there is one; to be called at least once a second.

        A generation that cannot be used changes nothing but the status: what signed before goes on signing.

        Args:
            at_once: Load again even if nothing seems to have changed.
        """
        try:
            pointers = self._read_pointers()
            if pointers == self._pointers and not at_once and not self._retry_is_due():
                return
            self._pointers = pointers
            view = self._load()
            self._check_usable(view.signing)
        except ScansealError as error:
            self._refuse(error)
            return
        before, self.view = self.view, view
        if _number(before) != _number(view):
            logger.info("Generation %s of the signing identity is in use.", _number(view))
            self._audit.record("identity-in-use", {"key_generation": _number(view)}, durable=True)

    def chain(self, name: IdentityName) -> bytes | None:
        """The certificates of an identity in PEM, its own first; nothing where there is none."""
        generation = self.view.device
        if name is IdentityName.SIGNING:
            generation = self.view.signing.generation if self.view.signing else None
        return pem((generation.certificate, *generation.chain)) if generation else None

    def _read_pointers(self) -> tuple[str | None, ...]:
        return tuple(self._store.pointer(name) for name in (IdentityName.SIGNING, IdentityName.DEVICE))

    def _load(self) -> IdentityView:
        generation = self._store.current(IdentityName.SIGNING)
        return IdentityView(
            signing=ActiveKey.load(generation, self._keys) if generation else None,
            device=self._store.current(IdentityName.DEVICE),
        )

    def _check_usable(self, new: ActiveKey | None) -> None:
        """A certificate that is not valid yet must not replace one that is: clocks differ."""
        now, old = self._clock.now(), self.view.signing
        if new and old and not old.refusal(now) and (refusal := new.refusal(now)):
            raise refusal

    def _retry_is_due(self) -> bool:
        # A PIN that was refused is not tried again: tokens lock after a few wrong ones.
        refused = self.view.refused
        return refused is not None and not isinstance(refused, PinRefused) and self._clock.monotonic() > self._retry_at

    def _refuse(self, error: ScansealError) -> None:
        before = self.view.refused
        self.view = dataclasses.replace(self.view, refused=error)
        self._retry_at = self._clock.monotonic() + RETRY_SECONDS
        if str(before) != str(error):
            logger.error("The new generation is not used: %s", error)
            self._audit.record("identity-refused", {"code": error.code, "detail": error.what}, durable=True)


def _number(view: IdentityView) -> int:
    return view.signing.generation.number if view.signing else 0
