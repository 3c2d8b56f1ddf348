"""Files that survive a power cut: temp file, fsync, rename, fsync of the directory.

Every read is bounded and refuses what is not a regular file, so that a link, a FIFO or a huge file put in the place
of a state file ends in a `StateError` and not in a hang. It also refuses what somebody else may write. A second hard
link is no harm: nothing here is ever changed in place, and whoever may write the file is looked at anyway. Files that
an operator names are read in the same way, only that links are followed, and that their owner may be anybody; who
reads them gives the remedy.

What the disk refuses (`DiskRefused`) says nothing about what is on it, and may be over by itself; so it is not taken
for damage. Only a sector that cannot be read twice is (`StateLost`): that stays so until something else is written.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from enroll.errors import ScansealError, StateDamaged, StateError, StateLost
from enroll.statefile_refusals import (
    check_safe,
    give_back,
    kind_of,
    not_durable,
    not_read,
    not_written,
    owner_of,
    unreadable,
    user_name,
)

STATE_FILE_LIMIT = 1 << 20  # bytes; certificates, chains and records are far smaller
GROUP_DIRECTORY = 0o750  # for directories on the way to what administrators may read

Content = TypeVar("Content")


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
            StateDamaged: Not there, not a regular file, or too large.
            StateUnsafe: A state file that somebody else may write.
            StateLost: The disk cannot read it.
            DiskRefused: No file can be opened.
            StateError: Unreadable for another reason; or one that an operator names is not there.
        """
        return _twice(lambda: self._read(path, limit, follow=follow))

    @staticmethod
    def _read(path: Path, limit: int, *, follow: bool) -> bytes:
        links = 0 if follow else os.O_NOFOLLOW
        try:
            # O_NONBLOCK: opening a FIFO must not wait for a writer.
            descriptor = os.open(path, os.O_RDONLY | links | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if follow and error.errno == errno.ENOENT:
                raise StateError(f"{path} cannot be read: {error.strerror}.", remedy="Restore the file.") from error
            raise not_read(path, error, "Restore the file, or enroll again.") from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise StateDamaged(f"{path} is not a regular file.", remedy="Remove it and enroll again.")
            if not follow:
                check_safe(path, status)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise not_read(path, error) from error
        finally:
            os.close(descriptor)
        if len(data) > limit:
            raise StateDamaged(f"{path} is larger than {limit} bytes.", remedy="Remove it and enroll again.")
        return data

    def target(self, link: Path) -> str | None:
        """What a symbolic link leads to; None where there is nothing.

        Raises:
            StateUnreadable: Not for the user who runs this.
            StateDamaged: It is no link.
            StateUnsafe: It belongs to somebody else.
            StateError: Unreadable for another reason.
        """
        return _twice(lambda: self._target(link))

    @staticmethod
    def _target(link: Path) -> str | None:
        try:
            target = os.readlink(link)
            check_safe(link, os.lstat(link), modes=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise not_read(link, error, "Restore the link, or enroll again.") from error
        return target

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
        return self.mark(path) is not None

    def mark(self, path: Path) -> tuple[int, ...] | None:
        """What differs whenever a file was replaced; None where there is none. Cheap: for noticing a change.

        Raises:
            StateError: That cannot be found out.
        """
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise unreadable(path) from error
        except OSError as error:
            raise StateError(f"{path} cannot be read: {error.strerror}.", remedy="Check the disk.") from error
        return status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def names(self, directory: Path) -> list[str]:
        """The names of everything in a directory, in no order; none where there is no directory.

        Raises:
            StateError: It is no directory, or unreadable.
        """
        return _twice(lambda: self._names(directory))

    @staticmethod
    def _names(directory: Path) -> list[str]:
        try:
            return os.listdir(directory)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise not_read(directory, error) from error

    @contextlib.contextmanager
    def locked(self, path: Path, busy: ScansealError | None) -> Iterator[None]:
        """Keep every other process out that asks for the same lock; it ends with the process, too.

        Args:
            path: The lock file; made where it is missing, its directory is not.
            busy: Raised where another process holds the lock; None for one that is held so short that it is waited for.

        Raises:
            StateError: The lock file cannot be made.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            what, kind = f"{path} cannot be opened: {error.strerror}.", kind_of(error)
            raise kind(what, remedy="Check its permissions, and the disk.") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
            except BlockingIOError as error:
                raise busy or StateError(f"{path} is held by another process.") from error
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
            raise not_written(path, error) from error

    def check_owner(self, path: Path) -> None:
        """Refuse a directory of another user: what we make in it, its owner could not read.

        Raises:
            StateError: `path` is there and belongs to another user.
        """
        owner, user = owner_of(path), os.geteuid()
        if owner is None or owner == user:
            return
        name = user_name(owner)
        raise StateError(
            f"{path} belongs to {name}, and this runs as {user_name(user)}.",
            remedy=f"Run it as that user: runuser -u {name} -- scanseal enroll" if owner else give_back(path),
            code="state-of-another-user",
        )

    def rename(self, source: Path, target: Path) -> None:
        """Move a file or a directory within one file system."""
        with _in_directory_of(target):
            os.rename(source, target)

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
            raise kind_of(error)(f"{path} cannot be removed: {error.strerror}.", remedy="Check the disk.") from error

    def remove_with_leftovers(self, path: Path) -> None:
        """Remove a file, and what a crash has left of it while it was written."""
        for name in self.names(path.parent):
            if name.startswith(f".{path.name}."):
                self.remove(path.parent / name)
        self.remove(path)

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
        with _in_directory_of(path):
            try:
                yield temporary
                _replace(temporary, path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise


@contextlib.contextmanager
def _in_directory_of(path: Path) -> Iterator[None]:
    """Make durable what the block does to the name `path`."""
    try:
        # Before anything has changed: this may fail, too.
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield
            try:
                os.fsync(descriptor)
            except OSError as error:
                raise not_durable(path, error) from error
        finally:
            os.close(descriptor)
    except OSError as error:
        raise not_written(path, error) from error


def _replace(temporary: Path, path: Path) -> None:
    try:
        os.replace(temporary, path)
    except IsADirectoryError:  # nothing of ours, and kept for whoever looks for the cause
        os.rename(path, path.with_name(f".{path.name}.damaged-{secrets.token_hex(8)}"))
        os.replace(temporary, path)


def _twice(read: Callable[[], Content]) -> Content:
    """What lies in a bad sector is lost at the second look, too; what a disk that came late could not say is not."""
    try:
        return read()
    except StateLost:
        return read()


def _make_directory(path: Path, mode: int) -> None:
    path.mkdir(mode=mode, exist_ok=True)
    given = stat.S_IMODE(path.stat().st_mode)
    if given & mode != mode:
        path.chmod(given | mode)  # the umask of whoever runs a command; the set-group-ID bit stays
