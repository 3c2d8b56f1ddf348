"""Simulated TPMs of the tests' own: each with its own process, ports and state, and nothing outside its directory.

A simulator serves one connection at a time, and does not swap objects in and out of its memory. For several processes
put a resource manager in front, as the kernel does on a device.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

import pytest

START_SECONDS = 20.0

_HOST = "127.0.0.1"
_LISTENING = "0A"  # the state in /proc/net/tcp
_SESSION_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
  </policy>
</busconfig>
"""


class SwTpm:
    """A simulated TPM 2.0; `running_swtpm` makes one.

    Args:
        directory: Everything of it lies below.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.state.mkdir(parents=True, exist_ok=True)
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def tcti(self) -> str:
        """How it is reached, in the words of the TPM software stack."""
        return f"swtpm:host={_HOST},port={self.port}"

    @property
    def ek_issuer(self) -> Path:
        """The certificate that issued the EK certificates, if the TPM was manufactured."""
        return self.directory / "factory" / "issuercert.pem"

    @property
    def ek_root(self) -> Path:
        """The self-signed certificate above `ek_issuer`."""
        return self.directory / "factory" / "swtpm-localca-rootca-cert.pem"

    def start(self) -> None:
        """Power on, with TPM2_Startup(CLEAR); on the same ports as before."""
        assert self.process is None, "the TPM is on already"
        port = self.port or two_free_ports()
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.state}"]
        command += ["--server", f"type=tcp,port={port},bindaddr={_HOST}"]
        # The software stack finds the control channel on the next port, always.
        command += ["--ctrl", f"type=tcp,port={port + 1},bindaddr={_HOST}"]
        command += ["--flags", "not-need-init,startup-clear", "--log", f"file={self.directory / 'swtpm.log'}"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self.port = port
        _wait_for(self.process, lambda process: {port, port + 1} <= listening_ports(process.pid), "swtpm")

    def stop(self) -> None:
        """Power off, without a warning; what is not stored in the TPM is lost."""
        if self.process is not None:
            _end(self.process, signal.SIGKILL)
            self.process = None

    def reset(self) -> None:
        """TPM Reset: power off and on."""
        self.stop()
        self.start()

    def clear(self) -> None:
        """TPM2_Clear: a new storage seed, so that no key that was made before can be loaded; after a reset."""
        self.reset()
        self.run("tpm2_clear", "-c", "l")

    def lock_out(self) -> None:
        """Make the dictionary-attack protection refuse every use of what it protects; after a reset."""
        self.reset()
        self.run("tpm2_dictionarylockout", "--setup-parameters", "--max-tries=1", "--recovery-time=86400")
        protected = str(self.directory / "protected.context")
        self.run("tpm2_createprimary", "-C", "o", "-p", "right", "-c", protected)
        wrong = self._tool("tpm2_create", "-C", protected, "-P", "wrong", "-u", "public", "-r", "private")
        assert wrong.returncode != 0
        assert b"inLockout:                 1" in self.run("tpm2_getcap", "properties-variable")
        self.run("tpm2_flushcontext", "--transient-object")

    def run(self, *command: str) -> bytes:
        """What one of the tpm2-tools says; only while nobody else is connected."""
        done = self._tool(*command)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    def _tool(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        environment = {**os.environ, "TPM2TOOLS_TCTI": self.tcti}
        return subprocess.run(
            command, env=environment, cwd=self.directory, capture_output=True, check=False, timeout=60
        )


class ResourceManager:
    """A resource manager in user space, on the D-Bus of this process; `resource_manager` makes one.

    Args:
        tpm: What it manages; nobody else has its port, so the name on the bus holds it.
        bus: The socket of that D-Bus.
        log: Gets what it says.
    """

    def __init__(self, tpm: SwTpm, bus: Path, log: BinaryIO) -> None:
        name = f"scanseal.tests.Tabrmd{tpm.port}"
        self.tcti = f"tabrmd:bus_name={name},bus_type=session"
        self.environment = {"DBUS_SESSION_BUS_ADDRESS": f"unix:path={bus}"}
        self._command = ["tpm2-abrmd", "--session", f"--dbus-name={name}", "--flush-all", f"--tcti={tpm.tcti}"]
        if os.geteuid() == 0:
            self._command.append("--allow-root")
        self._log = log
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        environment = {**os.environ, **self.environment}
        self.process = subprocess.Popen(self._command, env=environment, stdout=self._log, stderr=self._log)
        _wait_for(self.process, lambda _: self._answers(), "tpm2-abrmd")

    def stop(self) -> None:
        """End it; whoever is connected loses what was loaded."""
        _end(self.process, signal.SIGTERM)

    def run(self, *command: str) -> bytes:
        """What one of the tpm2-tools says through it."""
        environment = {**os.environ, **self.environment, "TPM2TOOLS_TCTI": self.tcti}
        return subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60).stdout

    def _answers(self) -> bool:
        try:
            return bool(self.run("tpm2_getcap", "properties-fixed"))
        except subprocess.CalledProcessError:
            return False


@contextmanager
def running_swtpm(directory: Path, *, manufactured: bool = False) -> Iterator[SwTpm]:
    """A simulated TPM for one block.

    Args:
        directory: For it alone.
        manufactured: Whether it has endorsement keys with certificates; takes seconds.
    """
    _need("swtpm", "swtpm")
    _need("tpm2_clear", "tpm2-tools")
    tpm = SwTpm(directory)
    if manufactured:
        _manufacture(tpm)
    try:
        tpm.start()
        yield tpm
    finally:
        tpm.stop()


@contextmanager
def resource_manager(tpm: SwTpm, directory: Path) -> Iterator[ResourceManager]:
    """A resource manager in front of `tpm`; nobody else may be connected to the TPM.

    Args:
        tpm: A running one.
        directory: For its log.
    """
    _need("tpm2-abrmd", "tpm2-abrmd")
    _need("dbus-daemon", "dbus-daemon")
    with (directory / "abrmd.log").open("wb") as log:
        manager = ResourceManager(tpm, _bus_of_this_process(), log)
        try:
            yield manager
        finally:
            manager.stop()


@cache
def _bus_of_this_process() -> Path:
    """The socket of a D-Bus that lives as long as this process: GLib connects to one session bus, once and for all."""
    ends = contextlib.ExitStack()
    atexit.register(ends.close)
    directory = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="bus-")))
    bus_socket, configuration = directory / "bus", directory / "bus.conf"
    configuration.write_text(_SESSION_BUS.format(socket=bus_socket), "utf-8")
    bus = subprocess.Popen(["dbus-daemon", "--nofork", f"--config-file={configuration}"], stderr=subprocess.DEVNULL)
    ends.callback(_end, bus, signal.SIGTERM)
    _wait_for(bus, lambda _: bus_socket.exists(), "dbus-daemon")
    return bus_socket


def _manufacture(tpm: SwTpm) -> None:
    _need("swtpm_setup", "swtpm-tools")
    factory = tpm.directory / "factory"
    factory.mkdir()
    authority, options, setup = factory / "localca.conf", factory / "localca.options", factory / "setup.conf"
    authority.write_text(
        f"statedir = {factory}\nsigningkey = {factory / 'signkey.pem'}\nissuercert = {tpm.ek_issuer}\n"
        f"certserial = {factory / 'certserial'}\n",
        "utf-8",
    )
    options.write_text("--platform-manufacturer scanseal\n--platform-version 1\n--platform-model tests\n", "utf-8")
    setup.write_text(
        f"create_certs_tool = {shutil.which('swtpm_localca')}\ncreate_certs_tool_config = {authority}\n"
        f"create_certs_tool_options = {options}\nactive_pcr_banks = sha256\n",
        "utf-8",
    )
    command = ["swtpm_setup", "--tpm2", "--tpmstate", str(tpm.state), "--create-ek-cert", "--config", str(setup)]
    command += ["--logfile", str(factory / "setup.log"), "--vmid", "tests"]
    if os.geteuid() == 0:
        command += ["--runas", "root"]  # another user could not write into our directory
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    log = factory / "setup.log"
    assert done.returncode == 0, log.read_text("utf-8") if log.exists() else done.stderr


def _need(program: str, package: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on the PATH: apt-get install {package}")


def two_free_ports() -> int:
    """The first of two neighbouring ports that nobody listens on."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind((_HOST, 0))
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind((_HOST, port + 1))
                return port


def listening_ports(pid: int) -> set[int]:
    """The TCP ports that a process itself listens on: proof that no other process answers there."""
    own = set()
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            own.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]]
    return {int(row[1].partition(":")[2], 16) for row in rows if row[3] == _LISTENING and row[9] in own}


def _wait_for(process: subprocess.Popen[bytes], ready: Callable[[subprocess.Popen[bytes]], bool], name: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready(process):
        assert process.poll() is None, f"{name} ended with {process.returncode}"
        assert time.monotonic() < deadline, f"{name} did not start in {START_SECONDS} s"
        time.sleep(0.02)


def _end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    process.send_signal(how)
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
