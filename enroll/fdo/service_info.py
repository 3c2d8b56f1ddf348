"""Service info: what device and owner say to each other once the tunnel is open: FDO 1.1, 3.8 and 5.6.

A value is one CBOR item, cut into pieces that fit into messages: the same key again and again. `Outbox` cuts, `Inbox`
puts together, `modules` says who on the device speaks which words. What could give control of a scanner to somebody
(fdo.command, fdo.download, fdo.upload, fdo.wget) does not exist here; a module that is not known is answered inactive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from enroll.fdo import cbor
from enroll.fdo.to2_messages import ServiceInfo

VALUE_LIMIT = 256 * 1024  # bytes of one value, put together
TOTAL_LIMIT = 4 << 20  # bytes of service info of one session
ROUNDS_LIMIT = 2000  # exchanges of 68 and 69


@dataclass(frozen=True)
class Statement:
    """One complete piece of service info.

    Args:
        module: Such as "fdo.csr".
        name: Such as "active".
        value: What is said.
    """

    module: str
    name: str
    value: cbor.Encodable


class DeviceModule(Protocol):
    """One module of the device."""

    name: str

    def begin(self) -> Sequence[Statement]:
        """What is said when the owner activates the module, after `active`."""

    def receive(self, name: str, value: cbor.Item) -> Sequence[Statement]:
        """What is said to something that the owner says.

        Raises:
            Fault: It is not what this module allows now.
        """

    @property
    def is_complete(self) -> bool:
        """Whether everything has been said; the session must not end before."""


class Outbox:
    """What waits to be sent, cut into messages.

    Args:
        size: Bytes of the largest message that the other side takes, its own encoding included.
    """

    def __init__(self, size: int) -> None:
        raise NotImplementedError

    def put(self, statements: Sequence[Statement]) -> None:
        """Say something after what waits already."""
        raise NotImplementedError

    def take(self) -> tuple[bool, tuple[ServiceInfo, ...]]:
        """Whether there is more than fits into the next message; and what goes into it."""
        raise NotImplementedError


class Inbox:
    """Puts the pieces together again, and counts them."""

    def put(self, info: Sequence[ServiceInfo], *, is_more: bool) -> Sequence[tuple[str, str, cbor.Item]]:
        """The statements that are complete now: module, name and value.

        Raises:
            Fault: Too much, or a value that is not complete when another one begins or the message is the last.
        """
        raise NotImplementedError


class Modules:
    """The modules of a device: who answers what.

    Args:
        known: All of them, `devmod` not included.
    """

    def __init__(self, known: Sequence[DeviceModule]) -> None:
        raise NotImplementedError

    def receive(self, module: str, name: str, value: cbor.Item) -> Sequence[Statement]:
        """What is said to it. `active` of an unknown module is answered with false, and the rest of it is ignored.

        Raises:
            Fault: It is for a module that is not active.
        """
        raise NotImplementedError
