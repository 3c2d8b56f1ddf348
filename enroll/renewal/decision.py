"""Renew now, or wait until when and why: one pure function of everything that is known.

Each thing that speaks against now says until when it does; the last of them decides. Nothing speaks against it for
ever, so a certificate is never given up, whatever has failed before and for how long.

| speaks against now         | until                                                                                |
|----------------------------|--------------------------------------------------------------------------------------|
| not due                    | `enroll.renewal.spread`                                                              |
| it has just come           | a quarter of what was left of its life then, at most a day; where something is wrong |
|                            | with it, a quarter of its lifetime, at most 100 minutes                              |
| the CA has not decided yet | the moment that it named                                                             |
| the attempt before failed  | `enroll.renewal.ladder`                                                              |
| the server gives no answer | the same, or the moment that it named; for all identities that go there              |
| the clock is doubted       | an hour after the attempt before, whatever came of it                                |
| the maintenance window     | its next opening; it does not count where a tenth of the lifetime or two days are left |

An attempt in the future was noted by a clock that was wrong then, and speaks against nothing; so is a certificate that
came in the future. When it is due does not matter where something is wrong with it; when it came does: the next may be
as bad, be it for a disk that damages what is written or a CA that withdraws what it issues.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from enroll.clock_sense import ATTEMPTS_IN_DOUBT
from enroll.renewal.ladder import RUNGS, next_attempt
from enroll.renewal.silence import Silence
from enroll.renewal.spread import own_number
from enroll.renewal.window import MaintenanceWindow

_PAUSE_PART, _LONGEST_PAUSE = 0.25, timedelta(days=1)  # of what is left, after a certificate has come
_URGENT_PART, _URGENT_REST = 0.1, timedelta(days=2)  # of the lifetime; less than either, and no window counts


class Reason(StrEnum):
    """Why now."""

    DUE = "due"
    AT_ONCE = "at-once"
    WANTED = "wanted"


class Obstacle(StrEnum):
    """Why not now."""

    NOT_DUE = "not-due"
    RECENT = "just-renewed"
    UNDECIDED = "ca-decides"
    FAILED = "failed-before"
    SILENT = "server-silent"
    DOUBT = "clock-suspect"
    CLOSED = "outside-window"


@dataclass(frozen=True)
class Life:
    """Of the certificate in use.

    Args:
        due: When it is to be renewed.
        begin: Its begin, or that of its key.
        end: Its end, or that of its key.
        came: When it came, by the best estimate of then, or what came later and is damaged; None where that is not
            known.
    """

    due: datetime
    begin: datetime
    end: datetime
    came: datetime | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of one identity.

    Args:
        now: The time, by the best estimate.
        names: Serial number of the scanner, and the identity.
        life: Of the certificate in use; None where there is none, so that the first one is asked for.
        at_once: Whether something is wrong with the certificate in use, so that it does not matter when it is due.
        waits_until: When the CA wants to be asked again about a request that it has; None where it has none.
        failures: How often in a row getting a certificate has failed.
        failed_at: When it failed last.
        silence: Of the server, where it gave no answer.
        window: In which the hospital wants renewals.
        doubted: Whether the clock of the machine is not believed.
    """

    now: datetime
    names: tuple[str, str]
    life: Life | None = None
    at_once: bool = False
    waits_until: datetime | None = None
    failures: int = 0
    failed_at: datetime | None = None
    silence: Silence | None = None
    window: MaintenanceWindow | None = None
    doubted: bool = False


@dataclass(frozen=True)
class Renew:
    """Now."""

    why: Reason


@dataclass(frozen=True)
class Wait:
    """Not before `until`."""

    until: datetime
    why: Obstacle


def decide(facts: Facts) -> Renew | Wait:
    """Whether to ask for a certificate now."""
    now, life = facts.now, facts.life
    until, why = max(_obstacles(facts), key=lambda obstacle: obstacle[0], default=(now, Obstacle.NOT_DUE))
    if facts.window is not None and life is not None and not facts.at_once:
        opens = facts.window.opens(until, now, own_number("window", *facts.names))
        opens = min(opens, life.end - max((life.end - life.begin) * _URGENT_PART, _URGENT_REST))
        if opens > max(until, now):
            return Wait(opens, Obstacle.CLOSED)
    if until > now:
        return Wait(until, why)
    return Renew(Reason.WANTED if life is None else Reason.DUE if life.due <= now else Reason.AT_ONCE)


def _obstacles(facts: Facts) -> Iterator[tuple[datetime, Obstacle]]:
    now, end = facts.now, facts.life.end if facts.life else None
    if facts.life is not None:
        yield from _of_life(facts.life, facts)
    if facts.waits_until is not None:
        yield facts.waits_until, Obstacle.UNDECIDED
    if facts.failures and facts.failed_at is not None and facts.failed_at <= now:
        why = Obstacle.FAILED if facts.silence is None else Obstacle.SILENT
        yield next_attempt(facts.failed_at, facts.failures, end, *facts.names), why
        if facts.doubted:
            yield facts.failed_at + ATTEMPTS_IN_DOUBT, Obstacle.DOUBT
    if facts.silence is not None and facts.silence.at <= now:
        yield facts.silence.ask_again_at(end, facts.names[0]), Obstacle.SILENT
        if facts.doubted:
            yield facts.silence.at + ATTEMPTS_IN_DOUBT, Obstacle.DOUBT


def _of_life(life: Life, facts: Facts) -> Iterator[tuple[datetime, Obstacle]]:
    if not facts.at_once:
        yield life.due, Obstacle.NOT_DUE
    if life.came is None or life.came > facts.now:
        return
    if facts.at_once:
        yield life.came + min((life.end - life.begin) * _PAUSE_PART, RUNGS[-1]), Obstacle.RECENT
    else:
        yield life.came + min((life.end - life.came) * _PAUSE_PART, _LONGEST_PAUSE), Obstacle.RECENT
    if facts.doubted:
        yield life.came + ATTEMPTS_IN_DOUBT, Obstacle.DOUBT
