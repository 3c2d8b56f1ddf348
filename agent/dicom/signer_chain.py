"""Who signed, and when: the time of a signature, and the path from its certificate to an anchor at that time.

Three times are kept apart. What the signer states is a claim. A certified time stamp proves that the signature existed
by then. Now is when somebody asks. A path is judged at the proven time; without one it has to hold today, because a
claimed time can be chosen to fit any certificate, and any stolen key.

Where a key signs for days and its certificate is valid for years (PrivateKeyUsagePeriod, as for the document signers of
ICAO 9303-12), the path is judged by the certificate and the time by the period. So an image verifies for years without
a time stamp, on the word of the signer that the key was not used later; a time stamp from within the period proves it.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone

from cryptography import x509

from agent.dicom.report import Chain, Finding, KeyUsagePeriod, Outcome, Time
from agent.dicom.stored_signatures import DigitalSignature
from agent.dicom.timestamp import TimeStamp, verify_time_stamp
from agent.errors import DicomError
from enroll.certificates import name_text, private_key_usage_period
from enroll.errors import CertificateRefused, ScansealError, TimeStampError
from enroll.revocation.lists import Revocation, RevocationStatus, revocation_of
from enroll.trust import CLOCK_SKEW, verify_signer, weakness

CMS_TSP = "CMS_TSP"  # PS3.15 C.1: the one kind of certified time stamp
_DATE_TIME = re.compile(r"([0-9]{14})(?:\.([0-9]{1,6}))?([+-][0-9]{2})([0-5][0-9])", re.ASCII)
_MOST_PATHS = 1024  # that are kept
_LATEST = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class TrustMaterial:
    """What signers are judged by.

    Args:
        anchors: CA certificates that are trusted.
        intermediates: CA certificates that may stand between.
        time_stamp_anchors: CA certificates that are trusted for time stamps.
        revocation_lists: What CAs have revoked.
    """

    anchors: tuple[x509.Certificate, ...] = ()
    intermediates: tuple[x509.Certificate, ...] = ()
    time_stamp_anchors: tuple[x509.Certificate, ...] = ()
    revocation_lists: tuple[x509.CertificateRevocationList, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class _Path:
    """A path, what is weak in it, and what was revoked of it."""

    links: tuple[x509.Certificate, ...]
    weakness: str
    revocation: RevocationStatus


class SignerChains:
    """Finds the paths of signers, and what was revoked of them, each once.

    Args:
        material: What they are judged by.
        now: The time of the verification, aware.
    """

    def __init__(self, material: TrustMaterial, now: datetime) -> None:
        self._material = material
        self._now = now
        authorities = (*material.anchors, *material.intermediates)
        self._begins = sorted(authority.not_valid_before_utc for authority in authorities)
        self._ends = sorted(authority.not_valid_after_utc for authority in authorities)
        self._paths: dict[tuple[x509.Certificate, int], _Path] = {}

    def judge(self, certificate: x509.Certificate, time: Time) -> tuple[Time, Chain]:
        """Judge the signer of one signature.

        Args:
            certificate: The signer's.
            time: The claimed time and the proven one.

        Returns:
            The time with what the certificate adds to it, and the path.
        """
        period = private_key_usage_period(certificate)
        time = replace(time, key_usage_period=None if period is None else KeyUsagePeriod(*period))
        findings = [*time.findings, *self._time_faults(certificate, time)]
        if not self._material.anchors:
            what = "No trust anchor was given, so that nobody vouches for the signer."
            return replace(time, findings=tuple(findings)), Chain(
                findings=(Finding("no-anchor", what, Outcome.INDETERMINATE),)
            )
        try:
            path = self._path(certificate, time.trusted or self._now)
        except CertificateRefused as error:
            expired = None if time.trusted else self._path_while_valid(certificate)
            if expired is None:
                return replace(time, findings=tuple(findings)), Chain(findings=(Finding(error.code, error.what),))
            what = "The certificate, or one above it, has expired; nothing proves that the signature was made before."
            findings.append(Finding("certificate-expired", what, Outcome.INDETERMINATE))
            path = expired
        return replace(time, findings=tuple(findings)), self._with_revocation(path, time)

    def _path(self, certificate: x509.Certificate, at: datetime) -> _Path:
        """The path at a time. It depends on which CA certificates are valid then, and not on what was asked before."""
        at = at.replace(microsecond=0)  # validity is in whole seconds, both ends included (RFC 5280 4.1.2.5)
        # A number that goes up by one whenever a CA certificate begins, or has ended.
        key = certificate, bisect_right(self._begins, at) + bisect_left(self._ends, at)
        known = self._paths.get(key)
        if known is None or not _is_valid(certificate, at):
            anchors, intermediates = (
                [authority for authority in authorities if _is_valid(authority, at)]
                for authorities in (self._material.anchors, self._material.intermediates)
            )
            links = verify_signer(certificate, intermediates, anchors, at)
            status = revocation_of(links, self._material.revocation_lists, self._now)
            if len(self._paths) >= _MOST_PATHS:
                self._paths.clear()
            known = self._paths[key] = _Path(links, weakness(links), status)
        return known

    def _path_while_valid(self, certificate: x509.Certificate) -> _Path | None:
        """The path as it was while the certificate was valid, for what has expired since.

        The claimed time is not asked: what is found must not depend on what somebody claims.
        """
        for moment in (certificate.not_valid_after_utc, certificate.not_valid_before_utc):
            if moment < self._now:
                with suppress(CertificateRefused):
                    return self._path(certificate, moment)
        return None

    def _time_faults(self, certificate: x509.Certificate, time: Time) -> Iterator[Finding]:
        claimed = time.claimed
        if claimed is None:
            return
        if claimed > self._now + CLOCK_SKEW:
            yield Finding("time-in-future", f"The time of signing, {_shown(claimed)}, lies in the future.")
        if not certificate.not_valid_before_utc <= claimed <= certificate.not_valid_after_utc:
            what = f"The certificate was not valid at the time of signing, {_shown(claimed)}."
            yield Finding("time-outside-certificate", what)
        if time.trusted is not None and claimed > time.trusted + CLOCK_SKEW:
            what = f"The signature states {_shown(claimed)}, but existed by {_shown(time.trusted)} already."
            yield Finding("time-contradicted", what)
        made_by = claimed if time.trusted is None else min(claimed, time.trusted)
        if time.key_usage_period is not None and not _may_sign(time.key_usage_period, made_by):
            what = f"The signer's key was to be used {time.key_usage_period}, and not at {_shown(made_by)}."
            yield Finding("time-outside-key-usage-period", what)

    def _with_revocation(self, path: _Path, time: Time) -> Chain:
        findings = []
        if path.weakness:
            findings.append(Finding("chain-weak", path.weakness, Outcome.INDETERMINATE))
        for revocation in path.revocation.revocations:
            if (time.trusted or _LATEST) >= revocation.at:
                proof = "the signature is not older." if time.trusted else "nothing proves that the signature is older."
                findings.append(Finding("certificate-revoked", f"The certificate was {_told(revocation)}, and {proof}"))
        if self._material.revocation_lists and path.revocation.unknown:
            what = (
                "No current and complete revocation list of the issuer was given that would still name the certificate."
            )
            findings.append(Finding("revocation-unknown", what, Outcome.INDETERMINATE))
        return Chain(findings=tuple(findings), path=path.links, revocations=path.revocation.revocations)


def _is_valid(certificate: x509.Certificate, at: datetime) -> bool:
    return certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc


def _may_sign(period: KeyUsagePeriod, made_by: datetime) -> bool:
    """Whether a key might sign what was made by then at the latest.

    The CA wrote the begin by its own clock, which may be a little fast. The signer's clock alone keeps the end and
    dates the signature, so that there nothing is forgiven.
    """
    made_by = made_by.replace(microsecond=0)  # the last second counts in full (RFC 3280 4.2.1.4, 4.1.2.5.2)
    begun = period.not_before is None or period.not_before - made_by <= CLOCK_SKEW
    return begun and (period.not_after is None or made_by <= period.not_after)


def claimed_time(text: str) -> Time:
    """Digital Signature DateTime (0400,0105): a DT value with seconds and UTC offset (PS3.5 6.2)."""
    parts = _DATE_TIME.fullmatch(text)
    moment = None
    if parts is not None:
        fraction, hours, minutes = (parts[2] or "0").ljust(6, "0"), int(parts[3]), int(parts[4])
        offset = timedelta(hours=abs(hours), minutes=minutes) * (-1 if parts[3].startswith("-") else 1)
        try:
            stated = datetime.fromisoformat(f"{parts[1][:8]}T{parts[1][8:]}.{fraction}")
            moment = stated.replace(tzinfo=timezone(offset)).astimezone(UTC)
        except (ValueError, OverflowError):
            moment = None
    if moment is None:
        what = "Digital Signature DateTime (0400,0105) is no time with a UTC offset."
        return Time(findings=(Finding("time-malformed", what),))
    return Time(claimed=moment)


def stamped_time(
    time: Time,
    signature: DigitalSignature,
    value: bytes | None,
    trust: TrustMaterial,
    now: datetime,
) -> Time:
    """What a certified time stamp (0400,0310) adds to the claimed time.

    A stamp that proves nothing takes nothing away: anybody can put one there, it is outside the MAC.

    Args:
        time: The claimed time.
        signature: The item.
        value: The signature itself, without padding: what the stamp is about.
        trust: By what the authority is judged.
        now: The time of the verification.
    """
    if value is None or not (signature.time_stamp or signature.time_stamp_type):
        return time
    try:
        if signature.time_stamp_type != CMS_TSP:
            what = f"Certified Timestamp Type (0400,0305) is {signature.time_stamp_type[:16]!r}, not CMS_TSP."
            raise DicomError(what, code="time-stamp-wrong-type")
        if not trust.time_stamp_anchors:
            raise DicomError("No anchor for time stamp authorities was given.", code="time-stamp-no-anchor")
        stamp = verify_time_stamp(signature.time_stamp, value, trust.time_stamp_anchors, now, trust.intermediates)
        _check_authority(stamp, trust, now)
    except ScansealError as error:
        what = f"The time stamp proves nothing: {error.what}"
        return replace(time, findings=(*time.findings, Finding(error.code, what, Outcome.INDETERMINATE)))
    return replace(time, trusted=stamp.latest, authority_path=stamp.path)


def _check_authority(stamp: TimeStamp, trust: TrustMaterial, now: datetime) -> None:
    """Refuse a stamp whose authority was revoked, RFC 3161 4, or may have been, if somebody wants to know.

    With a stolen key any time can be stated, and where no reason is stated the key may have been stolen. Otherwise what
    was stamped before stays proven.
    """
    status = revocation_of(stamp.path, trust.revocation_lists, now)
    for revocation in status.revocations:
        if revocation.by_others or not revocation.reason or stamp.latest >= revocation.at:
            raise TimeStampError(
                f"The time stamp authority was {_told(revocation)}.",
                remedy="Have the signature stamped by another authority.",
                code="time-stamp-revoked",
            )
    if trust.revocation_lists and status.unknown:
        raise TimeStampError(
            "Whether the time stamp authority was revoked is not known. Give the current revocation list of "
            f"{name_text(stamp.authority.issuer)!r} as well, one that still names what has expired, or no list at all.",
            remedy="Give `scanseal verify` the lists of the authority's CAs too: --revocation-list.",
            code="time-stamp-revocation-unknown",
        )


def _told(revocation: Revocation) -> str:
    return f"revoked on {_shown(revocation.at)} ({revocation.reason or 'no reason is stated'})"


def _shown(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
