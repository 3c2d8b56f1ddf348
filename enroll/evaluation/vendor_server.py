"""The evaluation vendor's provisioning service: EST (RFC 7030) over TLS 1.2 and 1.3. NOT FOR PRODUCTION.

| below /.well-known/est/vendor/ | who may ask                                                                        |
|--------------------------------|------------------------------------------------------------------------------------|
| GET cacerts                    | everybody                                                                          |
| GET csrattrs                   | everybody; the answer is 204, nothing special is wanted                            |
| POST simpleenroll              | who has a service ticket (RFC 6750) for this device, with its nonce in the request |
| POST simplereenroll            | who has a factory identity of this vendor, for a certificate that this device has  |
"""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID

from enroll.certificates import PARSE_ERRORS, decode_base64
from enroll.errors import EnrollmentRefused
from enroll.evaluation.https_server import LOG, EvaluationHandler, HttpsServer, Rejection
from enroll.evaluation.vendor_ca import VendorCa
from enroll.vendor.ticket import TICKET_LIMIT

LABEL = "vendor"

_BASE = f"/.well-known/est/{LABEL}/"
_BEARER = re.compile(rf"Bearer ([A-Za-z0-9._~+/=-]{{1,{TICKET_LIMIT}}})")


class VendorServer(HttpsServer):
    """The service; runs between `start` and `stop`, in a `with` block, or in `serve_forever`.

    Args:
        ca: The vendor behind it.
        address: Host and port; port 0 takes a free one. The server certificate is for loopback only.
        log: Gets one line for each request; it names the client certificate, where there is one.
    """

    def __init__(
        self, ca: VendorCa, address: tuple[str, int] = ("127.0.0.1", 0), log: Callable[[str], None] = LOG.info
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(ca.directory / "server.pem", ca.directory / "server.key")
        context.load_verify_locations(ca.anchor_file)
        context.verify_mode = ssl.CERT_OPTIONAL
        super().__init__(context, partial(_Handler, ca), address, log)


class _Handler(EvaluationHandler):
    """One connection."""

    def __init__(self, ca: VendorCa, *connection: Any) -> None:
        self._ca = ca
        super().__init__(*connection)

    def get(self) -> None:
        """Answer cacerts and csrattrs (RFC 7030 4.1 and 4.5)."""
        if self.path == f"{_BASE}cacerts":
            self._send_certificate(self._ca.issuing_certificate)
        elif self.path == f"{_BASE}csrattrs":
            self.send(HTTPStatus.NO_CONTENT, {}, b"")
        else:
            raise Rejection(HTTPStatus.NOT_FOUND, "There is no such EST operation.")

    def post(self) -> None:
        """Answer simpleenroll and simplereenroll (RFC 7030 4.2)."""
        body = self.body()  # first: a connection that is closed with something unread may lose the answer
        answer = {f"{_BASE}simpleenroll": self._first, f"{_BASE}simplereenroll": self._renewed}.get(self.path)
        if answer is None:
            raise Rejection(HTTPStatus.NOT_FOUND, "There is no such EST operation.")
        try:
            certificate = answer(x509.load_der_x509_csr(decode_base64(body)))
        except EnrollmentRefused as error:
            status = HTTPStatus.FORBIDDEN if error.code.startswith("ticket-") else HTTPStatus.BAD_REQUEST
            raise Rejection(status, error.what) from error
        except PARSE_ERRORS as error:
            raise Rejection(HTTPStatus.BAD_REQUEST, "The body is no PKCS#10 request in base64.") from error
        self._send_certificate(certificate)

    def _first(self, request: x509.CertificateSigningRequest) -> x509.Certificate:
        bearer = _BEARER.fullmatch(self.headers.get("Authorization", ""))
        if bearer is None:
            raise Rejection(HTTPStatus.UNAUTHORIZED, "There is no service ticket with the request.")
        return self._ca.issue(request, bearer[1])

    def _renewed(self, request: x509.CertificateSigningRequest) -> x509.Certificate:
        encoded = self.connection.getpeercert(binary_form=True)
        factory = None if encoded is None else x509.load_der_x509_certificate(encoded)
        if factory is None or not _is_for_devices(factory):
            raise Rejection(HTTPStatus.UNAUTHORIZED, "The device has to prove itself with its factory identity.")
        return self._ca.renew(request, factory)

    def _send_certificate(self, certificate: x509.Certificate) -> None:
        message = pkcs7.serialize_certificates([certificate], serialization.Encoding.DER)
        headers = {
            "Content-Type": "application/pkcs7-mime; smime-type=certs-only",
            "Content-Transfer-Encoding": "base64",
        }
        self.send(HTTPStatus.OK, headers, base64.encodebytes(message))


def _is_for_devices(certificate: x509.Certificate) -> bool:
    """Whether it is a factory identity; TLS has verified that this vendor issued it."""
    return (
        ExtendedKeyUsageOID.CLIENT_AUTH in certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    )
