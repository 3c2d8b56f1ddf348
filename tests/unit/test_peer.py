"""What the kernel says of a caller."""

from __future__ import annotations

import os
import socket
import struct

from agent.daemon.peer import caller_of


class CredentialsOf(socket.socket):
    """A connection whose other side is of a user that cannot be made in a test."""

    uid = 3_000_000_000  # beyond 31 bits: user namespaces and directory services give such numbers

    def getsockopt(self, level: int, name: int, size: int = 0) -> bytes:  # type: ignore[override]
        return struct.pack("iII", 1, self.uid, 7) if name == socket.SO_PEERCRED else struct.pack("2I", 7, self.uid)


def test_numbers_of_users_and_groups_are_unsigned() -> None:
    with CredentialsOf() as connection:
        caller = caller_of(connection)
    assert (caller.uid, caller.groups) == (CredentialsOf.uid, (7, 7, CredentialsOf.uid))


def test_the_caller_is_the_process_that_connected() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert (caller_of(theirs).uid, caller_of(theirs).pid) == (os.getuid(), os.getpid())
