"""The evaluation CA behind EST (RFC 7030, 8951, 9908) over TLS 1.2 and 1.3. NOT FOR PRODUCTION.

| below /.well-known/est[/label]/ | who may ask                                                                    |
|---------------------------------|--------------------------------------------------------------------------------|
| GET cacerts                     | everybody; all roots, and those by which they certify each other               |
| GET csrattrs                    | everybody; 204 where nothing special is wanted                                 |
| POST simpleenroll               | who has the password; who has a device certificate of this CA, or the factory  |
|                                 | identity of a vendor who is known, for its serial number                       |
| POST simplereenroll             | who has a device certificate of this CA, for its subject and alternative names |

Other things may be wanted of simpleenroll, see `EstOptions`.
"""

from __future__ import annotations

import base64
import hmac
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, ClassVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from enroll import der
from enroll.anchors import is_issued_by
from enroll.certificates import PARSE_ERRORS, alternative_names, name_text, pem
from enroll.errors import EnrollmentRefused
from enroll.evaluation.ca import USERNAME, EvaluationCa
from enroll.evaluation.est_approval import Approvals
from enroll.evaluation.est_attributes import CHALLENGE_PASSWORD, CsrAttributes, csr_attributes
from enroll.evaluation.est_authentication import Authentication, DigestAccess, DigestAlgorithm
from enroll.evaluation.https_server import BASIC_CHALLENGE, LOG, EvaluationHandler, HttpsServer, Rejection
from enroll.statefile import StateFiles

_BASE = "/.well-known/est/"


@dataclass(frozen=True)
class EstOptions:
    """What the server wants, as CAs differ in it.

    Args:
        labels: Those that are served (RFC 7030 3.2.2); the empty one is none.
        authentication: Who may use simpleenroll.
        digest_algorithms: For Digest, the preferred one first.
        demands_certificate: Whether a client without a certificate gets no connection at all.
        vendors: CA certificates of vendors, whose factory identities may be used for a first enrollment.
        refused_serial_numbers: Of devices that get nothing.
        proof_of_possession: Whether a request must be linked to its connection (RFC 7030 3.5). That is possible with
            TLS 1.2 only; over TLS 1.3 nothing is issued then.
        attributes: In which form requests are told what to hold.
        approve_by_hand: Whether the operator approves each request.
        retry_after: When a request that waits is to be repeated: seconds or a date (RFC 9110 10.2.3), or nothing.
        tls_version: The only one that is spoken; by default 1.2 and 1.3.
    """

    labels: tuple[str, ...] = ("",)
    authentication: Authentication = Authentication.BASIC
    digest_algorithms: tuple[DigestAlgorithm, ...] = (DigestAlgorithm.SHA_256,)
    demands_certificate: bool = False
    vendors: tuple[x509.Certificate, ...] = ()
    refused_serial_numbers: frozenset[str] = frozenset()
    proof_of_possession: bool = False
    attributes: CsrAttributes = CsrAttributes.NONE
    approve_by_hand: bool = False
    retry_after: str = "60"
    tls_version: ssl.TLSVersion | None = None


class EstHandler(EvaluationHandler):
    """One connection. Test servers replace the answers."""

    def __init__(self, est: EstServer, *connection: Any) -> None:
        self.est = est
        super().__init__(*connection)

    def get(self) -> None:
        """Answer cacerts and csrattrs (RFC 7030 4.1 and 4.5)."""
        match self._operation():
            case "cacerts":
                self.send_certificates(self.est.ca.certificates)
            case "csrattrs":
                options = self.est.options
                self.send_attributes(csr_attributes(options.attributes, linked=options.proof_of_possession))
            case _:
                raise _not_found()

    def post(self) -> None:
        """Answer simpleenroll and simplereenroll (RFC 7030 4.2)."""
        body = self.body()  # first: a connection that is closed with something unread may lose the answer
        operation = self._operation()
        if operation not in ("simpleenroll", "simplereenroll"):
            raise _not_found()
        # Who asks is clear before a body is looked at: to be asked for the password, curl sends an empty one.
        device = self._renewing() if operation == "simplereenroll" else self._enrolling()
        if self.headers.get_content_type() != "application/pkcs10":  # RFC 7030 4.2.1
            raise Rejection(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send application/pkcs10.")
        try:
            request = x509.load_der_x509_csr(self.decoded(body))
            _check_names(request, device, renewal=operation == "simplereenroll")
            self._check_linked(request)
            self.decide(request)
        except EnrollmentRefused as error:
            raise Rejection(HTTPStatus.BAD_REQUEST, error.what) from error
        except PARSE_ERRORS as error:
            raise Rejection(HTTPStatus.BAD_REQUEST, "The body is no PKCS#10 request in base64.") from error

    def decoded(self, body: bytes) -> bytes:
        """The DER in a body: base64 with white space or without, and nothing else (RFC 8951 3).

        Raises:
            ValueError: It is not that.
        """
        content = base64.b64decode(b"".join(body.split()), validate=True)
        if not der.is_one_value(content):
            raise ValueError("not one DER value")
        return content

    def decide(self, request: x509.CertificateSigningRequest) -> None:
        """Answer a request whose sender has been authorised (RFC 7030 4.2.3).

        Raises:
            EnrollmentRefused: The CA does not issue such a thing.
        """
        est = self.est
        if set(_serial_numbers(request)) & est.options.refused_serial_numbers:
            raise Rejection(HTTPStatus.FORBIDDEN, "This device gets nothing here. Ask the operator of the CA.")
        if est.options.approve_by_hand and not est.approvals.is_approved(request):
            est.log(f"{name_text(request.subject)} waits. To approve: {est.approvals.how_to_approve(request)}")
            self.send_waiting(est.options.retry_after)
        else:
            self.send_certificates([est.ca.issue(request)])

    def send_waiting(self, retry_after: str) -> None:
        """202: the request is to be repeated (RFC 7030 4.2.3)."""
        headers = {"Content-Type": "text/plain; charset=utf-8"} | ({"Retry-After": retry_after} if retry_after else {})
        self.send(HTTPStatus.ACCEPTED, headers, b"The operator of the CA has to approve this.\n")

    def send_certificates(self, certificates: Sequence[x509.Certificate]) -> None:
        """A certs-only message (RFC 7030 4.1.3 and 4.2.3)."""
        message = pkcs7.serialize_certificates(list(certificates), serialization.Encoding.DER)
        self.send_encoded("application/pkcs7-mime; smime-type=certs-only", message)

    def send_attributes(self, attributes: bytes) -> None:
        """CsrAttrs, or nothing where nothing is wanted (RFC 7030 4.5.2)."""
        if attributes:
            self.send_encoded("application/csrattrs", attributes)
        else:
            self.send(HTTPStatus.NO_CONTENT, {}, b"")

    def send_encoded(self, content_type: str, content: bytes) -> None:
        """DER in base64 (RFC 8951 3)."""
        headers = {"Content-Type": content_type, "Content-Transfer-Encoding": "base64"}
        self.send(HTTPStatus.OK, headers, base64.encodebytes(content))

    def _operation(self) -> str:
        """What is asked for; empty for a label that is not served."""
        label, _, operation = self.path.removeprefix(_BASE).rpartition("/")
        known = label in self.est.options.labels and self.path == f"{_BASE}{label}{label and '/'}{operation}"
        return operation if known else ""

    def _enrolling(self) -> x509.Certificate | None:
        """Who may use simpleenroll: a device, or None for somebody who has what else is wanted."""
        wanted = self.est.options.authentication
        device = self._device_certificate() or self._factory_identity()
        if device is None and wanted in (Authentication.CERTIFICATE, Authentication.CERTIFICATE_AND_BASIC):
            raise self._unauthorized("A device proves itself with its certificate here.")
        if wanted is Authentication.CERTIFICATE_AND_BASIC or (device is None and wanted is Authentication.BASIC):
            self.check_password(USERNAME, self.est.ca.password)
        elif device is None and wanted is Authentication.DIGEST:
            self.est.digest.check(self.headers.get("Authorization", ""), self.command, self.path)
        return device

    def _renewing(self) -> x509.Certificate:
        device = self._device_certificate()
        if device is None:
            raise self._unauthorized("A certificate is renewed with itself as client certificate.")
        return device

    def _check_linked(self, request: x509.CertificateSigningRequest) -> None:
        """Proof of possession linked to the connection: whatever is stated must be true (RFC 7030 3.5)."""
        stated = [attribute.value for attribute in request.attributes if attribute.oid == CHALLENGE_PASSWORD]
        if not stated and not self.est.options.proof_of_possession:
            return
        if self.connection.version() != "TLSv1.2":  # RFC 9266 1: there is no tls-unique in TLS 1.3
            raise self._unauthorized("A request is linked to its connection with TLS 1.2 only.")
        unique = base64.b64encode(self.connection.get_channel_binding() or b"")
        if len(stated) != 1 or not hmac.compare_digest(stated[0], unique):
            raise self._unauthorized("The challenge password must be tls-unique of this connection.")

    def _unauthorized(self, text: str) -> Rejection:
        digest = self.est.options.authentication is Authentication.DIGEST
        return Rejection(HTTPStatus.UNAUTHORIZED, text, self.est.digest.challenges() if digest else [BASIC_CHALLENGE])

    def _device_certificate(self) -> x509.Certificate | None:
        """The client certificate where it is one of a device, by this CA."""
        certificate = self._client_certificate()
        if certificate is None or not self._is_ours(certificate):
            return None
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        return certificate if ExtendedKeyUsageOID.CLIENT_AUTH in purposes else None

    def _factory_identity(self) -> x509.Certificate | None:
        """The client certificate where it is by a vendor who is known: TLS has verified that, or that it is ours."""
        certificate = self._client_certificate()
        return None if certificate is None or self._is_ours(certificate) else certificate

    def _client_certificate(self) -> x509.Certificate | None:
        encoded = self.connection.getpeercert(binary_form=True)
        return None if encoded is None else x509.load_der_x509_certificate(encoded)

    def _is_ours(self, certificate: x509.Certificate) -> bool:
        return any(is_issued_by(certificate, root) for root in self.est.ca.roots)


class EstServer(HttpsServer):
    """The server; runs between `start` and `stop`, in a `with` block, or in `serve_forever`.

    Args:
        ca: The CA behind it.
        address: Host and port; port 0 takes a free one. The server certificate is for loopback only.
        log: Gets one line for each request; it names the client certificate, where there is one.
        options: What it wants. The attribute may be replaced while it runs, but the connections stay as they are:
            TLS version, vendors, whether certificates are demanded.
    """

    handler: ClassVar[type[EstHandler]] = EstHandler

    def __init__(
        self,
        ca: EvaluationCa,
        address: tuple[str, int] = ("127.0.0.1", 0),
        log: Callable[[str], None] = LOG.info,
        options: EstOptions | None = None,
    ) -> None:
        self.ca = ca
        self.log = log
        self.options = options or EstOptions()
        self.approvals = Approvals(ca.directory, StateFiles())
        self.digest = DigestAccess(USERNAME, ca.password, self.options.digest_algorithms, ca.clock)
        super().__init__(self._context(), partial(self.handler, self), address, log)

    def _context(self) -> ssl.SSLContext:
        options = self.options
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = options.tls_version or ssl.TLSVersion.TLSv1_2
        context.maximum_version = options.tls_version or ssl.TLSVersion.MAXIMUM_SUPPORTED
        context.load_cert_chain(self.ca.directory / "server.pem", self.ca.directory / "server.key")
        context.load_verify_locations(cadata=pem([*self.ca.roots, *options.vendors]).decode("ascii"))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a vendor's anchor need not be a root
        context.verify_mode = ssl.CERT_REQUIRED if options.demands_certificate else ssl.CERT_OPTIONAL
        return context


def _not_found() -> Rejection:
    return Rejection(HTTPStatus.NOT_FOUND, "There is no such EST operation or label.")


def _check_names(request: x509.CertificateSigningRequest, device: x509.Certificate | None, *, renewal: bool) -> None:
    """A device speaks for itself alone."""
    if device is not None and _serial_numbers(device) != _serial_numbers(request):
        raise Rejection(HTTPStatus.FORBIDDEN, "A device may enroll for its own serial number only.")
    if device is not None and renewal and _names(request) != _names(device):  # RFC 7030 4.2.2
        raise Rejection(HTTPStatus.FORBIDDEN, "The names are not those of the certificate.")


def _names(
    named: x509.Certificate | x509.CertificateSigningRequest,
) -> tuple[x509.Name, tuple[x509.GeneralName, ...]]:
    return named.subject, alternative_names(named)


def _serial_numbers(named: x509.Certificate | x509.CertificateSigningRequest) -> list[str | bytes]:
    return [attribute.value for attribute in named.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)]
