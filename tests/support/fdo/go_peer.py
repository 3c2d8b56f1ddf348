"""A server, a device and a verifier of vouchers of FIDO Device Onboard, on the go-fdo library.

Their sources are in tests/interop/fdo. `python -m tests.support.fdo.go_peer` builds them once into a cache outside of
the repository; without Go, or before that, the tests that need them are skipped.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support import go_programs
from tests.support.swtpm import listening_ports

SOURCES: Final = Path(__file__).parents[2] / "interop" / "fdo"

_PROGRAMS = ("server", "device", "voucher")
_START_SECONDS = 30.0
_DEVICE_SECONDS = 60.0


@dataclass(frozen=True)
class GoServer:
    """A running manufacturer, rendezvous server and owner.

    Args:
        directory: All files of it; each voucher is <guid>.pem.
        port: Of HTTP, on this machine only.
    """

    directory: Path
    port: int

    @property
    def url(self) -> str:
        """Of all its roles."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> Path:
        """The certificates of the CA that its owners issue from."""
        return self.directory / "ca.pem"

    @property
    def owners_file(self) -> Path:
        """The root that the certificates of manufacturer and owners lead to."""
        return self.directory / "owners.pem"

    @property
    def reported(self) -> list[dict[str, Any]]:
        """What devices have told it in messages 255."""
        return [line for line in _lines(self.directory) if "error" in line]

    def voucher(self, guid: bytes) -> bytes:
        """A voucher that somebody has or had there, as PEM."""
        return (self.directory / f"{guid.hex()}.pem").read_bytes()


@dataclass(frozen=True)
class GoDevice:
    """What a run of the device came to.

    Args:
        onboardings: One for each owner: guid, seconds, bytes, certificates.
        failure: What it says; empty where all went well.
    """

    onboardings: tuple[dict[str, Any], ...]
    failure: str


def build() -> None:
    """Build all programs into the cache; nothing happens where they are there already."""
    folders = [f"./{program}" for program in _PROGRAMS]
    go_programs.build(
        _cache(),
        _PROGRAMS,
        lambda place: ["go", "build", "-trimpath", "-buildvcs=false", "-o", place, *folders],
        SOURCES,
    )


@contextmanager
def running_go_server(directory: Path, *options: str) -> Iterator[GoServer]:
    """A server for one block.

    Args:
        directory: For it alone; it is made.
        options: See tests/interop/fdo/server/main.go.
    """
    program = str(_program("server"))
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "said").open("wb") as said, (directory / "log").open("wb") as log:
        command = [program, "-directory", str(directory), *options]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=log)
    try:
        yield GoServer(directory, _port(process, directory))
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run_go_device(manufacturer: str, *options: str) -> GoDevice:
    """A new device: from its manufacturer to its owners.

    Args:
        manufacturer: Address of the server of the factory.
        options: See tests/interop/fdo/device/main.go.
    """
    command = go_device_command(manufacturer, *options)
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_DEVICE_SECONDS, check=False
    )
    onboardings = tuple(json.loads(line) for line in done.stdout.splitlines())
    return GoDevice(onboardings, done.stderr if done.returncode else "")


def run_go_voucher(*files: Path) -> subprocess.CompletedProcess[bytes]:
    """What the verifier of vouchers says, or who passes them on; see tests/interop/fdo/voucher/main.go."""
    command = [str(_program("voucher")), *map(str, files)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_DEVICE_SECONDS, check=False)


def go_device_command(manufacturer: str, *options: str) -> list[str]:
    """What starts a new device; see `run_go_device`."""
    return [str(_program("device")), "-manufacturer", manufacturer, *options]


def _program(name: str) -> Path:
    return go_programs.program_in(_cache(), name, f"The {name} on go-fdo", "tests.support.fdo.go_peer")


def _cache() -> Path:
    """By what is built, so that changed sources are built anew."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.rglob("*")):
        if path.suffix in (".go", ".mod", ".sum"):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(SOURCES)} {len(content)}\n".encode() + content)
    return go_programs.cache_of(f"go-fdo-{digest.hexdigest()[:16]}")


def _port(process: subprocess.Popen[bytes], directory: Path) -> int:
    """What it says, if the process itself listens there."""
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        said = _lines(directory)
        if said and said[0]["port"] in listening_ports(process.pid):
            return int(said[0]["port"])
        time.sleep(0.02)
    raise AssertionError(f"The server did not start: {(directory / 'log').read_text('utf-8')}")


def _lines(directory: Path) -> Sequence[dict[str, Any]]:
    whole, _, _ = (directory / "said").read_text("utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


if __name__ == "__main__":
    go_programs.build_or_exit(build, "A peer on go-fdo")
