"""What the evaluation servers have in common: HTTPS, or HTTP, with limits. NOT FOR PRODUCTION."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from enroll.foreign import printable

REQUEST_LIMIT = 64 * 1024  # bytes
IDLE_TIMEOUT = 10.0  # seconds without a byte
CONNECTIONS_LIMIT = 16
LINGER_TIMEOUT = 1.0  # seconds without a byte, after a handshake that failed
LINGER_READS = 8
POLL_INTERVAL = 0.05  # seconds until `stop` is noticed
REALM = "evaluation"
BASIC_CHALLENGE = f'Basic realm="{REALM}"'

LOG = logging.getLogger(__name__)


class HttpsServer:
    """A server; runs between `start` and `stop`, in a `with` block, or in `serve_forever`.

    Args:
        context: The TLS of its side; None for HTTP.
        handler: Makes the answers of one connection: takes what `EvaluationHandler` takes.
        address: Host and port; port 0 takes a free one.
        log: Gets one line for each request; it names the client certificate, where there is one.
    """

    def __init__(
        self,
        context: ssl.SSLContext | None,
        handler: Callable[..., EvaluationHandler],
        address: tuple[str, int],
        log: Callable[[str], None],
    ) -> None:
        self._server = _Server(context, handler, address, log)
        self._scheme = "https" if context else "http"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_INTERVAL,), daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Its address."""
        host, port = str(self._server.server_address[0]), self._server.server_address[1]
        return f"{self._scheme}://[{host}]:{port}" if ":" in host else f"{self._scheme}://{host}:{port}"

    def start(self) -> None:
        """Serve in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close the socket."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def serve_forever(self) -> None:
        """Serve in this thread until the process is interrupted."""
        with self._server:
            self._server.serve_forever()


class _Server(ThreadingHTTPServer):
    """Threads, TLS and the limits on connections."""

    daemon_threads = True
    request_queue_size = CONNECTIONS_LIMIT

    def __init__(
        self,
        context: ssl.SSLContext | None,
        handler: Callable[..., EvaluationHandler],
        address: tuple[str, int],
        log: Callable[[str], None],
    ) -> None:
        self.log = log
        self._slots = threading.BoundedSemaphore(CONNECTIONS_LIMIT)
        self._context = context
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Take the connection, unless there are too many."""
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Make TLS of the connection here, in its own thread: a slow handshake must not hold up the others."""
        request.settimeout(IDLE_TIMEOUT)
        try:
            if self._context is None:
                super().finish_request(request, client_address)
                return
            with self._context.wrap_socket(request, server_side=True, do_handshake_on_connect=False) as secured:
                _shake_hands(secured)
                super().finish_request(secured, client_address)
        except OSError as error:
            self.log(f"A connection ended: {error}")


def _shake_hands(connection: ssl.SSLSocket) -> None:
    """Do the handshake; where it fails, let the client read why.

    In TLS 1.3 a client has sent its request before its certificate is judged. A socket that is closed with something
    unread is reset, and the alert is lost on the way.
    """
    try:
        connection.do_handshake()
    except OSError:
        with contextlib.suppress(OSError):
            connection.settimeout(LINGER_TIMEOUT)
            connection.shutdown(socket.SHUT_WR)
            for _ in range(LINGER_READS):
                if not connection.recv(REQUEST_LIMIT):
                    break
        raise


class Rejection(Exception):
    """The answer to a request that is not granted.

    Args:
        status: HTTP status.
        text: For a person.
        challenges: How the client may prove itself (RFC 9110 11.6.1); with a status of 401.
    """

    def __init__(self, status: HTTPStatus, text: str, challenges: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.challenges = challenges


class EvaluationHandler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "scanseal-evaluation-ca"
    sys_version = ""
    timeout = IDLE_TIMEOUT
    disable_nagle_algorithm = True  # headers and body are sent one after the other
    server: _Server
    connection: ssl.SSLSocket

    def get(self) -> None:
        """Answer a GET; subclasses do.

        Raises:
            Rejection: It is not granted.
        """
        raise Rejection(HTTPStatus.NOT_FOUND, "There is nothing to read here.")

    def post(self) -> None:
        """Answer a POST; subclasses do.

        Raises:
            Rejection: It is not granted.
        """
        raise Rejection(HTTPStatus.NOT_FOUND, "There is no such operation.")

    def do_GET(self) -> None:
        """Called by the base class."""
        self._answer(self.get)

    def do_POST(self) -> None:
        """Called by the base class."""
        self._answer(self.post)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        """One line for each request."""
        secured = isinstance(self.connection, ssl.SSLSocket)
        encoded = self.connection.getpeercert(binary_form=True) if secured else None
        client = "" if encoded is None else f" (client certificate SHA-256 {hashlib.sha256(encoded).hexdigest()})"
        self.server.log(printable(format % args) + client)

    def body(self) -> bytes:
        """The body of the request.

        Raises:
            Rejection: It is too long, or does not say how long it is.
        """
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or "Transfer-Encoding" in self.headers:
            raise Rejection(HTTPStatus.LENGTH_REQUIRED, "Say how long the request is.")
        if len(length) > len(str(REQUEST_LIMIT)) or int(length) > REQUEST_LIMIT:
            raise Rejection(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too long.")
        content = self.rfile.read(int(length))
        self._unread = False
        return content

    def check_password(self, username: str, password: bytes) -> None:
        """HTTP Basic (RFC 7617).

        Raises:
            Rejection: User name or password is wrong, or missing.
        """
        expected = base64.b64encode(username.encode() + b":" + password).decode("ascii")
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(f"Basic {expected}".encode(), given.encode("utf-8", errors="replace")):
            raise Rejection(HTTPStatus.UNAUTHORIZED, "User name or password is wrong.", [BASIC_CHALLENGE])

    def send(self, status: HTTPStatus, headers: Mapping[str, str], body: bytes, challenges: Sequence[str] = ()) -> None:
        """Answer."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        for challenge in challenges:
            self.send_header("WWW-Authenticate", challenge)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, answer: Callable[[], None]) -> None:
        self._unread = "Content-Length" in self.headers or "Transfer-Encoding" in self.headers
        try:
            answer()
        except Rejection as rejection:
            self._reject(rejection)
        # What is left of a request would be taken for the next one.
        self.close_connection |= self._unread

    def _reject(self, rejection: Rejection) -> None:
        headers = {"Content-Type": "text/plain; charset=utf-8"} | ({"Connection": "close"} if self._unread else {})
        self.send(rejection.status, headers, f"{rejection.text}\n".encode(), rejection.challenges)
