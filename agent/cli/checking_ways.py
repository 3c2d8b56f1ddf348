"""Looks at the ways to a certificate for `scanseal check`: is all there that an enrollment begins with?"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime

from cryptography import x509

from agent import checks, enrollment_checks
from agent.checks import Finding
from agent.enrollment_checks import Way
from enroll.config import EnrollSettings
from enroll.errors import ScansealError
from enroll.est.first_password import first_password
from enroll.est.first_trust import FirstTrust
from enroll.flows.settings import FlowName
from enroll.identity import Generation, IdentityName
from enroll.statefile import StateFiles
from enroll.trust import read_anchors

_PROVES_ITSELF = frozenset({IdentityName.IDEVID, IdentityName.DEVICE})


def enrollment(
    settings: EnrollSettings,
    files: StateFiles,
    now: datetime,
    generations: Mapping[IdentityName, Generation],
    damaged: Collection[IdentityName],
) -> Iterator[Finding]:
    """What is found on every way that is configured.

    Args:
        settings: What is configured.
        files: Reads.
        now: The time.
        generations: The identities that there are.
        damaged: Those that are there and cannot be read.
    """
    ways = enrollment_checks.ways(settings)
    if not ways:
        yield enrollment_checks.no_way()
    new = _PROVES_ITSELF.isdisjoint({*generations, *damaged})
    for way in ways.values():
        try:
            anchors = _pinned_by_est(settings, files, new=new) if way.flow is FlowName.EST else _pinned(way, files)
        except ScansealError as error:
            yield checks.failure("enrollment", error, way.flow)
        else:
            yield enrollment_checks.anchors(way, anchors, now)
    for name, generation in generations.items():
        if ways and generation.flow not in ways:
            yield enrollment_checks.lost_way(name, generation.flow)


def _pinned(way: Way, files: StateFiles) -> tuple[x509.Certificate, ...]:
    return read_anchors(way.anchor_file, files, f"[{way.flow}]")


def _pinned_by_est(settings: EnrollSettings, files: StateFiles, *, new: bool) -> tuple[x509.Certificate, ...]:
    """The CA certificates; what has no certificate yet needs the password, too."""
    pinned = FirstTrust(settings.est, settings.state_directory / "anchors", files).pinned()
    if new:
        first_password(settings.est, files)
    return pinned
