"""Service info: what device and owner say to each other once the tunnel is open: FDO 1.1, 3.8 and 5.6.

A value is one CBOR item, cut into pieces that fit into messages: the same key again and again. `Outbox` cuts, `Inbox`
puts together, `Modules` says who on the device speaks which words. What could give control of a scanner to somebody
(fdo.command, fdo.download, fdo.upload, fdo.wget) does not exist here; a module that is not known is answered inactive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from enroll.fdo import cbor
from enroll.fdo.fault import Fault
from enroll.fdo.messages import MESSAGE_LIMIT
from enroll.fdo.to2_messages import LEAST_SERVICE_INFO_SIZE, ServiceInfo

VALUE_LIMIT = 64 * 1024  # bytes of the values that one key has, one after the other, put together
TOTAL_LIMIT = 1 << 20  # bytes of service info of one session
PIECES_LIMIT = 8 * 1024  # pieces of one session, and values: each may be answered
ROUNDS_LIMIT = 2000  # exchanges of 68 and 69
ACTIVE: Final = "active"

# Bytes around what is said, at most: the arrays and flags of a message; array, key and byte string of an entry.
_MESSAGE_HEAD, _ENTRY_HEAD = 1 + 2 + 3, 1 + 3 + 3
_TUNNEL_HEAD = 128  # bytes, at most, that encryption adds to a message


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
        size: Bytes of service info that the other side takes in one message.
        message_limit: Bytes of the largest message that it takes, encrypted; 0 where it does not say.
    """

    def __init__(self, size: int, message_limit: int = MESSAGE_LIMIT) -> None:
        self._size = max(LEAST_SERVICE_INFO_SIZE, min(size, (message_limit or MESSAGE_LIMIT) - _TUNNEL_HEAD))
        self._waiting: deque[ServiceInfo] = deque()

    def put(self, statements: Sequence[Statement]) -> None:
        """Say something after what waits already."""
        self._waiting.extend(
            ServiceInfo(f"{statement.module}:{statement.name}", cbor.encode(statement.value))
            for statement in statements
        )

    def take(self) -> tuple[bool, tuple[ServiceInfo, ...]]:
        """Whether there is more than fits into the next message; and what goes into it."""
        taken: list[ServiceInfo] = []
        room = self._size - _MESSAGE_HEAD
        while self._waiting:
            info = self._waiting.popleft()
            space = room - _ENTRY_HEAD - len(info.key.encode("utf-8"))
            # What does not fit begins a message of its own, and is cut only there: go-fdo takes no pieces of devmod.
            if len(info.value) > space and taken:
                self._waiting.appendleft(info)
                break
            taken.append(replace(info, value=info.value[:space]))
            room = space - len(taken[-1].value)
            if len(info.value) > space:
                self._waiting.appendleft(replace(info, value=info.value[space:]))
                break
        return bool(self._waiting), tuple(taken)


class Inbox:
    """Puts the pieces together again, and counts them."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._value = bytearray()
        self._pieces = 0
        self._total = 0
        self._values = 0

    def put(self, info: Sequence[ServiceInfo], *, is_more: bool) -> list[tuple[str, str, cbor.Item]]:
        """The statements that are complete now: module, name and value.

        Where one key follows itself, only another key or the end says that its value was the last one, so that each
        byte is read once, however small the pieces are.

        Raises:
            Fault: Too much, or a value that is not complete when another one begins or the message is the last.
        """
        complete = []
        for piece in info:
            self._count(piece)
            if piece.key != self._key:
                complete += self._completed()
                self._key = piece.key
            self._value += piece.value
            if len(self._value) > VALUE_LIMIT:
                raise Fault("A value of service info is longer than is taken.")
        return complete if is_more else [*complete, *self._completed()]

    def _count(self, piece: ServiceInfo) -> None:
        self._pieces += 1
        self._total += len(piece.key) + len(piece.value)
        if self._total > TOTAL_LIMIT or self._pieces > PIECES_LIMIT:
            raise _too_much()

    def _completed(self) -> list[tuple[str, str, cbor.Item]]:
        """What the last key was said to be."""
        if self._key is None:
            return []
        module, _, name = self._key.partition(":")
        values = cbor.read_sequence(bytes(self._value), VALUE_LIMIT)
        if not (module and name and values):
            raise Fault("Service info names no module, no word of it, or no value.")
        self._values += len(values)
        if self._values > PIECES_LIMIT:
            raise _too_much()
        self._key = None
        self._value.clear()
        return [(module, name, value) for value in values]


class Modules:
    """The modules of a device: who answers what.

    Args:
        known: All of them, `devmod` not included.
    """

    def __init__(self, known: Sequence[DeviceModule]) -> None:
        self._known = {module.name: module for module in known}
        self._active: set[str] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """Of all modules."""
        return tuple(self._known)

    @property
    def are_complete(self) -> bool:
        """Whether everything has been said."""
        return all(module.is_complete for module in self._known.values())

    def receive(self, module: str, name: str, value: cbor.Item) -> Sequence[Statement]:
        """What is said to it. `active` of an unknown module is answered with false, and the rest of it is ignored.

        Raises:
            Fault: It is for a module that is not active, or ends one that is not complete.
            EnrollmentError: A module makes of it that there will be no certificate.
        """
        known = self._known.get(module)
        if known is None:
            return [Statement(module, ACTIVE, value=False)] if name == ACTIVE else []
        if name == ACTIVE:
            return self._activate(known) if value.boolean() else self._deactivate(known)
        if module not in self._active:
            raise Fault(f"Service info is for the module {module}, which is not active.")
        return known.receive(name, value)

    def _activate(self, module: DeviceModule) -> Sequence[Statement]:
        if module.name in self._active:
            return []
        self._active.add(module.name)
        return [Statement(module.name, ACTIVE, value=True), *module.begin()]

    def _deactivate(self, module: DeviceModule) -> Sequence[Statement]:
        if not module.is_complete:
            raise Fault(f"The owner ends the module {module.name} before it is complete.")
        return []


def _too_much() -> Fault:
    return Fault("There is more service info than is taken.")
