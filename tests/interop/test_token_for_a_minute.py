"""A token in use for a minute, as a scanner uses it: python-pkcs11 ends a process in which two threads are careless.

At the same time, an agent signs for eight connections through p11-kit-proxy, and a program signs in two threads, with a
key of either kind for half a minute. Nothing ends, and every signature is valid.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from agent.cli import exits
from agent.cli.main import run
from agent.client import SigningClient
from enroll.algorithms import KeyAlgorithm
from tests.support.agent_process import Agent, new_scanner, running_agent
from tests.support.hospital import Hospital
from tests.support.softhsm import SoftHsm, new_softhsm

ROOT = Path(__file__).parents[2]
SECONDS = 60
CONNECTIONS = 8
SESSIONS = 2


def test_two_threads_and_eight_connections(
    agent: Agent, softhsm: SoftHsm, uris: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    program = [sys.executable, "-m", "tests.support.sign_in_threads", str(softhsm.proxy), "for-threads"]
    program += [str(softhsm.pin_file), f"{SECONDS // len(uris)}s", *uris]

    with (
        subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as threads,
        ThreadPoolExecutor(CONNECTIONS) as connections,
    ):
        signed = list(connections.map(lambda number: sign_and_verify(agent, number), range(CONNECTIONS)))
        written, complaints = threads.communicate(timeout=SECONDS)

    assert threads.returncode == 0, complaints
    assert agent.process.poll() is None
    by_threads = [int(line) for line in written.split()]
    assert len(by_threads) == len(uris)
    assert all((*signed, *by_threads))
    counts = [("8 connections", "RSA-2048", sum(signed), SECONDS)]
    for kind, count in zip(("RSA-2048", "P-256"), by_threads, strict=True):
        counts.append(("2 threads", kind, count, SECONDS // 2))
    with capsys.disabled():
        for who, kind, count, seconds in counts:
            sys.stdout.write(f"\n{who} in {seconds} s: {count} {kind} signatures, {count / seconds:.0f}/s")


def sign_and_verify(agent: Agent, connection: int) -> int:
    """How many digests one connection has had signed in the time."""
    signed, end = 0, time.monotonic() + SECONDS
    with SigningClient(agent.socket) as client:
        while time.monotonic() < end:
            digest = sha256(f"{connection}:{signed}".encode()).digest()
            answer = client.sign_digest(digest, algorithm="sha256", role="acquisition")
            public_key = x509.load_der_x509_certificate(answer.certificate).public_key()
            assert isinstance(public_key, rsa.RSAPublicKey)
            public_key.verify(answer.signature, digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))
            signed += 1
    return signed


@pytest.fixture
def softhsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    hsm = new_softhsm(tmp_path / "hsm", ["for-agent", "for-threads"])
    for name, value in hsm.environment.items():
        monkeypatch.setenv(name, value)
    return hsm


@pytest.fixture
def uris(softhsm: SoftHsm) -> list[str]:
    """Keys of the two threads."""
    store = softhsm.store(softhsm.copy("own"), "for-threads")
    uris = [store.generate(algorithm, algorithm) for algorithm in (KeyAlgorithm.RSA_2048, KeyAlgorithm.P_256)]
    store.close()
    return uris


@pytest.fixture
def agent(tmp_path: Path, softhsm: SoftHsm) -> Iterator[Agent]:
    hospital = Hospital(tmp_path / "ca")
    module = softhsm.copy("enrolling")  # in this process, p11-kit-proxy may know the tokens of other tests
    token: dict[str, Any] = {"token": "for-agent", "pin_file": str(softhsm.pin_file), "sessions": SESSIONS}
    tables = {
        **hospital.tables(),
        "identity.signing": {"key_store": "pkcs11", "key_algorithm": "rsa-2048"},
        "keystore.pkcs11": {**token, "module": str(module)},
    }
    with new_scanner(tmp_path) as scanner:
        with hospital.answers():
            assert run(["enroll", "est", "--config", str(scanner.configure(**tables))]) == exits.OK
        tables["keystore.pkcs11"]["module"] = str(softhsm.proxy)
        with running_agent(scanner, **tables) as agent:
            yield agent
