"""SIGTERM while a token hangs: what is under way is brought to its end, and nobody waits for the token."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from agent.daemon.keyholder import LOOK_SECONDS, Keyholder, Parts
from agent.daemon.listener import Listener
from enroll.clock import SystemClock

LONG = 30.0  # seconds that a look at a token takes here, unless the test has come to its end


class Hanging:
    """Identities whose key store does not answer."""

    offers = ()
    awaiting = ()

    def __init__(self, signals: int) -> None:
        self._signals = signals
        self.released = threading.Event()
        self.ended = False

    def refresh(self, *, at_once: bool = False) -> None:
        del at_once
        os.write(self._signals, bytes([signal.SIGTERM]))  # comes while the token is asked
        self.released.wait(LONG)
        self.ended = True


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe2(os.O_NONBLOCK)
    yield ends
    for end in ends:
        os.close(end)


def parts(folder: Path, signals: int, identities: Hanging) -> tuple[Parts, MagicMock]:
    others: Any = MagicMock()
    others.workers.running.return_value = ()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / "s"))
    listening.listen()
    listening.settimeout(0)
    return Parts(
        signals=signals,
        listener=Listener(listening, None),
        workers=others.workers,
        channels=others.channels,
        identities=identities,  # type: ignore[arg-type]
        roles=others.roles,
        limits=others.limits,
        tally=others.tally,
        renewal=others.renewal,
        audit=others.audit,
        manager=others.manager,
        clock=SystemClock(),
        clock_watch=others.clock_watch,
    ), others


ENDING = """
import os, pathlib, sys
from contextlib import closing
from tests.unit.test_keyholder_stops import Hanging, Keyholder, parts
reads, writes = os.pipe2(os.O_NONBLOCK)
found, _ = parts(pathlib.Path(sys.argv[1]), reads, Hanging(writes))
with closing(found.listener):
    Keyholder(found).serve()
"""


def test_nor_does_it_keep_the_process_from_ending(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ENDING, str(tmp_path)]
    subprocess.run(command, check=True, timeout=LOOK_SECONDS + LONG / 2, cwd=Path(__file__).parents[2])


def test_a_token_that_hangs_does_not_keep_the_agent_from_finishing_what_is_under_way(
    tmp_path: Path, pipe: tuple[int, int]
) -> None:
    reads, writes = pipe
    identities = Hanging(writes)
    found, others = parts(tmp_path, reads, identities)
    begin = time.monotonic()
    try:
        with closing(found.listener):
            Keyholder(found).serve()
        took = time.monotonic() - begin
        assert not identities.ended
    finally:
        identities.released.set()

    assert took < LOOK_SECONDS + LONG / 2
    others.workers.drain.assert_called_once()
    others.tally.write.assert_called_with(at_once=True)
