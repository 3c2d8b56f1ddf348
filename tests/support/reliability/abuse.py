"""A crowd of callers that mean harm or are broken, in a process and under a user of their own.

Each kind does what it does again and again, with a new connection each time, until standard input ends. Then the
process prints how often, and how it was answered.

Run as `python -m tests.support.reliability.abuse SOCKET USER CLIENTS`; without any clients there is a flood of
connections instead. Only root can become another user.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Final

SIGN: Final = b"POST /v1/sign/digest HTTP/1.1\r\nScanseal-Version: 1\r\nContent-Length: %d\r\n\r\n"
BODY: Final = b'{"role": "acquisition", "algorithm": "sha256", "digest": "' + b"A" * 43 + b'="}'
STATUS: Final = b"GET /v1/status HTTP/1.1\r\nScanseal-Version: 1\r\n\r\n"
HUGE: Final = (
    b"POST /v1/sign/instance?role=acquisition HTTP/1.1\r\nScanseal-Version: 1\r\nContent-Length: 4294967297\r\n\r\n"
)
PATIENCE: Final = 20.0  # seconds that a connection is kept
PLACE: Final = 3.0  # seconds that a connection is kept for nothing
PAUSE: Final = 0.5  # seconds before the next connection
FLOOD: Final = 20_000  # connections
FLOODS: Final = 8  # of them at the same time
STOPPED: Final = 5  # readers that never read

over = threading.Event()
answers: Counter[str] = Counter()


def answered(connection: socket.socket) -> None:
    """Count the status of an answer."""
    head = connection.recv(1 << 16)[:12].decode("latin-1")
    answers[head.removeprefix("HTTP/1.1 ") or "closed"] += 1


def head_by_drips(connection: socket.socket) -> None:
    """The slow loris: a byte now and then."""
    for byte in STATUS[:-2] + b"X: y\r\n" * 10:
        connection.sendall(bytes([byte]))
        if over.wait(0.2) or select.select([connection], [], [], 0)[0]:
            break
    answered(connection)


def half_a_head(connection: socket.socket) -> None:
    """And nothing more."""
    connection.sendall(STATUS[:20])
    answered(connection)


def half_a_body(connection: socket.socket) -> None:
    """And nothing more."""
    connection.sendall(SIGN % len(BODY) + BODY[:10])
    answered(connection)


def four_gibibytes(connection: socket.socket) -> None:
    """And one byte, announced, and begun with noise."""
    connection.sendall(HUGE + os.urandom(1 << 16))
    answered(connection)


def reset(connection: socket.socket) -> None:
    """Leaves with the answer unread, which resets the connection."""
    connection.sendall(STATUS)
    over.wait(0.05)


def signature(connection: socket.socket) -> None:
    """This user may not have one."""
    for _ in range(20):
        connection.sendall(SIGN % len(BODY) + BODY)
        answered(connection)


def descriptors(connection: socket.socket) -> None:
    """Of every kind, which nobody has asked for (unix(7), SCM_RIGHTS)."""
    with contextlib.ExitStack() as stack:
        ends = [os.memfd_create("odd"), *os.pipe(), os.eventfd(1), os.open("/dev/zero", os.O_RDONLY)]
        for end in ends:
            stack.callback(os.close, end)
        other = stack.enter_context(socket.socket(socket.AF_UNIX))
        ring = stack.enter_context(select.epoll())
        odd = array.array("i", [*ends, other.fileno(), ring.fileno(), connection.fileno()] * 30)
        connection.sendmsg([STATUS], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, odd)])
        answered(connection)


def noise(connection: socket.socket) -> None:
    """No HTTP at all."""
    connection.sendall(os.urandom(1000) + b"\r\n\r\n")
    answered(connection)


def nothing(connection: socket.socket) -> None:
    """Takes a place."""
    if select.select([connection], [], [], PLACE)[0]:
        answered(connection)


KINDS: Final[tuple[Callable[[socket.socket], None], ...]] = (
    head_by_drips,
    half_a_head,
    half_a_body,
    four_gibibytes,
    reset,
    signature,
    descriptors,
    noise,
    nothing,
)


def connected(path: str) -> socket.socket:
    """A new connection; it waits for its turn."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def go_on(path: str, abuse: Callable[[socket.socket], None]) -> None:
    """One kind, again and again."""
    while not over.is_set():
        try:
            with connected(path) as connection:
                answers[abuse.__name__] += 1
                abuse(connection)
        except OSError as error:
            answers[type(error).__name__] += 1
        over.wait(PAUSE)


def flood(path: str) -> None:
    """Connections that are closed at once, as fast as they come."""
    for _ in range(FLOOD // FLOODS):
        if over.is_set():
            return
        try:
            connected(path).close()
            answers["flood"] += 1
        except OSError as error:
            answers[type(error).__name__] += 1


def stopped_readers(path: str) -> int:
    """A process whose connections ask for answers, and which stands still before it reads one (SIGSTOP)."""
    child = os.fork()
    if child:
        return child
    connections = []
    for _ in range(STOPPED):
        with contextlib.suppress(OSError):
            connections.append(connected(path))
            connections[-1].settimeout(0)
            while True:
                connections[-1].send(STATUS * 100)
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(0)


def main() -> None:
    """Abuse the socket until standard input ends, and print what came of it."""
    path, user, clients = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if user != os.getuid():
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    stopped = stopped_readers(path) if clients else 0
    threading.stack_size(256 * 1024)
    threads = [
        threading.Thread(target=go_on, args=(path, KINDS[number % len(KINDS)]), daemon=True)
        for number in range(clients - STOPPED)
    ]
    if not clients:
        threads = [threading.Thread(target=flood, args=(path,), daemon=True) for _ in range(FLOODS)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    over.set()
    if stopped:
        os.kill(stopped, signal.SIGKILL)
        os.waitpid(stopped, 0)
    print(json.dumps(answers))  # noqa: T201 - for the parent
    sys.stdout.flush()
    os._exit(0)  # some threads wait for an answer still


if __name__ == "__main__":
    main()
