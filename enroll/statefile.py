"""Files that survive a power cut: temp file, fsync, rename, fsync of the directory.

Every read is bounded and refuses what is not a regular file, so that a link, a FIFO or a huge file put in the place
of a state file ends in a `StateError` and not in a hang. Files that an operator names are read in the same way, only
that links are followed; who reads them gives the remedy.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import pwd
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from enroll.errors import ScansealError, StateError, StateUnreadable

STATE_FILE_LIMIT = 1 << 20  # bytes; certificates, chains and records are far smaller
GROUP_DIRECTORY = 0o750  # for directories on the way to what administrators may read


class StateFiles:
    """The file operations of the identity directory. Tests replace it with one that fails on demand."""

    def read(self, path: Path, limit: int = STATE_FILE_LIMIT, *, follow: bool = False) -> bytes:
        """The content of a regular file.

        Args:
            path: The file.
            limit: Its largest size in bytes.
            follow: Whether `path` may be a link: yes for what an operator names, no for state files.

        Raises:
            StateUnreadable: Not for the user who runs this.
            StateError: Not there, not a regular file, too large, or unreadable.
        """
        links = 0 if follow else os.O_NOFOLLOW
        try:
            # O_NONBLOCK: opening a FIFO must not wait for a writer.
            descriptor = os.open(path, os.O_RDONLY | links | os.O_NONBLOCK | os.O_CLOEXEC)
        except PermissionError as error:
            raise unreadable(path) from error
        except OSError as error:
            raise StateError(
                f"{path} cannot be read: {error.strerror}.", remedy="Restore the file, or enroll again."
            ) from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise StateError(f"{path} is not a regular file.", remedy="Remove it and enroll again.")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise StateError(f"{path} cannot be read: {error.strerror}.", remedy="Check the disk.") from error
        finally:
            os.close(descriptor)
        if len(data) > limit:
            raise StateError(f"{path} is larger than {limit} bytes.", remedy="Remove it and enroll again.")
        return data

    def write(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        """Put `data` at `path`: after a crash there is the old content or the new, never a mixture.

        Raises:
            StateError: The disk refused; the old content is still there.
        """
        with self._replacement(path) as temporary:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)  # the umask is that of whoever runs a command
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

    def point(self, link: Path, target: str) -> None:
        """Make the symbolic link `link` lead to `target` in one step.

        Raises:
            StateError: The disk refused; the link leads to where it led before.
        """
        with self._replacement(link) as temporary:
            os.symlink(target, temporary)

    def exists(self, path: Path) -> bool:
        """Whether there is anything at `path`; a link is not followed.

        Raises:
            StateError: That cannot be found out.
        """
        try:
            os.lstat(path)
        except FileNotFoundError:
            return False
        except PermissionError as error:
            raise unreadable(path) from error
        except OSError as error:
            raise StateError(f"{path} cannot be read: {error.strerror}.", remedy="Check the disk.") from error
        return True

    def names(self, directory: Path) -> list[str]:
        """The names of everything in a directory, in no order; none where there is no directory.

        Raises:
            StateError: It is no directory, or unreadable.
        """
        try:
            return os.listdir(directory)
        except FileNotFoundError:
            return []
        except PermissionError as error:
            raise unreadable(directory) from error
        except OSError as error:
            raise StateError(f"{directory} cannot be read: {error.strerror}.", remedy="Check the disk.") from error

    @contextlib.contextmanager
    def locked(self, path: Path, busy: ScansealError) -> Iterator[None]:
        """Keep every other process out that asks for the same lock; it ends with the process, too.

        Args:
            path: The lock file; made where it is missing, its directory is not.
            busy: Raised where another process holds the lock.

        Raises:
            StateError: The lock file cannot be made.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(f"{path} cannot be opened: {error.strerror}.", remedy="Check its permissions.") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise busy from error
            yield
        finally:
            os.close(descriptor)

    def make_directory(self, path: Path, mode: int = 0o700) -> None:
        """Make `path` where it is missing, and its parents, which the group may always enter.

        What is there already keeps its mode.

        Args:
            path: The directory.
            mode: Of `path` alone, whatever the umask; the parents that are made get `GROUP_DIRECTORY`.

        Raises:
            StateError: The disk refused.
        """
        try:
            missing = [p for p in (path, *path.parents) if not p.exists()]
            for directory in reversed(missing):
                _make_directory(directory, mode if directory == path else GROUP_DIRECTORY)
                self.sync_directory(directory.parent)
        except OSError as error:
            raise _not_written(path, error) from error

    def check_owner(self, path: Path) -> None:
        """Refuse a directory of another user: what we make in it, its owner could not read.

        Raises:
            StateError: `path` is there and belongs to another user.
        """
        owner, user = _owner(path), os.geteuid()
        if owner is None or owner == user:
            return
        name = _user_name(owner)
        raise StateError(
            f"{path} belongs to {name}, and this runs as {_user_name(user)}.",
            remedy=f"Run it as that user: runuser -u {name} -- scanseal enroll" if owner else _give_back(path),
            code="state-of-another-user",
        )

    def rename(self, source: Path, target: Path) -> None:
        """Move a file or a directory within one file system."""
        try:
            os.rename(source, target)
            self.sync_directory(target.parent)
        except OSError as error:
            raise _not_written(target, error) from error

    def remove(self, path: Path) -> None:
        """Remove a file, a link or a whole directory; nothing happens where there is none."""
        try:
            if path.is_dir() and not path.is_symlink():
                for entry in path.iterdir():
                    self.remove(entry)
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
            self.sync_directory(path.parent)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StateError(f"{path} cannot be removed: {error.strerror}.", remedy="Check the disk.") from error

    def sync_directory(self, path: Path) -> None:
        """Make the names in `path` durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _replacement(self, path: Path) -> Iterator[Path]:
        """The name of what the block makes; it takes the place of `path` when the block is over."""
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            try:
                yield temporary
                os.replace(temporary, path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
            self.sync_directory(path.parent)
        except OSError as error:
            raise _not_written(path, error) from error


def unreadable(path: Path) -> StateUnreadable:
    """What to raise for a file that is not for the user who runs this."""
    remedy = "Run this as root, as the user scanseal, or as a member of scanseal-admin."
    for inner, outer in itertools.pairwise((path, *path.parents)):
        if _owner(outer) == os.geteuid() and _owner(inner) not in (None, os.geteuid()):
            # Made by a command that was run as root, say.
            remedy = f"Something in {outer} belongs to another user. {_give_back(outer)}"
            break
    return StateUnreadable(f"{path} cannot be read: Permission denied.", remedy=remedy)


def _give_back(path: Path) -> str:
    return f"Run as root: chown -R {_user_name(os.geteuid())} {path}"


def _make_directory(path: Path, mode: int) -> None:
    path.mkdir(mode=mode, exist_ok=True)
    given = stat.S_IMODE(path.stat().st_mode)
    if given & mode != mode:
        path.chmod(given | mode)  # the umask of whoever runs a command; the set-group-ID bit stays


def _owner(path: Path) -> int | None:
    """The number of its owner; None where there is nothing, or nothing that may be looked at."""
    try:
        return path.stat().st_uid
    except OSError:
        return None


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"#{number}"


def _not_written(path: Path, error: OSError) -> StateError:
    return StateError(
        f"{path} cannot be written: {error.strerror}.",
        remedy="Check free space and permissions; what was there before is still in use.",
    )
