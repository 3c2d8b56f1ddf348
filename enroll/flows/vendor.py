"""The vendor's provisioning service: EST (RFC 7030) under the vendor's label.

| identity | what it is                                | first                 | afterwards                            |
|----------|-------------------------------------------|-----------------------|---------------------------------------|
| idevid   | the factory identity (IEEE 802.1AR)       | with a service ticket | with another ticket, never by itself: |
|          |                                           |                       | it has no end                         |
| vendor   | signs original images for this device, or | with a service ticket | simplereenroll, with the factory      |
|          | for this device at one customer's         |                       | identity as TLS client                |

The ticket (`enroll.vendor.ticket`) goes along as a bearer token (RFC 6750). Its nonce is the challengePassword of the
request (RFC 2985 5.4.1), which is signed with the key that is to be certified: so it is no use to anybody else.
The service gives the same certificate again for the same key; nothing is lost where an answer was.

What was imported (`enroll.vendor.vendor_wide`) does not come from here and is not renewed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from cryptography import x509

from enroll import csr
from enroll.clock import Clock
from enroll.csr import CertificateRequest
from enroll.errors import VENDOR_SERVICE, CertificateRefused, ConfigurationError, StateDamaged
from enroll.est.authentication import BearerToken
from enroll.est.client import EstClient, address
from enroll.flows.base import (
    Enrollment,
    FlowContext,
    Issued,
    NothingToConfirm,
    OfferedEnrollment,
    Pending,
    PlannedExchange,
    Refused,
)
from enroll.http import HttpsSession
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.proves import Proves, proves
from enroll.revocation.record import RevocationRecords
from enroll.tls import ClientIdentity, client_context
from enroll.trust import read_anchors
from enroll.vendor.case import KeptTicket, ServiceCase

_NEW_TICKET = "Ask the vendor's service for a ticket: scanseal enroll vendor request"
_Proof = KeptTicket | Generation


@dataclass(frozen=True)
class VendorFlow(NothingToConfirm):
    """The provisioning service; closes its session at the end of a `with` block.

    Args:
        client: Speaks EST with it; carries the proof.
        proof: What this side proves itself with: a ticket, or the factory identity.
        identity: What is asked for.
        clock: For the dates of a ticket.
        anchors: What it issues must lead to them.
    """

    client: EstClient
    proof: _Proof
    identity: IdentityName
    clock: Clock
    anchors: tuple[x509.Certificate, ...]

    name = "vendor"

    @classmethod
    def connect(cls, identity: IdentityName, context: FlowContext) -> Self:
        """The configured service, with what this side proves itself with for a certificate of `identity`.

        Raises:
            ScansealError: Nothing to prove itself with, or the configuration is incomplete.
        """
        settings = context.settings.vendor
        if not settings.url:
            raise ConfigurationError(
                "[vendor] url is not set.", remedy="Set the https address of the vendor's service."
            )
        anchors = read_anchors(settings.anchor_file, context.files, "[vendor]")
        proof = _proof(identity, context)
        token = client = None
        if isinstance(proof, KeptTicket):
            token = BearerToken(proof.text, _NEW_TICKET)
        else:
            client = ClientIdentity(context.identities.chain_file(proof), context.stores.tls_key(proof.key_uri))
        session = HttpsSession(client_context(anchors, client), context.clock, settings.timeout)
        est = EstClient(address(settings.url, settings.label), session, context.clock, token)
        return cls(est, proof, identity, context.clock, anchors)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.session.close()

    def anchors_and_intermediates(self) -> tuple[x509.Certificate, ...]:
        """The vendor's CA certificates (RFC 7030 4.1); see `Flow`.

        Raises:
            ServerUnreachable: No answer, or the server cannot answer now.
            ProtocolViolation: The answer is no certs-only message.
        """
        return self.client.ca_certificates()

    def asks_for(self, request: CertificateRequest) -> CertificateRequest:
        """See `Flow`."""
        return request

    def plan(self, request: CertificateRequest, renews: x509.Certificate | None) -> tuple[PlannedExchange, ...]:
        """See `Flow`."""
        ticket = isinstance(self.proof, KeptTicket)
        proof = "the service ticket, and its nonce in the request" if ticket else "the factory identity"
        operation = "simpleenroll" if ticket or renews is None else "simplereenroll"
        return (
            PlannedExchange(f"{self.client.base}/cacerts", "GET: the certificates of the vendor's CA", "nothing"),
            PlannedExchange(f"{self.client.base}/{operation}", f"POST: {request.text}", proof),
        )

    def enroll(self, enrollment: Enrollment | OfferedEnrollment) -> Issued | Pending | Refused:
        """Ask once for a certificate; see `Flow`.

        Raises:
            EnrollmentRefused: The ticket is not for this device, or not any more.
            ServerUnreachable: No answer, or the server cannot answer now.
            ProtocolViolation: The answer is none that EST allows.
        """
        if isinstance(enrollment, OfferedEnrollment):
            raise ConfigurationError(
                "The vendor certifies no key in the memory of the agent.", remedy="Choose another key_store."
            )
        answer = self._ask(enrollment)
        if not isinstance(answer, Refused):
            return answer
        # The advice of EST is about the rules of a hospital's CA.
        return Refused(answer.reason, VENDOR_SERVICE, _NEW_TICKET)

    def _ask(self, asked: Enrollment) -> Issued | Pending | Refused:
        if isinstance(self.proof, KeptTicket):
            ticket = self.proof.ticket
            # An early and friendly error; whether the ticket counts, the service decides.
            ticket.check(asked.request.serial_number, ticket.nonce, self.identity, self.clock.now())
            nonce = ticket.nonce
            return self.client.simple_enroll(
                csr.build(asked.key, asked.request, protection=asked.protection, challenge_password=nonce)
            )
        request = csr.build(asked.key, asked.request, asked.renews, protection=asked.protection)
        operation = self.client.simple_enroll if asked.renews is None else self.client.simple_reenroll
        return operation(request)


def _proof(identity: IdentityName, context: FlowContext) -> _Proof:
    """A ticket that is good; without one the factory identity, for what it may renew."""
    current = context.identities.readable(identity)
    ticket = _ticket(identity, current, context)
    if ticket is not None and context.clock.now() < ticket.ticket.expires_at:
        return ticket
    is_wide = current is not None and proves(current.certificate) is Proves.VENDOR
    if identity is IdentityName.VENDOR and current is not None and not is_wide:
        factory = context.identities.current(IdentityName.IDEVID)
        if factory is not None:
            try:
                RevocationRecords(context.identities).check_not_revoked(factory)
            except CertificateRefused as error:
                raise error.of_our_own() from error
            return factory
    if ticket is not None:
        return ticket  # it says itself that it has expired
    if is_wide:
        raise ConfigurationError(
            "The certificate of the identity vendor was imported, and the vendor's service does not renew it.",
            remedy="Get the next one from the vendor, and run: scanseal enroll vendor import. Or get one of this "
            "device, with a ticket: scanseal enroll vendor request",
        )
    raise ConfigurationError(
        f"There is no service ticket for the identity {identity}.", remedy=_NEW_TICKET, code="ticket-missing"
    )


def _ticket(identity: IdentityName, current: Generation | None, context: FlowContext) -> KeptTicket | None:
    """The ticket that was accepted last, where it is for this identity and nothing came after it."""
    kept = ServiceCase(context.settings.state_directory, context.files).ticket()
    if kept is None or identity not in kept.ticket.identities:
        return None
    # What ended between commit and clean-up has to be connected once more, though nothing is asked.
    is_spent = current is not None and kept.is_older_than(current) and not _is_left_over(current, context.identities)
    return None if is_spent else kept


def _is_left_over(current: Generation, identities: IdentityStore) -> bool:
    """Whether the request of the generation in use still stands in the journal."""
    try:
        pending = identities.journal(current.identity).read()
        return pending is not None and pending.key_uri == current.key_uri
    except StateDamaged:
        return False  # the transaction forgets it
