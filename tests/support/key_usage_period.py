"""Certificates whose key is to be used for a shorter time than they are valid."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from cryptography import x509

from enroll import der
from enroll.keystore.base import PrivateKey

PRIVATE_KEY_USAGE_PERIOD: Final = x509.ObjectIdentifier("2.5.29.16")
_NOT_BEFORE, _NOT_AFTER = 0x80, 0x81


def period_value(not_before: datetime | None = None, not_after: datetime | None = None) -> bytes:
    """The extension as RFC 3280 4.2.1.4 has it: two optional times, with implicit tags."""
    limits = ((_NOT_BEFORE, not_before), (_NOT_AFTER, not_after))
    times = (der.encode(tag, _generalized(limit)) for tag, limit in limits if limit is not None)
    return der.encode(der.SEQUENCE, b"".join(times))


def with_period(
    certificate: x509.Certificate, issuer_key: PrivateKey, value: bytes, *, critical: bool = False
) -> x509.Certificate:
    """The same certificate, issued with a PrivateKeyUsagePeriod of this value, right or wrong."""
    builder = (
        x509.CertificateBuilder(certificate.issuer, certificate.subject, certificate.public_key())
        .serial_number(certificate.serial_number)
        .not_valid_before(certificate.not_valid_before_utc)
        .not_valid_after(certificate.not_valid_after_utc)
        .add_extension(x509.UnrecognizedExtension(PRIVATE_KEY_USAGE_PERIOD, value), critical=critical)
    )
    for extension in certificate.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    return builder.sign(issuer_key, certificate.signature_hash_algorithm)  # type: ignore[arg-type]


def _generalized(moment: datetime) -> bytes:
    moment = moment.astimezone(UTC)
    return f"{moment.year:04}{moment:%m%d%H%M%SZ}".encode("ascii")
