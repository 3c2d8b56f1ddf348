"""Who is at the other end of a connection, as the kernel tells it."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from agent.errors import RequestRefused

_CREDENTIALS = struct.Struct("iII")  # struct ucred
_SO_PEERGROUPS = 59  # Linux; Python's socket has no name for it
_GROUPS_SIZE = 1024  # bytes; the most that Python's getsockopt takes: 256 groups


@dataclass(frozen=True)
class Caller:
    """The process that connected, as it was when it connected.

    Args:
        pid: For the audit trail only: numbers are used again.
        uid: The effective user.
        groups: The primary group, then the supplementary ones.
    """

    pid: int
    uid: int
    groups: tuple[int, ...]


def caller_of(connection: socket.socket) -> Caller:
    """Read SO_PEERCRED and SO_PEERGROUPS.

    Raises:
        RequestRefused: The kernel does not say, for instance because the caller is in more than 256 groups.
    """
    try:
        packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        supplementary = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_SIZE)
    except OSError as error:
        raise RequestRefused(f"The caller cannot be identified: {error.strerror}.", code="caller-unknown") from error
    pid, uid, gid = _CREDENTIALS.unpack(packed)
    return Caller(pid, uid, (gid, *struct.unpack(f"{len(supplementary) // 4}I", supplementary)))
