"""The bytes that the MAC covers (PS3.3 C.12.1.1.3.1), fed to the hash where they lie.

Covered bytes that follow each other form a run; a run is hashed in one update. Small runs and the few bytes that are
not in the file are joined first, because an update costs more than a copy of a few bytes.
"""

from __future__ import annotations

from typing import Protocol

from agent.dicom.elements import swap
from agent.dicom.window import Window

LARGE_RUN = 4096  # bytes; from here on hashed in place instead of joined
JOINED_PARTS = 1024  # parts that are collected before they are joined
SWAP_PIECE = 1 << 16  # bytes; a multiple of every number's width


class Hash(Protocol):
    """A hash of `hashlib` under way."""

    def copy(self) -> Hash:
        """The same hash, to go on with separately."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Hash more bytes."""

    def digest(self) -> bytes:
        """The hash of everything so far."""


class MacStream:
    """Collects what the MAC covers from a window, in order.

    Args:
        window: Where the covered bytes come from.
        state: The hash, which may hold what was covered elsewhere before. It is `hash` that goes on from it.
    """

    def __init__(self, window: Window, state: Hash) -> None:
        self.hash = state
        self.window = window
        self._parts: list[bytes] = []
        self._run_start = 0
        self._run_end = 0
        self._mark: int | None = None  # parts before it stay; None while nothing is on trial
        self._before_trial: Hash | None = None  # the hash at the mark, once parts behind it were hashed
        window.before_discard = self.flush

    def cover(self, count: int) -> None:
        """Consume the next `count` bytes of the window and cover them."""
        window = self.window
        while count > (here := window.filled - window.position):
            # Hashed as it arrives: the sender and the hash work at the same time.
            self.cover_range(window.position, window.filled)
            window.position = window.filled
            count -= here
            self.flush()
            window.refill()
        end = window.position + count
        self.cover_range(window.position, end)
        window.position = end

    def cover_range(self, start: int, end: int) -> None:
        """Cover what lies in the buffer of the window from `start` to `end`; the caller consumes it."""
        if start != self._run_end:
            self._close_run()
            self._run_start = start
        self._run_end = end

    def cover_swapped(self, count: int, width: int) -> None:
        """Consume `count` bytes of numbers, each `width` bytes wide, and cover them in the other byte order."""
        while count:
            piece = min(count, SWAP_PIECE)
            self.literal(swap(self.window.take(piece), width))
            count -= piece

    def literal(self, data: bytes) -> None:
        """Cover bytes that are not in the instance as they are covered."""
        self._close_run()
        self._parts.append(data)
        if len(self._parts) >= JOINED_PARTS or len(data) >= LARGE_RUN:
            self.flush()

    def begin_trial(self) -> None:
        """What is covered from here on may be taken back, until the trial ends."""
        self._close_run()
        self._mark = len(self._parts)

    def end_trial(self, *, keep: bool) -> None:
        """Keep or take back what was covered since the trial began."""
        self._close_run()
        mark, before = self._mark, self._before_trial
        self._mark = self._before_trial = None
        if keep or mark is None:
            return
        if before is None:
            del self._parts[mark:]
        else:
            self.hash = before
            self._parts.clear()

    def flush(self) -> None:
        """Hash everything that is covered so far."""
        self._close_run()
        self._hash_parts()

    def _hash_parts(self) -> None:
        if self._mark is not None and self._before_trial is None:
            self.hash.update(b"".join(self._parts[: self._mark]))
            del self._parts[: self._mark]
            self._before_trial = self.hash.copy()
        if self._parts:
            self.hash.update(b"".join(self._parts))
            self._parts.clear()

    def _close_run(self) -> None:
        start, end = self._run_start, self._run_end
        if start == end:
            return
        self._run_start = self._run_end = end
        run = self.window.view[start:end]
        if end - start < LARGE_RUN:
            self._parts.append(bytes(run))
            return
        self._hash_parts()
        self.hash.update(run)
