"""Retry-After: how long a server wants to be left alone (RFC 9110 10.2.3)."""

from __future__ import annotations

import email.utils
import re
from datetime import UTC, datetime, timedelta


def retry_after(text: str, now: datetime) -> timedelta | None:
    """What the header says, in seconds or as a date; None where there is no usable one.

    Args:
        text: The header; empty where it is missing.
        now: The time.
    """
    text = text.strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return timedelta(seconds=int(text))
    try:
        # A date without a zone is in UTC.
        moment = email.utils.parsedate_to_datetime(text)
        return max((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now, timedelta())
    except (ValueError, OverflowError):
        return None
