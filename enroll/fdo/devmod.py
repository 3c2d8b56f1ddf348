"""devmod: the device describes itself, before any other service info: FDO 1.1, 3.8.3."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from enroll.fdo import cbor
from enroll.fdo.service_info import ACTIVE, Statement

NAME = "devmod"


@dataclass(frozen=True)
class DeviceDescription:
    """What a device says about itself.

    Args:
        os: Name of its operating system.
        arch: Of its processor.
        version: Of its operating system.
        device: Its model.
        sep: What separates the parts of a search path.
        bin: What kind of programs it runs.
    """

    os: str
    arch: str
    version: str
    device: str
    sep: str
    bin: str

    @classmethod
    def of_this_machine(cls, device: str) -> Self:
        """What can be told to everybody who owns it; `device` is its model."""
        arch = platform.machine()
        return cls(platform.system(), arch, platform.release(), device, ":", arch)

    def statements(self, modules: Sequence[str]) -> list[Statement]:
        """All of it, with the names of the modules that the device has."""
        names = [NAME, *modules]
        values: list[tuple[str, cbor.Encodable]] = [
            (ACTIVE, True),
            ("os", self.os),
            ("arch", self.arch),
            ("version", self.version),
            ("device", self.device),
            ("sep", self.sep),
            ("bin", self.bin),
            ("nummodules", len(names)),
            ("modules", [0, len(names), *names]),
        ]
        return [Statement(NAME, name, value) for name, value in values]
