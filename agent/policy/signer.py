"""Who made a signature, as far as the policy trusts anybody to say so (step 5 of an evaluation)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from agent.dicom.report import NAME_ONE_DEVICE, IdentityLevel, MatchResult, Outcome, SignatureReport
from agent.policy.context import Context
from agent.policy.judgement import IdentityAxis
from agent.policy.model import Anchor, AnchorKind, Entry, ExpectedSigner, Identifies, MatchKey, Named, Policy
from agent.policy.reason import Reason, codes_of
from agent.policy.verdicts import Action, Verdict
from enroll.certificates import PARSE_ERRORS

_ANY_POLICY = "2.5.29.32.0"  # RFC 5280 4.2.1.4
_NO_DEVICE = frozenset((IdentityLevel.NONE, IdentityLevel.VENDOR, IdentityLevel.SITE))
# These are judged by when the signature existed, not by whether there is a path.
_FINDINGS_OF_TIME = frozenset(("certificate-expired", "certificate-revoked"))
_SIGNERS = frozenset(AnchorKind) - {AnchorKind.TIME_STAMP_AUTHORITY}
_PROVED = {IdentityLevel.VENDOR: ": it proves the vendor only", IdentityLevel.SITE: ": it proves the site only"}
_CLOSEST_LEVEL = {Identifies.VENDOR: IdentityLevel.VENDOR, Identifies.SITE: IdentityLevel.SITE}
# What an entry lists a device by, for each subject of the comparison that names one.
_LISTED_BY = {
    "serial": MatchKey.SERIAL,
    "hardware-serial": MatchKey.SERIAL,
    "permanent-identifier": MatchKey.SERIAL,
    "device-uid": MatchKey.DEVICE_UID,
    "udi": MatchKey.UDI,
}


class Standing(IntEnum):
    """How well the signer is known, whatever the signature is worth."""

    UNKNOWN = 0
    VENDOR = 1
    UNLISTED = 2
    EXPECTED = 3


@dataclass(frozen=True, kw_only=True)
class Signer:
    """Who made a signature.

    Args:
        standing: How well the signer is known.
        axis: The same for programs.
        level: How closely the certificate identifies, as far as the anchor may vouch for it.
        reason: What speaks against VALID_EXPECTED_SIGNER, if anything does.
        rule_ids: The entries that were used.
    """

    standing: Standing
    axis: IdentityAxis
    level: IdentityLevel = IdentityLevel.NONE
    reason: Reason | None = None
    rule_ids: tuple[str, ...] = ()


def identify(signature: SignatureReport, context: Context) -> Signer:
    """Who made a signature.

    Args:
        signature: What was found.
        context: The policy and the device that it lists.
    """
    if doubt := _doubt(signature, context):
        return doubt
    if context.policy is None:
        return _without_policy(signature)
    anchor = anchor_of(signature.chain.path, context.policy, _SIGNERS)
    if anchor is None or anchor.identifies is None:
        return _unknown("the policy names no [[anchor]] that the certificate leads to.")
    return _below(anchor, anchor.identifies, signature, context.device)


def anchor_of(path: tuple[x509.Certificate, ...], policy: Policy, kinds: Collection[AnchorKind]) -> Anchor | None:
    """The anchor at the end of a path, if the policy names it and the certificates assert what it asks for.

    Args:
        path: What is vouched for first, the anchor last.
        policy: Whom it trusts.
        kinds: Of anchors that may vouch for this.
    """
    sha256 = path[-1].fingerprint(hashes.SHA256()).hex()
    anchor = next((anchor for anchor in policy.anchors if anchor.sha256 == sha256 and anchor.kind in kinds), None)
    if anchor is None or not anchor.policy_oids:
        return anchor
    return anchor if any(_all_assert(policy_oid, path) for policy_oid in anchor.policy_oids) else None


def _all_assert(policy_oid: str, path: tuple[x509.Certificate, ...]) -> bool:
    """Whether every certificate below the anchor asserts a policy (RFC 5280 6.1.3, without policy mappings).

    An authority may assert any policy instead, where none above it inhibits that, for however many certificates it may
    be (4.2.1.14).
    """
    accepted = {policy_oid, _ANY_POLICY}
    for above, below in pairwise(reversed(path)):
        if _inhibits_any_policy(above):
            accepted.discard(_ANY_POLICY)
        if accepted.isdisjoint(_certificate_policies(below)):
            return False
    return policy_oid in _certificate_policies(path[0])


def _without_policy(signature: SignatureReport) -> Signer:
    """Nobody says who should have signed; that it is the device which the image names still has to be shown."""
    level = signature.identity.level
    if level in _NO_DEVICE:
        why = f"the certificate names no single device{_PROVED.get(level, '')}."
        reason = Reason(Verdict.VALID_VENDOR_ONLY, why)
        return Signer(standing=Standing.VENDOR, axis=IdentityAxis.VENDOR_ONLY, level=level, reason=reason)
    if not _is_tied(signature):
        why = f"nothing ties the certificate to the device of the image{codes_of(signature.identity)}."
        return _unlisted(why, level, ())
    return Signer(standing=Standing.EXPECTED, axis=IdentityAxis.TRUSTED, level=level)


def _is_tied(signature: SignatureReport) -> bool:
    """Whether the certificate and what is covered of the image name the same single device."""
    matches = signature.identity.matches
    return any(match.subject in NAME_ONE_DEVICE and match.result is MatchResult.MATCH for match in matches)


def _is_listed(signature: SignatureReport, device: Entry) -> bool:
    """Whether they name it as the entry lists it; the signer may have put another name, his own, into the image."""
    listed = dict(device.match.values)
    return any(
        match.result is MatchResult.MATCH and match.image in listed.get(key, ())
        for match in signature.identity.matches
        if (key := _LISTED_BY.get(match.subject))
    )


def _doubt(signature: SignatureReport, context: Context) -> Signer | None:
    """Who cannot be named at all, whatever the policy says of anchors and devices."""
    chain, identity = signature.chain, signature.identity
    if context.policy is not None and any(finding.code == "no-anchor" for finding in chain.findings):
        return _unknown("no CA certificate was given to verify with.", Verdict.INDETERMINATE)
    refused = [f for f in chain.findings if f.outcome is Outcome.FAILED and f.code not in _FINDINGS_OF_TIME]
    if not chain.path or refused:
        return _unknown("the certificate leads to no trust anchor.")
    if identity.outcome is Outcome.INDETERMINATE:
        why = f"the certificate cannot be compared with the image{codes_of(identity)}."
        return _unknown(why, Verdict.INDETERMINATE)
    if context.policy is None and identity.outcome is Outcome.FAILED:
        return _wrong(f"the certificate does not fit the image{codes_of(identity)}.", identity.level)
    return None


def _below(anchor: Anchor, identifies: Identifies, signature: SignatureReport, device: Entry | None) -> Signer:
    """Who signed below an anchor of the policy."""
    level = _lower(signature.identity.level, _CLOSEST_LEVEL.get(identifies, IdentityLevel.DEVICE_AND_OWNER))
    used = (anchor.id,) if device is None else (anchor.id, device.id)
    if signature.identity.outcome is Outcome.FAILED:
        return _wrong(f"the certificate does not fit the image{codes_of(signature.identity)}.", level, used)
    if identifies is not Identifies.SOFTWARE and level in _NO_DEVICE:
        return _vendor_only(anchor, level, signature, device)
    if device is not None and (unfit := _unfit(anchor, signature, device.signer)):
        return _wrong(unfit, level, used)
    if why := _why_unlisted(signature, device):
        return _unlisted(why, level, used)
    return Signer(standing=Standing.EXPECTED, axis=IdentityAxis.EXPECTED, level=level, rule_ids=used)


def _unfit(anchor: Anchor, signature: SignatureReport, expected: ExpectedSigner) -> str:
    """What of the expected signer the actual one is not; empty if nothing."""
    if expected.anchors and anchor.id not in expected.anchors:
        return f"the certificate leads to {anchor.id}, which is not the anchor of this device's signer."
    attributes = signature.chain.path[0].subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    if expected.serial_number and expected.serial_number not in [attribute.value for attribute in attributes]:
        return "the serialNumber of the certificate is not the one of this device's signer."
    if lacking := _lacking(signature, expected):
        return f"the certificate does not name: {', '.join(lacking)}."
    return ""


def _why_unlisted(signature: SignatureReport, device: Entry | None) -> str:
    """Why the signer is not the device of an entry; empty if it is."""
    if device is None:
        return "no [[device]] speaks of the device."
    if not device.expects_signature:
        return f"the entry {device.id} expects no signature, so it lists no signer."
    if not device.signer.serial_number and not _is_listed(signature, device):
        return (
            f"nothing that the entry {device.id} lists the device by is the same in the certificate and in the image; "
            "match its serial, udi or device_uid, or add signer.serial_number."
        )
    return ""


def _lacking(signature: SignatureReport, expected: ExpectedSigner) -> list[Named]:
    """What the certificate must name and does not."""
    stated = (m for m in signature.identity.matches if m.certificate and m.result is not MatchResult.CERTIFICATE_SILENT)
    # These are serial numbers of the device in several places of the certificate; a permanentIdentifier that is not the
    # serial number of the image need not be one.
    named = {
        Named.SERIAL if _LISTED_BY.get(match.subject) is MatchKey.SERIAL else match.subject
        for match in stated
        if match.subject != "permanent-identifier" or match.result is MatchResult.MATCH
    }
    return [name for name in Named if name in expected.require and name not in named]


def _vendor_only(anchor: Anchor, level: IdentityLevel, signature: SignatureReport, device: Entry | None) -> Signer:
    lacking = [] if device is None else _lacking(signature, device.signer)
    vouched = "nothing of it" if level is IdentityLevel.NONE else f"its {level} at most"
    why = f"the certificate names no single device{_PROVED.get(level, '')}; {anchor.id} vouches for {vouched}."
    if lacking:
        why = f"{why} The policy requires it to name: {', '.join(lacking)}."
    return Signer(
        standing=Standing.VENDOR,
        axis=IdentityAxis.VENDOR_ONLY,
        level=level,
        reason=Reason(Verdict.VALID_VENDOR_ONLY, why, enforced=Action.QUARANTINE if lacking else None),
        rule_ids=(anchor.id,) if device is None else (anchor.id, device.id),
    )


def _unknown(why: str, verdict: Verdict = Verdict.VALID_UNKNOWN_SIGNER) -> Signer:
    return Signer(standing=Standing.UNKNOWN, axis=IdentityAxis.UNKNOWN, reason=Reason(verdict, why))


def _wrong(why: str, level: IdentityLevel, used: tuple[str, ...] = ()) -> Signer:
    reason = Reason(Verdict.VALID_WRONG_SIGNER, why)
    return Signer(standing=Standing.UNKNOWN, axis=IdentityAxis.WRONG, level=level, reason=reason, rule_ids=used)


def _unlisted(why: str, level: IdentityLevel, used: tuple[str, ...]) -> Signer:
    reason = Reason(Verdict.VALID_UNLISTED_DEVICE, why)
    return Signer(standing=Standing.UNLISTED, axis=IdentityAxis.UNLISTED, level=level, reason=reason, rule_ids=used)


def _certificate_policies(certificate: x509.Certificate) -> set[str]:
    """The policies that a certificate asserts (RFC 5280 4.2.1.4)."""
    try:
        policies = certificate.extensions.get_extension_for_class(x509.CertificatePolicies).value
    except (x509.ExtensionNotFound, *PARSE_ERRORS):
        return set()
    return {policy.policy_identifier.dotted_string for policy in policies}


def _inhibits_any_policy(certificate: x509.Certificate) -> bool:
    try:
        certificate.extensions.get_extension_for_class(x509.InhibitAnyPolicy)
    except (x509.ExtensionNotFound, *PARSE_ERRORS):
        return False
    return True


def _lower(first: IdentityLevel, second: IdentityLevel) -> IdentityLevel:
    return min(first, second, key=list(IdentityLevel).index)
