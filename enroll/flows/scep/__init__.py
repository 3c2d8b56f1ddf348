"""Simple Certificate Enrolment Protocol (RFC 8894): the last choice, for a site with nothing but that.

It is off unless `[scep] enabled` is true. Among all flows it proves the least: whoever knows the challenge password
gets a certificate for any name; no factory identity vouches for the scanner, nothing ties the signing identity to the
device identity, what the server can do is told unauthenticated, and answers can only be read by a key that decrypts.

| message    | used for                                   | proof                                            |
|------------|--------------------------------------------|--------------------------------------------------|
| PKCSReq    | a first certificate of each identity       | the challenge password, inside the encrypted CSR |
| RenewalReq | a renewal, where the key in use decrypts   | a signature by the certificate in use            |
| CertPoll   | while the CA has not decided               | the transaction                                  |

`requester` says who signs and opens, `authority` whom to believe, `messages` what is sent and read.

The name of a transaction is in the journal before its request is sent. After a restart the same request goes out under
the same name, or CertPoll where the CA had said that it has to wait.
"""

from __future__ import annotations

import json
import logging
import secrets
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from enroll import csr
from enroll.csr import CertificateRequest
from enroll.errors import (
    OPERATOR,
    CertificateRefused,
    ConfigurationError,
    KeyDamaged,
    KeyNotFound,
    KeyStoreUnavailable,
    ServerUnreachable,
    StateError,
    StateUnreadable,
    UnsupportedKey,
)
from enroll.flows.base import (
    Enrollment,
    FlowContext,
    Handle,
    Issued,
    NothingToConfirm,
    OfferedEnrollment,
    Pending,
    PlannedExchange,
    Refused,
)
from enroll.flows.scep.authority import RENEWAL, Authority, read_authority, read_capabilities, violation
from enroll.flows.scep.messages import (
    NONCE_BYTES,
    Exchange,
    Granted,
    Outcome,
    Rejected,
    Waiting,
    poll_content,
)
from enroll.flows.scep.requester import Requester, decrypting, first_requester
from enroll.flows.scep.syntax import MessageType
from enroll.http import Answer, HttpsSession
from enroll.http.retry_after import retry_after
from enroll.identity import IdentityName
from enroll.keystore.secretfile import read_secret
from enroll.tls import client_context
from enroll.trust import read_anchors, read_ca_certificates, verify_chain

CONTENT_TYPE = "application/x-pki-message"  # RFC 8894 4.3
MESSAGE_LIMIT = 256 * 1024  # bytes
WAIT = timedelta(hours=1)  # a CA that says PENDING does not say until when

_LOG = logging.getLogger(__name__)
_OK, _TOO_MANY, _SERVER_ERROR = 200, 429, 500  # RFC 9110 15; RFC 6585 4


@dataclass(frozen=True)
class Progress:
    """What a transaction needs to go on after a restart; text in the journal.

    Args:
        transaction: Its name.
        waiting: Whether the CA has said that it has to wait.
    """

    transaction: str
    waiting: bool = False

    @classmethod
    def read(cls, text: str) -> Self | None:
        """What `text` says; None where that is nothing, or not ours."""
        try:
            progress = cls(**json.loads(text or "{}"))
            bytes.fromhex(progress.transaction)
        except (TypeError, ValueError):
            return None
        return progress

    @property
    def text(self) -> str:
        """For the journal."""
        return json.dumps(asdict(self))


class ScepFlow(NothingToConfirm):
    """A SCEP server; closes its session at the end of a `with` block.

    Args:
        identity: What certificates are asked for.
        context: The parts of the enroller.
        session: To the server.
        anchors: What answers and certificates must lead to.
    """

    name = "scep"

    def __init__(
        self,
        identity: IdentityName,
        context: FlowContext,
        session: HttpsSession,
        anchors: tuple[x509.Certificate, ...],
    ) -> None:
        self._identity = identity
        self._context = context
        self._settings = context.settings.scep
        self._session = session
        self._server: tuple[frozenset[str], Authority] | None = None
        self.anchors = anchors

    @classmethod
    def connect(cls, identity: IdentityName, context: FlowContext) -> Self:
        """The configured server.

        Raises:
            ConfigurationError: SCEP is switched off, or the configuration is incomplete.
        """
        settings = context.settings.scep
        if not settings.enabled:
            raise ConfigurationError(
                "SCEP is switched off: it proves less than every other way to a certificate.",
                remedy="Use est, acme, cmp or offline. Where the site has nothing but SCEP: [scep] enabled = true",
                code="scep-not-enabled",
            )
        if not settings.url:
            raise ConfigurationError("[scep] url is not set.", remedy="Set the address of the server, with its path.")
        anchors = read_anchors(settings.anchor_file, context.files, "[scep]")
        of_server = settings.server_anchor_file
        tls_anchors = anchors if of_server is None else read_ca_certificates(of_server, context.files)
        session = HttpsSession(
            client_context(tls_anchors), context.clock, settings.timeout, plain=True, body_limit=MESSAGE_LIMIT
        )
        return cls(identity, context, session, anchors)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def asks_for(self, request: CertificateRequest) -> CertificateRequest:
        """See `Flow`."""
        return request

    def plan(self, request: CertificateRequest, renews: x509.Certificate | None) -> tuple[PlannedExchange, ...]:
        """See `Flow`."""
        url = self._settings.url
        what, proof = f"POST: PKCSReq, {request.text}", "the CA operator, who has to approve"
        if self._settings.challenge_file is not None:
            proof = "the challenge password"
        if renews is not None and self._in_use(renews) is not None:
            what = f"POST: RenewalReq (PKCSReq where the server does not renew), {request.text}"
            proof = "a signature by the certificate in use"
        return (
            PlannedExchange(f"{url}?operation=GetCACaps", "GET: what the server can do", "nothing"),
            PlannedExchange(f"{url}?operation=GetCACert", "GET: the certificates of the CA", "nothing"),
            PlannedExchange(f"{url}?operation=PKIOperation", what, proof),
        )

    def anchors_and_intermediates(self) -> tuple[x509.Certificate, ...]:
        """What GetCACert shows (RFC 8894 4.2).

        Raises:
            ServerUnreachable: No answer, or the server cannot answer now.
            ProtocolViolation: It cannot do what is needed, or its answer is not what SCEP allows.
            CertificateRefused: Its certificates do not lead to the anchor.
        """
        _, authority = self._known()
        return authority.certificates

    def enroll(self, enrollment: Enrollment | OfferedEnrollment) -> Issued | Pending | Refused:
        """Ask once for a certificate, or poll for what was asked before; see `Flow`.

        Raises:
            ServerUnreachable: No answer, or the server cannot answer now.
            ProtocolViolation: An answer that SCEP does not allow, or that is not to be believed.
            ConfigurationError: The challenge password cannot be read.
            KeyStoreError: A key could not sign.
        """
        if isinstance(enrollment, OfferedEnrollment):
            return Refused(
                "SCEP wants the challenge password inside the request, and this request was signed by the agent",
                OPERATOR,
                "Set key_store of the identity to software, pkcs11 or tpm, or use another way than SCEP.",
            )
        handle = enrollment.handle
        progress = Progress.read(handle.text)
        requester = self._requester(enrollment)
        if progress is not None and progress.waiting:
            subject = requester.certificate.subject
            _, authority = self._known()
            poll = poll_content(authority, subject)
            outcome = self._exchange(MessageType.CERT_POLL, poll, progress.transaction, requester)
            if not (isinstance(outcome, Rejected) and outcome.is_unknown):
                return self._answer(outcome, progress, handle)
            _LOG.info("The CA knows nothing of the transaction any more, a new one begins.")
            progress = None
        progress = progress or Progress(secrets.token_hex(NONCE_BYTES))
        request = self._request(enrollment, requester)
        handle.keep(progress.text)
        kind = MessageType.RENEWAL_REQ if requester.renews else MessageType.PKCS_REQ
        return self._answer(self._exchange(kind, request, progress.transaction, requester), progress, handle)

    def _answer(self, outcome: Outcome, progress: Progress, handle: Handle) -> Issued | Pending | Refused:
        match outcome:
            case Granted():
                return Issued(outcome.certificates)
            case Waiting():
                handle.keep(Progress(progress.transaction, waiting=True).text)
                return Pending(self._context.clock.now() + WAIT, "the CA has not decided yet")
            case Rejected():
                return outcome.refused()

    def _requester(self, enrollment: Enrollment) -> Requester:
        capabilities, _ = self._known()
        if enrollment.renews is not None and RENEWAL in capabilities:
            in_use = self._in_use(enrollment.renews)
            if in_use is not None:
                return in_use
        return first_requester(enrollment.key, enrollment.request.subject, self._context.clock.now())

    def _in_use(self, renews: x509.Certificate) -> Requester | None:
        """The certificate in use with its key, where this CA can trust it and its key decrypts."""
        try:
            current = self._context.identities.current(self._identity)
            if current is None or current.certificate != renews:
                return None
            verify_chain(renews, current.chain, self.anchors, self._context.clock.now())
            key = decrypting(self._context.stores.load(current.key_uri))
        except StateUnreadable:
            raise
        except (StateError, KeyNotFound, KeyDamaged, UnsupportedKey, CertificateRefused) as error:
            _LOG.info("The certificate in use does not vouch for its renewal: %s", error.what)
            return None
        return None if key is None else Requester(renews, key, renews=True)

    def _request(self, enrollment: Enrollment, requester: Requester) -> bytes:
        """A PKCS#10 with the challenge password (RFC 8894 2.4), which a renewal may lack."""
        signed = csr.build(
            enrollment.key,
            enrollment.request,
            requester.certificate if requester.renews else None,
            protection=enrollment.protection,
            challenge_password=self._challenge(needed=not requester.renews),
        )
        return signed.public_bytes(serialization.Encoding.DER)

    def _challenge(self, *, needed: bool) -> str:
        path = self._settings.challenge_file
        if path is None:
            return ""
        try:
            return read_secret(path, "[scep] challenge_file", self._context.files).decode("ascii")
        except KeyStoreUnavailable as error:
            if not needed:
                _LOG.info("The renewal goes without a challenge password: %s", error.what)
                return ""
            raise ConfigurationError(error.what, remedy=error.remedy) from error
        except UnicodeDecodeError:
            # Not chained: the error holds the password.
            raise ConfigurationError(
                f"The challenge password in {path} is not ASCII.", remedy="Write it as the server showed it."
            ) from None

    def _exchange(self, kind: MessageType, content: bytes, transaction: str, requester: Requester) -> Outcome:
        _, authority = self._known()
        exchange = Exchange(transaction, secrets.token_bytes(NONCE_BYTES), requester, authority)
        url = f"{self._settings.url}?operation=PKIOperation"
        answer = self._session.post(url, {"Content-Type": CONTENT_TYPE}, exchange.message(kind, content))
        _check_status(answer, self._context.clock.now())
        if answer.content_type != CONTENT_TYPE:
            raise violation("an answer of another media type than application/x-pki-message")
        return exchange.read(answer.body)

    def _known(self) -> tuple[frozenset[str], Authority]:
        """What the server says of itself; asked once."""
        if self._server is None:
            capabilities = read_capabilities(self._get("GetCACaps"))
            authority = read_authority(self._get("GetCACert"), self.anchors, self._context.clock.now())
            self._server = capabilities, authority
        return self._server

    def _get(self, operation: str) -> Answer:
        answer = self._session.get(f"{self._settings.url}?operation={operation}", {})
        _check_status(answer, self._context.clock.now())
        return answer


def _check_status(answer: Answer, now: datetime) -> None:
    if answer.status >= _SERVER_ERROR or answer.status == _TOO_MANY:
        error = ServerUnreachable(
            f"The SCEP server cannot answer: HTTP {answer.status}.", remedy="Its log says why; try again later."
        )
        raise error.left_alone_for(retry_after(answer.headers.get("retry-after", ""), now))
    if answer.status != _OK:
        raise violation(f"HTTP {answer.status}", "Check [scep] url; it needs the path of the server.")
