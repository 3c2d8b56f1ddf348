"""Options and output that several commands share."""

from __future__ import annotations

import json
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click

from agent.config import Configuration, load
from agent.errors import InputFileError, OutputFileError
from enroll.config import DEFAULT_CONFIGURATION
from enroll.statefile import StateFiles

LARGEST_IN_MEMORY = 256 << 20  # bytes of an instance that is read as a whole

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
def progress(files: Sequence[Path], label: str) -> Iterator[Callable[[int], None]]:
    """A progress bar over the bytes of all files, on the terminal; yields what is told how many more are done."""
    total = sum(file.stat().st_size for file in files if file.is_file())
    with click.progressbar(length=total, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        yield bar.update


def show(result: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Print a result: one line of JSON for programs, or text for people."""
    click.echo(json.dumps(result) if as_json else text)


@contextmanager
def regular_file(path: Path) -> Iterator[BinaryIO]:
    """A regular file, open for reading.

    Raises:
        InputFileError: Not there, or not a regular file.
    """
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise InputFileError(f"{path} cannot be read: {error.strerror}.", remedy="Name a DICOM file.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputFileError(f"{path} is not a regular file.", remedy="Name DICOM files, as FOLDER/*.dcm.")
    with os.fdopen(descriptor, "rb") as file:
        yield file


@contextmanager
def instance_bytes(path: Path) -> Iterator[bytes | memoryview]:
    """The content of a regular file.

    A large file is not read into memory but mapped; nobody should write to it meanwhile.

    Raises:
        InputFileError: Not there, or not a regular file.
    """
    with regular_file(path) as file:
        if os.fstat(file.fileno()).st_size <= LARGEST_IN_MEMORY:
            yield file.read()
            return
        # Not closed here: whoever still looks at a part of it would be cut off. It goes with its last reader.
        yield memoryview(mmap(file.fileno(), 0, access=ACCESS_READ))


def input_files(paths: Sequence[Path]) -> list[Path]:
    """The files that were named, and all regular files below the folders that were, in order of their names.

    Raises:
        click.UsageError: There are none.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(below for below in path.rglob("*") if below.is_file() and not below.is_symlink())
        else:
            files.append(path)
    if not files:
        raise click.UsageError("There is no file in what was named.")
    return files


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
        raise OutputFileError(f"{path} cannot be written: {error.strerror}.", remedy="Choose another place.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
