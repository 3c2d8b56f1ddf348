"""Looks at the ways to a certificate for `scanseal check`: is all there that an enrollment begins with?"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from cryptography import x509

from agent import checks, enrollment_checks
from agent.checks import Finding
from agent.enrollment_checks import Way
from enroll.clock import Clock
from enroll.collector import place_of, unneeded
from enroll.config import EnrollSettings
from enroll.errors import ScansealError, StateError, StateUnreadable
from enroll.est.first_password import first_password
from enroll.est.first_trust import FirstTrust
from enroll.fdo.credential import fdo_directory, has_credential, read_unauthenticated
from enroll.fdo.hand_over import renewal_flow, with_hand_over
from enroll.fdo.owner_policy import OwnerPolicy
from enroll.flows.settings import FlowName
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.statefile import StateFiles
from enroll.trust import read_anchors

_PROVES_ITSELF = frozenset({IdentityName.IDEVID, IdentityName.DEVICE})


def release_under_way(settings: EnrollSettings, files: StateFiles) -> Iterator[Finding]:
    """Where the owner has begun to give the scanner up, that this has not come to its end."""
    try:
        IdentityStore(settings.state_directory, files).check_kept()
    except StateUnreadable:
        return  # the check of the state directory says so
    except StateError as error:
        yield checks.failure("owner-release", error)


def leftover_keys(settings: EnrollSettings, files: StateFiles) -> Iterator[Finding]:
    """The keys that are to be destroyed and could not be up to now.

    Raises:
        StateError: The ledger of keys, or what names them, cannot be read.
    """
    identities = IdentityStore(settings.state_directory, files)
    names, unknown = unneeded(identities)
    for name in names:
        yield enrollment_checks.leftover_key(name, place_of(name, identities))
    for each in unknown:
        yield enrollment_checks.keys_that_stay(each)


def enrollment(
    settings: EnrollSettings,
    files: StateFiles,
    clock: Clock,
    generations: Mapping[IdentityName, Generation],
    damaged: Collection[IdentityName],
) -> Iterator[Finding]:
    """What is found on every way that is configured.

    Args:
        settings: What is configured.
        files: Reads.
        clock: The time.
        generations: The identities that there are.
        damaged: Those that are there and cannot be read.
    """
    settings = with_hand_over(settings, files)
    ways = enrollment_checks.ways(settings)
    onboarding = list(
        _onboarding(settings, files, clock, is_needed=IdentityName.DEVICE not in {*generations, *damaged})
    )
    yield from onboarding
    if not onboarding and not ways:
        yield enrollment_checks.no_way()
    new = _PROVES_ITSELF.isdisjoint({*generations, *damaged})
    for way in ways.values():
        try:
            anchors = _pinned_by_est(settings, files, new=new) if way.flow is FlowName.EST else _pinned(way, files)
        except ScansealError as error:
            yield checks.failure("enrollment", error, way.flow)
        else:
            yield enrollment_checks.anchors(way, anchors, clock.now())
    for name, generation in generations.items():
        if generation.flow == FlowName.FDO:
            yield from _renewal(name, settings, files)
        elif ways and generation.flow not in ways:
            yield enrollment_checks.lost_way(name, generation.flow)


def way_for(
    identity: IdentityName, settings: EnrollSettings, files: StateFiles, enrolled: Collection[IdentityName]
) -> str:
    """As `enrollment_checks.way_for`, with what FDO has brought and can bring.

    Args:
        identity: Which.
        settings: What is configured.
        files: Reads.
        enrolled: The identities that there are.
    """
    may_onboard = IdentityName.DEVICE not in enrolled and has_credential(fdo_directory(settings.state_directory), files)
    return enrollment_checks.way_for(identity, with_hand_over(settings, files), may_onboard=may_onboard)


def _onboarding(settings: EnrollSettings, files: StateFiles, clock: Clock, *, is_needed: bool) -> Iterator[Finding]:
    """Where the way to the owner is; nothing where the scanner has no FDO credential."""
    directory = fdo_directory(settings.state_directory)
    try:
        credentials = read_unauthenticated(directory, files)
        if not credentials:
            return
        waiting = OwnerPolicy(settings.fdo, directory, files, clock).candidates()
        yield enrollment_checks.onboarding(credentials[0], waiting, is_needed=is_needed)
        if settings.fdo.factory_mode:
            yield enrollment_checks.left_in_factory()
        request = IdentityStore(settings.state_directory, files).journal(IdentityName.DEVICE).read()
        if request and request.flow == FlowName.FDO and request.until and not waiting:
            yield enrollment_checks.owner_not_reached(request.reason, request.until)
    except ScansealError as error:
        yield checks.failure("enrollment", error, FlowName.FDO)


def _renewal(name: IdentityName, settings: EnrollSettings, files: StateFiles) -> Iterator[Finding]:
    try:
        flow = renewal_flow(settings, files)
    except ScansealError as error:
        yield checks.failure("enrollment", error, name)
        return
    if flow is None:
        yield enrollment_checks.not_renewed(name)
    elif flow not in enrollment_checks.ways(settings):
        yield enrollment_checks.lost_way(name, flow)


def _pinned(way: Way, files: StateFiles) -> tuple[x509.Certificate, ...]:
    return read_anchors(way.anchor_file, files, f"[{way.flow}]")


def _pinned_by_est(settings: EnrollSettings, files: StateFiles, *, new: bool) -> tuple[x509.Certificate, ...]:
    """The CA certificates; what has no certificate yet needs the password, too."""
    pinned = FirstTrust(settings.est, settings.state_directory / "anchors", files).pinned()
    if new:
        first_password(settings.est, files)
    return pinned
