"""When the timer asks about revocation while the same host issues nothing, and when it does not (R6)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.cli.options import configuration
from enroll.certificates import serial_text
from enroll.config import EnrollSettings
from enroll.identity import Generation
from enroll.renewal.silence import Purpose, Silences
from enroll.revocation.lists import Statement
from enroll.revocation.record import RevocationRecord, RevocationRecords
from enroll.revocation.watch import watch_revocations
from tests.support.agent_process import Scanner, new_scanner
from tests.support.clocks import SteppedClock
from tests.support.reliability.outage import Exchanges
from tests.support.revoking_ca import RevokingCa

DAY = timedelta(days=1)
RESPONDER, EST = "http://127.0.0.1:9/ocsp", "https://127.0.0.1:8443/.well-known/est"  # nobody listens at either


class Asked:
    """A scanner whose certificate names a responder at the host of its CA, and what was asked of that."""

    def __init__(self, scanner: Scanner, folder: Path, exchanges: Exchanges, clock: SteppedClock) -> None:
        self.scanner = scanner
        self.clock = clock
        self.exchanges = exchanges
        self.generation: Generation = RevokingCa(folder / "ca").enroll(scanner, responder=RESPONDER)
        self.settings: EnrollSettings = configuration(scanner.configure()).enroll
        self.silences = Silences(self.settings.state_directory, scanner.identities.files)

    def answered(self, at: datetime) -> None:
        """The responder has answered, and another place was asked in vain just now."""
        begin = RevocationRecord(self.generation.number, serial_text(self.generation.certificate), at)
        record = begin.after(Statement(at, at + DAY), RESPONDER, at)
        record = record.without_answer("nothing", self.clock.now() - timedelta(hours=2))
        RevocationRecords(self.scanner.identities).write(self.generation, record)

    def now(self, *, patient: bool = True) -> bool:
        """Whether a run of the timer asks."""
        before = len(self.exchanges.seen)
        watch_revocations(self.settings, self.clock, self.scanner.identities, patient=patient)
        return len(self.exchanges.seen) > before


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    clock = SteppedClock(datetime.now(UTC).replace(microsecond=0))
    exchanges = Exchanges(clock)
    exchanges.count(monkeypatch)
    with new_scanner(tmp_path) as scanner:
        yield Asked(scanner, tmp_path, exchanges, clock)


@pytest.mark.parametrize(
    ("issued_nothing", "answered", "asks"),
    [
        pytest.param(1, 9, False, id="the host issues nothing, and has answered lately"),
        pytest.param(1, 10, True, id="the host issues nothing, and may have revoked it in ten days"),
        pytest.param(2, 1, True, id="nobody asks for certificates there any more"),
        pytest.param(3650, 9, True, id="nor has done so for ten years"),
        pytest.param(-1, 1, True, id="what was noted in the future counts for nothing"),
        pytest.param(None, 1, True, id="it issues"),
    ],
)
def test_a_host_that_issues_nothing_is_asked(
    asked: Asked, issued_nothing: int | None, answered: int, *, asks: bool
) -> None:
    now = asked.clock.now()
    if issued_nothing is not None:
        asked.silences.note(EST, Purpose.ENROLLMENT, now - issued_nothing * DAY)
    asked.answered(now - answered * DAY)

    assert asked.now() is asks
    assert asked.now(patient=False)


@pytest.mark.parametrize("url", [EST, "https://est.example"], ids=["the host", "another host"])
def test_while_a_host_issues_nothing_what_says_nothing_is_asked_every_ten_days(asked: Asked, url: str) -> None:
    begin = asked.clock.now()
    while asked.clock.now() < begin + 30 * DAY:
        asked.silences.note(url, Purpose.ENROLLMENT, asked.clock.now())
        asked.now()
        asked.clock.advance(DAY / 4)

    assert [(when - begin) // DAY for when, _ in asked.exchanges.seen] == [0, 10, 20]
