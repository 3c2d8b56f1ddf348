"""A CA that is away for weeks, and a scanner whose clock a test moves: each run of the timer is the real command.

Every HTTP exchange that the scanner begins is counted, whether anybody answers or not.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from agent.cli.main import run
from agent.cli.options import configuration
from enroll.certificates import pem
from enroll.flows.base import Enrollment, Issued, OfferedEnrollment
from enroll.http import HttpsSession
from enroll.identity import Generation, IdentityName
from enroll.renewal.silence import Purpose, Silences
from enroll.renewal.spread import own_number
from enroll.revocation.turns import Turns
from enroll.statefile import StateFiles
from tests.support.agent_process import Scanner, new_scanner
from tests.support.clocks import SteppedClock
from tests.support.enrolling import CaFlow
from tests.support.enrolling import Scanner as Enrolling
from tests.support.pki import Content, HospitalCa
from tests.support.scripted_server import Request, ScriptedServer, answer, bag

LIFETIME = timedelta(days=90)
TICK = timedelta(minutes=10)  # of the timer
LOOK = timedelta(hours=16)  # the timer is run at least so often, also where there is nothing to do
IDENTITIES = (IdentityName.DEVICE, IdentityName.SIGNING)
NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME: OpenSSL goes by the clock of the machine
# Of the scanners, one whose own moment is neither first nor last.
SERIAL_NUMBER = next(f"CT-{n:06}" for n in range(1000) if 0.5 < own_number("due", f"CT-{n:06}", "device") < 0.6)
# One whose own moments are as late as those of a certificate: the outage lasts until its end, where it asks most.
LATE_SERIAL_NUMBER = next(
    f"CT-{n:06}" for n in range(10_000) if max(own_number("due", f"CT-{n:06}", name) for name in IDENTITIES) < 0.02
)

UNAVAILABLE = {
    "500": ("500 Internal Server Error", ()),
    "503": ("503 Service Unavailable", ()),
    "503 in an hour": ("503 Service Unavailable", ("Retry-After: 3600",)),
    "503 at once": ("503 Service Unavailable", ("Retry-After: 0",)),
    "429": ("429 Too Many Requests", ()),
    "429 in a week": ("429 Too Many Requests", ("Retry-After: 604800",)),
}
MODES = ("refused", "timeout", "another CA", "cut", *UNAVAILABLE)


class Ca:
    """An EST server, with OCSP and a revocation list beside it; `mode` says what is wrong with it, if anything.

    Args:
        folder: For the files that TLS wants.
        clock: Dates what it issues.
    """

    def __init__(self, folder: Path, clock: SteppedClock) -> None:
        self.clock = clock
        self.authority = HospitalCa()
        self.vendor = HospitalCa("Vendor CA")
        self.mode = ""
        self.requests: list[Request] = []
        self._folder = folder
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))  # nobody listens yet, and nobody else gets the port
        self.url = f"https://127.0.0.1:{self._socket.getsockname()[1]}"

    @contextmanager
    def away(self, mode: str) -> Iterator[None]:
        """The outage."""
        self.mode = mode
        if mode == "refused":
            yield
            return
        if mode == "timeout":
            self._socket.listen(64)  # and nobody takes what comes
            yield
            self._socket.close()
        else:
            with self._server(self.vendor if mode == "another CA" else self.authority):
                yield
        self._socket = _bound(self.url)

    def close(self) -> None:
        """Give the address back."""
        self._socket.close()

    @contextmanager
    def back(self) -> Iterator[None]:
        """It answers again."""
        self.mode = ""
        with self._server(self.authority):
            yield

    def issue(self, key: Any, content: Content) -> x509.Certificate:
        """A certificate that lives for ninety days."""
        now = self.clock.now()
        return self.authority.issue(key, content, begin=now - timedelta(minutes=5), end=now + LIFETIME)

    def _server(self, issuer: HospitalCa) -> ScriptedServer:
        server = ScriptedServer(issuer, self._folder, self._answer)
        server._listener.close()  # in favour of the address that the scanner knows
        self._socket.listen(64)
        server._listener = self._socket
        trusted = server._context
        trusted.load_verify_locations(cadata=_pem(self.vendor))
        trusted.verify_flags |= NO_CHECK_TIME
        return server

    def _answer(self, request: Request) -> bytes:
        if self.mode in UNAVAILABLE:
            status, headers = UNAVAILABLE[self.mode]
            return answer(b"", status, "text/plain", *headers)
        if self.mode:
            return b""
        self.requests.append(request)
        operation = request.path.rpartition("/")[2]
        if operation == "cacerts":
            return bag(self.authority.certificate)
        if operation in ("simpleenroll", "simplereenroll"):
            asked = request.csr
            wanted = {type(extension.value): extension.value for extension in asked.extensions}
            names, usage = wanted.get(x509.SubjectAlternativeName, ()), wanted.get(x509.ExtendedKeyUsage, ())
            content = Content(asked.subject, tuple(names), extended_usage=tuple(usage))
            return bag(self.issue(asked.public_key(), content))
        return answer(b"", "404 Not Found", "text/plain")


def _bound(url: str) -> socket.socket:
    again = socket.socket()
    again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    again.bind(("127.0.0.1", int(url.rpartition(":")[2])))
    return again


def _pem(ca: HospitalCa) -> str:
    return pem([ca.certificate]).decode("ascii")


@dataclass
class Exchanges:
    """What the scanner asked of whom, and when."""

    clock: SteppedClock
    seen: list[tuple[datetime, str]] = field(default_factory=list)

    def count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on."""
        real = HttpsSession._exchange  # where everything goes through

        def exchange(session: HttpsSession, method: str, url: str, *arguments: Any, **options: Any) -> Any:
            self.seen.append((self.clock.now(), f"{method} {url}"))
            return real(session, method, url, *arguments, **options)

        monkeypatch.setattr(HttpsSession, "_exchange", exchange)


@dataclass
class Outage:
    """A scanner with two identities of ninety days, its CA, and its clock."""

    scanner: Scanner
    ca: Ca
    clock: SteppedClock
    exchanges: Exchanges
    configuration: Path
    places: tuple[tuple[Purpose, str], ...]
    serial_number: str = SERIAL_NUMBER

    def current(self, name: IdentityName) -> Generation:
        """The generation in use."""
        found = self.scanner.identities.current(name)
        assert found is not None
        return found

    def timer(self, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, Any]]]:
        """One run of the timer: its exit code, and what it says of each identity."""
        capsys.readouterr()
        code = run(["renew", "--unattended", "--json", "--config", str(self.configuration)])
        records = json.loads(capsys.readouterr().out)["identities"]
        return code, {record["identity"]: record for record in records}

    def pass_time(self, until: datetime, capsys: pytest.CaptureFixture[str]) -> None:
        """Run the timer until then, at those of its ticks at which it has something to do, and at some others."""
        while self.clock.now() < until:
            self.step(until, capsys)

    def step(self, until: datetime, capsys: pytest.CaptureFixture[str]) -> None:
        """Run the timer, and go on to its next tick at which it has something to do."""
        _, said = self.timer(capsys)
        moments = [datetime.fromisoformat(each["next_attempt"]) for each in said.values() if "next_attempt" in each]
        now = self.clock.now()
        following = min([now + LOOK, *(moment for moment in (*moments, *self._asks_again()) if moment > now)])
        ticks = max(-(-(following - now) // TICK), 1)
        self.clock.advance(min(ticks * TICK, max(until - now, TICK)))

    def _asks_again(self) -> Iterator[datetime]:
        """When servers that gave no answer are asked again, those too that no renewal goes to."""
        silences = Silences(self.scanner.state, StateFiles())
        asked = tuple(url for purpose, url in self.places if purpose is Purpose.REVOCATION)
        turn = Turns(silences, asked, self.clock, self.serial_number, patient=True).next_turn()
        if turn is not None:
            yield turn
        for purpose, url in self.places:
            silence = silences.of(url, purpose) if purpose is Purpose.ENROLLMENT else None
            if silence is not None:
                yield silence.ask_again_at(None, self.serial_number)


@contextmanager
def outage(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    factory: bool = False,
    flow: str = "est",
    serial_number: str = SERIAL_NUMBER,
    **tables: dict[str, Any],
) -> Iterator[Outage]:
    """A scanner that has just enrolled.

    Args:
        folder: For everything.
        monkeypatch: Of the test.
        factory: Whether it has a factory identity.
        flow: The way that its certificates have come.
        serial_number: Of the scanner.
        tables: Of its configuration, in place of the usual ones.
    """
    clock = SteppedClock(datetime.now(UTC).replace(microsecond=0) + timedelta(days=1))
    ca = Ca(folder, clock)
    with closing(ca), new_scanner(folder) as scanner:
        anchor_file = folder / "hospital.pem"
        anchor_file.write_text(_pem(ca.authority), "ascii")
        everything: dict[str, dict[str, Any]] = {
            "device": {"serial_number": serial_number},
            "est": {"url": ca.url, "anchor_file": str(anchor_file), "timeout": 1},
            "acme": {"directory_url": f"{ca.url}/directory", "anchor_file": str(anchor_file), "timeout": 1},
            "revocation": {"ocsp_url": f"{ca.url}/ocsp", "crl_url": f"{ca.url}/crl", "timeout": 1},
            "identity.signing": {"key_algorithm": "rsa-2048"},
        }
        everything |= tables
        path = scanner.configure(**everything)
        asked = [(Purpose.REVOCATION, everything["revocation"].get(name)) for name in ("ocsp_url", "crl_url")]
        asked.append((Purpose.ENROLLMENT, everything[flow]["directory_url" if flow == "acme" else "url"]))
        places = tuple((purpose, url) for purpose, url in asked if url)
        monkeypatch.setattr("agent.cli.renew.SystemClock", lambda: clock)
        enrolling = Enrolling(configuration(path).enroll, (ca.authority.certificate,), clock)

        def issued(asked: Enrollment | OfferedEnrollment) -> Issued:
            return Issued((ca.issue(asked.public_key, Content.asked(asked.request, clock.now())),))

        for name in IDENTITIES:
            assert isinstance(enrolling.issue(CaFlow(ca.authority, clock, flow, answer=issued), name), Generation)
        if factory:
            of_vendor = CaFlow(ca.vendor, clock, name="vendor")
            assert isinstance(enrolling.issue(of_vendor, IdentityName.IDEVID), Generation)
        exchanges = Exchanges(clock)
        exchanges.count(monkeypatch)
        yield Outage(scanner, ca, clock, exchanges, path, places, serial_number)
