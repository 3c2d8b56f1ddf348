"""Debian's scepserver behind a door on loopback, and a scanner that is configured for it.

It issues by itself, for client authentication only and without alternative names, so a device identity without
hardwareModuleName is all that it can bring. It knows no CertPoll. What goes through the door is not changed, unless a
test wants that.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509

from enroll.algorithms import KeyAlgorithm
from enroll.clock import SystemClock
from enroll.config import EnrollSettings, IdentitiesSettings, IdentitySettings
from enroll.flows.settings import ScepSettings
from enroll.identity import Generation, IdentityName
from tests.support.enrolling import Scanner, settings
from tests.support.peer_in_namespace import SECONDS, Peer, need_peer

CHALLENGE = "a challenge"
_CA_PASSWORD = "of the CA's key"


class ScepServer:
    """The door, and scepserver behind it; `scep_site` makes one.

    Args:
        folder: For the CA.
    """

    def __init__(self, folder: Path) -> None:
        self.depot = folder / "depot"
        command = ["scepserver", "ca", "-init", "-depot", str(self.depot), "-keySize", "2048"]
        command += ["-key-password", _CA_PASSWORD]
        subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
        self.ca = x509.load_pem_x509_certificate((self.depot / "ca.pem").read_bytes())
        self.requests: list[bytes] = []
        self.answers: list[bytes] = []
        self.rewrite: Callable[[str, bytes], bytes] = lambda _, answer: answer
        self.options = ["-challenge", CHALLENGE, "-allowrenew", "0", "-crtvalid", "10"]
        self._one_at_a_time = threading.Lock()
        self._peer: Peer | None = None
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _door(self))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        """Of the door."""
        return f"http://127.0.0.1:{self._http.server_port}/scep"

    def start(self) -> None:
        """Open the door."""
        self._thread.start()

    def stop(self) -> None:
        """Close the door, and end scepserver."""
        if self._thread.is_alive():
            self._http.shutdown()
            self._http.server_close()
            self._thread.join()
        self.restart()

    def restart(self, *options: str) -> None:
        """The next request finds it started anew, with more options where a test wants them."""
        self.options += options
        if self._peer is not None:
            self._peer.close()
            self._peer = None

    def issued(self) -> int:
        """How many certificates it has issued, by its own index, a line for each."""
        index = self.depot / "index.txt"
        return len(index.read_text("ascii").splitlines()) if index.exists() else 0

    def answer(self, query: str, body: bytes) -> tuple[int, str, bytes]:
        """HTTP status, media type and answer of scepserver."""
        # A client that has gone away and asks anew finds its first question still at work.
        with self._one_at_a_time:
            if self._peer is None:
                self._peer = Peer(
                    "tests.support.scep_peer", ["-depot", str(self.depot), "-capass", _CA_PASSWORD, *self.options]
                )
            status, said = self._peer.ask(query.encode("ascii") + b"\n" + body)
        content_type, _, answer = said.partition(b"\n")
        if body:
            self.requests.append(body)
            self.answers.append(answer)
        return status, content_type.decode("ascii"), self.rewrite(query, answer)


@dataclass(frozen=True)
class Site:
    """A hospital with a SCEP server, and its scanner."""

    scanner: Scanner
    server: ScepServer

    def current(self, identity: IdentityName = IdentityName.DEVICE) -> Generation:
        """What is in use."""
        generation = self.scanner.matching_pair(identity)
        assert generation is not None
        return generation

    def challenge(self, password: str) -> None:
        """What the file holds from now on."""
        path = self.scanner.settings.scep.challenge_file
        assert path is not None
        path.write_text(password, "ascii")


def configured(plain: EnrollSettings, url: str, folder: Path) -> EnrollSettings:
    """The settings of a scanner, with `[scep]` and without what scepserver does not certify."""
    challenge_file = folder / "challenge"
    challenge_file.write_text(CHALLENGE, "ascii")
    challenge_file.chmod(0o600)
    anchor_file = folder / "anchors.pem"
    scep = ScepSettings(enabled=True, url=url, anchor_file=anchor_file, challenge_file=challenge_file, timeout=20)
    return replace(plain, device=replace(plain.device, hardware_type=""), scep=scep)


@contextmanager
def scep_site(
    folder: Path, changes: EnrollSettings | None = None, algorithm: KeyAlgorithm = KeyAlgorithm.RSA_2048
) -> Iterator[Site]:
    """A hospital and its scanner.

    Args:
        folder: For both.
        changes: Settings of the scanner, without `[scep]`.
        algorithm: Of its keys, where no settings are given.
    """
    need_peer("scepserver", "scep")
    keys = IdentitiesSettings(device=IdentitySettings(key_algorithm=algorithm))
    plain = changes or replace(settings(folder), identity=keys)
    server = ScepServer(folder)
    server.start()
    try:
        yield Site(Scanner(configured(plain, server.url, folder), (server.ca,), SystemClock()), server)
    finally:
        server.stop()


def _door(server: ScepServer) -> type[BaseHTTPRequestHandler]:
    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._pass_on()

        def do_POST(self) -> None:
            self._pass_on()

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            status, content_type, answer = server.answer(urlsplit(self.path).query, body)
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    return Door
