"""A CA as a hospital may have one, for trying out. NOT FOR PRODUCTION.

    root.pem root.key       its certificate, which devices pin, and the key of it
    server.pem server.key   of the EST server: localhost, 127.0.0.1 and ::1
    password                of the first enrollment; the user name is "scanner"

It issues two kinds of certificate, chosen by the extended key usage that is asked for: clientAuth for a device,
documentSigning for what signs images. It adds the name of its hospital, as owners do, and copies nothing but the
names of the device. Certificates begin five minutes before they are issued: a signature made in the second of its
certificate's birth is "not yet valid" to verifiers whose clock differs by a little.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from enroll.certificates import PARSE_ERRORS, alternative_names, pem, read_certificates
from enroll.clock import Clock
from enroll.csr import DIGITAL_SIGNATURE, DOCUMENT_SIGNING, HARDWARE_MODULE_NAME, RESERVED_UNITS
from enroll.errors import EnrollmentRefused
from enroll.keystore.base import PublicKey
from enroll.record import damaged
from enroll.statefile import StateFiles

BANNER = "scanseal evaluation CA - NOT FOR PRODUCTION"
USERNAME = "scanner"
OWNER = "Evaluation Hospital"
BACKDATED = timedelta(minutes=5)
DEFAULT_LIFETIME = timedelta(days=365)

_ROOT_LIFETIME = timedelta(days=3650)
_PROFILES = (ExtendedKeyUsageOID.CLIENT_AUTH, DOCUMENT_SIGNING)
_DEVICE_ATTRIBUTES = (NameOID.COMMON_NAME, NameOID.SERIAL_NUMBER)
_CERTIFICATE_SIGNING = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class EvaluationCa:
    """The CA: its key, its certificate and what it will issue.

    Args:
        directory: Where its files lie; `create_or_open` makes them.
        clock: Dates what it issues.
        lifetime: Of what it issues, counted from the moment of issue.
        files: Reads the files.
    """

    def __init__(self, directory: Path, clock: Clock, lifetime: timedelta, files: StateFiles) -> None:
        self.directory = directory
        self.certificate, *_ = read_certificates(self.anchor_file, files)
        self.password = files.read(self.password_file).strip()
        self._key = _read_key(directory / "root.key", files)
        self._clock = clock
        self._lifetime = lifetime

    @classmethod
    def create_or_open(cls, directory: Path, clock: Clock, lifetime: timedelta = DEFAULT_LIFETIME) -> Self:
        """The CA in `directory`; a new one where there is none. Its server certificate is always made anew.

        Raises:
            StateError: The files cannot be written, or are damaged.
        """
        files = StateFiles()
        if not os.path.lexists(directory / "password"):
            _create(directory, clock.now(), files)
        ca = cls(directory, clock, lifetime, files)
        ca.make_server_certificate(files)
        return ca

    @property
    def anchor_file(self) -> Path:
        """The certificate that devices pin."""
        return self.directory / "root.pem"

    @property
    def password_file(self) -> Path:
        """The password of the first enrollment."""
        return self.directory / "password"

    def issue(self, request: x509.CertificateSigningRequest) -> x509.Certificate:
        """A certificate for a request whose sender has been authorised.

        Raises:
            EnrollmentRefused: The request is not signed with its own key, or asks for what is never issued.
        """
        try:
            if not request.is_signature_valid:
                raise _refused("The request is not signed with its key.")
            purpose, names, public_key = _purpose(request), _device_names(request), _public_key(request)
            subject = _subject(request)
        except PARSE_ERRORS as error:
            raise _refused("The request cannot be read.") from error
        now = self._clock.now()
        builder = _builder(subject, self.certificate.subject, public_key, now - BACKDATED, now + self._lifetime)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(DIGITAL_SIGNATURE, critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return self._sign(builder)

    def make_server_certificate(self, files: StateFiles) -> None:
        """A new key and certificate for the EST server on this machine."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = self._clock.now()
        names = [x509.DNSName("localhost"), *(x509.IPAddress(ipaddress.ip_address(a)) for a in ("127.0.0.1", "::1"))]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        builder = _builder(subject, self.certificate.subject, key.public_key(), now - BACKDATED, now + _ROOT_LIFETIME)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(DIGITAL_SIGNATURE, critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        files.write(self.directory / "server.key", _key_bytes(key))
        files.write(self.directory / "server.pem", pem([self._sign(builder)]), 0o644)

    def _sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return builder.add_extension(issuer, critical=False).sign(self._key, hashes.SHA256())


def _create(directory: Path, now: datetime, files: StateFiles) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, OWNER), x509.NameAttribute(NameOID.COMMON_NAME, BANNER)]
    )
    builder = _builder(name, name, key.public_key(), now - BACKDATED, now + _ROOT_LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_CERTIFICATE_SIGNING, critical=True)
    files.make_directory(directory)
    files.write(directory / "root.key", _key_bytes(key))
    files.write(directory / "root.pem", pem([builder.sign(key, hashes.SHA256())]), 0o644)
    # The last file: a CA whose making was interrupted is made again.
    files.write(directory / "password", f"{secrets.token_urlsafe(18)}\n".encode("ascii"))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin.astimezone(UTC))
        .not_valid_after(end.astimezone(UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _purpose(request: x509.CertificateSigningRequest) -> ObjectIdentifier:
    try:
        asked: list[ObjectIdentifier] = list(request.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        asked = []
    if len(asked) != 1 or asked[0] not in _PROFILES:
        raise _refused("Ask for one extended key usage: clientAuth or documentSigning.")
    return asked[0]


def _device_names(request: x509.CertificateSigningRequest) -> tuple[x509.GeneralName, ...]:
    names = alternative_names(request)
    if not all(isinstance(name, x509.OtherName) and name.type_id == HARDWARE_MODULE_NAME for name in names):
        raise _refused("hardwareModuleName is the only subject alternative name that is issued.")
    return names


def _public_key(request: x509.CertificateSigningRequest) -> PublicKey:
    key = request.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048:  # noqa: PLR2004
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size >= 256:  # noqa: PLR2004
        return key
    raise _refused("The key must be RSA of 2048 bits or an elliptic curve of 256 bits and up.")


def _subject(request: x509.CertificateSigningRequest) -> x509.Name:
    """The owner's name, the unit that tells what is signed where it is asked for, and the names of the device."""
    names = [request.subject.get_attributes_for_oid(oid) for oid in _DEVICE_ATTRIBUTES]
    if any(len(attributes) != 1 for attributes in names):
        raise _refused("The subject must hold one common name and one serial number.")
    units = request.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    if len(units) > 1 or any(unit.value not in RESERVED_UNITS for unit in units):
        raise _refused(f"The organizational unit can only be one of: {', '.join(sorted(RESERVED_UNITS))}.")
    owner = x509.NameAttribute(NameOID.ORGANIZATION_NAME, OWNER)
    return x509.Name([owner, *units, *(attribute for attributes in names for attribute in attributes)])


def _read_key(path: Path, files: StateFiles) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(files.read(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise damaged(path) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise damaged(path)
    return key


def _key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _refused(what: str) -> EnrollmentRefused:
    return EnrollmentRefused(what, remedy="Correct the request.")
