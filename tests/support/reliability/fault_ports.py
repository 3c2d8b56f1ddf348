"""The four ways in which the world fails: files, key stores, HTTP and clocks, with one counter for all of them.

    ports = FaultPorts(root, at=17, turn=2)       the 17th thing that is asked of any port fails, in its third way
    with ports.installed():
        ...                                       the operation, in this thread
    ports.struck                                  what failed: "files: fsync (EIO)"; empty where it did not come to that

    FaultyFiles       below `StateFiles`, at the calls to the system: so its own code is in the test
    FaultyKeyStores   before a call, or after it: the key is made and the answer lost
    FaultyHttp        at every wait for the network: refused, reset, timed out, or cut in the middle of an answer
    FaultyClock       a clock does not fail, it jumps and stays there

The way of SQLite's tests: with `at` from 1 on, until nothing fails any more, every single operation has failed once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Self
from unittest import mock

import enroll.http
from enroll.clock import Clock
from enroll.config import KeyStoreSettings
from enroll.errors import KeyNotFound, KeyStoreError, KeyStoreUnavailable, PinRefused
from enroll.http.connections import Deadline
from enroll.keystore import KeyStores
from enroll.statefile import StateFiles

ERRORS = (errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EROFS)
LASTING = frozenset({errno.EMFILE, errno.EROFS})  # the others are over at the next call
KINDS = len(ERRORS)  # how many turns it takes until every way of every port had its turn
_CHANGES = frozenset(
    {"write", "flush", "fsync", "replace", "rename", "unlink", "rmdir", "mkdir", "symlink", "fchmod", "chmod"}
)
_CALLS = (*sorted(_CHANGES - {"write", "flush"}), "open", "fstat", "lstat", "stat", "listdir", "readlink")
_OF_A_KEY = frozenset({"load", "load_secret", "protection", "tls_key"})
_OF_STORES = (*sorted(_OF_A_KEY), "check", "generate", "generate_secret", "import_key", "destroy", "list")
_JUMPS = (timedelta(days=-400), timedelta(days=400), datetime(1970, 1, 1, tzinfo=UTC), timedelta(days=4000))


@dataclass
class FaultPorts:
    """One trial.

    Args:
        root: The state directory; files elsewhere are not state.
        at: Which operation fails, counted from 1; 0 for none.
        turn: In which of the ways that its port has, from 0.
    """

    root: Path
    at: int = 0
    turn: int = 0
    count: int = 0
    struck: str = ""
    by_port: dict[str, int] = field(default_factory=dict)
    _thread: int = 0

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Within this block, and in this thread alone, things are counted and fail."""
        self._thread = threading.get_ident()
        with FaultyFiles(self).installed(), mock.patch.object(enroll.http, "Deadline", self._deadline):
            try:
                yield
            finally:
                self._thread = 0

    def meets(self, port: str, what: str) -> bool:
        """Whether this is the operation that fails."""
        if threading.get_ident() != self._thread:
            return False
        self.count += 1
        self.by_port[port] = self.by_port.get(port, 0) + 1
        if self.count != self.at:
            return False
        self.struck = f"{port}: {what}"
        return True

    def key_stores(self, settings: KeyStoreSettings) -> FaultyKeyStores:
        """Key stores that fail."""
        return FaultyKeyStores(settings, self.root, StateFiles(), self)

    def clock(self, real: Clock) -> FaultyClock:
        """A clock that jumps."""
        return FaultyClock(real, self)

    def _deadline(self, clock: Clock) -> FaultyHttp:
        return FaultyHttp(clock, self)


class FaultyFiles:
    """The system calls of `StateFiles` on what lies below the state directory.

    A full disk and an I/O error hit one call. Without descriptors, or on a disk that is read-only by now, all calls
    fail from there on that would need one, or would write.
    """

    def __init__(self, ports: FaultPorts) -> None:
        self._ports = ports
        self._error = ERRORS[ports.turn % len(ERRORS)]
        self._root = str(ports.root)
        self._descriptors: set[int] = set()
        self._since = False

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Within this block they are in place."""
        with contextlib.ExitStack() as stack:
            for name in _CALLS:
                stack.enter_context(mock.patch.object(os, name, self._counted(name, getattr(os, name))))
            stack.enter_context(mock.patch.object(os, "fdopen", self._fdopen(os.fdopen)))
            stack.enter_context(mock.patch.object(os, "close", self._close(os.close)))
            yield

    def meet(self, name: str, *, changes: bool) -> None:
        """Count a call, and fail where it is its turn, or still is."""
        if self._ports.meets("files", f"{name} ({errno.errorcode[self._error]})"):
            self._since = self._error in LASTING
            natural = changes or self._error != errno.EROFS
            self._raise(self._error if natural else errno.EIO)
        hit = name == "open" if self._error == errno.EMFILE else changes
        if self._since and hit and threading.get_ident() == self._ports._thread:
            self._raise(self._error)

    @staticmethod
    def _raise(number: int) -> None:
        raise OSError(number, os.strerror(number))

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if not any(self._is_state(argument) for argument in arguments[:2]):
                return real(*arguments, **options)
            if name == "fsync":
                self.meet(name, changes=True)
                return None  # what nobody cuts the power of need not reach the disk
            makes = name == "open" and bool(arguments[1] & (os.O_CREAT | os.O_WRONLY))
            self.meet(name, changes=makes or name in _CHANGES)
            result = real(*arguments, **options)
            if name == "open":
                self._descriptors.add(result)
            return result

        return call

    def _is_state(self, argument: object) -> bool:
        if isinstance(argument, int):
            return argument in self._descriptors
        return isinstance(argument, str | Path) and str(argument).startswith(self._root)

    def _fdopen(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(descriptor: int, *arguments: Any, **options: Any) -> Any:
            opened = real(descriptor, *arguments, **options)
            if descriptor not in self._descriptors:
                return opened
            self._descriptors.discard(descriptor)  # its number may soon be that of another file
            return _FaultyFile(opened, self, descriptor)

        return call

    def _close(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def call(descriptor: int) -> None:
            self._descriptors.discard(descriptor)
            real(descriptor)

        return call

    def file_of(self, descriptor: int, *, is_open: bool) -> None:
        """Whether the descriptor of a file of ours is open."""
        (self._descriptors.add if is_open else self._descriptors.discard)(descriptor)


class _FaultyFile:
    """An open file. A write that fails has written half of its data."""

    def __init__(self, real: IO[bytes], files: FaultyFiles, descriptor: int) -> None:
        self._real = real
        self._files = files
        self._descriptor = descriptor

    def __enter__(self) -> Self:
        self._files.file_of(self._descriptor, is_open=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._files.file_of(self._descriptor, is_open=False)
        self._real.close()

    def read(self, size: int) -> bytes:
        self._files.meet("read", changes=False)
        return self._real.read(size)

    def write(self, data: bytes) -> int:
        try:
            self._files.meet("write", changes=True)
        except OSError:
            self._real.write(data[: len(data) // 2])
            raise
        return self._real.write(data)

    def flush(self) -> None:
        self._files.meet("flush", changes=True)
        self._real.flush()

    def fileno(self) -> int:
        return self._real.fileno()


class FaultyKeyStores(KeyStores):
    """Key stores each of whose methods may fail: before, or after the work is done.

    A token that goes away does so before a call or while its answer is on its way. It may also have lost the key, or
    refuse its PIN.
    """

    def __init__(self, settings: KeyStoreSettings, root: Path, files: StateFiles, ports: FaultPorts) -> None:
        super().__init__(settings, root, files)
        for name in _OF_STORES:
            setattr(self, name, self._counted(name, getattr(self, name), ports))

    @staticmethod
    def _counted(name: str, real: Callable[..., Any], ports: FaultPorts) -> Callable[..., Any]:
        ways: tuple[tuple[KeyStoreError, bool], ...] = (
            (KeyStoreUnavailable("The token is away.", remedy="Put it back."), False),
            (KeyStoreUnavailable("The token went away.", remedy="Put it back."), True),
            (KeyNotFound("There is no such key.", remedy="Enroll again."), False)
            if name in _OF_A_KEY
            else (KeyStoreError("The token is full.", remedy="Remove a key."), False),
            (PinRefused("The PIN is wrong.", remedy="Correct it."), False),
        )
        error, after = ways[ports.turn % len(ways)]

        def call(*arguments: Any, **options: Any) -> Any:
            fails = ports.meets("key stores", f"{name} ({type(error).__name__}{', after' if after else ''})")
            if fails and not after:
                raise error
            result = real(*arguments, **options)
            if fails:
                raise error
            return result

        return call


class FaultyHttp(Deadline):
    """The deadline of an exchange, which every connection asks before it waits, and tells what has come."""

    def __init__(self, clock: Clock, ports: FaultPorts) -> None:
        super().__init__(clock)
        self._ports = ports

    def remaining(self) -> float:
        ways = (
            ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
            ConnectionResetError(errno.ECONNRESET, "reset"),
            TimeoutError("too late"),
            OSError(errno.ENETUNREACH, "no network"),
        )
        error = ways[self._ports.turn % len(ways)]
        if self._ports.meets("HTTP", f"send or wait ({type(error).__name__})"):
            raise error
        return super().remaining()

    def received(self, size: int) -> int:
        is_cut = self._ports.turn % 2 == 0
        if not self._ports.meets("HTTP", f"receive ({'cut' if is_cut else 'reset'})"):
            return super().received(size)
        if is_cut:
            return 0
        raise ConnectionResetError(errno.ECONNRESET, "reset")


class FaultyClock:
    """A clock whose wall time jumps at some moment; what counts elapsed time goes on."""

    def __init__(self, real: Clock, ports: FaultPorts) -> None:
        self._real = real
        self._ports = ports
        self._jumped = False

    def now(self) -> datetime:
        jump = _JUMPS[self._ports.turn % len(_JUMPS)]
        if self._ports.meets("clock", f"now ({jump})"):
            self._jumped = True
        now = self._real.now()
        if not self._jumped:
            return now
        return jump if isinstance(jump, datetime) else now + jump

    def monotonic(self) -> float:
        return self._real.monotonic()

    def boottime(self) -> float:
        return self._real.boottime()

    def boot_id(self) -> str:
        return self._real.boot_id()

    def sleep(self, seconds: float) -> None:
        self._real.sleep(seconds)
