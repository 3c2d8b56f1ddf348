"""Work on many items in several processes, each of which keeps what it has learnt from one item to the next."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Generic, TypeVar

from enroll.errors import ConfigurationError

Item = TypeVar("Item")
Result = TypeVar("Result")

# What `work` has read by now need not be read by each process again. Nothing here has threads, which do not survive it.
_FORK = get_context("fork")


def in_processes(
    work: Callable[[Item], Result], items: Sequence[Item], processes: int, lost: Callable[[Item], Result]
) -> Iterator[Result]:
    """The result for each item, in the order of the items.

    Every process is given its share as a whole, items number n, n + processes and so on, and answers through a pipe
    that holds few results: one that is ahead waits there. So nothing has to be put into order or held back, however
    many items there are. A process that dies costs one result; another one takes over what is left of its share.

    Args:
        work: Makes the result for an item. What it raises is printed, and ends its process.
        items: Which.
        processes: How many.
        lost: The result for an item over which its process died.

    Raises:
        ConfigurationError: There cannot be as many processes.
    """
    shares: list[_Share[Item, Result]] = []
    try:
        shares.extend(_Share(work, items[first::processes]) for first in range(processes))
        for number, item in enumerate(items):
            try:
                result = shares[number % processes].next_result()
            except (EOFError, OSError):
                result = lost(item)
                shares[number % processes].start_behind_lost_item()
            yield result
    finally:
        for share in shares:
            share.stop()


class _Share(Generic[Item, Result]):
    """Some of the items, and the process that works on them."""

    def __init__(self, work: Callable[[Item], Result], items: Sequence[Item]) -> None:
        self._work = work
        self._items = items
        self._answered = 0
        self._start()

    def next_result(self) -> Result:
        """The next result.

        Raises:
            EOFError: The process has ended before it was ready.
            OSError: It has ended while it answered.
        """
        result: Result = self._results.recv()
        self._answered += 1
        return result

    def start_behind_lost_item(self) -> None:
        """Have another process go on, without the item of which there was no result."""
        self.stop()
        self._answered += 1
        self._start()

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()
        self._results.close()

    def _start(self) -> None:
        try:
            ours, theirs = _FORK.Pipe(duplex=False)
            arguments = (self._work, self._items[self._answered :], theirs, ours)
            process = _FORK.Process(target=_work_on, args=arguments, daemon=True)
            process.start()
        except OSError as error:
            raise ConfigurationError(
                f"There cannot be another process: {error.strerror}.", remedy="Ask for fewer: --jobs 1."
            ) from error
        theirs.close()
        self._results, self._process = ours, process


def _work_on(work: Callable[[Item], Result], items: Sequence[Item], results: Connection, other_end: Connection) -> None:
    """What a process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the parent to end this
    other_end.close()  # otherwise nobody would notice that the parent has gone
    with suppress(BrokenPipeError):
        for item in items:
            results.send(work(item))
