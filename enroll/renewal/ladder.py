"""When to try again after failures: 1, 10 and 100 minutes, then daily; more often near the end of a certificate.

There is no last rung: a CA may be away for a month, and a scanner that has given up is not found before its images
are. Daily means a tenth more or less, each scanner otherwise: after an outage of a whole site they come apart.

Near the end there is one attempt between 2 days and 1 day before it, and one until 12, 6, 2 and 1 hours before; each
scanner at a moment of its own in each of these spans. Then one on the day after the end, and daily again. The rungs in
minutes are never longer than half of what is left: certificates may live for an hour.

One attempt in a span is enough, whatever brought it: two identities that go to one server may end half an hour apart.
And where such a moment is near, the daily attempt waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from enroll.renewal.spread import own_number

RUNGS = (timedelta(minutes=1), timedelta(minutes=10), timedelta(minutes=100))
DAILY = timedelta(days=1)
MORE_OR_LESS = 0.1
LAST_SPANS = (
    timedelta(days=2),
    timedelta(days=1),
    timedelta(hours=12),
    timedelta(hours=6),
    timedelta(hours=2),
    timedelta(hours=1),
)  # before the end
_LAST_HOURS = timedelta(hours=12)
# What is outside is reckoned with as if it were there: no certificate and no clock that is believed gets near.
_EARLIEST, _LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


def next_attempt(last: datetime, failures: int, end: datetime | None, *names: str) -> datetime:
    """When to try again; always later than `last`, and at most a day and a tenth.

    Args:
        last: When it was tried last.
        failures: How often in a row it has failed, this time included: at least 1.
        end: Of the certificate in use; None where there is none.
        names: Serial number of the scanner, and what is tried.
    """
    last = _bounded(last)
    end = None if end is None else _bounded(end)
    if failures <= len(RUNGS):
        wait = longest = RUNGS[failures - 1]
        if end is not None and last < end:
            wait = longest = min(wait, max((end - last) / 2, RUNGS[0]))
    else:
        wait = DAILY * (1 - MORE_OR_LESS + 2 * MORE_OR_LESS * own_number("daily", str(failures), *names))
        longest = DAILY * (1 + MORE_OR_LESS)
    moments = _moments(last, end, own_number("end", *names)) if end is not None else ()
    return min((moment for moment in moments if moment <= last + longest), default=last + wait)


def _moments(last: datetime, end: datetime, own: float) -> Iterator[datetime]:
    """Those near the end at which this scanner tries in any case: one in each span that has had no attempt yet.

    In the last twelve hours, one that came less than half a span before the moment serves as well.
    """
    for longer, shorter in pairwise(LAST_SPANS):
        length = longer - shorter
        moment = end - shorter - length * own
        served_from = min(end - longer, moment - length / 2) if longer <= _LAST_HOURS else end - longer
        if last < served_from:
            yield moment
    if last < end:
        yield end + DAILY * own


def _bounded(moment: datetime) -> datetime:
    return min(max(moment, _EARLIEST), _LATEST)
