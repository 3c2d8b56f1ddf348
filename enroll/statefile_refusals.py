"""What a refusal of the system says about a state file, and whether somebody else may write it."""

from __future__ import annotations

import errno
import itertools
import os
import pwd
import stat
from pathlib import Path

from enroll.errors import DiskRefused, StateDamaged, StateError, StateLost, StateUnreadable, StateUnsafe

_OF_OTHERS = 0o022  # the group or everybody may write
_DISK = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}
)
_NOT_AS_IT_WAS = frozenset({errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO, errno.EINVAL})


def unreadable(path: Path) -> StateUnreadable:
    """What to raise for a file that is not for the user who runs this."""
    remedy = "Run this as root, as the user scanseal, or as a member of scanseal-admin."
    for inner, outer in itertools.pairwise((path, *path.parents)):
        if owner_of(outer) == os.geteuid() and owner_of(inner) not in (None, os.geteuid()):
            # Made by a command that was run as root, say.
            remedy = f"Something in {outer} belongs to another user. {give_back(outer)}"
            break
    return StateUnreadable(f"{path} cannot be read: Permission denied.", remedy=remedy)


def give_back(path: Path) -> str:
    """What to run where something belongs to another user than ours."""
    return f"Run as root: chown -R {user_name(os.geteuid())} {path}"


def check_safe(path: Path, status: os.stat_result, *, modes: bool = True) -> None:
    """Refuse a state file, or the directory it lies in, that somebody else may write.

    Root may read for the user of the service; so an owner is right who also owns the directory around it.

    Raises:
        StateUnsafe: It is not safe.
        OSError: That cannot be found out.
    """
    directory = path.parent
    around, above = os.stat(directory), os.stat(directory.parent)
    for each, owners, found in (
        (path, {around.st_uid}, status),
        (directory, {above.st_uid}, around),
    ):
        if found.st_uid not in {0, os.geteuid(), *owners}:
            raise _unsafe(each, f"belongs to {user_name(found.st_uid)}", directory)
        if modes and stat.S_IMODE(found.st_mode) & _OF_OTHERS:
            raise _unsafe(each, "may be written by other users", directory)


def _unsafe(path: Path, why: str, directory: Path) -> StateUnsafe:
    return StateUnsafe(
        f"{path} {why}.",
        remedy=f"Find out who changed it. If it is as it should be, run as root: chmod go-w {path}; "
        f"chown --reference={directory.parent} {path}",
    )


def kind_of(error: OSError) -> type[StateError]:
    """What a refusal of the system says about a state file."""
    if error.errno in _DISK:
        return DiskRefused
    return StateDamaged if error.errno in _NOT_AS_IT_WAS else StateError


def not_read(path: Path, error: OSError, remedy: str = "Check the disk.") -> StateError:
    """What to raise for a file that the system does not let us read."""
    if isinstance(error, PermissionError):
        return unreadable(path)
    kind = kind_of(error)
    if error.errno == errno.EIO:
        kind, remedy = StateLost, "Check the disk. Then restore the file, or enroll again."
    elif kind is DiskRefused:
        remedy = "Check the disk."
    return kind(f"{path} cannot be read: {error.strerror}.", remedy=remedy)


def not_written(path: Path, error: OSError) -> StateError:
    """What to raise for a file that is as it was before."""
    return (DiskRefused if error.errno in _DISK else StateError)(
        f"{path} cannot be written: {error.strerror}.",
        remedy="Check free space and permissions; what was there before is still in use.",
    )


def not_durable(path: Path, error: OSError) -> StateError:
    """What to raise for a file whose new name may not have reached the disk."""
    return (DiskRefused if error.errno in _DISK else StateError)(
        f"{path} is written, but may not survive a power cut: {error.strerror}.",
        remedy="Check the disk, and run it again.",
        what_next="What was written is in use, until the power fails.",
    )


def owner_of(path: Path) -> int | None:
    """The number of its owner; None where there is nothing, or nothing that may be looked at."""
    try:
        return path.stat().st_uid
    except OSError:
        return None


def user_name(number: int) -> str:
    """The name of a user, for people."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"#{number}"
