"""Commands of scanseal as processes that start at once: python -m tests.support.fdo.quick_start.

Python takes half a second to start, and a sweep of kills starts some hundred processes. So this one imports everything
and forks: each line of its input is an `Order`, and each child is the command, as if it had been typed. It answers with
the id of the child, and when that has ended, with how.

What cannot be done from outside at the right moment, the child does to itself: it sends itself SIGKILL before or after
an operation on the disk, or when an answer has come. SIGKILL lets no program do anything more.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agent.cli import main
from enroll.clock import SystemClock
from enroll.fdo.messages import MessageType
from enroll.fdo.transport import HttpChannel, Received

TIMEOUT = 60  # seconds, after which a command is killed
LOADED = (
    "agent.cli.enroll.fdo",
    "agent.cli.fdo.init",
    "agent.cli.owner",
    "agent.cli.renew",
    "enroll.flows.est",
    "enroll.flows.fdo",
    "enroll.keystore.software",
    "enroll.keystore.pkcs11",
)
# What changes names. Between them files are written that have no name yet, and nothing that SIGKILL could lose.
OPERATIONS = ("mkdir", "rename", "replace", "rmdir", "symlink", "unlink")


@dataclass(frozen=True)
class Order:
    """A command.

    Args:
        words: After `scanseal`.
        output: File for what it says.
        environment: Beside that of this process.
        seconds_later: How far its clock is ahead, as if so much time had gone by.
        operation: The number of the operation on the disk at which it is killed; 0 for none.
        after: Whether that is done first.
        answer: The number of a message, and which one of those; it is killed when the answer has come. Zeros for none.
    """

    words: Sequence[str]
    output: str
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds_later: float = 0.0
    operation: int = 0
    after: bool = False
    answer: Sequence[int] = (0, 0)

    def encode(self) -> str:
        return json.dumps(asdict(self)) + "\n"


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def cut_operations(order: Order) -> None:
    """Count the operations on the disk, and end at the one that is named."""
    left = order.operation

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and not order.after:
                killed()
            try:
                return real(*arguments, **options)
            finally:
                if left == 0:
                    killed()

        return operation

    for name in OPERATIONS:
        setattr(os, name, counting(getattr(os, name)))


def cut_answers(order: Order) -> None:
    """End as soon as the answer has come."""
    asked, real = order.answer[0], HttpChannel.exchange
    left = order.answer[1]

    def exchange(channel: HttpChannel, number: MessageType, body: bytes) -> Received:
        nonlocal left
        received = real(channel, number, body)
        left -= number == asked
        if number == asked and left == 0:
            killed()
        return received

    setattr(HttpChannel, "exchange", exchange)  # noqa: B010 - mypy does not want it as an assignment


def shift_clock(order: Order) -> None:
    later = timedelta(seconds=order.seconds_later)
    setattr(SystemClock, "now", lambda _: datetime.now(UTC) + later)  # noqa: B010 - as above


def carry_out(order: Order) -> int:
    """The child."""
    with Path(order.output).open("w") as output, open(os.devnull) as nothing:  # noqa: PTH123 - a device
        for stream, number in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(stream.fileno(), number)
    os.environ.update(order.environment)
    signal.alarm(TIMEOUT)
    shift_clock(order)
    cut_operations(order)
    cut_answers(order)
    return main.run(order.words)


def serve() -> None:
    """Until the input ends."""
    for name in LOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        order = Order(**json.loads(line))
        process = os.fork()
        if process == 0:
            code = 70
            try:
                code = carry_out(order)
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)
        tell(process)
        _, status = os.waitpid(process, 0)
        tell(os.waitstatus_to_exitcode(status))


def tell(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve()
