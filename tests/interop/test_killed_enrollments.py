"""SIGKILL at every step of a renewal, whatever the flow: one usable pair at any time, and no request that is lost.

strace kills the enroller before a rename, which makes a step durable, and at an fsync around it. The server runs on.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.enroll_process import run, write_run
from tests.support.flow_servers import FlowServer

FLOWS = ["acme", "cmp", "est", "scep", "vendor"]
CALLS = {"rename": 1, "fsync": 5}  # each one; each fifth, for the moments between a step and the network
MOST_CALLS = 150  # of one kind in one renewal; more would never end


@pytest.fixture(scope="module", autouse=True)
def strace() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is missing: apt-get install strace")
    if subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let strace trace: allow ptrace")


@pytest.fixture(params=FLOWS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FlowServer]:
    with importlib.import_module(f"tests.support.flow_servers.{request.param}").server(tmp_path) as running:
        yield running


@pytest.mark.parametrize("call", CALLS)
def test_one_matching_pair_after_a_kill_at_every_step(server: FlowServer, tmp_path: Path, call: str) -> None:
    scanner, identity = server.scanner, server.identity
    file = write_run(tmp_path / "run", scanner.settings, identity, server.flow)
    first = run(file)
    assert first.returncode == 0, first.stderr

    for step in range(1, MOST_CALLS, CALLS[call]):
        injected = f"inject={call}:signal=SIGKILL:when={step}"
        ended = run(file, "strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", injected)
        in_use = scanner.matching_pair(identity)
        assert in_use is not None, f"killed at {call} {step}"
        if ended.returncode == 0:
            break
        under_way = scanner.identities.journal(identity).read()
        again = run(file)
        assert again.returncode == 0, f"after a kill at {call} {step}: {again.stderr}"
        after = scanner.matching_pair(identity)
        assert after is not None
        if under_way is not None and under_way.key_uri:
            assert after.key_uri == under_way.key_uri, f"after a kill at {call} {step} the request began anew"
        assert scanner.identities.journal(identity).read() is None
        assert unused_keys(server) == 0, f"after a kill at {call} {step}"
    else:
        pytest.fail(f"more than {MOST_CALLS} times {call}")
    assert step > 5, "too few steps to be true"


def unused_keys(server: FlowServer) -> int:
    """Keys of this identity that no generation has."""
    store = server.scanner.identities
    used = {store.key_uri(server.identity, number) for number in store.generations(server.identity)}
    made = {uri for uri in server.scanner.stores.list() if f"{server.identity}-" in uri}
    return len(made - used)
