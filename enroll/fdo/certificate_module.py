"""The device's side of fdo.csr: a certificate from the owner's CA, in words of EST (fdo-sim, fdo.csr).

    cacerts-req 281     ->   cacerts-res        the CA certificates, PKCS#7; or with 287 one of them
    csrattrs-req 0      ->   csrattrs-res       what a request should hold (RFC 7030 4.5.2)
    simpleenroll-req    ->   simpleenroll-res   PKCS#10; one certificate
    active false

Implementations write what is binary in three ways: as base64, as base64 in a byte string, and plain. All are read.
Keys are made here and nowhere else: serverkeygen is never asked for, and what answers it unasked is refused.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import IntEnum

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from enroll.certificates import PARSE_ERRORS, decode_base64, name_text
from enroll.csr import Usage
from enroll.errors import CA_OPERATOR, EnrollmentRefused, ProtocolViolation
from enroll.est import attributes
from enroll.est.attributes import WantedAttributes
from enroll.fdo import cbor
from enroll.fdo.fault import Fault
from enroll.fdo.service_info import ACTIVE, Statement
from enroll.signed_data import certificates_in, read_certificate
from enroll.trust import CERTIFICATES_LIMIT

NAME = "fdo.csr"

# Content formats: application/pkcs7-mime; smime-type=certs-only, and application/pkix-cert.
_PKCS7, _ONE_CERTIFICATE = 281, 287
_SEQUENCE = 0x30
_ERRORS = {
    1: "it does not understand the request",
    2: "this device may not have such a certificate",
    3: "it does not do that",
    4: "it is asked too often",
    5: "it has its certificates in another format only",
}
_ANOTHER_FORMAT = 5

MakeRequest = Callable[[WantedAttributes], x509.CertificateSigningRequest]


class _Step(IntEnum):
    WAITS = 0
    CA_CERTIFICATES = 1
    ATTRIBUTES = 2
    CERTIFICATE = 3
    COMPLETE = 4


class CertificateModule:
    """One enrollment.

    Args:
        make_request: Makes the request, with what the CA wants in it.
        renews: Whether a certificate of this owner is renewed.
    """

    name = NAME

    def __init__(self, make_request: MakeRequest, *, renews: bool = False) -> None:
        self._make_request = make_request
        self._operation = "simplereenroll" if renews else "simpleenroll"
        self._step = _Step.WAITS
        self._format = _PKCS7
        self._advice = ""
        self.ca_certificates: tuple[x509.Certificate, ...] = ()
        self.certificates: tuple[x509.Certificate, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether there is a certificate; neither it nor those of the CA have been verified."""
        return self._step is _Step.COMPLETE

    @property
    def came(self) -> tuple[x509.Certificate, ...]:
        """All certificates, each once, with what was issued first."""
        return tuple(dict.fromkeys((*self.certificates, *self.ca_certificates)))

    def begin(self) -> Sequence[Statement]:
        """See `DeviceModule`."""
        self._step = _Step.CA_CERTIFICATES
        return [Statement(NAME, "cacerts-req", self._format)]

    def receive(self, name: str, value: cbor.Item) -> Sequence[Statement]:
        """See `DeviceModule`.

        Raises:
            EnrollmentRefused: The CA said no.
            Fault: Not what was asked for.
        """
        match name, self._step:
            case "error", _Step.CA_CERTIFICATES | _Step.ATTRIBUTES | _Step.CERTIFICATE:
                return self._refused(value.unsigned(255))
            case "cacerts-res", _Step.CA_CERTIFICATES:
                self.ca_certificates = _certificates(value)
                self._step = _Step.ATTRIBUTES
                return [Statement(NAME, "csrattrs-req", 0)]
            case "csrattrs-res", _Step.ATTRIBUTES:
                return self._request(_wanted(value))
            case answer, _Step.CERTIFICATE if answer == f"{self._operation}-res":
                self.certificates = _certificates(value)
                if len(self.came) > CERTIFICATES_LIMIT:
                    raise Fault(f"The owner sends more than {CERTIFICATES_LIMIT} certificates in all.")
                self._step = _Step.COMPLETE
                return [Statement(NAME, ACTIVE, value=False)]
        raise Fault("The owner says something of fdo.csr that was not asked for.")

    def _request(self, wanted: WantedAttributes) -> Sequence[Statement]:
        self._step = _Step.CERTIFICATE
        request = self._make_request(wanted)
        self._advice = wanted.log_unmet(request.public_key(), Usage.DEVICE)
        encoded = request.public_bytes(serialization.Encoding.DER)
        return [Statement(NAME, f"{self._operation}-req", base64.b64encode(encoded).decode("ascii"))]

    def _refused(self, code: int) -> Sequence[Statement]:
        if self._step is _Step.CA_CERTIFICATES and (code, self._format) == (_ANOTHER_FORMAT, _PKCS7):
            self._format = _ONE_CERTIFICATE
            return self.begin()
        if self._step is _Step.ATTRIBUTES:
            return self._request(WantedAttributes())  # csrattrs need not be known
        raise EnrollmentRefused(
            f"The owner's CA gives no certificate: {_ERRORS.get(code, f'error {code}')}.",
            remedy=f"{self._advice} The log of the owner's server says why.".lstrip(),
            who_must_act=CA_OPERATOR,
        )


def read_binary(value: cbor.Item) -> bytes:
    """The DER in a value of fdo.csr, in each of the three ways in which it is written.

    Raises:
        Fault: It is neither DER nor base64 of it.
    """
    content = value.text().encode("utf-8") if value.major is cbor.Major.TEXT else value.bytes()
    if content[:1] == bytes([_SEQUENCE]):
        return content
    try:
        return decode_base64(content)
    except PARSE_ERRORS as error:
        raise Fault("A value of fdo.csr is neither DER nor base64.") from error


def _certificates(value: cbor.Item) -> tuple[x509.Certificate, ...]:
    """Those of a certs-only message, or the one that the value is; without those that cannot be read."""
    content = read_binary(value)
    found: tuple[x509.Certificate, ...]
    try:
        found = (read_certificate(content),)
    except PARSE_ERRORS:
        try:
            found = certificates_in(content)
        except PARSE_ERRORS as error:
            raise Fault("What the owner sends for fdo.csr holds no certificates.") from error
    readable = tuple(filter(_is_readable, found))
    if not readable:
        raise Fault("What the owner sends for fdo.csr holds no certificate that can be read.")
    return readable


def _is_readable(certificate: x509.Certificate) -> bool:
    """Names and key are read when they are asked for, and then it is too late to refuse them."""
    try:
        for name in (certificate.subject, certificate.issuer):
            name_text(name)
        certificate.public_key()
    except PARSE_ERRORS:
        return False
    return True


def _wanted(value: cbor.Item) -> WantedAttributes:
    if value.major in (cbor.Major.BYTES, cbor.Major.TEXT) and not value.content.strip():
        return WantedAttributes()  # RFC 8951 4
    try:
        wanted = attributes.read(base64.b64encode(read_binary(value)))
    except ProtocolViolation as error:
        raise Fault("What the owner's CA wants in a request cannot be read.") from error
    # The request comes to the CA over another connection than ours (RFC 7030 3.5).
    return replace(wanted, linked=False, ignored=(*wanted.ignored, "challengePassword")) if wanted.linked else wanted
