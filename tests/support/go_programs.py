"""Peers in Go: built once, into a cache outside of the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

_BUILD_SECONDS = 900.0


def cache_of(name: str) -> Path:
    """The folder for the programs of a peer, whose name says which version they are."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "scanseal-peers" / name


def build(cache: Path, programs: Sequence[str], command: Callable[[str], Sequence[str]], sources: Path) -> None:
    """Build programs into the cache; nothing happens where they are there already.

    Args:
        cache: Where they go.
        programs: Their names.
        command: What leaves them in the folder that it is given; that is GOBIN as well.
        sources: Where the command runs.
    """
    if all((cache / program).exists() for program in programs):
        return
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as place:
        environment = {**os.environ, "CGO_ENABLED": "0", "GOBIN": place}
        subprocess.run(command(place), cwd=sources, env=environment, check=True, timeout=_BUILD_SECONDS)
        for program in programs:
            (Path(place) / program).replace(cache / program)


def program_in(cache: Path, program: str, peer: str, builder: str) -> Path:
    """A program; a test that needs it is skipped where it has not been built.

    Args:
        cache: Where it should be.
        program: Its name.
        peer: What it is called in the reason.
        builder: The module that builds it.
    """
    path = cache / program
    if not path.exists():
        need = "" if shutil.which("go") else "install Go 1.25 or later, then "
        pytest.skip(f"{peer} has not been built: {need}python -m {builder}")
    return path


def build_or_exit(build_it: Callable[[], None], peer: str) -> None:
    """For the command line of a peer's module."""
    try:
        build_it()
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"{peer} was not built: {error}")
