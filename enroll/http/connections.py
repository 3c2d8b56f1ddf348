"""Connections of an `HttpsSession`, below `requests`: pinned trust, a deadline, and what is linked to a connection."""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import requests
import requests.adapters
import urllib3
import urllib3.connection

from enroll.clock import Clock
from enroll.errors import ProtocolViolation
from enroll.tls.connection import ClientContext, ClientSocket, RouteName

CONNECT_TIMEOUT = 10.0  # seconds, for each address of the server
VERDICT_TIMEOUT = 0.5  # seconds; most servers say something at once
NOT_LINKABLE = "proof-of-possession-impossible"  # code of ProtocolViolation


class TooMuch(OSError):
    """The server has sent more than any answer may have."""


class Deadline:
    """The end of the running exchange: in time, and in bytes.

    What reads an answer bounds its parts one by one, and overlooks some: `http.client` reads all that comes of a chunk
    with a negative length.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._end = clock.monotonic()
        self._bytes = 0

    def start(self, seconds: float, at_most: int) -> None:
        """Begin an exchange.

        Args:
            seconds: All of it.
            at_most: Bytes of the answer, on the wire.
        """
        self._end = self._clock.monotonic() + seconds
        self._bytes = at_most

    def received(self, size: int) -> int:
        """Note what came.

        Raises:
            TooMuch: It is more than may come.
        """
        self._bytes -= size
        if self._bytes < 0:
            raise TooMuch("the answer is far too long")
        return size

    def remaining(self) -> float:
        """Seconds that are left.

        Raises:
            TimeoutError: None are.
        """
        seconds = self._end - self._clock.monotonic()
        if seconds <= 0:
            raise TimeoutError("the time for the exchange is over")
        return seconds


def bounded_socket(deadline: Deadline) -> type[ClientSocket]:
    """A TLS socket whose every read and write ends at the deadline.

    The timeout of `requests` begins anew with each byte that arrives, so it bounds nothing.
    """

    class BoundedSocket(ClientSocket):
        def recv_into(self, *arguments: Any, **options: Any) -> int:
            self.settimeout(deadline.remaining())
            return deadline.received(super().recv_into(*arguments, **options))

        def send(self, *arguments: Any, **options: Any) -> int:
            self.settimeout(deadline.remaining())
            return super().send(*arguments, **options)

    return BoundedSocket


def _connected(host: str, port: int, deadline: Deadline) -> socket.socket:
    """A connection to the first address of a host that answers, within the deadline: there may be many.

    Raises:
        OSError: None does.
    """
    failure: OSError = TimeoutError("the host has no address")
    for family, kind, protocol, _, address in _addresses(host, port):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(min(CONNECT_TIMEOUT, deadline.remaining()))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.connect(address)
            return connection
        except OSError as error:
            connection.close()
            failure = error
    raise failure


def _addresses(host: str, port: int) -> Sequence[Any]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # names may come from a server, and these are not even looked up
        raise OSError("a part of the host name is empty or too long") from error


def _bounded_connection(deadline: Deadline) -> type[urllib3.connection.HTTPConnection]:
    """The same for a connection without TLS."""

    class BoundedSocket(socket.socket):
        def recv_into(self, *arguments: Any, **options: Any) -> int:
            self.settimeout(deadline.remaining())
            return deadline.received(super().recv_into(*arguments, **options))

        def sendall(self, *arguments: Any, **options: Any) -> None:
            self.settimeout(deadline.remaining())
            super().sendall(*arguments, **options)

    class BoundedConnection(urllib3.connection.HTTPConnection):
        def _new_conn(self) -> socket.socket:
            try:
                connected = _connected(self._dns_host, self.port or 80, deadline)
            except (ConnectionResetError, BrokenPipeError) as error:
                # urllib3 takes these for a request that was sent, and would go on without a connection.
                raise ConnectionAbortedError(errno.ECONNABORTED, error.strerror) from error
            return BoundedSocket(connected.family, connected.type, connected.proto, connected.detach())

    return BoundedConnection


@dataclass(frozen=True)
class LinkedBody:
    """What is sent, made from tls-unique of the connection."""

    make: Callable[[bytes], bytes]


class _Connection(urllib3.connection.HTTPSConnection):
    """A connection that makes what is linked to it, and knows what the server says of our certificate."""

    def connect(self) -> None:
        """Connect; see the base class.

        With TLS 1.3 a server judges our certificate after our side of the handshake (RFC 8446 4.4.4). Who writes before
        that verdict may find the connection closed, and never read why.
        """
        super().connect()
        self.is_verified = True  # as far as whoever made the context wants; urllib3 would warn where that is nothing
        tls = cast("ClientSocket", self.sock)
        if cast("ClientContext", tls.context).route is not RouteName.NONE and tls.version() == "TLSv1.3":
            _await_verdict(tls)

    def request(  # type: ignore[override]
        self, method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        """Send a request; the handshake is over."""
        if isinstance(body, LinkedBody):
            body = body.make(_tls_unique(self.sock))
            headers = {**(headers or {}), "Content-Length": str(len(body))}
            options["chunked"] = False
        super().request(method, url, body, headers, **options)


def _pool(deadline: Deadline) -> type[urllib3.HTTPSConnectionPool]:
    class BoundedConnection(_Connection):
        def _new_conn(self) -> socket.socket:
            return _connected(self._dns_host, self.port or 443, deadline)

    class BoundedPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = BoundedConnection

    return BoundedPool


def _await_verdict(connection: ClientSocket) -> None:
    """Read what comes after a handshake: session tickets where all is well, an alert where not, or nothing at all."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        if not selector.select(VERDICT_TIMEOUT):
            return
    connection.settimeout(0)
    with contextlib.suppress(ssl.SSLWantReadError):
        if connection.recv(1):
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, "the server speaks before it is asked")


def _tls_unique(connection: object) -> bytes:
    """RFC 5929 3. Python gives one for TLS 1.3 as well, where there is none."""
    if isinstance(connection, ssl.SSLSocket) and connection.version() == "TLSv1.2" and not connection.session_reused:
        unique = connection.get_channel_binding("tls-unique")
        if unique:
            return unique
    raise not_linkable()


def not_linkable() -> ProtocolViolation:
    """What is the matter where a connection has no tls-unique."""
    return ProtocolViolation(
        "The request has to be linked to the TLS connection, and this one has no tls-unique (RFC 5929 3).",
        remedy="The operator of the server has to allow TLS 1.2, or to do without that link.",
        code=NOT_LINKABLE,
    )


class _Adapter(requests.adapters.HTTPAdapter):
    """Connections that are tried once and closed when they are given up."""

    def __init__(self) -> None:
        super().__init__(max_retries=0)

    def close(self) -> None:
        """Close the connections now; the base class leaves that to the garbage collector. New ones can be made."""
        pools = self.poolmanager.pools
        for key in pools.keys():  # noqa: SIM118 - this container refuses to be iterated over
            pools[key].close()
        super().close()


class PlainAdapter(_Adapter):
    """Connections without TLS, within the deadline."""

    def __init__(self, deadline: Deadline) -> None:
        super().__init__()

        class BoundedPool(urllib3.HTTPConnectionPool):
            ConnectionCls = _bounded_connection(deadline)

        self.poolmanager.pool_classes_by_scheme = {"http": BoundedPool}


class PinnedAdapter(_Adapter):
    """Connections that use the given context and leave its trust as it is."""

    def __init__(self, context: ClientContext, deadline: Deadline) -> None:
        self._context = context
        self._demand = "CERT_REQUIRED" if context.verify_mode is ssl.CERT_REQUIRED else "CERT_NONE"
        super().__init__()
        self.poolmanager.pool_classes_by_scheme = {"https": _pool(deadline)}

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[Any, Any]:
        """As in the base class, without the files of foreign roots."""
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, {"ssl_context": self._context, "cert_reqs": self._demand}

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:  # noqa: ARG002 - as in the base class
        """Leave the connection pool without files of foreign roots."""
        conn.cert_reqs, conn.ca_certs, conn.ca_cert_dir = self._demand, None, None
