"""What a process is about to change on the disk, or to say to the network, seen before the kernel does it.

The kernel asks us about each such system call, and the caller stands still until we have answered: seccomp_unotify(2).
So a process can be killed at exactly one of them. In contrast to strace, nothing else is stopped, nothing has to be
installed, and a process that has started already can be watched.

    in the process      filter_file = watch()         from here on the kernel asks
    outside             Watcher(filter_file).run(...)
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# <linux/seccomp.h>, <linux/filter.h>, <linux/prctl.h>
_SET_MODE_FILTER: Final = 1
_NEW_LISTENER: Final = 8
_ALLOW: Final = 0x7FFF0000
_ASK: Final = 0x7FC00000
_LOAD_NUMBER: Final = (0x20, 0, 0, 0)  # of the system call
_IS: Final = 0x15
_ANSWER: Final = 0x06
_NO_NEW_PRIVILEGES: Final = 38
_RECEIVE: Final = 0xC0502100
_SEND: Final = 0xC0182101
_QUESTION: Final = struct.Struct("QIIiIQ6Q")
_GO_ON: Final = 1
_HERE: Final = 0xFFFFFF9C  # AT_FDCWD, as it stands in a register
_LONGEST_PATH: Final = 4096


@dataclass(frozen=True)
class _Form:
    """A system call.

    Args:
        kind: What it does.
        numbers: On each machine; 0 where there is none.
        path: Which argument is the path; where there is none, the first one is a descriptor.
        directory: Which argument is the descriptor of the directory that the path begins in.
    """

    kind: str
    numbers: dict[str, int]
    path: int | None = None
    directory: int | None = None


def _form(kind: str, x86_64: int, aarch64: int, path: int | None = None, directory: int | None = None) -> _Form:
    return _Form(kind, {"x86_64": x86_64, "aarch64": aarch64}, path, directory)


_FORMS: Final = (
    _form("write", 1, 64),
    _form("write", 18, 68),
    _form("write", 20, 66),
    _form("fsync", 74, 82),
    _form("fsync", 75, 83),
    _form("truncate", 77, 46),
    _form("rename", 82, 0, 1),
    _form("rename", 264, 38, 3, 2),
    _form("rename", 316, 276, 3, 2),
    _form("mkdir", 83, 0, 0),
    _form("mkdir", 258, 34, 1, 0),
    _form("rmdir", 84, 0, 0),
    _form("unlink", 87, 0, 0),
    _form("unlink", 263, 35, 1, 0),
    _form("symlink", 88, 0, 1),
    _form("symlink", 266, 36, 2, 1),
    _form("connect", 42, 203),
    _form("write", 44, 206),
)
MACHINE: Final = platform.machine()
_BY_NUMBER: Final = {form.numbers[MACHINE]: form for form in _FORMS if form.numbers.get(MACHINE)}


@dataclass(frozen=True)
class SystemCall:
    """One that is about to be made.

    Args:
        process: Who makes it.
        kind: What it does: "rename".
        path: The file that it is about, or what the kernel calls it where it is none: "socket:[4711]".
    """

    process: int
    kind: str
    path: str


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def watch() -> int:
    """Have the kernel ask about this process, and all that it starts, from now on.

    Returns:
        The descriptor on which it asks; for another process. This one would wait for itself.

    Raises:
        OSError: This kernel does not, or not for us.
    """
    if not _BY_NUMBER:
        raise OSError(errno.ENOSYS, f"the system calls of {MACHINE} are not known here")
    numbers = sorted(_BY_NUMBER)
    instructions = [_LOAD_NUMBER]
    instructions += [(_IS, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    instructions += [(_ANSWER, 0, 0, _ALLOW), (_ANSWER, 0, 0, _ASK)]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)
    buffer = ctypes.create_string_buffer(code, len(code))
    library = ctypes.CDLL(None, use_errno=True)
    seccomp = {"x86_64": 317, "aarch64": 277}[MACHINE]
    library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    program = _Program(len(instructions), ctypes.addressof(buffer))
    descriptor = library.syscall(seccomp, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(program))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(descriptor)


class Watcher:
    """Answers what the kernel asks about a process.

    Args:
        descriptor: Of `watch`.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def run(self, over: int, made: Callable[[SystemCall], bool]) -> None:
        """Until the process has ended.

        Args:
            over: A descriptor that is readable when it has.
            made: Told of each system call before it is made; whether it may be. Where not, it has killed the process.
        """
        polled = select.poll()
        polled.register(self._descriptor, select.POLLIN)
        polled.register(over, select.POLLIN)
        while True:
            ready = dict(polled.poll())
            if ready.get(self._descriptor, 0) & select.POLLIN:
                self._answer(made)
            elif over in ready:
                return

    def _answer(self, made: Callable[[SystemCall], bool]) -> None:
        question = bytearray(_QUESTION.size)
        try:
            fcntl.ioctl(self._descriptor, _RECEIVE, question)
            identifier, thread, _, number, _, _, *arguments = _QUESTION.unpack(question)
            if made(_described(thread, _BY_NUMBER[number], arguments)):
                fcntl.ioctl(self._descriptor, _SEND, struct.pack("QqiI", identifier, 0, 0, _GO_ON))
        except (FileNotFoundError, ProcessLookupError):
            return  # it was killed meanwhile


def _described(thread: int, form: _Form, arguments: list[int]) -> SystemCall:
    if form.path is None:
        return SystemCall(thread, form.kind, _file_of(thread, arguments[0]))
    path = _text_at(thread, arguments[form.path])
    if not path.startswith("/"):
        begins = arguments[form.directory] & 0xFFFFFFFF if form.directory is not None else _HERE
        where = str(Path(f"/proc/{thread}/cwd").readlink()) if begins == _HERE else _file_of(thread, begins)
        path = f"{where}/{path}"
    return SystemCall(thread, form.kind, path)


def _file_of(thread: int, descriptor: int) -> str:
    try:
        return str(Path(f"/proc/{thread}/fd/{descriptor & 0xFFFFFFFF}").readlink())
    except FileNotFoundError:
        return ""


def _text_at(thread: int, address: int) -> str:
    memory = os.open(f"/proc/{thread}/mem", os.O_RDONLY)
    try:
        read = b""
        while b"\0" not in read and len(read) < _LONGEST_PATH:
            # Not beyond the page: the next one may not be there.
            at = address + len(read)
            read += os.pread(memory, 4096 - at % 4096, at)
    finally:
        os.close(memory)
    return os.fsdecode(read.partition(b"\0")[0])
