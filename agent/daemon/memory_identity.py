"""An identity whose keys live in the keyholder's memory: makes them, offers them for a certificate, destroys them.

    made -> offered -> (the enroller commits a certificate) -> signs -> destroyed

The next key is made when two thirds of the time of the one that signs are over, and takes over as soon as its
certificate has come; then, or when its own time is over, the old one is destroyed. There are never more than two keys.
The keyholder keeps the usage period by itself, whatever the CA grants.
"""

from __future__ import annotations

import secrets
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509

from agent.audit import AuditTrail
from agent.daemon.active_key import ActiveKey, Period, key_expired
from agent.errors import AwaitingCertificate, SigningError
from enroll import csr
from enroll.clock import Clock
from enroll.config import DeviceSettings, SigningIdentitySettings, StoreName
from enroll.identity import IdentityName, IdentityStore
from enroll.keystore import KeyStores
from enroll.keystore.base import Protection
from enroll.offer import FILE_NAME, Offer, write_offer
from enroll.statefile import StateFiles

CLOCK_MARGIN = timedelta(minutes=5)  # the clocks of a scanner and of its CA differ
FIRST_DELAY = 30.0  # seconds until an offer that nobody answered is made again; doubled each time
LONGEST_DELAY = 600.0  # seconds

_NAME_BYTES = 8


@dataclass(frozen=True)
class HeldKey:
    """A key in memory.

    Args:
        uri: Its name.
        request: Asks for its certificate.
        usage: When it may sign.
    """

    uri: str
    request: x509.CertificateSigningRequest = field(repr=False)
    usage: Period


@dataclass(frozen=True)
class KeyMaker:
    """How the keys of an identity are made.

    Args:
        name: Whose.
        settings: `[identity.NAME]`.
        device: `[device]`.
        stores: Where the keys are held.
        clock: The clocks.
    """

    name: IdentityName
    settings: SigningIdentitySettings
    device: DeviceSettings
    stores: KeyStores
    clock: Clock

    def make(self) -> HeldKey:
        """Make a key and the request for its certificate. Takes up to a second, so not for the main loop."""
        now = self.clock.now().replace(microsecond=0)  # as a certificate has it
        usage = Period(now - CLOCK_MARGIN, now + timedelta(days=self.settings.key_lifetime))
        name = f"{self.name}-{secrets.token_hex(_NAME_BYTES)}"
        uri = self.stores.generate(StoreName.MEMORY, name, self.settings.key_algorithm)
        request = csr.build(
            self.stores.load(uri),
            csr.CertificateRequest.for_device(self.device, csr.Usage(self.name)),
            usage_period=(usage.begin, usage.end),
            protection=Protection.MEMORY,
        )
        return HeldKey(uri, request, usage)


class MemoryIdentity:
    """The keys of one identity. Used by one thread only.

    Args:
        maker: Makes them.
        identities: Where they are offered.
        files: Writes there.
        audit: Hears of every key that is made or destroyed.
        thread: Where keys are made.

    Attributes:
        offers: How often a request has been offered to the enroller.
    """

    def __init__(
        self, maker: KeyMaker, identities: IdentityStore, files: StateFiles, audit: AuditTrail, thread: Executor
    ) -> None:
        self._maker = maker
        self._files = files
        self._audit = audit
        self._thread = thread
        self._pending = identities.directory(maker.name) / "pending"
        self._in_use: HeldKey | None = None
        self._next: HeldKey | None = None
        self._making: Future[HeldKey] | None = None
        self._offer_at = 0.0
        self._delay = FIRST_DELAY
        self._expired_at: datetime | None = None
        self.offers = 0
        self._files.remove(self._pending / FILE_NAME)  # of an earlier process, whose key is gone

    def usage(self, uri: str) -> Period | None:
        """When a key may sign; nothing if this process does not hold it."""
        return next((key.usage for key in (self._in_use, self._next) if key and key.uri == uri), None)

    def why_not_ready(self) -> SigningError:
        """What to tell whoever wants a signature while no key can make one."""
        if self._expired_at is not None:
            return key_expired(self._expired_at)
        return AwaitingCertificate(
            f"The key of the {self._maker.name} identity was made and waits for its certificate.",
            remedy="Nothing: it is asked for automatically. If it lasts, `scanseal renew` says why it does not come.",
        )

    def tend(self, active: ActiveKey | None) -> None:
        """Do what is due; to be called at least once a second.

        Args:
            active: What signs now.

        Raises:
            KeyStoreError: The next key cannot be made.
            StateError: The disk refused.
        """
        now = self._maker.clock.now()
        signing = active.generation.key_uri if active else ""
        if self._next is not None and self._next.uri == signing:
            self._switch()
        if self._in_use is not None and self._in_use.uri != signing:
            self._expired_at = None if self._in_use.usage.covers(now) else self._in_use.usage.end
            ended, self._in_use = self._in_use, None
            self._destroy(ended, "ended")
        if self._next is not None and not self._next.usage.covers(now):
            unused, self._next = self._next, None
            self._destroy(unused, "unused")
        if self._next is None and _next_is_due(active, self._in_use, now):
            self._make()
        self._offer()

    def _switch(self) -> None:
        replaced, self._in_use, self._next = self._in_use, self._next, None
        self._expired_at = None
        self._files.remove(self._pending / FILE_NAME)
        if replaced is not None:
            self._destroy(replaced, "replaced")

    def _make(self) -> None:
        if self._making is None:
            self._making = self._thread.submit(self._maker.make)
        if not self._making.done():
            return
        made, self._making = self._making, None
        self._next = made.result()
        self._offer_at, self._delay = self._maker.clock.monotonic(), FIRST_DELAY
        fields = {"identity": self._maker.name, "key": self._next.uri, "until": self._next.usage.end.isoformat()}
        self._audit.record("memory-key-made", fields, durable=True)

    def _offer(self) -> None:
        """Write the request, again and again until it is answered: whoever was started by it may have failed."""
        moment = self._maker.clock.monotonic()
        if self._next is None or moment < self._offer_at:
            return
        self._offer_at, self._delay = moment + self._delay, min(2 * self._delay, LONGEST_DELAY)
        write_offer(Offer(self._next.uri, self._next.request), self._pending, self._files)
        self.offers += 1

    def _destroy(self, key: HeldKey, reason: str) -> None:
        self._maker.stores.destroy(key.uri)
        fields = {"identity": self._maker.name, "key": key.uri, "reason": reason}
        self._audit.record("memory-key-destroyed", fields, durable=True)


def _next_is_due(active: ActiveKey | None, in_use: HeldKey | None, now: datetime) -> bool:
    if active is None or in_use is None:
        return True
    begin = in_use.usage.begin
    # A clock that was set back leaves a key that may not sign yet; it is replaced, too.
    return not begin <= now < begin + (active.signs_until - begin) * 2 / 3
