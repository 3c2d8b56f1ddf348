"""Runs of the protocols, and who is in which: FDO 1.1, 4.3. NOT FOR PRODUCTION.

A `Run` answers the messages of one device or owner, in their order; it knows nothing of HTTP. `Services` finds the run
that a message belongs to by its token, and turns what goes wrong into message 255.
"""

from __future__ import annotations

import logging
import secrets
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from enroll.clock import Clock
from enroll.errors import ScansealError
from enroll.fdo.fault import ErrorCode, Fault
from enroll.fdo.messages import ErrorMessage, MessageType

RUNS_LIMIT = 256  # at the same time
RUN_LIFETIME = 600.0  # seconds

_LOG = logging.getLogger(__name__)


class Run(ABC):
    """One run of a protocol.

    Args:
        first: The message that it begins with.
    """

    def __init__(self, first: MessageType) -> None:
        self.expected: MessageType | None = first

    @property
    @abstractmethod
    def answers(self) -> Mapping[MessageType, Callable[[bytes], bytes]]:
        """What answers which message; each sets `expected` to the next one, or to None at the end."""

    def answer(self, number: int, body: bytes) -> bytes:
        """The body of the answer.

        Raises:
            Fault: The message does not come now, or is not what it has to be.
            ScansealError: This side cannot go on.
        """
        if self.expected is None or number != self.expected:
            raise Fault(f"Message {number} does not come now.")
        return self.answers[self.expected](body)


@dataclass(frozen=True)
class Reply:
    """What goes back.

    Args:
        number: Of the message.
        body: One CBOR item; empty after a message 255 of the other side.
        token: For the messages that follow; "" where none do.
    """

    number: int
    body: bytes
    token: str = ""


@dataclass(frozen=True)
class _Open:
    run: Run
    end: float  # on the monotonic clock
    guard: threading.Lock = field(default_factory=threading.Lock)


class Services:
    """All protocols that are served at one address.

    Args:
        begin: Makes a run, by the message that it begins with.
        clock: Ends runs that take too long.
    """

    def __init__(self, begin: Mapping[MessageType, Callable[[], Run]], clock: Clock) -> None:
        self._begin = begin
        self._clock = clock
        self._guard = threading.Lock()
        self._open: OrderedDict[str, _Open] = OrderedDict()

    def answer(self, number: int, token: str, body: bytes) -> Reply:
        """Answer a message; one that goes wrong ends its run.

        Args:
            number: Of the message.
            token: That came with it; "" where none did.
            body: Of the message.
        """
        if number == MessageType.ERROR:
            self._close(token)
            _LOG.info("The other side ends a run: %s", ErrorMessage.read(body).text)
            return Reply(number, b"")
        try:
            return self._answer(number, token, body)
        except Fault as error:
            failure = ErrorMessage(error.code, number, error.what)
        except ScansealError as error:
            _LOG.warning("Message %d cannot be answered: %s", number, error.what)
            failure = ErrorMessage(ErrorCode.INTERNAL, number, "The server cannot go on; its log says why.")
        return Reply(MessageType.ERROR, failure.encode())

    def _answer(self, number: int, token: str, body: bytes) -> Reply:
        begin = next((begin for first, begin in self._begin.items() if first == number), None)
        token, known = self._found(token) if begin is None else self._opened(begin())
        if not known.guard.acquire(blocking=False):
            raise Fault("A message of this run is being answered.", ErrorCode.INVALID_TOKEN)
        try:
            answer = known.run.answer(number, body)
        except (Fault, ScansealError):
            self._close(token)
            raise
        finally:
            known.guard.release()
        if known.run.expected is None:
            self._close(token)
        return Reply(number + 1, answer, token)

    def _opened(self, run: Run) -> tuple[str, _Open]:
        """A new run; where there are too many, the oldest gives way."""
        token, now = secrets.token_urlsafe(24), self._clock.monotonic()
        known = _Open(run, now + RUN_LIFETIME)
        with self._guard:
            for old in [name for name, each in self._open.items() if each.end <= now]:
                del self._open[old]
            if len(self._open) >= RUNS_LIMIT:
                self._open.popitem(last=False)
            self._open[token] = known
        return token, known

    def _found(self, token: str) -> tuple[str, _Open]:
        with self._guard:
            known = self._open.get(token)
        if known is None or known.end <= self._clock.monotonic():
            raise Fault("There is no such run, or no longer.", ErrorCode.INVALID_TOKEN)
        return token, known

    def _close(self, token: str) -> None:
        with self._guard:
            self._open.pop(token, None)
