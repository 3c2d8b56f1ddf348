"""A keyholder whose clock jumps: signing goes on, and everybody who looks is told (reliability R5)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.audit import AuditTrail
from agent.daemon.clock_watch import ClockWatch
from agent.daemon.peer import Caller
from agent.daemon.service import SigningService
from agent.daemon.signer import Identities
from agent.daemon.tally import SigningTally
from agent.daemon.wire import HashName, Operation, Request, Role, Signature, decode_answer, decode_signature
from agent.errors import SigningError
from enroll.clock_record import changing_seen
from enroll.clock_sense import ClockSense
from enroll.errors import DiskRefused
from enroll.identity import IdentityName
from tests.support.agent_process import Scanner, new_scanner
from tests.support.clocks import SteppedClock
from tests.support.reliability.measured import measured

ME = Caller(pid=1, uid=1000, groups=(1000,))
SIGN = Request(Operation.SIGN, hash_name=HashName.SHA256, digest=bytes(32), reference="1.2.3")
DAY = timedelta(days=1)
NO_TIME_DOUBTED = {timedelta(seconds=1), timedelta(seconds=-1), timedelta(hours=1)}
JUMPS = {
    "a second forward": timedelta(seconds=1),
    "a second back": timedelta(seconds=-1),
    "an hour forward": timedelta(hours=1),
    "an hour back": timedelta(hours=-1),
    "400 days forward": 400 * DAY,
    "400 days back": -400 * DAY,
    "30 years forward": 30 * 365 * DAY,
    "56 years back": -56 * 365 * DAY,
}


@dataclass
class Keyholder:
    """The keyholder's side, in this process."""

    scanner: Scanner
    clock: SteppedClock
    audit: AuditTrail

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """As after a restart of the agent."""
        self.sense = ClockSense.configured(self.clock, self.scanner.identities)
        self.identities = Identities(self.scanner.identities, self.scanner.keys, self.audit, self.sense)
        tally = SigningTally(self.audit, self.clock, 0.0)
        self.service = SigningService(self.identities, self.audit, self.sense, tally, dict)
        self.watch = ClockWatch(self.sense, self.audit)
        self.tick()

    def tick(self) -> None:
        """What is done once a second."""
        self.watch.tend()
        self.identities.refresh()

    def sign(self) -> Signature:
        """One signature, or the error."""
        return decode_signature(self.service.reply(SIGN.encode(), ME, frozenset({Role.ACQUISITION})))

    def status(self) -> dict[str, Any]:
        """What the socket tells."""
        frame = self.service.reply(Request(Operation.STATUS).encode(), ME, frozenset())
        found: dict[str, Any] = json.loads(decode_answer(frame))
        return found


@pytest.fixture
def keyholder(tmp_path: Path) -> Iterator[Keyholder]:
    clock = SteppedClock(datetime.now(UTC))
    with new_scanner(tmp_path) as scanner:
        scanner.enroll()
        scanner.audit_file.parent.mkdir()
        audit = AuditTrail(scanner.audit_file, clock)
        yield Keyholder(scanner, clock, audit)
        audit.close()


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("jump", JUMPS)
def test_no_jump_stops_signing_and_a_large_one_is_told(keyholder: Keyholder, jump: str, *, restarted: bool) -> None:
    assert not keyholder.sign().clock_suspect
    keyholder.clock.moment += JUMPS[jump]
    doubted = JUMPS[jump] not in NO_TIME_DOUBTED
    if restarted:
        keyholder.start()

    # At once, before anybody has looked, and after that.
    assert keyholder.sign().clock_suspect is doubted
    keyholder.tick()
    assert keyholder.sign().clock_suspect is doubted
    assert keyholder.status()["state"] == "ready"
    lines = keyholder.scanner.audit("clock-suspect")
    assert [line["doubt"] for line in lines] == [keyholder.status()["clock"]["doubt"]] * doubted
    warnings = [line.get("warning") for line in keyholder.scanner.audit("signature")]
    assert warnings == [None, *["clock-suspect" if doubted else None] * 2]
    measured("R5", "jumps under a keyholder that signs", jumps=2 * len(JUMPS), refused=0)


def test_the_status_says_what_the_clock_shows_and_what_is_believed(keyholder: Keyholder) -> None:
    right = keyholder.clock.moment
    keyholder.clock.moment = datetime(1970, 1, 1, tzinfo=UTC)

    status = keyholder.status()
    assert status["time"] == "1970-01-01T00:00:00+00:00"
    assert status["clock"] == {
        "doubt": "behind-floor",
        "estimate": right.isoformat(timespec="seconds"),
        "floor": right.isoformat(timespec="seconds"),
        "since": right.isoformat(timespec="seconds"),
    }


def test_the_audit_trail_keeps_what_the_clock_shows(keyholder: Keyholder) -> None:
    keyholder.clock.moment = datetime(1970, 1, 1, tzinfo=UTC)
    keyholder.sign()

    last = json.loads(keyholder.scanner.audit_file.read_text("ascii").splitlines()[-1])
    assert last["event"] == "signature"
    assert last["time"].startswith("1970-01-01T00:00:00")


def test_a_certificate_that_has_ended_signs_nothing_whatever_the_clock_is_set_to(keyholder: Keyholder) -> None:
    """Once it has ended by a clock that was believed, and the clock then loses the time."""
    end = keyholder.identities.active_key(IdentityName.SIGNING).signs_until
    keyholder.clock.advance(end - keyholder.clock.moment + timedelta(hours=1))
    keyholder.tick()
    for wall in (keyholder.clock.moment, datetime(1970, 1, 1, tzinfo=UTC), keyholder.clock.moment + 400 * DAY):
        keyholder.clock.moment = wall
        keyholder.tick()
        with pytest.raises(SigningError) as refused:
            keyholder.sign()
        assert refused.value.code == "certificate-expired"


def test_a_clock_that_is_right_again_is_believed_and_the_trail_says_so(keyholder: Keyholder) -> None:
    right = keyholder.clock.moment
    keyholder.clock.moment = datetime(1970, 1, 1, tzinfo=UTC)
    keyholder.tick()
    keyholder.clock.moment = right
    keyholder.tick()

    assert not keyholder.sign().clock_suspect
    assert len(keyholder.scanner.audit("clock-believed")) == 1


def test_who_says_that_the_clock_is_right_is_audited_once(keyholder: Keyholder) -> None:
    """Also where no agent runs when it is said."""
    keyholder.clock.moment += 400 * DAY
    keyholder.tick()
    assert keyholder.sign().clock_suspect
    ClockSense.configured(keyholder.clock, keyholder.scanner.identities).confirm_by_person("uid 0")
    keyholder.start()
    keyholder.tick()
    keyholder.start()

    assert keyholder.scanner.audit("clock-confirmed") == [{"by": "uid 0"}]
    assert keyholder.status()["clock"]["doubt"] is None


def test_two_people_who_say_so_before_the_agent_looks_are_both_audited(keyholder: Keyholder) -> None:
    """What the second one says does not replace who the first was."""
    keyholder.clock.moment += 400 * DAY
    keyholder.tick()
    for who in ("uid 0", "uid 1000", "uid 0"):
        ClockSense.configured(keyholder.clock, keyholder.scanner.identities).confirm_by_person(who)
    keyholder.tick()
    keyholder.tick()

    assert keyholder.scanner.audit("clock-confirmed") == [{"by": "uid 0, uid 1000"}]


def test_who_said_so_while_the_trail_took_no_line_is_audited_when_it_does(
    keyholder: Keyholder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise DiskRefused("No space left on device.")

    for who in ("uid 0", "uid 1000"):
        ClockSense.configured(keyholder.clock, keyholder.scanner.identities).confirm_by_person(who)
        with monkeypatch.context() as patch:
            patch.setattr(AuditTrail, "record", full)
            with pytest.raises(DiskRefused):
                keyholder.watch.tend()
    keyholder.watch.tend()

    assert keyholder.scanner.audit("clock-confirmed") == [{"by": "uid 0, uid 1000"}]


def test_what_a_person_says_is_not_overwritten_by_the_agent(keyholder: Keyholder) -> None:
    """Said between two glances of one look, when the agent is about to write what it thinks."""
    keyholder.clock.moment += 400 * DAY
    keyholder.tick()
    keyholder.sense.look()
    ClockSense.configured(keyholder.clock, keyholder.scanner.identities).confirm_by_person("uid 0")
    keyholder.clock.advance(timedelta(minutes=11))
    keyholder.sense.keep()
    keyholder.tick()

    assert keyholder.scanner.audit("clock-confirmed") == [{"by": "uid 0"}]
    assert keyholder.sense.sense().doubt is None


def test_what_a_person_says_is_not_overwritten_by_an_enroller(keyholder: Keyholder) -> None:
    """Which began before, and whose CA then says nothing about the jump, or the same."""
    for apart in (DAY * 400, timedelta()):
        keyholder.clock.moment += 400 * DAY
        keyholder.tick()
        enroller = ClockSense.configured(keyholder.clock, keyholder.scanner.identities)
        assert enroller.sense().doubt is not None
        ClockSense.configured(keyholder.clock, keyholder.scanner.identities).confirm_by_person("uid 0")
        enroller.confirm(keyholder.clock.moment - apart)
        keyholder.tick()

        assert keyholder.scanner.audit("clock-confirmed")[-1] == {"by": "uid 0"}
        assert keyholder.sense.sense().doubt is None
    assert len(keyholder.scanner.audit("clock-confirmed")) == 2


def test_a_signature_waits_for_nobody_who_writes_down_what_the_clock_shows(keyholder: Keyholder) -> None:
    identities = keyholder.scanner.identities
    keyholder.clock.advance(timedelta(minutes=11))
    keeper = threading.Thread(target=keyholder.sense.keep)
    with changing_seen(identities.root, identities.files):
        keeper.start()
        assert keyholder.sign().generation == 1
        assert keeper.is_alive()
    keeper.join()


def test_a_jump_that_is_confirmed_ends_what_has_ended(keyholder: Keyholder) -> None:
    """By a clock that is believed, certificates expire."""
    keyholder.clock.moment += 30 * 365 * DAY
    keyholder.tick()
    assert keyholder.sign().clock_suspect
    keyholder.clock.advance(DAY)
    keyholder.tick()

    with pytest.raises(SigningError) as refused:
        keyholder.sign()
    assert refused.value.code == "certificate-expired"
