"""What the clock is thought of, and what time it is where it is not believed (reliability R5)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from enroll.build_time import BUILD_TIME
from enroll.clock import UNKNOWN_BOOT, SystemClock
from enroll.clock_record import FILE_NAME, Doubt, Reading, Seen, later, read_seen, write_seen
from enroll.clock_sense import JUMP, PATIENCE, SETTLING, ClockSense, judged
from enroll.errors import DiskRefused, StateDamaged, StateError, StateTooNew
from enroll.identity import IdentityName, IdentityStore
from enroll.keystore.base import Protection
from enroll.statefile import StateFiles
from enroll.trust import CLOCK_SKEW, VerifiedCertificate
from tests.support.clocks import SteppedClock
from tests.support.pki import NOW, Content, HospitalCa
from tests.support.reliability.measured import measured

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
END_OF_32_BITS = datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC)
FAR = datetime(2050, 1, 1, tzinfo=UTC)
STEPS = {
    "1 s": SECOND,
    "4 minutes": 4 * MINUTE,
    "1 h": HOUR,
    "24 h": DAY,
    "25 h": 25 * HOUR,
    "400 days": 400 * DAY,
    "10 years": 3653 * DAY,
}
DATES = {"1970": EPOCH, "2038-01-19": END_OF_32_BITS, "2050": FAR}
FORWARD_DOUBTED = {"25 h", "400 days", "10 years"}
BACK_BELIEVED = {"1 s", "4 minutes"}


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def identities(tmp_path: Path) -> IdentityStore:
    return IdentityStore(tmp_path, StateFiles())


@pytest.fixture
def sense(clock: SteppedClock, identities: IdentityStore) -> ClockSense:
    """One that has looked, an hour ago."""
    found = ClockSense.configured(clock, identities)
    found.keep()
    clock.advance(HOUR)
    return found


def again(clock: SteppedClock, identities: IdentityStore) -> ClockSense:
    """As the next process has it."""
    return ClockSense.configured(clock, identities)


# --- one boot


def test_a_clock_that_runs_is_believed(sense: ClockSense, clock: SteppedClock) -> None:
    for step in STEPS.values():
        clock.advance(step)
        found = sense.sense()
        assert (found.wall, found.now, found.doubt, found.since) == (clock.moment, clock.moment, None, None)
        assert found.floor <= clock.moment


@pytest.mark.parametrize("step", STEPS)
def test_a_jump_forward_within_one_boot(sense: ClockSense, clock: SteppedClock, step: str) -> None:
    expected = clock.moment
    clock.moment += STEPS[step]

    found = sense.sense()
    assert found.wall == clock.moment
    assert found.doubt is (Doubt.JUMPED_FORWARD if step in FORWARD_DOUBTED else None)
    assert found.now == (expected if step in FORWARD_DOUBTED else clock.moment)


@pytest.mark.parametrize("step", STEPS)
def test_a_jump_back_within_one_boot(sense: ClockSense, clock: SteppedClock, step: str) -> None:
    sense.sense()
    expected = clock.moment
    clock.moment -= STEPS[step]

    found = sense.sense()
    assert found.doubt is (None if step in BACK_BELIEVED else Doubt.BEHIND_FLOOR)
    assert found.now == (clock.moment if step in BACK_BELIEVED else expected)
    clock.advance(HOUR)
    assert sense.sense().now >= expected


@pytest.mark.parametrize("date", DATES)
def test_a_clock_that_is_set_to_a_date_within_one_boot(sense: ClockSense, clock: SteppedClock, date: str) -> None:
    expected = clock.moment
    clock.moment = DATES[date]

    found = sense.sense()
    assert found.doubt is (Doubt.BEHIND_FLOOR if date == "1970" else Doubt.JUMPED_FORWARD)
    assert expected - HOUR <= found.now <= expected
    assert date[:4] in found.explanation()


def test_a_jump_forward_is_believed_after_a_day(sense: ClockSense, clock: SteppedClock) -> None:
    clock.moment += 400 * DAY
    assert sense.sense().doubt is Doubt.JUMPED_FORWARD
    since = sense.sense().since

    clock.advance(PATIENCE - SECOND)
    assert sense.sense().doubt is Doubt.JUMPED_FORWARD
    assert sense.sense().since == since
    clock.advance(SECOND)
    assert sense.sense().doubt is None
    assert sense.sense().now == clock.moment


def test_a_second_jump_has_to_wait_for_a_day_of_its_own(
    sense: ClockSense, clock: SteppedClock, identities: IdentityStore
) -> None:
    clock.moment += 2 * DAY
    sense.keep()
    clock.advance(PATIENCE - MINUTE)
    clock.moment += 8000 * DAY
    for each in (sense, again(clock, identities)):
        clock.advance(MINUTE)
        assert each.sense().doubt is Doubt.JUMPED_FORWARD

    clock.advance(PATIENCE - 2 * MINUTE)
    assert sense.sense().doubt is Doubt.JUMPED_FORWARD
    clock.advance(2 * MINUTE)
    assert sense.sense().doubt is None


def test_a_clock_that_was_set_back_for_weeks_is_not_believed_because_time_has_passed(
    sense: ClockSense, clock: SteppedClock
) -> None:
    sense.sense()
    expected = clock.moment
    clock.moment -= 40 * DAY
    for _ in range(45):
        clock.advance(DAY)
        expected += DAY
        found = sense.sense()
        assert (found.doubt, found.now) == (Doubt.BEHIND_FLOOR, expected)
        assert f"it was {found.floor:%Y-%m-%d %H:%M} UTC already" in found.explanation()
        assert found.wall < found.floor <= found.now

    clock.moment += 40 * DAY
    assert sense.sense().doubt is None


def test_a_jump_forward_that_is_taken_back_was_none(sense: ClockSense, clock: SteppedClock) -> None:
    clock.moment += 400 * DAY
    assert sense.sense().doubt is Doubt.JUMPED_FORWARD
    clock.moment -= 400 * DAY

    assert sense.sense().doubt is None
    assert sense.now() == clock.moment


def test_a_jump_back_is_no_way_to_jump_forward(
    sense: ClockSense, clock: SteppedClock, identities: IdentityStore
) -> None:
    expected = clock.moment
    for wrong in (EPOCH, FAR, EPOCH, END_OF_32_BITS):
        clock.moment = wrong
        for each in (sense, again(clock, identities)):
            assert each.sense().doubt is (Doubt.BEHIND_FLOOR if wrong == EPOCH else Doubt.JUMPED_FORWARD)
            assert each.now() == expected
            each.keep()


def test_a_clock_that_was_set_back_is_believed_when_it_has_caught_up(sense: ClockSense, clock: SteppedClock) -> None:
    sense.sense()
    clock.moment -= HOUR
    assert sense.sense().doubt is Doubt.BEHIND_FLOOR

    clock.advance(HOUR)
    assert sense.sense().doubt is None
    assert sense.now() == clock.moment


def test_what_the_estimate_counts_is_what_has_passed(sense: ClockSense, clock: SteppedClock) -> None:
    """Also while the machine sleeps, in which CLOCK_MONOTONIC stands still."""
    expected = clock.moment
    clock.moment = EPOCH
    clock.uptime += 3600

    sense.sense()
    assert sense.now() == expected + HOUR - HOUR + HOUR


# --- after a restart of the program or the machine


@pytest.mark.parametrize("date", DATES)
def test_a_doubt_outlives_the_process(
    sense: ClockSense, clock: SteppedClock, identities: IdentityStore, date: str
) -> None:
    clock.moment = DATES[date]
    before = sense.sense()
    sense.keep()
    clock.advance(MINUTE)

    found = again(clock, identities).sense()
    assert (found.doubt, found.since) == (before.doubt, before.since)
    assert found.now == before.now + MINUTE


def test_a_new_process_sees_the_jump_that_nobody_saw(
    sense: ClockSense, clock: SteppedClock, identities: IdentityStore
) -> None:
    expected = clock.moment
    clock.moment = FAR
    assert again(clock, identities).sense().doubt is Doubt.JUMPED_FORWARD
    assert again(clock, identities).now() == expected
    assert sense.sense().doubt is Doubt.JUMPED_FORWARD


@pytest.mark.parametrize("off", [HOUR, 3 * DAY, 400 * DAY])
def test_a_machine_that_was_off_shows_whatever_time_it_is(
    sense: ClockSense, clock: SteppedClock, identities: IdentityStore, off: timedelta
) -> None:
    sense.keep()
    clock.reboot(off)

    assert again(clock, identities).sense().doubt is None
    assert again(clock, identities).now() == clock.moment


def test_a_machine_that_forgets_the_time_goes_on_from_the_last(
    sense: ClockSense, clock: SteppedClock, identities: IdentityStore
) -> None:
    """A dead battery: 1970 after every start. The estimate counts the time that the machine was on."""
    last = read_seen(identities.root, identities.files)
    assert last is not None
    expected = last.believed
    for _ in range(3):
        clock.reboot()
        clock.moment = EPOCH
        booted = again(clock, identities)
        assert booted.sense().doubt is Doubt.BEHIND_FLOOR
        assert booted.now() == expected
        clock.advance(8 * HOUR)
        booted.keep()
        expected += 8 * HOUR
        assert booted.now() == expected
    assert sense.sense().doubt is Doubt.BEHIND_FLOOR


@pytest.mark.parametrize("wrong", [EPOCH, FAR, NOW - 30 * DAY])
def test_a_clock_that_is_set_soon_after_the_start_is_believed(
    sense: ClockSense, clock: SteppedClock, identities: IdentityStore, wrong: datetime
) -> None:
    """NTP does that after every start of a machine without a clock of its own, and leaves nothing wrong behind."""
    sense.keep()
    right = clock.moment + 3 * DAY
    clock.reboot()
    clock.moment = wrong
    booted = again(clock, identities)
    booted.sense()
    booted.keep()
    clock.advance(SETTLING / 2)
    booted.keep()

    clock.moment = right
    for each in (booted, again(clock, identities)):
        assert each.sense().doubt is None
        assert each.now() == right


def test_a_restart_does_not_make_a_jump_good(sense: ClockSense, clock: SteppedClock, identities: IdentityStore) -> None:
    clock.moment = FAR
    sense.keep()
    clock.reboot(uptime=60.0)
    assert again(clock, identities).sense().doubt is Doubt.JUMPED_FORWARD

    clock.advance(PATIENCE)
    assert again(clock, identities).sense().doubt is None


def test_a_machine_that_is_off_at_night_has_its_jump_believed(
    sense: ClockSense, clock: SteppedClock, identities: IdentityStore
) -> None:
    """A day of work is no whole one, and what it was off is not a second jump."""
    clock.moment += 400 * DAY
    sense.keep()
    for _ in range(3):
        clock.advance(8 * HOUR)
        again(clock, identities).keep()
        clock.reboot(16 * HOUR, uptime=SETTLING.total_seconds())

    assert again(clock, identities).sense().doubt is None


# --- what lowers a floor, and what does not


@pytest.fixture
def poisoned(sense: ClockSense, clock: SteppedClock, identities: IdentityStore) -> ClockSense:
    """The machine has run with a clock in 2050, and then somebody has set it right."""
    sense.keep()
    right = clock.moment
    clock.reboot()
    clock.moment = FAR
    wrong = again(clock, identities)
    clock.advance(2 * HOUR)
    wrong.keep()
    assert wrong.sense().doubt is None
    clock.moment = right
    found = again(clock, identities)
    assert found.sense().doubt is Doubt.BEHIND_FLOOR
    assert found.now() >= FAR
    return found


def test_what_is_valid_by_the_wall_clock_or_by_the_estimate_is_not_given_up(poisoned: ClockSense) -> None:
    found = poisoned.sense()

    assert found.within(NOW - DAY, NOW + DAY) == found.wall
    assert found.within(FAR - DAY, FAR + DAY) == found.now
    assert found.within(NOW - 2 * DAY, NOW - DAY) == found.now
    believed = replace(found, doubt=None)
    assert believed.within(NOW - DAY, NOW + DAY) == found.now


def test_a_certificate_for_a_new_key_says_what_time_it_is(
    poisoned: ClockSense, clock: SteppedClock, identities: IdentityStore
) -> None:
    poisoned.confirm(clock.moment - MINUTE)

    for each in (poisoned, again(clock, identities)):
        assert each.sense().doubt is None
        assert each.now() == clock.moment


def test_it_confirms_a_jump_as_well(sense: ClockSense, clock: SteppedClock) -> None:
    clock.moment += 400 * DAY
    assert sense.sense().doubt is Doubt.JUMPED_FORWARD
    sense.confirm(clock.moment)

    assert sense.sense().doubt is None


def test_it_ends_an_estimate_that_is_years_too_late(poisoned: ClockSense, clock: SteppedClock) -> None:
    """Or a certificate that has ended by the estimate when it comes would be renewed again and again."""
    right = clock.moment
    clock.moment = EPOCH
    assert poisoned.now() >= FAR
    poisoned.confirm(right)

    assert poisoned.sense().doubt is Doubt.BEHIND_FLOOR
    assert poisoned.now() == right


@pytest.mark.parametrize("apart", [-400 * DAY, -25 * HOUR, 10 * MINUTE, 400 * DAY])
def test_a_certificate_that_says_something_else_confirms_nothing(
    sense: ClockSense, clock: SteppedClock, apart: timedelta
) -> None:
    """Where it begins later than what was thought, it is at least that time."""
    clock.moment = EPOCH
    before = sense.now()
    sense.confirm(clock.moment + apart)
    assert sense.sense().doubt is Doubt.BEHIND_FLOOR
    sense.confirm(before + 30 * DAY)
    assert sense.now() == before + 30 * DAY


def test_a_person_may_say_that_the_clock_is_right(
    poisoned: ClockSense, clock: SteppedClock, identities: IdentityStore
) -> None:
    assert again(clock, identities).confirm_by_person("uid 0").doubt is Doubt.BEHIND_FLOOR

    assert poisoned.look() == "uid 0"
    assert poisoned.look() == ""
    assert poisoned.sense().doubt is None
    poisoned.keep()
    assert again(clock, identities).look() == ""


def test_nobody_may_say_so_of_a_clock_that_cannot_be_right(sense: ClockSense, clock: SteppedClock) -> None:
    clock.moment = EPOCH
    before = sense.sense()

    with pytest.raises(StateError, match="cannot be right") as refused:
        sense.confirm_by_person("uid 0")
    assert refused.value.code == "clock-not-right"
    assert sense.sense() == before


# --- what others vouch for


def committed(identities: IdentityStore, begin: datetime, files: StateFiles | None = None) -> None:
    key, ca = ec.generate_private_key(ec.SECP256R1()), HospitalCa("Hospital")
    content = replace(Content(), begin=begin, end=begin + 365 * DAY)
    IdentityStore(identities.root, files or identities.files).commit(
        IdentityName.SIGNING,
        VerifiedCertificate(ca.issue(key.public_key(), content), ()),
        "software:k",
        protection=Protection.SOFTWARE,
        flow="est",
        now=NOW,
    )


def test_no_clock_is_believed_that_shows_a_time_before_this_version_was_made(
    identities: IdentityStore, clock: SteppedClock
) -> None:
    clock.moment = BUILD_TIME - DAY

    found = again(clock, identities).sense()
    assert (found.doubt, found.floor, found.now) == (Doubt.BEHIND_FLOOR, BUILD_TIME, BUILD_TIME)


def test_nor_one_before_a_certificate_in_use_begins(identities: IdentityStore, clock: SteppedClock) -> None:
    committed(identities, NOW + 30 * DAY)

    found = again(clock, identities).sense()
    assert (found.doubt, found.now) == (Doubt.BEHIND_FLOOR, NOW + 30 * DAY)


def test_a_clock_that_is_a_little_slower_than_that_of_the_ca_is_believed(
    identities: IdentityStore, clock: SteppedClock
) -> None:
    """And what the CA has issued counts at once."""
    committed(identities, NOW + CLOCK_SKEW)

    found = again(clock, identities).sense()
    assert (found.doubt, found.wall, found.now) == (None, NOW, NOW + CLOCK_SKEW)


# --- the record


def test_what_was_seen_is_written_every_ten_minutes_and_when_it_changes(
    sense: ClockSense, clock: SteppedClock, identities: IdentityStore
) -> None:
    sense.keep()
    writes = 0
    before = (identities.root / FILE_NAME).read_bytes()
    for _ in range(60):
        clock.advance(MINUTE)
        sense.keep()
        now = (identities.root / FILE_NAME).read_bytes()
        writes += now != before
        before = now
    assert writes == 6
    clock.moment = EPOCH
    sense.keep()
    assert (identities.root / FILE_NAME).read_bytes() != before


def test_a_record_comes_back_as_it_was_written(identities: IdentityStore) -> None:
    for seen in (
        Seen(NOW, "boot", NOW, 0.1, "boot"),
        Seen(NOW, "one before", FAR, 1e9, UNKNOWN_BOOT + "x", Doubt.JUMPED_FORWARD, NOW, "uid 0", FAR),
    ):
        write_seen(seen, identities.root, identities.files)
        assert read_seen(identities.root, identities.files) == seen


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("believed", "yesterday"),
        ("believed", "2026-11-22T12:00:00"),
        ("estimate", ""),
        ("boottime", "soon"),
        ("boottime", "nan"),
        ("boottime", "inf"),
        ("boottime", "-1"),
        ("doubt", "maybe"),
        ("since", "0"),
        ("shown", "0"),
    ],
)
def test_a_record_that_says_nothing_sensible_is_damaged(identities: IdentityStore, member: str, value: str) -> None:
    from enroll.record import read_record, write_record  # noqa: PLC0415 - the form of records is not this test's

    write_seen(Seen(NOW, "boot", NOW, 1.0, "boot"), identities.root, identities.files)
    path = identities.root / FILE_NAME
    fields = ("believed", "believed_in", "estimate", "boottime", "boot_id", "doubt", "since", "confirmed_by", "shown")
    write_record(path, read_record(path, fields, identities.files) | {member: value}, identities.files)

    with pytest.raises(StateDamaged):
        read_seen(identities.root, identities.files)


def test_a_damaged_record_leaves_what_certificates_say(
    identities: IdentityStore, clock: SteppedClock, caplog: pytest.LogCaptureFixture
) -> None:
    committed(identities, NOW - HOUR)
    (identities.root / FILE_NAME).write_bytes(b"{}")
    clock.moment = EPOCH
    with caplog.at_level(logging.WARNING):
        found = again(clock, identities)
        assert found.now() == NOW - HOUR
        found.look()
        found.look()

    assert caplog.text.count("is not used") == 1
    found.keep()
    assert read_seen(identities.root, identities.files) is not None


def test_the_record_of_a_later_version_is_neither_used_nor_overwritten(
    identities: IdentityStore, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as later_version:
        later_version.setattr("enroll.record.FORMAT", 2)
        write_seen(Seen(FAR, "boot", FAR, 1.0, "boot"), identities.root, identities.files)
    before = (path := identities.root / FILE_NAME).read_bytes()
    found = again(clock, identities)

    assert found.now() == NOW
    found.confirm(NOW)
    found.keep(at_once=True)
    with pytest.raises(StateTooNew):
        found.confirm_by_person("uid 0")
    assert path.read_bytes() == before


class _Full(StateFiles):
    def __init__(self) -> None:
        self.tried = 0

    def write(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        self.tried += 1
        raise DiskRefused(f"{path} cannot be written.", remedy=f"Make room, for {len(data)} bytes of mode {mode}.")


def test_a_full_disk_keeps_nobody_from_knowing_the_time(
    tmp_path: Path, clock: SteppedClock, caplog: pytest.LogCaptureFixture
) -> None:
    files = _Full()
    found = ClockSense.configured(clock, IdentityStore(tmp_path, files))
    for _ in range(100):
        clock.advance(SECOND)
        found.keep()

    assert found.now() == clock.moment
    assert files.tried == 2
    assert caplog.text.count("cannot be kept") == 2


def test_threads_may_share_it(sense: ClockSense) -> None:
    found: list[datetime] = []
    threads = [threading.Thread(target=lambda: found.extend(sense.now() for _ in range(200))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 800


# --- the pure part at the edges of what a date can be


EDGES = [
    datetime.min.replace(tzinfo=UTC),
    EPOCH,
    EPOCH - SECOND,
    BUILD_TIME,
    NOW,
    END_OF_32_BITS,
    END_OF_32_BITS + SECOND,
    FAR,
    datetime.max.replace(tzinfo=UTC),
]


def test_no_pair_of_times_is_too_much() -> None:
    """Every look after every other, in the same boot and the next: an answer, and never before the floor."""
    looks = 0
    for first in EDGES:
        for second in EDGES:
            for boot, boottime in (("a", 1000.0), ("a", 0.0), ("a", 1e12), ("b", 0.0), ("b", 1e12), ("?c", 1e12)):
                _, seen = judged(Reading(first, 900.0, "a"), None, BUILD_TIME)
                sense, after = judged(Reading(second, boottime, boot), seen, BUILD_TIME)
                assert sense.now >= BUILD_TIME - CLOCK_SKEW
                assert sense.explanation() == "" if sense.doubt is None else sense.explanation()
                judged(Reading(first, boottime + 1, boot), after, BUILD_TIME)
                looks += 1
    assert later(EDGES[-1], DAY) == EDGES[-1]
    measured("R5", "the judgement of the clock, each look after each other", looks=looks, failures=0)


def test_a_boot_that_is_not_known_adds_no_time() -> None:
    """Or each process would add the hours that the machine is up."""
    _, seen = judged(Reading(NOW, 1e6, "?one"), None, BUILD_TIME)
    sense, _ = judged(Reading(EPOCH, 1e6, "?two"), seen, BUILD_TIME)

    assert sense.now == NOW


def test_jumps_and_starts_are_counted(clock: SteppedClock, identities: IdentityStore) -> None:
    """Every step in both directions from a believed clock: the estimate is never off by more than what is tolerated."""
    jumps = 0
    moves: list[Callable[[datetime], datetime]] = [
        *(lambda now, step=step: now + step for step in STEPS.values()),
        *(lambda now, step=step: now - step for step in STEPS.values()),
        *(lambda _, date=date: date for date in DATES.values()),
    ]
    for move in moves:
        fresh = SteppedClock()
        found = ClockSense(fresh)
        found.sense()
        right = fresh.moment
        fresh.moment = move(right)
        off = abs(found.now() - right)
        assert off <= JUMP
        jumps += 1
    measured("R5", "jumps within one boot", jumps=jumps, wrong_estimates=0)


# --- the machine's own


def test_the_real_clocks_answer() -> None:
    system = SystemClock()

    assert abs(system.boottime() - system.boottime()) < 1
    assert system.boottime() >= system.monotonic() - 1
    assert system.boot_id() == system.boot_id()
    assert "-" not in system.boot_id()


def test_the_start_of_the_machine_comes_from_the_unit_where_proc_hides_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """ProcSubset=pid does; %b in a unit is the same number without hyphens (systemd.unit(5))."""
    monkeypatch.setattr("enroll.clock._BOOT_ID", tmp_path / "nothing")
    monkeypatch.setenv("SCANSEAL_BOOT_ID", "0123456789abcdef0123456789abcdef")
    assert SystemClock().boot_id() == "0123456789abcdef0123456789abcdef"

    monkeypatch.delenv("SCANSEAL_BOOT_ID")
    assert SystemClock().boot_id().startswith(UNKNOWN_BOOT)
    assert SystemClock().boot_id() != SystemClock().boot_id()
