"""No key and no PIN can be read from a worker, a core dump, or by another process of the same user."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from agent.cli import exits
from agent.client import SigningClient
from enroll.algorithms import KeyAlgorithm
from enroll.keystore.memory import MemoryKeyStore
from tests.support.agent_process import (
    ROOT,
    Agent,
    Scanner,
    needs_root_to_look_inside,
    new_scanner,
    running_agent,
)
from tests.support.dicom_samples import ct_slice
from tests.support.other_user import NOBODY
from tests.support.process_memory import forms_of, holds, holds_prime_of

PASSPHRASE = b"correct horse battery staple"

_TARGET = """
import ctypes, os, sys, time
from agent.daemon.hardening import harden
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE: setuid has cleared it, and a program that is started has it set
if sys.argv[2] == "hardened":
    harden()
print("ready", flush=True)
time.sleep(60)
"""

_SPY = """
import ctypes, os, sys
pid = int(sys.argv[2])
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
def opened(name):
    try:
        open(f"/proc/{pid}/{name}", "rb").close()
        return "read"
    except PermissionError:
        return "refused"
libc = ctypes.CDLL(None)
attached = "read" if libc.ptrace(16, pid, 0, 0) == 0 else "refused"  # PTRACE_ATTACH
print(opened("mem"), opened("environ"), attached)
"""


# A limit for locked memory, and nothing that lets root go beyond it: PR_CAPBSET_DROP of CAP_IPC_LOCK.
_WITHOUT_ROOM = """
import ctypes, os, resource, sys
ctypes.CDLL(None).prctl(24, 14, 0, 0, 0)
resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 16, 1 << 16))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Scanner]:
    with new_scanner(tmp_path) as scanner:
        scanner.enroll()
        yield scanner


@pytest.fixture
def agent(scanner: Scanner) -> Iterator[Agent]:
    """An agent that has signed with each of its workers."""
    with running_agent(scanner) as agent:
        for _ in range(4):
            with SigningClient(agent.socket) as client:
                client.splice_instance(ct_slice(32, 32), role="acquisition")
        yield agent


@pytest.fixture
def secrets(scanner: Scanner) -> list[bytes]:
    """What nobody but the keyholder may have."""
    (file,) = (scanner.state / "keys").glob("*.pem")
    key = serialization.load_pem_private_key(file.read_bytes(), PASSPHRASE)
    assert isinstance(key, rsa.RSAPrivateKey)
    return [*forms_of(key), PASSPHRASE]


@needs_root_to_look_inside
def test_the_search_finds_the_key_where_it_is(agent: Agent, secrets: list[bytes]) -> None:
    """Otherwise the tests below would prove nothing."""
    assert holds(agent.process.pid, secrets[:-1])


@needs_root_to_look_inside
def test_no_worker_has_a_key_or_a_passphrase_in_its_memory(agent: Agent, secrets: list[bytes]) -> None:
    for worker in agent.workers():
        assert not holds(worker, secrets)
        for name in ("environ", "cmdline"):
            assert not any(secret in Path(f"/proc/{worker}/{name}").read_bytes() for secret in secrets)


@needs_root_to_look_inside
def test_no_argument_or_variable_of_the_keyholder_is_a_secret(agent: Agent, secrets: list[bytes]) -> None:
    for name in ("environ", "cmdline"):
        assert not any(secret in Path(f"/proc/{agent.process.pid}/{name}").read_bytes() for secret in secrets)


@needs_root_to_look_inside
def test_a_core_dump_of_a_worker_holds_no_key_and_no_passphrase(
    agent: Agent, secrets: list[bytes], tmp_path: Path
) -> None:
    """Taken by a debugger: the worker itself leaves none."""
    if shutil.which("gcore") is None:
        pytest.skip("gcore is missing: apt-get install gdb")
    worker = agent.workers()[0]
    taken = subprocess.run(
        ["gcore", "-a", "-o", str(tmp_path / "core"), str(worker)], capture_output=True, text=True, check=False
    )
    dump = tmp_path / f"core.{worker}"
    assert dump.exists(), taken.stderr

    data = dump.read_bytes()
    assert b"scanseal" in data
    assert not any(secret in data for secret in secrets)


@needs_root_to_look_inside
def test_a_key_that_is_destroyed_is_gone_from_memory() -> None:
    store = MemoryKeyStore()
    uri = store.generate("short-lived", KeyAlgorithm.RSA_2048)
    public_key = store.load(uri).public_key()
    assert isinstance(public_key, rsa.RSAPublicKey)
    assert holds_prime_of(os.getpid(), public_key)

    store.destroy(uri)
    gc.collect()
    assert not holds_prime_of(os.getpid(), public_key)


def test_a_keyholder_that_crashes_leaves_no_core_dump(scanner: Scanner) -> None:
    with running_agent(scanner) as agent:
        pid = agent.process.pid
        agent.process.send_signal(signal.SIGABRT)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

        assert ended is not None
        assert (ended.si_code, ended.si_status) == (os.CLD_KILLED, signal.SIGABRT)  # otherwise CLD_DUMPED
        agent.process.wait()


@pytest.mark.parametrize(("kind", "seen"), [("plain", "read read read"), ("hardened", "refused refused refused")])
def test_another_process_of_the_same_user_cannot_look_inside(kind: str, seen: str) -> None:
    """prctl(2), PR_SET_DUMPABLE; ptrace(2)."""
    user = NOBODY if os.geteuid() == 0 else os.geteuid()
    if os.geteuid() != 0 and Path("/proc/sys/kernel/yama/ptrace_scope").exists():
        pytest.skip("this kernel lets nobody but root trace what is not its child: run as root")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", _TARGET, str(user), kind], env=environment, stdout=subprocess.PIPE, text=True
    ) as target:
        try:
            assert target.stdout is not None
            assert target.stdout.readline() == "ready\n"
            spied = subprocess.run(
                [sys.executable, "-c", _SPY, str(user), str(target.pid)], capture_output=True, text=True, check=True
            )
        finally:
            target.kill()
    if kind == "plain" and spied.stdout.strip() != seen:
        pytest.skip("this machine does not let a user trace its own processes, so nothing can be compared")
    assert spied.stdout.strip() == seen


_COMMAND = """
import ctypes, resource, sys
from agent.cli.main import run
run(sys.argv[1:])
print(ctypes.CDLL(None).prctl(3), *resource.getrlimit(resource.RLIMIT_CORE))  # PR_GET_DUMPABLE
"""


@pytest.mark.parametrize("command", [["enroll", "est"], ["renew"], ["check"]])
def test_every_command_that_loads_keys_protects_its_memory(command: list[str], tmp_path: Path) -> None:
    """As soon as it begins; the CA may let it wait for long."""
    arguments = [*command, "--config", str(tmp_path / "nothing.toml")]
    ended = subprocess.run(
        [sys.executable, "-c", _COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert ended.stdout.splitlines()[-1] == "0 0 0"


# --- locked memory


def locked_bytes(pid: int) -> int:
    """VmLck of a process (proc(5))."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmLck")).split()[1]) << 10


def test_the_keyholder_locks_its_memory_and_says_so(agent: Agent) -> None:
    """mlockall(2)."""
    with SigningClient(agent.socket) as client:
        locked = client.status()["memory_locked"]
    if not locked:
        assert "LimitMEMLOCK=infinity" in agent.log.read_text("utf-8")
        pytest.skip("the limit for locked memory is too low: run as root, or with `ulimit -l unlimited`")

    assert locked_bytes(agent.process.pid) > 10 << 20
    assert [locked_bytes(worker) for worker in agent.workers()] == [0, 0]


def test_without_room_for_locked_memory_a_key_in_memory_is_refused(tmp_path: Path) -> None:
    """Keys in memory are never on disk, the swap included."""
    with new_scanner(tmp_path) as scanner:
        configuration = scanner.configure(**{"identity.signing": {"key_store": "memory"}})
        agent = ["-m", "agent.cli.main", "agent", "--config", str(configuration)]
        refused = subprocess.run(
            [sys.executable, "-c", _WITHOUT_ROOM, *agent], cwd=ROOT, capture_output=True, text=True, check=False
        )

    assert refused.returncode == exits.CONFIGURATION
    assert "cannot be locked" in refused.stderr
    assert "LimitMEMLOCK=infinity" in refused.stderr
