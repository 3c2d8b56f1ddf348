"""A sequential view of an instance that may still be arriving.

The scanner looks at bytes in place; what it has passed may be overwritten once the buffer is full. An instance that
fits the buffer is therefore held as a whole, a larger one is streamed and, where a spool is given, kept in a file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from io import FileIO

from agent.errors import DicomError

ReadInto = Callable[[memoryview], int]
SPOOL_PIECE = 1 << 20  # bytes read back from a spool file at a time


class Window:
    """The buffer between a source of bytes and the scanner.

    `buffer[position:filled]` is what has arrived and has not been consumed; `origin` is the offset in the instance of
    `buffer[0]`.

    Args:
        read_into: Puts more bytes into a buffer and returns their number; 0 at the end of the instance. None: the
            buffer holds the whole instance.
        buffer: Working memory, reused as the instance streams through it.
        open_spool: Opens a private temporary file for an instance larger than the buffer.
        keep: Whether to use it; without it, what left the buffer is gone. May be set while the instance is read, as
            long as nothing has left.
    """

    def __init__(
        self,
        read_into: ReadInto | None,
        buffer: bytearray | bytes | memoryview,
        open_spool: Callable[[], FileIO] | None = None,
        *,
        keep: bool = True,
    ) -> None:
        self.buffer = buffer
        self.view = memoryview(buffer)
        self.position = 0
        self.filled = len(self.view) if read_into is None else 0
        self.origin = 0
        self.pinned: int | None = None
        self.before_discard: Callable[[], None] = _nothing
        self.keep = keep
        self._read_into = read_into
        self._ended = read_into is None
        self._open_spool = open_spool
        self._spool: FileIO | None = None
        self._spooled = 0  # bytes of the buffer that are in the spool already

    @classmethod
    def over(cls, data: bytes | memoryview) -> Window:
        """A window over an instance that is all there: a file in memory or mapped."""
        return cls(None, data)

    @property
    def offset(self) -> int:
        """Offset in the instance of the next byte."""
        return self.origin + self.position

    def at_end(self) -> bool:
        """Whether everything has been consumed and nothing more comes."""
        return self.position == self.filled and not self._more()

    def need(self, count: int) -> None:
        """Wait until the next `count` bytes are in the buffer.

        Raises:
            DicomError: The instance ends before.
        """
        while self.filled - self.position < count:
            if not self._more():
                raise truncated(self.origin + self.filled)

    def refill(self) -> None:
        """Wait for at least one more byte.

        Raises:
            DicomError: The instance ends here.
        """
        if not self._more():
            raise truncated(self.origin + self.filled)

    def skip(self, count: int) -> None:
        """Consume `count` bytes without looking at them."""
        while count > (here := self.filled - self.position):
            self.position = self.filled
            count -= here
            self.refill()
        self.position += count

    def take(self, count: int) -> bytes:
        """Consume `count` bytes, which must fit the buffer, and return them."""
        self.need(count)
        start = self.position
        self.position += count
        return bytes(self.view[start : self.position])

    def pin(self) -> None:
        """Keep everything from here on in the buffer, until `pinned_bytes`."""
        self.pinned = self.position

    def pinned_bytes(self) -> bytes:
        """What was consumed since `pin`."""
        start, self.pinned = self.pinned, None
        return bytes(self.view[start : self.position])

    def finish(self) -> None:
        """Bring what was spooled to its end, so that giving it back cannot fail for want of room."""
        if self._spool is not None:
            self._spill()

    def drain(self) -> None:
        """Read to the end of the instance."""
        while not self.at_end():
            self.position = self.filled

    def pieces(self, start: int, stop: int) -> Iterator[memoryview | bytes]:
        """The bytes from offset `start` to `stop`, from the buffer or the spool.

        Only for an instance that was kept, after `finish`.
        """
        if self._spool is None and self.origin:
            raise DicomError(
                "The instance is too large to be given back.",
                remedy="Ask for the insertions only, or give the agent a spool directory.",
                code="instance-not-kept",
            )
        if self._spool is None:
            yield self.view[start:stop]
            return
        descriptor = self._spool.fileno()
        while start < stop:
            piece = os.pread(descriptor, min(SPOOL_PIECE, stop - start), start)
            if not piece:
                raise DicomError("The spool file became shorter.", remedy="Send it again.", code="spool-failed")
            start += len(piece)
            yield piece

    def close(self) -> None:
        """Give up the spool file, if there is one."""
        if self._spool is not None:
            self._spool.close()

    def _more(self) -> bool:
        if self._ended or self._read_into is None:
            return False
        if self.filled == len(self.view):
            self._make_room()
        count = self._read_into(self.view[self.filled :])
        if count == 0:
            self._ended = True
            return False
        self.filled += count
        return True

    def _make_room(self) -> None:
        keep = self.position if self.pinned is None else self.pinned
        if keep == 0:
            raise DicomError(
                "One element needs more memory than one element may have.",
                remedy="The instance has an element or a signature sequence of unreasonable size.",
                code="element-too-large",
            )
        self.before_discard()
        if self.keep:
            self._spill()
        rest = self.filled - keep
        self.view[:rest] = self.view[keep : self.filled]
        self.origin += keep
        self.position -= keep
        self.filled = rest
        self._spooled = max(0, self._spooled - keep)
        if self.pinned is not None:
            self.pinned = 0

    def _spill(self) -> None:
        if self._spool is None and self._open_spool is not None:
            self._spool = self._open_spool()
        if self._spool is not None:
            # A raw file may take less than it is given.
            while self._spooled < self.filled:
                self._spooled += self._spool.write(self.view[self._spooled : self.filled])


def truncated(offset: int) -> DicomError:
    """The instance ends at `offset` although more was announced."""
    return DicomError(
        f"The instance ends at byte {offset}, in the middle of an element.",
        remedy="It was cut off: send it again from the source.",
        code="truncated",
    )


def _nothing() -> None:
    """Nothing is waiting for the bytes that leave the buffer."""
