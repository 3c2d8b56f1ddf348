"""Starts `scanseal renew --unattended` where no systemd does: when a request was offered, and every ten minutes.

The keyholder has no network, so the enroller is a process of its own: a fresh interpreter that inherits no key and no
descriptor. It gets the environment of the keyholder, because that is how the libraries of tokens are configured; no
secret of scanseal is ever in it.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import agent
from enroll.clock import Clock

INTERVAL = 600.0  # seconds; as OnCalendar= of scanseal-renew.timer
LONGEST_RUN = 900.0  # seconds; as TimeoutStartSec= of scanseal-renew.service
NOTHING_WRONG = (0, 75)  # renewed or nothing due; the CA has not decided, or another enrollment is running

_CODE = Path(agent.__file__).parent.parent  # where this interpreter has found the code, and the next one will

logger = logging.getLogger("scanseal.keyholder")


class Renewal:
    """At most one enroller at a time.

    Args:
        command: Its command line; empty where something else starts it.
        clock: The clocks.
    """

    def __init__(self, command: Sequence[str], clock: Clock) -> None:
        self._command = command
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = -INTERVAL
        self._answered = 0

    def tend(self, offers: int) -> None:
        """Start the enroller if it is due, and take note of its end. Waits for nothing.

        Args:
            offers: How many requests have been offered so far.
        """
        if not self._command:
            return
        now = self._clock.monotonic()
        if self._process is not None and not self._has_ended(now):
            return
        if offers > self._answered or now - self._started_at >= INTERVAL:
            self._answered, self._started_at = offers, now
            self._start()

    def stop(self) -> None:
        """End the enroller at once; it can be interrupted anywhere."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _has_ended(self, now: float) -> bool:
        process = self._process
        if process is None:
            return True
        if process.poll() is None and now - self._started_at > LONGEST_RUN:
            logger.error("The renewal takes longer than %d minutes and is stopped.", LONGEST_RUN // 60)
            process.kill()
            process.wait()
        if process.poll() is None:
            return False
        if process.returncode not in NOTHING_WRONG:
            logger.error("The renewal failed (status %d); the lines above say why.", process.returncode)
        self._process = None
        return True

    def _start(self) -> None:
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, arguments of our own
                self._command, stdin=subprocess.DEVNULL, stdout=sys.stderr, cwd=_CODE
            )
        except OSError as error:  # no process or memory to be had now
            logger.error("The renewal cannot be started: %s", error.strerror)  # noqa: TRY400 - the message says it all


def renewal_command(configuration: Path) -> tuple[str, ...]:
    """The command line of the timer, by this interpreter.

    Args:
        configuration: scanseal.toml.
    """
    return (sys.executable, "-m", "agent.cli.main", "renew", "--unattended", "--config", str(configuration.absolute()))
