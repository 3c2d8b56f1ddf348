"""The last failed attempt of each identity to get a certificate: what `scanseal status` says later.

    identities/<name>/last-failure.json

It is there from the first failure on, and gone with the next answer of a CA that is none: a certificate, or the word
that the request has to wait. A run that asks nobody leaves it as it is. Two enrollers at once are no failure. What a
command line shows may be what is kept: errors hold no secret.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from enroll.clock import Clock
from enroll.errors import EnrollerBusy, EnrollmentError, ScansealError, StateDamaged, StateError, StateUnreadable
from enroll.foreign import printable
from enroll.identity import IdentityName, IdentityStore
from enroll.record import damaged, read_record, read_time, write_record
from enroll.renewal.ladder import RUNGS
from enroll.statefile import GROUP_DIRECTORY

TEXT_LIMIT = 600  # characters
MOST_ATTEMPTS = 999_999_999
_FILE_NAME = "last-failure.json"
_FILE_MODE = 0o640
_FIELDS = ("at", "flow", "code", "what", "remedy", "who_must_act", "next", "attempts", "since", "in_a_row")
_COUNT = re.compile(r"[1-9][0-9]{0,8}")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """An attempt that failed.

    Args:
        at: When.
        flow: The way that was tried.
        code: Of the error, as all that follows.
        what: What happened.
        remedy: What whoever has to act can do.
        who_must_act: A role.
        next: What scanseal does by itself.
        attempts: How many in a row have failed with this code.
        since: When the first of these failed.
        in_a_row: How many in a row have failed, whatever with; see `enroll.renewal.ladder`. Those that no server saw
            count as few: somebody may have put right what was wrong here.
    """

    at: datetime
    flow: str
    code: str
    what: str
    remedy: str
    who_must_act: str
    next: str
    attempts: int
    since: datetime
    in_a_row: int


@dataclass
class Attempt:
    """What is known of an attempt while it lasts.

    Args:
        is_answered: Whether a server has said something, or the certificate is there that it said before.
    """

    is_answered: bool = True


class Failures:
    """What is kept of failures.

    Args:
        identities: The identity directory.
    """

    def __init__(self, identities: IdentityStore) -> None:
        self._identities = identities
        self._files = identities.files

    def last(self, name: IdentityName) -> Failure | None:
        """The last failure; None where the last attempt did not fail, or there was none.

        Raises:
            StateError: The record cannot be read.
        """
        path = self._path(name)
        if not self._files.exists(path):
            return None
        values = read_record(path, _FIELDS, self._files)
        if not all(_COUNT.fullmatch(values[field]) for field in ("attempts", "in_a_row")):
            raise damaged(path)
        return Failure(
            at=read_time(values["at"], path),
            flow=values["flow"],
            code=values["code"],
            what=values["what"],
            remedy=values["remedy"],
            who_must_act=values["who_must_act"],
            next=values["next"],
            attempts=int(values["attempts"]),
            since=read_time(values["since"], path),
            in_a_row=int(values["in_a_row"]),
        )

    @contextmanager
    def noted(self, name: IdentityName, flow: str, clock: Clock) -> Iterator[Attempt]:
        """Keep what an attempt fails with, and forget it after one that does not, unless nobody was asked.

        Whatever goes wrong with the record, the error of the attempt is the one that is raised.
        """
        attempt = Attempt()
        try:
            yield attempt
        except (EnrollerBusy, StateUnreadable):
            raise  # nothing was tried; or by a user whose files the service could not read
        except ScansealError as error:
            with _only_logged(name):
                self._keep(name, _failure(error, flow, self._before(name), clock.now()))
            raise
        if attempt.is_answered:
            with _only_logged(name):
                self._files.remove(self._path(name))

    def _before(self, name: IdentityName) -> Failure | None:
        try:
            return self.last(name)
        except StateDamaged:
            return None

    def _keep(self, name: IdentityName, failure: Failure) -> None:
        self._files.check_owner(self._identities.root)
        self._files.make_directory(self._identities.directory(name), GROUP_DIRECTORY)
        values = {field: str(value) for field, value in asdict(failure).items()}
        write_record(self._path(name), values, self._files, _FILE_MODE)

    def _path(self, name: IdentityName) -> Path:
        return self._identities.directory(name) / _FILE_NAME


def _failure(error: ScansealError, flow: str, before: Failure | None, now: datetime) -> Failure:
    in_a_row = min(before.in_a_row + 1, MOST_ATTEMPTS) if before else 1
    before = before if before and before.code == error.code else None
    return Failure(
        at=now,
        flow=flow,
        code=error.code,
        what=printable(error.what, TEXT_LIMIT),
        remedy=printable(error.remedy, TEXT_LIMIT),
        who_must_act=printable(error.who_must_act),
        next=printable(error.what_next, TEXT_LIMIT),
        attempts=min(before.attempts + 1, MOST_ATTEMPTS) if before else 1,
        since=before.since if before else now,
        in_a_row=in_a_row if isinstance(error, EnrollmentError) else min(in_a_row, len(RUNGS)),
    )


@contextmanager
def _only_logged(name: IdentityName) -> Iterator[None]:
    try:
        yield
    except StateError as error:
        _LOG.warning("What became of the last attempt of %s cannot be kept: %s", name, error)
