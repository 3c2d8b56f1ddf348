"""Servers that give no answer: counted once for all identities, by purpose, and forgotten with the next answer."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from enroll.errors import StateError
from enroll.renewal.silence import Purpose, Silences
from enroll.statefile import StateFiles
from tests.support.pki import NOW

URL = "https://CA.example:8443/est"
ENROLLMENT, REVOCATION = Purpose.ENROLLMENT, Purpose.REVOCATION
HOUR = timedelta(hours=1)


@pytest.fixture
def silences(tmp_path: Path) -> Silences:
    return Silences(tmp_path, StateFiles())


def test_it_is_counted_since_the_first(silences: Silences) -> None:
    for hours in range(3):
        silences.note(URL, ENROLLMENT, NOW + hours * HOUR)

    silence = silences.of("https://ca.example:8443/other", ENROLLMENT)
    assert silence is not None
    assert (silence.failures, silence.since, silence.at) == (3, NOW, NOW + 2 * HOUR)
    assert silence.ask_again_at(None, "CT-1") == NOW + 2 * HOUR + timedelta(minutes=100)


@pytest.mark.parametrize(
    ("url", "purpose"),
    [(URL, REVOCATION), ("https://ca.example/est", ENROLLMENT), ("https://other.example:8443/est", ENROLLMENT)],
)
def test_another_server_or_purpose_is_not_meant(silences: Silences, url: str, purpose: Purpose) -> None:
    silences.note(URL, ENROLLMENT, NOW)

    assert silences.of(url, purpose) is None


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("https://ca.example:443/est", "https://ca.example/"),
        ("http://ca.example/", "http://CA.example:80/ocsp"),
        ("https://[2001:db8::1]/", "https://[2001:db8::1]:443/"),
    ],
)
def test_the_port_of_the_scheme_needs_not_be_said(silences: Silences, url: str, same: str) -> None:
    silences.note(url, ENROLLMENT, NOW)

    assert silences.of(same, ENROLLMENT) is not None


@pytest.mark.parametrize("host", ["ca.example", "[2001:db8::1]"])
def test_what_answers_at_another_port_is_another_server_of_the_same_host(silences: Silences, host: str) -> None:
    silences.note(f"https://{host}/est", ENROLLMENT, NOW)
    silences.note(f"https://{host}:8443/est", ENROLLMENT, NOW - HOUR)
    silences.note(f"https://{host}:444/ocsp", REVOCATION, NOW + HOUR)

    assert silences.of(f"http://{host}/ocsp", ENROLLMENT) is None
    newest = silences.newest(ENROLLMENT, host_of=f"http://{host}/ocsp")
    assert newest is not None
    assert (newest.server, newest.at) == (f"{host}:443", NOW)
    assert silences.newest(ENROLLMENT, host_of="http://other.example/ocsp") is None
    assert silences.newest(ENROLLMENT) == newest


def test_an_answer_ends_it(silences: Silences) -> None:
    silences.note(URL, ENROLLMENT, NOW)
    silences.forget(URL, ENROLLMENT)

    assert silences.of(URL, ENROLLMENT) is None


@pytest.mark.parametrize(
    ("retry_after", "waits"),
    [
        (None, timedelta(minutes=1)),
        (timedelta(), timedelta(minutes=1)),
        (timedelta(seconds=20), timedelta(minutes=1)),
        (timedelta(hours=5), timedelta(hours=5)),
        (timedelta(days=300), timedelta(days=1)),
        (timedelta.max, timedelta(days=1)),
    ],
)
def test_a_server_says_when_it_wants_to_be_asked_again_within_a_day(
    silences: Silences, retry_after: timedelta | None, waits: timedelta
) -> None:
    """RFC 9110 10.2.3."""
    silences.note(URL, ENROLLMENT, NOW, retry_after)

    silence = silences.of(URL, ENROLLMENT)
    assert silence is not None
    assert silence.ask_again_at(None, "CT-1") == NOW + waits


def test_a_damaged_record_counts_as_nothing_and_is_written_anew(silences: Silences, tmp_path: Path) -> None:
    silences.note(URL, ENROLLMENT, NOW)
    (record,) = (tmp_path / "servers").iterdir()
    record.write_bytes(b"{}")

    assert silences.of(URL, ENROLLMENT) is None
    silences.note(URL, ENROLLMENT, NOW)
    silence = silences.of(URL, ENROLLMENT)
    assert silence is not None
    assert silence.failures == 1


def test_what_is_damaged_says_nothing_of_its_host(silences: Silences, tmp_path: Path) -> None:
    silences.note(URL, ENROLLMENT, NOW)
    (record,) = (tmp_path / "servers").iterdir()
    record.write_bytes(b"{}")

    assert silences.newest(ENROLLMENT, host_of=URL) is None


def test_the_record_of_a_newer_scanseal_is_left_as_it_is(
    silences: Silences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as newer:
        newer.setattr("enroll.record.FORMAT", 2)
        silences.note(URL, ENROLLMENT, NOW)
    (record,) = (tmp_path / "servers").iterdir()
    before = record.read_bytes()

    silences.note(URL, ENROLLMENT, NOW + HOUR)
    silences.forget(URL, ENROLLMENT)

    assert record.read_bytes() == before
    assert caplog.text.count("newer scanseal") == 2


def test_a_password_in_an_address_is_not_kept(silences: Silences, tmp_path: Path) -> None:
    silences.note("https://user:secret@ca.example/est", ENROLLMENT, NOW)

    (record,) = (tmp_path / "servers").iterdir()
    assert b"secret" not in record.read_bytes()
    assert b"ca.example" in record.read_bytes()


def test_a_disk_that_refuses_is_logged_and_fails_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Full(StateFiles):
        def write(self, path: Path, data: bytes, mode: int = 0o600) -> None:
            raise StateError("full")

    Silences(tmp_path, Full()).note(URL, ENROLLMENT, NOW)

    assert "cannot be kept: full" in caplog.text
