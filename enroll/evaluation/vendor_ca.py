"""A vendor of scanners, for trying out: factory identities, tickets, certificates that sign. NOT FOR PRODUCTION.

    root.pem root.key         its certificate, which devices and recipients of images pin, and the key of it
    issuing.pem issuing.key   the CA below it, which issues
    tickets.key               signs service tickets (P-256)
    server.pem server.key     of its provisioning service: localhost, 127.0.0.1 and ::1
    issued/                   what was issued, by ticket and by subject, for each identity

It issues three kinds of certificate. A factory identity (IEEE 802.1AR) has no end: it lives as long as its device. What
signs images of one device lives a year and names the device, and the customer where the ticket names one; the device
renews it by its factory identity. What all devices of the vendor sign with names none of them; it is handed out with
its key, as PKCS#12.

A ticket is good for each of its identities once. Who asks again with the same key gets the same certificate: an answer
may have been lost.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from enroll.certificates import PARSE_ERRORS, alternative_names, pem, public_key_info, read_certificates
from enroll.clock import Clock
from enroll.csr import DIGITAL_SIGNATURE, DOCUMENT_SIGNING, RESERVED_UNITS
from enroll.errors import EnrollmentRefused
from enroll.evaluation.authority import Authority, certificate_builder, create_authority
from enroll.evaluation.hardware_module import hardware_serial_number
from enroll.evaluation.key_file import read_p256_key, write_key
from enroll.identity import IdentityName
from enroll.keystore.base import PublicKey
from enroll.offline_request import OfflineRequest
from enroll.statefile import StateFiles
from enroll.vendor.ticket import IDENTITIES, ServiceTicket, sign_ticket, verify_ticket

BANNER = "scanseal evaluation vendor - NOT FOR PRODUCTION"
VENDOR = "Evaluation Scanners"
AUDIENCE = "scanseal-evaluation-vendor"
NO_END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # RFC 5280 4.1.2.5
SIGNING_LIFETIME = timedelta(days=365)
_AT_ONCE = timedelta(minutes=1)

_PURPOSES = {
    ExtendedKeyUsageOID.CLIENT_AUTH: IdentityName.IDEVID,
    DOCUMENT_SIGNING: IdentityName.VENDOR,
}
_RSA_BITS = 3072


class VendorCa:
    """The vendor.

    Args:
        directory: Where its files lie; `create_or_open` makes them.
        clock: Dates what it issues.
        files: Reads and writes the files.
    """

    def __init__(self, directory: Path, clock: Clock, files: StateFiles) -> None:
        self.directory = directory
        self._issuing = Authority(directory / "issuing", files)
        self._tickets = read_p256_key(directory / "tickets.key", files)
        self._clock = clock
        self._files = files
        self._guard = threading.Lock()

    @classmethod
    def create_or_open(cls, directory: Path, clock: Clock) -> Self:
        """The vendor in `directory`; a new one where there is none. Its server certificate is always made anew.

        Raises:
            StateError: The files cannot be written, or are damaged.
        """
        files = StateFiles()
        if not os.path.lexists(directory / "tickets.key"):
            _create(directory, clock.now(), files)
        Authority(directory / "root", files).make_server_certificate(directory, clock.now(), files)
        return cls(directory, clock, files)

    @property
    def anchor_file(self) -> Path:
        """The certificate that devices and recipients of images pin."""
        return self.directory / "root.pem"

    @property
    def issuing_certificate(self) -> x509.Certificate:
        """The intermediate."""
        return self._issuing.certificate

    def make_ticket(  # noqa: PLR0913 - everything a ticket says
        self,
        serial_number: str,
        nonce: str,
        identities: Collection[IdentityName],
        lifetime: timedelta,
        *,
        organization: str = "",
        unit: str = "",
    ) -> str:
        """A service ticket, as the service desk makes one for a device whose owner is known to it.

        Args:
            serial_number: Of the device.
            nonce: As the device shows it.
            identities: What the device may have.
            lifetime: Of the ticket.
            organization: Of the customer; empty for none.
            unit: A unit of that; empty for none.
        """
        now = self._clock.now()
        ticket = ServiceTicket(
            issuer=BANNER,
            audience=AUDIENCE,
            serial_number=serial_number,
            nonce=nonce,
            identifier=secrets.token_hex(16),
            issued_at=now,
            not_before=now,
            expires_at=now + lifetime,
            identities=frozenset(identities),
            organization=organization,
            unit=unit,
        )
        return sign_ticket(ticket, self._tickets)

    def issue(self, request: x509.CertificateSigningRequest, ticket_text: str) -> x509.Certificate:
        """A certificate for a ticket.

        Args:
            request: Signed with its key, the nonce of the device in it.
            ticket_text: The ticket.

        Raises:
            EnrollmentRefused: The ticket is not one of this vendor for this request, or was used; or the request asks
                for what is never issued.
            StateError: What was issued cannot be written down.
        """
        ticket = verify_ticket(ticket_text, self._tickets.public_key())
        if ticket.audience != AUDIENCE:
            raise _refused("The ticket is for another service.")
        return self._issue(request, ticket, _nonce_of(request))

    def answer(self, request: OfflineRequest, *, organization: str = "", unit: str = "") -> bytes:
        """The answer to a request that was carried here, as PEM; the same one whenever it is asked for.

        Args:
            request: Whoever calls this has made sure that it comes from the device.
            organization: Of the customer; empty for none.
            unit: A unit of that; empty for none.

        Raises:
            EnrollmentRefused: It asks for what is never issued.
            StateError: What was issued cannot be written down.
        """
        stated, now = request.statement, self._clock.now()
        ticket = ServiceTicket(
            issuer=BANNER,
            audience=AUDIENCE,
            serial_number=stated.serial_number,
            nonce=stated.nonce,
            identifier=f"offline {stated.nonce}",
            issued_at=now,
            not_before=now,
            expires_at=now + _AT_ONCE,
            identities=IDENTITIES & {stated.identity},
            organization=organization,
            unit=unit,
        )
        return pem([self._issue(request.signed, ticket, stated.nonce), self._issuing.certificate])

    def _issue(self, request: x509.CertificateSigningRequest, ticket: ServiceTicket, nonce: str) -> x509.Certificate:
        identity, serial_number, key = _asked(request)
        ticket.check(serial_number, nonce, identity, self._clock.now())
        subject, names = _subject(request, identity, ticket), _names(request, identity, serial_number)
        identifier = hashlib.sha256(ticket.identifier.encode()).hexdigest()
        path = self.directory / "issued" / f"{identifier}-{identity}.pem"
        with self._guard:
            if self._files.exists(path):
                return self._issued_before(path, key)
            certificate = self._certified(identity, key, subject, names)
            self._files.make_directory(path.parent)
            self._write_down(identity, certificate)
            # The one that a repeated request finds comes last.
            self._files.write(path, pem([certificate]))
        return certificate

    def renew(self, request: x509.CertificateSigningRequest, factory: x509.Certificate) -> x509.Certificate:
        """The next certificate that signs, for a device that has one.

        Args:
            request: Names what is renewed to the letter, in the subject and beside it (RFC 7030 4.2.2).
            factory: The factory identity of the device; the connection has proved it.

        Raises:
            EnrollmentRefused: This device has no such certificate, or the request asks for what is never issued.
            StateError: What was issued cannot be written down.
        """
        identity, serial_number, key = _asked(request)
        if identity is not IdentityName.VENDOR:
            raise _refused("A factory identity is not renewed. It is replaced with a service ticket.")
        if [serial_number] != _values(factory.subject, NameOID.SERIAL_NUMBER):
            raise _refused("A device may ask for its own serial number only.")
        path, names = self._path_of(identity, request.subject), _names(request, identity, serial_number)
        with self._guard:
            known = read_certificates(path, self._files)[0] if self._files.exists(path) else None
            if known is None or alternative_names(known) != names:
                raise _refused("This device has no such certificate to renew.")
            certificate = self._certified(identity, key, known.subject, names)
            self._write_down(identity, certificate)
        return certificate

    def make_vendor_wide(self, passphrase: bytes, common_name: str = "Image signing") -> bytes:
        """A key and certificate for all devices of the vendor, as PKCS#12 with the intermediate.

        Args:
            passphrase: Opens it.
            common_name: For people.
        """
        key = rsa.generate_private_key(65537, _RSA_BITS)
        names = ((NameOID.ORGANIZATION_NAME, VENDOR), (NameOID.COMMON_NAME, common_name))
        subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in names])
        certificate = self._certified(IdentityName.VENDOR, key.public_key(), subject, ())
        encryption = serialization.BestAvailableEncryption(passphrase)
        return pkcs12.serialize_key_and_certificates(
            common_name.encode(), key, certificate, [self._issuing.certificate], encryption
        )

    def _certified(
        self, identity: IdentityName, key: PublicKey, subject: x509.Name, names: tuple[x509.GeneralName, ...]
    ) -> x509.Certificate:
        now = self._clock.now()
        lifetime = NO_END - now if identity is IdentityName.IDEVID else SIGNING_LIFETIME
        builder = certificate_builder(subject, key, now, lifetime)
        purpose = next(oid for oid, name in _PURPOSES.items() if name is identity)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(DIGITAL_SIGNATURE, critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return self._issuing.sign(builder)

    def _issued_before(self, path: Path, key: PublicKey) -> x509.Certificate:
        certificate, *_ = read_certificates(path, self._files)
        issued_to = certificate.public_key()
        if not isinstance(issued_to, PublicKey) or public_key_info(issued_to) != public_key_info(key):
            raise EnrollmentRefused("The ticket was used already.", remedy="Ask for a new one.", code="ticket-used")
        return certificate

    def _write_down(self, identity: IdentityName, certificate: x509.Certificate) -> None:
        self._files.write(self._path_of(identity, certificate.subject), pem([certificate]))

    def _path_of(self, identity: IdentityName, subject: x509.Name) -> Path:
        name = hashlib.sha256(subject.public_bytes()).hexdigest()
        return self.directory / "issued" / f"{name}-{identity}.pem"


def _create(directory: Path, now: datetime, files: StateFiles) -> None:
    files.make_directory(directory)
    create_authority(directory / "root", _name("root"), 1, now=now, files=files)
    root = Authority(directory / "root", files)
    create_authority(directory / "issuing", _name("issuing"), 0, now=now, files=files, issuer=root)
    key = ec.generate_private_key(ec.SECP256R1())
    # The last file: a vendor whose making was interrupted is made again.
    write_key(directory / "tickets.key", key, files)


def _name(unit: str) -> x509.Name:
    names = (
        (NameOID.ORGANIZATION_NAME, VENDOR),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
        (NameOID.COMMON_NAME, BANNER),
    )
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in names])


def _asked(request: x509.CertificateSigningRequest) -> tuple[IdentityName, str, PublicKey]:
    """What is asked for, for which device and which key, of a request that is signed with that key."""
    try:
        if not request.is_signature_valid:
            raise _refused("The request is not signed with its key.")
        purposes = _purposes(request)
        key = request.public_key()
        numbers = _values(request.subject, NameOID.SERIAL_NUMBER)
    except PARSE_ERRORS as error:
        raise _refused("The request cannot be read.") from error
    if len(purposes) != 1 or purposes[0] not in _PURPOSES or len(numbers) != 1:
        raise _refused("Ask for clientAuth or documentSigning, for one serial number.")
    is_strong = isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048  # noqa: PLR2004
    if isinstance(key, ec.EllipticCurvePublicKey):
        is_strong = key.curve.key_size >= 256  # noqa: PLR2004
    if not is_strong or not isinstance(key, PublicKey):
        raise _refused("The key must be RSA of 2048 bits or an elliptic curve of 256 bits and up.")
    return _PURPOSES[purposes[0]], numbers[0], key


def _purposes(request: x509.CertificateSigningRequest) -> list[ObjectIdentifier]:
    try:
        return list(request.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return []


def _nonce_of(request: x509.CertificateSigningRequest) -> str:
    try:
        value = request.attributes.get_attribute_for_oid(AttributeOID.CHALLENGE_PASSWORD).value
    except x509.AttributeNotFound as error:
        raise _refused("The request holds no nonce of the device (challengePassword).") from error
    return value.decode("ascii", errors="replace")


def _subject(request: x509.CertificateSigningRequest, identity: IdentityName, ticket: ServiceTicket) -> x509.Name:
    """The names of the device; before them the vendor's, or in what signs the customer's, as the ticket says."""
    is_factory = identity is IdentityName.IDEVID
    organization = VENDOR if is_factory or not ticket.organization else ticket.organization
    unit = "" if is_factory else ticket.unit
    if unit.strip().casefold() in RESERVED_UNITS:
        raise _refused(f"The unit {unit} would tell what is signed.")
    names = [(NameOID.ORGANIZATION_NAME, organization)]
    names += [(NameOID.ORGANIZATIONAL_UNIT_NAME, unit)] if unit else []
    for oid in (NameOID.COMMON_NAME, NameOID.SERIAL_NUMBER):
        stated = _values(request.subject, oid)
        if len(stated) != 1:
            raise _refused("The subject must hold one common name and one serial number.")
        names.append((oid, stated[0]))
    if not names[-2][1].endswith(ticket.serial_number):
        raise _refused("The common name must end with the serial number: people read it.")
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in names])


def _names(
    request: x509.CertificateSigningRequest, identity: IdentityName, serial_number: str
) -> tuple[x509.GeneralName, ...]:
    """The alternative names: hardwareModuleName of the device, no other; a factory identity has it (IEEE 802.1AR 8)."""
    try:
        names = alternative_names(request)
        modules = [hardware_serial_number(name) for name in names]
    except PARSE_ERRORS as error:
        raise _refused("The request cannot be read.") from error
    if None in modules:
        raise _refused("hardwareModuleName is the only subject alternative name that is issued.")
    if any(module != serial_number.encode("utf-8") for module in modules):
        raise _refused("hardwareModuleName must have the serial number of the device.")
    if identity is IdentityName.IDEVID and len(names) != 1:
        raise _refused("A factory identity names its hardware module: set [device] hardware_type.")
    return names


def _values(name: x509.Name, oid: ObjectIdentifier) -> list[str]:
    return [str(attribute.value) for attribute in name.get_attributes_for_oid(oid)]


def _refused(what: str) -> EnrollmentRefused:
    return EnrollmentRefused(what, remedy="Correct the request.", code="request-refused")
