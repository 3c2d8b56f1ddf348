"""What `scanseal check` says about where certificates come from, and what has become of them.

    enrollment          where the next certificate comes from is configured, and its CA certificates still count
    last-enrollment     the last attempt to get a certificate did not fail
    revocation          the CA has not revoked the certificate
    leftover-key        a key that nothing needs any more is destroyed

Pure, as `agent.checks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from agent.checks import Finding, State
from enroll.collector import Leftover
from enroll.config import EnrollSettings
from enroll.failure import Failure
from enroll.fdo.credential import DeviceCredential
from enroll.fdo.owner_policy import COMPARE, Candidate
from enroll.flows.settings import FlowName
from enroll.identity import VENDORS_IDENTITIES, IdentityName
from enroll.keystore.ledger import Place
from enroll.revocation.record import RevocationRecord, RevocationState

_ADDRESS_OPTION = {
    FlowName.EST: "url",
    FlowName.ACME: "directory_url",
    FlowName.CMP: "url",
    FlowName.SCEP: "url",
    FlowName.VENDOR: "url",
}


@dataclass(frozen=True)
class Way:
    """A way to a certificate that is configured.

    Args:
        flow: Which.
        to: Its address, or what stands for it.
        anchor_file: With its CA certificates; None where they are pinned in another way.
    """

    flow: FlowName
    to: str
    anchor_file: Path | None


def ways(settings: EnrollSettings) -> Mapping[FlowName, Way]:
    """The ways that are configured."""
    found = [
        Way(FlowName.EST, settings.est.url, settings.est.anchor_file),
        Way(FlowName.ACME, settings.acme.directory_url, settings.acme.anchor_file),
        Way(FlowName.CMP, settings.cmp.url, settings.cmp.anchor_file),
        Way(FlowName.SCEP, settings.scep.url if settings.scep.enabled else "", settings.scep.anchor_file),
        Way(FlowName.OFFLINE, "files" if settings.offline.anchor_file else "", settings.offline.anchor_file),
        Way(FlowName.VENDOR, settings.vendor.url, settings.vendor.anchor_file),
    ]
    return {way.flow: way for way in found if way.to}


def no_way() -> Finding:
    """What to say where no way is configured."""
    return Finding(
        "enrollment",
        State.WARNING,
        "No way to a certificate is configured: there is nobody to ask.",
        "Set [est] url and anchor_file, or the table of another way: acme, cmp, offline, scep, vendor.",
    )


def way_for(identity: IdentityName, settings: EnrollSettings, *, may_onboard: bool = False) -> str:
    """What follows `scanseal enroll`: the first way that is configured and brings a certificate for an identity.

    Empty where none does. The vendor has ways without configuration, which `scanseal enroll vendor` lists.

    Args:
        identity: Which.
        settings: What is configured, with what the owner has said by FDO.
        may_onboard: Whether FDO is a way as well: there is a credential, and no device identity yet.
    """
    found = ways(settings)
    if identity in VENDORS_IDENTITIES:
        return "vendor request" if FlowName.VENDOR in found else "vendor"
    flow = next((flow for flow in found if flow is not FlowName.VENDOR), FlowName.FDO if may_onboard else "")
    return f"{flow} export" if flow == FlowName.OFFLINE else flow


def lost_way(identity: IdentityName, flow: str) -> Finding:
    """What to say where a certificate came on a way that is not configured any more."""
    option = _ADDRESS_OPTION.get(FlowName(flow), "anchor_file") if flow in list(FlowName) else "url"
    return Finding(
        "enrollment",
        State.WARNING,
        f"The certificate came by {flow}, which is not configured any more: it cannot be renewed.",
        f"Set [{flow}] {option}; or enroll once on another way, which the renewal then goes as well.",
        identity,
    )


def not_renewed(identity: IdentityName) -> Finding:
    """What to say of a certificate that came by FDO, where nobody says how it is renewed."""
    return Finding(
        "enrollment",
        State.WARNING,
        "The certificate came by FIDO Device Onboard, which renews nothing; nobody says how it is renewed.",
        'Set [fdo] renewal to "est", "acme" or "cmp", and the address in the table of that name.',
        identity,
    )


def onboarding(credential: DeviceCredential, candidates: Sequence[Candidate], *, is_needed: bool) -> Finding:
    """How far this scanner is with FIDO Device Onboard.

    Args:
        credential: The newest.
        candidates: The owners that wait for approval, or have it.
        is_needed: Whether there is no device identity, on whatever way it comes.
    """
    waiting = [f"{each.owner} ({each.name})" if each.name else each.owner for each in candidates]
    if waiting and not any(each.is_approved for each in candidates):
        what = f"Who wants to own this scanner waits for approval: the fingerprint is {', or '.join(waiting)}."
        return Finding("enrollment", State.WARNING, what, COMPARE, FlowName.FDO)
    if credential.owner is None:
        state = "was released by its last owner" if credential.was_owned else "has an FDO credential and no owner yet"
        what = f"this scanner {state}"
        remedy = "Its next owner takes it over with: scanseal enroll fdo"
        return Finding("enrollment", State.WARNING if is_needed else State.OK, what, remedy, FlowName.FDO)
    what = f"onboarded by the owner with the fingerprint {credential.owner.fingerprint}"
    return Finding("enrollment", State.OK, what, "", FlowName.FDO)


def left_in_factory() -> Finding:
    """What to say where a scanner that has its credential could still be given another one."""
    what = "[fdo] factory_mode is true, and the scanner has its FDO credential."
    return Finding("enrollment", State.WARNING, what, "Set [fdo] factory_mode = false.", FlowName.FDO)


def owner_not_reached(reason: str, until: datetime) -> Finding:
    """What to say where the last attempt led to no owner, and the timer looks again at a moment."""
    what = f"The last attempt led to no owner; the timer looks again after {until:%Y-%m-%d %H:%M} UTC: {reason}"
    remedy = "To ask at once: scanseal enroll fdo"
    return Finding("enrollment", State.WARNING, what, remedy, FlowName.FDO)


def anchors(way: Way, found: Sequence[x509.Certificate], now: datetime) -> Finding:
    """Whether the CA certificates that are pinned still count.

    Args:
        way: To the CA.
        found: The certificates; none where they are pinned by fingerprint.
        now: The time.
    """
    if found and all(anchor.not_valid_after_utc < now for anchor in found):
        what = f"Every CA certificate in [{way.flow}] anchor_file has expired."
        remedy = "Get the present one from the CA on a trusted way."
        return Finding("enrollment", State.FAILED, what, remedy, way.flow)
    return Finding("enrollment", State.OK, f"certificates come from {way.to}", "", way.flow)


def last_enrollment(identity: IdentityName, failure: Failure) -> Finding:
    """What to say of an attempt that failed. What is in use goes on, so it is a warning until that ends."""
    times = "once" if failure.attempts == 1 else f"{failure.attempts} times since {failure.since:%Y-%m-%d %H:%M} UTC"
    return Finding(
        "last-enrollment",
        State.WARNING,
        f"The last attempt by {failure.flow} failed at {failure.at:%Y-%m-%d %H:%M} UTC ({times}): {failure.what}",
        f"{failure.remedy} To act: {failure.who_must_act}. Next: {failure.next}".strip(),
        identity,
        failure.code,
    )


def leftover_key(name: str, place: Place | None) -> Finding:
    """What to say of a key that nothing needs any more and that is still there; nothing depends on it.

    Args:
        name: The key.
        place: Where it is, if that is known.
    """
    where = f" ({place})" if place else ""
    return Finding(
        "leftover-key",
        State.WARNING,
        f"The key {name}{where} is not needed any more, and is not destroyed yet.",
        "scanseal renew tries again each time it runs; see that its key store is there.",
        name,
    )


def keys_that_stay(left: Leftover) -> Finding:
    """What to say where nobody can tell which keys of an identity are needed."""
    return Finding(
        "leftover-key",
        State.WARNING,
        f"No key of {left.name} is destroyed, because what names those that are needed cannot be read: {left.why.what}",
        left.why.remedy,
        left.name,
        left.why.code,
    )


def revocation(
    identity: IdentityName, record: RevocationRecord | None, *, published: bool, now: datetime, patience: timedelta
) -> Finding:
    """Whether the CA has revoked a certificate.

    Args:
        identity: Whose.
        record: What is known; None where it was never asked.
        published: Whether there is a place to ask, and it is to be asked.
        now: The time.
        patience: How long what was good stays so without an answer.
    """
    check = "revocation"
    if record is not None and record.revocation is not None:
        reason = record.revocation.reason or "no reason is given"
        what = f"The CA has revoked the certificate on {record.revocation.at:%Y-%m-%d %H:%M} UTC ({reason})."
        remedy = "Ask the CA's operator why. Then enroll this identity again; nothing is signed until then."
        return Finding(check, State.FAILED, what, remedy, identity, "certificate-revoked")
    if not published:
        what = "the certificate names no place where revocations are published, or [revocation] watch is false"
        return Finding(check, State.NOT_APPLICABLE, what, "", identity)
    if record is None or record.standing(now, patience) is RevocationState.UNKNOWN:
        problem = record.problem if record else "it was not asked yet"
        remedy = "Run: scanseal renew; it asks. Let the scanner reach the places that its certificate names."
        return Finding(check, State.WARNING, f"not known whether it is revoked: {problem}", remedy, identity)
    return Finding(check, State.OK, f"not revoked, as of {record.as_of:%Y-%m-%d %H:%M} UTC", "", identity)
