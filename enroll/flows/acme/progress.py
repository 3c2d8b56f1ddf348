"""What an order needs to go on after a restart; text in the journal.

    URL PROFILE ANSWERED     PROFILE may be empty; ANSWERED is missing where the challenge was not answered

No part has a space in it. Earlier versions wrote no ANSWERED.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

# RFC 8555 8.2: to respond again is to ask for another validation. While the CA is at the first one, that gains nothing,
# and pebble before 2.7 lets the second one overrule the first, after what was shown has been cleaned up.
ANSWER_AGAIN_AFTER = timedelta(hours=1)


@dataclass(frozen=True)
class Progress:
    """How far an order has come.

    Args:
        url: Of the order.
        profile: What it was placed for; empty for the default of the CA.
        answered: When its challenge was answered; None where it was not, as far as is known.
    """

    url: str
    profile: str = ""
    answered: datetime | None = None

    @classmethod
    def read(cls, text: str) -> Self:
        """What `text` says; what is not ours names no order of the CA."""
        url, _, rest = text.partition(" ")
        profile, _, answered = rest.partition(" ")
        try:
            time = datetime.fromisoformat(answered) if answered else None
        except ValueError:
            return cls(url, profile)
        return cls(url, profile, time if time is not None and time.tzinfo is not None else None)

    @property
    def text(self) -> str:
        """For the journal."""
        return f"{self.url} {self.profile}" + (f" {self.answered.isoformat()}" if self.answered else "")

    def is_answered(self, now: datetime) -> bool:
        """Whether the challenge was answered so lately that the CA may be at it."""
        # With a clock that was set back, an answer to come was given nobody knows when.
        return self.answered is not None and timedelta() <= now - self.answered < ANSWER_AGAIN_AFTER
