"""A CA that issues whatever a test wants, right or wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, ObjectIdentifier

from enroll.config import DeviceSettings
from enroll.csr import DIGITAL_SIGNATURE, CertificateRequest, Usage
from enroll.keystore.base import PrivateKey, PublicKey

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
DEVICE = DeviceSettings(serial_number="CT-000123", model="Example CT", hardware_type="1.3.6.1.4.1.32473.1.2")
REQUEST = CertificateRequest.for_device(DEVICE, Usage.SIGNING)

CA_KEY_USAGE = x509.KeyUsage(
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
# RFC 5280 4.2.1.3: where it says for what, a key serves nothing else.
ENCIPHERS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=True,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def name(**attributes: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(getattr(NameOID, oid), value) for oid, value in attributes.items()])


@dataclass(frozen=True)
class Content:
    """What goes into a certificate; the defaults are what REQUEST asks for."""

    subject: x509.Name = REQUEST.subject
    alternative_names: Sequence[x509.GeneralName] = REQUEST.alternative_names
    usage: x509.KeyUsage | None = DIGITAL_SIGNATURE
    extended_usage: Sequence[ObjectIdentifier] = (Usage.SIGNING.extended_key_usage,)
    ca: bool | None = False
    path_length: int | None = None
    begin: datetime = NOW - timedelta(minutes=5)
    end: datetime = NOW + timedelta(days=365)
    serial: int | None = None
    critical_extension: x509.UnrecognizedExtension | None = None
    digest: hashes.HashAlgorithm = field(default_factory=hashes.SHA256)
    key_identifiers: bool = False  # of subject and issuer (RFC 5280 4.2.1.1 and 4.2.1.2)

    @classmethod
    def asked(cls, request: CertificateRequest, now: datetime) -> Content:
        return cls(
            subject=request.subject,
            alternative_names=request.alternative_names,
            extended_usage=(request.usage.extended_key_usage,),
            begin=now - timedelta(minutes=5),
            end=now + timedelta(days=365),
        )


def certify(content: Content, key: PublicKey, issuer: x509.Name, issuer_key: PrivateKey) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder(issuer, content.subject, key)
        .serial_number(content.serial or x509.random_serial_number())
        .not_valid_before(content.begin)
        .not_valid_after(content.end)
    )
    if content.ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(content.ca, content.path_length), critical=True)
    if content.usage is not None:
        builder = builder.add_extension(content.usage, critical=True)
    if content.extended_usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage(content.extended_usage), critical=False)
    if content.alternative_names:
        builder = builder.add_extension(x509.SubjectAlternativeName(content.alternative_names), critical=False)
    if content.critical_extension:
        builder = builder.add_extension(content.critical_extension, critical=True)
    if content.key_identifiers:
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        builder = builder.add_extension(authority, critical=False)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    return builder.sign(issuer_key, content.digest)  # type: ignore[arg-type]


class HospitalCa:
    """A CA, self-signed or below another one."""

    def __init__(
        self,
        title: str = "Hospital CA",
        parent: HospitalCa | None = None,
        key: PrivateKey | None = None,
        **changes: Any,
    ) -> None:
        self.key = key or new_key()
        self.name = name(COMMON_NAME=title)
        content = Content(
            subject=self.name,
            alternative_names=(),
            usage=CA_KEY_USAGE,
            extended_usage=(),
            ca=True,
            begin=datetime(2020, 1, 1, tzinfo=UTC),
            end=datetime(2050, 1, 1, tzinfo=UTC),
        )
        issuer = parent or self
        self.certificate = certify(replace(content, **changes), self.key.public_key(), issuer.name, issuer.key)

    def issue(self, key: PublicKey, content: Content | None = None, **changes: Any) -> x509.Certificate:
        return certify(replace(content or Content(), **changes), key, self.name, self.key)
