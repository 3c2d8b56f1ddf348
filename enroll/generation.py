"""The identities of a scanner, and one generation of one of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cryptography import x509

from enroll.errors import StateDamaged
from enroll.keystore.base import Protection


class IdentityName(StrEnum):
    """The identities of a scanner: from its vendor, of its owner, and those that sign.

    The vendor's two stay when the owner changes: the factory identity (IEEE 802.1AR IDevID), and what signs original
    images where the owner has no CA. What signs original images, what is made from them, and what a model makes, are
    three keys with three certificates.
    """

    IDEVID = "idevid"
    VENDOR = "vendor"
    DEVICE = "device"
    SIGNING = "signing"
    DERIVATION = "derivation"
    SYNTHESIS = "synthesis"


VENDORS_IDENTITIES = frozenset({IdentityName.IDEVID, IdentityName.VENDOR})  # all others are the owner's


@dataclass(frozen=True)
class Generation:
    """One key and certificate of an identity.

    Args:
        identity: Whose.
        number: Counts from 1.
        certificate: Passed every check of `enroll.trust` when it came.
        chain: Its intermediates; the anchor is left out.
        key_uri: The name of its key.
        protection: Where the key really lives.
        flow: The way it came.
        committed_at: When it came.
        damaged_newer: The number of the generation that should be in use and is damaged, so that this one is.
    """

    identity: IdentityName
    number: int
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    key_uri: str
    protection: Protection
    flow: str
    committed_at: datetime
    damaged_newer: int | None = None

    @property
    def damage(self) -> StateDamaged | None:
        """What is the matter with the generation that should be in use."""
        if self.damaged_newer is None:
            return None
        return StateDamaged(
            f"Generation {self.damaged_newer} of the identity {self.identity} is damaged; generation {self.number} "
            "is in use, the one before.",
            remedy="Look at the disk.",
            what_next="The next run of scanseal renew replaces it with a new one, by itself where it came so.",
        )
