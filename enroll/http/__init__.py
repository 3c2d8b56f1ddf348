"""HTTP with exactly the trust and the limits that are asked for; the only user of `requests`.

What `requests` does on its own and must not do here: add the roots of certifi or of REQUESTS_CA_BUNDLE to the pinned
ones, take a proxy or a password from the environment, follow a redirect with the credentials, unpack what the server
compressed, and wait for ever for a server that sends a byte now and then.

A session speaks HTTPS and nothing else, unless it is told that what it fetches proves itself.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self, cast
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from enroll.clock import Clock
from enroll.clock_sense import CLOCK_SUSPECT, ClockSense
from enroll.clock_sense import REMEDY as CLOCK_REMEDY
from enroll.errors import EnrollmentError, ProtocolViolation, ServerUnreachable
from enroll.foreign import printable
from enroll.http.connections import (
    Deadline,
    LinkedBody,
    PinnedAdapter,
    PlainAdapter,
    TooMuch,
    bounded_socket,
    not_linkable,
)
from enroll.tls.connection import ClientContext

HEADERS_LIMIT = 32 * 1024  # bytes
BODY_LIMIT = 1 << 20  # bytes
CLIENT_CERTIFICATE_REFUSED = "client-certificate-refused"  # codes of ServerUnreachable
_VERSION = "tls-version-refused"
_DATES = {9, 10}  # OpenSSL x509_vfy.h: not yet valid, expired
_ALERTS = {  # RFC 8446 6.2, by OpenSSL's names: which of our errors it is
    "SSLV3_ALERT_BAD_CERTIFICATE": CLIENT_CERTIFICATE_REFUSED,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": CLIENT_CERTIFICATE_REFUSED,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": CLIENT_CERTIFICATE_REFUSED,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": CLIENT_CERTIFICATE_REFUSED,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": CLIENT_CERTIFICATE_REFUSED,
    "TLSV1_ALERT_ACCESS_DENIED": CLIENT_CERTIFICATE_REFUSED,
    "TLSV1_ALERT_UNKNOWN_CA": CLIENT_CERTIFICATE_REFUSED,
    "TLSV1_ALERT_PROTOCOL_VERSION": _VERSION,
}
_HEADERS = {"User-Agent": "scanseal", "Accept-Encoding": "identity"}
_LAYERS = (requests.RequestException, urllib3.exceptions.HTTPError)


@dataclass(frozen=True)
class Answer:
    """What the server said; bounded, otherwise unchecked.

    Args:
        status: HTTP status, never a redirect.
        headers: Names in lower case. Several of one name are one, with ", " between them (RFC 9110 5.2).
        body: As it came over the wire.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class HttpsSession:
    """A connection to one server, kept open between exchanges.

    Args:
        context: The trust and the identity of this side. Belongs to the session from now on.
        clock: Measures the deadline; and explains why a server's certificate is not valid, where that is our clock.
        timeout: Seconds for one whole exchange, from the first packet to the last byte of the answer. Looking up the
            server's address is the resolver's time and comes on top.
        plain: Whether a URL may also be one of plain HTTP: only for what is signed by itself.
        body_limit: Bytes of the largest answer.
    """

    def __init__(
        self,
        context: ClientContext,
        clock: Clock,
        timeout: float,
        *,
        plain: bool = False,
        body_limit: int = BODY_LIMIT,
    ) -> None:
        self._body_limit = body_limit
        self._timeout = timeout
        self._context = context
        self._clock = clock
        self._deadline = Deadline(clock)
        context.sslsocket_class = bounded_socket(self._deadline)
        self._session = requests.Session()
        self._session.adapters.clear()
        self._session.mount("https://", PinnedAdapter(context, self._deadline))
        if plain:
            self._session.mount("http://", PlainAdapter(self._deadline))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def get(self, url: str, headers: Mapping[str, str]) -> Answer:
        """Fetch `url`.

        Raises:
            ServerUnreachable: No verified connection, or no complete answer in time.
            KeyStoreError: The key of this side could not sign.
            ProtocolViolation: The answer breaks a limit, is a redirect or is no HTTP.
        """
        return self._exchange("GET", url, headers, None)

    def head(self, url: str) -> Answer:
        """Fetch only what is said about `url`; raises as `get` does."""
        return self._exchange("HEAD", url, {}, None)

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send `body` to `url`; raises as `get` does."""
        return self._exchange("POST", url, headers, body)

    def post_linked(self, url: str, headers: Mapping[str, str], make_body: Callable[[bytes], bytes]) -> Answer:
        """Send what is made for the connection that it goes over; raises as `get` does.

        From now on this session speaks TLS 1.2, which has a tls-unique (RFC 5929 3). TLS 1.3 has none (RFC 9266 1).

        Args:
            url: Where to.
            headers: Without a length.
            make_body: Is given tls-unique of the connection, after its handshake. Called once.

        Raises:
            ProtocolViolation: As `get`; `proof-of-possession-impossible` where the server speaks nothing but TLS 1.3.
        """
        if self._context.maximum_version is not ssl.TLSVersion.TLSv1_2:
            self._session.get_adapter(url).close()
            self._context.maximum_version = ssl.TLSVersion.TLSv1_2
            self._context.options |= ssl.OP_NO_RENEGOTIATION  # tls-unique would be another one afterwards
        try:
            return self._exchange("POST", url, headers, LinkedBody(make_body))
        except ServerUnreachable as error:
            if error.code == _VERSION:
                raise not_linkable() from error
            raise

    def _exchange(self, method: str, url: str, headers: Mapping[str, str], body: bytes | LinkedBody | None) -> Answer:
        # Chunks and headers take no more than the body itself.
        self._deadline.start(self._timeout, 2 * (HEADERS_LIMIT + self._body_limit))
        try:
            # A linked body is made when there is a connection: `requests` passes it on to `_Connection` as it is.
            data = cast("bytes | None", body)
            request = requests.Request(method, url, {**_HEADERS, **headers}, data=data).prepare()
            # A session would look for cookies, passwords and proxies, of which there are none (docs/benchmarks.md).
            with self._session.get_adapter(url).send(request, stream=True, timeout=self._timeout) as response:
                _check_head(response, url)
                content = _read(response, url, self._body_limit)
        except _LAYERS as error:
            raise _failure(error, url, self._clock) from error
        return Answer(response.status_code, {n.lower(): v for n, v in response.headers.items()}, content)


def get_unverified(url: str, headers: Mapping[str, str], clock: Clock, timeout: float) -> Answer:
    """Fetch what proves itself from a server that does not: over a connection of its own, which is closed afterwards.

    Whoever is in between can read and change everything, so nothing secret may be in `url` and `headers`, and nothing
    of the answer may be believed that is not compared with what came on a trusted way.

    Raises:
        EnrollmentError: As `HttpsSession.get`.
    """
    with HttpsSession(ClientContext.without_trust(), clock, timeout) as session:
        return session.get(url, headers)


def _check_head(response: requests.Response, url: str) -> None:
    if sum(len(name) + len(value) for name, value in response.headers.items()) > HEADERS_LIMIT:
        raise _violation(url, f"sends more than {HEADERS_LIMIT} bytes of headers")
    if 300 <= response.status_code < 400:  # noqa: PLR2004 - RFC 9110 15.4: redirection
        raise _violation(url, "redirects; configure the final address if it is right")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise _violation(url, "compresses its answer, which was not asked for")


def _read(response: requests.Response, url: str, limit: int) -> bytes:
    content = b""
    # A body that ends too early is noticed by the read after its last piece.
    while piece := response.raw.read(limit + 1 - len(content), decode_content=False):
        content += piece
    if len(content) > limit:
        raise _violation(url, f"sends more than {limit} bytes")
    return content


def _violation(url: str, what: str) -> ProtocolViolation:
    return ProtocolViolation(
        f"{_server(url)} {what}.", remedy="Check the address; otherwise ask the operator of the server."
    )


def _failure(error: Exception, url: str, clock: Clock) -> EnrollmentError:
    cause = _innermost(error)
    reason = printable(str(cause))
    if isinstance(cause, ssl.SSLCertVerificationError):
        sense = ClockSense.of(clock).sense()
        if cause.verify_code in _DATES and sense.doubt is not None:  # TLS goes by the clock of the machine
            what = f"The certificate of {_server(url)} is not valid by the clock of this machine: {reason}."
            return ServerUnreachable(f"{what} {sense.explanation()}", remedy=CLOCK_REMEDY, code=CLOCK_SUSPECT)
        return ServerUnreachable(
            f"{_server(url)} does not prove to be the right server: {reason}.",
            remedy="Compare the anchor file with the CA of the server, its name with the address, and this clock.",
        )
    if isinstance(cause, ssl.SSLError):
        return ServerUnreachable(
            f"No TLS connection to {_server(url)}: {reason}.",
            remedy="The server may not accept the certificate of this device, or miss one; its log says why.",
            code=_ALERTS.get(getattr(cause, "reason", None) or ""),
        )
    if isinstance(cause, TooMuch):
        return _violation(url, "sends far more than an answer may have")
    if isinstance(cause, OSError | http.client.IncompleteRead):
        return ServerUnreachable(
            f"No complete answer from {_server(url)}: {reason}.",
            remedy="Check the address, the network and that the server is running.",
        )
    return ProtocolViolation(
        f"{_server(url)} does not speak proper HTTP: {reason}.",
        remedy="Check that the address is that of the server and not of a gateway before it.",
    )


def _innermost(error: BaseException) -> BaseException:
    """What went wrong at the bottom; the layers above only say that something did."""
    while isinstance(error, _LAYERS):
        wrapped = (argument for argument in error.args if isinstance(argument, BaseException))
        deeper = error.__cause__ or error.__context__ or next(wrapped, None)
        if deeper is None:
            break
        error = deeper
    return error


def _server(url: str) -> str:
    return urlsplit(url).netloc
