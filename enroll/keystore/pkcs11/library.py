"""The PKCS#11 libraries of this process, and who is inside them.

Threads: python-pkcs11 initialises a library without locking and releases the interpreter lock around its calls, so two
threads crash inside most libraries. p11-kit-proxy brings its own locking, so several threads may be inside it; any
other library has one at a time.

Restarting: SoftHSM looks for tokens, and tpm2-pkcs11 makes its sessions with the TPM, when they are initialised, and
then never again. So a library is initialised anew when a token cannot be opened. That ends the sessions of all its
tokens, and it gives their numbers, and those of the keys, to others: what belongs to an earlier start must not be used.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pkcs11
from pkcs11.types import Slot

from enroll.errors import KeyStoreUnavailable
from enroll.keystore.pkcs11.tries import Tries

PATIENCE = 5  # seconds that a signature waits for others

_PROXY = "PKCS#11 Kit Proxy Module"


class Line:
    """Threads that wait for something: first come, first served, because the fastest would starve the others."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[_Waiting] = deque()

    def take(self, take: Callable[[], bool]) -> None:
        """Take something as soon as it is there and nobody has waited for longer.

        Args:
            take: Takes it if it is there, and says whether it was. Perhaps called by another thread.

        Raises:
            KeyStoreUnavailable: It takes too long.
        """
        with self._guard:
            if not self._waiting and take():
                return
            me = _Waiting(take)
            self._waiting.append(me)
        if me.served.wait(PATIENCE):
            return
        with self._guard:
            if me.served.is_set():  # at the last moment
                return
            self._waiting.remove(me)
            self._serve()
        raise busy()

    def give(self, give: Callable[[], None]) -> None:
        """Give back what was taken."""
        with self._guard:
            give()
            self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0].take():
            self._waiting.popleft().served.set()


@dataclass(frozen=True, eq=False)
class _Waiting:
    take: Callable[[], bool]
    served: threading.Event = field(default_factory=threading.Event)


class Library:
    """An initialised library.

    Args:
        path: Without links: a library must not be initialised twice.

    Raises:
        pkcs11.PKCS11Error: It is no such library, or cannot be initialised.
    """

    def __init__(self, path: str) -> None:
        self._handle = pkcs11.lib(path)
        self.threads_are_safe = self._handle.library_description.strip() == _PROXY
        self.starts = 1
        self.tries = Tries()
        self._line = Line()
        self._inside = 0
        self._somebody_is_alone = False

    def entered(self) -> AbstractContextManager[None]:
        """Be inside the library, together with other threads if it is made for that.

        Raises:
            KeyStoreUnavailable: Somebody else is in it for too long.
        """
        return self._enter(alone=not self.threads_are_safe)

    def alone(self) -> AbstractContextManager[None]:
        """Be inside the library while nobody else is.

        Raises:
            KeyStoreUnavailable: Somebody else is in it for too long.
        """
        return self._enter(alone=True)

    def slots(self) -> list[Slot]:
        """The slots that hold a token; called inside."""
        return self._handle.get_slots(token_present=True)

    def restart(self) -> None:
        """Initialise the library anew; called outside.

        Raises:
            pkcs11.PKCS11Error: It cannot be initialised, and has to be restarted again.
            KeyStoreUnavailable: Somebody else is in it for too long.
        """
        with self.alone():
            self.starts += 1
            with contextlib.suppress(pkcs11.PKCS11Error):
                self._handle.finalize()
            self._handle.initialize()

    @contextmanager
    def _enter(self, *, alone: bool) -> Iterator[None]:
        self._line.take(self._enter_alone if alone else self._enter_with_others)
        try:
            yield
        finally:
            self._line.give(self._leave)

    def _enter_alone(self) -> bool:
        if self._inside:
            return False
        self._inside, self._somebody_is_alone = 1, True
        return True

    def _enter_with_others(self) -> bool:
        if self._somebody_is_alone:
            return False
        self._inside += 1
        return True

    def _leave(self) -> None:
        self._inside -= 1
        self._somebody_is_alone = False


_LOADED: dict[str, Library] = {}  # as python-pkcs11 does: the state of a library belongs to the process
_LOADING = threading.Lock()


def load(path: Path) -> Library:
    """The library in `path`; see `Library`."""
    real = os.path.realpath(path)
    with _LOADING:
        if real not in _LOADED:
            _LOADED[real] = Library(real)
        return _LOADED[real]


def busy() -> KeyStoreUnavailable:
    """What is said to a thread that has waited for too long."""
    return KeyStoreUnavailable(
        f"The token has been busy for {PATIENCE} seconds.",
        remedy="It signs too slowly for this scanner. Raise [keystore.pkcs11] sessions if it signs several times at "
        "once, or let a key in memory sign.",
    )
