"""How messages travel: HTTP POST of one CBOR item, and back: FDO 1.1, 4.3 "HTTP".

    with HttpChannel(base_url, context, clock, timeout) as channel:
        answer = channel.exchange(MessageType.TO1_HELLO_RV, body)

What the other side says in message 255 comes out as `ErrorReceived`. The token of the first answer goes along with all
that follows; each run of a protocol has a channel of its own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from enroll.certificates import PARSE_ERRORS
from enroll.chain import build_chain
from enroll.clock import Clock
from enroll.errors import (
    CertificateRefused,
    EnrollmentError,
    EnrollmentRefused,
    ProtocolViolation,
    ServerUnreachable,
)
from enroll.fdo.hashes import Hash
from enroll.fdo.messages import MESSAGE_LIMIT, PROTOCOL_VERSION, ErrorMessage, MessageType
from enroll.fdo.public_key import CHAIN_LIMIT
from enroll.foreign import printable
from enroll.http import Answer, HttpsSession
from enroll.tls.connection import ClientContext, ClientSocket

CONTENT_TYPE = "application/cbor"
TOKEN_LIMIT = 4 * 1024  # characters

_FIRST = (MessageType.DI_APP_START, MessageType.TO0_HELLO, MessageType.TO1_HELLO_RV, MessageType.TO2_HELLO_DEVICE)
_TOKEN = re.compile(rf"[Bb]earer [!-~]{{1,{TOKEN_LIMIT}}}")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Received:
    """What came back.

    Args:
        number: Of the message, as its header says.
        body: One CBOR item, not looked at.
    """

    number: int
    body: bytes


@dataclass(frozen=True)
class Pins:
    """What a rendezvous directive says about the certificates of the server.

    Args:
        server: Hash of its own; None for any.
        issuer: Hash of one that issued it; None for any.
    """

    server: Hash | None = None
    issuer: Hash | None = None


class ErrorReceived(EnrollmentRefused):
    """The other side says that something is wrong (message 255).

    Args:
        said: The message.
        where: Address of the other side.
    """

    def __init__(self, said: ErrorMessage, where: str) -> None:
        error = f"the error {said.code}" if said.code else "an error"
        text = f": {printable(said.text).rstrip('.')}" if said.text else ""
        super().__init__(
            f"{where} answers with {error}{text}.",
            remedy="The log of that server says more.",
            code="fdo-error-received",
        )
        self.said = said


class Channel(Protocol):
    """The way to one server, for one run of a protocol."""

    @property
    def where(self) -> str:
        """Its address, for people."""

    def exchange(self, number: MessageType, body: bytes) -> Received:
        """Send a message and wait for the answer.

        Raises:
            ErrorReceived: Message 255 came back.
            ServerUnreachable: No answer.
            ProtocolViolation: It is no answer of this protocol, or breaks a limit.
        """

    def report(self, error: ErrorMessage) -> None:
        """Tell the other side what is wrong (message 255). Whether it arrives does not matter."""

    def close(self) -> None:
        """Close the connection."""


class HttpChannel:
    """The way to a server over HTTP.

    Args:
        base: Its address, such as "http://rendezvous.example:8080".
        context: The trust of the connection. The messages prove themselves, so it may be none.
        clock: Measures the deadline.
        timeout: Seconds for one exchange.
    """

    def __init__(self, base: str, context: ClientContext, clock: Clock, timeout: float) -> None:
        self._base = base.rstrip("/")
        self._session = HttpsSession(context, clock, timeout, plain=True, body_limit=MESSAGE_LIMIT)
        self._token = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def where(self) -> str:
        """See `Channel`."""
        return self._base

    def close(self) -> None:
        """See `Channel`."""
        self._session.close()

    def exchange(self, number: MessageType, body: bytes) -> Received:
        """See `Channel`."""
        if number in _FIRST:
            self._token = ""
        answer = self._post(number, body)
        received = answer.headers.get("message-type", "").strip()
        if received == str(MessageType.ERROR):
            raise ErrorReceived(ErrorMessage.read(answer.body), self._base)
        if answer.status != 200 or answer.content_type != CONTENT_TYPE:  # noqa: PLR2004 - OK
            raise self._violation(f"answers with the status {answer.status} and no message")
        if received != str(number + 1):
            raise self._violation(f"answers message {number} with {printable(received) or 'no'} message")
        self._keep_token(number, answer.headers.get("authorization"))
        return Received(number + 1, answer.body)

    def report(self, error: ErrorMessage) -> None:
        """See `Channel`."""
        try:
            self._post(MessageType.ERROR, error.encode())
        except EnrollmentError as failure:
            _LOG.info("The other side could not be told what is wrong: %s", failure.what)

    def _post(self, number: MessageType, body: bytes) -> Answer:
        headers = {"Content-Type": CONTENT_TYPE}
        if self._token:
            headers["Authorization"] = self._token
        return self._session.post(f"{self._base}/fdo/{PROTOCOL_VERSION}/msg/{number:d}", headers, body)

    def _keep_token(self, number: MessageType, token: str | None) -> None:
        """The newest one counts; the first answer must have one."""
        if token is not None and _TOKEN.fullmatch(token):
            self._token = token
        elif token is not None or number in _FIRST:
            raise self._violation("gives no token, or none that can be sent back")

    def _violation(self, what: str) -> ProtocolViolation:
        return ProtocolViolation(
            f"{self._base} {what}.", remedy="Check the address; otherwise ask the operator of the server."
        )


def context_for(pins: Pins) -> ClientContext:
    """TLS that proves what `pins` say, and nothing without them: FDO messages prove themselves."""
    context = ClientContext.without_trust()
    context.check_server = partial(_check_server, pins)
    return context


def _check_server(pins: Pins, connection: ClientSocket) -> None:
    """Compare what the server showed with the pins, before anything is sent: FDO 1.1, 3.3.2 "RVSvCertHash".

    Raises:
        ServerUnreachable: It is another one.
    """
    if pins == Pins():
        return
    shown = connection.presented()[:CHAIN_LIMIT]
    if pins.server is not None and not (shown and pins.server.is_of(shown[0])):
        raise _not_pinned("shows another certificate than the one that is pinned", connection)
    if pins.issuer is not None and not _leads_to(pins.issuer, shown):
        raise _not_pinned("shows no certificate that leads to the pinned one of a CA", connection)


def _leads_to(issuer: Hash, shown: Sequence[bytes]) -> bool:
    """Whether the first certificate is for a server, and was issued below the one with that hash."""
    try:
        own, *others = map(x509.load_der_x509_certificate, shown)
        if not _is_for_server(own):
            return False
        anchors = [each for each in others if issuer.is_of(each.public_bytes(Encoding.DER))]
        # At a time of its own: the clock of a new device may be wrong.
        return bool(build_chain(own, others, anchors, own.not_valid_before_utc))
    except (CertificateRefused, *PARSE_ERRORS) as error:
        _LOG.info("A certificate of the server cannot be used: %s", error)
        return False


def _is_for_server(certificate: x509.Certificate) -> bool:
    try:
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.SERVER_AUTH in purposes


def _not_pinned(what: str, connection: ClientSocket) -> ServerUnreachable:
    host, port, *_ = connection.getpeername()
    return ServerUnreachable(
        f"The server at {host}, port {port}, {what}.",
        remedy="It is another server than the one that the voucher names, or has a new certificate.",
        code="server-not-pinned",
    )
