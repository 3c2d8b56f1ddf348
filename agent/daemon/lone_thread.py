"""A thread that the end of the process does not wait for: what it does may hang for ever, as a call into a token.

The executors of the standard library are waited for when Python ends, whatever they were told.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue


class LoneThread:
    """Does one thing after the other.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._tasks: SimpleQueue[tuple[Future[None], Callable[[], None]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, task: Callable[[], None]) -> Future[None]:
        """Have something done; the future says when it is, and raises what it raised."""
        future: Future[None] = Future()
        self._tasks.put((future, task))
        return future

    def end(self) -> None:
        """Do what was submitted, and nothing more; nobody waits for that."""
        self._tasks.put(None)

    def _work(self) -> None:
        while (entry := self._tasks.get()) is not None:
            future, task = entry
            try:
                task()
            except BaseException as error:  # noqa: BLE001 - for whoever asks for the result
                future.set_exception(error)
            else:
                future.set_result(None)
