"""What the processes of an agent hold: memory and descriptors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Held:
    """Of one process.

    Args:
        resident: Bytes of memory.
        descriptors: How many.
    """

    resident: int
    descriptors: int

    @classmethod
    def by(cls, pid: int) -> Held:
        """What a process holds now; needs the right to look inside."""
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
        resident = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
        return cls(int(resident) << 10, len(list(Path(f"/proc/{pid}/fd").iterdir())))

    @classmethod
    def least(cls, looks: Iterable[Held]) -> Held:
        """What was held at all of several looks: at any of them something may have been open for a moment."""
        looks = tuple(looks)
        return cls(min(look.resident for look in looks), min(look.descriptors for look in looks))
