"""A scanner as its vendor has left it, for typing what a guide says: root, real users, paths and names of the guide.

What is written to /etc, /var, /usr/local, /opt, /media and /run lies in memory, in a mount namespace; the machine
itself is not changed. In its network namespace every host name of a guide is this machine. systemd does not run, so
`systemctl enable --now` is played: it starts the agent as the user of its unit, and waits for the socket.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.support.agent_process import child_processes, wait_until

ROOT: Final = Path(__file__).parents[2]
TIMEOUT: Final = 120  # seconds, of one command

_UNSHARED: Final = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
_PREPARATION: Final = """
set -euo pipefail
mount -t tmpfs -o mode=755 tmpfs "$folder"
for place in etc var usr/local opt media; do
    mkdir -p "$folder/upper/$place" "$folder/work/$place"
    mount -t overlay overlay -o "lowerdir=/$place,upperdir=$folder/upper/$place,workdir=$folder/work/$place" "/$place"
done
mount -t tmpfs -o mode=755 tmpfs /run
ip link set lo up
for found in source packages python; do
    mkdir "/opt/$found"
    mount --bind "${!found}" "/opt/$found"
done
install -D -m 0644 "$source/systemd/sysusers.d/scanseal.conf" /etc/sysusers.d/scanseal.conf
install -D -m 0644 "$source/systemd/tmpfiles.d/scanseal.conf" /etc/tmpfiles.d/scanseal.conf
printf '127.0.0.1 localhost %s\\n' "$hosts" >/etc/hosts
systemd-sysusers scanseal.conf
systemd-tmpfiles --create scanseal.conf
useradd --no-create-home --groups scanseal ct
install -m 0755 /dev/stdin /usr/local/bin/scanseal <<END
#!/bin/sh
export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/opt/source:/opt/packages LD_LIBRARY_PATH=/opt/python/lib
exec /opt/python/bin/$interpreter -m agent.cli.main "\\$@"
END
install -m 0755 /dev/stdin /usr/local/sbin/systemctl <<'END'
#!/bin/bash
[ "$*" = "enable --now scanseal.socket scanseal.service scanseal-enroll.path scanseal-renew.timer" ] || exit 1
runuser -u scanseal -- sh -c 'umask 0027; exec scanseal agent' >/var/log/agent.log 2>&1 </dev/null &
for _ in {1..200}; do
    [ -S /run/scanseal/sign.sock ] && exit 0
    sleep 0.1
done
cat /var/log/agent.log
exit 1
END
echo ready
exec sleep 600
"""


@dataclass(frozen=True)
class Typed:
    """What became of a command.

    Args:
        code: Its exit code.
        said: What it printed on both streams.
        seconds: How long it took.
    """

    code: int
    said: str
    seconds: float


@dataclass
class UnpackedMachine:
    """The machine; `unpacked_machine` makes one.

    Args:
        keeper: Process whose namespaces are the machine's.
        started: What runs in the background.
    """

    keeper: int
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def path(self, path: str) -> Path:
        """A path of the machine, seen from here."""
        return Path(f"/proc/{self.keeper}/root{path}")

    def put(self, path: str, content: str | bytes, owner: str = "root", mode: int = 0o644) -> None:
        """A file of the machine, as the guides say that it must be."""
        data = content.encode("utf-8") if isinstance(content, str) else content
        done = self._run(["install", "-D", "-o", owner, "-m", f"{mode:o}", "/dev/stdin", path], data, "/")
        assert done.returncode == 0, done.stdout.decode()

    def type(self, command: str, directory: str = "/root") -> Typed:
        """Run a command as root, in bash."""
        began = time.monotonic()
        done = self._run(["bash", "-o", "pipefail", "-c", command], b"", directory)
        return Typed(done.returncode, done.stdout.decode("utf-8", errors="replace"), time.monotonic() - began)

    def start(self, command: str, port: int, directory: str = "/root") -> None:
        """Start a server, and wait until it listens. Nobody else can: the network is the machine's."""
        log = self.path(f"/var/log/server-{port}.log")
        within = self._within(["bash", "-c", f"exec {command}"], directory)
        with log.open("wb") as said:
            process = subprocess.Popen(within, env=self._environment(), stdout=said, stderr=said)
        self.started.append(process)
        wait_until(lambda: process.poll() is not None or port in self._listening())
        assert process.poll() is None, log.read_text("utf-8")

    def _listening(self) -> set[int]:
        tables = [Path(f"/proc/{self.keeper}/net/{name}").read_text("ascii") for name in ("tcp", "tcp6")]
        columns = [line.split() for table in tables for line in table.splitlines()[1:]]
        return {int(found[1].partition(":")[2], 16) for found in columns if found[3] == "0A"}

    def _run(self, command: list[str], data: bytes, directory: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self._within(command, directory),
            env=self._environment(),
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT,
            check=False,
        )

    def _within(self, command: list[str], directory: str) -> list[str]:
        entered = f"umask 022; cd {shlex.quote(directory)} && exec {shlex.join(command)}"
        return ["nsenter", "--mount", "--net", "--pid", f"--target={self.keeper}", "bash", "-c", entered]

    def _environment(self) -> dict[str, str]:
        """That of a root shell."""
        paths = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {"PATH": paths, "HOME": "/root", "LANG": "C.UTF-8"}


@contextmanager
def unpacked_machine(folder: Path, *hosts: str) -> Iterator[UnpackedMachine]:
    """An unpacked scanner for one block.

    Args:
        folder: For it alone; empty.
        hosts: Names of other machines, which are all this one.
    """
    _check_possible()
    environment = {
        **os.environ,
        "folder": str(folder),
        "source": str(ROOT),
        "packages": sysconfig.get_path("purelib"),
        "python": sys.base_prefix,
        "interpreter": f"python3.{sys.version_info.minor}",
        "hosts": " ".join(hosts),
    }
    log = folder.with_suffix(".log")
    with log.open("wb") as said:
        command = [*_UNSHARED, "bash", "-c", _PREPARATION]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=said)
    started: list[subprocess.Popen[bytes]] = []
    try:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n", log.read_text("utf-8")
        (keeper,) = child_processes(process.pid)
        machine = UnpackedMachine(keeper)
        started = machine.started
        yield machine
    finally:
        process.kill()  # and with it, by the kernel, the first process of the namespace, and so all the others
        for ended in (process, *started):
            ended.communicate()


def _check_possible() -> None:
    if os.geteuid() != 0:
        pytest.skip("users and namespaces of a machine of its own need root: run the tests as root")
    for program, package in (("unshare", "util-linux"), ("ip", "iproute2"), ("systemd-sysusers", "systemd")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: apt-get install {package}")
    allowed = subprocess.run([*_UNSHARED, "true"], check=False, capture_output=True)
    if allowed.returncode:
        pytest.skip(f"no namespaces here: {allowed.stderr.decode()}; run where root may make them (CAP_SYS_ADMIN)")
