"""Which CA certificates are trusted: those that the operator pinned, and what those have been rolled over to.

    anchors/<name>-<of which pins>.pem      the kept ones; the pinned ones are in the operator's file

A CA that changes its key keeps its name and shows three certificates (RFC 7030 4.1.3, RFC 9810 4.4): NewWithNew, its
new one, signed by itself; NewWithOld, the new key signed with the old one; OldWithNew, for those who have the new one
already. Here NewWithNew becomes an anchor only by NewWithOld, which nobody but an anchor can have made. A CA of
another name below the anchor is no new key of it, and could shake off in this way whatever limits it; so the name has
to be the same. The old anchor stays: what it issued is in use, and it is not used once it has expired.

With other pins nothing of what was kept counts.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes

from enroll.certificates import PARSE_ERRORS, name_text, public_key_info, read_kept, write_kept
from enroll.errors import HOSPITAL_IT, CertificateRefused, StateDamaged
from enroll.statefile import GROUP_DIRECTORY, StateFiles
from enroll.trust import CERTIFICATES_LIMIT, weakness

KEPT_LIMIT = 16  # beside the pinned ones; those that expire first give way

_FILE_MODE = 0o640
_LOG = logging.getLogger(__name__)


class KeptAnchors:
    """The anchors that a scanner has learned.

    Args:
        directory: Where they lie; made at the first roll-over.
        files: Reads and writes it.
    """

    def __init__(self, directory: Path, files: StateFiles) -> None:
        self._directory = directory
        self._files = files

    def read(self, name: str, pinned: Sequence[x509.Certificate]) -> tuple[x509.Certificate, ...]:
        """The pinned anchors, then what they have been rolled over to.

        Args:
            name: Of the flow that uses them.
            pinned: By the operator; any order.

        Raises:
            StateError: What was kept cannot be read.
        """
        return _joined(pinned, self._kept(name, pinned))

    def roll_over(
        self, name: str, pinned: Sequence[x509.Certificate], offered: Sequence[x509.Certificate], now: datetime
    ) -> tuple[x509.Certificate, ...]:
        """The anchors after what a CA offers has been looked at; new ones are durable then.

        Args:
            name: Of the flow that uses them.
            pinned: By the operator.
            offered: By the server, in any order, with anything else among it; nothing in it is trusted.
            now: The time of the decision.

        Raises:
            CertificateRefused: More certificates than any CA has.
            StateError: What was kept cannot be read, or the disk refused.
        """
        if len(offered) > CERTIFICATES_LIMIT:
            raise CertificateRefused(
                f"The CA offers more than {CERTIFICATES_LIMIT} CA certificates.",
                remedy="None of them is used. The CA's operator must correct what the server offers.",
                code="certificate-too-large",
            )
        before = self._kept(name, pinned)
        kept = [anchor for anchor in before if now <= anchor.not_valid_after_utc]
        while new := _next_roll_over(_joined(pinned, kept), offered, now):
            _LOG.warning("The CA %s has a new key; SHA-256 of its certificate: %s", _title(new), _fingerprint(new))
            kept.append(new)
        kept = sorted(kept, key=lambda anchor: anchor.not_valid_after_utc)[-KEPT_LIMIT:]
        if set(kept) != set(before):
            self._keep(self._path(name, pinned), kept)
        return _joined(pinned, kept)

    def _kept(self, name: str, pinned: Iterable[x509.Certificate]) -> tuple[x509.Certificate, ...]:
        path = self._path(name, pinned)
        if not self._files.exists(path):
            return ()
        try:
            return read_kept(path, self._files)
        except StateDamaged as error:
            raise StateDamaged(
                error.what,
                remedy="Remove it. Where the CA has rolled over since, pin its new certificate as well.",
            ) from error

    def _keep(self, path: Path, kept: Sequence[x509.Certificate]) -> None:
        if not kept:
            self._files.remove(path)
            return
        self._files.make_directory(self._directory, GROUP_DIRECTORY)
        write_kept(path, kept, self._files, _FILE_MODE)

    def _path(self, name: str, pinned: Iterable[x509.Certificate]) -> Path:
        pins = hashlib.sha256("".join(sorted({_fingerprint(anchor) for anchor in pinned})).encode("ascii"))
        return self._directory / f"{name}-{pins.hexdigest()[:32]}.pem"


def by_fingerprint(certificates: Iterable[x509.Certificate], fingerprint: str) -> x509.Certificate:
    """The CA certificate whose fingerprint somebody typed from paper or scanned.

    Args:
        certificates: From anywhere; an unverified server will do.
        fingerprint: SHA-256 in hexadecimal, in any case, with colons or spaces or without.

    Raises:
        CertificateRefused: None has it (`anchor-fingerprint`), or it is that of no CA.
    """
    wanted = fingerprint.translate({ord(":"): None, ord(" "): None}).lower()
    found = next((certificate for certificate in certificates if _fingerprint(certificate) == wanted), None)
    if found is None:
        what = "The server shows no CA certificate with the fingerprint that is configured."
    elif not _is_ca(found):
        what = "The certificate with the fingerprint that is configured is that of no CA."
    else:
        return found
    raise CertificateRefused(
        what,
        remedy="Ask the CA's operator for the SHA-256 fingerprint of the CA certificate, and compare the address. "
        "Where both are right, somebody is in between.",
        code="anchor-fingerprint",
        who_must_act=HOSPITAL_IT,
    )


def _next_roll_over(
    trusted: Collection[x509.Certificate], offered: Sequence[x509.Certificate], now: datetime
) -> x509.Certificate | None:
    """A NewWithNew among `offered` that is not trusted yet, and for which there is a NewWithOld."""
    issuers = [anchor for anchor in trusted if _is_ca(anchor) and _is_valid(anchor, now)]
    usable = [certificate for certificate in offered if _is_ca(certificate) and _is_valid(certificate, now)]
    proofs = [proof for proof in usable if any(_is_own(proof, issuer) for issuer in issuers)]
    new_keys = {public_key_info(proof.public_key()): proof.subject for proof in proofs}
    for certificate in usable:
        known = certificate in trusted or not is_issued_by(certificate, certificate)
        if not known and new_keys.get(public_key_info(certificate.public_key())) == certificate.subject:
            return certificate
    return None


def _is_own(proof: x509.Certificate, anchor: x509.Certificate) -> bool:
    """Whether a CA made this certificate of itself."""
    return proof.subject == anchor.subject and is_issued_by(proof, anchor) and not weakness((proof, anchor))


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether one certificate names the other as its issuer and is signed with its key; nothing else is looked at."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *PARSE_ERRORS):
        return False
    return True


def _is_ca(certificate: x509.Certificate) -> bool:
    """RFC 5280 4.2.1.9 and 4.2.1.3; what has a critical extension that nobody knows is nothing (4.2)."""
    try:
        # All that is looked at later: `cryptography` reads a part when it is asked for it.
        _ = certificate.public_key(), certificate.subject, certificate.issuer, certificate.signature_hash_algorithm
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        values = {type(extension.value): extension.value for extension in certificate.extensions}
        strange = any(e.critical and isinstance(e.value, x509.UnrecognizedExtension) for e in certificate.extensions)
    except PARSE_ERRORS:
        return False
    constraints, key_usage = values.get(x509.BasicConstraints), values.get(x509.KeyUsage)
    if strange or not isinstance(constraints, x509.BasicConstraints):
        return False
    return constraints.ca and (not isinstance(key_usage, x509.KeyUsage) or key_usage.key_cert_sign)


def _is_valid(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _joined(pinned: Iterable[x509.Certificate], kept: Iterable[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    return tuple(dict.fromkeys((*pinned, *kept)))


def _fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


def _title(certificate: x509.Certificate) -> str:
    return name_text(certificate.subject)
