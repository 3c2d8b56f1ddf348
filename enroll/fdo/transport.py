"""How messages travel: HTTP POST of one CBOR item, and back: FDO 1.1, 4.3 "HTTP".

    channel = HttpChannel(base_url, trust, clock, timeout)
    answer = channel.exchange(MessageType.TO1_HELLO_RV, body)

What the other side says in message 255 comes out as `ErrorReceived`. The token of the first answer goes along with all
that follows; each run of a protocol has a channel of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from enroll.errors import EnrollmentRefused
from enroll.fdo.messages import ErrorMessage, MessageType


@dataclass(frozen=True)
class Received:
    """What came back.

    Args:
        number: Of the message, as the header says.
        body: One CBOR item, not looked at.
    """

    number: int
    body: bytes


class ErrorReceived(EnrollmentRefused):
    """The other side says that something is wrong (message 255).

    Args:
        said: The message.
        where: Address of the other side.
    """

    def __init__(self, said: ErrorMessage, where: str) -> None:
        super().__init__(f"{where} answers with the error {said.code}.", code="fdo-error-received")
        self.said = said


class Channel(Protocol):
    """The way to one server, for one run of a protocol."""

    @property
    def where(self) -> str:
        """Its address, for people."""

    def exchange(self, number: MessageType, body: bytes) -> Received:
        """Send a message and wait for the answer.

        Raises:
            ErrorReceived: Message 255 came back.
            ServerUnreachable: No answer.
            ProtocolViolation: It is no answer of this protocol, or breaks a limit.
        """

    def report(self, error: ErrorMessage) -> None:
        """Tell the other side what is wrong (message 255). Whether it arrives does not matter."""
