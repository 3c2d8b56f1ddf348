"""When to renew: pure functions of a certificate and the time.

Two thirds through its lifetime; half way where it lives less than ten days, because then a third is too short to
repair a CA that is down. A certificate that outlives its key (PrivateKeyUsagePeriod) is renewed by the life of the key.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from cryptography import x509

from enroll.certificates import PARSE_ERRORS, private_key_usage_period

SHORT_LIFETIME = timedelta(days=10)


def renewal_time(certificate: x509.Certificate) -> datetime:
    """The moment from which on the certificate is to be renewed."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    try:
        first, last = private_key_usage_period(certificate) or (None, None)
    except PARSE_ERRORS:
        first = last = None  # `enroll.trust` lets no such certificate in
    begin, end = max(begin, first or begin), min(end, last or end)
    lifetime = end - begin
    return begin + (lifetime / 2 if lifetime < SHORT_LIFETIME else lifetime * 2 / 3)


def renewal_due(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether to renew now. An expired certificate is due as well: it is never given up."""
    return now >= renewal_time(certificate)
