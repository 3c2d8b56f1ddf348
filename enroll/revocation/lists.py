"""What certificate revocation lists (RFC 5280 section 5) say of a path of certificates.

A list is read here and nowhere else. That an own certificate is *good* has to be true of OpenSSL's path check as well,
see `enroll.revocation.watch`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from cryptography import x509

from enroll.certificates import PARSE_ERRORS
from enroll.errors import ConfigurationError
from enroll.statefile import StateFiles

LIST_LIMIT = 16 << 20  # bytes of a file with revocation lists
CLOCK_SKEW = timedelta(minutes=5)
_PEM_MARK = b"-----BEGIN X509 CRL-----"
_COMPROMISES = frozenset(("keyCompromise", "cACompromise", "aACompromise"))
_ON_HOLD = "certificateHold"
_TAKEN_BACK = "removeFromCRL"  # in a delta CRL: it was on hold, or has expired
_PARTIAL = (x509.DeltaCRLIndicator, x509.IssuingDistributionPoint)
_EXPIRED_CERTIFICATES = x509.ObjectIdentifier("2.5.29.60")  # expiredCertsOnCRL, X.509 9.5.2.9
_GENERALIZED_TIME = re.compile(rb"\x18\x0f([0-9]{14})Z")  # in whole seconds (X.690 11.7)


@dataclass(frozen=True, order=True)
class Revocation:
    """The end of a certificate.

    Args:
        at: Since when it must not be relied on: the earlier of the revocation date and the Invalidity Date
            (RFC 5280 5.3.2).
        reason: The reason code (RFC 5280 5.3.1), such as "keyCompromise"; empty where none is stated.
    """

    at: datetime
    reason: str = ""

    @property
    def by_others(self) -> bool:
        """Whether others can use the key: then only proof of an earlier time helps."""
        return self.reason in _COMPROMISES

    @property
    def is_final(self) -> bool:
        """Whether it cannot be taken back (RFC 5280 5.3.1)."""
        return self.reason != _ON_HOLD


@dataclass(frozen=True)
class Statement:
    """What a CA has signed about one certificate.

    Args:
        since: When it was said (thisUpdate).
        until: Until when it counts (nextUpdate).
        revocation: None where it says that there is none.
    """

    since: datetime
    until: datetime
    revocation: Revocation | None = None


@dataclass(frozen=True)
class RevocationStatus:
    """What the lists say.

    Args:
        revocations: Of the certificates of the path, the earliest first.
        unknown: Whether no list proves of a certificate of the path that it was not revoked.
    """

    revocations: tuple[Revocation, ...] = ()
    unknown: bool = False


def revocation_of(
    path: Sequence[x509.Certificate], lists: Iterable[x509.CertificateRevocationList], now: datetime
) -> RevocationStatus:
    """What revocation lists say of a path.

    A list counts if the issuer of the certificate signed it and may do so. An old one, and one for some certificates or
    reasons only, still proves a revocation, but not that there was none. Nor does one from after the expiry of the
    certificate, unless it says that it keeps what had expired by then: others drop it (RFC 5280 3.3).

    Args:
        path: The signer's certificate first, the anchor last.
        lists: What was received, from anybody.
        now: The time of the decision.
    """
    known = tuple(lists)
    unknown = False
    found: set[Revocation] = set()
    for certificate, issuer in pairwise(path):
        of_issuer = [candidate for candidate in known if _is_of(candidate, issuer)]
        unknown |= not any(
            is_current(candidate, now) and _is_whole(candidate) and _lists(candidate, certificate)
            for candidate in of_issuer
        )
        for candidate in of_issuer:
            entry = candidate.get_revoked_certificate_by_serial_number(certificate.serial_number)
            if entry is not None:
                found.add(_revocation(entry))
    revocations = (revocation for revocation in found if revocation.reason != _TAKEN_BACK)
    return RevocationStatus(tuple(sorted(revocations)), unknown)


def read_revocation_lists(path: Path, files: StateFiles) -> tuple[x509.CertificateRevocationList, ...]:
    """The revocation lists of a file, PEM or one in DER.

    Raises:
        ConfigurationError: Not readable, or holds none.
    """
    data = files.read(path, LIST_LIMIT, follow=True)
    try:
        return parse_lists(data)
    except PARSE_ERRORS as error:
        raise ConfigurationError(
            f"{path} holds no certificate revocation list.", remedy="Give the CRL of the CA, as PEM or DER."
        ) from error


def parse_lists(data: bytes) -> tuple[x509.CertificateRevocationList, ...]:
    """The revocation lists in `data`, PEM or one in DER.

    Raises:
        ValueError: It holds none; or another of `PARSE_ERRORS`.
    """
    if _PEM_MARK not in data:
        return (x509.load_der_x509_crl(data),)
    return tuple(x509.load_pem_x509_crl(_PEM_MARK + part) for part in data.split(_PEM_MARK)[1:])


def _is_of(candidate: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    """Whether the issuer signed a list, and keyUsage, where it is there, lets it (RFC 5280 4.2.1.3 and 6.3.3)."""
    try:
        if candidate.issuer != issuer.subject:
            return False
        usages = [each.value for each in issuer.extensions if isinstance(each.value, x509.KeyUsage)]
        may_sign = all(usage.crl_sign for usage in usages)
        return may_sign and candidate.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # others raise TypeError
    except PARSE_ERRORS:
        return False


def is_current(candidate: x509.CertificateRevocationList, now: datetime) -> bool:
    """Whether a list is the one of now, as far as it says so itself."""
    until = candidate.next_update_utc
    return until is not None and candidate.last_update_utc <= now <= until


def _is_whole(candidate: x509.CertificateRevocationList) -> bool:
    """Whether a list is about all certificates of its issuer.

    What is critical says that it is not, as a delta CRL or an issuing distribution point (RFC 5280 5.2.4 and 5.2.5), or
    something that is not known here.
    """
    try:
        return not any(each.critical or isinstance(each.value, _PARTIAL) for each in candidate.extensions)
    except PARSE_ERRORS:
        return False


def _lists(candidate: x509.CertificateRevocationList, certificate: x509.Certificate) -> bool:
    """Whether a certificate, if it was revoked, is still on a list when it has expired."""
    end = certificate.not_valid_after_utc
    return candidate.last_update_utc <= end or any(since <= end for since in _kept_since(candidate))


def _kept_since(candidate: x509.CertificateRevocationList) -> Iterator[datetime]:
    """From which expiry on certificates stay on a list, if it says so."""
    for extension in candidate.extensions:
        value = extension.value
        if extension.oid == _EXPIRED_CERTIFICATES and isinstance(value, x509.UnrecognizedExtension):
            since = _GENERALIZED_TIME.fullmatch(value.value)
            with suppress(ValueError):
                if since is not None:
                    yield datetime.strptime(since[1].decode("ascii"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)


def _revocation(entry: x509.RevokedCertificate) -> Revocation:
    at, reason = entry.revocation_date_utc, ""
    with suppress(*PARSE_ERRORS):
        for extension in entry.extensions:
            if isinstance(extension.value, x509.CRLReason):
                reason = str(extension.value.reason.value)
            elif isinstance(extension.value, x509.InvalidityDate):
                at = min(at, extension.value.invalidity_date_utc)
    return Revocation(at, reason)
