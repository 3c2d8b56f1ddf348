"""Programs that handle images between signing and verifying: DCMTK's tools, each from bytes to bytes."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.dcmsign import environment

TIMEOUT_SECONDS: Final = 60
FILTERS: Final = ("dcmconv", "dcmcjpeg", "dcmdjpeg", "dcmcrle", "dcmdrle", "dcmcjpls", "dcmdjpls")
PROGRAMS: Final = (*FILTERS, "dcmodify", "storescp", "storescu", "dcmsign")
MISSING: Final = [program for program in PROGRAMS if shutil.which(program) is None]
needs_dcmtk = pytest.mark.skipif(bool(MISSING), reason=f"no {' '.join(MISSING)} on the PATH: apt-get install dcmtk")


class ToolFailed(Exception):
    """A program ended with an error, or not at all."""


def run(*command: str | Path, dictionary: Path | None = None) -> str:
    """Run a program, bounded in time, and return what it printed; with another dictionary than its own if wanted."""
    other = {"DCMDICTPATH": str(dictionary)} if dictionary else {}
    done = subprocess.run(
        list(map(str, command)),
        env=environment() | other,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    output = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        raise ToolFailed(f"{command[0]} ended with {done.returncode}: {output}")
    return output


def version(program: str) -> str:
    """The version of a DCMTK program, such as 3.6.7."""
    found = re.search(r"v(\d+(?:\.\d+)+)", run(program, "--version"))
    return found[1] if found else ""


def filtered(data: bytes, program: str, *options: str, dictionary: str = "") -> bytes:
    """What one of FILTERS makes of an instance, with the text of a dictionary in place of its own if wanted."""
    with tempfile.TemporaryDirectory() as folder:
        source, target, other = (Path(folder) / name for name in ("source.dcm", "target.dcm", "other.dic"))
        source.write_bytes(data)
        other.write_text(dictionary, "utf-8")
        run(program, *options, source, target, dictionary=other if dictionary else None)
        return target.read_bytes()


def modified(data: bytes, *options: str) -> bytes:
    """What dcmodify makes of an instance."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "instance.dcm"
        file.write_bytes(data)
        run("dcmodify", "-nb", *options, file)
        return file.read_bytes()


def sent(data: bytes, sender: Sequence[str] = (), receiver: Sequence[str] = ()) -> bytes:
    """What storescp writes of an instance that storescu sends to it by C-STORE (PS3.4 B)."""
    with tempfile.TemporaryDirectory() as folder:
        source, archive = Path(folder) / "source.dcm", Path(folder) / "archive"
        source.write_bytes(data)
        archive.mkdir()
        with storage(archive, receiver) as port:
            run("storescu", *sender, "127.0.0.1", str(port), source)
        (received,) = archive.iterdir()
        return received.read_bytes()


@contextmanager
def storage(archive: Path, options: Sequence[str]) -> Iterator[int]:
    """A storescp that writes to a folder; the port it listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = ("storescp", *options, "--output-directory", str(archive), str(port))
    with subprocess.Popen(
        command, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_for(process, port)
            yield port
        finally:
            process.terminate()


def wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    """Until the process accepts connections."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            time.sleep(0.01)
        else:
            return
    raise ToolFailed(f"storescp does not listen on port {port}")
