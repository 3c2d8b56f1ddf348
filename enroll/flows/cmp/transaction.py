"""One CMP transaction over HTTP: RFC 9483 3.1 (header), 3.5 (what is checked), 6.1 (HTTP).

A transaction has 16 random bytes as its name. Each message of ours carries a new nonce, which the answer repeats; the
nonce of the answer goes into our next message. messageTime is neither sent nor looked at: the clock of a scanner may be
wrong, and the nonces say that an answer is fresh.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Self

from cryptography import x509

from enroll import der
from enroll.certificates import PARSE_ERRORS
from enroll.clock import Clock
from enroll.errors import EnrollmentError, ProtocolViolation, ServerUnreachable
from enroll.flows.cmp import messages, protection, syntax
from enroll.flows.cmp.messages import Rejected
from enroll.flows.cmp.protection import Authority, Signer, certificates_of, violation
from enroll.flows.cmp.syntax import Body
from enroll.foreign import printable
from enroll.http import Answer as HttpAnswer
from enroll.http import HttpsSession
from enroll.http.retry_after import retry_after
from enroll.time_stamp_syntax import decoded, encoded, whole

CONTENT_TYPE = "application/pkixcmp"  # RFC 9811 3.3
MESSAGE_LIMIT = 256 * 1024  # bytes
NONCE_BYTES = 16  # RFC 9810 5.1.1
NONCE_LIMIT = 64  # bytes, of others

_CMP_2000, _CMP_2021 = 2, 3  # pvno: RFC 9810 5.1.1


@dataclass(frozen=True)
class Progress:
    """What a transaction needs to go on after a restart; text in the journal.

    Args:
        transaction: Its name, in hexadecimal, as all bytes here.
        request_nonce: Of the request; a late answer may repeat that one (RFC 9483 4.4).
        server_nonce: Of the last answer.
        request_id: certReqId.
        certificate_hash: What is to be confirmed; empty while the CA has not decided.
        hash_named: See `messages.fingerprint`.
        confirmed: Whether the CA wants no confirmation.
        doubtful_since: Since when no answer to a poll is to be believed, in seconds since 1970; 0 where the last was.
    """

    transaction: str
    request_nonce: str
    server_nonce: str
    request_id: int
    certificate_hash: str = ""
    hash_named: bool = False
    confirmed: bool = False
    doubtful_since: int = 0

    @classmethod
    def read(cls, text: str) -> Self | None:
        """What `text` says; None where that is nothing, or not ours."""
        try:
            progress = cls(**json.loads(text or "{}"))
            for value in (progress.transaction, progress.request_nonce, progress.server_nonce):
                bytes.fromhex(value)
            bytes.fromhex(progress.certificate_hash)
            numbers = int(progress.request_id), int(progress.doubtful_since)
            return replace(progress, request_id=numbers[0], doubtful_since=numbers[1])
        except (TypeError, ValueError):
            return None

    @property
    def text(self) -> str:
        """For the journal."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Answer:
    """An answer that was believed.

    Args:
        body: Its kind.
        content: The DER of it.
        certificates: That came with it.
        implicit_confirm: Whether the CA wants no confirmation.
    """

    body: Body
    content: bytes
    certificates: tuple[x509.Certificate, ...]
    implicit_confirm: bool


@dataclass(frozen=True)
class Channel:
    """Everything that is the same for all messages.

    Args:
        url: Of the server.
        session: To it.
        signer: Signs our messages.
        anchors: What answers must lead to.
        clock: For the dates of certificates.
        answered_by: Who may answer beside the CA; see `[cmp]`.
    """

    url: str
    session: HttpsSession
    signer: Signer
    anchors: tuple[x509.Certificate, ...]
    clock: Clock
    answered_by: str = ""


class Transaction:
    """A request and all that follows from it, in order.

    Args:
        channel: To the server.
        progress: How far it was before a restart; without it, a new one begins.
    """

    def __init__(self, channel: Channel, progress: Progress | None = None) -> None:
        self._channel = channel
        self._name = bytes.fromhex(progress.transaction) if progress else secrets.token_bytes(NONCE_BYTES)
        self._request_nonce = bytes.fromhex(progress.request_nonce) if progress else b""
        self._server_nonce = bytes.fromhex(progress.server_nonce) if progress else b""
        self._known: tuple[x509.Certificate, ...] = ()

    def progress(self, request_id: int) -> Progress:
        """How far it is."""
        return Progress(self._name.hex(), self._request_nonce.hex(), self._server_nonce.hex(), request_id)

    def ask(
        self,
        body: Body,
        content: bytes,
        answers: Collection[Body],
        *,
        implicit_confirm: bool = False,
        version_3: bool = False,
    ) -> Answer:
        """Send one message and return the answer.

        Args:
            body: Its kind.
            content: The DER of it.
            answers: What may answer it, beside an error message.
            implicit_confirm: Whether to ask the CA to do without a confirmation (RFC 9483 4.1.1).
            version_3: Whether it uses what CMP has since RFC 9480.

        Raises:
            ServerUnreachable: No answer, or the server cannot answer now.
            ProtocolViolation: Not an answer to this message, or one that is not to be believed.
            KeyStoreError: The key could not sign.
        """
        nonce = secrets.token_bytes(NONCE_BYTES)
        self._request_nonce = self._request_nonce or nonce
        message = self._message(body, content, nonce, implicit_confirm=implicit_confirm, version_3=version_3)
        channel = self._channel
        headers = {"Content-Type": CONTENT_TYPE, "Accept": CONTENT_TYPE}
        received = _message_in(channel.session.post(channel.url, headers, message), channel.clock.now())
        # Who answers for another has only the nonce of the request that it passed on.
        nonces = (nonce, self._request_nonce) if body is Body.POLLREQ else (nonce,)
        return self._read(received, nonces, {*answers, Body.ERROR})

    def _message(self, body: Body, content: bytes, nonce: bytes, *, implicit_confirm: bool, version_3: bool) -> bytes:
        signer = self._channel.signer
        header = encoded(
            syntax.PkiHeader(
                pvno=_CMP_2021 if version_3 else _CMP_2000,
                sender=syntax.general_name(signer.certificate.subject),
                recipient=syntax.general_name(self._channel.anchors[0].subject),
                message_time=None,
                protection_alg=[syntax.undecoded(encoded(protection.algorithm_for(signer.key)))],
                sender_kid=_subject_key_identifier(signer.certificate),
                recip_kid=None,
                transaction_id=self._name,
                sender_nonce=nonce,
                recip_nonce=self._server_nonce or None,
                free_text=None,
                general_info=[syntax.undecoded(syntax.IMPLICIT_CONFIRM)] if implicit_confirm else None,
            )
        )
        whole_body = der.encode(body.tag, content)
        signature = protection.sign(signer.key, protection.protected_part(header, whole_body))
        certificates = [syntax.undecoded(syntax.der_of(each)) for each in (signer.certificate, *signer.chain)]
        message = syntax.PkiMessage(
            header=syntax.undecoded(header),
            body=syntax.undecoded(whole_body),
            protection=syntax.bits(signature),
            extra_certs=certificates,
        )
        return encoded(message)

    def _read(self, data: bytes, nonces: Collection[bytes], answers: Collection[Body]) -> Answer:
        message, header = _decoded(data)
        body = next((kind for kind in answers if message.body.tag_bytes == bytes([kind.tag])), None)
        if body is None:
            raise violation("an answer to something else")
        content = bytes(message.body.data)
        if message.protection is None or message.protection.padding_bits():
            raise _unproved(body, content)
        channel, certificates = self._channel, certificates_of(message.extra_certs)
        protection.verify(
            protection.protected_part(whole(message.header), whole(message.body)),
            algorithm=header.protection_alg,
            signature=message.protection.as_bytes(),
            certificates=certificates,
            authority=Authority(channel.anchors, (*self._known, *channel.signer.chain), channel.answered_by),
            now=channel.clock.now(),
        )
        if header.pvno not in (_CMP_2000, _CMP_2021):
            raise violation(f"an answer of version {header.pvno} of CMP")
        if header.transaction_id != self._name or header.recip_nonce not in nonces:
            raise violation("the answer to another message: its transactionID or recipNonce is not ours")
        if len(header.sender_nonce or b"") > NONCE_LIMIT:
            raise violation(f"a nonce of more than {NONCE_LIMIT} bytes")
        self._server_nonce = header.sender_nonce or b""
        self._known = certificates or self._known
        granted = syntax.IMPLICIT_CONFIRM in map(whole, header.general_info or ())
        return Answer(body, content, certificates, granted)


def _subject_key_identifier(certificate: x509.Certificate) -> bytes | None:
    """RFC 9483 3.1: senderKID names the certificate that protects the message."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except (x509.ExtensionNotFound, *PARSE_ERRORS):
        return None


def _message_in(answer: HttpAnswer, now: datetime) -> bytes:
    """The message in an answer, whatever its HTTP status: errors are messages as well (RFC 9811 3.2)."""
    if answer.content_type == CONTENT_TYPE and answer.body:
        return answer.body
    what = f"The CMP server answers with HTTP status {answer.status} and no CMP message."
    if answer.status >= 500 or answer.status == 429:  # noqa: PLR2004 - RFC 6585 4: too many requests
        error = ServerUnreachable(what, remedy="It cannot answer now; this is tried again by itself.")
        raise error.left_alone_for(retry_after(answer.headers.get("retry-after", ""), now))
    raise ProtocolViolation(what, remedy="Check the address in [cmp] url, its path included.")


def _decoded(data: bytes) -> tuple[syntax.PkiMessage, syntax.PkiHeader]:
    if len(data) > MESSAGE_LIMIT or not der.is_one_value(data):
        raise violation(f"something that is no message in DER of at most {MESSAGE_LIMIT} bytes")
    try:
        message = decoded(syntax.PkiMessage, data)
        return message, decoded(syntax.PkiHeader, whole(message.header))
    except ValueError as error:
        raise violation("something that is no CMP message") from error


def _unproved(body: Body, content: bytes) -> EnrollmentError:
    """What is not signed is not believed; what an error message says may still help who reads it."""
    if body is not Body.ERROR:
        return violation("an answer without protection")
    told = messages.read_error(content)
    text = told.reason if isinstance(told, Rejected) else "wait"
    return violation(
        f"an error message without a signature, which anybody could have sent; it says: {printable(text)}",
        "Ask the CA's operator: the log of the CMP server says why it did not sign its answer.",
    )
