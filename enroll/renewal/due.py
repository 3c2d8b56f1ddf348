"""When to renew: pure functions of a certificate and the time.

Two thirds through its lifetime; half way where it lives less than ten days, because then a third is too short to
repair a CA that is down. A certificate that outlives its key (PrivateKeyUsagePeriod) is renewed by the life of the key.

A CA may suggest another moment, earlier or later (RFC 9773; `enroll.suggestion` keeps it). It is heeded up to nine
tenths of the lifetime: whatever a CA suggests, there has to be time left to repair it. And it is heeded when a day has
passed, or a tenth of a short life: a CA that always wants it at once would have the scanner renew without end. What is
more urgent than that, it revokes.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from cryptography import x509

from enroll.certificates import PARSE_ERRORS, private_key_usage_period

SHORT_LIFETIME = timedelta(days=10)
_EARLIEST, _LATEST = 0.1, 0.9  # of the lifetime
_LONGEST_REST = timedelta(days=1)


def renewal_time(certificate: x509.Certificate, suggested: datetime | None = None) -> datetime:
    """The moment from which on the certificate is to be renewed.

    Args:
        certificate: The one in use.
        suggested: By its CA, where it suggests anything.
    """
    if suggested is not None:
        return min(max(suggested, _earliest_renewal(certificate)), latest_renewal(certificate))
    begin, lifetime = life(certificate)
    return begin + (lifetime / 2 if lifetime < SHORT_LIFETIME else lifetime * 2 / 3)


def latest_renewal(certificate: x509.Certificate) -> datetime:
    """The moment after which no suggestion puts a renewal off."""
    begin, lifetime = life(certificate)
    return begin + lifetime * _LATEST


def _earliest_renewal(certificate: x509.Certificate) -> datetime:
    begin, lifetime = life(certificate)
    return begin + min(lifetime * _EARLIEST, _LONGEST_REST)


def life(certificate: x509.Certificate) -> tuple[datetime, timedelta]:
    """Beginning and length of the time in which certificate and key can be used."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    try:
        first, last = private_key_usage_period(certificate) or (None, None)
    except PARSE_ERRORS:
        first = last = None  # `enroll.trust` lets no such certificate in
    begin, end = max(begin, first or begin), min(end, last or end)
    return begin, end - begin
