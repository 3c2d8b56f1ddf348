"""Where an owner's server has certificates from: the evaluation CA, or an EST server. NOT FOR PRODUCTION.

An EST server gets the request as the device made it, with the credentials of the pilot, whom it has to trust with that.
It cannot be one that wants requests linked to their connection (RFC 7030 3.5): that connection is not the device's. For
the same reason a renewal comes to it as a simpleenroll.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cryptography import x509

from enroll.certificates import PARSE_ERRORS, alternative_names, decode_base64, public_key_info
from enroll.clock import Clock
from enroll.errors import ConfigurationError, EnrollmentRefused, ProtocolViolation
from enroll.est import attributes
from enroll.est.authentication import Authorization
from enroll.est.client import EstClient
from enroll.evaluation.ca import EvaluationCa
from enroll.evaluation.est_attributes import CsrAttributes, csr_attributes, sequence
from enroll.flows.base import Pending, Refused
from enroll.http import HttpsSession
from enroll.tls import ClientIdentity, client_context

NOTHING_WANTED = sequence()  # CsrAttrs without an attribute


class CertificateSource(Protocol):
    """A CA, seen by an owner's server."""

    def ca_certificates(self) -> Sequence[x509.Certificate]:
        """Its certificates, at least one.

        Raises:
            EnrollmentError: It does not give them.
        """

    def csr_attributes(self) -> bytes:
        """What a request should hold: CsrAttrs in DER (RFC 7030 4.5.2).

        Raises:
            EnrollmentError: It does not say.
        """

    def issue(self, request: x509.CertificateSigningRequest) -> x509.Certificate:
        """A certificate for a request of a device that may have it.

        Raises:
            EnrollmentRefused: It says no.
            EnrollmentError: It does not answer as it should.
            StateError: What was issued cannot be written down.
        """


@dataclass(frozen=True)
class CaBehind:
    """The evaluation CA itself.

    Args:
        ca: It.
        attributes: In which form requests are told what to hold.
    """

    ca: EvaluationCa
    attributes: CsrAttributes = CsrAttributes.NONE

    def ca_certificates(self) -> Sequence[x509.Certificate]:
        """See `CertificateSource`."""
        return self.ca.certificates

    def csr_attributes(self) -> bytes:
        """See `CertificateSource`."""
        return csr_attributes(self.attributes, linked=False) or NOTHING_WANTED

    def issue(self, request: x509.CertificateSigningRequest) -> x509.Certificate:
        """See `CertificateSource`."""
        return self.ca.issue(request)


@dataclass(frozen=True)
class EstBridge:
    """An EST server that trusts the pilot to send it the requests of devices.

    Args:
        base: Its address (`enroll.est.client.address`).
        anchors: What its TLS certificate must lead to.
        clock: Measures timeouts.
        timeout: Seconds of one exchange.
        identity: The certificate of the pilot; None for none.
        authorization: Its password; None for none.
    """

    base: str
    anchors: Sequence[x509.Certificate]
    clock: Clock
    timeout: float = 30
    identity: ClientIdentity | None = None
    authorization: Authorization | None = None

    def check(self) -> None:
        """Ask what costs nothing, before a device does.

        Raises:
            ConfigurationError: It wants requests linked to their connection.
            EnrollmentError: It does not answer as an EST server does.
        """
        with self._session() as session:
            client = self._client(session)
            client.ca_certificates()
            linked = client.wanted_attributes().linked
        if linked:
            raise ConfigurationError(
                "The EST server wants requests that are linked to their TLS connection (RFC 7030 3.5), and that of the "
                "device is another one.",
                remedy="Have it do without that for this client.",
            )

    def ca_certificates(self) -> Sequence[x509.Certificate]:
        """See `CertificateSource`."""
        with self._session() as session:
            return self._client(session).ca_certificates()

    def csr_attributes(self) -> bytes:
        """See `CertificateSource`."""
        with self._session() as session:
            body = self._client(session).csr_attributes()
        attributes.read(body)
        return decode_base64(body) if body.strip() else NOTHING_WANTED

    def issue(self, request: x509.CertificateSigningRequest) -> x509.Certificate:
        """See `CertificateSource`."""
        with self._session() as session:
            answer = self._client(session).simple_enroll(request)
        if isinstance(answer, Refused):
            raise EnrollmentRefused(f"The EST server says no: {answer.reason}.", remedy=answer.advice)
        if isinstance(answer, Pending):
            raise EnrollmentRefused(f"The EST server has not decided yet: {answer.reason}.", remedy="Approve it there.")
        return _for_key_of(request, answer.certificates)

    def _session(self) -> HttpsSession:
        return HttpsSession(client_context(self.anchors, self.identity), self.clock, self.timeout)

    def _client(self, session: HttpsSession) -> EstClient:
        return EstClient(self.base, session, self.clock, self.authorization)


def _for_key_of(request: x509.CertificateSigningRequest, certificates: Sequence[x509.Certificate]) -> x509.Certificate:
    """The one certificate for the key of a request, with names that can be read; the device judges it."""
    wanted = public_key_info(request.public_key())
    found = set()
    for certificate in certificates:
        with contextlib.suppress(*PARSE_ERRORS):
            if public_key_info(certificate.public_key()) == wanted:
                alternative_names(certificate)
                found.add(certificate)
    if len(found) != 1:
        raise ProtocolViolation(
            f"The EST server sent {len(found)} certificates for the key of the device.", remedy="Its log may say why."
        )
    return found.pop()
