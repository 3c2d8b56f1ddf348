"""What the benchmark of FIDO Device Onboard measures is whole onboardings, and an ordinary one never waits."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from enroll.algorithms import KeyAlgorithm
from enroll.clock import SystemClock
from enroll.fdo.key_exchange import KeyExchangeSuite
from enroll.fdo.public_key import KeyEncoding
from scripts.benchmark_fdo import Cost, OurDevice, compared, counted_syncs, elapsed, in_turns
from tests.support.fdo.go_matrix import Kind
from tests.support.fdo.parties import Parties


@pytest.fixture
def device(tmp_path: Path) -> Iterator[OurDevice]:
    with Parties(tmp_path / "parties", bypass=True) as parties:
        kind = Kind(KeyAlgorithm.P_256, KeyEncoding.X5CHAIN)
        yield OurDevice.initialized(tmp_path / "scanner", parties.url, kind, KeyExchangeSuite.ECDH256)


def test_the_session_counts_messages_and_their_bytes(device: OurDevice) -> None:
    before = device.scanner.credential.guid

    cost = device.session()

    assert device.scanner.credential.guid != before
    assert cost.messages >= 8  # 60, 62, 64, 66, 68 three times, 70: FDO 1.1, 5.5 and 5.6
    assert 0 < cost.sent < cost.received
    assert cost.seconds > 0


def test_the_flow_comes_with_what_has_to_survive_a_power_cut(device: OurDevice) -> None:
    owner = device.scanner.credential.owner

    cost = device.flow()

    assert device.scanner.credential.owner != owner
    assert 0 < cost.disk_seconds < cost.seconds
    assert cost.syncs > 0


def test_no_ordinary_onboarding_waits(device: OurDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(SystemClock, "sleep", lambda _, seconds: waits.append(seconds))

    device.session()
    device.flow()

    assert waits == []


def test_a_process_is_measured_with_its_cpu_time() -> None:
    cost = elapsed([sys.executable, "-c", "sum(range(10**6))"])

    assert cost.seconds > 0
    assert cost.cpu_seconds > 0


def test_what_waits_for_the_disk_is_measured(tmp_path: Path) -> None:
    with counted_syncs() as waits, (tmp_path / "file").open("wb") as file:
        os.fsync(file.fileno())

    assert len(waits) == 1


def test_sides_take_turns_and_the_first_turn_does_not_count() -> None:
    turns: list[str] = []

    def side(name: str) -> Cost:
        turns.append(name)
        return Cost(len(turns))

    assert in_turns(2, lambda: side("theirs"), lambda: side("ours")) == [(Cost(3), Cost(4)), (Cost(5), Cost(6))]
    assert turns == ["theirs", "ours"] * 3


def test_what_misses_the_aim_stands_out(capsys: pytest.CaptureFixture[str]) -> None:
    theirs = [Cost(0.010, 0.005)] * 3
    compared("near", theirs, [Cost(0.018, 0.010)] * 3)
    compared("far", theirs, [Cost(0.025, 0.020)] * 3, "; a remark")

    near, far = capsys.readouterr().out.splitlines()
    assert near == (
        "| near | 1.80x | <= 2x | 18.0 (CPU 10.0) against 10.0 (CPU 5.0) ms; half of the ratios 1.80 to 1.80 |"
    )
    assert far.startswith("| far | **2.50x** | ")
    assert far.endswith("; a remark |")
