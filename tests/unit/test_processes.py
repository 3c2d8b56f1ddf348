"""Work in several processes: results come in order, none is kept waiting in memory, and a death costs one of them."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.support.agent_process import ROOT, wait_until

_HEAD = """
import os, signal, sys, time
from multiprocessing import Value
from agent.cli.processes import in_processes

"""


def script(body: str) -> list[str]:
    """A program of its own: a process with threads, as tests may have, must not be forked."""
    return [sys.executable, "-c", _HEAD + textwrap.dedent(body)]


def printed(body: str) -> list[str]:
    ran = subprocess.run(script(body), cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return ran.stdout.splitlines()


@pytest.mark.parametrize("processes", [1, 2, 3, 7, 11])
def test_results_come_in_the_order_of_the_items(processes: int) -> None:
    body = f"""
        def work(item):
            time.sleep(0.01 * (item % 3))
            return item * item
        print(list(in_processes(work, range(10), {processes}, lambda item: None)))
    """
    assert printed(body) == [str([item * item for item in range(10)])]


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(0)", "1 / 0"])
def test_a_process_that_dies_costs_one_result(end: str) -> None:
    body = f"""
        def work(item):
            if item in (0, 4, 5, 9):
                {end}
            return item
        print(list(in_processes(work, range(10), 2, lambda item: -item - 1)))
    """
    assert printed(body) == [str([-1, 1, 2, 3, -5, -6, 6, 7, 8, -10])]


def test_each_process_keeps_what_it_has_learnt() -> None:
    body = """
        seen = []
        def work(item):
            seen.append(item)
            return list(seen)
        print(list(in_processes(work, range(6), 2, lambda item: None))[-2:])
    """
    assert printed(body) == ["[[0, 2, 4], [1, 3, 5]]"]


def test_nobody_works_far_ahead_of_who_takes_the_results() -> None:
    """However many items there are, what is kept is what the pipes hold."""
    body = """
        made = Value("i", 0)
        def work(item):
            with made.get_lock():
                made.value += 1
            return bytes(10_000)
        results = in_processes(work, range(100_000), 2, lambda item: None)
        next(results)
        time.sleep(1)
        print(made.value)
        results.close()
    """
    assert int(printed(body)[0]) < 100


def test_who_has_enough_ends_the_processes() -> None:
    body = """
        results = in_processes(lambda item: os.getpid(), range(100_000), 2, lambda item: None)
        pids = {next(results), next(results)}
        results.close()
        print(len(pids), sum(os.path.exists(f"/proc/{pid}") for pid in pids))
    """
    assert printed(body) == ["2 0"]


def test_no_process_outlives_its_parent() -> None:
    body = """
        results = in_processes(lambda item: (os.getpid(), bytes(10_000)), range(100_000), 3, lambda item: None)
        print(*(next(results)[0] for _ in range(3)), flush=True)
        time.sleep(60)
    """
    with subprocess.Popen(script(body), cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        pids = (parent.stdout or sys.stdin).readline().split()
        time.sleep(0.2)
        parent.send_signal(signal.SIGKILL)
    assert len(pids) == 3
    wait_until(lambda: not any(running(pid) for pid in pids))


def running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_too_many_processes_are_an_error_that_says_so() -> None:
    body = """
        import resource
        from enroll.errors import ConfigurationError
        resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
        try:
            list(in_processes(str, range(100), 50, lambda item: None))
        except ConfigurationError as error:
            print(error)
    """
    assert printed(body) == ["There cannot be another process: Too many open files. Ask for fewer: --jobs 1."]
