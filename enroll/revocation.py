"""What certificate revocation lists (RFC 5280 section 5) say of a path of certificates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from cryptography import x509

from enroll.certificates import PARSE_ERRORS
from enroll.errors import ConfigurationError
from enroll.statefile import StateFiles

LIST_LIMIT = 16 << 20  # bytes of a file with revocation lists
_PEM_MARK = b"-----BEGIN X509 CRL-----"


@dataclass(frozen=True)
class Revocation:
    """What the lists say.

    Args:
        revoked_at: When the first certificate of the path was revoked; None if none was.
        reason: The reason code of that entry (RFC 5280 5.3.1), or "unspecified".
        unknown: Whether a certificate of the path is on no current list of its issuer.
    """

    revoked_at: datetime | None = None
    reason: str = ""
    unknown: bool = False


def revocation_of(
    path: Sequence[x509.Certificate], lists: Iterable[x509.CertificateRevocationList], now: datetime
) -> Revocation:
    """What revocation lists say of a path.

    A list counts if the issuer of the certificate signed it; an old one still proves a revocation, but not that there
    was none since.

    Args:
        path: The signer's certificate first, the anchor last.
        lists: What was received, from anybody.
        now: The time of the decision.
    """
    known = tuple(lists)
    unknown = False
    entries: list[tuple[datetime, str]] = []
    for certificate, issuer in pairwise(path):
        of_issuer = [candidate for candidate in known if _is_of(candidate, issuer)]
        unknown |= not any(_is_current(candidate, now) for candidate in of_issuer)
        found = (
            candidate.get_revoked_certificate_by_serial_number(certificate.serial_number) for candidate in of_issuer
        )
        entries += [(entry.revocation_date_utc, _reason(entry)) for entry in found if entry is not None]
    if not entries:
        return Revocation(unknown=unknown)
    revoked_at, reason = min(entries)
    return Revocation(revoked_at, reason, unknown)


def read_revocation_lists(path: Path, files: StateFiles) -> tuple[x509.CertificateRevocationList, ...]:
    """The revocation lists of a file, PEM or one in DER.

    Raises:
        ConfigurationError: Not readable, or holds none.
    """
    data = files.read(path, LIST_LIMIT, follow=True)
    try:
        if _PEM_MARK not in data:
            return (x509.load_der_x509_crl(data),)
        return tuple(x509.load_pem_x509_crl(_PEM_MARK + part) for part in data.split(_PEM_MARK)[1:])
    except PARSE_ERRORS as error:
        raise ConfigurationError(
            f"{path} holds no certificate revocation list.", remedy="Give the CRL of the CA, as PEM or DER."
        ) from error


def _is_of(candidate: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    if candidate.issuer != issuer.subject:
        return False
    try:
        return candidate.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # others raise TypeError
    except PARSE_ERRORS:
        return False


def _is_current(candidate: x509.CertificateRevocationList, now: datetime) -> bool:
    until = candidate.next_update_utc
    return until is not None and candidate.last_update_utc <= now <= until


def _reason(entry: x509.RevokedCertificate) -> str:
    try:
        return str(entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value)
    except (x509.ExtensionNotFound, *PARSE_ERRORS):
        return "unspecified"
