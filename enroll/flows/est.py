"""The hospital's CA over Enrollment over Secure Transport (RFC 7030); the protocol is in `enroll.est`.

A device proves itself with the first of these that serves:

| what                                     | for which identity                        |
|------------------------------------------|-------------------------------------------|
| the certificate of the device identity   | every one                                 |
| the factory identity (IEEE 802.1AR)      | the device identity                       |
| user name and password                   | the device identity                       |

So the device identity gets its first certificate, and a new one where the one it has expired, was lost or is of
another CA. The others need the device identity. Where a server wants the password beside a certificate, it asks for it
and gets it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeVar

from cryptography import x509

from enroll.anchors import KeptAnchors
from enroll.csr import CertificateRequest
from enroll.errors import (
    HOSPITAL_IT,
    CertificateRefused,
    ConfigurationError,
    EnrollmentError,
    KeyDamaged,
    KeyMismatch,
    KeyNotFound,
    ScansealError,
    StateError,
    StateUnreadable,
    UnsupportedKey,
)
from enroll.est.authentication import Password
from enroll.est.client import CA_CERTIFICATES_REFUSED, CERTS_ONLY, EstClient, address, read_ca_certificates
from enroll.est.first_password import first_password
from enroll.est.first_trust import FirstTrust
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
from enroll.http import CLIENT_CERTIFICATE_REFUSED, HttpsSession, get_unverified
from enroll.identity import Generation, IdentityName
from enroll.revocation.record import RevocationRecords
from enroll.tls import ClientIdentity, client_context
from enroll.trust import verify_chain

_LOG = logging.getLogger(__name__)
_DOES_NOT_SERVE = (StateError, KeyNotFound, KeyDamaged, KeyMismatch, UnsupportedKey, CertificateRefused)
Result = TypeVar("Result")
_IF_ASKED = ", and the password if the server asks for it"


@dataclass(frozen=True)
class Proof:
    """What this side proves itself with at the server.

    Args:
        name: For people.
        certificate: What the connection shows; None for nothing.
        client: The same with its key.
        password: Sent where the server asks for it.
    """

    name: str
    certificate: x509.Certificate | None = None
    client: ClientIdentity | None = None
    password: Password | None = None


class EstFlow(NothingToConfirm):
    """An EST server; closes its session at the end of a `with` block.

    Args:
        identity: What certificates are asked for.
        context: The parts of the enroller.
    """

    name = "est"

    def __init__(self, identity: IdentityName, context: FlowContext) -> None:
        self._context = context
        self._settings = context.settings.est
        self._base = address(self._settings.url, self._settings.label)
        directory = context.settings.state_directory / "anchors"
        self._trust = FirstTrust(self._settings, directory, context.files)
        self._kept = KeptAnchors(directory, context.files)
        self._pinned = self._trust.pinned()
        self.anchors = self._kept.read(self.name, self._pinned) if self._pinned else ()
        self._identity = identity
        self._sources = self._ways_to_prove()
        self._obstacles: list[ScansealError] = []
        self._proof = Proof("nothing")
        self._client: EstClient | None = None

    @classmethod
    def connect(cls, identity: IdentityName, context: FlowContext) -> Self:
        """The configured server, with what this side proves itself with for a certificate of `identity`.

        Raises:
            ScansealError: Nothing to prove itself with, or the configuration is incomplete.
        """
        if not context.settings.est.url:
            raise ConfigurationError("[est] url is not set.", remedy="Set the https address of the EST server.")
        flow = cls(identity, context)
        flow._prepare()
        return flow

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def anchors_and_intermediates(self) -> tuple[x509.Certificate, ...]:
        """The CA certificates (RFC 7030 4.1); those that an anchor has been rolled over to are anchors now.

        Raises:
            ServerUnreachable: No answer, or the server cannot answer now.
            ProtocolViolation: The answer is no certs-only message.
            CertificateRefused: None of them has the fingerprint that is configured.
        """
        offered = self._ca_certificates()
        self.anchors = self._kept.roll_over(self.name, self._pinned, offered, self._context.clock.now())
        return offered

    def asks_for(self, request: CertificateRequest) -> CertificateRequest:
        """See `Flow`."""
        return request

    def plan(self, request: CertificateRequest, renews: x509.Certificate | None) -> tuple[PlannedExchange, ...]:
        """See `Flow`."""
        url, what = f"{self._base}/cacerts", "GET: the certificates of the CA"
        fetched = PlannedExchange(url, f"{what}, unverified, to find the one with the fingerprint", "nothing")
        proof = self._proof
        operation = "simpleenroll" if renews is None or renews != proof.certificate else "simplereenroll"
        # The connection shows a certificate, so that goes along with everything; a password waits to be asked for.
        shown = proof.name if proof.certificate else "nothing"
        sent = f"{proof.name}{_IF_ASKED}" if proof.certificate and proof.password else proof.name
        exchanges = (
            PlannedExchange(url, what, shown),
            PlannedExchange(f"{self._base}/csrattrs", "GET: what a request should hold", shown),
            PlannedExchange(f"{self._base}/{operation}", f"POST: {request.text}", sent),
        )
        return exchanges if self.anchors else (fetched, *exchanges)

    def enroll(self, enrollment: Enrollment | OfferedEnrollment) -> Issued | Pending | Refused:
        """Ask once for a certificate (RFC 7030 4.2); see `Flow`.

        Re-enrollment is for the holder of the certificate itself, so it is tied to the certificate of the connection.

        Raises:
            ServerUnreachable: No answer, or the server cannot answer now.
            ProtocolViolation: The answer is none that EST allows.
        """
        client = self._connection()
        renews = enrollment.renews if isinstance(enrollment, Enrollment) else None
        return client.enroll(enrollment, renews if renews == self._proof.certificate else None)

    def _ca_certificates(self) -> tuple[x509.Certificate, ...]:
        """Ask; the first exchange of a connection shows whether the server takes the certificate of this side."""
        client = self._connection()
        while True:
            try:
                return client.ca_certificates()
            except EnrollmentError as error:
                if error.code not in (CLIENT_CERTIFICATE_REFUSED, CA_CERTIFICATES_REFUSED):
                    raise
                _LOG.warning("The server does not take %s: %s", self._proof.name, error.what)
                self._obstacles = [error]
                client = self._next_client()

    def _prepare(self) -> None:
        """Everything that comes before the network: what can be wrong on this side is said before anything is sent."""
        if self.anchors:
            self._next_client()
        else:
            self._proof = self._with_next_proof(lambda proof: proof)

    def _connection(self) -> EstClient:
        if self._client is not None:
            return self._client
        if not self.anchors:
            self._pinned = self._trust.pin(self._unverified_ca_certificates())
            self.anchors = self._kept.read(self.name, self._pinned)
            self._sources, self._obstacles = self._ways_to_prove(), []  # now the device identity can be judged
        return self._next_client()

    def _ways_to_prove(self) -> list[Callable[[], Proof]]:
        if self._identity is not IdentityName.DEVICE:
            return [self._device_identity]
        password = [self._password_alone] if self._settings.username else []
        return [self._device_identity, self._factory_identity, *password]

    def _open(self, proof: Proof) -> EstClient:
        clock, timeout = self._context.clock, self._settings.timeout
        session = HttpsSession(client_context(self.anchors, proof.client), clock, timeout)
        self._close()
        self._proof, self._client = proof, EstClient(self._base, session, clock, proof.password)
        return self._client

    def _close(self) -> None:
        if self._client is not None:
            self._client.session.close()

    def _unverified_ca_certificates(self) -> tuple[x509.Certificate, ...]:
        url, headers = f"{self._base}/cacerts", {"Accept": CERTS_ONLY}
        clock = self._context.clock
        return read_ca_certificates(get_unverified(url, headers, clock, self._settings.timeout), clock.now())

    def _next_client(self) -> EstClient:
        return self._with_next_proof(self._open)

    def _with_next_proof(self, use: Callable[[Proof], Result]) -> Result:
        """With the best proof that is left; each is tried once.

        Raises:
            ScansealError: None serves; what is the matter with the best of them.
        """
        while self._sources:
            try:
                return use(self._sources.pop(0)())
            except StateUnreadable:
                raise  # it may be the best of all, seen by the wrong user
            except _DOES_NOT_SERVE as error:
                _LOG.info("One way to prove what this scanner is does not serve: %s", error.what)
                self._obstacles.append(error.of_our_own() if isinstance(error, CertificateRefused) else error)
        raise self._obstacles[0]

    def _device_identity(self) -> Proof:
        device = self._context.identities.current(IdentityName.DEVICE)
        if device is None:
            raise StateError(
                "This scanner has no device identity yet.",
                remedy="Set [est] username and password_file, then enroll the identity device first.",
                code="device-not-enrolled",
            )
        end = device.certificate.not_valid_after_utc
        if self._context.clock.now() > end:
            raise CertificateRefused(
                f"The certificate of the device identity has expired on {end:%Y-%m-%d %H:%M} UTC, and proves nothing "
                "any more.",
                remedy="Set [est] username and password_file, or get a factory identity that the CA knows (scanseal "
                "enroll vendor).",
                code="certificate-wrong-dates",
                who_must_act=HOSPITAL_IT,
            )
        if self.anchors:
            verify_chain(device.certificate, device.chain, self.anchors, self._context.clock.now())
        RevocationRecords(self._context.identities).check_not_revoked(device)
        return self._with_certificate(device, "the certificate of the device identity")

    def _factory_identity(self) -> Proof:
        """It leads to the vendor's CA, so it is for the server to judge."""
        factory, now = self._context.identities.current(IdentityName.IDEVID), self._context.clock.now()
        if factory is None:
            raise StateError("This scanner has no factory identity.", code="factory-not-enrolled")
        if not factory.certificate.not_valid_before_utc <= now <= factory.certificate.not_valid_after_utc:
            raise CertificateRefused("The factory identity is not valid at this time.", code="certificate-wrong-dates")
        RevocationRecords(self._context.identities).check_not_revoked(factory)
        return self._with_certificate(factory, "the factory identity")

    def _password_alone(self) -> Proof:
        return Proof("the password of the first enrollment", password=self._password())

    def _with_certificate(self, generation: Generation, name: str) -> Proof:
        chain_file = self._context.identities.chain_file(generation)
        client = ClientIdentity(chain_file, self._context.stores.tls_key(generation.key_uri))
        password = None
        try:
            password = self._password() if self._settings.username else None
        except ConfigurationError as error:
            _LOG.info("There is no password beside the certificate: %s", error.what)
        return Proof(name, generation.certificate, client, password)

    def _password(self) -> Password:
        return first_password(self._settings, self._context.files)
