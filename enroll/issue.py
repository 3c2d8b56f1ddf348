"""The one transaction behind enrollment and renewal: key -> request -> check -> commit -> retire.

    PLANNED    the name of the new key is written down
    GENERATED  the key is in its store
    SENT       the request may have reached the CA
    ISSUED     what the CA sent is on disk, unchecked
    VERIFIED   every check of `enroll.trust` passed, and the pair signs and verifies
    (commit)   the new generation is in use, by one rename
    (retire)   keys older than the generation before are destroyed; their certificates stay

The generation in use is not touched before the commit. After a crash, a 202 or an unreachable CA the next run goes on
with the same key. It begins anew, and destroys the unused key, where the CA or `enroll.trust` refused, where something
else is asked for by now, where the key is lost or damaged, and after `PENDING_LIFETIME`. A token that is away or a PIN
that is refused ends the run instead: that can be put right, and the request goes on.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

from cryptography import x509

from enroll.certificates import check_pair
from enroll.clock import Clock
from enroll.config import EnrollSettings, IdentitySettings
from enroll.csr import CertificateRequest, Usage
from enroll.errors import (
    CertificateRefused,
    ConfigurationError,
    EnrollmentRefused,
    KeyDamaged,
    KeyMismatch,
    KeyNotFound,
    KeyStoreError,
    StateError,
    StateUnreadable,
    UnsupportedKey,
)
from enroll.flows.base import LONGEST_WAIT, Enrollment, Flow, Pending, Refused
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.journal import Journal, PendingRequest, Step
from enroll.keystore import KeyStores
from enroll.keystore.base import PrivateKey
from enroll.trust import VerifiedCertificate, check_issued, names_kept

PENDING_LIFETIME = timedelta(days=30)

_LOG = logging.getLogger(__name__)

_Certificates = tuple[x509.Certificate, ...]
_Answer = tuple[_Certificates, _Certificates]  # issued, intermediates


def issue(  # noqa: PLR0913 - the parts of a running enroller
    identity: IdentityName,
    settings: EnrollSettings,
    *,
    stores: KeyStores,
    identities: IdentityStore,
    flow: Flow,
    anchors: Sequence[x509.Certificate],
    clock: Clock,
) -> Generation | Pending:
    """Get a new key and certificate for an identity, or go on with a request that is under way.

    Returns:
        The generation that is in use now; or when to come back, where the CA has not decided yet.

    Raises:
        EnrollerBusy: Another process is enrolling.
        EnrollmentError: No certificate; the generation before is still in use.
        KeyStoreError: The key store refused; the generation before is still in use.
        StateError: The disk refused; the generation before is still in use.
        ConfigurationError: This identity is not enrolled by its owner.
    """
    owned: dict[IdentityName, tuple[Usage, IdentitySettings]] = {
        IdentityName.DEVICE: (Usage.DEVICE, settings.identity.device),
        IdentityName.SIGNING: (Usage.SIGNING, settings.identity.signing),
        IdentityName.DERIVATION: (Usage.DERIVATION, settings.identity.derivation),
        IdentityName.SYNTHESIS: (Usage.SYNTHESIS, settings.identity.synthesis),
    }
    if identity not in owned:
        raise ConfigurationError(f"{identity} comes from the vendor.", remedy=f"Enroll one of: {', '.join(owned)}.")
    usage, wanted = owned[identity]
    request = CertificateRequest.for_device(settings.device, usage)
    with identities.lock():
        journal = identities.journal(identity)
        return _Transaction(identity, wanted, request, stores, identities, journal, flow, tuple(anchors), clock).run()


@dataclass(frozen=True)
class _Transaction:
    identity: IdentityName
    wanted: IdentitySettings
    request: CertificateRequest
    stores: KeyStores
    identities: IdentityStore
    journal: Journal
    flow: Flow
    anchors: tuple[x509.Certificate, ...]
    clock: Clock

    def run(self) -> Generation | Pending:
        now = self.clock.now()
        current = self._current()
        pending = self._journaled()
        if pending and current and pending.key_uri == current.key_uri:
            # The run before ended between commit and clean-up.
            self.journal.clear()
            return current
        key = self._key_to_go_on_with(pending, now) if pending else None
        if pending and key is None:
            self._abandon(pending)
        if pending and key is not None:
            if pending.until and now < pending.until <= now + LONGEST_WAIT:
                return Pending(pending.until, pending.reason)
            return self._finish(pending, key, current)
        pending = self._generate(now)
        return self._finish(pending, self.stores.load(pending.key_uri), current)

    def _finish(self, pending: PendingRequest, key: PrivateKey, current: Generation | None) -> Generation | Pending:
        in_use = current.certificate if current else None
        issued = self._issued_before(pending)
        if issued is None:
            answer = self._ask(pending, key, in_use)
            if isinstance(answer, Pending):
                return answer
            issued = answer
        try:
            verified = check_issued(
                *issued,
                self.anchors,
                public_key=key.public_key(),
                request=self.request,
                now=self.clock.now(),
                in_use=in_use,
            )
            check_pair(key, verified.certificate)
        except (CertificateRefused, KeyMismatch):
            self._abandon(pending)
            raise
        self.journal.write(replace(pending, step=Step.VERIFIED))
        return self._commit(pending.key_uri, verified, current)

    def _ask(self, pending: PendingRequest, key: PrivateKey, in_use: x509.Certificate | None) -> _Answer | Pending:
        intermediates = self.flow.anchors_and_intermediates()
        # A certificate with names that are no longer wanted is replaced, not renewed.
        renews = in_use if in_use and names_kept(in_use, self.request) else None
        sent = self.journal.write(replace(pending, step=Step.SENT, until=None, reason=""))
        answer = self.flow.enroll(Enrollment(key, self.request, renews))
        if isinstance(answer, Refused):
            self._abandon(sent)
            raise EnrollmentRefused(
                f"The CA refused: {answer.reason}.",
                remedy=f"Nothing was changed. To act: {answer.who_must_act}. {answer.advice}".rstrip(),
            )
        if isinstance(answer, Pending):
            self.journal.write(replace(sent, until=answer.until, reason=answer.reason))
            return answer
        self.journal.write_issued(sent, answer.certificates, intermediates)
        return answer.certificates, intermediates

    def _commit(self, key_uri: str, verified: VerifiedCertificate, current: Generation | None) -> Generation:
        generation = self.identities.commit(
            self.identity,
            verified,
            key_uri,
            protection=self.stores.protection(key_uri),
            flow=self.flow.name,
            now=self.clock.now(),
        )
        self.journal.clear()
        if current is not None:
            self._retire({generation.key_uri, current.key_uri})
        return generation

    def _retire(self, kept: set[str]) -> None:
        """Destroy the keys of all other generations. What fails is tried again after the next commit."""
        for number in self.identities.generations(self.identity):
            try:
                uri = self.identities.key_uri(self.identity, number)
                if uri not in kept:
                    self.stores.destroy(uri)
            except (StateError, KeyStoreError) as error:
                _LOG.warning("The key of generation %d of %s stays for now: %s", number, self.identity, error.what)

    def _current(self) -> Generation | None:
        try:
            return self.identities.current(self.identity)
        except StateUnreadable:
            raise
        except StateError as error:
            # Enrolling again is the way out of a damaged identity, so it must not stop here.
            _LOG.warning("The identity %s cannot be read and is enrolled anew: %s", self.identity, error.what)
            return None

    def _journaled(self) -> PendingRequest | None:
        try:
            return self.journal.read()
        except StateUnreadable:
            raise
        except StateError as error:
            _LOG.warning("A request under way is forgotten: %s", error.what)
            self.journal.clear()
            return None

    def _issued_before(self, pending: PendingRequest) -> _Answer | None:
        if pending.step not in (Step.ISSUED, Step.VERIFIED):
            return None
        try:
            return self.journal.read_issued()
        except StateError as error:
            _LOG.warning("What the CA issued is lost, it is asked again: %s", error.what)
            return None

    def _key_to_go_on_with(self, pending: PendingRequest, now: datetime) -> PrivateKey | None:
        """The key of a request under way; None where the request is better begun anew.

        No certificate in use depends on this key, so nothing is lost with it.
        """
        if pending.step is Step.PLANNED or pending.asked != self._asked or now > pending.started_at + PENDING_LIFETIME:
            return None
        try:
            return self.stores.load(pending.key_uri)
        except (KeyNotFound, KeyDamaged, UnsupportedKey) as error:
            _LOG.warning("A request under way is begun anew: %s", error.what)
            return None

    def _generate(self, now: datetime) -> PendingRequest:
        self.stores.check(
            self.wanted.key_store, self.wanted.token
        )  # without a store there is no request, so none is written down
        name = f"{self.identity}-{secrets.token_hex(8)}"
        planned = self.journal.write(PendingRequest(Step.PLANNED, name, "", self._asked, now))
        uri = self.stores.generate(self.wanted.key_store, name, self.wanted.key_algorithm, self.wanted.token)
        return self.journal.write(replace(planned, step=Step.GENERATED, key_uri=uri))

    def _abandon(self, pending: PendingRequest) -> None:
        """Destroy the unused key and forget the request."""
        try:
            uris = [pending.key_uri] if pending.key_uri else [u for u in self.stores.list() if pending.key_name in u]
            for uri in uris:
                self.stores.destroy(uri)
        except KeyStoreError as error:
            _LOG.warning("The unused key %s stays in its store: %s", pending.key_name, error.what)
        self.journal.clear()

    @property
    def _asked(self) -> str:
        """What is asked for and how; a request under way for anything else is of no use."""
        return json.dumps({"flow": self.flow.name, **asdict(self.wanted), **asdict(self.request)})
