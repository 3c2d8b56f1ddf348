"""Certificate revocation lists of a test CA."""

from __future__ import annotations

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from enroll import der
from enroll.keystore.base import PrivateKey

_GENERALIZED_TIME = 0x18


def revocation_list(  # noqa: PLR0917 - what a list says
    issuer: x509.Name,
    key: PrivateKey,
    now: datetime,
    revoked: dict[int, datetime] | None = None,
    reason: x509.ReasonFlags | None = None,
    lasts: timedelta = timedelta(days=7),
    expired_since: datetime | None = None,
) -> x509.CertificateRevocationList:
    """A list issued an hour before `now`.

    Args:
        issuer: Name of the CA.
        key: Of the CA.
        now: The time of the test.
        revoked: Serial numbers, and since when.
        reason: Of all of them.
        lasts: Until the next update, from now on.
        expired_since: Certificates that have expired since then stay listed: expiredCertsOnCRL.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer)
        .last_update(now - timedelta(hours=1))
        .next_update(now + lasts)
    )
    for serial_number, since in (revoked or {}).items():
        entry = x509.RevokedCertificateBuilder().serial_number(serial_number).revocation_date(since)
        if reason is not None:
            entry = entry.add_extension(x509.CRLReason(reason), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    if expired_since is not None:
        builder = builder.add_extension(expired_certificates(f"{expired_since:%Y%m%d%H%M%SZ}"), critical=False)
    return builder.sign(key, hashes.SHA256())


def expired_certificates(since: str) -> x509.UnrecognizedExtension:
    """The extension expiredCertsOnCRL of X.509.

    Args:
        since: A GeneralizedTime.
    """
    value = der.encode(_GENERALIZED_TIME, since.encode("ascii"))
    return x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.60"), value)
