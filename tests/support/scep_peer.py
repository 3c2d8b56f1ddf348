"""Debian's scepserver in a network namespace of its own, because it listens on all addresses.

    unshare --user --map-root-user --net python -m tests.support.scep_peer OPTION...

Starts `scepserver -port ... OPTION...` there. Each request on standard input (a length of 4 bytes, then the query, a
line feed and the body) is passed on; HTTP status (2 bytes), media type, a line feed and the answer come back behind a
length in the same way. The end of standard input ends it.
"""

from __future__ import annotations

import http.client
import subprocess
import sys
import time
from pathlib import Path

PORT = 8080
SECONDS = 20.0


def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=SECONDS)
    command = ["scepserver", "-port", str(PORT), *sys.argv[1:]]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr)
    try:
        _wait(server)
        _send(b"")  # ready
        while length := sys.stdin.buffer.read(4):
            query, _, body = sys.stdin.buffer.read(int.from_bytes(length, "big")).partition(b"\n")
            _send(_ask(query.decode("ascii"), body))
    finally:
        server.terminate()
        server.wait(timeout=SECONDS)


def _wait(server: subprocess.Popen[bytes]) -> None:
    """Until it listens; nobody else is in this namespace."""
    deadline = time.monotonic() + SECONDS
    listening = f":{PORT:04X} "
    while not any(listening in Path("/proc/net", table).read_text("ascii") for table in ("tcp", "tcp6")):
        if server.poll() is not None or time.monotonic() > deadline:
            raise TimeoutError("scepserver does not listen")
        time.sleep(0.01)


def _ask(query: str, body: bytes) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=SECONDS)
    connection.request("POST" if body else "GET", f"/scep?{query}", body or None)
    answer = connection.getresponse()
    content_type = answer.headers.get("Content-Type", "")
    return answer.status.to_bytes(2, "big") + content_type.encode("ascii") + b"\n" + answer.read()


def _send(data: bytes) -> None:
    sys.stdout.buffer.write(len(data).to_bytes(4, "big") + data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
