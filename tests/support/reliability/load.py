"""Callers that have digests signed as fast as the agent can, in a process of their own.

Every signature is checked with the public key of the certificate that came with it. A gap is the time in which no
signature came back on any connection. What the machine has to do with it is told apart: the kernel counts for each
thread how long it could have run and did not (schedstat), and for each processor of a virtual machine how long its
host had it (steal; both proc(5)).

Run as `python -m tests.support.reliability.load SOCKET AGENT CONNECTIONS`, until standard input ends.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

ROOT = Path(__file__).parents[3]
TIMEOUT = 60.0  # seconds without any answer
_KEPT = 100  # longest gaps
_STEAL = 8  # place in a line of /proc/stat
_TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds; steal is counted in these
_WARM_UP = 20  # answers before the threads of the agent are known

_HEAD = b"POST /v1/sign/digest HTTP/1.1\r\nScanseal-Version: 1\r\nContent-Length: %d\r\n\r\n"


@dataclass(frozen=True)
class Gap:
    """A time without a signature.

    Args:
        at: When it began, on the monotonic clock of the machine.
        seconds: How long it was.
        waited: How much of that threads of caller and agent waited for a processor.
        stolen: How long the host had one of the processors meanwhile, or one tick before; whoever ran on it.
    """

    at: float
    seconds: float
    waited: float
    stolen: float

    @property
    def own(self) -> float:
        """What the agent has to answer for, or the host."""
        return max(0.0, self.seconds - self.waited)


@dataclass
class Report:
    """What the callers have seen.

    Attributes:
        signed: Signatures, all of them right.
        failures: What else came, the first few of it.
        seconds: From the first request to the last answer.
        p99: Of the time of one request, seconds.
        longest: The longest request, seconds.
        pause: The longest gap, whoever is to blame, seconds.
        gaps: Those that the agent has most to answer for.
        generations: Signatures of each.
    """

    signed: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    p99: float = 0.0
    longest: float = 0.0
    pause: float = 0.0
    gaps: list[Gap] = field(default_factory=list)
    generations: Counter[int] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Signatures per second."""
        return self.signed / self.seconds

    @classmethod
    def decode(cls, text: str) -> Report:
        """From what the process prints."""
        values = json.loads(text)
        values["gaps"] = [Gap(*gap) for gap in values["gaps"]]
        values["generations"] = Counter({int(number): count for number, count in values["generations"].items()})
        return cls(**values)

    def encode(self) -> str:
        """As it is printed."""
        return json.dumps({**vars(self), "gaps": [dataclasses.astuple(gap) for gap in self.gaps]})


@contextmanager
def running_load(path: Path, agent: int, connections: int) -> Iterator[Report]:
    """Callers at work; when the block ends, they end, and the report is filled in.

    Args:
        path: The socket.
        agent: Process number of the keyholder.
        connections: How many callers.
    """
    command = [sys.executable, "-m", "tests.support.reliability.load", str(path), str(agent), str(connections)]
    report = Report()
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "signing\n"
            yield report
            process.stdin.close()
            vars(report).update(vars(Report.decode(process.stdout.read())))
        finally:
            process.kill()


class _Threads:
    """How long the threads of agent and caller have waited for a processor."""

    def __init__(self, agent: str) -> None:
        self._caller = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        workers = Path(f"/proc/{agent}/task/{agent}/children").read_text("ascii").split()
        self._keyholder = _threads_of([agent])
        self._workers = _threads_of(workers)
        self._before = self._now()

    def waited(self) -> float:
        """Seconds since the last call: a request passes caller, worker and keyholder, and each may have had to wait."""
        now, before = self._now(), self._before
        self._before = now
        since = [
            max((after - earlier for after, earlier in zip(*values, strict=True)), default=0)
            for values in zip(now, before, strict=True)
        ]
        return sum(since) / 1e9

    def _now(self) -> list[list[int]]:
        return [[_waited(each) for each in group] for group in ([self._caller], self._keyholder, self._workers)]


def _threads_of(processes: Iterable[str]) -> list[int]:
    threads = []
    for process in processes:
        with contextlib.suppress(OSError):  # not for everybody to see
            threads += [
                os.open(thread / "schedstat", os.O_RDONLY) for thread in Path(f"/proc/{process}/task").iterdir()
            ]
    return threads


def _waited(descriptor: int) -> int:
    try:
        return int(os.pread(descriptor, 100, 0).split()[1])
    except OSError:  # the thread has ended
        return 0


class _Host:
    """How long it had the processors."""

    def __init__(self) -> None:
        self._file = os.open("/proc/stat", os.O_RDONLY)
        self._read_at = 0.0
        self._before = self._last = self._now()

    def stolen(self, now: float) -> float:
        """Seconds since the call before, of the processor that it had longest; read once in a tick only."""
        self._before = self._last
        if now - self._read_at >= _TICK:
            self._read_at, self._last = now, self._now()
        return _TICK * max(after - earlier for after, earlier in zip(self._last, self._before, strict=True))

    def _now(self) -> list[int]:
        lines = os.pread(self._file, 1 << 16, 0).splitlines()
        return [int(line.split()[_STEAL]) for line in lines[1:] if line.startswith(b"cpu")]


class _Caller:
    """One connection, on which a request is always under way."""

    def __init__(self, path: str) -> None:
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(TIMEOUT)
        self.connection.connect(path)
        self._received = b""
        self.ask()

    def ask(self) -> None:
        self.digest = os.urandom(32)
        digest = base64.b64encode(self.digest).decode("ascii")
        body = json.dumps({"role": "acquisition", "algorithm": "sha256", "digest": digest}).encode("ascii")
        self.asked = time.monotonic()
        self.connection.sendall(_HEAD % len(body) + body)

    def answer(self) -> tuple[int, bytes] | None:
        """Status and body, as soon as all of it is there."""
        piece = self.connection.recv(1 << 16)
        if not piece:
            return 0, b"closed"
        self._received += piece
        head, separator, body = self._received.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if not separator or len(body) < int(fields[b"content-length"]):
            return None
        self._received = b""
        return int(head.split(b" ", 2)[1]), body


def check(body: bytes, digest: bytes, keys: dict[bytes, rsa.RSAPublicKey]) -> int:
    """The generation that has signed.

    Args:
        body: The answer of the socket.
        digest: What it should have signed.
        keys: By certificate; one that is not there yet is added.

    Raises:
        InvalidSignature: It has not.
    """
    values = json.loads(body)
    certificate = base64.b64decode(values["certificate"])
    if certificate not in keys:
        key = x509.load_der_x509_certificate(certificate).public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        keys[certificate] = key
    signature = base64.b64decode(values["signature"])
    keys[certificate].verify(signature, digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))
    return int(values["key_generation"])


def _sign_on(path: str, agent: int, connections: int) -> Report:
    report, keys = Report(), dict[bytes, rsa.RSAPublicKey]()
    times, threads, host = array("f"), None, _Host()
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        begun = last = time.monotonic()
        for _ in range(connections):
            caller = _Caller(path)
            selector.register(caller.connection, selectors.EVENT_READ, caller)
        under_way, ends = connections, False
        while under_way and not report.failures:
            events = selector.select(TIMEOUT)
            if not events:
                report.failures.append("no answer")
            for event, _ in events:
                caller = event.data
                if caller is None:  # what is under way is answered still: each line of the audit trail has its caller
                    ends = True
                    selector.unregister(sys.stdin)
                    continue
                answer = caller.answer()
                if answer is None:
                    continue
                now = time.monotonic()
                times.append(now - caller.asked)
                waited = threads.waited() if threads else 0.0
                report.gaps = _with(report.gaps, Gap(last, now - last, waited, host.stolen(now)))
                report.pause = max(report.pause, now - last)
                last = now
                try:
                    assert answer[0] == 200, answer
                    report.generations[check(answer[1], caller.digest, keys)] += 1
                    report.signed += 1
                except (AssertionError, InvalidSignature) as error:
                    report.failures.append(repr(error))
                if len(times) == _WARM_UP:
                    print("signing", flush=True)  # noqa: T201 - the parent waits for it
                    threads, report.gaps, report.pause, last = _Threads(str(agent)), [], 0.0, time.monotonic()
                if ends:
                    selector.unregister(caller.connection)
                    under_way -= 1
                else:
                    caller.ask()
    report.seconds = last - begun
    report.p99 = sorted(times)[len(times) * 99 // 100]
    report.longest = max(times)
    return report


def _with(gaps: list[Gap], gap: Gap) -> list[Gap]:
    """The longest, the one that the agent has most to answer for first."""
    if len(gaps) == _KEPT and gap.own <= gaps[-1].own:
        return gaps
    return sorted([*gaps, gap], key=lambda one: -one.own)[:_KEPT]


def main() -> None:
    """Sign until standard input ends, and print what came of it."""
    path, agent, connections = sys.argv[1:]
    print(_sign_on(path, int(agent), int(connections)).encode())  # noqa: T201 - for the parent


if __name__ == "__main__":
    main()
