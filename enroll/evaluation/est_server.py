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
import ssl
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from enroll.certificates import PARSE_ERRORS, alternative_names, decode_base64
from enroll.errors import EnrollmentRefused
from enroll.evaluation.ca import USERNAME, EvaluationCa
from enroll.evaluation.https_server import LOG, EvaluationHandler, HttpsServer, Rejection

_BASE = "/.well-known/est/"


class EstServer(HttpsServer):
    """The server; runs between `start` and `stop`, in a `with` block, or in `serve_forever`.

    Args:
        ca: The CA behind it.
        address: Host and port; port 0 takes a free one. The server certificate is for loopback only.
        log: Gets one line for each request; it names the client certificate, where there is one.
        demands_certificate: Whether a client without a certificate gets no connection at all.
        tls_version: The only one that is spoken; by default 1.2 and 1.3.
    """

    def __init__(
        self,
        ca: EvaluationCa,
        address: tuple[str, int] = ("127.0.0.1", 0),
        log: Callable[[str], None] = LOG.info,
        *,
        demands_certificate: bool = False,
        tls_version: ssl.TLSVersion | None = None,
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = tls_version or ssl.TLSVersion.TLSv1_2
        context.maximum_version = tls_version or ssl.TLSVersion.MAXIMUM_SUPPORTED
        context.load_cert_chain(ca.directory / "server.pem", ca.directory / "server.key")
        context.load_verify_locations(ca.anchor_file)
        context.verify_mode = ssl.CERT_REQUIRED if demands_certificate else ssl.CERT_OPTIONAL
        super().__init__(context, partial(_Handler, ca), address, log)


class _Handler(EvaluationHandler):
    """One connection."""

    def __init__(self, ca: EvaluationCa, *connection: Any) -> None:
        self._ca = ca
        super().__init__(*connection)

    def get(self) -> None:
        """Answer cacerts and csrattrs (RFC 7030 4.1 and 4.5)."""
        if self.path == f"{_BASE}cacerts":
            self._send_certificate(self._ca.certificate)
        elif self.path == f"{_BASE}csrattrs":
            self.send(HTTPStatus.NO_CONTENT, {}, b"")
        else:
            raise Rejection(HTTPStatus.NOT_FOUND, "There is no such EST operation.")

    def post(self) -> None:
        """Answer simpleenroll and simplereenroll (RFC 7030 4.2)."""
        try:
            certificate = self._enroll()
        except EnrollmentRefused as error:
            raise Rejection(HTTPStatus.BAD_REQUEST, error.what) from error
        except PARSE_ERRORS as error:
            raise Rejection(HTTPStatus.BAD_REQUEST, "The body is no PKCS#10 request in base64.") from error
        self._send_certificate(certificate)

    def _enroll(self) -> x509.Certificate:
        authorise = {
            f"{_BASE}simpleenroll": self._authorise,
            f"{_BASE}simplereenroll": self._authorise_renewal,
        }.get(self.path)
        if authorise is None:
            raise Rejection(HTTPStatus.NOT_FOUND, "There is no such EST operation.")
        request = self._request()
        authorise(request)
        return self._ca.issue(request)

    def _request(self) -> x509.CertificateSigningRequest:
        return x509.load_der_x509_csr(decode_base64(self.body()))

    def _authorise(self, request: x509.CertificateSigningRequest) -> None:
        device = self._device_certificate()
        if device is None:
            self.check_password(USERNAME, self._ca.password)
        elif _serial_numbers(device) != _serial_numbers(request):
            raise Rejection(HTTPStatus.FORBIDDEN, "A device may enroll for its own serial number only.")

    def _authorise_renewal(self, request: x509.CertificateSigningRequest) -> None:
        device = self._device_certificate()
        if device is None:
            raise Rejection(HTTPStatus.UNAUTHORIZED, "A certificate is renewed with itself as client certificate.")
        if (request.subject, alternative_names(request)) != (device.subject, alternative_names(device)):
            raise Rejection(HTTPStatus.FORBIDDEN, "The names are not those of the certificate.")

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
        self.send(HTTPStatus.OK, headers, base64.encodebytes(message))


def _serial_numbers(named: x509.Certificate | x509.CertificateSigningRequest) -> list[str | bytes]:
    return [attribute.value for attribute in named.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)]
