"""`scanseal renew --unattended`, as the timer runs it: a CA that goes and comes, a window, a disabled scanner."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent.cli import exits
from agent.cli.main import run
from agent.daemon.renewal import INTERVAL, renewal_command
from enroll.failure import Failures
from enroll.identity import IdentityName
from enroll.journal import PendingRequest, Step
from tests.support.reliability.outage import IDENTITIES, LIFETIME, Outage, outage

DEVICE, SIGNING = IdentityName.DEVICE, IdentityName.SIGNING
UNITS = Path(__file__).parents[2] / "systemd"
DUE = LIFETIME * 2 / 3
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outage]:
    with outage(tmp_path, monkeypatch, revocation={"watch": False}) as site:
        yield site


def text(site: Outage, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    capsys.readouterr()
    code = run(["renew", *options, "--config", str(site.configuration)])
    return code, capsys.readouterr().out


def numbers(site: Outage) -> dict[IdentityName, int]:
    return {name: site.current(name).number for name in IDENTITIES}


def moments(site: Outage, begin: datetime) -> list[timedelta]:
    return [moment - begin for moment, _ in site.exchanges.seen]


# --- one code path


def test_the_timer_unit_and_the_agent_run_the_same_command() -> None:
    unit = (UNITS / "scanseal-renew.service").read_text("utf-8")
    (command,) = re.findall(r"^ExecStart=/usr/bin/scanseal (.*)$", unit, re.MULTILINE)
    of_agent = renewal_command(Path("/etc/scanseal/scanseal.toml"))

    assert command.split() == list(of_agent[-4:])
    assert "--unattended" in of_agent


def test_the_timer_unit_and_the_agent_run_it_equally_often() -> None:
    timer = (UNITS / "scanseal-renew.timer").read_text("utf-8")

    assert timedelta(seconds=INTERVAL) == 10 * MINUTE
    assert re.findall(r"^OnCalendar=(.*)$", timer, re.MULTILINE) == ["*:0/10"]
    assert re.findall(r"^RandomizedDelaySec=(.*)$", timer, re.MULTILINE) == ["10min"]


def test_it_is_for_the_timer_and_force_is_for_people(site: Outage) -> None:
    assert run(["renew", "--unattended", "--force", "--config", str(site.configuration)]) == exits.USAGE


# --- nothing to do


def test_where_nothing_is_due_it_asks_nobody_and_says_nothing(site: Outage, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        site.clock.advance(DAY)
        assert text(site, capsys, "--unattended") == (exits.OK, "")

    assert site.exchanges.seen == []


def test_a_dry_run_says_when_and_that_this_scanner_is_earlier(site: Outage, capsys: pytest.CaptureFixture[str]) -> None:
    _, said = text(site, capsys, "--dry-run")
    _, as_json = text(site, capsys, "--dry-run", "--json")
    (device,) = [each for each in json.loads(as_json)["identities"] if each["identity"] == "device"]
    begin = site.current(DEVICE).certificate.not_valid_before_utc

    assert re.search(r"^device: due on \S+ \S+ UTC, 2 d \d+ h earlier than others$", said, re.MULTILINE)
    assert (device["state"], device["reason"], device["window"]) == ("not-due", "not-due", "")
    assert device["next_attempt"] == device["due_at"]
    lifetime = site.current(DEVICE).certificate.not_valid_after_utc - begin
    early = begin + lifetime * 2 / 3 - datetime.fromisoformat(device["due_at"])
    assert abs(early.total_seconds() - device["early_by"]) < 1
    assert timedelta() < early <= lifetime / 20


# --- a CA that goes and comes


def test_what_is_due_is_renewed(site: Outage, capsys: pytest.CaptureFixture[str]) -> None:
    site.clock.advance(DUE)
    with site.ca.back():
        code, said = text(site, capsys, "--unattended")

    assert code == exits.OK
    assert numbers(site) == {DEVICE: 2, SIGNING: 2}
    assert [line.partition(":")[0] for line in said.splitlines()] == ["device", "signing"]


def test_it_tries_again_after_a_minute_in_the_same_run_then_after_10_and_100_minutes_then_daily(
    site: Outage, capsys: pytest.CaptureFixture[str]
) -> None:
    site.clock.advance(DUE)
    begin = site.clock.now()
    code, said = text(site, capsys, "--unattended")
    assert code == exits.UNAVAILABLE
    assert "device: not renewed [server-unreachable]" in said
    assert moments(site, begin) == [timedelta(), MINUTE]

    site.pass_time(begin + 2.5 * DAY, capsys)
    later = moments(site, begin)[2:]
    assert [round(moment / (10 * MINUTE)) for moment in later[:2]] == [1, 11]
    assert len(later) in (4, 5)
    for before, after in pairwise(later[1:]):
        assert 0.9 * DAY <= after - before <= 1.1 * DAY + 10 * MINUTE


def test_a_ca_that_is_away_for_a_moment_costs_a_minute(
    site: Outage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.clock.advance(DUE)
    with site.ca.back():
        site.ca.mode = "503"

        def it_comes_back(seconds: float) -> None:
            site.ca.mode = ""
            site.clock.advance(timedelta(seconds=seconds))

        monkeypatch.setattr(site.clock, "sleep", it_comes_back)
        code, said = text(site, capsys, "--unattended")

    assert code == exits.OK
    assert numbers(site) == {DEVICE: 2, SIGNING: 2}
    assert "not renewed" not in said


def test_a_server_without_an_answer_is_not_asked_for_the_next_identity(
    site: Outage, capsys: pytest.CaptureFixture[str]
) -> None:
    site.clock.advance(DUE)
    _, said = site.timer(capsys)

    assert len(site.exchanges.seen) == 2
    assert (said["signing"]["state"], said["signing"]["reason"]) == ("put-off", "server-silent")


@pytest.mark.parametrize("mode", ["503 in an hour", "429 in a week"])
def test_what_the_server_says_of_a_pause_is_heeded_for_up_to_a_day(
    mode: str, site: Outage, capsys: pytest.CaptureFixture[str]
) -> None:
    """RFC 9110 10.2.3."""
    site.clock.advance(DUE)
    begin = site.clock.now()
    with site.ca.away(mode):
        site.pass_time(begin + 3 * DAY, capsys)

    first, second = moments(site, begin)[:2]
    pause = HOUR if mode == "503 in an hour" else DAY
    assert first == timedelta()
    assert pause <= second <= pause + 10 * MINUTE


def test_a_person_does_not_wait_and_the_timer_knows_of_it(site: Outage, capsys: pytest.CaptureFixture[str]) -> None:
    site.clock.advance(DUE)
    text(site, capsys, "--unattended")
    _, planned = text(site, capsys, "--dry-run")
    assert planned.count("next attempt") == 2
    assert "the server gave no answer" in planned

    asked = len(site.exchanges.seen)
    assert text(site, capsys)[0] == exits.UNAVAILABLE
    assert len(site.exchanges.seen) == asked + 2  # each identity, whatever happened to the other
    assert text(site, capsys, "--unattended") == (exits.TRY_LATER, "")

    with site.ca.back():
        assert text(site, capsys)[0] == exits.OK
    assert numbers(site) == {DEVICE: 2, SIGNING: 2}
    assert text(site, capsys, "--unattended") == (exits.OK, "")


def test_status_says_when_it_is_tried_next_and_that_the_end_is_near(
    site: Outage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.clock.advance(LIFETIME - 5 * DAY)
    text(site, capsys, "--unattended")
    monkeypatch.setattr("agent.cli.status.SystemClock", lambda: site.clock)
    run(["status", "--config", str(site.configuration)])
    said = capsys.readouterr().out
    run(["status", "--json", "--config", str(site.configuration)])
    device = json.loads(capsys.readouterr().out)["identities"]["device"]

    assert re.search(r"next +tried again after \S+ \S+ UTC: the server gave no answer", said)
    assert "ALARM       the certificate ends in less than 7 days, and is not renewed" in said
    assert device["next_attempt"]["reason"] == "server-silent"
    assert datetime.fromisoformat(device["next_attempt"]["at"]) > site.clock.now()
    assert device["alarm"] == "ends in less than 7 days"


def test_the_alarm_says_that_the_ca_has_not_decided_and_who_acts(
    site: Outage, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The word that a request has to wait is no failure, and none is kept."""
    site.clock.advance(LIFETIME - 3 * HOUR)
    now = site.clock.now()
    asked = PendingRequest(Step.SENT, "signing-0123456789abcdef", "", "{}", now - 9 * HOUR, now + HOUR, "it is Sunday")
    site.scanner.identities.journal(SIGNING).write(asked)
    text(site, capsys, "--unattended")

    since = f"{asked.started_at:%Y-%m-%d %H:%M} UTC"
    why = f"The CA has had the request since {since} and has not decided: it is Sunday. To act: CA operator."
    assert f"The certificate of signing ends in less than 6 hours, and is not renewed. {why}" in caplog.messages


def test_the_alarm_says_what_to_do_after_a_failure_and_who_does_it(
    site: Outage, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    site.clock.advance(LIFETIME - 3 * HOUR)
    text(site, capsys, "--unattended")
    (alarm,) = [message for message in caplog.messages if message.startswith("The certificate of device")]
    failure = Failures(site.scanner.identities).last(DEVICE)
    assert failure is not None

    assert alarm.endswith(f"{failure.what} {failure.remedy} To act: {failure.who_must_act}.")


def test_what_is_damaged_as_soon_as_it_has_come_is_not_renewed_without_end(
    site: Outage, capsys: pytest.CaptureFixture[str]
) -> None:
    def damage() -> None:
        number = site.scanner.identities.generations(DEVICE)[-1]
        path = site.scanner.identities.directory(DEVICE) / "generations" / f"{number:04d}" / "meta.json"
        path.write_bytes(path.read_bytes()[:-9])

    with site.ca.back():
        text(site, capsys, "--force")
        for newest in (2, 3):
            damage()
            for passed in (HOUR, 30 * MINUTE):
                site.clock.advance(passed)
                assert site.timer(capsys)[1]["device"]["reason"] == "just-renewed"
            site.clock.advance(10 * MINUTE)
            text(site, capsys, "--unattended")
            assert site.current(DEVICE).number == newest + 1


# --- what the hospital wants


def test_the_maintenance_window_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    tables: dict[str, Any] = {"renewal": {"window": "22:00-05:00"}, "revocation": {"watch": False}}
    with outage(tmp_path, monkeypatch, **tables) as site:
        noon = (site.clock.now() + DUE + DAY).astimezone(UTC).replace(hour=12, minute=0, second=0)
        site.clock.advance(noon - site.clock.now())
        with site.ca.back():
            _, said = site.timer(capsys)
            assert (said["device"]["reason"], said["device"]["window"]) == ("outside-window", "22:00-05:00")
            assert site.exchanges.seen == []
            site.pass_time(noon + 17 * HOUR, capsys)

    assert numbers(site) == {DEVICE: 2, SIGNING: 2}
    assert all(10 * HOUR <= moment <= 13.7 * HOUR for moment in moments(site, noon))


def test_a_disabled_scanner_asks_nobody_and_its_timer_does_not_fail(
    site: Outage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["owner", "disable", "--config", str(site.configuration)]) == exits.OK
    site.clock.advance(DUE)

    assert text(site, capsys, "--unattended") == (exits.OK, "")
    assert site.exchanges.seen == []


def test_where_nothing_is_enrolled_nobody_is_told_of_an_attempt(
    site: Outage, capsys: pytest.CaptureFixture[str]
) -> None:
    def next_attempt() -> Any:
        capsys.readouterr()
        run(["status", "--json", "--config", str(site.configuration)])
        return json.loads(capsys.readouterr().out)["identities"]["device"]["next_attempt"]

    assert next_attempt() is not None
    assert run(["owner", "disable", "--config", str(site.configuration)]) == exits.OK
    assert text(site, capsys, "--dry-run") == (exits.NOT_PERMITTED, "")
    assert text(site, capsys, "--dry-run", "--unattended") == (exits.OK, "")
    assert next_attempt() is None

    (site.scanner.state / "owner.json").unlink()
    assert text(site, capsys, "--dry-run") == (exits.CONFIGURATION, "")
    assert next_attempt() is None
    assert run(["owner", "enable", "--reset-record", "--config", str(site.configuration)]) == exits.OK

    site.scanner.identities.release_record.write_bytes(b"")
    assert text(site, capsys, "--dry-run") == (exits.CONFIGURATION, "")
    assert next_attempt() is None
