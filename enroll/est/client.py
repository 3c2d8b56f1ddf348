"""An EST server as its client sees it: RFC 7030 with the corrections of RFC 8951.

| operation      | RFC 7030 | used                                                                                     |
|----------------|----------|------------------------------------------------------------------------------------------|
| cacerts        | 4.1      | for intermediates and roll-over; trusted only as far as they lead to a pinned anchor     |
| csrattrs       | 4.5      | before each request; what is not offered, or cannot be supplied, is not missed           |
| simpleenroll   | 4.2.1    | for a new certificate                                                                    |
| simplereenroll | 4.2.2    | with the certificate that is being renewed, its names repeated to the letter             |

Bodies go out as base64 in lines with a final newline (there are servers that refuse anything else) and are read
tolerantly: any white space, PEM armour, whatever Content-Transfer-Encoding says (RFC 8951 3.1). What is inside must be
DER to the byte.

A request that waits is repeated to the letter, also after a restart; its handle is the request itself.

Where the server wants the request linked to the connection (RFC 7030 3.5), it is made after the handshake, for each
connection anew, and holds tls-unique as its challengePassword. TLS 1.3 has none, so the session goes back to TLS 1.2.

Left out on purpose: serverkeygen (a key is born in its store), fullcmc.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from enroll import csr
from enroll.certificates import PARSE_ERRORS, decode_base64
from enroll.clock import Clock
from enroll.errors import CA_OPERATOR, HOSPITAL_IT, EnrollmentError, ProtocolViolation, ServerUnreachable
from enroll.est import attributes
from enroll.est.attributes import WantedAttributes
from enroll.est.authentication import Authorization
from enroll.flows.base import (
    HANDLE_LIMIT,
    LONGEST_WAIT,
    Enrollment,
    Handle,
    Issued,
    OfferedEnrollment,
    Pending,
    Refused,
)
from enroll.foreign import printable
from enroll.http import Answer, HttpsSession
from enroll.http.retry_after import retry_after
from enroll.signed_data import certificates_in

_LOG = logging.getLogger(__name__)

SHORTEST_WAIT = timedelta(minutes=1)
DEFAULT_WAIT = timedelta(hours=1)  # for a 202 without a usable Retry-After
CERTS_ONLY = "application/pkcs7-mime"

CA_CERTIFICATES_REFUSED = "ca-certificates-refused"  # code of ProtocolViolation
_NOT_FOR_THIS_CLIENT = (400, 401, 403)  # what web servers before a CA say of a client certificate that they do not know
_REFUSALS = {  # HTTP status: what it means here, who must act, what to do
    401: (
        "it does not accept the password or certificate of this device",
        HOSPITAL_IT,
        "The CA has to know the issuer of the certificate of this device, or to ask for its password.",
    ),
    403: ("this device may not have such a certificate", CA_OPERATOR, "The CA's rules have to allow it."),
    404: ("there is no such EST address or label", HOSPITAL_IT, "Compare address and label with those of the CA."),
}
_OTHER_REFUSAL = ("it does not accept the request", CA_OPERATOR, "The log of the CA says why.")

# As it is sent; or what makes it, given the challenge password that links it to the connection (RFC 7030 3.5).
Request = x509.CertificateSigningRequest | Callable[[str], x509.CertificateSigningRequest]
_Send = Callable[[dict[str, str]], Answer]


def address(url: str, label: str) -> str:
    """Where the operations of a server are (RFC 7030 3.2.2); `label` may be empty."""
    return "/".join(filter(None, (url.rstrip("/"), ".well-known/est", label)))


@dataclass(frozen=True)
class EstClient:
    """An EST server.

    Args:
        base: Its `address`.
        session: A connection with pinned trust; carries the client certificate where there is one.
        clock: For a 202.
        authorization: What this side proves itself with beside the certificate; None where there is nothing.
    """

    base: str
    session: HttpsSession
    clock: Clock
    authorization: Authorization | None = None

    def ca_certificates(self) -> tuple[x509.Certificate, ...]:
        """The CA certificates (RFC 7030 4.1), in any order.

        Raises:
            ServerUnreachable: No answer, or the server cannot answer now.
            ProtocolViolation: The answer is no certs-only message.
        """
        answer = self.session.get(f"{self.base}/cacerts", {"Accept": CERTS_ONLY})
        return read_ca_certificates(answer, self.clock.now())

    def wanted_attributes(self) -> WantedAttributes:
        """What a request should hold (RFC 7030 4.5.2).

        Raises:
            ServerUnreachable: No answer, or the server cannot answer now.
            ProtocolViolation: The answer is no list of attributes.
        """
        return attributes.read(self.csr_attributes())

    def csr_attributes(self) -> bytes:
        """The same as the server writes it, unread; empty where it wants nothing. Raises as `wanted_attributes`."""
        url = f"{self.base}/csrattrs"
        headers = {"Accept": attributes.CONTENT_TYPE}
        answer, _ = self._authorized("GET", url, headers, lambda headers: self.session.get(url, headers))
        if _cannot_answer_now(answer):
            raise _unusable(answer, self.clock.now())
        if answer.status != 200:  # noqa: PLR2004 - RFC 7030 4.5.2: without an answer nothing is wanted
            return b""
        if answer.body.strip() and answer.content_type != attributes.CONTENT_TYPE:
            raise _wrong_type(answer, attributes.CONTENT_TYPE)
        return answer.body

    def enroll(
        self, asked: Enrollment | OfferedEnrollment, renews: x509.Certificate | None = None
    ) -> Issued | Pending | Refused:
        """Ask once for a certificate (RFC 7030 4.2), with what the server wants to find in the request.

        Args:
            asked: What for.
            renews: The certificate in `session`, where it is the one that is renewed.

        Raises:
            ServerUnreachable: No answer, or the server cannot answer now.
            ProtocolViolation: The answer is none that EST allows.
            KeyStoreError: A key could not sign.
        """
        wanted = self.wanted_attributes()
        advice = wanted.log_unmet(asked.public_key, asked.request.usage)
        answer = self._ask(asked, renews, wanted)
        if not advice or not isinstance(answer, Refused):
            return answer
        return Refused(answer.reason, answer.who_must_act, f"{advice} {answer.advice}".rstrip())

    def _ask(
        self, asked: Enrollment | OfferedEnrollment, renews: x509.Certificate | None, wanted: WantedAttributes
    ) -> Issued | Pending | Refused:
        if isinstance(asked, OfferedEnrollment):
            # Re-enrollment is for the holder of the certificate itself; with an offered key that is another identity.
            return _not_linkable(asked) if wanted.linked else self.simple_enroll(asked.signed)

        def request(challenge_password: str = "") -> x509.CertificateSigningRequest:
            return csr.build(
                asked.key,
                asked.request,
                renews,
                protection=asked.protection,
                owners_names=wanted.owners_names,
                challenge_password=challenge_password,
            )

        operation = self.simple_enroll if renews is None else self.simple_reenroll
        return operation(request if wanted.linked else _repeated(asked.handle, request()))

    def simple_enroll(self, request: Request) -> Issued | Pending | Refused:
        """Ask for a new certificate (RFC 7030 4.2.1)."""
        return self._read(*self._send("simpleenroll", request))

    def simple_reenroll(self, request: Request) -> Issued | Pending | Refused:
        """Renew the certificate of the session (RFC 7030 4.2.2)."""
        return self._read(*self._send("simplereenroll", request))

    def _send(self, operation: str, request: Request) -> tuple[Answer, bool]:
        """Ask; whether the answer is to a request with an authorization."""
        url = f"{self.base}/{operation}"
        headers = {
            "Accept": CERTS_ONLY,
            "Content-Type": "application/pkcs10",
            "Content-Transfer-Encoding": "base64",
        }
        if self.authorization is not None and self.authorization.at_once:
            headers["Authorization"] = self.authorization.at_once
        if isinstance(request, x509.CertificateSigningRequest):
            body = _body(request)
            return self._authorized("POST", url, headers, lambda headers: self.session.post(url, headers, body))

        def make_body(tls_unique: bytes) -> bytes:
            return _body(request(base64.b64encode(tls_unique).decode("ascii")))

        return self._authorized("POST", url, headers, lambda headers: self.session.post_linked(url, headers, make_body))

    def _authorized(self, method: str, url: str, headers: dict[str, str], send: _Send) -> tuple[Answer, bool]:
        """Send, and once more with the answer to a challenge where there is one (RFC 7030 3.2.3)."""
        answer = send(headers)
        if answer.status != 401 or self.authorization is None:  # noqa: PLR2004 - RFC 9110 15.5.2
            return answer, "Authorization" in headers
        authorization = self.authorization.answer(answer.headers.get("www-authenticate", ""), method, url)
        if not authorization:
            return answer, "Authorization" in headers
        return send({**headers, "Authorization": authorization}), True

    def _read(self, answer: Answer, authorized: bool) -> Issued | Pending | Refused:  # noqa: FBT001 - from `_send`
        """RFC 7030 4.2.3."""
        if answer.status == 200:  # noqa: PLR2004
            return Issued(_certificates(answer))
        if answer.status == 202:  # noqa: PLR2004
            until = _retry_at(answer.headers.get("retry-after", ""), self.clock.now())
            return Pending(until, _server_text(answer) or "the CA has not decided yet")
        if 400 <= answer.status < 500 and not _cannot_answer_now(answer):  # noqa: PLR2004
            meaning, who, advice = _REFUSALS.get(answer.status, _OTHER_REFUSAL)
            challenge = answer.headers.get("www-authenticate", "")
            if authorized and self.authorization and answer.status == 401:  # noqa: PLR2004
                advice = self.authorization.advice
            elif challenge and answer.status == 401:  # noqa: PLR2004
                advice = f"It asks for {printable(challenge)!r}, which is not configured or not known here. {advice}"
            return Refused(f"{meaning} ({_status(answer)})", who, advice)
        raise _unusable(answer, self.clock.now())


def read_ca_certificates(answer: Answer, now: datetime) -> tuple[x509.Certificate, ...]:
    """The certificates in an answer of cacerts (RFC 7030 4.1.3); raises as `EstClient.ca_certificates` does."""
    if answer.status in _NOT_FOR_THIS_CLIENT:
        raise ProtocolViolation(
            f"The CA does not show its certificates ({_status(answer)}).",
            remedy="It should, to everybody (RFC 7030 4.1.1). It may not accept the certificate of "
            "this device; or address or label is wrong.",
            code=CA_CERTIFICATES_REFUSED,
        )
    if answer.status != 200:  # noqa: PLR2004
        raise _unusable(answer, now)
    return _certificates(answer)


def _repeated(handle: Handle, request: x509.CertificateSigningRequest) -> x509.CertificateSigningRequest:
    """The request as it was sent before, where it is for the same (RFC 7030 4.2.3): a signature differs each time."""
    try:
        before = x509.load_der_x509_csr(base64.b64decode(handle.text, validate=True))
        if before.tbs_certrequest_bytes == request.tbs_certrequest_bytes:
            return before
    except PARSE_ERRORS:
        pass  # nothing was sent before
    text = base64.b64encode(request.public_bytes(serialization.Encoding.DER)).decode("ascii")
    if len(text) <= HANDLE_LIMIT:
        handle.keep(text)
    return request


def _not_linkable(asked: OfferedEnrollment) -> Refused:
    return Refused(
        "it wants the request linked to the TLS connection (RFC 7030 3.5), and the key is in the agent's memory, "
        "where this connection is not",
        HOSPITAL_IT,
        f"Set [identity.{asked.request.usage}] key_store to another store, or have the CA do without that.",
    )


def _body(request: x509.CertificateSigningRequest) -> bytes:
    return base64.encodebytes(request.public_bytes(serialization.Encoding.DER))


def _certificates(answer: Answer) -> tuple[x509.Certificate, ...]:
    """The certificates of a certs-only message (RFC 7030 4.1.3 and 4.2.3); their order means nothing."""
    if answer.content_type != CERTS_ONLY:
        raise _wrong_type(answer, CERTS_ONLY)
    try:
        certificates = certificates_in(decode_base64(answer.body))
    except PARSE_ERRORS as error:
        raise _violation(f"a body that holds no certificates in DER ({printable(str(error))})") from error
    if not certificates:
        raise _violation("a message without a certificate")
    return certificates


def _retry_at(text: str, now: datetime) -> datetime:
    """Retry-After as a moment, within sensible bounds."""
    wait = retry_after(text, now)
    return now + min(max(DEFAULT_WAIT if wait is None else wait, SHORTEST_WAIT), LONGEST_WAIT)


def _server_text(answer: Answer) -> str:
    """What the server says to a person; never more than a bounded line, and only where it says that it is text."""
    if answer.content_type != "text/plain":
        return ""
    return printable(answer.body[:1024].decode("utf-8", errors="replace"))


def _cannot_answer_now(answer: Answer) -> bool:
    """RFC 9110 15.5.9 and 15.6, RFC 6585 4; "not implemented" is an answer."""
    return answer.status in (408, 429) or (answer.status >= 500 and answer.status != 501)  # noqa: PLR2004


def _status(answer: Answer) -> str:
    text = _server_text(answer)
    return f"HTTP status {answer.status}{text and ': '}{text}"


def _unusable(answer: Answer, now: datetime) -> EnrollmentError:
    what = f"The CA answers with {_status(answer)}."
    if _cannot_answer_now(answer):
        error = ServerUnreachable(what, remedy="It cannot answer now; this is tried again by itself.")
        return error.left_alone_for(retry_after(answer.headers.get("retry-after", ""), now))
    return ProtocolViolation(what, remedy="Check the address and the EST label.")


def _wrong_type(answer: Answer, expected: str) -> ProtocolViolation:
    return _violation(f"an answer of type {printable(answer.content_type)!r} instead of {expected}")


def _violation(what: str) -> ProtocolViolation:
    return ProtocolViolation(f"The CA sent {what}.", remedy="Check that the address is that of an EST server.")
