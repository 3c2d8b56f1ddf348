"""The part of scripts/bench about FIDO Device Onboard: TO2 with a certificate, next to go-fdo's device.

Both devices are at the same server, in turns: first that of go-fdo, then our evaluation server. Each server and the
device of go-fdo are processes of their own; ours runs in this one, and is measured in two ways. The session is what the
device of go-fdo does, and so are its time and bytes. The flow is what a scanner does: it judges the certificate, and
what has to survive a power cut is on the disk before the session ends. Neither has a rendezvous server to ask.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from enroll import csr
from enroll.algorithms import KeyAlgorithm
from enroll.clock import SystemClock
from enroll.csr import CertificateRequest, Usage
from enroll.est.attributes import WantedAttributes
from enroll.fdo.certificate_module import CertificateModule
from enroll.fdo.devmod import DeviceDescription
from enroll.fdo.key_exchange import KeyExchangeSuite
from enroll.fdo.messages import ErrorMessage, MessageType
from enroll.fdo.public_key import KeyEncoding
from enroll.fdo.to2 import Session, Terms
from enroll.fdo.transport import Channel, HttpChannel, Pins, Received, context_for
from enroll.fdo.tunnel import CipherSuite
from enroll.flows.base import Enrollment, Issued
from enroll.flows.fdo import FdoFlow
from enroll.identity import IdentityName
from tests.support.fdo.go_matrix import Kind
from tests.support.fdo.go_peer import go_device_command, running_go_server
from tests.support.fdo.scanner import FdoScanner

ROUNDS = 20
AIM = 2.0  # times the wall time of go-fdo's device
TIMEOUT = 60.0  # seconds of an exchange: the first waits for RSA keys of the server
SUITES = (
    (KeyAlgorithm.P_256, KeyExchangeSuite.ECDH256),
    (KeyAlgorithm.P_384, KeyExchangeSuite.ECDH384),
    (KeyAlgorithm.RSA_2048, KeyExchangeSuite.DHKEX_ID14),
)
SCANSEAL = (sys.executable, "-m", "agent.cli.main")
CONFIGURATION = """\
state_directory = "{folder}/state"
[device]
serial_number = "{device.serial_number}"
model = "{device.model}"
[keystore.software]
passphrase_file = "{folder}/passphrase"
[identity.signing]
key_store = "memory"
[fdo]
renewal = "est"
[est]
url = "https://est.invalid"
anchor_file = "{folder}/anchors.pem"
"""


@dataclass(frozen=True)
class Cost:
    """What one onboarding took.

    Args:
        seconds: On the clock.
        cpu_seconds: Of this side.
        messages: How many were sent.
        sent, received: Bytes of them, without the heads of HTTP.
        disk_seconds: The part of the time that waits for the disk (fsync).
        syncs: How often that was.
    """

    seconds: float
    cpu_seconds: float = 0
    messages: int = 0
    sent: int = 0
    received: int = 0
    disk_seconds: float = 0
    syncs: int = 0


Onboard = Callable[[], Cost]


class CountingChannel:
    """Counts what goes through another channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.where = channel.where
        self.messages = self.sent = self.received = 0

    def exchange(self, number: MessageType, body: bytes) -> Received:
        """See `Channel`."""
        answer = self._channel.exchange(number, body)
        self.messages += 1
        self.sent += len(body)
        self.received += len(answer.body)
        return answer

    def report(self, error: ErrorMessage) -> None:
        """See `Channel`."""
        self._channel.report(error)

    def close(self) -> None:
        """See `Channel`."""
        self._channel.close()


@dataclass(frozen=True)
class OurDevice:
    """A scanner whose factory has given it a credential at a server."""

    scanner: FdoScanner
    url: str
    key_exchange: KeyExchangeSuite

    @classmethod
    def initialized(cls, folder: Path, url: str, kind: Kind, key_exchange: KeyExchangeSuite) -> OurDevice:
        """After DI."""
        scanner = FdoScanner(folder)
        with HttpChannel(url, context_for(Pins()), SystemClock(), TIMEOUT) as channel:
            scanner.initialize(channel, kind.algorithm, kind.encoding)
        return cls(scanner, url, key_exchange)

    def session(self) -> Cost:
        """TO2 and nothing else: what the device of go-fdo measures of itself."""
        clock, credential, key = SystemClock(), self.scanner.credential, self.scanner.key
        secret = self.scanner.scanner.stores.load_secret(credential.secret_uri)
        module, description = _module(self.scanner), DeviceDescription.of_this_machine(credential.device_info)
        cipher, anybody = CipherSuite.A256GCM, lambda _: None
        terms = Terms(self.key_exchange, cipher, None, description, reuse=False, judge=anybody, clock=clock)
        begin, cpu_begin = time.perf_counter(), time.process_time()
        with HttpChannel(self.url, context_for(Pins()), clock, TIMEOUT) as plain:
            channel = CountingChannel(plain)
            with Session(channel, credential, key, secret, terms) as session:
                session.begin()
                session.talk([module])
                session.finish()
        seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
        self.scanner.credentials.propose(session.next_credential)
        self.scanner.credentials.commit(session.next_credential)
        if self.scanner.credential.guid == credential.guid or not module.certificates:
            raise SystemExit("the owner gave nothing new")
        return Cost(seconds, cpu_seconds, channel.messages, channel.sent, channel.received)

    def flow(self) -> Cost:
        """What `enroll fdo` does in a warm process, without the key and the certificate that follow."""
        context, enrollment = self.scanner.scanner.context, _enrollment(self.scanner)
        with counted_syncs() as waits:
            begin, cpu_begin = time.perf_counter(), time.process_time()
            with FdoFlow.connect(IdentityName.DEVICE, context) as flow:
                issued = flow.enroll(enrollment)
            seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
        if not isinstance(issued, Issued):
            raise SystemExit(f"no certificate: {issued}")
        return Cost(seconds, cpu_seconds, disk_seconds=sum(waits), syncs=len(waits))

    def process(self) -> Cost:
        """`scanseal enroll fdo`; the key that signs is made by an agent, so nothing follows."""
        folder, device = self.scanner.directory.parents[1], self.scanner.scanner.settings.device
        configuration = folder / "scanseal.toml"
        configuration.write_text(CONFIGURATION.format(folder=folder, device=device))
        return elapsed([*SCANSEAL, "enroll", "fdo", "--json", "--config", str(configuration)])


class GoDevice:
    """The device of go-fdo in a process that onboards when it is told to."""

    def __init__(self, url: str, kind: Kind, key_exchange: str, ends: ExitStack) -> None:
        command = go_device_command(url, *kind.go_options, "-key-exchange", key_exchange, "-commanded")
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        ends.callback(self._process.wait)
        ends.callback(self._process.kill)

    def session(self) -> Cost:
        """TO2, as it measures itself."""
        if self._process.stdin is None or self._process.stdout is None:
            raise SystemExit("no pipe")
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the device of go-fdo ended")
        said: dict[str, Any] = json.loads(line)
        return Cost(*(said[name] for name in ("seconds", "cpu_seconds", "messages", "sent", "received")))


def _enrollment(scanner: FdoScanner) -> Enrollment:
    """For a new key, which is made before: on a scanner it waits in its store."""
    request = CertificateRequest.for_device(scanner.scanner.settings.device, Usage.DEVICE)
    return Enrollment(ec.generate_private_key(ec.SECP256R1()), request)


def _module(scanner: FdoScanner) -> CertificateModule:
    enrollment = _enrollment(scanner)

    def signed(wanted: WantedAttributes) -> x509.CertificateSigningRequest:
        return csr.build(enrollment.key, enrollment.request, owners_names=wanted.owners_names)

    return CertificateModule(signed)


@contextmanager
def counted_syncs() -> Iterator[list[float]]:
    """The seconds of each fsync in the block."""
    waits: list[float] = []
    sync = os.fsync

    def measured(descriptor: int) -> None:
        begin = time.perf_counter()
        sync(descriptor)
        waits.append(time.perf_counter() - begin)

    with mock.patch("os.fsync", measured):
        yield waits


def elapsed(command: Sequence[str]) -> Cost:
    """A whole process."""
    before, begin = os.times(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - begin, os.times()
    if done.returncode:
        raise SystemExit(f"{command[0]}: {done.stdout}{done.stderr}")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(seconds, used)


@contextmanager
def go_server(folder: Path) -> Iterator[str]:
    """The servers of go-fdo."""
    with running_go_server(folder, "-bypass") as server:
        yield server.url


@contextmanager
def our_server(folder: Path) -> Iterator[str]:
    """Our evaluation servers."""
    options = ("--port", "0", "--est-port", "0", "--bypass", "--json")
    command = [*SCANSEAL, "evaluation-fdo", "--directory", str(folder), *options]
    log = folder.with_suffix(".log")
    with log.open("wb") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process:
        try:
            line = process.stdout.readline() if process.stdout else b""
            if not line:
                raise SystemExit(log.read_text())
            yield json.loads(line)["url"]
        finally:
            process.terminate()


def in_turns(rounds: int, *sides: Onboard) -> list[tuple[Cost, ...]]:
    """What each side takes, round by round; the first round is not counted."""
    return [tuple(side() for side in sides) for _ in range(rounds + 1)][1:]


def compared(name: str, theirs: Sequence[Cost], ours: Sequence[Cost], remark: str = "") -> None:
    """Print one row."""
    ratios = sorted(own.seconds / other.seconds for own, other in zip(ours, theirs, strict=True))
    middle = statistics.median(ratios)
    figure = f"{middle:.2f}x" if middle <= AIM else f"**{middle:.2f}x**"
    lower, _, upper = statistics.quantiles(ratios)
    sides = " against ".join(f"{_ms(side, 'seconds')} (CPU {_ms(side, 'cpu_seconds')})" for side in (ours, theirs))
    spread = f"half of the ratios {lower:.2f} to {upper:.2f}"
    print(f"| {name} | {figure} | <= {AIM:g}x | {sides} ms; {spread}{remark} |", flush=True)


def _ms(costs: Sequence[Cost], field: str) -> str:
    return f"{statistics.median(getattr(cost, field) for cost in costs) * 1e3:.1f}"


def _traffic(costs: Sequence[Cost]) -> str:
    middle = [statistics.median(getattr(cost, field) for cost in costs) for field in ("messages", "sent", "received")]
    return "{:.0f} messages, {:,.0f} bytes sent and {:,.0f} received".format(*middle)


def bench_warm(server: str, url: str, folder: Path, rounds: int) -> None:
    """Session and flow in warm processes, for each suite."""
    for algorithm, key_exchange in SUITES:
        kind = Kind(algorithm, KeyEncoding.X5CHAIN)
        with ExitStack() as ends:
            device = OurDevice.initialized(folder / f"{server} {kind}", url, kind, key_exchange)
            peer = GoDevice(url, kind, key_exchange, ends)
            theirs, session, flow = zip(*in_turns(rounds, peer.session, device.session, device.flow), strict=True)
        name = f"{algorithm}, {key_exchange}, A256GCM, server of {server}"
        compared(f"session: {name}", theirs, session, f"; {_traffic(session)} against {_traffic(theirs)}")
        compared(f"flow: {name}", theirs, flow, f"; {flow[-1].syncs} fsync take {_ms(flow, 'disk_seconds')} ms of ours")


def bench_cold(url: str, folder: Path, rounds: int) -> None:
    """A process for each onboarding; that of go-fdo begins in the factory."""
    kind = Kind(KeyAlgorithm.P_256, KeyEncoding.X5CHAIN)
    device = OurDevice.initialized(folder / "cold", url, kind, KeyExchangeSuite.ECDH256)
    peer = partial(elapsed, go_device_command(url, *kind.go_options))
    imports = partial(elapsed, [sys.executable, "-c", "import agent.cli.main, agent.cli.enroll.fdo, enroll.flows.fdo"])
    theirs, ours, start = zip(*in_turns(rounds, peer, device.process, imports), strict=True)
    remark = f"; {_ms(start, 'seconds')} ms of ours are Python and what it imports"
    compared("process: P-256, ECDH256, A256GCM, server of go-fdo", theirs, ours, remark)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each comparison (default: %(default)s)")
    rounds = parser.parse_args().rounds
    print(f"{os.cpu_count()} CPUs, Python {sys.version.split()[0]}; {rounds} rounds, medians.\n")
    with tempfile.TemporaryDirectory(prefix="scanseal-bench-") as directory:
        folder = Path(directory)
        try:
            with go_server(folder / "go") as url:
                print("| what | result | aim | ours against go-fdo's device |")
                print("|---|---|---|---|")
                bench_warm("go-fdo", url, folder, rounds)
                bench_cold(url, folder, rounds)
        except pytest.skip.Exception as missing:
            print(f"Not measured: {missing}")
            return
        with our_server(folder / "ours") as url:
            bench_warm("scanseal", url, folder, rounds)


if __name__ == "__main__":
    main()
