"""What is this scanner's own among a thousand that were installed on the same day.

Their certificates end at the same moment, and so would their renewals begin. So each has a number of its own, from 0 up
to 1: a hash of its serial number and of what the number is for. It is the same in each run, on each machine, for ever.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from cryptography import x509

from enroll.renewal.due import life, renewal_time

LARGEST_SPREAD = 1 / 20  # of the lifetime
_BYTES = 8


def own_number(*names: str) -> float:
    """A number from 0 up to 1, spread evenly over scanners.

    Args:
        names: Of the scanner, and of what the number is for.
    """
    text = "\0".join(names).encode("utf-8")
    return int.from_bytes(hashlib.sha256(text).digest()[:_BYTES], "big") / (1 << 8 * _BYTES)


def earlier_by(certificate: x509.Certificate, *names: str) -> timedelta:
    """How much earlier than others with the same lifetime this scanner renews; up to a twentieth of it.

    Args:
        certificate: The one in use.
        names: Serial number of the scanner, and the identity.
    """
    _, lifetime = life(certificate)
    return lifetime * (LARGEST_SPREAD * own_number("due", *names))


def spread_renewal_time(certificate: x509.Certificate, suggested: datetime | None, *names: str) -> datetime:
    """The moment from which on this scanner renews, never later than `renewal_time`.

    A moment that the CA suggests stays: it is spread already (RFC 9773 4.2).

    Args:
        certificate: The one in use.
        suggested: By its CA, where it suggests anything.
        names: Serial number of the scanner, and the identity.
    """
    at_latest = renewal_time(certificate, suggested)
    return at_latest if suggested is not None else at_latest - earlier_by(certificate, *names)
