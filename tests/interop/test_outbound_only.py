"""A scanner needs no inbound port: it enrolls behind a firewall that lets nothing in."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.outbound_only import ROOT, TIMEOUT

UNSHARED = ["unshare", "--map-root-user", "--net"]


@pytest.fixture(autouse=True)
def namespaces() -> None:
    for program, package in (("ip", "iproute2"), ("nft", "nftables"), ("nsenter", "util-linux")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: apt-get install {package}")
    allowed = subprocess.run([*UNSHARED, "nft", "add", "table", "inet", "f"], check=False, capture_output=True)
    if allowed.returncode:
        pytest.skip(f"no network namespace with a firewall here: {allowed.stderr.decode()}; run as root")


def test_enrollment_and_renewal_work_with_outbound_traffic_only(tmp_path: Path) -> None:
    command = [*UNSHARED, sys.executable, "-m", "tests.support.outbound_only", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * TIMEOUT, check=False)

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {"codes": [0, 0], "listening": [], "bait": {"seen": True, "answers": False}}
