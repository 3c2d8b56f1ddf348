"""The enroller as a child of the agent, where no systemd starts it: one at a time, when it is due, never waited for."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from agent.daemon.renewal import INTERVAL, LONGEST_RUN, Renewal, renewal_command
from tests.support.agent_process import child_processes, wait_until
from tests.support.clocks import SteppedClock


class Enroller:
    """A program that notes each of its runs and lasts as long as a file is there."""

    def __init__(self, folder: Path, clock: SteppedClock) -> None:
        self.runs_file = folder / "runs"
        self.busy_file = folder / "busy"
        program = (
            "import pathlib, sys, time\n"
            f"pathlib.Path({str(self.runs_file)!r}).open('a').write('x')\n"
            f"while pathlib.Path({str(self.busy_file)!r}).exists(): time.sleep(0.01)\n"
        )
        self.renewal = Renewal((sys.executable, "-c", program), clock)
        self.offers = 0

    def runs(self) -> int:
        return len(self.runs_file.read_text("ascii")) if self.runs_file.exists() else 0

    def tend(self) -> None:
        self.renewal.tend(self.offers)

    def tend_until_runs(self, count: int) -> None:
        def has_run() -> bool:
            self.tend()
            return self.runs() == count

        wait_until(has_run)


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def others() -> Collection[int]:
    """The child processes of this one before the test."""
    return child_processes(os.getpid())


@pytest.fixture
def enroller(tmp_path: Path, clock: SteppedClock) -> Iterator[Enroller]:
    enroller = Enroller(tmp_path, clock)
    yield enroller
    enroller.renewal.stop()


def test_it_is_started_at_the_start_and_every_ten_minutes(enroller: Enroller, clock: SteppedClock) -> None:
    enroller.tend_until_runs(1)
    clock.sleep(INTERVAL - 1)
    for _ in range(50):
        enroller.tend()
    assert enroller.runs() == 1

    clock.sleep(1)
    enroller.tend_until_runs(2)


def test_an_offer_starts_it_at_once(enroller: Enroller) -> None:
    enroller.tend_until_runs(1)
    enroller.offers += 1

    enroller.tend_until_runs(2)


def test_there_is_one_at_a_time_and_nothing_is_forgotten(enroller: Enroller, others: Collection[int]) -> None:
    enroller.busy_file.touch()
    enroller.tend_until_runs(1)
    for _ in range(3):
        enroller.offers += 1
        enroller.tend()
    assert len(child_processes_of_ours(others)) == 1

    enroller.busy_file.unlink()
    enroller.tend_until_runs(2)


def test_one_that_hangs_is_stopped_and_the_next_one_starts(
    enroller: Enroller, clock: SteppedClock, others: Collection[int], caplog: pytest.LogCaptureFixture
) -> None:
    enroller.busy_file.touch()
    enroller.tend_until_runs(1)
    (hanging,) = child_processes_of_ours(others)
    clock.sleep(LONGEST_RUN + 1)
    enroller.tend_until_runs(2)

    assert "stopped" in caplog.text
    (running,) = child_processes_of_ours(others)
    assert running != hanging


def test_a_failure_is_logged(tmp_path: Path, clock: SteppedClock, caplog: pytest.LogCaptureFixture) -> None:
    renewal = Renewal((sys.executable, "-c", "raise SystemExit(69)"), clock)

    def is_logged() -> bool:
        renewal.tend(0)
        return "status 69" in caplog.text

    wait_until(is_logged)


def test_a_program_that_is_not_there_is_no_end(clock: SteppedClock, caplog: pytest.LogCaptureFixture) -> None:
    Renewal(("/nonexistent",), clock).tend(1)

    assert "cannot be started" in caplog.text


def test_nothing_is_started_where_something_else_does_it(clock: SteppedClock, others: Collection[int]) -> None:
    Renewal((), clock).tend(1)

    assert child_processes_of_ours(others) == []


def test_the_command_is_that_of_this_installation(tmp_path: Path) -> None:
    assert renewal_command(tmp_path / "s.toml")[0] == sys.executable
    arguments = ("renew", "--unattended", "--config", str(tmp_path / "s.toml"))
    assert renewal_command(tmp_path / "s.toml")[-4:] == arguments


def child_processes_of_ours(before: Collection[int]) -> list[int]:
    """Those that were started since; simulators that several tests share are children of this process as well."""
    return [child for child in child_processes(os.getpid()) if child not in before]
