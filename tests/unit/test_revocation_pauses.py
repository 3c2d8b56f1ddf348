"""When the timer asks about revocation while the same host issues nothing, and when it does not (R6)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.cli.options import configuration
from enroll.certificates import serial_text
from enroll.config import EnrollSettings
from enroll.errors import ServerUnreachable
from enroll.identity import Generation
from enroll.renewal.silence import Purpose, Silences
from enroll.revocation.lists import Statement
from enroll.revocation.record import RevocationRecord, RevocationRecords
from enroll.revocation.turns import Turns
from enroll.revocation.watch import watch_revocations
from enroll.statefile import StateFiles
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
        pytest.param(1, 14, False, id="the host issues nothing, and has answered lately"),
        pytest.param(1, 15, True, id="the host issues nothing, and may have revoked it in fifteen days"),
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
def test_while_a_host_issues_nothing_what_says_nothing_is_asked_every_fifteen_days(asked: Asked, url: str) -> None:
    begin = asked.clock.now()
    while asked.clock.now() < begin + 30 * DAY:
        asked.silences.note(url, Purpose.ENROLLMENT, asked.clock.now())
        asked.now()
        asked.clock.advance(DAY / 4)

    assert [(when - begin) // DAY for when, _ in asked.exchanges.seen] == [0, 15]


# --- several that give no answer share their turns

PLACES = ("http://one.example/ocsp", "http://two.example/crl", "http://three.example/crl")


class Shared:
    """Places of which none answers, and a timer that runs every ten minutes."""

    def __init__(self, folder: Path) -> None:
        self.clock = SteppedClock(datetime(2027, 1, 1, tzinfo=UTC))
        self.silences = Silences(folder, StateFiles())
        self.turns = Turns(self.silences, PLACES, self.clock, "CT-1", patient=True)
        self.asked: list[tuple[datetime, str]] = []

    def pass_time(self, days: float, *, silent: tuple[str, ...] = PLACES, issues: bool = True) -> None:
        """Run the timer."""
        end = self.clock.now() + days * DAY
        while self.clock.now() < end:
            for url in PLACES:
                if self.turns.may_ask(url, None):
                    self.ask(url, silent)
            if not issues:
                self.silences.note(EST, Purpose.ENROLLMENT, self.clock.now())
            self.clock.advance(timedelta(minutes=10))

    def ask(self, url: str, silent: tuple[str, ...]) -> None:
        """One question."""
        self.asked.append((self.clock.now(), url))
        with suppress(ServerUnreachable), self.turns.noted(url):
            if url in silent:
                raise ServerUnreachable("No answer.", remedy="Wait.")


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    return Shared(tmp_path)


def test_places_that_give_no_answer_are_asked_once_a_day_together(shared: Shared) -> None:
    shared.pass_time(30)

    first, later = shared.asked[:3], shared.asked[3:]
    assert [url for _, url in first] == list(PLACES)
    assert 28 <= len(later) <= 33
    assert [url for _, url in later[:6]] == [*PLACES, *PLACES]  # each has its turn


def test_one_that_is_back_is_asked_after_as_many_days_as_there_are_and_then_every_time(shared: Shared) -> None:
    shared.pass_time(10)
    for back in PLACES:
        begin = shared.clock.now()
        shared.pass_time(3.5, silent=tuple(url for url in PLACES if url != back))
        answered = next(moment for moment, url in shared.asked if url == back and moment >= begin)

        assert answered - begin <= 3 * 1.1 * DAY + timedelta(minutes=10)
        assert shared.turns.may_ask(back, None)


def test_a_certificate_that_came_ends_the_long_pause(shared: Shared) -> None:
    """What was away with the CA is back with it: a revocation is learnt at once."""
    shared.pass_time(1)
    begin = shared.clock.now()
    shared.pass_time(12, issues=False)
    meanwhile = [moment for moment, _ in shared.asked if moment > begin]
    shared.silences.forget(EST, Purpose.ENROLLMENT)
    back = shared.clock.now()
    shared.pass_time(1)

    assert len(meanwhile) <= 1
    assert next(moment for moment, _ in shared.asked if moment >= back) == back


def test_one_that_wants_to_be_left_alone_lets_the_next_go_before_it(shared: Shared) -> None:
    """RFC 9110 10.2.3: a Retry-After is kept, and takes the turn of nobody."""
    for url in PLACES:
        shared.silences.note(url, Purpose.REVOCATION, shared.clock.now())
        shared.clock.advance(timedelta(minutes=1))
    shared.silences.note(PLACES[0], Purpose.REVOCATION, shared.clock.now() - timedelta(hours=1), DAY)
    shared.clock.advance(timedelta(hours=2))

    assert [url for url in PLACES if shared.turns.may_ask(url, None)] == [PLACES[1]]


def test_a_turn_that_nobody_uses_keeps_no_other_from_being_asked(shared: Shared) -> None:
    """A list is not asked while the responder beside it answers, and may have been silent once."""
    unused, used, _ = PLACES
    for url in (unused, used):
        shared.silences.note(url, Purpose.REVOCATION, shared.clock.now())
        shared.clock.advance(timedelta(minutes=1))
    shared.clock.advance(timedelta(hours=4))

    assert shared.turns.may_ask(used, None)
    shared.ask(used, silent=PLACES)
    assert not shared.turns.may_ask(used, None)  # the next turn is tomorrow's
