"""The part of scripts/bench about verifying: a directory of CT slices against the SHA-256 and RSA check of each."""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

from agent.cli.verifying import FileVerifier, Question, results_of
from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.sign import SignaturePlan, digest_instance
from agent.dicom.splice import spliced
from agent.dicom.window import Window
from agent.policy.verdicts import Verdict
from enroll.clock import SystemClock
from enroll.evaluation.ca import EvaluationCa
from scripts.benchmark import Scanner, enrolled, row

SLICES = 2_000
ROUNDS = 5  # of each comparison, in turns
_SHA_256 = utils.Prehashed(hashes.SHA256())


@dataclass(frozen=True)
class SignedHash:
    """What the floor checks for each file: a signature of one hash, by the key of the scanner."""

    public_key: bytes
    digest: bytes
    signature: bytes


def write_slices(scanner: Scanner, directory: Path) -> list[Path]:
    """Sign 2,000 slices, each with pixels of its own."""
    plan = SignaturePlan(load_profile(ProfileName.CREATOR_PLUS), "sha256", "2.25.1", datetime.now(UTC))
    image = bytearray(scanner.image)
    files = []
    for number in range(SLICES):
        image[-8:] = number.to_bytes(8, "little")  # the last pixels
        data = bytes(image)
        instance = digest_instance(Window.over(data), plan)
        edits = instance.edits(scanner.raw_signature(instance.digest), scanner.certificate)
        file = directory / f"{number:04}.dcm"
        with file.open("wb") as target:
            for part in spliced(len(data), edits):
                target.write(part if isinstance(part, bytes) else data[slice(*part)])
        files.append(file)
    return files


def floor(files: Sequence[Path], signed: SignedHash) -> None:
    """What nobody can do without: read each file, hash it, check one signature."""
    key = serialization.load_der_public_key(signed.public_key)
    if not isinstance(key, rsa.RSAPublicKey):
        raise SystemExit("the signing key is not RSA")
    for file in files:
        hashlib.sha256(file.read_bytes()).digest()
        key.verify(signed.signature, signed.digest, padding.PKCS1v15(), _SHA_256)


def floor_in_processes(files: Sequence[Path], signed: SignedHash, processes: int) -> None:
    """The same, the files shared out."""
    if processes == 1:
        floor(files, signed)
        return
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(floor, [files[part::processes] for part in range(processes)], [signed] * processes))


def bench_directory(scanner: Scanner, directory: Path) -> None:
    """One and two processes against the floor on as many."""
    files = write_slices(scanner, directory)
    digest = hashlib.sha256(scanner.image).digest()
    public_key = scanner.key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signed = SignedHash(public_key, digest, scanner.raw_signature(digest))
    anchor = EvaluationCa.create_or_open(scanner.root, SystemClock()).anchor_file
    question = Question(profile=ProfileName.CREATOR_PLUS, anchor=anchor)
    for processes in (1, 2):

        def verify(processes: int = processes) -> None:
            verdicts = {result.verdict for result in results_of(files, FileVerifier(question), processes)}
            if verdicts != {Verdict.VALID}:
                raise SystemExit(f"not all are valid: {verdicts}")

        def least(processes: int = processes) -> None:
            floor_in_processes(files, signed, processes)

        compared(f"{len(files)} CT slices, {processes} process{'es' * (processes > 1)}", verify, least)
    command = (sys.executable, "-m", "agent.cli.main", "verify", "--quiet", "--anchor", str(anchor), str(directory))
    started = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    elapsed = time.perf_counter() - started
    row("the same by `scanseal verify DIRECTORY`", f"{len(files) / elapsed:.0f} a second", "", done.stdout.strip())


def compared(name: str, candidate: Callable[[], None], least: Callable[[], None]) -> None:
    """Measure both in turns and print the median of the ratios."""
    pairs = [(elapsed(candidate), elapsed(least)) for _ in range(ROUNDS)]
    ratios = sorted(one / other for one, other in pairs)
    each = statistics.median(one for one, _ in pairs) / SLICES * 1e3
    least_each = statistics.median(other for _, other in pairs) / SLICES * 1e3
    remark = f"{each:.2f} ms against {least_each:.2f} ms a slice; ratios {ratios[0]:.2f} to {ratios[-1]:.2f}"
    row(name, f"{statistics.median(ratios):.2f}x", "<= 1.5x", remark)


def elapsed(work: Callable[[], None]) -> float:
    """Seconds for a piece of work."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="scanseal-bench-") as directory:
        root = Path(directory)
        scanner = enrolled(root)
        print(f"{os.cpu_count()} CPUs, Python {sys.version.split()[0]}, one CT slice is {len(scanner.image)} bytes.\n")
        print("| what | result | aim | remark |")
        print("|---|---|---|---|")
        slices = root / "slices"
        slices.mkdir()
        bench_directory(scanner, slices)


if __name__ == "__main__":
    main()
