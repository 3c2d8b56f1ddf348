"""One step's contribution to a judgement."""

from __future__ import annotations

from dataclasses import dataclass

from agent.dicom.report import Fact
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


def codes_of(fact: Fact) -> str:
    """The codes of what weighs heaviest in a fact, in brackets; the report has the words."""
    codes = dict.fromkeys(finding.code for finding in fact.findings if finding.outcome is fact.outcome)
    return f" ({', '.join(codes)})" if codes else ""
