"""Keys and certificates of the evaluation CAs. NOT FOR PRODUCTION: keys lie unencrypted on disk.

Certificates begin five minutes before they are issued: a signature made in the second of its certificate's birth is
"not yet valid" to verifiers whose clock differs by a little.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from enroll.certificates import pem, read_certificates
from enroll.csr import DIGITAL_SIGNATURE
from enroll.evaluation.key_file import read_p256_key, write_key
from enroll.keystore.base import PublicKey
from enroll.statefile import StateFiles

BACKDATED = timedelta(minutes=5)
ROOT_LIFETIME = timedelta(days=3650)

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


class Authority:
    """A CA certificate with its key.

    Args:
        path: Of the two files, without their endings `.pem` and `.key`.
        files: Reads them.
    """

    def __init__(self, path: Path, files: StateFiles) -> None:
        self.certificate, *_ = read_certificates(path.with_suffix(".pem"), files)
        self._key = read_p256_key(path.with_suffix(".key"), files)

    def sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        """Issue what `certificate_builder` began."""
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.issuer_name(self.certificate.subject).add_extension(issuer, critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def certify(self, other: Authority, now: datetime) -> x509.Certificate:
        """The key of another CA, with its name and limits: NewWithOld or OldWithNew (RFC 9810 4.4)."""
        known = other.certificate
        lifetime = min(known.not_valid_after_utc, self.certificate.not_valid_after_utc) - now
        builder = certificate_builder(known.subject, other._key.public_key(), now, lifetime)
        constraints = known.extensions.get_extension_for_class(x509.BasicConstraints).value
        builder = builder.add_extension(constraints, critical=True)
        return self.sign(builder.add_extension(_CERTIFICATE_SIGNING, critical=True))

    def make_server_certificate(
        self, directory: Path, now: datetime, files: StateFiles, chain: Sequence[x509.Certificate] = ()
    ) -> None:
        """`server.pem` and `server.key`: a new key and certificate for servers on this machine.

        Args:
            directory: Where they go.
            now: The time.
            files: Writes them.
            chain: CA certificates that the servers send as well.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName("localhost"), *(x509.IPAddress(ipaddress.ip_address(a)) for a in ("127.0.0.1", "::1"))]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        builder = certificate_builder(subject, key.public_key(), now, ROOT_LIFETIME)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(DIGITAL_SIGNATURE, critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        write_key(directory / "server.key", key, files)
        files.write(directory / "server.pem", pem([self.sign(builder), *chain]), 0o644)


def create_authority(  # noqa: PLR0913 - everything a CA is made of
    path: Path,
    subject: x509.Name,
    path_length: int,
    *,
    now: datetime,
    files: StateFiles,
    issuer: Authority | None = None,
) -> None:
    """Make a CA.

    Args:
        path: Of its files, without the ending; the directory exists.
        subject: Its name.
        path_length: How many CAs there may be below it.
        now: The time.
        files: Writes them.
        issuer: The CA above it; None for a root.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    builder = certificate_builder(subject, key.public_key(), now, ROOT_LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    builder = builder.add_extension(_CERTIFICATE_SIGNING, critical=True)
    signed = issuer.sign(builder) if issuer else builder.issuer_name(subject).sign(key, hashes.SHA256())
    write_key(path.with_suffix(".key"), key, files)
    files.write(path.with_suffix(".pem"), pem([signed]), 0o644)


def certificate_builder(
    subject: x509.Name, key: PublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    """A certificate without its issuer and purpose."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before((now - BACKDATED).astimezone(UTC))
        .not_valid_after((now + lifetime).astimezone(UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )
