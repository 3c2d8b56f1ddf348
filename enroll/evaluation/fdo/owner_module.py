"""What an owner says to a device once the tunnel is open. NOT FOR PRODUCTION."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from enroll.fdo import cbor
from enroll.fdo.service_info import Statement


class OwnerModule(Protocol):
    """One module of an owner, for one device in one TO2 session."""

    name: str

    def begin(self) -> Sequence[Statement]:
        """What is said after `active` = true; nothing where it only answers."""

    def receive(self, name: str, value: cbor.Item) -> Sequence[Statement]:
        """What is said to something that the device says; its `active` = true does not come here.

        Raises:
            Fault: It is not what this module allows now.
        """

    def pause(self) -> None:
        """The device has nothing to say just now."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing more is to come from either side."""


@dataclass(frozen=True)
class OnboardedDevice:
    """The device of a session.

    Args:
        guid: As it was when the session began.
        device_info: Its model, as the voucher names it.
        serial_number: As its certificate says; "" where it says none.
        os: As devmod says, like all that follow; "" where it does not say it.
        arch: Of its processor.
        version: Of its operating system.
        device: Its model.
    """

    guid: bytes
    device_info: str
    serial_number: str = ""
    os: str = ""
    arch: str = ""
    version: str = ""
    device: str = ""


MakeModules: TypeAlias = Callable[[OnboardedDevice], Sequence[OwnerModule]]
