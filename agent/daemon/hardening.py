"""What the keyholder gives up before it loads a key."""

from __future__ import annotations

import ctypes
import os
import resource

from enroll.errors import ConfigurationError

# <linux/prctl.h>
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38

RESERVED_DESCRIPTORS = 96  # state files, tokens, workers, sockets that are being handed over


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
            f"The kernel does not let the agent protect itself: {os.strerror(ctypes.get_errno())}.",
            remedy="Run it on Linux, without a system call filter that forbids prctl.",
        )
