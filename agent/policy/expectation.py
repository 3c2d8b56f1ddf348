"""Whether a signature is expected (step 7 of an evaluation).

The day of receipt decides, never a date in the instance: otherwise whoever strips a signature would only have to
backdate the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from agent.policy.judgement import ExpectationAxis
from agent.policy.match import Applicable
from agent.policy.model import Entry, Expect
from agent.policy.reason import Reason
from agent.policy.verdicts import Verdict


@dataclass(frozen=True)
class Expectation:
    """What is expected of an instance.

    Args:
        state: How things are if there is no signature.
        missing: What follows then.
    """

    state: ExpectationAxis
    missing: Reason


NOTHING = Expectation(ExpectationAxis.NONE, Reason(Verdict.UNSIGNED, "there is no signature, and no policy."))


def expectation(applicable: Applicable) -> Expectation:
    """What is expected of an instance.

    Args:
        applicable: What of the policy speaks of it on the day of its receipt.
    """
    entry, day = applicable.in_force, applicable.day
    if (migration := applicable.migration) is not None:
        why = f"part of a migration, until {migration.received.last}."
        return Expectation(ExpectationAxis.EXEMPT, Reason(Verdict.UNSIGNED_EXEMPT, why, migration.id))
    if entry is None:
        return _before_any(applicable.to_come)
    if not entry.expects_signature:
        until = f" until {entry.period.last}" if entry.period.last else ""
        why = f"no signature is expected{until}{f': {entry.reason}' if entry.reason else ''}."
        return Expectation(ExpectationAxis.EXEMPT, Reason(Verdict.UNSIGNED_EXEMPT, why, entry.id))
    if left := _days_of_grace(entry, day):
        why = f"a signature is expected; {left} days of grace are left."
        return Expectation(ExpectationAxis.IN_GRACE, Reason(Verdict.UNSIGNED_IN_GRACE, why, entry.id))
    violation = Reason(Verdict.UNSIGNED_VIOLATION, "a signature is expected.", entry.id)
    return Expectation(ExpectationAxis.VIOLATED, violation)


def sources_demanded(applicable: Applicable) -> bool:
    """Whether the sources of a derived or synthetic instance must be verified; an exemption does not lift that.

    Args:
        applicable: What of the policy speaks of it on the day of its receipt.
    """
    entry = applicable.of_content
    if entry is None or applicable.migration is not None:
        return False
    return entry.expect is Expect.SIGNED_WITH_SOURCES and not _days_of_grace(entry, applicable.day)


def _days_of_grace(entry: Entry, day: date) -> int:
    """How many are left."""
    return max(0, entry.grace_days - (day - entry.period.first).days) if entry.period.first else 0


def _before_any(coming: Entry | None) -> Expectation:
    if coming is None:
        return Expectation(ExpectationAxis.NOT_COVERED, Reason(Verdict.UNSIGNED_NOT_COVERED, "no rule speaks of it."))
    why = f"a signature is expected from {coming.period.first} on."
    return Expectation(ExpectationAxis.NOT_YET, Reason(Verdict.UNSIGNED_NOT_YET_EXPECTED, why, coming.id))
