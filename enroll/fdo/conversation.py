"""One run of a protocol: what breaks it is told to the other side, and becomes an error of ours."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from enroll.errors import CertificateRefused, ProtocolViolation, ScansealError, ServerUnreachable
from enroll.fdo.fault import ErrorCode, Fault
from enroll.fdo.messages import ErrorMessage, MessageType
from enroll.fdo.transport import Channel, ErrorReceived

_TOLD = "The device does not go on."  # why is our business, unless it is a fault of the other side


class Conversation:
    """A run, as a context manager: whatever leaves its block is reported first (message 255).

    Args:
        channel: To the other side.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._last = 0  # the number of the last message; what is reported is about that one

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Fault):
            self._report(error.code, error.what)
            raise ProtocolViolation(
                f"{self._channel.where} breaks the protocol in message {self._last}: {error.what}",
                remedy="Nothing was changed. Ask the operator of the server; somebody may be in between.",
                code="fdo-refused",
            ) from error
        if isinstance(error, ProtocolViolation | CertificateRefused):
            self._report(ErrorCode.INVALID_MESSAGE, error.what)
        elif isinstance(error, ScansealError) and not isinstance(error, ErrorReceived | ServerUnreachable):
            self._report(ErrorCode.INTERNAL, _TOLD)

    def ask(self, number: MessageType, body: bytes) -> bytes:
        """The body of the answer.

        Raises:
            EnrollmentError: See `Channel.exchange`.
        """
        self._last = number
        received = self._channel.exchange(number, body)
        self._last = received.number
        return received.body

    def _report(self, code: ErrorCode, text: str) -> None:
        self._channel.report(ErrorMessage(code, self._last, text))
