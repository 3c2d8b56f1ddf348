"""The part of scripts/bench about keys: signatures per second by key store, against the library below it.

Each store has a process of its own, because the library of a token has one state for each process. They take turns,
round by round, and within a round our store and the raw library take turns. SoftHSM and swtpm are programs that
simulate a token and a TPM: their figures compare our code with what is below it, and say nothing about hardware.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.cli.signing_rate import sign_digest
from enroll.algorithms import KeyAlgorithm
from enroll.config import KeyStoreSettings, Pkcs11StoreSettings, SoftwareStoreSettings, StoreName, TpmStoreSettings
from enroll.errors import KeyStoreError
from enroll.keystore import KeyStores
from enroll.statefile import StateFiles
from scripts.raw_signatures import DIGEST, Work, raw_of_software, raw_of_token, raw_of_tpm
from tests.support.swtpm import resource_manager, running_swtpm

ALGORITHMS = (KeyAlgorithm.RSA_2048, KeyAlgorithm.RSA_3072, KeyAlgorithm.P_256)
THREADS = (1, 2)
ROUNDS = 5
SLICES = 4  # of a round, in which ours and the raw library take turns: neighbours on the machine hit both
SECONDS = 0.05  # of one side in one slice
AIM = 0.9  # of the raw rate
LABEL = "bench"  # of every token
SECRET = "correct-horse-4711"  # noqa: S105 - protects keys that nobody else will have
LIBRARIES = Path(f"/usr/lib/{os.uname().machine}-linux-gnu")
PROXY = LIBRARIES / "p11-kit-proxy.so"
SOFTHSM = LIBRARIES / "softhsm/libsofthsm2.so"
TPM2_PKCS11 = LIBRARIES / "pkcs11/libtpm2_pkcs11.so"

SIDES = ("raw", "ours")
Sides = tuple[Callable[[], Work], Callable[[], Work]]  # ours and the raw library; each thread calls it once


@dataclass(frozen=True)
class Backend:
    """A key store as it is measured, in the words that its process understands.

    Args:
        name: For the table.
        store: Which.
        module: The library of a token.
        tcti: The TPM of our store.
        raw_tcti: The TPM of the raw library, of the same kind: a simulated one serves one connection.
        environment: Of the process.
    """

    name: str
    store: StoreName
    module: str = ""
    tcti: str = ""
    raw_tcti: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


class Child:
    """The process of a backend."""

    def __init__(self, backend: Backend, folder: Path, ends: ExitStack) -> None:
        self.backend = backend
        arguments = [str(folder), backend.store, backend.module, backend.tcti, backend.raw_tcti]
        log = ends.enter_context((folder / f"{backend.name}.log").open("wb"))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scripts.benchmark_keys", "--serve", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **backend.environment},
        )
        ends.callback(self._process.wait)
        ends.callback(self._process.kill)

    def measured(self, algorithm: KeyAlgorithm, threads: int) -> dict[str, Any]:
        """Both rates, or why there are none."""
        if self._process.stdin is None or self._process.stdout is None:
            raise SystemExit("no pipe")
        self._process.stdin.write(f"{algorithm} {threads}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            return {"missing": "the process ended"}
        rates: dict[str, Any] = json.loads(answer)
        return rates


def serve(folder: Path, store: StoreName, module: str, tcti: str, raw_tcti: str) -> None:
    """Answer each line "ALGORITHM THREADS" of standard input with a line of JSON: the process of a backend."""
    secret = folder / "secret"
    settings = KeyStoreSettings(
        software=SoftwareStoreSettings(passphrase_file=secret),
        pkcs11=Pkcs11StoreSettings(Path(module or PROXY), LABEL, secret, sessions=max(THREADS)),
        tpm=TpmStoreSettings(tcti=tcti or "none", authorization_file=secret),
    )
    stores = KeyStores(settings, folder, StateFiles())
    sides: dict[KeyAlgorithm, Sides] = {}
    works: dict[str, tuple[list[Work], list[Work]]] = {}
    for line in sys.stdin:
        name, threads = line.split()
        algorithm = KeyAlgorithm(name)
        try:
            if algorithm not in sides:
                sides[algorithm] = _sides(stores, store, algorithm, Path(module), raw_tcti)
            if line not in works:
                ours, raw = ([make() for _ in range(int(threads))] for make in sides[algorithm])
                works[line] = ours, raw
            pairs = [(rate(works[line][1]), rate(works[line][0])) for _ in range(SLICES)]
            answer: dict[str, Any] = {side: statistics.fmean(pair[i] for pair in pairs) for i, side in enumerate(SIDES)}
        except KeyStoreError as error:
            answer = {"missing": error.what}
        print(json.dumps(answer), flush=True)


def _sides(stores: KeyStores, store: StoreName, algorithm: KeyAlgorithm, module: Path, raw_tcti: str) -> Sides:
    uri = stores.generate(store, f"bench-{algorithm}", algorithm)
    key = stores.load(uri)
    sign_digest(key, DIGEST)
    raw = raw_of_software(key)
    if store is StoreName.PKCS11:
        raw = raw_of_token(module, uri, through_proxy=module == PROXY)
    elif store is StoreName.TPM:
        raw = raw_of_tpm(raw_tcti, algorithm)
    return (lambda: partial(sign_digest, key, DIGEST)), raw


def rate(works: Sequence[Work]) -> float:
    """Signatures per second of a thread for each piece of work."""
    begun = time.monotonic()

    def loop(work: Work) -> int:
        made = 0
        while time.monotonic() - begun < SECONDS:
            work()
            made += 1
        return made

    with ThreadPoolExecutor(len(works)) as pool:
        made = sum(pool.map(loop, works))
    return made / (time.monotonic() - begun)


def backends(folder: Path, ends: ExitStack) -> Iterator[Backend | str]:
    """What can be measured here; the name of what cannot."""
    yield Backend("software", StoreName.SOFTWARE)
    yield Backend("memory", StoreName.MEMORY)
    if shutil.which("softhsm2-util") and SOFTHSM.exists() and PROXY.exists():
        for name, module in (("through p11-kit-proxy", PROXY), ("under one lock", SOFTHSM)):
            environment = _softhsm(folder / module.stem)
            yield Backend(f"SoftHSM (simulated), {name}", StoreName.PKCS11, str(module), "", "", environment)
    else:
        yield "SoftHSM: apt-get install softhsm2 p11-kit-modules"
    try:
        tpms = [ends.enter_context(running_swtpm(folder / f"tpm{number}")) for number in range(3)]
        yield Backend("swtpm (simulated), natively", StoreName.TPM, "", tpms[0].tcti, tpms[1].tcti)
        # Its tools fill the memory of a TPM; on a device the kernel makes room, here a resource manager.
        manager = ends.enter_context(resource_manager(tpms[2], folder))
        environment = _tpm2_pkcs11(folder, {**manager.environment, "TPM2_PKCS11_TCTI": manager.tcti})
        name = "swtpm (simulated), through tpm2-pkcs11"
        yield Backend(name, StoreName.PKCS11, str(TPM2_PKCS11), "", "", environment)
    except (pytest.skip.Exception, FileNotFoundError) as missing:
        yield f"TPM: {missing}"


def _softhsm(folder: Path) -> dict[str, str]:
    tokens, modules = folder / "tokens", folder / "pkcs11/modules"
    tokens.mkdir(parents=True)
    modules.mkdir(parents=True)
    configuration = folder / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
    # Root's p11-kit ignores the first and loads every module of the machine: the rest keeps tpm2-pkcs11 away.
    (folder / "pkcs11/pkcs11.conf").write_text("user-config: only\n")
    (modules / "softhsm2.module").write_text(f"module: {SOFTHSM}\n")
    environment = {
        "SOFTHSM2_CONF": str(configuration),
        "XDG_CONFIG_HOME": str(folder),
        "TPM2_PKCS11_STORE": str(tokens),
        "TPM2_PKCS11_TCTI": "none",
        "TPM2_PKCS11_LOG_LEVEL": "0",
    }
    pins = ["--pin", SECRET, "--so-pin", SECRET]
    _run("softhsm2-util", "--init-token", "--free", "--label", LABEL, *pins, environment=environment)
    return environment


def _tpm2_pkcs11(folder: Path, tpm: Mapping[str, str]) -> dict[str, str]:
    store = folder / "tpm2_pkcs11"
    store.mkdir()
    environment = {**tpm, "TPM2TOOLS_TCTI": tpm["TPM2_PKCS11_TCTI"], "TPM2_PKCS11_STORE": str(store)}
    _run("tpm2_ptool", "init", "--path", str(store), environment=environment)
    token = ["--pid", "1", "--label", LABEL, "--userpin", SECRET, "--sopin", SECRET, "--path", str(store)]
    _run("tpm2_ptool", "addtoken", *token, environment=environment)
    return environment


def _run(*command: str, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        raise SystemExit(f"{command[0]}: {done.stderr}")


def compare(children: list[Child], rounds: int) -> None:
    """Measure everything in turns and print a row for each store, algorithm and number of threads."""
    cases = [(child, algorithm, threads) for algorithm in ALGORITHMS for threads in THREADS for child in children]
    results: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for _ in range(rounds):
        for child, algorithm, threads in cases:
            results.setdefault((child.backend.name, algorithm, threads), []).append(child.measured(algorithm, threads))
    print("| key store | kind of key | threads | signatures/s | raw library | of raw |")
    print("|---|---|---|---|---|---|")
    missed = 0
    for child, algorithm, threads in sorted(cases, key=lambda case: children.index(case[0])):
        pairs = results[child.backend.name, algorithm, threads]
        start = f"| {child.backend.name} | {algorithm} | {threads} |"
        if missing := next((pair["missing"] for pair in pairs if "missing" in pair), None):
            print(f"{start} {missing} | | |")
            continue
        ratios = sorted(pair["ours"] / pair["raw"] for pair in pairs)
        middle = statistics.median(ratios)
        missed += middle < AIM
        ours, raw = (statistics.median(pair[side] for pair in pairs) for side in ("ours", "raw"))
        figure = f"{middle:.2f}" if middle >= AIM else f"**{middle:.2f}**"
        print(f"{start} {ours:,.0f} | {raw:,.0f} | {figure} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |")
    print(f"\nThe aim is {AIM} of the raw rate; {missed} of {len(cases)} rows miss it. {rounds} rounds, medians.")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of each comparison (default: %(default)s)")
    parser.add_argument("--serve", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        folder, store, *rest = arguments.serve
        serve(Path(folder), StoreName(store), *rest)
        return
    print(f"{os.cpu_count()} CPUs, Python {sys.version.split()[0]}, SHA-256 digests.\n")
    with tempfile.TemporaryDirectory(prefix="scanseal-bench-") as directory, ExitStack() as ends:
        folder = Path(directory)
        (folder / "secret").write_text(SECRET)
        (folder / "secret").chmod(0o600)
        children = []
        for backend in backends(folder, ends):
            if isinstance(backend, str):
                print(f"Not measured: {backend}")
            else:
                children.append(Child(backend, folder, ends))
        compare(children, arguments.rounds)


if __name__ == "__main__":
    main()
