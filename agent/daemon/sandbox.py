"""What a worker gives up once it is loaded: the file system, by Landlock (Linux 5.13 and later).

A worker runs as the user of the keyholder, so file permissions alone would let a worker that has been broken into read
key files and write the audit trail. After this it can open nothing but new files in the spool directory.
"""

from __future__ import annotations

import ctypes
import os
import struct

# <linux/landlock.h>; the numbers of the system calls are the same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE, _REMOVE_FILE, _MAKE_REGULAR = 1 << 1, 1 << 2, 1 << 5, 1 << 8
_EVERYTHING = (1 << 13) - 1  # all that the first version knows

_RULESET = struct.Struct("Q")
_PATH_BENEATH = struct.Struct("=Qi")


def confine(spool_directory: str) -> bool:
    """Give up the file system but for the spool directory, for this thread and those that it starts.

    Args:
        spool_directory: Where unnamed files may still be made; left out where there is none.

    Returns:
        Whether the kernel does it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION) < 1:
        return False
    ruleset = libc.syscall(_CREATE_RULESET, _RULESET.pack(_EVERYTHING), ctypes.c_size_t(_RULESET.size), 0)
    if ruleset < 0:
        return False
    try:
        _allow_new_files(libc, ruleset, spool_directory)
        return bool(libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow_new_files(libc: ctypes.CDLL, ruleset: int, directory: str) -> None:
    try:
        descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # nothing can be spooled there in any case, and the caller is told so
    try:
        rights = _WRITE_FILE | _READ_FILE | _REMOVE_FILE | _MAKE_REGULAR
        libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, _PATH_BENEATH.pack(rights, descriptor), 0)
    finally:
        os.close(descriptor)
