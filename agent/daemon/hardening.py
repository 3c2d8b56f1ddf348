"""What a process gives up before it loads a key, and how it keeps its memory to itself."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import resource
from pathlib import Path

from enroll.errors import ConfigurationError

# <linux/prctl.h>
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38

# <linux/mman.h>
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_CAP_IPC_LOCK = 14  # <linux/capability.h>

RESERVED_DESCRIPTORS = 96  # state files, tokens, workers, sockets that are being handed over

UNLOCKED_REMEDY = "Set LimitMEMLOCK=infinity for the service, or `ulimit -l unlimited` where it is started by hand."

logger = logging.getLogger("scanseal.keyholder")


def harden() -> None:
    """No core dump, no reading of the memory by other processes of the user, no gain of privileges by a worker.

    Raises:
        ConfigurationError: The kernel refused.
    """
    protect_memory()
    # Inherited by the workers.
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def protect_memory() -> None:
    """No core dump, and no reading of the memory by other processes of the user. A new program has to ask again.

    Raises:
        ConfigurationError: The kernel refused.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)


def lock_memory() -> bool:
    """Keep all memory of this process out of the swap, from now on. Children do not inherit it (mlockall(2)).

    Only what is used is locked, and takes room; but the limit counts all that is reserved, such as stacks. So a limit
    that is not unlimited is as good as none: the lock would succeed now, and memory fail later.

    Returns:
        Whether the kernel does it; where not, the log says what to do.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    if hard != resource.RLIM_INFINITY and not _may_lock_without_limit():
        logger.warning("Memory is not locked: its limit is %d bytes. %s", hard, UNLOCKED_REMEDY)
        return False
    if ctypes.CDLL(None, use_errno=True).mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT):
        logger.warning("Memory is not locked: %s. %s", os.strerror(ctypes.get_errno()), UNLOCKED_REMEDY)
        return False
    return True


def _may_lock_without_limit() -> bool:
    status = Path("/proc/self/status").read_text("ascii", "replace")
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return effective is not None and bool(int(effective[1], 16) >> _CAP_IPC_LOCK & 1)


def reserve_descriptors(connections: int) -> None:
    """Make sure that descriptors do not run out before `limits.connections` is reached.

    Raises:
        ConfigurationError: The hard limit is too low.
    """
    needed = 2 * connections + RESERVED_DESCRIPTORS  # each has its signing channel
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigurationError(
            f"{connections} connections need {needed} open files, but only {hard} are allowed.",
            remedy="Lower limits.connections, or raise LimitNOFILE= of the service.",
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise ConfigurationError(
            f"The kernel does not let scanseal protect its memory: {os.strerror(ctypes.get_errno())}.",
            remedy="Run it on Linux, without a system call filter that forbids prctl.",
        )
