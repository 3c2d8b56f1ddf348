"""When a CA wants one certificate to be renewed: kept beside the identity, because the moment is chosen once.

    identities/<name>/renewal-info.json

A CA that must revoke what it issued, or that wants to spread its load, says so in advance (RFC 9773). What it said
holds for the certificate that it was said of and for no other.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from enroll.errors import StateDamaged
from enroll.identity import Generation, IdentityStore
from enroll.record import read_record, read_time, write_record
from enroll.statefile import StateFiles

_FIELDS = ("certificate", "begin", "end", "renew_at", "ask_again_at")
_MODE = 0o640
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Window:
    """From when to when a CA wants the renewal (RFC 9773 4.2)."""

    begin: datetime
    end: datetime


@dataclass(frozen=True)
class Suggestion:
    """What a CA said about one certificate.

    Args:
        ask_again_at: When it is asked again, not before and not much later.
        window: What it suggests; None where it suggests nothing usable.
        renew_at: The moment that was chosen in the window.
    """

    ask_again_at: datetime
    window: Window | None = None
    renew_at: datetime | None = None


def read_suggestion(generation: Generation, identities: IdentityStore, files: StateFiles) -> Suggestion | None:
    """What the CA said about the certificate of this generation; None where nothing is kept.

    What is damaged counts as nothing: the CA is asked again.
    """
    path = _path(generation, identities)
    try:
        if not files.exists(path):
            return None
        values = read_record(path, _FIELDS, files)
        if values["certificate"] != _fingerprint(generation.certificate):
            return None
        begin, end, chosen = (read_time(values[name], path) if values[name] else None for name in _FIELDS[1:4])
        window = Window(begin, end) if begin and end else None
        return Suggestion(read_time(values["ask_again_at"], path), window, chosen)
    except StateDamaged as error:
        _LOG.warning("What the CA suggested for %s is forgotten: %s", generation.identity, error.what)
        return None


def write_suggestion(
    suggestion: Suggestion, generation: Generation, identities: IdentityStore, files: StateFiles
) -> None:
    """Keep what the CA said.

    Raises:
        StateError: The disk refused.
    """
    window = suggestion.window
    values = {
        "certificate": _fingerprint(generation.certificate),
        "begin": window.begin.isoformat() if window else "",
        "end": window.end.isoformat() if window else "",
        "renew_at": suggestion.renew_at.isoformat() if suggestion.renew_at else "",
        "ask_again_at": suggestion.ask_again_at.isoformat(),
    }
    write_record(_path(generation, identities), values, files, _MODE)


def suggested_renewal(generation: Generation, identities: IdentityStore, files: StateFiles) -> datetime | None:
    """The moment that the CA suggests for the renewal of this generation; None where it suggests none."""
    kept = read_suggestion(generation, identities, files)
    return kept.renew_at if kept else None


def _path(generation: Generation, identities: IdentityStore) -> Path:
    return identities.directory(generation.identity) / "renewal-info.json"


def _fingerprint(certificate: x509.Certificate) -> str:
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()
