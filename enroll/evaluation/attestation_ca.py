"""The attestation CA of whoever builds scanners, for trying out. NOT FOR PRODUCTION.

    root.pem root.key          its certificate, which recipients of evidence pin, and the key of it
    issuing.pem issuing.key    the CA below it, which issues
    server.pem server.key      of its server: localhost, 127.0.0.1 and ::1
    password                   of the factory line; the user name is "scanner"

It certifies two kinds of key, for the device that the factory line names.

The attestation key of a TPM. The CA believes that it is in a TPM because only the TPM with the endorsement key of a
certificate by a known manufacturer can read what it encrypts, and does so only if it holds this attestation key.
What the certificate says is what step-ca wants to see (WebAuthn Level 2, 8.3.1).

A key in a token. That it is in the token the CA cannot check: it believes the factory line.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from enroll.attestation.client import Challenge
from enroll.attestation.names import (
    AK_CERTIFICATE,
    EK_CERTIFICATE,
    TpmDetails,
    managed_device,
    tpm_details,
)
from enroll.attestation.tpm_structures import BOUND_TO_THE_TPM, Attribute, PublicArea, read_public_area
from enroll.attestation.verify import AK_SCHEME, is_step_key
from enroll.certificates import PARSE_ERRORS
from enroll.clock import Clock
from enroll.csr import DIGITAL_SIGNATURE, permanent_identifier
from enroll.errors import CertificateRefused, EnrollmentRefused, EvidenceRefused, KeyStoreUnavailable, UnsupportedKey
from enroll.evaluation.authority import Authority, certificate_builder, create_authority
from enroll.keystore.base import PublicKey
from enroll.statefile import StateFiles
from enroll.trust import verify_chain

BANNER = "scanseal evaluation attestation CA - NOT FOR PRODUCTION"
LIFETIME = timedelta(days=5 * 365)  # of what it issues
CHALLENGE_LIFETIME = timedelta(minutes=5)
CHALLENGES_LIMIT = 64  # at the same time

_SECRET_SIZE = 32  # bytes; as much as the name hash of an EK allows
_SERIAL_NUMBER = re.compile(r"(?=\S)[A-Za-z0-9'()+,./:=? -]{1,64}(?<=\S)")  # as in [device]
_SIGNS_STATEMENTS = BOUND_TO_THE_TPM | Attribute.RESTRICTED | Attribute.SIGN


@dataclass(frozen=True)
class _Asked:
    """What is known of a challenge until it is answered; the secret is for the TPM alone."""

    secret: bytes = field(repr=False)
    attestation_key: PublicKey
    details: TpmDetails
    serial_number: str
    expires_at: datetime


class AttestationCa:
    """The CA.

    Args:
        directory: Where its files lie; `create_or_open` makes them.
        manufacturers: The certificates that issue those of endorsement keys: which TPMs are believed.
        clock: Dates what it issues.
        files: Reads the files.
    """

    def __init__(
        self, directory: Path, manufacturers: Sequence[x509.Certificate], clock: Clock, files: StateFiles
    ) -> None:
        self.directory = directory
        self.password = files.read(self.password_file).strip()
        self._issuing = Authority(directory / "issuing", files)
        self._manufacturers = tuple(manufacturers)
        self._clock = clock
        self._guard = threading.Lock()
        self._waiting: dict[str, _Asked] = {}

    @classmethod
    def create_or_open(cls, directory: Path, manufacturers: Sequence[x509.Certificate], clock: Clock) -> Self:
        """The CA in `directory`; a new one where there is none. Its server certificate is always made anew.

        Raises:
            StateError: The files cannot be written, or are damaged.
        """
        files = StateFiles()
        if not os.path.lexists(directory / "password"):
            _create(directory, clock.now(), files)
        Authority(directory / "root", files).make_server_certificate(directory, clock.now(), files)
        return cls(directory, manufacturers, clock, files)

    @property
    def anchor_file(self) -> Path:
        """The certificate that devices and recipients of evidence pin."""
        return self.directory / "root.pem"

    @property
    def password_file(self) -> Path:
        """The password of the factory line."""
        return self.directory / "password"

    def challenge(self, serial_number: str, endorsement: x509.Certificate, attestation_key: bytes) -> Challenge:
        """Ask a TPM whether it holds both keys.

        Args:
            serial_number: Of the device that it is built into; the factory line knows.
            endorsement: The certificate of the EK.
            attestation_key: TPMT_PUBLIC of the AK.

        Raises:
            EnrollmentRefused: No TPM of a known manufacturer, or no key that signs statements of its TPM only.
            KeyStoreUnavailable: The software of TPMs is missing here.
        """
        _check_serial_number(serial_number)
        details = self._check_endorsement(endorsement)
        area = _attestation_key(attestation_key)
        secret = secrets.token_bytes(_SECRET_SIZE)
        credential, encrypted_secret = _encrypted(endorsement, area.name, secret)
        now = self._clock.now()
        asked = _Asked(secret, area.key, details, serial_number, now + CHALLENGE_LIFETIME)
        identifier = secrets.token_urlsafe(16)
        with self._guard:
            self._waiting = {name: known for name, known in self._waiting.items() if known.expires_at > now}
            if len(self._waiting) >= CHALLENGES_LIMIT:
                raise _refused("Too many challenges are waiting for an answer.")
            self._waiting[identifier] = asked
        return Challenge(identifier, credential, encrypted_secret)

    def certify_attestation_key(self, identifier: str, secret: bytes) -> tuple[x509.Certificate, ...]:
        """The certificate of the AK for the answer of its TPM, and the intermediate. There is one try.

        Raises:
            EnrollmentRefused: No such challenge, used or too old; or the answer is wrong.
        """
        with self._guard:
            asked = self._waiting.pop(identifier, None)
        if asked is None or asked.expires_at <= self._clock.now():
            raise _refused("There is no such challenge, or no longer.")
        if not hmac.compare_digest(asked.secret, secret):
            raise _refused("The answer to the challenge is wrong.")
        names = [asked.details.directory_name(), permanent_identifier(asked.serial_number)]
        builder = self._builder(x509.Name([]), asked.attestation_key)
        builder = builder.add_extension(x509.ExtendedKeyUsage([AK_CERTIFICATE]), critical=False)
        # RFC 5280 4.1.2.6: critical where the subject is empty
        return self._issued(builder.add_extension(x509.SubjectAlternativeName(names), critical=True))

    def certify_key(self, request: x509.CertificateSigningRequest) -> tuple[x509.Certificate, ...]:
        """The certificate of a key in a token, and the intermediate.

        Args:
            request: Names the device by the attribute serialNumber of its subject.

        Raises:
            EnrollmentRefused: It is not signed with its own key, names no device, or the key is of the wrong kind.
        """
        try:
            signed, key = request.is_signature_valid, request.public_key()
            numbers = request.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
        except PARSE_ERRORS as error:
            raise _refused("The request cannot be read.") from error
        if not signed or len(numbers) != 1:
            raise _refused("The request is not signed with its key, or does not name one device.")
        if not is_step_key(key):
            raise _refused("The key must be RSA of 2048 bits and up, or P-256.")
        serial_number = str(numbers[0].value)
        _check_serial_number(serial_number)
        subject = x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, serial_number)])
        return self._issued(self._builder(subject, key).add_extension(managed_device(serial_number), critical=False))

    def _builder(self, subject: x509.Name, key: PublicKey) -> x509.CertificateBuilder:
        now = self._clock.now()
        lifetime = min(LIFETIME, self._issuing.certificate.not_valid_after_utc - now)
        builder = certificate_builder(subject, key, now, lifetime)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        return builder.add_extension(DIGITAL_SIGNATURE, critical=True)

    def _issued(self, builder: x509.CertificateBuilder) -> tuple[x509.Certificate, ...]:
        return self._issuing.sign(builder), self._issuing.certificate

    def _check_endorsement(self, certificate: x509.Certificate) -> TpmDetails:
        """TCG EK Credential Profile, 3.2: who issued it, what for, and for which TPM."""
        try:
            verify_chain(certificate, (), self._manufacturers, self._clock.now())
            purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            details = tpm_details(certificate)
        except (CertificateRefused, x509.ExtensionNotFound, *PARSE_ERRORS) as error:
            raise _refused("The endorsement certificate is none of a known manufacturer.") from error
        if EK_CERTIFICATE not in purposes or details is None:
            raise _refused("The certificate is not one of an endorsement key, or does not say of which TPM.")
        return details


def _create(directory: Path, now: datetime, files: StateFiles) -> None:
    files.make_directory(directory)
    create_authority(directory / "root", _name("root"), 1, now=now, files=files)
    root = Authority(directory / "root", files)
    create_authority(directory / "issuing", _name("issuing"), 0, now=now, files=files, issuer=root)
    # The last file: a CA whose making was interrupted is made again.
    files.write(directory / "password", f"{secrets.token_urlsafe(18)}\n".encode("ascii"))


def _name(unit: str) -> x509.Name:
    names = ((NameOID.ORGANIZATIONAL_UNIT_NAME, unit), (NameOID.COMMON_NAME, BANNER))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in names])


def _attestation_key(data: bytes) -> PublicArea:
    """The AK, if all that it can ever sign are statements of its own TPM."""
    try:
        area = read_public_area(data)
    except EvidenceRefused as error:
        raise _refused(f"The attestation key cannot be read: {error.what}") from error
    if area.attributes & (_SIGNS_STATEMENTS | Attribute.DECRYPT) != _SIGNS_STATEMENTS:
        raise _refused("The attestation key was not made by its TPM for good, or signs more than what its TPM says.")
    if not isinstance(area.key, rsa.RSAPublicKey) or not is_step_key(area.key) or area.scheme != AK_SCHEME:
        raise _refused("The attestation key must be RSA of 2048 bits and up, with RSASSA and SHA-256.")
    return area


def _encrypted(endorsement: x509.Certificate, name: bytes, secret: bytes) -> tuple[bytes, bytes]:
    try:
        # tpm2-pytss is an optional extra.
        from enroll.keystore.tpm.credential import make_credential  # noqa: PLC0415
    except ImportError as error:
        raise KeyStoreUnavailable(
            "TPMs cannot be asked: tpm2-pytss is not installed.", remedy="Run: pip install 'scanseal[tpm]'"
        ) from error
    try:
        return make_credential(endorsement.public_key(), name, secret)
    except UnsupportedKey as error:
        raise _refused(error.what) from error


def _check_serial_number(serial_number: str) -> None:
    if not _SERIAL_NUMBER.fullmatch(serial_number):
        raise _refused("This is no serial number of a device.")


def _refused(what: str) -> EnrollmentRefused:
    return EnrollmentRefused(what, remedy="Correct the request.")
