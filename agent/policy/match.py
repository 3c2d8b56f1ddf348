"""Which entries of a policy speak of an instance, and which of them has the say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import TypeAlias

from agent.dicom.report import InstanceReport
from agent.policy.judgement import Receipt
from agent.policy.model import Entry, Expect, Match, MatchKey, Migration, Policy
from agent.policy.verdicts import Mode

_Facts: TypeAlias = Mapping[MatchKey, frozenset[str]]


@dataclass(frozen=True, kw_only=True)
class Applicable:
    """What of a policy speaks of an instance on the day of its receipt.

    Args:
        day: The day, in the policy's time zone.
        in_force: The most specific entry that applies.
        to_come: The most specific entry that will expect a signature.
        device: The entry that lists the device. A device is listed before its signatures are expected, so that its
            owner sees that it signs properly by then; and no more when the entry has ended.
        migration: The migration of which the instance is a part.
    """

    day: date
    in_force: Entry | None = None
    to_come: Entry | None = None
    device: Entry | None = None
    migration: Migration | None = None


def applicable(report: InstanceReport, receipt: Receipt, policy: Policy) -> Applicable:
    """What of a policy speaks of an instance.

    Args:
        report: What was found.
        receipt: What the recipient observed.
        policy: The policy.
    """
    day = policy.day(receipt.received_at)
    facts = _facts(report, receipt)
    entries = [entry for entry in policy.entries if _matches(entry.match, facts) and not entry.period.ended(day)]
    begun = [entry for entry in entries if entry.period.begun(day)]
    coming = [entry for entry in entries if not entry.period.begun(day)]
    migrations = (m for m in policy.migrations if day in m.received and _matches(m.match, facts))
    return Applicable(
        day=day,
        in_force=_most_specific(begun),
        to_come=_most_specific(entry for entry in coming if entry.expects_signature),
        device=_most_specific(e for e in begun if e.is_device) or _most_specific(e for e in coming if e.is_device),
        migration=next(migrations, None),
    )


def _facts(report: InstanceReport, receipt: Receipt) -> _Facts:
    """What an instance can be matched by. All but the sending AE is what the instance says of itself."""
    equipment = report.equipment
    return {
        MatchKey.DEVICE_UID: frozenset((equipment.device_uid,)),
        MatchKey.UDI: frozenset(equipment.udi),
        MatchKey.SERIAL: frozenset((equipment.device_serial,)),
        MatchKey.AE: frozenset((equipment.station_ae, receipt.sending_ae)),
        MatchKey.SENDING_AE: frozenset((receipt.sending_ae,)),
        MatchKey.STATION: frozenset((equipment.station,)),
        MatchKey.MODEL: frozenset((equipment.model,)),
        MatchKey.SOFTWARE_VERSION: frozenset(equipment.software_versions),
        MatchKey.MANUFACTURER: frozenset((equipment.manufacturer,)),
        # A reader may take any of several values, and any case, for the modality.
        MatchKey.MODALITY: frozenset(value.strip().upper() for value in equipment.modality.split("\\")),
        MatchKey.SOP_CLASS: frozenset((report.sop_class_uid,)),
        MatchKey.INSTITUTION: frozenset((equipment.institution,)),
        MatchKey.DEPARTMENT: frozenset((equipment.department,)),
        MatchKey.CONTENT: frozenset(map(str, report.content)),
    }


def _matches(match: Match, facts: _Facts) -> bool:
    """Whether an instance has one of the values for each key."""
    return all(not values.isdisjoint(facts[key]) for key, values in match.values)


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
