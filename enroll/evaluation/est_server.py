"""The evaluation CA behind EST (RFC 7030) over TLS 1.2 and 1.3. NOT FOR PRODUCTION.

| below /.well-known/est/ | who may ask                                                                            |
|-------------------------|----------------------------------------------------------------------------------------|
| GET cacerts             | everybody                                                                              |
| GET csrattrs            | everybody; the answer is 204, nothing special is wanted                                |
| POST simpleenroll       | who has the password; who has a device certificate of this CA, for its serial number   |
| POST simplereenroll     | who has a device certificate of this CA, for its subject and alternative names         |
"""

from __future__ import annotations

import base64
import hmac
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from enroll.certificates import PARSE_ERRORS, alternative_names, decode_base64
from enroll.errors import EnrollmentRefused
from enroll.evaluation.ca import USERNAME, EvaluationCa
from enroll.foreign import printable

REQUEST_LIMIT = 64 * 1024  # bytes
IDLE_TIMEOUT = 10.0  # seconds without a byte
CONNECTIONS_LIMIT = 16
POLL_INTERVAL = 0.05  # seconds until `stop` is noticed

_BASE = "/.well-known/est/"
_LOG = logging.getLogger(__name__)


class EstServer:
    """The server; runs between `start` and `stop`, in a `with` block, or in `serve_forever`.

    Args:
        ca: The CA behind it.
        address: Host and port; port 0 takes a free one. The server certificate is for loopback only.
        log: Gets one line for each request.
    """

    def __init__(
        self, ca: EvaluationCa, address: tuple[str, int] = ("127.0.0.1", 0), log: Callable[[str], None] = _LOG.info
    ) -> None:
        self._server = _Server(ca, address, log)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_INTERVAL,), daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The address for [est] url."""
        host, port = str(self._server.server_address[0]), self._server.server_address[1]
        return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"

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

    def __init__(self, ca: EvaluationCa, address: tuple[str, int], log: Callable[[str], None]) -> None:
        self.ca = ca
        self.log = log
        self._slots = threading.BoundedSemaphore(CONNECTIONS_LIMIT)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.load_cert_chain(ca.directory / "server.pem", ca.directory / "server.key")
        self._context.load_verify_locations(ca.anchor_file)
        self._context.verify_mode = ssl.CERT_OPTIONAL
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

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
            with self._context.wrap_socket(request, server_side=True) as secured:
                super().finish_request(secured, client_address)
        except OSError as error:
            self.log(f"A connection ended: {error}")


class _Rejection(Exception):
    """The answer to a request that is not granted."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "scanseal-evaluation-ca"
    sys_version = ""
    timeout = IDLE_TIMEOUT
    server: _Server
    connection: ssl.SSLSocket

    def do_GET(self) -> None:
        """Answer cacerts and csrattrs (RFC 7030 4.1 and 4.5)."""
        if self.path == f"{_BASE}cacerts":
            self._send_certificate(self.server.ca.certificate)
        elif self.path == f"{_BASE}csrattrs":
            self._send(HTTPStatus.NO_CONTENT, {}, b"")
        else:
            self._reject(_Rejection(HTTPStatus.NOT_FOUND, "There is no such EST operation."))

    def do_POST(self) -> None:
        """Answer simpleenroll and simplereenroll (RFC 7030 4.2)."""
        try:
            certificate = self._enroll()
        except EnrollmentRefused as error:
            self._reject(_Rejection(HTTPStatus.BAD_REQUEST, error.what))
        except PARSE_ERRORS:
            self._reject(_Rejection(HTTPStatus.BAD_REQUEST, "The body is no PKCS#10 request in base64."))
        except _Rejection as rejection:
            self._reject(rejection)
        else:
            self._send_certificate(certificate)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        """One line for each request."""
        self.server.log(printable(format % args))

    def _enroll(self) -> x509.Certificate:
        authorise = {
            f"{_BASE}simpleenroll": self._authorise,
            f"{_BASE}simplereenroll": self._authorise_renewal,
        }.get(self.path)
        if authorise is None:
            raise _Rejection(HTTPStatus.NOT_FOUND, "There is no such EST operation.")
        request = self._request()
        authorise(request)
        return self.server.ca.issue(request)

    def _request(self) -> x509.CertificateSigningRequest:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or "Transfer-Encoding" in self.headers:
            raise _Rejection(HTTPStatus.LENGTH_REQUIRED, "Say how long the request is.")
        if len(length) > len(str(REQUEST_LIMIT)) or int(length) > REQUEST_LIMIT:
            raise _Rejection(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too long.")
        return x509.load_der_x509_csr(decode_base64(self.rfile.read(int(length))))

    def _authorise(self, request: x509.CertificateSigningRequest) -> None:
        device = self._device_certificate()
        if device is None:
            expected = base64.b64encode(USERNAME.encode() + b":" + self.server.ca.password).decode("ascii")
            given = self.headers.get("Authorization", "")
            if not hmac.compare_digest(f"Basic {expected}".encode(), given.encode("utf-8", errors="replace")):
                raise _Rejection(HTTPStatus.UNAUTHORIZED, "User name or password is wrong.")
        elif _serial_numbers(device) != _serial_numbers(request):
            raise _Rejection(HTTPStatus.FORBIDDEN, "A device may enroll for its own serial number only.")

    def _authorise_renewal(self, request: x509.CertificateSigningRequest) -> None:
        device = self._device_certificate()
        if device is None:
            raise _Rejection(HTTPStatus.UNAUTHORIZED, "A certificate is renewed with itself as client certificate.")
        if (request.subject, alternative_names(request)) != (device.subject, alternative_names(device)):
            raise _Rejection(HTTPStatus.FORBIDDEN, "The names are not those of the certificate.")

    def _device_certificate(self) -> x509.Certificate | None:
        """The client certificate where it is one of a device; TLS has verified that this CA issued it."""
        encoded = self.connection.getpeercert(binary_form=True)
        if encoded is None:
            return None
        certificate = x509.load_der_x509_certificate(encoded)
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        return certificate if ExtendedKeyUsageOID.CLIENT_AUTH in purposes else None

    def _send_certificate(self, certificate: x509.Certificate) -> None:
        message = pkcs7.serialize_certificates([certificate], serialization.Encoding.DER)
        headers = {
            "Content-Type": "application/pkcs7-mime; smime-type=certs-only",
            "Content-Transfer-Encoding": "base64",
        }
        self._send(HTTPStatus.OK, headers, base64.encodebytes(message))

    def _reject(self, rejection: _Rejection) -> None:
        # What is left of the request is not read.
        self.close_connection = True
        headers = {"Content-Type": "text/plain; charset=utf-8", "Connection": "close"}
        if rejection.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = 'Basic realm="evaluation"'
        self._send(rejection.status, headers, f"{rejection.text}\n".encode())

    def _send(self, status: HTTPStatus, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _serial_numbers(named: x509.Certificate | x509.CertificateSigningRequest) -> list[str | bytes]:
    return [attribute.value for attribute in named.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)]
