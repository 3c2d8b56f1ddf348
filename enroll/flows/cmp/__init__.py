"""Certificate Management Protocol (CMP): the lightweight profile, RFC 9483, of RFC 9810.

| body     | RFC 9483 | used for, and signed by                                                             |
|----------|----------|-------------------------------------------------------------------------------------|
| ir       | 4.1.1    | a first certificate; the factory identity                                           |
| cr       | 4.1.2    | another identity of this scanner, or other names; the device identity               |
| kur      | 4.1.3    | renewing the device identity; the certificate that is renewed                       |
| p10cr    | 4.1.4    | instead of ir and cr, where configured; always for a key that the enroller has not  |
| certConf | 4.1.1    | after a certificate was judged: it is used, or not                                  |
| pollReq  | 4.4      | while the CA has not decided                                                        |
| rr       | 4.2      | giving a certificate up                                                             |

Messages are signed, so they need no TLS, and a key that only signs is enough. A key that signs images signs no
messages: requests for it are signed by the device identity.

A transaction that waits is in the journal and goes on after a restart, by pollReq. If a request was sent and no answer
came, nothing is known of it: the next run begins a new transaction for the same key. What the CA may have issued is
never confirmed, and so not used (RFC 9483 4.1.1).
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import Self

from cryptography import x509

from enroll import csr
from enroll.certificates import name_text
from enroll.config import StoreName
from enroll.csr import CertificateRequest
from enroll.errors import CA_OPERATOR, ProtocolViolation, ServerUnreachable
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
from enroll.flows.cmp import messages
from enroll.flows.cmp.connection import configured_anchors, open_channel, signer_of_requests
from enroll.flows.cmp.messages import Granted, Rejected
from enroll.flows.cmp.syntax import Body
from enroll.flows.cmp.transaction import Answer, Channel, Progress, Transaction
from enroll.flows.settings import CmpFirstRequest, CmpSettings
from enroll.identity import IdentityName
from enroll.trust import CERTIFICATES_LIMIT

_LOG = logging.getLogger(__name__)

DEFAULT_WAIT = timedelta(hours=1)  # for a CA that only says "waiting"
PATIENCE = timedelta(seconds=30)  # of one run; a CA that wants longer is asked again by the next
DOUBTFUL_LIMIT = timedelta(days=3)  # how long a transaction is kept whose polls get no answer to be believed
SHORTEST_WAIT = 1  # seconds

_ANSWERS = {Body.IR: Body.IP, Body.CR: Body.CP, Body.P10CR: Body.CP, Body.KUR: Body.KUP}


class CmpFlow:
    """A CMP server; closes its session at the end of a `with` block.

    Args:
        settings: `[cmp]`.
        channel: To the server.
        offered: Whether the keys of the identity are out of reach, so that only p10cr can ask for them.
    """

    name = "cmp"

    def __init__(self, settings: CmpSettings, channel: Channel, *, offered: bool = False) -> None:
        self._settings = settings
        self._channel = channel
        self._offered = offered
        self.anchors = channel.anchors

    @classmethod
    def connect(cls, identity: IdentityName, context: FlowContext) -> Self:
        """The configured server, with what this side signs its messages with: see `signer_of_requests`.

        Raises:
            ScansealError: Nothing to sign with, or the configuration is incomplete.
        """
        offered = getattr(context.settings.identity, identity).key_store is StoreName.MEMORY
        anchors = configured_anchors(context)
        channel = open_channel(context, anchors, signer_of_requests(context, anchors))
        return cls(context.settings.cmp, channel, offered=offered)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.session.close()

    def asks_for(self, request: CertificateRequest) -> CertificateRequest:
        """See `Flow`."""
        return request

    def plan(self, request: CertificateRequest, renews: x509.Certificate | None) -> tuple[PlannedExchange, ...]:
        """See `Flow`."""
        body = Body.P10CR if self._offered else self._body(renews)
        signer = self._channel.signer
        proof = f"a signature of the identity {signer.identity}, {name_text(signer.certificate.subject)}"
        first = PlannedExchange(self._settings.url, f"POST: {body.name.lower()}, {request.text}", proof)
        confirmation = "POST: certConf, whether the certificate is used"
        if self._settings.implicit_confirmation:
            confirmation += ", if the CA insists"
        return first, PlannedExchange(self._settings.url, confirmation, proof)

    def anchors_and_intermediates(self) -> tuple[x509.Certificate, ...]:
        """The anchors; what CMP brings beside them comes with the certificate (RFC 9483 4.1.1)."""
        return self.anchors

    def enroll(self, enrollment: Enrollment | OfferedEnrollment) -> Issued | Pending | Refused:
        """Ask once for a certificate, or poll for what was asked before; see `Flow`.

        Raises:
            ServerUnreachable: No answer, or the CA cannot answer now.
            ProtocolViolation: An answer that CMP does not allow, or that is not to be believed.
            KeyStoreError: A key could not sign.
        """
        handle = enrollment.handle
        progress = Progress.read(handle.text)
        if progress is not None and not progress.certificate_hash:
            transaction = Transaction(self._channel, progress)
            answer = self._resumed(transaction, progress, handle)
            if answer is not None:
                return _final(self._until_decided(transaction, answer, handle, polled=True), handle)
            handle.keep("")
        transaction = Transaction(self._channel)
        body, content = self._request(enrollment)
        answer = transaction.ask(body, content, [_ANSWERS[body]], implicit_confirm=self._settings.implicit_confirmation)
        return _final(self._until_decided(transaction, answer, handle), handle)

    def confirm(self, handle: Handle, certificate: x509.Certificate | None) -> bool:
        """Send certConf (RFC 9810 5.3.18); see `Flow`.

        Raises:
            ServerUnreachable: No answer, or the CA cannot answer now.
            EnrollmentError: The CA does not accept the confirmation.
        """
        progress = Progress.read(handle.text)
        if progress is None or not progress.certificate_hash:
            return False
        if progress.confirmed:
            if certificate is None:
                _LOG.warning("The CA did without a confirmation, so it takes its certificate for one that is used.")
            return False
        content = messages.confirmation(
            bytes.fromhex(progress.certificate_hash),
            progress.request_id,
            hash_named=progress.hash_named,
            accepted=certificate is not None,
        )
        transaction = Transaction(self._channel, progress)
        answer = transaction.ask(Body.CERTCONF, content, [Body.PKICONF], version_3=progress.hash_named)
        if answer.body is Body.ERROR:
            messages.raise_unless_done(messages.read_error(answer.content))
        return True

    def _body(self, renews: x509.Certificate | None) -> Body:
        signer = self._channel.signer
        if renews is not None and renews == signer.certificate:
            return Body.KUR
        if self._settings.first_request is CmpFirstRequest.P10CR:
            return Body.P10CR
        return Body.CR if signer.identity is IdentityName.DEVICE else Body.IR

    def _request(self, asked: Enrollment | OfferedEnrollment) -> tuple[Body, bytes]:
        """What to send."""
        if isinstance(asked, OfferedEnrollment):
            return Body.P10CR, messages.pkcs10_request(asked.signed)
        body = self._body(asked.renews)
        renews = asked.renews if body is Body.KUR else None
        signed = csr.build(asked.key, asked.request, renews, protection=asked.protection)
        if body is Body.P10CR:
            return body, messages.pkcs10_request(signed)
        return body, messages.certificate_request(signed, asked.key, renews)

    def _resumed(self, transaction: Transaction, progress: Progress, handle: Handle) -> Answer | None:
        """Poll for what was asked before; None where the CA knows nothing of it any more, so that a new one begins.

        CAs that have forgotten a transaction say so by an error message, with one failInfo or another. Some do not sign
        it. As anybody could have sent that, it only counts where no better answer comes for days.
        """
        try:
            answer = _poll(transaction, progress.request_id)
        except ProtocolViolation as error:
            now = int(self._channel.clock.now().timestamp())
            since = progress.doubtful_since or now
            if now - since <= DOUBTFUL_LIMIT.total_seconds():
                handle.keep(replace(progress, doubtful_since=since).text)
                raise
            _LOG.warning("The transaction is given up, and a new one begins: %s", error.what)
            return None
        outcome = messages.read_error(answer.content) if answer.body is Body.ERROR else None
        if isinstance(outcome, Rejected) and not outcome.for_now:
            _LOG.info("The CA has given up the transaction, and a new one begins: %s", outcome.reason)
            return None
        return answer

    def _until_decided(
        self, transaction: Transaction, answer: Answer, handle: Handle, *, polled: bool = False
    ) -> Issued | Pending | Rejected:
        """Poll as long as the CA wants to be waited for and this run has patience (RFC 9483 4.4)."""
        clock, waited = self._channel.clock, timedelta()
        while True:
            outcome = messages.read_issued(answer.body, answer.content)
            if isinstance(outcome, Rejected):
                return outcome
            if isinstance(outcome, Granted):
                return self._issued(outcome, answer, transaction, handle)
            handle.keep(transaction.progress(outcome.request_id).text)
            if polled:
                wait = _wait(outcome.check_after)
                waited += wait
                if waited > PATIENCE:
                    return Pending(clock.now() + wait, outcome.reason or "the CA has not decided yet")
                clock.sleep(wait.total_seconds())
            answer, polled = _poll(transaction, outcome.request_id), True

    def _issued(self, granted: Granted, answer: Answer, transaction: Transaction, handle: Handle) -> Issued:
        digest, named = messages.fingerprint(granted.certificate)
        progress = replace(
            transaction.progress(granted.request_id),
            certificate_hash=digest.hex(),
            hash_named=named,
            confirmed=answer.implicit_confirm and self._settings.implicit_confirmation,
        )
        # Not kept yet: the journal writes it together with the certificate, without which it means nothing.
        handle.text = progress.text
        every = dict.fromkeys((granted.certificate, *granted.others, *answer.certificates))
        return Issued(tuple(every)[:CERTIFICATES_LIMIT])


def _poll(transaction: Transaction, request_id: int) -> Answer:
    answers = (Body.IP, Body.CP, Body.KUP, Body.POLLREP)
    return transaction.ask(Body.POLLREQ, messages.poll(request_id), answers)


def _final(decision: Issued | Pending | Rejected, handle: Handle) -> Issued | Pending | Refused:
    if not isinstance(decision, Rejected):
        return decision
    if handle.text:
        handle.keep("")  # the transaction is over
    if decision.for_now:
        raise ServerUnreachable(
            f"The CA cannot issue now: {decision.reason}.",
            remedy="The log of the CMP server says why.",
            who_must_act=CA_OPERATOR,
        )
    return decision.refused()


def _wait(check_after: int | None) -> timedelta:
    """How long the CA wants to be left alone, within sensible bounds."""
    if check_after is None:
        return DEFAULT_WAIT
    return timedelta(seconds=min(max(check_after, SHORTEST_WAIT), int(LONGEST_WAIT.total_seconds())))
