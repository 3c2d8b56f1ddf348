"""Which entries of a policy speak of an instance, and which of them has the say.

What an instance says of itself is proven only as far as a signature covers it, so that it can be matched either by all
that it says or by what a signature covers. What the recipient observed himself counts in either case.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import TypeAlias

from agent.dicom.claims import content_of
from agent.dicom.elements import DEVICE_SERIAL_NUMBER, DEVICE_UID, SOP_CLASS_UID
from agent.dicom.report import InstanceReport
from agent.dicom.signer_identity import (
    INSTITUTION_NAME,
    INSTITUTIONAL_DEPARTMENT_NAME,
    MANUFACTURER,
    MANUFACTURERS_MODEL_NAME,
    MODALITY,
    SOFTWARE_VERSIONS,
    STATION_AE_TITLE,
    STATION_NAME,
    UDI_SEQUENCE,
)
from agent.policy.judgement import Receipt
from agent.policy.model import Entry, Expect, Match, MatchKey, Migration, Policy
from agent.policy.verdicts import Mode

_Facts: TypeAlias = Mapping[MatchKey, frozenset[str]]
# What has to be covered to prove a value; of content it is the markers, and the sending AE is not in the instance.
_ATTRIBUTES = {
    MatchKey.DEVICE_UID: DEVICE_UID,
    MatchKey.UDI: UDI_SEQUENCE,
    MatchKey.SERIAL: DEVICE_SERIAL_NUMBER,
    MatchKey.AE: STATION_AE_TITLE,
    MatchKey.STATION: STATION_NAME,
    MatchKey.MODEL: MANUFACTURERS_MODEL_NAME,
    MatchKey.SOFTWARE_VERSION: SOFTWARE_VERSIONS,
    MatchKey.MANUFACTURER: MANUFACTURER,
    MatchKey.MODALITY: MODALITY,
    MatchKey.SOP_CLASS: SOP_CLASS_UID,
    MatchKey.INSTITUTION: INSTITUTION_NAME,
    MatchKey.DEPARTMENT: INSTITUTIONAL_DEPARTMENT_NAME,
}


@dataclass(frozen=True, kw_only=True)
class Applicable:
    """What of a policy speaks of an instance on the day of its receipt.

    Args:
        day: The day, in the policy's time zone.
        in_force: The most specific entry that applies.
        of_content: The same without the entries that expect no signature: what is demanded of derived and synthetic
            instances. An exemption lifts the expectation of a signature, and nothing else.
        to_come: The most specific entry that will expect a signature.
        device: The entry that lists the device. A device is listed before its signatures are expected, so that its
            owner sees that it signs properly by then; and no more when the entry has ended.
        migration: The migration of which the instance is a part.
    """

    day: date
    in_force: Entry | None = None
    of_content: Entry | None = None
    to_come: Entry | None = None
    device: Entry | None = None
    migration: Migration | None = None


def applicable(
    report: InstanceReport, receipt: Receipt, policy: Policy, covered: Collection[int] | None = None
) -> Applicable:
    """What of a policy speaks of an instance.

    Args:
        report: What was found.
        receipt: What the recipient observed.
        policy: The policy.
        covered: The tags whose values count of what the instance says; None for all.
    """
    day = policy.day(receipt.received_at)
    facts = _facts(report, receipt, covered)
    entries = [entry for entry in policy.entries if _matches(entry.match, facts) and not entry.period.ended(day)]
    begun = [entry for entry in entries if entry.period.begun(day)]
    coming = [entry for entry in entries if not entry.period.begun(day)]
    migrations = (m for m in policy.migrations if day in m.received and _matches(m.match, facts))
    return Applicable(
        day=day,
        in_force=_most_specific(begun),
        of_content=_most_specific(entry for entry in begun if entry.expects_signature),
        to_come=_most_specific(entry for entry in coming if entry.expects_signature),
        device=_most_specific(e for e in begun if e.is_device) or _most_specific(e for e in coming if e.is_device),
        migration=next(migrations, None),
    )


def _facts(report: InstanceReport, receipt: Receipt, covered: Collection[int] | None) -> _Facts:
    """What an instance can be matched by."""
    said = _said(report)
    content = report.content
    if covered is not None:
        said = {key: values for key, values in said.items() if _ATTRIBUTES[key] in covered}
        content = content_of(claim for claim in report.claims if claim.attribute in covered)
    sender = frozenset((receipt.sending_ae,))
    return {
        **said,
        MatchKey.AE: said.get(MatchKey.AE, frozenset()) | sender,
        MatchKey.SENDING_AE: sender,
        MatchKey.CONTENT: frozenset(map(str, content)),
    }


def _said(report: InstanceReport) -> _Facts:
    """What the attributes of an instance say."""
    equipment = report.equipment
    return {
        MatchKey.DEVICE_UID: frozenset((equipment.device_uid,)),
        MatchKey.UDI: frozenset(equipment.udi),
        MatchKey.SERIAL: frozenset((equipment.device_serial,)),
        MatchKey.AE: frozenset((equipment.station_ae,)),
        MatchKey.STATION: frozenset((equipment.station,)),
        MatchKey.MODEL: frozenset((equipment.model,)),
        MatchKey.SOFTWARE_VERSION: frozenset(equipment.software_versions),
        MatchKey.MANUFACTURER: frozenset((equipment.manufacturer,)),
        # A reader may take any of several values, and any case, for the modality.
        MatchKey.MODALITY: frozenset(value.strip().upper() for value in equipment.modality.split("\\")),
        MatchKey.SOP_CLASS: frozenset((report.sop_class_uid,)),
        MatchKey.INSTITUTION: frozenset((equipment.institution,)),
        MatchKey.DEPARTMENT: frozenset((equipment.department,)),
    }


def _matches(match: Match, facts: _Facts) -> bool:
    """Whether an instance has one of the values for each key."""
    return all(not values.isdisjoint(facts.get(key, ())) for key, values in match.values)


def _most_specific(entries: Iterable[Entry]) -> Entry | None:
    """The heaviest; of equally heavy ones, which the loader leaves only for several values at once, the strictest."""
    return max(
        entries,
        key=lambda entry: (
            entry.match.weight,
            list(Expect).index(entry.expect),
            list(Mode).index(entry.mode),
            -entry.grace_days,
            entry.id,
        ),
        default=None,
    )
