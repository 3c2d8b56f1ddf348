"""Files that survive a power cut: temp file, fsync, rename, fsync of the directory.

Every read is bounded and refuses what is not a regular file, so that a link, a FIFO or a huge file put in the place
of a state file ends in a `StateError` and not in a hang.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from enroll.errors import StateError

STATE_FILE_LIMIT = 1 << 20  # bytes; certificates, chains and records are far smaller


class StateFiles:
    """The file operations of the identity directory. Tests replace it with one that fails on demand."""

    def read(self, path: Path, limit: int = STATE_FILE_LIMIT) -> bytes:
        """The content of a regular file of at most `limit` bytes.

        Raises:
            StateError: Not there, not a regular file, too large, or unreadable.
        """
        try:
            # O_NONBLOCK: opening a FIFO must not wait for a writer.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
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
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
            self.sync_directory(path.parent)
        except OSError as error:
            raise _not_written(path, error) from error

    def point(self, link: Path, target: str) -> None:
        """Make the symbolic link `link` lead to `target` in one step."""
        temporary = link.with_name(f".{link.name}.{secrets.token_hex(8)}")
        try:
            os.symlink(target, temporary)
            try:
                os.replace(temporary, link)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
            self.sync_directory(link.parent)
        except OSError as error:
            raise _not_written(link, error) from error

    def make_directory(self, path: Path, mode: int = 0o700) -> None:
        """Make `path` and its parents where they are missing."""
        try:
            missing = [p for p in (path, *path.parents) if not p.exists()]
            for directory in reversed(missing):
                directory.mkdir(mode=mode, exist_ok=True)
                self.sync_directory(directory.parent)
        except OSError as error:
            raise _not_written(path, error) from error

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


def _not_written(path: Path, error: OSError) -> StateError:
    return StateError(
        f"{path} cannot be written: {error.strerror}.",
        remedy="Check free space and permissions; what was there before is still in use.",
    )
