"""What a key must be before it signs on this scanner. A key that is not is refused; no other takes its place."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.audit import AuditTrail
from agent.config import SigningSettings
from agent.daemon.active_key import ActiveKey
from agent.daemon.self_benchmark import measure
from agent.daemon.wire import HashName
from agent.errors import KeyRefused
from enroll.clock import Clock
from enroll.config import IdentitiesSettings, StoreName
from enroll.identity import IdentityName
from enroll.keystore.base import Protection
from enroll.keystore.tokenuri import TokenUri

_TOKENS = (StoreName.PKCS11, StoreName.TPM)


@dataclass(frozen=True)
class Demands:
    """What `[signing]` asks of keys.

    Args:
        require_hardware: Whether a key has to live in hardware.
        images_per_second: How many signatures a token has to make for original images; 0 for any.
        hash_name: The hash with which that is measured.
        threads: Signatures at the same time.
        originals: The identity that signs original images.
    """

    require_hardware: bool = False
    images_per_second: int = 0
    hash_name: HashName = HashName.SHA256
    threads: int = 1
    originals: IdentityName = IdentityName.SIGNING

    @classmethod
    def of(cls, signing: SigningSettings, threads: int) -> Demands:
        """The demands of `[signing]`."""
        originals = IdentityName(signing.identity)
        return cls(signing.require_hardware, signing.images_per_second, signing.hash, threads, originals)

    def check_stores(self, identities: IdentitiesSettings) -> None:
        """Refuse a configuration in which the next key could not be used.

        Raises:
            KeyRefused: It asks for hardware, and makes keys elsewhere.
        """
        if not self.require_hardware:
            return
        from_vendor = self.originals is IdentityName.VENDOR
        stores = {
            self.originals: (identities.vendor if from_vendor else identities.signing).key_store,
            IdentityName.DERIVATION: identities.derivation.key_store,
            IdentityName.SYNTHESIS: identities.synthesis.key_store,
        }
        for name, store in stores.items():
            # Most scanners never have the other two, and leave their options as they are.
            if store is StoreName.MEMORY or (store is StoreName.SOFTWARE and name is self.originals):
                raise _not_in_hardware(name, f'[identity.{name}] key_store is "{store}"')

    def met_by(self, key: ActiveKey, before: ActiveKey | None, audit: AuditTrail, clock: Clock) -> ActiveKey:
        """The key with what was found out about it.

        Args:
            key: Is about to sign.
            before: Signs until then. A token that signs is not measured again: its images would have to wait, and make
                it look slow.
            audit: Hears of what was measured.
            clock: Measures.

        Raises:
            KeyRefused: The key is not what is demanded.
            KeyStoreError: The token failed while it was measured.
        """
        generation = key.generation
        if self.require_hardware and key.protection is not Protection.HARDWARE:
            raise _not_in_hardware(generation.identity, f"the key of generation {generation.number} is not in hardware")
        if before is not None and _what_signs(before) == _what_signs(key):
            return replace(key, signatures_per_second=before.signatures_per_second)
        in_token = _store_of(key) in _TOKENS
        if not (self.images_per_second and in_token and generation.identity is self.originals):
            return key
        rate = measure(key, self.hash_name, self.images_per_second, self.threads, clock)
        fields: dict[str, str | int] = {
            "identity": generation.identity,
            "key_generation": generation.number,
            "signatures_per_second": round(rate),
            "images_per_second": self.images_per_second,
        }
        audit.record("self-benchmark", fields, durable=True)
        if rate < self.images_per_second:
            raise KeyRefused(
                f"The token of the identity {generation.identity} makes {rate:.1f} signatures per second, and the "
                f"scanner makes {self.images_per_second} images.",
                remedy=f'Set [identity.{generation.identity}] key_store = "memory", take a faster token, or correct '
                "[signing] images_per_second.",
                code="key-too-slow",
            )
        return replace(key, signatures_per_second=round(rate, 1))


def _store_of(key: ActiveKey) -> str:
    return key.generation.key_uri.partition(":")[0]


def _what_signs(key: ActiveKey) -> tuple[str, str, int]:
    """What the rate depends on: the store, the token and the length of the key."""
    store = _store_of(key)
    token = TokenUri.parse(key.generation.key_uri).token if store == StoreName.PKCS11 else ""
    return store, token, key.key.key_size


def _not_in_hardware(name: IdentityName, found: str) -> KeyRefused:
    return KeyRefused(
        f"[signing] require_hardware is true, but {found}.",
        remedy=f'Set [identity.{name}] key_store to "pkcs11" or "tpm" with a token in hardware and enroll again, or '
        "set require_hardware = false.",
        code="hardware-required",
    )
