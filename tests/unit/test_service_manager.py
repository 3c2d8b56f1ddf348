"""What is said to systemd, and what it hands over: sd_notify(3), sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.daemon.notify import ServiceManager


@pytest.fixture(params=["path", "abstract"])
def manager_socket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A service manager's socket, and its name as in NOTIFY_SOCKET."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@scanseal-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0", 1) if request.param == "abstract" else name)
        listener.settimeout(1)
        yield listener, name


def test_readiness_and_end_are_told(manager_socket: tuple[socket.socket, str]) -> None:
    listener, name = manager_socket
    manager = ServiceManager({"NOTIFY_SOCKET": name})

    manager.ready()
    manager.alive()
    manager.stopping()

    assert [listener.recv(100), listener.recv(100)] == [b"READY=1", b"STOPPING=1"]


def test_the_watchdog_is_fed_where_there_is_one(manager_socket: tuple[socket.socket, str]) -> None:
    """sd_watchdog_enabled(3)."""
    listener, name = manager_socket

    ServiceManager({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000"}).alive()

    assert listener.recv(100) == b"WATCHDOG=1"


def test_a_manager_that_is_gone_stops_nothing(tmp_path: Path) -> None:
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
    ServiceManager({}).ready()


def test_sockets_handed_over_to_this_process_are_counted_once() -> None:
    environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "scanseal.socket", "A": "b"}

    assert ServiceManager(environment).descriptors == 1
    assert environment == {"A": "b"}
    assert ServiceManager(environment).descriptors == 0


@pytest.mark.parametrize(("process", "count"), [("1", "1"), ("", "1"), ("own", "x"), ("own", "")])
def test_sockets_meant_for_another_process_are_not_ours(process: str, count: str) -> None:
    process = process.replace("own", str(os.getpid()))

    assert ServiceManager({"LISTEN_PID": process, "LISTEN_FDS": count}).descriptors == 0
