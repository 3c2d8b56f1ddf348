"""HTTP with exactly the trust and the limits that are asked for; the only user of `requests`.

What `requests` does on its own and must not do here: add the roots of certifi or of REQUESTS_CA_BUNDLE to the pinned
ones, take a proxy or a password from the environment, follow a redirect with the credentials, unpack what the server
compressed, and wait for ever for a server that sends a byte now and then.

A session speaks HTTPS and nothing else, unless it is told that what it fetches proves itself.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import requests
import requests.adapters
import urllib3
import urllib3.connection
import urllib3.exceptions

from enroll.clock import Clock
from enroll.errors import EnrollmentError, ProtocolViolation, ServerUnreachable
from enroll.foreign import printable
from enroll.tls.connection import ClientContext, ClientSocket

HEADERS_LIMIT = 32 * 1024  # bytes
BODY_LIMIT = 1 << 20  # bytes
CONNECT_TIMEOUT = 10.0  # seconds, for each address of the server
_LAYERS = (requests.RequestException, urllib3.exceptions.HTTPError)


@dataclass(frozen=True)
class Answer:
    """What the server said; bounded, otherwise unchecked.

    Args:
        status: HTTP status, never a redirect.
        headers: Names in lower case.
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
        clock: Measures the deadline.
        timeout: Seconds for one whole exchange, from the first packet to the last byte of the answer. Looking up the
            server's address is the resolver's time and comes on top.
        plain: Whether a URL may also be one of plain HTTP: only for what is signed by itself.
    """

    def __init__(self, context: ClientContext, clock: Clock, timeout: float, *, plain: bool = False) -> None:
        self._timeout = timeout
        self._deadline = _Deadline(clock)
        context.sslsocket_class = _bounded_socket(self._deadline)
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers.clear()
        self._session.headers.update({"User-Agent": "scanseal", "Accept-Encoding": "identity"})
        self._session.adapters.clear()
        self._session.mount("https://", _PinnedAdapter(context))
        if plain:
            self._session.mount("http://", _PlainAdapter(self._deadline))

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

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send `body` to `url`; raises as `get` does."""
        return self._exchange("POST", url, headers, body)

    def _exchange(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        self._deadline.start(self._timeout)
        timeouts = (min(CONNECT_TIMEOUT, self._timeout), self._timeout)
        try:
            with self._session.request(
                method, url, data=body, headers=headers, allow_redirects=False, stream=True, timeout=timeouts
            ) as response:
                _check_head(response, url)
                content = _read(response, url)
        except _LAYERS as error:
            raise _failure(error, url) from error
        return Answer(response.status_code, {n.lower(): v for n, v in response.headers.items()}, content)


class _Deadline:
    """The end of the running exchange."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._end = clock.monotonic()

    def start(self, seconds: float) -> None:
        self._end = self._clock.monotonic() + seconds

    def remaining(self) -> float:
        seconds = self._end - self._clock.monotonic()
        if seconds <= 0:
            raise TimeoutError("the time for the exchange is over")
        return seconds


def _bounded_socket(deadline: _Deadline) -> type[ClientSocket]:
    """A TLS socket whose every read and write ends at the deadline.

    The timeout of `requests` begins anew with each byte that arrives, so it bounds nothing.
    """

    class BoundedSocket(ClientSocket):
        def recv_into(self, *arguments: Any, **options: Any) -> int:
            self.settimeout(deadline.remaining())
            return super().recv_into(*arguments, **options)

        def send(self, *arguments: Any, **options: Any) -> int:
            self.settimeout(deadline.remaining())
            return super().send(*arguments, **options)

    return BoundedSocket


def _bounded_connection(deadline: _Deadline) -> type[urllib3.connection.HTTPConnection]:
    """The same for a connection without TLS."""

    class BoundedSocket(socket.socket):
        def recv_into(self, *arguments: Any, **options: Any) -> int:
            self.settimeout(deadline.remaining())
            return super().recv_into(*arguments, **options)

        def sendall(self, *arguments: Any, **options: Any) -> None:
            self.settimeout(deadline.remaining())
            super().sendall(*arguments, **options)

    class BoundedConnection(urllib3.connection.HTTPConnection):
        def _new_conn(self) -> socket.socket:
            connected = super()._new_conn()
            return BoundedSocket(connected.family, connected.type, connected.proto, connected.detach())

    return BoundedConnection


class _Adapter(requests.adapters.HTTPAdapter):
    """Connections that are tried once and closed when they are given up."""

    def __init__(self) -> None:
        super().__init__(max_retries=0)

    def close(self) -> None:
        """Close the connections now; the base class leaves that to the garbage collector."""
        pools = self.poolmanager.pools
        for key in pools.keys():  # noqa: SIM118 - this container refuses to be iterated over
            pools[key].close()
        super().close()


class _PlainAdapter(_Adapter):
    """Connections without TLS, within the deadline."""

    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()

        class BoundedPool(urllib3.HTTPConnectionPool):
            ConnectionCls = _bounded_connection(deadline)

        self.poolmanager.pool_classes_by_scheme = {"http": BoundedPool}


class _PinnedAdapter(_Adapter):
    """Connections that use the given context and leave its trust as it is."""

    def __init__(self, context: ClientContext) -> None:
        self._context = context
        super().__init__()

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[Any, Any]:
        """As in the base class, without the files of foreign roots."""
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, {"ssl_context": self._context, "cert_reqs": "CERT_REQUIRED"}

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:  # noqa: ARG002 - as in the base class
        """Leave the connection pool without files of foreign roots."""
        conn.cert_reqs, conn.ca_certs, conn.ca_cert_dir = "CERT_REQUIRED", None, None


def _check_head(response: requests.Response, url: str) -> None:
    if sum(len(name) + len(value) for name, value in response.headers.items()) > HEADERS_LIMIT:
        raise _violation(url, f"sends more than {HEADERS_LIMIT} bytes of headers")
    if 300 <= response.status_code < 400:  # noqa: PLR2004 - RFC 9110 15.4: redirection
        raise _violation(url, "redirects; configure the final address if it is right")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise _violation(url, "compresses its answer, which was not asked for")


def _read(response: requests.Response, url: str) -> bytes:
    content = b""
    # A body that ends too early is noticed by the read after its last piece.
    while piece := response.raw.read(BODY_LIMIT + 1 - len(content), decode_content=False):
        content += piece
    if len(content) > BODY_LIMIT:
        raise _violation(url, f"sends more than {BODY_LIMIT} bytes")
    return content


def _violation(url: str, what: str) -> ProtocolViolation:
    return ProtocolViolation(
        f"{_server(url)} {what}.", remedy="Check the address; otherwise ask the operator of the server."
    )


def _failure(error: Exception, url: str) -> EnrollmentError:
    cause = _innermost(error)
    reason = printable(str(cause))
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ServerUnreachable(
            f"{_server(url)} does not prove to be the right server: {reason}.",
            remedy="Compare the anchor file with the CA of the server, its name with the address, and this clock.",
        )
    if isinstance(cause, ssl.SSLError):
        return ServerUnreachable(
            f"No TLS connection to {_server(url)}: {reason}.",
            remedy="The server may not accept the certificate of this device; its log says why.",
        )
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
