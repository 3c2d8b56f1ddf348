"""ACME against acme2certifier: accounts bound to external ones, renewal when the CA wants it, revocation lists."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from agent.cli import exits
from agent.cli.main import run
from enroll.enroller import Enroller
from enroll.errors import ConfigurationError, EnrollmentRefused
from enroll.flows.acme.jws import from_base64url
from enroll.flows.acme.renewal_info import certificate_id
from enroll.flows.acme.revoke import revoke
from enroll.flows.settings import FlowName
from enroll.http import Answer, HttpsSession
from enroll.identity import Generation, IdentityName
from enroll.renewal.due import latest_renewal, renewal_time
from enroll.renewal.spread import spread_renewal_time
from enroll.suggestion import read_suggestion
from tests.support.acme.acme2certifier import Acme2Certifier, running_acme2certifier
from tests.support.agent_process import new_scanner
from tests.support.certificates import SERIAL_NUMBER
from tests.support.clocks import SteppedClock
from tests.support.enrolling import Scanner

DEVICE = IdentityName.DEVICE


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acme2Certifier]:
    with running_acme2certifier(tmp_path_factory.mktemp("acme2certifier")) as running:
        yield running


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock(datetime.now(UTC))


@pytest.fixture
def scanner(server: Acme2Certifier, tmp_path: Path, clock: SteppedClock) -> Scanner:
    return server.scanner(tmp_path / "scanner", clock)


def enroll(scanner: Scanner) -> Generation:
    with Enroller(scanner.context) as enroller:
        generation = enroller.enroll(DEVICE, FlowName.ACME)
    assert isinstance(generation, Generation)
    return generation


def suggested(scanner: Scanner, generation: Generation) -> datetime:
    with Enroller(scanner.context) as enroller:
        moment = enroller.suggested_renewal(generation)
    assert moment is not None
    return moment


# --- external account binding (RFC 8555 7.3.4)


def test_an_account_is_bound_to_an_external_one_and_gets_its_certificate(scanner: Scanner) -> None:
    generation = enroll(scanner)

    assert scanner.matching_pair(DEVICE) == generation


def test_without_a_binding_there_is_no_account(server: Acme2Certifier, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="eab_key_id and eab_key_file"):
        enroll(server.scanner(tmp_path / "scanner", eab_key_id=""))


def test_with_a_wrong_mac_key_there_is_no_account(server: Acme2Certifier, tmp_path: Path) -> None:
    wrong = tmp_path / "mac-key"
    wrong.write_text("AAAA" * 16, "utf-8")
    wrong.chmod(0o600)
    with pytest.raises(EnrollmentRefused, match="unauthorized"):
        enroll(server.scanner(tmp_path / "scanner", eab_key_file=wrong))


# --- what is issued


def test_a_root_that_issues_directly_makes_a_chain_of_nothing(scanner: Scanner) -> None:
    assert enroll(scanner).chain == ()


def test_a_profile_is_one_that_the_ca_offers(server: Acme2Certifier, tmp_path: Path) -> None:
    enroll(server.scanner(tmp_path / "scanner", profile="device"))
    with pytest.raises(ConfigurationError, match="no profile 'web'; it has device"):
        enroll(server.scanner(tmp_path / "other", profile="web"))


# --- renewal when the CA wants it (RFC 9773)


def test_the_renewal_waits_for_the_window_of_the_ca(scanner: Scanner) -> None:
    """Its window begins at 85 % of the lifetime; by the scanner's own schedule two thirds would be the moment."""
    generation = enroll(scanner)
    certificate = generation.certificate
    begin, lifetime = certificate.not_valid_before_utc, timedelta(days=30)

    moment = suggested(scanner, generation)

    assert begin + lifetime * 0.85 - timedelta(seconds=5) <= moment <= latest_renewal(certificate)
    assert renewal_time(certificate, moment) == moment


def test_the_moment_is_chosen_once_and_the_ca_asked_no_sooner_than_it_wants(
    scanner: Scanner, server: Acme2Certifier, clock: SteppedClock
) -> None:
    """RFC 9773 4.2 and 4.3: Retry-After is a day."""
    generation = enroll(scanner)
    before = server.requests("/acme/renewal-info")
    moment = suggested(scanner, generation)
    kept = read_suggestion(generation, scanner.identities, scanner.files)
    assert kept is not None
    assert kept.ask_again_at == clock.now() + timedelta(days=1)

    clock.advance(timedelta(hours=23))
    assert suggested(scanner, generation) == moment
    assert server.requests("/acme/renewal-info") == before + 1

    clock.advance(timedelta(hours=2))
    assert suggested(scanner, generation) == moment
    assert server.requests("/acme/renewal-info") == before + 2


def test_a_ca_that_is_gone_leaves_the_moment_as_it_is(scanner: Scanner, clock: SteppedClock) -> None:
    generation = enroll(scanner)
    moment = suggested(scanner, generation)
    clock.advance(timedelta(days=2))
    nobody = replace(scanner.settings.acme, directory_url="https://localhost:1/directory")

    assert suggested(scanner.restarted(acme=nobody), generation) == moment


def test_a_renewal_says_what_it_replaces(scanner: Scanner, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9773 5."""
    first = enroll(scanner)
    orders = sent_orders(monkeypatch)

    enroll(scanner)

    assert [order.get("replaces") for order in orders] == [certificate_id(first.certificate)]


def sent_orders(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What newOrder is asked for from now on."""
    orders, post = [], HttpsSession.post

    def noted(session: HttpsSession, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if url.endswith("/neworders"):
            orders.append(json.loads(from_base64url(json.loads(body)["payload"])))
        return post(session, url, headers, body)

    monkeypatch.setattr(HttpsSession, "post", noted)
    return orders


# --- revocation (RFC 8555 7.6)


def test_what_is_revoked_stands_in_the_revocation_list(scanner: Scanner, server: Acme2Certifier) -> None:
    generation = enroll(scanner)

    revoke(DEVICE, x509.ReasonFlags.superseded, scanner.context)

    revoked = x509.load_pem_x509_crl(server.revocation_list.read_bytes())
    assert revoked.get_revoked_certificate_by_serial_number(generation.certificate.serial_number) is not None


# --- from the command line


def test_the_commands_follow_the_ca(server: Acme2Certifier, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with new_scanner(tmp_path) as scanner:
        configuration = ["--config", str(scanner.configure(acme=server.table(tmp_path / "acme"))), "--json"]

        def said(*command: str) -> Any:
            capsys.readouterr()
            assert run([*command, *configuration]) in {exits.OK, exits.UNAVAILABLE}  # there is no agent
            return json.loads(capsys.readouterr().out)

        said("enroll", "acme", "--identity", "device")
        certificate = scanner.identities.current(DEVICE).certificate  # type: ignore[union-attr]
        by_own_schedule = spread_renewal_time(certificate, None, SERIAL_NUMBER, DEVICE).isoformat()
        assert said("status")["identities"]["device"]["renewal_due_at"] == by_own_schedule

        (device,) = (record for record in said("renew")["identities"] if record["identity"] == "device")
        assert device["state"] == "not-due"
        assert device["due_at"] > by_own_schedule
        assert said("status")["identities"]["device"]["renewal_due_at"] == device["due_at"]

        account, renewed = said("acme-account"), said("acme-account", "--new-key")
        assert account["url"] == renewed["url"]
        assert account["key"] != renewed["key"]

        said("revoke", "--identity", "device", "--reason", "superseded")
        revoked = x509.load_pem_x509_crl(server.revocation_list.read_bytes())
        assert revoked.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
