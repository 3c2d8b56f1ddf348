"""The owner's side of fdo.csr: certificates for a device that has proved itself (fdo-sim, fdo.csr). NOT FOR PRODUCTION.

    cacerts-req 281            ->  cacerts-res         PKCS#7; or 287, a single certificate, where there is but one
    csrattrs-req               ->  csrattrs-res        RFC 7030 4.5.2; an empty list where nothing is wanted
    simpleenroll-req           ->  simpleenroll-res    PKCS#10; one certificate, without its chain
    simplereenroll-req         ->  simplereenroll-res  the same, with the names of the certificate that is renewed
    serverkeygen-req           ->  error 3             keys are made where they are used
    active false                                       the device has what it wants; some say it by saying nothing

What is wrong is answered with an error of `Refusal`; the device may ask again. What breaks the protocol, or what is the
matter with the CA, ends the session. Requests are taken as base64, as base64 in a byte string, and as DER.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID

from enroll.certificates import PARSE_ERRORS, alternative_names, name_text
from enroll.errors import EnrollmentRefused
from enroll.evaluation.fdo.certificate_sources import CertificateSource
from enroll.evaluation.fdo.issued_certificates import IssuedCertificates
from enroll.evaluation.fdo.owner_module import OnboardedDevice
from enroll.evaluation.hardware_module import hardware_serial_number
from enroll.fdo import cbor
from enroll.fdo.certificate_module import NAME, read_binary
from enroll.fdo.fault import Fault
from enroll.fdo.service_info import ACTIVE, Statement
from enroll.foreign import printable

REQUESTS_LIMIT = 4  # for certificates, in one session


class ContentFormat(IntEnum):
    """CoAP content formats (RFC 9148 9.1), in which CA certificates may be asked for."""

    PKCS7_CERTS_ONLY = 281
    PKIX_CERT = 287


class Refusal(IntEnum):
    """Why a device does not get what it asks for."""

    BAD_REQUEST = 1
    UNAUTHORISED = 2
    NOT_SUPPORTED = 3
    RATE_EXCEEDED = 4
    UNSUPPORTED_FORMAT = 5


class _Refused(Exception):
    """A request that is not granted, and why."""

    def __init__(self, refusal: Refusal, reason: str) -> None:
        super().__init__(reason)
        self.refusal = refusal
        self.reason = reason


@dataclass(frozen=True)
class Enrollments:
    """What all devices of an owner have in common.

    Args:
        source: Has the certificates.
        issued: What was given, for renewals.
        log: Gets a line for each request that is granted or refused.
    """

    source: CertificateSource
    issued: IssuedCertificates
    log: Callable[[str], None]


class _Names(NamedTuple):
    """The names in a request or certificate."""

    subject: x509.Name
    alternative: tuple[x509.GeneralName, ...]

    def are_of(self, serial_number: str) -> bool:
        """Whether all that say which device it is say this one, and no others are there."""
        stated = [attribute.value for attribute in self.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)]
        return stated == [serial_number] and all(_is_of(name, serial_number) for name in self.alternative)


def _is_of(name: x509.GeneralName, serial_number: str) -> bool:
    try:
        return hardware_serial_number(name) == serial_number.encode("utf-8")
    except PARSE_ERRORS:
        return False


class CertificateOwnerModule:
    """fdo.csr for one device.

    Args:
        device: Which one; it gets certificates for its own serial number.
        enrollments: What is behind it.
    """

    name = NAME

    def __init__(self, device: OnboardedDevice, enrollments: Enrollments) -> None:
        self._device = device
        self._enrollments = enrollments
        self._requests = 0
        self._has_certificate = False
        self._is_complete = False

    @property
    def is_complete(self) -> bool:
        """Whether the device wants nothing more."""
        return self._is_complete

    def begin(self) -> Sequence[Statement]:
        """Nothing: the device asks."""
        return []

    def pause(self) -> None:
        """Not every device says `active` = false: with a certificate, silence is the same."""
        self._is_complete |= self._has_certificate

    def receive(self, name: str, value: cbor.Item) -> Sequence[Statement]:
        """See `OwnerModule`.

        Raises:
            Fault: It is no word of fdo.csr, or has the wrong type.
            ScansealError: The CA does not answer as it should, or what it issued cannot be written down.
        """
        if name == ACTIVE and not value.boolean():
            self._is_complete = True
            return []
        if self._is_complete or not name.endswith("-req"):
            raise Fault("The device says something of fdo.csr that no owner waits for.")
        operation = name.removesuffix("-req")
        try:
            answer = base64.b64encode(self._answer(operation, value)).decode("ascii")
        except _Refused as refused:
            self._log(f"{operation} refused, error {refused.refusal.value}: {refused.reason}")
            return [Statement(NAME, "error", refused.refusal)]
        return [Statement(NAME, f"{operation}-res", answer)]

    def _answer(self, operation: str, value: cbor.Item) -> bytes:
        """DER."""
        match operation:
            case "cacerts":
                return self._ca_certificates(value.unsigned())
            case "csrattrs":
                return self._enrollments.source.csr_attributes()
            case "simpleenroll" | "simplereenroll":
                return self._certificate(value, renews=operation == "simplereenroll")
            case "serverkeygen":
                raise _Refused(Refusal.NOT_SUPPORTED, "Keys are made where they are used.")
        raise Fault("The device asks for something that fdo.csr does not know.")

    def _ca_certificates(self, wanted: int) -> bytes:
        certificates = list(self._enrollments.source.ca_certificates())
        if wanted == ContentFormat.PKCS7_CERTS_ONLY:
            return pkcs7.serialize_certificates(certificates, serialization.Encoding.DER)
        if wanted == ContentFormat.PKIX_CERT and len(certificates) == 1:
            return certificates[0].public_bytes(serialization.Encoding.DER)
        raise _Refused(Refusal.UNSUPPORTED_FORMAT, f"The CA certificates are not there in the format {wanted}.")

    def _certificate(self, value: cbor.Item, *, renews: bool) -> bytes:
        self._requests += 1
        if self._requests > REQUESTS_LIMIT:
            raise _Refused(Refusal.RATE_EXCEEDED, f"It has asked {REQUESTS_LIMIT} times already.")
        request, names = _request(value)
        self._check_names(names, renews=renews)
        try:
            certificate = self._enrollments.source.issue(request)
        except EnrollmentRefused as error:
            raise _Refused(Refusal.UNAUTHORISED, str(error)) from error
        self._enrollments.issued.keep(self._device.serial_number, certificate)
        self._has_certificate = True
        self._log(f"certificate for {name_text(names.subject)}")
        return certificate.public_bytes(serialization.Encoding.DER)

    def _check_names(self, names: _Names, *, renews: bool) -> None:
        """A device speaks for itself alone; what it renews keeps its names (RFC 7030 4.2.2)."""
        number = self._device.serial_number
        if not number:
            raise _Refused(Refusal.UNAUTHORISED, "The certificate of its FDO key names no serial number.")
        if not names.are_of(number):
            raise _Refused(Refusal.UNAUTHORISED, f"It may have certificates for the serial number {number} only.")
        if not renews:
            return
        before = self._enrollments.issued.of(number)
        if before is None:
            raise _Refused(Refusal.UNAUTHORISED, "It has no certificate of this owner that could be renewed.")
        if names != _Names(before.subject, alternative_names(before)):
            raise _Refused(Refusal.UNAUTHORISED, "The names are not those of the certificate that is renewed.")

    def _log(self, text: str) -> None:
        self._enrollments.log(f"{printable(self._device.serial_number) or self._device.guid.hex()}: {printable(text)}")


def _request(value: cbor.Item) -> tuple[x509.CertificateSigningRequest, _Names]:
    """The request, signed with the key that it is for; and its names."""
    try:
        request = x509.load_der_x509_csr(read_binary(value))
        names, is_signed = _Names(request.subject, alternative_names(request)), request.is_signature_valid
    except (Fault, *PARSE_ERRORS) as error:
        raise _Refused(Refusal.BAD_REQUEST, "The request cannot be read.") from error
    if not is_signed:
        raise _Refused(Refusal.BAD_REQUEST, "The request is not signed with its key.")
    return request, names
