"""A CA as a hospital may have one, for trying out. NOT FOR PRODUCTION.

    root.pem root.key       its first certificate, which devices pin, and the key of it
    root-2.pem root-2.key   the same after its first roll-over to a new key
    server.pem server.key   of the EST server: localhost, 127.0.0.1 and ::1
    password                of the first enrollment; the user name is "scanner"
    issued/<serial>.json    what was issued: to whom, for how long, and where its key lives by its own account

It issues two kinds of certificate, chosen by the extended key usage that is asked for: clientAuth for a device,
documentSigning for what signs images. It adds the name of its hospital, as owners do, and copies nothing but the
names of the device.

After a roll-over the newest key issues. Each root is certified by the one before and the one after it (RFC 9810 4.4),
so that those who know only one of them come to know the others.

A signing key that is to be used for days only (PrivateKeyUsagePeriod, RFC 3280 4.2.1.4) gets a certificate that lives
years, so that what it signed can be verified for years. The period is granted as far as it is at most 90 days long and
begins at most an hour ago. What a request says of its key's protection is written down; nothing depends on it.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from enroll.certificates import PARSE_ERRORS, alternative_names, name_text, private_key_usage_period
from enroll.clock import Clock
from enroll.csr import (
    DIGITAL_SIGNATURE,
    DOCUMENT_SIGNING,
    HARDWARE_MODULE_NAME,
    RESERVED_UNITS,
    stated_protection,
)
from enroll.errors import EnrollmentRefused, StateError
from enroll.evaluation.authority import Authority, certificate_builder, create_authority
from enroll.keystore.base import PublicKey
from enroll.statefile import StateFiles

BANNER = "scanseal evaluation CA - NOT FOR PRODUCTION"
USERNAME = "scanner"
OWNER = "Evaluation Hospital"
DEFAULT_LIFETIME = timedelta(days=365)
DEFAULT_LONG_LIFETIME = timedelta(days=5 * 365)
LONGEST_USAGE = timedelta(days=90)
EARLIEST_USAGE = timedelta(hours=1)  # before the moment of issue
ROOTS_LIMIT = 4  # clients take ten CA certificates: these and six by which they certify each other

_PROFILES = (ExtendedKeyUsageOID.CLIENT_AUTH, DOCUMENT_SIGNING)
_DEVICE_ATTRIBUTES = (NameOID.COMMON_NAME, NameOID.SERIAL_NUMBER)


class EvaluationCa:
    """The CA: its key, its certificate and what it will issue.

    Args:
        directory: Where its files lie; `create_or_open` makes them.
        clock: Dates what it issues.
        lifetime: Of what it issues, counted from the moment of issue.
        long_lifetime: Of certificates that outlive their keys.
        files: Reads and writes the files.
    """

    def __init__(
        self, directory: Path, clock: Clock, lifetime: timedelta, long_lifetime: timedelta, files: StateFiles
    ) -> None:
        self.directory = directory
        self.password = files.read(self.password_file).strip()
        self.clock = clock
        self._roots = [Authority(path, files) for path in _root_paths(directory, files)]
        self._links = _links(self._roots, clock.now())
        self._lifetime = lifetime
        self._long_lifetime = long_lifetime
        self._files = files

    @classmethod
    def create_or_open(
        cls,
        directory: Path,
        clock: Clock,
        lifetime: timedelta = DEFAULT_LIFETIME,
        long_lifetime: timedelta = DEFAULT_LONG_LIFETIME,
    ) -> Self:
        """The CA in `directory`; a new one where there is none. Its server certificate is always made anew.

        Raises:
            StateError: The files cannot be written, or are damaged.
        """
        files = StateFiles()
        if not os.path.lexists(directory / "password"):
            _create(directory, clock.now(), files)
        ca = cls(directory, clock, lifetime, long_lifetime, files)
        ca.make_server_certificate(files)
        return ca

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate of the key that issues."""
        return self._roots[-1].certificate

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        """Its self-signed certificates, the oldest first."""
        return tuple(root.certificate for root in self._roots)

    @property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        """All its certificates: the roots, and those by which they certify each other."""
        return (*reversed(self.roots), *self._links)

    @property
    def anchor_file(self) -> Path:
        """The certificate that devices pin: the first one, whatever came later."""
        return self.directory / "root.pem"

    @property
    def password_file(self) -> Path:
        """The password of the first enrollment."""
        return self.directory / "password"

    def issue(self, request: x509.CertificateSigningRequest) -> x509.Certificate:
        """A certificate for a request whose sender has been authorised.

        Raises:
            EnrollmentRefused: The request is not signed with its own key, or asks for what is never issued.
            StateError: What was issued cannot be written down.
        """
        now = self.clock.now()
        try:
            if not request.is_signature_valid:
                raise _refused("The request is not signed with its key.")
            purpose, names, public_key = _purpose(request), _device_names(request), _public_key(request)
            subject, protection = _subject(request), stated_protection(request) or "unstated"
            period = _usage_period(request, purpose, now)
        except PARSE_ERRORS as error:
            raise _refused("The request cannot be read.") from error
        lifetime = self._lifetime if period is None else self._long_lifetime
        lifetime = min(lifetime, self.certificate.not_valid_after_utc - now)
        builder = certificate_builder(subject, public_key, now, lifetime)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(DIGITAL_SIGNATURE, critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if period is not None:
            builder = builder.add_extension(period, critical=False)
        certificate = self._roots[-1].sign(builder)
        self._write_down(certificate, protection)
        return certificate

    def _write_down(self, certificate: x509.Certificate, protection: str) -> None:
        issued = self.directory / "issued"
        self._files.make_directory(issued)
        facts = {
            "subject": name_text(certificate.subject),
            "not_after": certificate.not_valid_after_utc.isoformat(),
            "protection": protection,
        }
        text = json.dumps(facts, indent=1)  # for people: nobody else reads it
        self._files.write(issued / f"{certificate.serial_number:x}.json", f"{text}\n".encode("ascii"))

    def roll_over(self) -> None:
        """Issue with a new key from now on. A server that runs notices nothing of it until it is started again.

        Raises:
            StateError: The files cannot be written, or this was done too often already.
        """
        number = len(self._roots) + 1
        if number > ROOTS_LIMIT:
            raise StateError(
                f"This evaluation CA has had {ROOTS_LIMIT} keys; there are no more.", remedy="Make a new one."
            )
        path, now = _root_path(self.directory, number), self.clock.now()
        create_authority(path, self.certificate.subject, 0, now=now, files=self._files)
        self._roots.append(Authority(path, self._files))
        self._links = _links(self._roots, now)
        self.make_server_certificate(self._files)

    def make_server_certificate(self, files: StateFiles) -> None:
        """A new key and certificate for the EST server on this machine, with the way to the first root."""
        # Nothing but the way down: OpenSSL takes the first issuer that fits, and would go round in circles.
        way_to_the_first = self._links[::2]
        self._roots[-1].make_server_certificate(self.directory, self.clock.now(), files, way_to_the_first)


def _root_paths(directory: Path, files: StateFiles) -> list[Path]:
    paths = [_root_path(directory, number) for number in range(1, ROOTS_LIMIT + 1)]
    return [path for path in paths if path is paths[0] or files.exists(path.with_suffix(".pem"))]


def _root_path(directory: Path, number: int) -> Path:
    return directory / ("root" if number == 1 else f"root-{number}")


def _links(roots: Sequence[Authority], now: datetime) -> tuple[x509.Certificate, ...]:
    """NewWithOld and OldWithNew (RFC 9810 4.4) for each roll-over, the newest first."""
    return tuple(
        link for old, new in reversed([*pairwise(roots)]) for link in (old.certify(new, now), new.certify(old, now))
    )


def _create(directory: Path, now: datetime, files: StateFiles) -> None:
    names = ((NameOID.ORGANIZATION_NAME, OWNER), (NameOID.COMMON_NAME, BANNER))
    subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in names])
    files.make_directory(directory)
    create_authority(directory / "root", subject, 0, now=now, files=files)
    # The last file: a CA whose making was interrupted is made again.
    files.write(directory / "password", f"{secrets.token_urlsafe(18)}\n".encode("ascii"))


def _purpose(request: x509.CertificateSigningRequest) -> ObjectIdentifier:
    try:
        asked: list[ObjectIdentifier] = list(request.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        asked = []
    if len(asked) != 1 or asked[0] not in _PROFILES:
        raise _refused("Ask for one extended key usage: clientAuth or documentSigning.")
    return asked[0]


def _usage_period(
    request: x509.CertificateSigningRequest, purpose: ObjectIdentifier, now: datetime
) -> x509.PrivateKeyUsagePeriod | None:
    """What is granted of the period that is asked for; None where none is."""
    asked = private_key_usage_period(request)
    if asked is None:
        return None
    if purpose != DOCUMENT_SIGNING:
        raise _refused("Only a key that signs documents gets a usage period.")
    begin, end = asked
    begin = max(begin or now, now - EARLIEST_USAGE).astimezone(UTC).replace(microsecond=0)
    if begin > now + LONGEST_USAGE:
        raise _refused("The usage period that is asked for begins too late.")
    end = min(end or begin + LONGEST_USAGE, begin + LONGEST_USAGE)
    if end <= now:
        raise _refused("The usage period that is asked for is over.")
    return x509.PrivateKeyUsagePeriod(begin, end)


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


def _refused(what: str) -> EnrollmentRefused:
    return EnrollmentRefused(what, remedy="Correct the request.")
