"""Alarms before a certificate ends: at each level once, and only where its renewal is overdue."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.keystore.base import Protection
from enroll.renewal.alarms import LEVELS, alarm, alarm_text, raise_alarm
from enroll.statefile import GROUP_DIRECTORY, StateFiles
from tests.support.pki import NOW, HospitalCa, new_key

CA = HospitalCa()
DEVICE = IdentityName.DEVICE
STEP = timedelta(minutes=10)


def generation(lifetime: timedelta, number: int = 1) -> Generation:
    certificate = CA.issue(new_key().public_key(), begin=NOW, end=NOW + lifetime)
    return Generation(DEVICE, number, certificate, (), "software:x", Protection.SOFTWARE, "est", NOW)


def raised(found: Generation, until: datetime) -> list[timedelta]:
    """Every level that holds at some time, in this order."""
    levels: list[timedelta] = []
    now = NOW
    while now <= until:
        level = alarm(found, now)
        if level is not None and levels[-1:] != [level]:
            levels.append(level)
        now += STEP
    return levels


@pytest.fixture
def identities(tmp_path: Path) -> IdentityStore:
    store = IdentityStore(tmp_path, StateFiles())
    store.files.make_directory(store.directory(DEVICE), GROUP_DIRECTORY)
    return store


@pytest.mark.parametrize(
    ("lifetime", "levels"),
    [
        (timedelta(days=90), LEVELS),
        (timedelta(days=30), LEVELS[1:]),
        (timedelta(days=9), LEVELS[2:]),
        (timedelta(hours=8), LEVELS[7:]),
        (timedelta(hours=1), LEVELS[9:]),
    ],
)
def test_each_level_holds_once_the_renewal_is_due(lifetime: timedelta, levels: tuple[timedelta, ...]) -> None:
    assert raised(generation(lifetime), NOW + lifetime + timedelta(days=1)) == list(levels)


def test_people_hear_each_once(identities: IdentityStore, caplog: pytest.LogCaptureFixture) -> None:
    found, now = generation(timedelta(days=90)), NOW
    while now < NOW + timedelta(days=91):
        raise_alarm(found, now, identities, "No answer from the CA.")
        now += timedelta(minutes=30)

    assert [record.levelno for record in caplog.records] == [logging.WARNING] * len(LEVELS)
    for level, record in zip(LEVELS, caplog.records, strict=True):
        told = f"The certificate of device {alarm_text(level)}, and is not renewed. No answer from the CA."
        assert record.getMessage() == told


def test_a_scanner_that_was_switched_off_hears_the_nearest_only(
    identities: IdentityStore, caplog: pytest.LogCaptureFixture
) -> None:
    raise_alarm(generation(timedelta(days=90)), NOW + timedelta(days=87, hours=12), identities, "Why.")

    assert [record.getMessage() for record in caplog.records] == [
        "The certificate of device ends in less than 3 days, and is not renewed. Why."
    ]


def test_the_next_certificate_has_alarms_of_its_own(
    identities: IdentityStore, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        raise_alarm(generation(timedelta(days=90), number), NOW + timedelta(days=89), identities, "Why.")

    assert len(caplog.records) == 2


@pytest.mark.parametrize("before", [timedelta(days=80), timedelta(days=10)], ids=["not due", "due"])
def test_a_look_with_a_wrong_clock_silences_no_alarm(
    identities: IdentityStore, caplog: pytest.LogCaptureFixture, before: timedelta
) -> None:
    found = generation(timedelta(days=90))
    end = NOW + timedelta(days=90)
    raise_alarm(found, end + timedelta(days=8000), identities, "Why.")
    caplog.clear()
    now = end - before
    while now < end + timedelta(days=1):
        raise_alarm(found, now, identities, "Why.")
        now += timedelta(minutes=30)

    assert len(caplog.records) == len(LEVELS)


def test_a_damaged_record_means_that_it_is_told_again(
    identities: IdentityStore, caplog: pytest.LogCaptureFixture
) -> None:
    found = generation(timedelta(days=90))
    raise_alarm(found, NOW + timedelta(days=89), identities, "Why.")
    (identities.directory(DEVICE) / "alarm.json").write_bytes(b"x")
    raise_alarm(found, NOW + timedelta(days=89), identities, "Why.")

    assert caplog.text.count("is not renewed") == 2


@pytest.mark.parametrize(
    ("level", "text"),
    [
        (timedelta(days=28), "ends in less than 28 days"),
        (timedelta(days=1), "ends in less than 1 day"),
        (timedelta(hours=12), "ends in less than 12 hours"),
        (timedelta(hours=1), "ends in less than 1 hour"),
        (timedelta(), "has ended"),
    ],
)
def test_an_alarm_in_words(level: timedelta, text: str) -> None:
    assert alarm_text(level) == text
