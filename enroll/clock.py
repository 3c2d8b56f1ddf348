"""The clocks of the machine, as one object that is passed in.

Decisions take `now` as an argument. Only the composition roots hold a `Clock`; tests pass a scripted one. Whether the
wall clock can be believed is `enroll.clock_sense`'s to say.
"""

from __future__ import annotations

import os
import secrets
import time
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Protocol

UNKNOWN_BOOT = "?"  # what the name of a start begins with that means nothing to another process
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BOOT_ID_VARIABLE = "SCANSEAL_BOOT_ID"  # from the units, which hide that file from the services


class Clock(Protocol):
    """What the rest of the program may know about time."""

    def now(self) -> datetime:
        """The wall clock, aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds on a clock that never jumps; only differences mean anything."""

    def boottime(self) -> float:
        """Seconds since the machine was started, those included in which it slept; nobody can set it."""

    def boot_id(self) -> str:
        """Which start of the machine `boottime` counts from."""

    def sleep(self, seconds: float) -> None:
        """Wait `seconds`."""


class SystemClock:
    """The real clocks."""

    def now(self) -> datetime:
        """The wall clock, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment (CLOCK_MONOTONIC)."""
        return time.monotonic()

    def boottime(self) -> float:
        """Seconds since the machine was started (CLOCK_BOOTTIME)."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def boot_id(self) -> str:
        """A random number that the kernel makes at each start (random(4)); one of this process where that is hidden."""
        return self._boot_id

    def sleep(self, seconds: float) -> None:
        """Wait `seconds`."""
        time.sleep(seconds)

    @cached_property
    def _boot_id(self) -> str:
        try:
            found = _BOOT_ID.read_text("ascii")
        except (OSError, ValueError):
            found = os.environ.get(_BOOT_ID_VARIABLE, "")
        return found.strip().replace("-", "") or f"{UNKNOWN_BOOT}{secrets.token_hex(8)}"
