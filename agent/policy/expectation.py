"""Whether a signature is expected (step 7 of an evaluation).

The day of receipt decides, never a date in the instance: otherwise whoever strips a signature would only have to
backdate the image.
"""

from __future__ import annotations

from dataclasses import dataclass

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
        sources: Whether the sources of a derived instance must be verified.
    """

    state: ExpectationAxis
    missing: Reason
    sources: bool = False


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
    if entry.period.first is not None and (passed := (day - entry.period.first).days) < entry.grace_days:
        why = f"a signature is expected; {entry.grace_days - passed} days of grace are left."
        return Expectation(ExpectationAxis.IN_GRACE, Reason(Verdict.UNSIGNED_IN_GRACE, why, entry.id))
    sources = entry.expect is Expect.SIGNED_WITH_SOURCES
    violation = Reason(Verdict.UNSIGNED_VIOLATION, "a signature is expected.", entry.id)
    return Expectation(ExpectationAxis.VIOLATED, violation, sources)


def _before_any(coming: Entry | None) -> Expectation:
    if coming is None:
        return Expectation(ExpectationAxis.NOT_COVERED, Reason(Verdict.UNSIGNED_NOT_COVERED, "no rule speaks of it."))
    why = f"a signature is expected from {coming.period.first} on."
    return Expectation(ExpectationAxis.NOT_YET, Reason(Verdict.UNSIGNED_NOT_YET_EXPECTED, why, coming.id))
