"""Options and output that several commands share."""

from __future__ import annotations

import json
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BufferedReader
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click

from agent.config import Configuration, load
from agent.errors import InputFileError, OutputFileError
from enroll.config import DEFAULT_CONFIGURATION
from enroll.foreign import printable
from enroll.statefile import StateFiles

LARGEST_IN_MEMORY = 256 << 20  # bytes of an instance that is read as a whole
WORKING_MEMORY = 16 << 20  # bytes; more than most instances have
LONGEST_NAME = 4096  # characters of the name of a file with its folders (PATH_MAX)

Command = TypeVar("Command", bound=Callable[..., Any])


def config_option(command: Command) -> Command:
    """`--config FILE`."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path, readable=False),
        default=DEFAULT_CONFIGURATION,
        show_default=True,
        help="The configuration file.",
    )(command)


def json_option(command: Command) -> Command:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, for programs.")(command)


def configuration(path: Path) -> Configuration:
    """The configuration, checked.

    Raises:
        ConfigurationError: It cannot be used.
    """
    return load(path, StateFiles())


@contextmanager
def progress(files: Sequence[Path], label: str, *, hidden: bool = False) -> Iterator[Callable[[int], None]]:
    """A progress bar over the bytes of all files, on the terminal; yields what is told how many more are done."""
    hidden = hidden or not sys.stderr.isatty()
    total = 0 if hidden else sum(map(size_of, files))
    with click.progressbar(length=total, label=label, file=sys.stderr, hidden=hidden) as bar:
        yield bar.update


def size_of(path: Path) -> int:
    """Bytes of a regular file; 0 of what is none, or cannot be looked at."""
    status = _status(path)
    return status.st_size if status and stat.S_ISREG(status.st_mode) else 0


def any_mapped(files: Iterable[Path]) -> bool:
    """Whether one of the files is so large that `instance_bytes` maps it.

    If it becomes shorter meanwhile, the process that looks at it dies by SIGBUS: it should be one that may.
    """
    return any(size_of(file) > LARGEST_IN_MEMORY for file in files)


def echo_over_progress(text: str) -> None:
    """Print lines where a progress bar may stand; the bar is drawn anew below them when it moves on."""
    if sys.stdout.isatty() and sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
    click.echo(text)


def show(result: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Print a result: one line of JSON for programs, or text for people."""
    click.echo(json.dumps(result) if as_json else text)


@contextmanager
def regular_file(path: Path) -> Iterator[BufferedReader]:
    """A regular file, open for reading.

    Raises:
        InputFileError: Not there, or not a regular file.
    """
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputFileError(f"{shown_name(path)} is not a regular file.", remedy="Name DICOM files, as FOLDER/*.dcm.")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def first_bytes(path: Path, count: int) -> bytes:
    """The first bytes of a regular file.

    Raises:
        InputFileError: Not there, not a regular file, or it cannot be read.
    """
    with regular_file(path) as file:
        return _read(file, path, count)


@contextmanager
def instance_bytes(path: Path, into: bytearray | None = None) -> Iterator[bytes | memoryview]:
    """The content of a regular file.

    A large file is not read into memory but mapped; nobody should write to it meanwhile.

    Args:
        path: The file.
        into: Memory for files that fit it, used again for each of them: to touch fresh memory costs as much as to hash
            it. What was read there is gone with the next file.

    Raises:
        InputFileError: Not there, not a regular file, or it cannot be read.
    """
    with regular_file(path) as file:
        content = _content(file, path, into)
    yield content


def shown_name(path: Path) -> str:
    """The name of a file in a message or a result for people: whoever named the file shall not write the result."""
    return printable(str(path), LONGEST_NAME)


def _content(file: BufferedReader, path: Path, into: bytearray | None) -> bytes | memoryview:
    size = os.fstat(file.fileno()).st_size
    if into is not None and size < len(into):
        return memoryview(into)[: _read_into(file, path, memoryview(into)[: size + 1])]
    if size <= LARGEST_IN_MEMORY:
        return _read(file, path)
    try:
        # Never closed: whoever still looks at a part of it would be cut off. It goes with its last reader.
        return memoryview(mmap(file.fileno(), 0, access=ACCESS_READ))
    except OSError as error:
        raise _unreadable(path, error) from error


def _read(file: BufferedReader, path: Path, count: int = -1) -> bytes:
    try:
        return file.read(count)
    except OSError as error:  # a damaged disk, a file server that has gone
        raise _unreadable(path, error) from error


def _read_into(file: BufferedReader, path: Path, memory: memoryview) -> int:
    try:
        return file.readinto(memory)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> InputFileError:
    return InputFileError(f"{shown_name(path)} cannot be read: {error.strerror}.", remedy="Name a DICOM file.")


def input_files(paths: Sequence[Path]) -> list[Path]:
    """The files that were named, and all regular files below the folders that were, in order of their names.

    A folder below that cannot be listed, or is a link, stands in for the files in it: reading it will fail, and so be
    reported. Links to files are followed, as whoever looks at the images would.

    Raises:
        click.UsageError: There are none.
    """
    files: list[Path] = []
    for path in paths:
        status = _status(path)
        files += sorted(_files_below(path)) if status and stat.S_ISDIR(status.st_mode) else [path]
    if not files:
        raise click.UsageError(f"There is no file in {', '.join(map(shown_name, paths))}. Name DICOM files or folders.")
    return files


def _files_below(folder: Path) -> Iterator[Path]:
    unlisted: list[str] = []
    for parent, folders, names in os.walk(folder, onerror=lambda error: unlisted.append(error.filename)):
        yield from (path for name in folders if (path := Path(parent, name)).is_symlink())
        for path in (Path(parent, name) for name in names):
            status = _status(path)
            if status is None or stat.S_ISREG(status.st_mode):
                yield path
    yield from map(Path, unlisted)


def _status(path: Path) -> os.stat_result | None:
    with suppress(OSError):
        return path.stat()
    return None


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file for output that appears under its name only when all of it is written.

    Raises:
        OutputFileError: It cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        what = f"{shown_name(path)} cannot be written: {error.strerror}."
        raise OutputFileError(what, remedy="Choose another place.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
