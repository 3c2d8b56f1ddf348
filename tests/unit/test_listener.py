"""The listening socket: who may connect, and what it may replace."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config import SocketSettings
from agent.daemon.listener import LONGEST_PATH, open_listener
from agent.errors import AlreadyRunning
from enroll.errors import ConfigurationError


@pytest.fixture
def path() -> Iterator[Path]:
    """A path that is short enough."""
    with tempfile.TemporaryDirectory(prefix="scanseal-") as directory:
        yield Path(directory) / "sign.sock"


def test_owner_and_group_may_connect_and_nobody_else(path: Path) -> None:
    listener = open_listener(SocketSettings(path, group=str(os.getgid())), 0)

    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert path.stat().st_gid == os.getgid()
    listener.close()
    assert not path.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a file to any group: run as root")
def test_the_socket_belongs_to_the_configured_group(path: Path) -> None:
    listener = open_listener(SocketSettings(path, group="4242"), 0)

    assert path.stat().st_gid == 4242
    listener.close()


def test_a_socket_that_nobody_answers_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    listener = open_listener(SocketSettings(path, group=""), 0)

    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
    listener.close()


def test_a_socket_that_somebody_answers_is_left_alone(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()

        with pytest.raises(AlreadyRunning):
            open_listener(SocketSettings(path, group=""), 0)
        assert path.exists()


def test_what_is_not_a_socket_is_left_alone(path: Path) -> None:
    path.write_text("a letter", "utf-8")

    with pytest.raises(ConfigurationError, match="not a socket"):
        open_listener(SocketSettings(path, group=""), 0)
    assert path.read_text("utf-8") == "a letter"


def test_a_path_that_does_not_fit_sun_path_is_refused_early(tmp_path: Path) -> None:
    """unix(7): 108 bytes with the final NUL."""
    long = tmp_path / ("x" * (LONGEST_PATH + 1))

    with pytest.raises(ConfigurationError, match="107"):
        open_listener(SocketSettings(long, group=""), 0)


def test_a_missing_directory_and_an_unknown_group_say_what_to_do(path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        open_listener(SocketSettings(path.parent / "missing" / "s", group=""), 0)
    assert "directory" in refused.value.remedy
    with pytest.raises(ConfigurationError, match="no-such-group"):
        open_listener(SocketSettings(path, group="no-such-group"), 0)


def test_systemd_hands_over_exactly_one_socket(path: Path) -> None:
    """sd_listen_fds(3)."""
    with pytest.raises(ConfigurationError, match="2 sockets"):
        open_listener(SocketSettings(path), 2)
