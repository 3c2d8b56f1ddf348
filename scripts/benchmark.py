"""The benchmark behind scripts/bench.

Every figure is a ratio to a floor that is measured in the same run, in turns with it: the SHA-256 of the same bytes
plus one raw RSA-3072 signature by the same library. Nothing here decides whether a test passes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pydicom
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils
from pydicom.data import get_testdata_file

from agent.cli.enrolling import enroll_by
from agent.cli.try_out import SERIAL_NUMBER, write_configuration
from agent.client import SigningClient
from agent.config import load
from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.sign import SignaturePlan, digest_instance
from agent.dicom.window import Window
from agent.errors import AgentError
from enroll.clock import SystemClock
from enroll.evaluation.ca import EvaluationCa
from enroll.evaluation.est_server import EstServer
from enroll.flows.settings import FlowName
from enroll.identity import IdentityName, IdentityStore
from enroll.keystore import KeyStores
from enroll.statefile import StateFiles

ROLE, PROFILE = "acquisition", "creator-plus"
ROUNDS = 7  # of each comparison, in turns
START_TIMEOUT = 30.0  # seconds
HUGE_FRAMES = 400  # of 512 KB: 200 MB


@dataclass(frozen=True)
class Scanner:
    """An enrolled scanner and what is signed with it."""

    root: Path
    configuration: Path
    key: rsa.RSAPrivateKey
    certificate: bytes
    image: bytes

    @property
    def socket(self) -> Path:
        """Where its agent listens."""
        return self.root / "sign.sock"

    def raw_signature(self, digest: bytes) -> bytes:
        """One signature by the library, and nothing else."""
        return self.key.sign(digest, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))

    def floor(self) -> None:
        """What nobody can do without: hash the bytes, sign the hash."""
        self.raw_signature(hashlib.sha256(self.image).digest())


def ct_slice(frames: int = 1) -> bytes:
    """CT_small with the pixels of a real slice: 512 x 512 of 16 bits; with several frames a multi-frame object."""
    sample = get_testdata_file("CT_small.dcm", download=False)
    if not isinstance(sample, str):
        raise SystemExit("pydicom came without CT_small.dcm")
    image = pydicom.dcmread(sample)
    image.Rows = image.Columns = 512
    image.DeviceSerialNumber = SERIAL_NUMBER
    if frames > 1:
        image.NumberOfFrames = frames
    image.PixelData = secrets.token_bytes(512 * 512 * 2) * frames
    target = io.BytesIO()
    image.save_as(target)
    return target.getvalue()


def enrolled(root: Path) -> Scanner:
    """A scanner with keys in software and certificates from an evaluation CA."""
    files, clock = StateFiles(), SystemClock()
    ca = EvaluationCa.create_or_open(root, clock)
    with EstServer(ca) as server:
        configuration = write_configuration(ca, server.url)
        settings = load(configuration, files).enroll
        for identity in (IdentityName.DEVICE, IdentityName.SIGNING):
            enroll_by(FlowName.EST, identity, settings, clock)
    current = IdentityStore(settings.state_directory, files).current(IdentityName.SIGNING)
    if current is None:
        raise SystemExit("enrollment failed")
    key = KeyStores(settings.keystore, settings.state_directory, files).load(current.key_uri)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise SystemExit("the signing key is not RSA")
    certificate = current.certificate.public_bytes(serialization.Encoding.DER)
    return Scanner(root, configuration, key, certificate, ct_slice())


@contextmanager
def agent_of(scanner: Scanner) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """A running agent, and the seconds from its start to the first signature."""
    started = time.perf_counter()
    command = (sys.executable, "-m", "agent.cli.main", "agent", "--config", str(scanner.configuration))
    with (scanner.root / "agent.log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            while not signed_once(scanner):
                if time.perf_counter() - started > START_TIMEOUT:
                    raise SystemExit((scanner.root / "agent.log").read_text())
                time.sleep(0.005)
            yield process, time.perf_counter() - started
        finally:
            process.terminate()


def signed_once(scanner: Scanner) -> bool:
    """Whether the agent signs yet."""
    try:
        with SigningClient(scanner.socket) as client:
            client.splice_instance(scanner.image, role=ROLE, profile=PROFILE)
    except AgentError:
        return False
    return True


def seconds(work: Callable[[], None], times: int) -> float:
    """Seconds for one piece of work, one after the other."""
    started = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - started) / times


def in_threads(make: Callable[[], tuple[Callable[[], None], Callable[[], None]]], threads: int, times: int) -> float:
    """Seconds for one piece of work, when so many threads do it at the same time. `make` gives work and clean-up."""
    barrier = threading.Barrier(threads + 1)

    def loop() -> None:
        work, clean_up = make()
        work()
        barrier.wait()
        for _ in range(times):
            work()
        barrier.wait()
        clean_up()

    workers = [threading.Thread(target=loop) for _ in range(threads)]
    for worker in workers:
        worker.start()
    barrier.wait()
    started = time.perf_counter()
    barrier.wait()
    elapsed = time.perf_counter() - started
    for worker in workers:
        worker.join()
    return elapsed / (threads * times)


def compared(name: str, aim: str, candidate: Callable[[], float], floor: Callable[[], float]) -> None:
    """Measure both in turns and print the median of the ratios."""
    pairs = [(candidate(), floor()) for _ in range(ROUNDS)]
    ratios = sorted(one / other for one, other in pairs)
    low, high = statistics.median(one for one, _ in pairs), statistics.median(other for _, other in pairs)
    row(
        name,
        f"{statistics.median(ratios):.2f}x",
        aim,
        f"{low * 1e3:.2f} ms against {high * 1e3:.2f} ms; ratios {ratios[0]:.2f} to {ratios[-1]:.2f}",
    )


def row(name: str, result: str, aim: str, remark: str) -> None:
    """Print a row of the table."""
    print(f"| {name} | {result} | {aim} | {remark} |", flush=True)


def bench_in_process(scanner: Scanner) -> None:
    """The signing code alone: no socket, no processes."""
    plan = SignaturePlan(load_profile(ProfileName.CREATOR_PLUS), "sha256", "2.25.1", datetime.now(UTC))

    def sign() -> None:
        instance = digest_instance(Window.over(scanner.image), plan)
        instance.edits(scanner.raw_signature(instance.digest), scanner.certificate)

    compared(
        "one CT slice, in process",
        "<= 1.3x",
        lambda: seconds(sign, 100),
        lambda: seconds(scanner.floor, 100),
    )


def bench_socket(scanner: Scanner) -> None:
    """The agent as an acquisition program sees it, on the same cores."""

    def connection() -> tuple[Callable[[], None], Callable[[], None]]:
        client = SigningClient(scanner.socket)

        def sign() -> None:
            client.splice_instance(scanner.image, role=ROLE, profile=PROFILE)

        return sign, client.close

    def floor() -> tuple[Callable[[], None], Callable[[], None]]:
        return scanner.floor, lambda: None

    cores = os.cpu_count() or 1
    compared(
        "one CT slice over the socket, one connection",
        "<= 1.5x",
        lambda: in_threads(connection, 1, 150),
        lambda: in_threads(floor, 1, 150),
    )
    compared(
        f"the same, eight connections, against the floor on {cores} threads",
        "<= 1.25x",
        lambda: in_threads(connection, 8, 60),
        lambda: in_threads(floor, cores, 240),
    )
    bench_dcmsign(scanner, lambda: in_threads(connection, 1, 50))


def bench_dcmsign(scanner: Scanner, ours: Callable[[], float]) -> None:
    """The same work by starting dcmsign for each file."""
    program = shutil.which("dcmsign")
    if program is None:
        row("the same, one connection, against dcmsign run per file", "not measured", ">= 12x faster", "no dcmsign")
        return
    key, certificate, image = (scanner.root / name for name in ("bench.key", "bench.pem", "bench.dcm"))
    key.write_bytes(
        scanner.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    current = IdentityStore(scanner.root / "scanner", StateFiles()).current(IdentityName.SIGNING)
    certificate.write_bytes(current.certificate.public_bytes(serialization.Encoding.PEM) if current else b"")
    image.write_bytes(scanner.image)
    output = str(scanner.root / "dcmsign.dcm")
    command = (program, "+s", str(key), str(certificate), "+m2", "+pc", "-t", "0008,0018", str(image), output)

    def dcmsign() -> None:
        subprocess.run(command, check=True, capture_output=True)

    pairs = [(ours(), seconds(dcmsign, 10)) for _ in range(ROUNDS)]
    factors = sorted(theirs / own for own, theirs in pairs)
    per_file = statistics.median(theirs for _, theirs in pairs) * 1e3
    row(
        "the same, one connection, against dcmsign run per file",
        f"{statistics.median(factors):.1f}x faster",
        ">= 12x faster",
        f"dcmsign {per_file:.1f} ms a file; factors {factors[0]:.1f} to {factors[-1]:.1f}",
    )


def bench_huge(scanner: Scanner, agent: subprocess.Popen[bytes]) -> None:
    """A large object: time against SHA-256 alone, and the memory that it takes."""
    path = scanner.root / "huge.dcm"
    path.write_bytes(ct_slice(HUGE_FRAMES))
    workers = children(agent.pid)
    with path.open("rb") as file, SigningClient(scanner.socket, timeout=120) as client:

        def sign() -> float:
            started = time.perf_counter()
            client.splice_instance(file, role=ROLE, profile=PROFILE)
            return time.perf_counter() - started

        def sha256() -> float:
            started = time.perf_counter()
            file.seek(0)
            hashlib.file_digest(file, "sha256")
            return time.perf_counter() - started

        idle = {pid: memory(pid, "VmRSS") for pid in workers}
        for pid in workers:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # forget the peak
        name = f"{path.stat().st_size >> 20} MiB multi-frame over the socket, against SHA-256"
        compared(name, "<= 1.3x", sign, sha256)
        grown = max(memory(pid, "VmHWM") - idle[pid] for pid in workers)
        row("worker's peak memory above idle, meanwhile", f"{grown / 1024:.1f} MiB", "< 64 MiB", "VmHWM - VmRSS")


def bench_start(scanner: Scanner) -> None:
    """How soon and how small."""
    times, sizes = [], []
    for _ in range(ROUNDS):
        with agent_of(scanner) as (agent, started):
            times.append(started)
            sizes.append((memory(agent.pid, "VmRSS"), max(memory(pid, "VmRSS") for pid in children(agent.pid))))
    row("agent start to first signature", f"{statistics.median(times) * 1e3:.0f} ms", "", "evaluation key in software")
    keyholder, worker = (statistics.median(values) / 1024 for values in zip(*sizes, strict=True))
    row("resident memory", f"keyholder {keyholder:.0f} MiB, worker {worker:.0f} MiB", "", "after one signature")


def children(pid: int) -> Sequence[int]:
    """The processes that a process has started: the workers of an agent."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def memory(pid: int, field: str) -> int:
    """A field of /proc/PID/status, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def main() -> None:
    """Print the whole table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="scanseal-bench-") as directory:
        scanner = enrolled(Path(directory))
        print(f"{os.cpu_count()} CPUs, Python {sys.version.split()[0]}, one CT slice is {len(scanner.image)} bytes.\n")
        print("| what | result | aim | remark |")
        print("|---|---|---|---|")
        bench_in_process(scanner)
        with agent_of(scanner) as (agent, _):
            bench_huge(scanner, agent)
            bench_socket(scanner)
        bench_start(scanner)


if __name__ == "__main__":
    main()
