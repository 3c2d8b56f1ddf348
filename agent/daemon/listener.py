"""The listening socket: made here, or inherited from systemd (sd_listen_fds(3))."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from agent.config import SocketSettings
from agent.daemon.roles import group_number
from agent.errors import AlreadyRunning
from enroll.errors import ConfigurationError, ScansealError

BACKLOG = 128
MODE = 0o660
LONGEST_PATH = 107  # bytes: sun_path of sockaddr_un, less the final NUL

_FIRST_INHERITED = 3
_CONNECT_SECONDS = 2.0


@dataclass(frozen=True)
class Listener:
    """The socket, and the path to remove when it closes: nothing if systemd made it."""

    socket: socket.socket
    path: Path | None

    def close(self) -> None:
        """Accept nothing more."""
        self.socket.close()
        if self.path is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()


def open_listener(settings: SocketSettings, inherited: int) -> Listener:
    """Take over the socket systemd has made, or make one.

    Args:
        settings: `[socket]`.
        inherited: How many sockets systemd has handed over.

    Raises:
        ConfigurationError: The socket cannot be made, or what was inherited is not one listening Unix socket.
        AlreadyRunning: Another process answers at the path.
    """
    if inherited:
        return Listener(_inherited(inherited), None)
    return Listener(_own(settings), settings.path)


def _inherited(count: int) -> socket.socket:
    if count != 1:
        raise ConfigurationError(
            f"systemd handed over {count} sockets.", remedy="Put exactly one ListenStream= in scanseal.socket."
        )
    try:
        inherited = socket.socket(fileno=_FIRST_INHERITED)
        listening = inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigurationError(
            f"What systemd handed over is not a socket: {error.strerror}.", remedy="Start the agent by its unit."
        ) from error
    if not listening or (inherited.family, inherited.type) != (socket.AF_UNIX, socket.SOCK_STREAM):
        raise ConfigurationError(
            "What systemd handed over is not a listening Unix stream socket.",
            remedy="Use ListenStream= with a path in scanseal.socket.",
        )
    inherited.set_inheritable(False)
    inherited.settimeout(0)
    return inherited


def _own(settings: SocketSettings) -> socket.socket:
    path = settings.path
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise ConfigurationError(
            f"[socket] path is longer than {LONGEST_PATH} bytes.", remedy="Choose a shorter path, such as below /run."
        )
    group = group_number(settings.group, "[socket] group") if settings.group else -1
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _remove_stale(path)
        listener.bind(os.fspath(path))
        # Nobody can connect before listen(), so there is no moment with a wider mode.
        os.chown(path, -1, group)
        path.chmod(MODE)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"The socket {path} cannot be made: {error.strerror}.",
            remedy="Its directory must exist and be writable, and the agent must be a member of [socket] group.",
        ) from error
    except ScansealError:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigurationError(f"{path} is not a socket.", remedy="Choose another [socket] path, or remove it.")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_SECONDS)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise AlreadyRunning(
        f"Somebody answers at {path}.", remedy="Stop the other agent, or choose another [socket] path."
    )
