"""What the signatures of one instance are judged by."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from agent.policy.algorithms import BUILT_IN_RULES
from agent.policy.judgement import Receipt
from agent.policy.model import AlgorithmRule, Entry, Policy


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
