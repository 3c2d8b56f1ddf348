"""An identity whose keys live in the keyholder's memory: makes them, offers them for a certificate, destroys them.

    made -> offered -> (the enroller commits a certificate) -> signs -> destroyed

The next key is made when two thirds of the time of the one that signs are over, and takes over as soon as its
certificate has come; then, or when its own time is over, the old one is destroyed. There are never more than two keys.
The keyholder keeps the usage period by itself, whatever the CA grants, and whoever sets the clock.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
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
from enroll.errors import ScansealError
from enroll.identity import IdentityName, IdentityStore
from enroll.keystore import KeyStores
from enroll.keystore.base import Protection
from enroll.offer import FILE_NAME, Offer, write_offer
from enroll.statefile import StateFiles

CLOCK_MARGIN = timedelta(minutes=5)  # the clocks of a scanner and of its CA differ
FIRST_DELAY = 5.0  # seconds until an offer that nobody answered is made again; doubled each time
LONGEST_DELAY = 600.0  # seconds
REPAIR_DELAY = 30.0  # seconds until a key that could not be made is made again

_NAME_BYTES = 8


@dataclass(frozen=True)
class HeldKey:
    """A key in memory.

    Args:
        uri: Its name.
        request: Asks for its certificate.
        made: When it was made.
        made_at: The same on the monotonic clock, which nobody can set.
        usage: When it may sign.
    """

    uri: str
    request: x509.CertificateSigningRequest = field(repr=False)
    made: datetime
    made_at: float
    usage: Period

    def age(self, clock: Clock) -> timedelta:
        """By the clock that says more: one may have been set back, the other stood still while the machine slept."""
        return max(clock.now() - self.made, timedelta(seconds=clock.monotonic() - self.made_at))

    def has_ended(self, clock: Clock) -> bool:
        """Whether its time to sign is over; or never comes, because it was made while the clock showed a later time."""
        return self.age(clock) >= self.usage.end - self.made or clock.now() < self.usage.begin


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
        made_at = self.clock.monotonic()
        usage = Period(now - CLOCK_MARGIN, now + timedelta(days=self.settings.key_lifetime))
        name = f"{self.name}-{secrets.token_hex(_NAME_BYTES)}"
        uri = self.stores.generate(StoreName.MEMORY, name, self.settings.key_algorithm)
        try:
            request = csr.build(
                self.stores.load(uri),
                csr.CertificateRequest.for_device(self.device, csr.Usage(self.name)),
                usage_period=(usage.begin, usage.end),
                protection=Protection.MEMORY,
            )
        except ScansealError:
            self.stores.destroy(uri)
            raise
        return HeldKey(uri, request, now, made_at, usage)


class MemoryIdentity:
    """The keys of one identity. Used by one thread only, but for `why_not_ready`.

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
        self._make_at = self._offer_at = maker.clock.monotonic()
        self._delay = FIRST_DELAY
        self._offered = ""
        self._expired_at: datetime | None = None
        self._unwritten: list[tuple[str, Mapping[str, str]]] = []
        self.offers = 0
        self._files.remove(self._pending / FILE_NAME)  # of an earlier process, whose key is gone

    def usage(self, uri: str) -> Period | None:
        """When a key may sign; nothing if this process does not hold it."""
        key = self._held(uri)
        return key.usage if key else None

    def has_ended(self, active: ActiveKey) -> bool:
        """Whether the time of a key is over: that which its certificate grants, or for which it was made."""
        key = self._held(active.generation.key_uri)
        return key is None or key.has_ended(self._maker.clock) or self._maker.clock.now() >= active.usage.end

    def why_not_ready(self) -> SigningError:
        """What to tell whoever wants a signature while no key can make one."""
        if (expired_at := self._expired_at) is not None:  # read once: another thread sets it
            return key_expired(expired_at)
        return AwaitingCertificate(
            f"The key of the {self._maker.name} identity was made and waits for its certificate.",
            remedy="You need do nothing: it is asked for automatically. If it lasts, `scanseal renew` says why it does "
            "not come.",
        )

    def tend(self, active: ActiveKey | None) -> None:
        """Do what is due; to be called at least once a second.

        Args:
            active: What signs now.

        Raises:
            KeyStoreError: The next key cannot be made.
            StateError: The disk refused.
        """
        clock = self._maker.clock
        signing = active.generation.key_uri if active else ""
        if self._next is not None and self._next.uri == signing:
            self._switch()
        if self._in_use is not None and self._in_use.uri != signing:
            ended, self._in_use = self._in_use, None
            self._expired_at = min(ended.usage.end, clock.now()) if ended.has_ended(clock) else None
            self._destroy(ended, "ended")
        if self._next is not None and (
            self._next.has_ended(clock) or not self._next.usage.covers(clock.now()) or self._is_taken_back(self._next)
        ):
            unused, self._next = self._next, None
            self._destroy(unused, "unused")
        if self._next is None and _next_is_due(active, self._in_use, clock):
            self._make()
        self._write_down()
        self._offer()

    def _is_taken_back(self, key: HeldKey) -> bool:
        """Whether somebody has removed the offer: the owner has given the scanner up, whose CA may know the request."""
        return key.uri == self._offered and not self._files.exists(self._pending / FILE_NAME)

    def _held(self, uri: str) -> HeldKey | None:
        return next((key for key in (self._in_use, self._next) if key and key.uri == uri), None)

    def _switch(self) -> None:
        replaced, self._in_use, self._next = self._in_use, self._next, None
        self._expired_at = None
        if replaced is not None:
            self._destroy(replaced, "replaced")
        self._files.remove(self._pending / FILE_NAME)

    def _make(self) -> None:
        moment = self._maker.clock.monotonic()
        if self._making is None and moment >= self._make_at:
            self._making = self._thread.submit(self._maker.make)
        if self._making is None or not self._making.done():
            return
        making, self._making, self._make_at = self._making, None, moment + REPAIR_DELAY
        self._next = made = making.result()
        self._make_at, self._offer_at, self._delay = moment, moment, FIRST_DELAY
        fields = {"identity": self._maker.name, "key": made.uri, "until": made.usage.end.isoformat()}
        self._unwritten.append(("memory-key-made", fields))

    def _offer(self) -> None:
        """Write the request, again and again until it is answered: whoever was started by it may have failed."""
        moment = self._maker.clock.monotonic()
        if self._next is None or moment < self._offer_at:
            return
        self._offer_at, self._delay = moment + self._delay, min(2 * self._delay, LONGEST_DELAY)
        write_offer(Offer(self._next.uri, self._next.request), self._pending, self._files)
        self._offered = self._next.uri
        self.offers += 1

    def _destroy(self, key: HeldKey, reason: str) -> None:
        self._maker.stores.destroy(key.uri)
        fields = {"identity": self._maker.name, "key": key.uri, "reason": reason}
        self._unwritten.append(("memory-key-destroyed", fields))

    def _write_down(self) -> None:
        """Record what was made and destroyed. A key is destroyed whether or not the disk has room to say so."""
        while self._unwritten:
            event, fields = self._unwritten[0]
            self._audit.record(event, fields, durable=True)
            del self._unwritten[0]


def _next_is_due(active: ActiveKey | None, in_use: HeldKey | None, clock: Clock) -> bool:
    if active is None or in_use is None:
        return True
    if active.revocation is not None and active.revocation.is_final:
        return True
    # A clock that was set back leaves a key that may not sign yet; it is replaced, too.
    return clock.now() < in_use.usage.begin or in_use.age(clock) >= (active.signs_until - in_use.made) * 2 / 3
