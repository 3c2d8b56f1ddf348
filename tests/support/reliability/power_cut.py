"""The power goes: a file system on a file, which is copied while programs write to it.

What ext4 has not given to its disk yet is not in the copy. Mounting the copy replays its journal, as the next start of
a scanner does.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_SIZE = 24 << 20  # bytes
_SECONDS = 60
NEVER_BY_ITSELF = ("commit=300", "noauto_da_alloc")  # ext4 writes only what it is asked to, for as long as we look


def make_disk(image: Path) -> None:
    """An empty ext4 in a file."""
    with image.open("wb") as file:
        file.truncate(_SIZE)
    _run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))


@contextmanager
def mounted(image: Path, place: Path, *options: str) -> Iterator[Path]:
    """The disk at a place, for one block."""
    place.mkdir(exist_ok=True)
    _run("mount", "-o", ",".join(("loop", *options)), str(image), str(place))
    try:
        yield place
    finally:
        _run("umount", str(place))


@contextmanager
def cut(image: Path, copy: Path, writers: Sequence[int]) -> Iterator[None]:
    """What the disk holds at this moment; for one block, in which nobody writes.

    Who writes is stopped between two system calls, so that the copy is of one moment; a sync that is under way is
    finished first. What the kernel still holds back is not in it.

    Args:
        image: The disk.
        copy: Where its content goes.
        writers: The processes that write to it; those that have ended are no matter.
    """
    with _stopped(writers):
        before, now = b"", image.read_bytes()
        while before != now:
            before, now = now, image.read_bytes()
        copy.write_bytes(now)
        yield


@contextmanager
def _stopped(processes: Sequence[int]) -> Iterator[None]:
    try:
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGSTOP)
        deadline = time.monotonic() + _SECONDS
        while not all(_state(process) in "TZX" for process in processes):
            assert time.monotonic() < deadline, "who writes does not stop"
            time.sleep(0.0005)
        yield
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)


def _state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text("ascii", "replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def skip_without_disks(folder: Path) -> None:
    """Where there are none, say why."""
    if os.geteuid() != 0:
        pytest.skip("a file system on a file is mounted: run as root")
    for program in ("mkfs.ext4", "mount", "umount"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} on the PATH: apt-get install e2fsprogs mount")
    image = folder / "trial"
    make_disk(image)
    try:
        with mounted(image, folder / "trial-place"):
            pass
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine mounts no file as a disk: allow loop devices ({error.stderr.strip()})")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS)
