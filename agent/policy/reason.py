"""One step's contribution to a judgement, and what every step knows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from agent.dicom.report import Fact
from agent.policy.algorithms import BUILT_IN_RULES
from agent.policy.judgement import Receipt
from agent.policy.model import AlgorithmRule, Entry, Policy
from agent.policy.verdicts import Action, Verdict


@dataclass(frozen=True)
class Reason:
    """A verdict with what led to it.

    Args:
        verdict: The verdict.
        why: For people, a sentence.
        rule_id: The entry of the policy that decided, if one did.
        enforced: What follows in the mode enforce, where it is not the default.
    """

    verdict: Verdict
    why: str
    rule_id: str = ""
    enforced: Action | None = None


@dataclass(frozen=True, kw_only=True)
class Context:
    """What signatures are judged by.

    Args:
        policy: None where no file was given.
        device: The entry that lists the device of the instance.
        receipt: What the recipient observed.
        now: When the evaluation takes place, aware.
    """

    policy: Policy | None
    device: Entry | None
    receipt: Receipt
    now: datetime

    @property
    def algorithms(self) -> tuple[AlgorithmRule, ...]:
        """The rules for algorithms that apply."""
        return BUILT_IN_RULES if self.policy is None else self.policy.algorithms

    def begin(self, day: date) -> datetime:
        """The moment in which a day begins, in the policy's time zone."""
        return datetime.combine(day, time(), UTC) if self.policy is None else self.policy.begin(day)


def codes_of(fact: Fact) -> str:
    """The codes of what weighs heaviest in a fact, in brackets; the report has the words."""
    codes = dict.fromkeys(finding.code for finding in fact.findings if finding.outcome is fact.outcome)
    return f" ({', '.join(codes)})" if codes else ""
