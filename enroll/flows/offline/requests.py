"""The requests that are out: which wait, which are over, and what is left of those that were cut off.

    identities/<name>/offline/<number>/     the journal of one request (`enroll.journal`)

Which certificate is the newer one is decided by when each was asked for, not by when it came.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from enroll.collector import collect
from enroll.errors import StateDamaged
from enroll.flows.base import FlowContext
from enroll.flows.offline import Kept
from enroll.flows.offline.ended import End, Ended, EndedRequests
from enroll.identity import Generation, IdentityName
from enroll.issue import PENDING_LIFETIME
from enroll.journal import Journal, PendingRequest, Step
from enroll.offline_request import key_digest

NUMBER = re.compile(r"[0-9]{8}-[0-9a-f]{6}")

_LOG = logging.getLogger(__name__)


class State(StrEnum):
    """What can become of a request."""

    PREPARED = "prepared"  # its export was cut off; the next export goes on with it
    WAITING = "waiting"
    ACCEPTED = "accepted"  # its answer was found good, and is not in use yet; importing it again goes on
    SUPERSEDED = "superseded"
    EXPIRED = "expired"


HOPEFUL = frozenset({State.WAITING, State.ACCEPTED})  # an answer would be put into use


@dataclass(frozen=True)
class Request:
    """A request that is out.

    Args:
        identity: Whose certificate it asks for.
        number: Its number.
        pending: Its journal.
        kept: What was exported; None where it has not come to that.
        state: What can become of it.
    """

    identity: IdentityName
    number: str
    pending: PendingRequest
    kept: Kept | None
    state: State

    @property
    def key_sha256(self) -> str:
        """Of its public key as SubjectPublicKeyInfo, in hexadecimal; empty where nobody has seen the key yet."""
        return key_digest(self.kept.signed.public_key()) if self.kept else ""

    @property
    def expires_at(self) -> datetime:
        """After this moment its key is destroyed."""
        return self.pending.started_at + PENDING_LIFETIME


class Requests:
    """All requests of a scanner that are carried by hand.

    Args:
        context: The parts of a running enroller.
    """

    def __init__(self, context: FlowContext) -> None:
        self._context = context
        self._identities = context.identities

    def all(self) -> tuple[Request, ...]:
        """Those that are out, the oldest first; what is damaged is left out.

        Raises:
            StateUnreadable: Not for the user who runs this.
        """
        found = [request for identity in IdentityName for request in self.of(identity)]
        return tuple(sorted(found, key=lambda request: request.pending.started_at))

    def of(self, identity: IdentityName) -> tuple[Request, ...]:
        """The same for one identity.

        Raises:
            StateUnreadable: Not for the user who runs this.
        """
        found, current = [], self._current(identity)
        for number in self._identities.requests_by_hand(identity):
            pending = self._journaled(identity, number)
            if pending is not None and not self._is_in_use(identity, pending, current):
                kept = Kept.read(pending.handle)
                found.append(Request(identity, number, pending, kept, self._state(pending, current)))
        return tuple(sorted(found, key=lambda request: request.pending.started_at))

    def ended(self, identity: IdentityName) -> EndedRequests:
        """What became of earlier ones."""
        return EndedRequests(self._identities.directory(identity), self._context.files)

    def journal(self, identity: IdentityName, number: str) -> Journal:
        """The journal of one request."""
        return self._identities.journal_by_hand(identity, number)

    def end(self, request: Request, end: End) -> None:
        """A request is over: what became of it is noted, its folder removed, its key destroyed.

        Raises:
            StateError: The disk refused; it is ended by the next command.
        """
        self.note(request, end)
        self.remove(request.identity, request.number)
        collect(self._identities, self._context.stores)

    def note(self, request: Request, end: End) -> None:
        """Note what became of a request; while it is still there, that comes first."""
        started_at, now = request.pending.started_at, self._context.clock.now()
        self.ended(request.identity).add(Ended(request.number, request.key_sha256, end, started_at, now))

    def remove(self, identity: IdentityName, number: str) -> None:
        """Forget a request. Its record goes first, so that what is left after a crash means nothing."""
        self.journal(identity, number).clear()
        self._context.files.remove(self._folder(identity, number))

    def tidy(self) -> None:
        """End what has expired, and remove what commands that were cut off have left. For the holder of the lock.

        Raises:
            StateError: The disk refused.
        """
        for request in self.all():
            if request.state is State.EXPIRED:
                self.end(request, End.EXPIRED)
        out = {(request.identity, request.number) for request in self.all()}
        for identity in IdentityName:
            for number in self._identities.requests_by_hand(identity):
                if (identity, number) not in out:
                    self.remove(identity, number)

    def _folder(self, identity: IdentityName, number: str) -> Path:
        return self._identities.directory(identity) / "offline" / number

    def _journaled(self, identity: IdentityName, number: str) -> PendingRequest | None:
        try:
            return self.journal(identity, number).read()
        except StateDamaged as error:
            _LOG.warning("The request %s is forgotten: %s", number, error.what)
            return None

    def _current(self, identity: IdentityName) -> Generation | None:
        try:
            return self._identities.current(identity)
        except StateDamaged:
            return None  # enrolling again is the way out of a damaged identity

    def _is_in_use(self, identity: IdentityName, pending: PendingRequest, current: Generation | None) -> bool:
        """Whether the run that put its certificate into use ended before the clean-up."""
        numbers = self._identities.generations(identity) if current and pending.key_uri else ()
        return any(
            self._key_uri(identity, number) == pending.key_uri
            for number in numbers
            if current and number <= current.number
        )

    def _key_uri(self, identity: IdentityName, number: int) -> str | None:
        try:
            return self._identities.key_uri(identity, number)
        except StateDamaged:
            return None  # damaged, and so no reason for anything

    def _state(self, pending: PendingRequest, current: Generation | None) -> State:
        if self._context.clock.now() > pending.started_at + PENDING_LIFETIME:
            return State.EXPIRED
        if current is not None and pending.started_at < self._asked_at(current):
            return State.SUPERSEDED
        if pending.step in (Step.ISSUED, Step.VERIFIED):
            return State.ACCEPTED
        return State.WAITING if pending.step is Step.SENT and pending.reason else State.PREPARED

    def _asked_at(self, current: Generation) -> datetime:
        """When the certificate in use was asked for; of what came over a network, when it came."""
        digest = key_digest(current.certificate.public_key())
        by_hand = [ended.started_at for ended in self.ended(current.identity).read() if ended.key_sha256 == digest]
        return by_hand[0] if by_hand else current.committed_at
