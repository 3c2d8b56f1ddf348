"""The one transaction behind enrollment and renewal: key -> request -> check -> commit -> collect.

    PLANNED    the name of the new key is written down
    GENERATED  the key is in its store
    SENT       the request may have reached the CA
    ISSUED     what the CA sent is on disk, unchecked
    VERIFIED   every check of `enroll.trust` passed, and the pair signs and verifies
    (commit)   the new generation is in use, by one rename
    (collect)  keys older than the generation before are destroyed (`enroll.collector`); their certificates stay

The generation in use is not touched before the commit. After a crash, a 202 or an unreachable CA the next run goes on
with the same key. It begins anew, and destroys the unused key, where the CA or `enroll.trust` refused, where something
else is asked for by now, where the key is lost or damaged, and after `PENDING_LIFETIME`. A token that is away or a PIN
that is refused ends the run instead: that can be put right, and the request goes on.

A key in memory is the keyholder's (`enroll.offer`): there is nothing to generate, and no pair to try, because whoever
signed the request has the key. The run begins with what is offered now. A request under way for another key is
forgotten; the process that held it has ended.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

from cryptography import x509

from enroll.certificates import check_pair, private_key_usage_period, public_key_info
from enroll.clock import Clock
from enroll.clock_sense import ClockSense, TimeSense
from enroll.collector import collect
from enroll.config import EnrollSettings, IdentitySettings, SigningIdentitySettings, StoreName
from enroll.csr import CertificateRequest, Usage
from enroll.errors import (
    CertificateRefused,
    EnrollmentError,
    EnrollmentRefused,
    KeyDamaged,
    KeyMismatch,
    KeyNotFound,
    KeyStoreError,
    StateDamaged,
    UnsupportedKey,
)
from enroll.flows.base import (
    LONGEST_WAIT,
    Enrollment,
    Flow,
    Handle,
    OfferedEnrollment,
    Pending,
    PlannedExchange,
    Refused,
)
from enroll.foreign import printable
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.journal import Journal, PendingRequest, Step
from enroll.keystore import KeyStores
from enroll.keystore.base import Protection, PublicKey
from enroll.leftover_files import remove_leftover_files
from enroll.offer import Offer, check_offer
from enroll.trust import VerifiedCertificate, check_issued, names_kept, public_key_info_of

PENDING_LIFETIME = timedelta(days=30)

_LOG = logging.getLogger(__name__)

_Certificates = tuple[x509.Certificate, ...]
_Asking = Enrollment | OfferedEnrollment
_Answer = tuple[_Certificates, _Certificates]  # issued, intermediates


@dataclass(frozen=True)
class NotAsked:
    """Nothing was done: the key of this identity is made by the agent, which has not asked for a certificate."""


def made_by_agent(identity: IdentityName, settings: EnrollSettings) -> bool:
    """Whether the agent makes the keys of an identity, in its memory, and asks for their certificates."""
    _, wanted = owned(identity, settings)
    return wanted.key_store is StoreName.MEMORY


def waiting_offer(identity: IdentityName, identities: IdentityStore, clock: Clock) -> Offer | None:
    """The offer that waits for its certificate; None where there is none, or nothing left to do for it.

    In doubt of the clock it waits if it does so by what the clock shows: no key is given up for a floor that the clock
    has raised while it was wrong, and a certificate for it would end the doubt.

    Raises:
        StateError: It is damaged.
    """
    return _waiting(identities.offer(identity), identities.readable(identity), ClockSense.of(clock).sense())


def issue(  # noqa: PLR0913 - the parts of a running enroller
    identity: IdentityName,
    settings: EnrollSettings,
    *,
    stores: KeyStores,
    identities: IdentityStore,
    flow: Flow,
    clock: Clock,
    journal: Journal | None = None,
    at_once: bool = False,
    answered: Callable[[], None] = lambda: None,
) -> Generation | Pending | NotAsked:
    """Get a new key and certificate for an identity, or go on with a request that is under way.

    Args:
        identity: Whose.
        settings: Of this scanner.
        stores: Where keys are made.
        identities: Where the new generation goes.
        flow: The way to the certificate.
        clock: The time.
        journal: Of the request; by default the one of the identity. Requests that are sent by hand have their own.
        at_once: Whether not to wait for the moment to come back that was named before.
        answered: Called when a server has answered, whatever it said.

    Returns:
        The generation that is in use now; or when to come back, where the CA has not decided yet; or that a key of the
        agent is what it takes, and none is offered.

    Raises:
        EnrollerBusy: Another process is enrolling.
        EnrollmentError: No certificate; the generation before is still in use.
        KeyStoreError: The key store refused; the generation before is still in use.
        StateError: The disk refused; the generation before is still in use.
    """
    usage, wanted = owned(identity, settings)
    request = flow.asks_for(CertificateRequest.for_device(settings.device, usage))
    with identities.lock():
        collect(identities, stores)
        journal = journal or identities.journal(identity)
        sense = ClockSense.configured(clock, identities)
        remove_leftover_files(identities.root, identities.files, sense.wall())
        sense.keep()
        run = _Transaction(identity, wanted, request, stores, identities, journal, flow, sense, answered).run
        return run(at_once=at_once)


def planned(
    identity: IdentityName, settings: EnrollSettings, *, identities: IdentityStore, flow: Flow
) -> tuple[PlannedExchange, ...]:
    """What `issue` would send to whom, as far as that can be told without the network."""
    usage, _ = owned(identity, settings)
    request = flow.asks_for(CertificateRequest.for_device(settings.device, usage))
    current = identities.readable(identity)
    renews = current.certificate if current and names_kept(current.certificate, request) else None
    return flow.plan(request, renews)


def asked_for(flow_name: str, wanted: IdentitySettings, request: CertificateRequest, offer: Offer | None = None) -> str:
    """What is asked for and how, as the journal keeps it; a request under way for anything else is of no use."""
    key = hashlib.sha256(public_key_info(offer.public_key)).hexdigest() if offer else ""
    return json.dumps({"flow": flow_name, "key": key, **asdict(wanted), **asdict(request)})


def owned(identity: IdentityName, settings: EnrollSettings) -> tuple[Usage, IdentitySettings]:
    """What a certificate of an identity is for, and how its next key is made."""
    by_name: dict[IdentityName, tuple[Usage, IdentitySettings]] = {
        IdentityName.IDEVID: (Usage.DEVICE, settings.identity.idevid),
        IdentityName.VENDOR: (Usage.SIGNING, settings.identity.vendor),
        IdentityName.DEVICE: (Usage.DEVICE, settings.identity.device),
        IdentityName.SIGNING: (Usage.SIGNING, settings.identity.signing),
        IdentityName.DERIVATION: (Usage.DERIVATION, settings.identity.derivation),
        IdentityName.SYNTHESIS: (Usage.SYNTHESIS, settings.identity.synthesis),
    }
    return by_name[identity]


def _moment(issued: _Certificates, public_key: PublicKey, sense: TimeSense) -> datetime:
    """The time at which to judge what a CA has issued for a key that was just made.

    In doubt of our clock it is the CA that knows the time: whatever the certificate begins with, it was made after the
    key. How long it lasts is judged in any case.
    """
    wanted = public_key_info(public_key)
    for certificate in issued if sense.doubt else ():
        if public_key_info_of(certificate) == wanted:
            begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
            moment = sense.within(begin, end)
            return moment if begin <= moment <= end else begin
    return sense.now


def _waiting(offer: Offer | None, current: Generation | None, sense: TimeSense) -> Offer | None:
    if offer is None:
        return None
    begin, end = private_key_usage_period(offer.request) or (None, None)
    now = sense.within(begin, end) if begin and end else sense.now
    return None if offer.is_over(current.certificate if current else None, now) else offer


@dataclass(frozen=True)
class _Transaction:
    identity: IdentityName
    wanted: IdentitySettings
    request: CertificateRequest
    stores: KeyStores
    identities: IdentityStore
    journal: Journal
    flow: Flow
    clock: ClockSense
    answered: Callable[[], None]

    def run(self, *, at_once: bool) -> Generation | Pending | NotAsked:
        now = self.clock.now()
        current = self.identities.readable(self.identity)
        pending = self._journaled()
        if pending and current and pending.key_uri == current.key_uri:
            # The run before ended between commit and clean-up.
            self.identities.settle(current)
            self.journal.clear()
            if self.wanted.key_store is not StoreName.MEMORY:
                return current
            pending = None
        offer = self._offer(current)
        if offer is None and self.wanted.key_store is StoreName.MEMORY:
            if pending:
                self._abandon()
            return NotAsked()
        asking = self._going_on(pending, offer, current, now) if pending else None
        if pending and asking is None:
            self._abandon()
        if pending and asking is not None:
            if pending.until and not at_once and now < pending.until <= now + LONGEST_WAIT:
                return Pending(pending.until, pending.reason)
            return self._finish(pending, asking)
        pending = self._taken(offer, now) if offer else self._generate(now)
        return self._finish(pending, self._asking(pending, offer, current))

    def _finish(self, pending: PendingRequest, asking: _Asking) -> Generation | Pending:
        issued = self._issued_before(pending)
        if issued is None:
            answer = self._ask(pending, asking)
            if isinstance(answer, Pending):
                return answer
            pending, issued = answer
        try:
            verified = check_issued(
                *issued,
                self.flow.anchors,
                public_key=asking.public_key,
                request=self.request,
                now=_moment(issued[0], asking.public_key, self.clock.sense()),
                seen=self.identities.certificates(),
                usage_period=None if isinstance(asking, Enrollment) else private_key_usage_period(asking.signed),
            )
            if isinstance(asking, Enrollment):
                check_pair(asking.key, verified.certificate)
        except (CertificateRefused, KeyMismatch):
            self._reject(asking.handle)
            self._abandon()
            raise
        if pending.step is not Step.VERIFIED:
            self._confirm(asking.handle, verified.certificate)
            self.journal.write(replace(pending, step=Step.VERIFIED, handle=asking.handle.text))
        return self._commit(pending.key_uri, asking.protection, verified)

    def _confirm(self, handle: Handle, certificate: x509.Certificate) -> None:
        """Without an answer the next run confirms again; a CA that says no, or knows nothing of it any more, had it."""
        try:
            was_told = self.flow.confirm(handle, certificate)
        except EnrollmentRefused as error:
            was_told = True
            _LOG.warning("The certificate of %s is used, its confirmation failed: %s", self.identity, error)
        if was_told:
            self.answered()

    def _reject(self, handle: Handle) -> None:
        try:
            self.flow.confirm(handle, None)
        except (EnrollmentError, KeyStoreError) as error:
            _LOG.warning("The CA does not know that its certificate for %s is not used: %s", self.identity, error)

    def _ask(self, pending: PendingRequest, asking: _Asking) -> tuple[PendingRequest, _Answer] | Pending:
        self.journal.write(pending)  # or a disk that is full would show only after the CA was asked, every time
        intermediates = self.flow.anchors_and_intermediates()
        sent = self.journal.write(replace(pending, step=Step.SENT, until=None, reason=""))
        try:
            answer = self.flow.enroll(asking)
        except CertificateRefused:  # by a flow that has to judge what came before it may end
            self._abandon()
            raise
        self.answered()
        if isinstance(answer, Refused):
            self._abandon()
            raise EnrollmentRefused(
                f"The CA refused: {answer.reason}.", remedy=answer.advice, who_must_act=answer.who_must_act
            )
        if isinstance(answer, Pending):
            answer = Pending(answer.until, printable(answer.reason))
            self.journal.write(replace(sent, until=answer.until, reason=answer.reason, handle=asking.handle.text))
            return answer
        sent = replace(sent, handle=asking.handle.text)
        return self.journal.write_issued(sent, answer.certificates, intermediates), (answer.certificates, intermediates)

    def _commit(self, key_uri: str, protection: Protection, verified: VerifiedCertificate) -> Generation:
        generation = self.identities.commit(
            self.identity,
            verified,
            key_uri,
            protection=protection,
            flow=self.flow.name,
            now=self.clock.now(),
        )
        self.journal.clear()
        self.clock.confirm(generation.certificate.not_valid_before_utc)
        collect(self.identities, self.stores)
        return generation

    def _journaled(self) -> PendingRequest | None:
        try:
            return self.journal.read()
        except StateDamaged as error:
            _LOG.warning("A request under way is forgotten: %s", error.what)
            self.journal.clear()
            return None

    def _issued_before(self, pending: PendingRequest) -> _Answer | None:
        if pending.step not in (Step.ISSUED, Step.VERIFIED):
            return None
        try:
            return self.journal.read_issued()
        except StateDamaged as error:
            _LOG.warning("What the CA issued is lost, it is asked again: %s", error.what)
            return None

    def _offer(self, current: Generation | None) -> Offer | None:
        """What is offered and waits, after it has proved to be what this identity asks for."""
        if not isinstance(self.wanted, SigningIdentitySettings) or self.wanted.key_store is not StoreName.MEMORY:
            return None
        offer = _waiting(self.identities.offer(self.identity), current, self.clock.sense())
        if offer is not None:
            check_offer(offer, self.request, self.wanted)
        return offer

    def _taken(self, offer: Offer, now: datetime) -> PendingRequest:
        _, _, name = offer.key_uri.partition(":")
        return self.journal.write(PendingRequest(Step.GENERATED, name, offer.key_uri, self._asked(offer), now))

    def _asking(self, pending: PendingRequest, offer: Offer | None, current: Generation | None) -> _Asking:
        """What to ask the CA with the key of a request, or with what its holder signed."""
        handle = Handle(pending.handle, lambda text: self._keep(pending, text))
        if offer is not None:
            return OfferedEnrollment(offer.request, self.request, offer.public_key, Protection.MEMORY, handle)
        in_use = current.certificate if current else None
        # A certificate with names that are no longer wanted is replaced, not renewed.
        renews = in_use if in_use and names_kept(in_use, self.request) else None
        uri = pending.key_uri
        return Enrollment(self.stores.load(uri), self.request, renews, self.stores.protection(uri), uri, handle)

    def _keep(self, pending: PendingRequest, handle: str) -> None:
        self.journal.write(replace(pending, step=Step.SENT, until=None, reason="", handle=handle))

    def _going_on(
        self, pending: PendingRequest, offer: Offer | None, current: Generation | None, now: datetime
    ) -> _Asking | None:
        """What was asked before; None where that is better begun anew.

        No certificate in use depends on the key of a request under way, so nothing is lost with it.
        """
        too_old = now > pending.started_at + PENDING_LIFETIME
        if pending.step is Step.PLANNED or pending.asked != self._asked(offer) or too_old:
            return None
        try:
            try:
                return self._asking(pending, offer, current)
            except KeyNotFound:  # or so says a token in a bad moment; begun anew, it would lose the key for good
                return self._asking(pending, offer, current)
        except (KeyNotFound, KeyDamaged, UnsupportedKey) as error:
            _LOG.warning("A request under way is begun anew: %s", error.what)
            return None

    def _generate(self, now: datetime) -> PendingRequest:
        # Without a store there is no request, so none is written down.
        self.stores.check(self.wanted.key_store, self.wanted.token)
        name = f"{self.identity}-{secrets.token_hex(8)}"
        planned = self.journal.write(PendingRequest(Step.PLANNED, name, "", self._asked(), now))
        uri = self.stores.generate(self.wanted.key_store, name, self.wanted.key_algorithm, self.wanted.token)
        return self.journal.write(replace(planned, step=Step.GENERATED, key_uri=uri))

    def _abandon(self) -> None:
        """Forget the request, and destroy its key, which nothing names any more."""
        self.journal.clear()
        collect(self.identities, self.stores)

    def _asked(self, offer: Offer | None = None) -> str:
        return asked_for(self.flow.name, self.wanted, self.request, offer)
