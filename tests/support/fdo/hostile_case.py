"""What an entry of docs/hostile-owner.md consists of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

from enroll.fdo.fault import ErrorCode
from tests.support.fdo.hostile_stage import Stage

MALFORMED, INVALID, INTERNAL = ErrorCode.MESSAGE_BODY, ErrorCode.INVALID_MESSAGE, ErrorCode.INTERNAL
VOUCHER, SIGNATURE, GUID = ErrorCode.INVALID_VOUCHER, ErrorCode.INVALID_OWNER_SIGNATURE, ErrorCode.INVALID_GUID
REUSE = ErrorCode.REUSE_REFUSED
DONE = 71
NOTHING: Mapping[str, Any] = MappingProxyType({})

Arrange: TypeAlias = Callable[[Stage], None]


@dataclass(frozen=True)
class Told:
    """Message 255 of the device.

    Args:
        about: The message that it answers: the hostile one, or its own where what came back was no message.
        code: Of the error.
    """

    about: int
    code: ErrorCode

    def __str__(self) -> str:
        return f"{self.code:d}, of {self.about}"


@dataclass(frozen=True)
class Ending:
    """What a run ends with.

    Args:
        code: Of the error; "waits" where the next run goes on, "onboards" where the scanner comes to no harm.
        told: What the server is told.
        untold: Why it is told nothing.
    """

    code: str
    told: Told | None = None
    untold: str = ""


ONBOARDS = Ending("onboards", untold="all is well")
UNREACHABLE = Ending("waits", untold="there is no connection any more")
SAID_NO = Ending("fdo-error-received", untold="the server knows it")
UNKNOWN = Ending("waits", untold="the server knows it")


def refused(about: int, code: ErrorCode, ends: str = "fdo-refused") -> Ending:
    """The usual end."""
    return Ending(ends, Told(about, code))


def no_message(asked: int) -> Ending:
    """What came back to a message is none of FDO."""
    return refused(asked, INVALID, "protocol-violation")


@dataclass(frozen=True)
class Case:
    """One thing that a hostile server does.

    Args:
        name: Stable.
        message: The first answer that is not what it should be.
        clause: What it breaks.
        what: For people.
        arrange: Makes the stage do it.
        ending: What the run ends with.
        settings: `[fdo]` where it is not the usual one.
        with_rsa: Whether manufacturer and owner have RSA keys.
        requests: At most so many reach the server.
        seconds: At most so many does it take.
    """

    name: str
    message: int
    clause: str
    what: str
    arrange: Arrange
    ending: Ending
    settings: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    with_rsa: bool = False
    requests: int = 24
    seconds: float = 4.0

    @property
    def keeps_both(self) -> bool:
        """Whether the owner may have put the next voucher into use, so that both credentials are kept."""
        return self.message == DONE and self.ending is not ONBOARDS


@dataclass(frozen=True)
class Chapter:
    """Cases of one kind."""

    title: str
    cases: tuple[Case, ...]
