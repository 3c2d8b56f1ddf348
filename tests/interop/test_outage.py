"""R6: a CA that is away for thirty days, in every way a CA can be away, with certificates of ninety days.

Each run of the timer is the real command, in this process, with a clock that the test moves; the CA is a real server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from agent.cli import exits
from agent.cli.options import configuration
from agent.cli.renewal_plan import due_at
from enroll.identity import IdentityName
from enroll.renewal.decision import Facts, Life, Wait, decide
from enroll.renewal.silence import Purpose, Silence
from enroll.renewal.spread import LARGEST_SPREAD, own_number
from enroll.statefile import StateFiles
from tests.support.reliability.measured import measured
from tests.support.reliability.outage import (
    IDENTITIES,
    LATE_SERIAL_NUMBER,
    LIFETIME,
    MODES,
    SERIAL_NUMBER,
    TICK,
    Outage,
    outage,
)

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
MOST_REQUESTS = 40  # of a scanner, while its CA is away
MOST_TO_MEAN = 3  # requests in the worst hour of the day after, to those of all its hours


@pytest.mark.parametrize("mode", MODES)
def test_a_month_without_a_ca_takes_few_requests_and_is_over_by_itself(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with outage(tmp_path, monkeypatch) as site:
        site.clock.advance(LIFETIME * 2 / 3 - LIFETIME / 20)
        begin = site.clock.now()
        with site.ca.away(mode):
            site.pass_time(begin + 30 * DAY, capsys)
        asked = len(site.exchanges.seen)
        first = site.exchanges.seen[0][0]
        with site.ca.back():
            back = site.clock.now()
            while any(site.current(name).number == 1 for name in IDENTITIES) and site.clock.now() < back + 2 * DAY:
                site.step(back + 2 * DAY, capsys)
        took = max(site.current(name).committed_at for name in IDENTITIES) - back

    measured("R6", f"30 days without a CA: {mode}", requests=asked, hours_to_recover=took / timedelta(hours=1))
    assert first - begin <= LIFETIME / 20
    assert asked <= MOST_REQUESTS
    assert asked >= 20
    assert {name: site.current(name).number for name in IDENTITIES} == dict.fromkeys(IDENTITIES, 2)
    assert took <= 1.2 * DAY


def test_an_acme_server_that_is_away_is_asked_as_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """RFC 9773: before a certificate is due, its server is asked when it wants the renewal, for each identity."""
    with outage(tmp_path, monkeypatch, flow="acme") as site:
        site.clock.advance(LIFETIME / 2)
        begin = site.clock.now()
        with site.ca.away("503"):
            site.pass_time(begin + 30 * DAY, capsys)
            code, said = site.timer(capsys)

    measured("R6", "30 days without a CA: 503, ACME", requests=len(site.exchanges.seen))
    assert (code, said["device"]["reason"]) == (exits.TRY_LATER, "server-silent")
    assert 20 <= len(site.exchanges.seen) <= MOST_REQUESTS


def test_certificates_that_ended_meanwhile_come_back_by_the_factory_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """IEEE 802.1AR: what a scanner had from its factory proves who it is when nothing else does any more."""
    with outage(tmp_path, monkeypatch, factory=True) as site:
        end = site.current(IdentityName.DEVICE).certificate.not_valid_after_utc
        site.clock.advance(end - DAY - site.clock.now())
        with site.ca.away("refused"):
            site.pass_time(end + 3 * DAY, capsys)
            code, said = site.timer(capsys)
        assert (code, said["device"]["state"], said["device"]["reason"]) == (75, "put-off", "server-silent")
        with site.ca.back():
            back = site.clock.now()
            site.pass_time(back + 1.2 * DAY, capsys)
            seen = [(request.path, request.client) for request in site.ca.requests if "/est/" in request.path]

    factory = site.current(IdentityName.IDEVID)
    assert {name: site.current(name).number for name in IDENTITIES} == dict.fromkeys(IDENTITIES, 2)
    assert ("/.well-known/est/simpleenroll", factory.certificate) in seen
    assert all(client is not None and client.not_valid_after_utc > back for _, client in seen)
    measured("R6", "certificates ended, factory identity", renewed=len(IDENTITIES))


def test_without_a_factory_identity_somebody_is_told_what_to_do_and_the_timer_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with outage(tmp_path, monkeypatch) as site:
        end = site.current(IdentityName.DEVICE).certificate.not_valid_after_utc
        site.clock.advance(end + DAY - site.clock.now())
        with site.ca.back():
            code, said = site.timer(capsys)
            site.clock.advance(40 * DAY)
            _, later = site.timer(capsys)

    assert code not in (exits.OK, exits.TRY_LATER)
    for each in (said, later):
        assert each["device"]["state"] == "failed"
        assert "has expired" in each["device"]["error"]["what"]
        assert "factory identity" in each["device"]["error"]["remedy"]
        assert each["device"]["error"]["who_must_act"] == "hospital IT"
    asked = [url for _, url in site.exchanges.seen if "/.well-known/est/" in url]
    assert asked == []  # nothing to prove itself with, so nobody is asked


def test_what_says_which_certificates_are_revoked_has_pauses_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A responder and a list that nobody serves, while nothing is due and the CA would answer."""
    places = {"ocsp_url": "http://127.0.0.1:9/ocsp", "crl_url": "http://127.0.0.2:9/crl", "timeout": 1}
    with outage(tmp_path, monkeypatch, revocation=places) as site:
        begin = site.clock.now()
        site.pass_time(begin + 30 * DAY, capsys)
        by_server = by_servers(site)
        code, _ = site.timer(capsys)

    asked = sum(by_server.values())
    measured("R6", "30 days without OCSP and lists, on two servers", requests=asked)
    assert 28 <= asked <= MOST_REQUESTS
    assert set(by_server) == {"127.0.0.1:9", "127.0.0.2:9"}
    assert min(by_server.values()) >= 14
    assert code == exits.OK


@pytest.mark.parametrize("scanner", [SERIAL_NUMBER, LATE_SERIAL_NUMBER], ids=["usual", "late"])
@pytest.mark.parametrize(
    "begins",
    [
        ("2 weeks before it is due", 14 * DAY),
        ("2 days before it is due", 2 * DAY),
        ("2 hours before it is due", 2 * HOUR),
        ("when it is due", 0 * DAY),
        ("10 days after it was due", -10 * DAY),
    ],
)
def test_a_month_without_anything_takes_few_requests_whenever_it_begins(
    begins: tuple[str, timedelta],
    scanner: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each is a host of its own: the network is gone, or all that is behind it. A scanner that was off is late."""
    when, before = begins
    places = {"ocsp_url": "http://127.0.0.2:9/ocsp", "crl_url": "http://127.0.0.3:9/crl", "timeout": 1}
    with outage(tmp_path, monkeypatch, factory=True, serial_number=scanner, revocation=places) as site:
        due = min(earliest_renewal(site, name) for name in IDENTITIES)
        begin = due - before
        site.clock.advance(begin - site.clock.now())
        with site.ca.away("refused"):
            site.pass_time(begin + 30 * DAY, capsys)
        by_server = by_servers(site)
        with site.ca.back():
            back = site.clock.now()
            site.pass_time(back + 2.3 * DAY, capsys)
    about_revocation = [
        moment for moment, url in site.exchanges.seen if moment >= back and url.split()[1] in places.values()
    ]
    waited = (about_revocation[0] - back) / HOUR

    asked = sum(by_server.values())
    kind = "usual" if scanner == SERIAL_NUMBER else "late"
    what = f"30 days without a CA, OCSP and lists, on three servers, from {when} on, {kind} scanner"
    measured("R6", what, requests=asked, hours_until_revocation_is_asked=waited)
    assert asked <= MOST_REQUESTS
    assert len(by_server) == 3
    assert asked - by_server["127.0.0.2:9"] - by_server["127.0.0.3:9"] >= min(30 * DAY - before, 30 * DAY) / (1.1 * DAY)
    assert {name: site.current(name).number for name in IDENTITIES} == dict.fromkeys(IDENTITIES, 2)
    assert waited <= 1.2 * 24


def by_servers(site: Outage) -> Counter[str]:
    """How often each was asked."""
    return Counter(urlsplit(url.split()[1]).netloc for _, url in site.exchanges.seen)


def earliest_renewal(site: Outage, name: IdentityName) -> datetime:
    """When the timer renews it."""
    return due_at(site.current(name), configuration(site.configuration).enroll, StateFiles())


@pytest.mark.parametrize("days", [3, 30])
def test_a_thousand_scanners_do_not_storm_the_ca_that_is_back(days: int) -> None:
    """All were installed in the same second: the worst that can be. Counted is the day after the CA is back."""
    installed = datetime(2027, 1, 1, tzinfo=UTC)
    begin = installed + LIFETIME * 2 / 3 - LIFETIME / 20
    back = begin + days * DAY
    hours = Counter(
        (moment - back) // timedelta(hours=1)
        for number in range(1000)
        for moment in requests_of(f"CT-{number:06}", installed, back)
        if back <= moment < back + DAY
    )

    peak_to_mean = max(hours.values()) * 24 / sum(hours.values())
    measured("R6", f"1,000 scanners after {days} days without a CA", peak_to_mean=round(peak_to_mean, 2))
    assert sum(hours.values()) >= 600
    assert peak_to_mean <= MOST_TO_MEAN


def requests_of(scanner: str, installed: datetime, back: datetime) -> Iterator[datetime]:
    """When one scanner asks its CA, which answers from `back` on: by the decision that the timer takes."""
    names = (scanner, "device")
    due = installed + LIFETIME * 2 / 3 - LIFETIME * LARGEST_SPREAD * own_number("due", *names)
    facts = Facts(installed, names, Life(due, installed, installed + LIFETIME))
    at = timedelta(seconds=600 * own_number("tick", scanner))  # RandomizedDelaySec= of the timer
    while True:
        decision = decide(facts)
        if isinstance(decision, Wait):
            ticks = -(-(decision.until - installed - at) // TICK)  # the tick that follows
            facts = replace(facts, now=installed + at + ticks * TICK)
            continue
        yield facts.now
        if facts.now >= back:
            return
        since = facts.silence.since if facts.silence else facts.now
        silence = Silence("ca.example", Purpose.ENROLLMENT, facts.failures + 1, since, facts.now)
        facts = replace(facts, failures=facts.failures + 1, failed_at=facts.now, silence=silence)
