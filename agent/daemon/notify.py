"""What the service manager says and hears: sd_listen_fds(3), sd_notify(3). Without systemd, nothing happens."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping


class ServiceManager:
    """The service manager, as the environment describes it.

    Args:
        environment: LISTEN_PID and LISTEN_FDS, NOTIFY_SOCKET and WATCHDOG_USEC. All are removed, so that no child
            takes them for its own.

    Attributes:
        descriptors: How many sockets were handed over, from descriptor 3 on.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        process, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
        environment.pop("LISTEN_FDNAMES", None)
        self.descriptors = int(count) if process == str(os.getpid()) and count.isdecimal() else 0
        name = environment.pop("NOTIFY_SOCKET", "")
        # A leading @ stands for the NUL of an abstract name.
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self._watched = environment.pop("WATCHDOG_USEC", "") != ""

    @classmethod
    def of_this_process(cls) -> ServiceManager:
        """The one that started this process."""
        return cls(os.environ)

    def ready(self) -> None:
        """The socket answers from now on."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The service is about to end."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """The keyholder runs and has workers."""
        if self._watched:
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(0)
            # A service manager that does not listen is no reason to stop signing.
            with contextlib.suppress(OSError):
                channel.sendto(message.encode("ascii"), self._address)
