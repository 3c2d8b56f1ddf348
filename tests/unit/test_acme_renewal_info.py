"""When the CA wants a renewal (RFC 9773)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from enroll.flows.acme.client import AcmeClient
from enroll.flows.acme.renewal_info import ask, certificate_id, moment, read_window
from enroll.http import HttpsSession
from enroll.identity import Generation, IdentityName
from enroll.renewal.due import latest_renewal
from enroll.statefile import StateFiles
from enroll.suggestion import Suggestion, Window, read_suggestion, suggested_renewal, write_suggestion
from tests.support.acme.scripted import (
    BASE,
    DIRECTORY,
    DIRECTORY_URL,
    ScriptedServer,
    answer,
    certificate_named,
    problem,
)
from tests.support.clocks import SteppedClock
from tests.support.enrolling import CaFlow, Scanner, settings
from tests.support.pki import NOW, HospitalCa

DAY = timedelta(days=1)
CERTIFICATE = certificate_named()


def window(first: float, last: float) -> Window:
    return Window(NOW + first * DAY, NOW + last * DAY)


def document(first: float, last: float) -> dict[str, Any]:
    return {"suggestedWindow": {"start": stamp(NOW + first * DAY), "end": stamp(NOW + last * DAY)}}


def stamp(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def server(*answers: Any) -> ScriptedServer:
    path = f"/renewals/{certificate_id(CERTIFICATE)}"
    return ScriptedServer({**DIRECTORY, "renewalInfo": f"{BASE}/renewals"}, {path: lambda _, n: answers[n - 1]})


def asked(script: ScriptedServer, kept: Suggestion | None = None, clock: SteppedClock | None = None) -> Suggestion:
    clock = clock or SteppedClock()
    client = AcmeClient(DIRECTORY_URL, cast("HttpsSession", script), clock)
    return ask(client, CERTIFICATE, kept, clock, lambda: 0.5)


def test_the_certificate_is_named_as_in_the_example_of_the_rfc() -> None:
    """4.1."""
    assert certificate_id(CERTIFICATE) == "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"


def test_a_certificate_that_does_not_name_its_issuers_key_has_no_name() -> None:
    assert certificate_id(certificate_named(None)) == ""


def test_a_moment_in_the_window_is_chosen() -> None:
    """4.2."""
    said = asked(server(answer(document(60, 62), retry_after="21600")))

    assert said.window == window(60, 62)
    assert said.renew_at == NOW + 61 * DAY


def test_a_moment_in_another_zone_is_the_same_one_in_ours() -> None:
    """RFC 3339; people are told the moment in UTC."""
    said = {"suggestedWindow": {"start": "2026-12-01T02:00:00+02:00", "end": "2026-12-01T02:00:00-02:00"}}

    chosen = asked(server(answer(said))).renew_at

    assert chosen is not None
    assert (chosen.isoformat(), chosen.tzinfo) == ("2026-12-01T02:00:00+00:00", UTC)


def test_the_chosen_moment_stays_while_the_window_does() -> None:
    kept = Suggestion(NOW, window(60, 62), NOW + 60.1 * DAY)

    assert asked(server(answer(document(60, 62))), kept).renew_at == NOW + 60.1 * DAY
    assert asked(server(answer(document(10, 12))), kept).renew_at == NOW + 11 * DAY


@pytest.mark.parametrize(
    ("first", "last", "chosen"),
    [
        (-3, -1, -2),  # in the past: now
        (60, 80, 70),
        (80, 90, 80.5),  # the lifetime is 90 days: in its last tenth nobody could repair anything
        (85, 90, 85),
        (1000, 2000, 1000),
    ],
)
def test_there_is_time_left_after_the_moment(first: float, last: float, chosen: float) -> None:
    assert moment(window(first, last), CERTIFICATE, 0.5) == NOW + chosen * DAY
    assert latest_renewal(CERTIFICATE) == NOW + 81 * DAY


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"suggestedWindow": None},
        {"suggestedWindow": []},
        {"suggestedWindow": {"start": "2026-11-22T12:00:00Z"}},
        {"suggestedWindow": {"start": "2026-11-23T12:00:00Z", "end": "2026-11-22T12:00:00Z"}},
        {"suggestedWindow": {"start": "2026-11-22T12:00:00Z", "end": "2026-11-22T12:00:00Z"}},
        {"suggestedWindow": {"start": "2026-11-22T12:00:00", "end": "2026-11-23T12:00:00"}},
        {"suggestedWindow": {"start": "soon", "end": "later"}},
        {"suggestedWindow": {"start": "0001-01-01T00:00:00+23:59", "end": "9999-12-31T23:59:59-23:59"}},
        {"suggestedWindow": {"start": 1, "end": 2}},
    ],
)
def test_a_window_that_is_none_leaves_the_scanner_its_own_schedule(said: dict[str, Any]) -> None:
    """4.2: the end must be after the start."""
    assert read_window(said) is None
    assert asked(server(answer(said))) == Suggestion(NOW + timedelta(hours=6))


@pytest.mark.parametrize(
    ("header", "pause"),
    [
        ("", timedelta(hours=6)),
        ("21600", timedelta(hours=6)),
        ("0", timedelta(minutes=1)),
        ("9999999", timedelta(days=1)),
        ("Sun, 22 Nov 2026 15:00:00 GMT", timedelta(hours=3)),
    ],
)
def test_the_ca_says_when_it_is_asked_again(header: str, pause: timedelta) -> None:
    """4.3.2 and 4.3.3."""
    assert asked(server(answer(document(60, 62), retry_after=header))).ask_again_at == NOW + pause


@pytest.mark.parametrize("said", [problem("serverInternal", 500), problem("malformed", 404), answer(body=b"no")])
def test_without_an_answer_what_was_said_before_counts(said: Any) -> None:
    """4.3.3."""
    kept = Suggestion(NOW, window(60, 62), NOW + 61 * DAY)

    assert asked(server(said), kept) == Suggestion(NOW + timedelta(hours=6), kept.window, kept.renew_at)
    assert asked(server(said)) == Suggestion(NOW + timedelta(hours=6))


def test_a_ca_without_renewal_information_is_not_asked_often() -> None:
    assert asked(ScriptedServer()) == Suggestion(NOW + DAY)


# --- what is kept


@pytest.fixture
def scanner(tmp_path: Any) -> Scanner:
    return Scanner(settings(tmp_path), (CA.certificate,))


CA = HospitalCa()


def enrolled(scanner: Scanner) -> Generation:
    generation = scanner.issue(CaFlow(CA, scanner.clock), IdentityName.DEVICE)
    assert isinstance(generation, Generation)
    return generation


def test_what_was_said_is_kept_for_the_certificate_that_it_was_said_of(scanner: Scanner) -> None:
    files = StateFiles()
    first = enrolled(scanner)
    said = Suggestion(NOW + DAY, window(60, 62), NOW + 61 * DAY)
    write_suggestion(said, first, scanner.identities, files)
    assert read_suggestion(first, scanner.identities, files) == said
    assert suggested_renewal(first, scanner.identities, files) == said.renew_at

    second = enrolled(scanner)

    assert read_suggestion(second, scanner.identities, files) is None


def test_that_nothing_was_said_is_kept_as_well(scanner: Scanner) -> None:
    generation, files = enrolled(scanner), StateFiles()
    write_suggestion(Suggestion(NOW + DAY), generation, scanner.identities, files)

    assert read_suggestion(generation, scanner.identities, files) == Suggestion(NOW + DAY)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"certificate": "x"}'])
def test_a_damaged_record_counts_as_nothing(scanner: Scanner, content: bytes) -> None:
    generation, files = enrolled(scanner), StateFiles()
    (scanner.identities.directory(IdentityName.DEVICE) / "renewal-info.json").write_bytes(content)

    assert read_suggestion(generation, scanner.identities, files) is None
