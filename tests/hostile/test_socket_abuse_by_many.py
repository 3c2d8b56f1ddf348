"""Five hundred callers at once that mean harm, and one that does not. R10 of docs/reliability.md.

SCANSEAL_ABUSE_SECONDS=60 makes it a minute; it is 20 seconds otherwise.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from agent.audit import verify
from agent.client import SigningClient
from agent.errors import AgentError
from enroll.identity import IdentityName
from tests.support.agent_process import ROOT, Scanner, running_agent, wait_until
from tests.support.dicom_samples import small_instance
from tests.support.reliability.abuse import FLOOD, KINDS, flood
from tests.support.reliability.measured import measured
from tests.support.reliability.processes import Held

SECONDS = float(os.environ.get("SCANSEAL_ABUSE_SECONDS", "20"))
USERS = (65534, 65533, 65532)  # without a role
CLIENTS = 168  # of each
OF_ONE_CONNECTION = 4  # descriptors of keyholder and worker
REQUESTS = 20  # of the good caller on one connection

needs_other_users = pytest.mark.skipif(os.getuid() != 0, reason="nobody but root can become other users: run as root")


@contextmanager
def abusers(socket: Path) -> Iterator[Counter[str]]:
    """They are at it; after the block there is what came of it."""
    command = [sys.executable, "-m", "tests.support.reliability.abuse", str(socket)]
    answers: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [*command, str(user), str(clients)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
            )
            for user, clients in (*((user, CLIENTS) for user in USERS), (USERS[0], 0))
        ]
        for process in processes:
            stack.callback(process.kill)
        yield answers
        for process in processes:
            printed, _ = process.communicate(timeout=30)
            answers.update(json.loads(printed))


class GoodCaller:
    """Has digests and images signed, on a new connection now and then, and checks every answer."""

    def __init__(self, socket: Path, key: rsa.RSAPublicKey) -> None:
        self._socket = socket
        self._key = key
        self.seconds: list[float] = []
        self.failures: list[str] = []

    def sign_on(self, until: float) -> None:
        while time.monotonic() < until:
            try:
                with SigningClient(self._socket) as client:
                    for _ in range(REQUESTS):
                        self._sign(client)
                    client.splice_instance(small_instance(), role="acquisition")
            except AgentError as error:
                self.failures.append(f"{error.code}: {error.what}")

    def _sign(self, client: SigningClient) -> None:
        digest, begun = os.urandom(32), time.monotonic()
        answer = client.sign_digest(digest, algorithm="sha256", role="acquisition")
        self.seconds.append(time.monotonic() - begun)
        self._key.verify(answer.signature, digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))

    def percentile(self, percent: int) -> float:
        """Seconds, with the connecting."""
        return sorted(self.seconds)[len(self.seconds) * percent // 100]


def public_key(certificate: x509.Certificate) -> rsa.RSAPublicKey:
    key = certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    return key


def held_by(processes: Sequence[int]) -> Held:
    all_of_them = [Held.by(pid) for pid in processes]
    return Held(sum(one.resident for one in all_of_them), sum(one.descriptors for one in all_of_them))


@needs_other_users
def test_a_good_caller_is_served_while_five_hundred_are_bad(scanner: Scanner) -> None:
    current = scanner.identities.current(IdentityName.SIGNING)
    assert current is not None
    with running_agent(scanner) as agent:
        scanner.socket.parent.chmod(0o755)
        scanner.socket.chmod(0o666)
        good = GoodCaller(agent.socket, public_key(current.certificate))
        good.sign_on(time.monotonic() + 1)
        good.seconds = []
        good.sign_on(time.monotonic() + 2)
        alone, good.seconds = good.percentile(99), []
        processes = [agent.process.pid, *agent.workers()]
        before = held_by(processes)

        with abusers(agent.socket) as answers:
            good.sign_on(time.monotonic() + SECONDS)
        signed = len(good.seconds)

        with SigningClient(agent.socket) as client:
            wait_until(lambda: client.status()["connections"] == 1)
            wait_until(lambda: held_by(processes).descriptors <= before.descriptors + OF_ONE_CONNECTION)
        after = held_by(processes)
        assert [agent.process.pid, *agent.workers()] == processes, "a worker was lost"
        log = agent.log.read_text("utf-8")

    verify(scanner.audit_file)
    connections = sum(answers[abuse.__name__] for abuse in (*KINDS, flood))
    measured(
        "R10",
        "500 bad callers at once",
        seconds=SECONDS,
        connections=connections,
        of_these_closed_at_once=answers["flood"],
        refused_429=answers["429"],
        refused_503=answers["503"],
        good_signatures=signed,
        good_failures=len(good.failures),
        good_p99_ms=round(good.percentile(99) * 1e3),
        good_p99_alone_ms=round(alone * 1e3),
        memory_mib_before=round(before.resident / 2**20, 1),
        memory_mib_after=round(after.resident / 2**20, 1),
    )
    assert good.failures == []
    assert good.percentile(99) <= 0.5
    assert "Traceback" not in log
    assert {line["uid"] for line in scanner.audit("signature")} == {os.getuid()}
    assert {line["uid"] for line in scanner.audit("role-refused")} == set(USERS)
    assert len(scanner.audit("role-refused")) <= len(USERS) * (SECONDS + 5), "refusals fill the audit trail"
    assert set(answers) >= {"403", "408", "413", "429"}
    assert connections >= min(FLOOD, SECONDS * 200)
    assert min(answers[abuse.__name__] for abuse in (*KINDS, flood)) > SECONDS
