"""The mock server of `openssl cmp` in a network namespace of its own, because it listens on all addresses.

    unshare --user --map-root-user --net python -m tests.support.cmp_peer OPTION...

Starts `openssl cmp -port ... OPTION...` there. Each message on standard input, as a length of 4 bytes and its bytes,
is posted to the server; HTTP status (2 bytes) and answer come back in the same way. The end of standard input ends it.
"""

from __future__ import annotations

import fcntl
import http.client
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

PORT = 8880
SECONDS = 20.0

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


def main() -> None:
    _loopback_up()
    command = ["openssl", "cmp", "-config", "", "-port", str(PORT), "-max_msgs", "200", *sys.argv[1:]]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr)
    try:
        _wait(server)
        _send(b"")  # ready
        # The server forgets a transaction when its connection ends, so the messages of one go over the same.
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=SECONDS)
        while length := sys.stdin.buffer.read(4):
            _send(_post(connection, sys.stdin.buffer.read(int.from_bytes(length, "big"))))
    finally:
        server.terminate()
        server.wait(timeout=SECONDS)


def _loopback_up() -> None:
    with socket.socket() as any_socket:
        request = struct.pack("16sH14s", b"lo", _IFF_UP, b"")
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)


def _wait(server: subprocess.Popen[bytes]) -> None:
    """Until it listens; nobody else is in this namespace. A connection to try would keep it busy for a second."""
    deadline = time.monotonic() + SECONDS
    listening = f":{PORT:04X} "
    while not any(listening in Path("/proc/net", table).read_text("ascii") for table in ("tcp", "tcp6")):
        if server.poll() is not None or time.monotonic() > deadline:
            raise TimeoutError("openssl does not listen")
        time.sleep(0.01)


def _post(connection: http.client.HTTPConnection, message: bytes) -> bytes:
    headers = {"Content-Type": "application/pkixcmp", "Connection": "keep-alive"}
    try:
        connection.request("POST", "/pkix/", body=message, headers=headers)
        answer = connection.getresponse()
    except (ConnectionError, http.client.HTTPException):  # the server has closed it after a transaction
        connection.close()
        connection.request("POST", "/pkix/", body=message, headers=headers)
        answer = connection.getresponse()
    return answer.status.to_bytes(2, "big") + answer.read()


def _send(data: bytes) -> None:
    sys.stdout.buffer.write(len(data).to_bytes(4, "big") + data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
