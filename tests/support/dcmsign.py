"""DCMTK's dcmsign, the second implementation of DICOM signatures."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

import pytest

TIMEOUT_SECONDS: Final = 60
PROGRAM: Final = shutil.which("dcmsign")
needs_dcmsign = pytest.mark.skipif(PROGRAM is None, reason="no dcmsign on the PATH: apt-get install dcmtk")

CREATOR: Final = ("+pc", "-t", "0008,0018")
HASH_OPTIONS: Final = {"SHA256": "+m2", "SHA384": "+m3", "SHA512": "+m5"}


class Exit(IntEnum):
    """What dcmsign's exit codes mean."""

    OK = 0
    INPUT_UNREADABLE = 20
    CREATION_FAILED = 85
    NO_SIGNATURE = 100
    VERIFICATION_FAILED = 101
    POLICY_NOT_MET = 102


@dataclass(frozen=True)
class Run:
    """One run of dcmsign."""

    exit_code: int
    output: str

    @property
    def accepted(self) -> bool:
        """Whether dcmsign was content."""
        return self.exit_code == Exit.OK


def environment() -> dict[str, str]:
    """UTC, because dcmsign compares local time with certificate dates, and the private dictionary."""
    return {**os.environ, "TZ": "UTC", "DCMDICTPATH": ":".join(map(str, dictionaries()))}


def dictionaries() -> list[Path]:
    """Where DCMTK has those of the standard and of private elements."""
    found = sorted(Path("/usr/share").glob("*dcmtk*/*.dic"))
    return [path for path in found if path.name in {"dicom.dic", "private.dic"}]


def run(*arguments: str | Path) -> Run:
    """Run dcmsign, bounded in time."""
    done = subprocess.run(
        [PROGRAM or "dcmsign", *map(str, arguments)],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    return Run(done.returncode, done.stdout.decode("utf-8", "replace"))


def sign(
    source: Path,
    target: Path,
    key: Path,
    certificate: Path,
    *,
    hash_name: str = "SHA256",
    dump: Path | None = None,
    options: Iterable[str] = (),
) -> Run:
    """Sign a data set: every signable element, unless `options` such as CREATOR say otherwise.

    With `dump`, dcmsign writes the byte stream it hashed to that file.
    """
    dumping = ("+d", dump) if dump else ()
    return run("+s", key, certificate, HASH_OPTIONS[hash_name], *options, *dumping, source, target)


def sign_item(source: Path, target: Path, key: Path, certificate: Path, item: str, *, hash_name: str = "SHA256") -> Run:
    """Sign one item of a sequence, named as in `ReferencedImageSequence[0]`."""
    return run("+si", key, certificate, item, HASH_OPTIONS[hash_name], source, target)


def verify(source: Path, trusted: Path, *, require: str = "+rc") -> Run:
    """Verify all signatures; `require` is +rc (a creator signature) or +rg (any signature)."""
    return run("--verify", "+cf", trusted, require, source)
