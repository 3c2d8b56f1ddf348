"""What the agent, `status`, `check` and the timer make of a certificate of theirs that the CA has revoked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.audit import AuditTrail
from agent.cli import exits
from agent.cli.main import run
from agent.daemon.active_key import ActiveKey
from agent.daemon.signer import Identities
from agent.daemon.wire import HashName
from agent.errors import CertificateNotUsable
from enroll.certificates import serial_text
from enroll.clock import SystemClock
from enroll.flows.base import Revoked
from enroll.identity import IdentityName
from enroll.revocation.lists import Revocation
from enroll.revocation.record import RevocationRecord, RevocationRecords
from tests.support.agent_process import Scanner, new_scanner
from tests.support.revocation_records import HOLD, NOW, STOLEN, noted
from tests.support.revoking_ca import RevokingCa


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Scanner]:
    with new_scanner(tmp_path) as scanner:
        scanner.audit_file.parent.mkdir()
        yield scanner


@pytest.fixture
def audit(scanner: Scanner) -> Iterator[AuditTrail]:
    trail = AuditTrail(scanner.audit_file, SystemClock())
    yield trail
    trail.close()


def follow(scanner: Scanner, audit: AuditTrail) -> Identities:
    return Identities(scanner.identities, scanner.keys, audit, SystemClock())


def refusal(identities: Identities) -> str:
    """Why nothing is signed; empty where it is."""
    active = identities.view(IdentityName.SIGNING).active
    assert isinstance(active, ActiveKey)
    found = active.refusal(datetime.now(UTC))
    return found.code if found else ""


def test_a_revoked_certificate_signs_nothing_from_the_next_look_on(scanner: Scanner, audit: AuditTrail) -> None:
    generation = scanner.enroll()
    identities = follow(scanner, audit)
    assert refusal(identities) == ""
    noted(scanner, generation, STOLEN)
    identities.refresh()

    active = identities.view(IdentityName.SIGNING).active
    assert active is not None
    with pytest.raises(CertificateNotUsable) as refused:
        active.sign(bytes(32), HashName.SHA256, datetime.now(UTC))
    assert refused.value.code == "certificate-revoked"
    assert "keyCompromise" in refused.value.what
    assert len(scanner.audit("certificate-revoked")) == 1
    identities.refresh(at_once=True)
    assert refusal(identities) == "certificate-revoked"
    assert len(scanner.audit("certificate-revoked")) == 1


def test_a_record_that_is_lost_or_damaged_does_not_let_it_sign_again(scanner: Scanner, audit: AuditTrail) -> None:
    generation = scanner.enroll()
    noted(scanner, generation, HOLD)
    identities = follow(scanner, audit)
    path = scanner.identities.directory(IdentityName.SIGNING) / "revocation.json"
    path.write_text("{")
    identities.refresh()
    assert refusal(identities) == "certificate-revoked"
    path.unlink()
    identities.refresh()
    assert refusal(identities) == "certificate-revoked"


def test_a_new_generation_signs(scanner: Scanner, audit: AuditTrail) -> None:
    noted(scanner, scanner.enroll(), STOLEN)
    identities = follow(scanner, audit)
    assert refusal(identities) == "certificate-revoked"
    scanner.enroll()
    identities.refresh()

    assert refusal(identities) == ""


def test_a_hold_that_the_ca_has_lifted_is_over(scanner: Scanner, audit: AuditTrail) -> None:
    generation = scanner.enroll()
    noted(scanner, generation, HOLD)
    identities = follow(scanner, audit)
    assert refusal(identities) == "certificate-revoked"
    noted(scanner, generation, None, later=True)
    identities.refresh()

    assert refusal(identities) == ""
    assert len(scanner.audit("certificate-revocation-lifted")) == 1


def test_unknown_does_not_stop_signing(scanner: Scanner, audit: AuditTrail) -> None:
    generation = scanner.enroll()
    record = RevocationRecord(generation.number, serial_text(generation.certificate), NOW).without_answer(
        "no answer", NOW
    )
    RevocationRecords(scanner.identities).write(generation, record)

    assert refusal(follow(scanner, audit)) == ""


# --- whoever looks, and the timer


def test_status_and_check_say_it(scanner: Scanner, capsys: pytest.CaptureFixture[str]) -> None:
    noted(scanner, scanner.enroll(), STOLEN)
    configuration = str(scanner.configure())
    run(["status", "--config", configuration])
    status = capsys.readouterr().out
    assert run(["check", "--config", configuration]) == exits.CONFIGURATION

    assert "REVOKED by the CA on 2026-11-22 12:00 UTC (keyCompromise)" in status
    assert "The CA has revoked the certificate on 2026-11-22 12:00 UTC (keyCompromise)." in capsys.readouterr().out


def test_a_superseded_key_in_memory_is_left_to_the_agent_without_a_word_about_force(
    scanner: Scanner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noted(scanner, RevokingCa(tmp_path / "ca").enroll(scanner), Revocation(NOW, "superseded"))
    configuration = str(scanner.configure(**{"identity.signing": {"key_store": "memory"}}))

    assert run(["renew", "--config", configuration]) == exits.OK
    assert capsys.readouterr().out.splitlines()[1] == "signing: the agent asks for the next key by itself"
    assert run(["renew", "--force", "--config", configuration]) == exits.OK
    assert capsys.readouterr().out.splitlines()[1].endswith("; --force does not apply")


def identity_that_signs(capsys: pytest.CaptureFixture[str], scanner: Scanner, *command: str) -> dict[str, Any]:
    """What a command says of it."""
    run([*command, "--json", "--config", str(scanner.configure())])
    found: dict[str, Any] | list[dict[str, Any]] = json.loads(capsys.readouterr().out)["identities"]
    if isinstance(found, list):
        found = {each["identity"]: each for each in found}
    signs: dict[str, Any] = found["signing"]
    return signs


def test_status_tells_the_next_attempt_of_the_timer_where_the_ca_has_only_replaced_it(
    scanner: Scanner, capsys: pytest.CaptureFixture[str]
) -> None:
    """At once, but for the pause after a success."""
    noted(scanner, scanner.enroll(), Revocation(NOW, "superseded"))

    timer = identity_that_signs(capsys, scanner, "renew", "--dry-run")
    said = identity_that_signs(capsys, scanner, "status")

    assert said["next_attempt"] == {"at": timer["next_attempt"], "reason": timer["reason"]}
    assert timer["reason"] == "just-renewed"


def test_status_tells_no_next_attempt_where_a_person_has_to_look_first(
    scanner: Scanner, capsys: pytest.CaptureFixture[str]
) -> None:
    noted(scanner, scanner.enroll(), STOLEN)

    assert identity_that_signs(capsys, scanner, "renew")["error"]["code"] == "certificate-revoked"
    assert identity_that_signs(capsys, scanner, "status")["next_attempt"] is None


# --- a person gives it up, and the CA has revoked it already


@pytest.mark.parametrize(
    ("known", "already", "noted_reason"),
    [
        (None, False, "superseded"),
        (None, True, "unspecified"),  # nobody here knows why
        (HOLD, False, "superseded"),
        (STOLEN, False, "keyCompromise"),
        (STOLEN, True, "keyCompromise"),
    ],
)
def test_the_reason_that_the_ca_has_given_stays(
    scanner: Scanner, monkeypatch: pytest.MonkeyPatch, known: Revocation | None, noted_reason: str, *, already: bool
) -> None:
    """Or the timer would replace by itself what a person has to look into first."""
    generation = scanner.enroll()
    if known is not None:
        noted(scanner, generation, known)
    monkeypatch.setattr("agent.cli.revoke._by", lambda *_: Revoked(generation, was_already=already))

    command = ["revoke", "--identity", "signing", "--reason", "superseded", "--config", str(scanner.configure())]
    assert run(command) == exits.OK

    record = RevocationRecords(scanner.identities).of(generation)
    assert record is not None
    assert record.revocation is not None
    assert record.revocation.reason == noted_reason
