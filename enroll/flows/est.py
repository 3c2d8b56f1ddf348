"""Enrollment over Secure Transport (EST): RFC 7030 with the corrections of RFC 8951.

| operation      | RFC 7030 | used                                                                                     |
|----------------|----------|------------------------------------------------------------------------------------------|
| cacerts        | 4.1      | for the intermediates; trusted only as far as they lead to the pinned anchor             |
| simpleenroll   | 4.2.1    | with a password for the first device identity, with the device's certificate for another |
| simplereenroll | 4.2.2    | with the certificate that is being renewed, its names repeated to the letter             |

Bodies go out as base64 in lines with a final newline (there are servers that refuse anything else) and are read
tolerantly: any white space, PEM armour, whatever Content-Transfer-Encoding says (RFC 8951 3.1). What is inside must be
DER to the byte. The password is sent over a connection whose server has been verified and over no other.

Left out on purpose: serverkeygen (a key is born in its store), fullcmc. Not there yet: csrattrs, Digest
authentication, proof of possession linked to the connection.
"""

from __future__ import annotations

import base64
import email.utils
import logging
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7

from enroll import csr
from enroll.certificates import PARSE_ERRORS, decode_base64
from enroll.clock import Clock
from enroll.csr import CertificateRequest
from enroll.errors import (
    CertificateRefused,
    ConfigurationError,
    EnrollmentError,
    KeyDamaged,
    KeyNotFound,
    KeyStoreUnavailable,
    ProtocolViolation,
    ServerUnreachable,
    StateError,
    StateUnreadable,
    UnsupportedKey,
)
from enroll.flows.base import (
    LONGEST_WAIT,
    Enrollment,
    FlowContext,
    Handle,
    Issued,
    OfferedEnrollment,
    Pending,
    PlannedExchange,
    Refused,
)
from enroll.flows.settings import EstSettings
from enroll.foreign import printable
from enroll.http import Answer, HttpsSession
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.keystore.secretfile import read_secret
from enroll.statefile import StateFiles
from enroll.tls import ClientIdentity, client_context
from enroll.trust import CERTIFICATE_LIMIT, CERTIFICATES_LIMIT, read_anchors, verify_chain

_LOG = logging.getLogger(__name__)

SHORTEST_WAIT = timedelta(minutes=1)
DEFAULT_WAIT = timedelta(hours=1)  # for a 202 without a usable Retry-After

_REFUSALS = {  # HTTP status: what it means here, who must act
    401: ("it does not accept the password or certificate of this device", "hospital IT"),
    403: ("this device may not have such a certificate", "CA operator"),
    404: ("there is no such EST address or label", "hospital IT"),
}


@dataclass(frozen=True)
class Credentials:
    """User name and password of the first enrollment (RFC 7030 3.2.3), and where the password was read."""

    username: str
    password: bytes = field(repr=False)
    password_file: Path

    def header(self) -> str:
        """The Authorization header for HTTP Basic (RFC 7617)."""
        pair = self.username.encode() + b":" + self.password
        return f"Basic {base64.b64encode(pair).decode('ascii')}"


class EstFlow:
    """An EST server; closes its session at the end of a `with` block.

    Args:
        settings: `[est]`.
        session: A connection with pinned trust; carries the client certificate where there is one.
        clock: For a 202.
        authentication: What this side proves itself with: the password, or the certificate in `session`.
        anchors: What it issues must lead to them.
    """

    name = "est"

    def __init__(
        self,
        settings: EstSettings,
        session: HttpsSession,
        clock: Clock,
        authentication: Credentials | x509.Certificate,
        anchors: tuple[x509.Certificate, ...],
    ) -> None:
        self._base = "/".join(filter(None, (settings.url.rstrip("/"), ".well-known/est", settings.label)))
        self.anchors = anchors
        self._session = session
        self._clock = clock
        self._authentication = authentication

    @classmethod
    def connect(cls, identity: IdentityName, context: FlowContext) -> Self:
        """The configured server, with what this side proves itself with for a certificate of `identity`.

        That is the certificate of the device identity. The device identity itself falls back to the password: for
        its first certificate, and where the one it has expired, was lost or is of another CA.

        Raises:
            ScansealError: Nothing to prove itself with, or the configuration is incomplete.
        """
        settings = context.settings.est
        if not settings.url:
            raise ConfigurationError("[est] url is not set.", remedy="Set the https address of the EST server.")
        anchors = read_anchors(settings.anchor_file, context.files, "[est]")
        client: ClientIdentity | None = None
        authentication: Credentials | x509.Certificate
        try:
            device = _device_identity(context.identities, anchors, context.clock.now())
            client = ClientIdentity(context.identities.chain_file(device), context.stores.tls_key(device.key_uri))
            authentication = device.certificate
        except StateUnreadable:
            raise  # it may be the best of all identities, seen by the wrong user
        except (StateError, KeyNotFound, KeyDamaged, UnsupportedKey, CertificateRefused) as error:
            if identity is not IdentityName.DEVICE or not settings.username:
                raise
            _LOG.info("The device proves itself with the password: %s", error.what)
            authentication = _credentials(settings, context.files)
        session = HttpsSession(client_context(anchors, client), context.clock, settings.timeout)
        return cls(settings, session, context.clock, authentication, anchors)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def anchors_and_intermediates(self) -> tuple[x509.Certificate, ...]:
        """The CA certificates (RFC 7030 4.1); see `Flow`.

        Raises:
            ServerUnreachable: No answer, or the server cannot answer now.
            ProtocolViolation: The answer is no certs-only message.
        """
        answer = self._session.get(f"{self._base}/cacerts", {"Accept": "application/pkcs7-mime"})
        if answer.status != 200:  # noqa: PLR2004 - RFC 7030 4.1.3
            raise _unusable(answer)
        return _certificates(answer)

    def asks_for(self, request: CertificateRequest) -> CertificateRequest:
        """See `Flow`."""
        return request

    def plan(self, request: CertificateRequest, renews: x509.Certificate | None) -> tuple[PlannedExchange, ...]:
        """See `Flow`."""
        password = isinstance(self._authentication, Credentials)
        proof = "the password of the first enrollment" if password else "the certificate of the device identity"
        operation = "simpleenroll" if renews is None or renews != self._authentication else "simplereenroll"
        return (
            PlannedExchange(f"{self._base}/cacerts", "GET: the certificates of the CA", "nothing"),
            PlannedExchange(f"{self._base}/{operation}", f"POST: PKCS#10, {request.usage}", proof),
        )

    def confirm(self, handle: Handle, certificate: x509.Certificate | None) -> None:
        """EST knows no confirmation."""

    def enroll(self, enrollment: Enrollment | OfferedEnrollment) -> Issued | Pending | Refused:
        """Ask once for a certificate (RFC 7030 4.2); see `Flow`.

        Raises:
            ServerUnreachable: No answer, or the server cannot answer now.
            ProtocolViolation: The answer is none that EST allows.
        """
        request, operation = self._request(enrollment)
        headers = {
            "Accept": "application/pkcs7-mime",
            "Content-Type": "application/pkcs10",
            "Content-Transfer-Encoding": "base64",
        }
        if isinstance(self._authentication, Credentials):
            headers["Authorization"] = self._authentication.header()
        body = base64.encodebytes(request.public_bytes(serialization.Encoding.DER))
        return self._read(self._session.post(f"{self._base}/{operation}", headers, body))

    def _request(self, asked: Enrollment | OfferedEnrollment) -> tuple[x509.CertificateSigningRequest, str]:
        """What to send, and where.

        Re-enrollment is for the holder of the certificate itself, so it is tied to the connection's certificate; with
        an offered key that is always another identity's.
        """
        if isinstance(asked, OfferedEnrollment):
            return asked.signed, "simpleenroll"
        renews = asked.renews if asked.renews == self._authentication else None
        request = csr.build(asked.key, asked.request, renews, protection=asked.protection)
        return request, "simpleenroll" if renews is None else "simplereenroll"

    def _read(self, answer: Answer) -> Issued | Pending | Refused:
        """RFC 7030 4.2.3."""
        if answer.status == 200:  # noqa: PLR2004
            return Issued(_certificates(answer))
        text = _server_text(answer)
        if answer.status == 202:  # noqa: PLR2004
            until = _retry_at(answer.headers.get("retry-after", ""), self._clock.now())
            return Pending(until, text or "the CA has not decided yet")
        if 400 <= answer.status < 500 and answer.status != 429:  # noqa: PLR2004 - RFC 6585 4: too many requests
            meaning, who = _REFUSALS.get(answer.status, ("it does not accept the request", "CA operator"))
            advice = ""
            if answer.status == 401 and isinstance(self._authentication, Credentials):  # noqa: PLR2004
                password_file = self._authentication.password_file
                advice = f"Compare [est] username and the content of {password_file} with what the CA has."
            return Refused(f"{meaning} (HTTP status {answer.status}{text and ': '}{text})", who, advice)
        raise _unusable(answer)


def _device_identity(identities: IdentityStore, anchors: Sequence[x509.Certificate], now: datetime) -> Generation:
    device = identities.current(IdentityName.DEVICE)
    if device is None:
        raise StateError(
            "This scanner has no device identity yet.",
            remedy="Set [est] username and password_file, then enroll the identity device first.",
            code="device-not-enrolled",
        )
    verify_chain(device.certificate, device.chain, anchors, now)
    return device


def _credentials(settings: EstSettings, files: StateFiles) -> Credentials:
    if settings.password_file is None:
        raise ConfigurationError("[est] password_file is not set.", remedy="Name a file that holds the password.")
    try:
        password = read_secret(settings.password_file, "[est] password_file", files)
    except KeyStoreUnavailable as error:
        raise ConfigurationError(error.what, remedy=error.remedy) from error
    return Credentials(settings.username, password, settings.password_file)


def _certificates(answer: Answer) -> tuple[x509.Certificate, ...]:
    """The certificates of a certs-only message (RFC 7030 4.1.3 and 4.2.3); their order means nothing."""
    if answer.content_type != "application/pkcs7-mime":
        raise _violation(f"an answer of type {printable(answer.content_type)!r} instead of application/pkcs7-mime")
    try:
        message = decode_base64(answer.body)
        with warnings.catch_warnings():
            # cryptography reads BER as well, with a warning only.
            warnings.simplefilter("error")
            certificates = tuple(pkcs7.load_der_pkcs7_certificates(message))
            sizes = [len(certificate.public_bytes(serialization.Encoding.DER)) for certificate in certificates]
    except (*PARSE_ERRORS, Warning) as error:
        raise _violation(f"a body that holds no certificates in DER ({printable(str(error))})") from error
    if not sizes:
        raise _violation("a message without a certificate")
    if len(sizes) > CERTIFICATES_LIMIT or max(sizes) > CERTIFICATE_LIMIT:
        raise _violation(f"more than {CERTIFICATES_LIMIT} certificates, or one of more than {CERTIFICATE_LIMIT} bytes")
    return certificates


def _retry_at(retry_after: str, now: datetime) -> datetime:
    """Retry-After as a moment (RFC 9110 10.2.3: seconds or a date), within sensible bounds."""
    text = retry_after.strip()
    wait = DEFAULT_WAIT
    if re.fullmatch(r"[0-9]{1,9}", text):
        wait = timedelta(seconds=int(text))
    elif text:
        try:
            # A date without a zone is in UTC.
            moment = email.utils.parsedate_to_datetime(text)
            wait = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now
        except (ValueError, OverflowError):
            wait = DEFAULT_WAIT
    return now + min(max(wait, SHORTEST_WAIT), LONGEST_WAIT)


def _server_text(answer: Answer) -> str:
    """What the server says to a person; never more than a bounded line, and only where it says that it is text."""
    if answer.content_type != "text/plain":
        return ""
    return printable(answer.body[:1024].decode("utf-8", errors="replace"))


def _unusable(answer: Answer) -> EnrollmentError:
    text = _server_text(answer)
    what = f"The CA answers with HTTP status {answer.status}{text and ': '}{text}."
    if answer.status >= 500 or answer.status == 429:  # noqa: PLR2004 - RFC 6585 4: too many requests
        return ServerUnreachable(what, remedy="It cannot answer now; this is tried again by itself.")
    return ProtocolViolation(what, remedy="Check the address and the EST label.")


def _violation(what: str) -> ProtocolViolation:
    return ProtocolViolation(f"The CA sent {what}.", remedy="Check that the address is that of an EST server.")
