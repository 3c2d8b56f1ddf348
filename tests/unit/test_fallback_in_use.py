"""What the agent, the timer and whoever looks make of a generation that is damaged (ADR 34)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.audit import AuditTrail
from agent.cli import exits
from agent.cli.main import run
from agent.daemon.signer import Identities
from agent.daemon.wire import HashName
from enroll.errors import StateDamaged
from enroll.identity import IdentityName
from enroll.record import read_record, write_record
from tests.support.agent_process import Scanner as AgentScanner
from tests.support.agent_process import new_scanner
from tests.support.clocks import SteppedClock
from tests.support.generations import SIGNING, STOLEN, file, noted

# --- the keyholder


class Clock(SteppedClock):
    """Of the certificates that `AgentScanner` makes."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = timedelta()

    def now(self) -> datetime:
        return datetime.now().astimezone() + self.offset


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentScanner]:
    with new_scanner(tmp_path) as scanner:
        scanner.audit_file.parent.mkdir()
        yield scanner


@pytest.fixture
def audit(agent: AgentScanner) -> Iterator[AuditTrail]:
    trail = AuditTrail(agent.audit_file, Clock())
    yield trail
    trail.close()


def test_the_agent_starts_with_the_one_before_and_says_so_once(agent: AgentScanner, audit: AuditTrail) -> None:
    agent.enroll()
    agent.enroll()
    file(agent, 2).write_bytes(b"")
    identities = Identities(agent.identities, agent.keys, audit, Clock())
    for _ in range(3):
        identities.refresh(at_once=True)

    view = identities.view(SIGNING)
    assert view.active is not None
    assert view.active.generation.number == 1
    assert view.active.sign(bytes(32), HashName.SHA256, Clock().now())
    assert view.refused is not None
    assert view.refused.code == "state-damaged"
    assert [line["code"] for line in agent.audit("identity-refused")] == ["state-damaged"]


def test_the_next_generation_ends_that(agent: AgentScanner, audit: AuditTrail) -> None:
    agent.enroll()
    agent.enroll()
    file(agent, 2).write_bytes(b"")
    identities = Identities(agent.identities, agent.keys, audit, Clock())
    agent.enroll()
    identities.refresh()

    view = identities.view(SIGNING)
    assert view.refused is None
    assert view.active is not None
    assert view.active.generation.number == 3


def test_what_was_loaded_before_it_was_damaged_goes_on(agent: AgentScanner, audit: AuditTrail) -> None:
    agent.enroll()
    agent.enroll()
    identities = Identities(agent.identities, agent.keys, audit, Clock())
    file(agent, 2).write_bytes(b"")
    identities.refresh(at_once=True)

    view = identities.view(SIGNING)
    assert view.active is not None
    assert view.active.generation.number == 2
    assert view.refused is not None


def test_the_one_before_is_not_used_where_it_was_revoked(agent: AgentScanner, audit: AuditTrail) -> None:
    """Its successor is known to be good, so the last record speaks of that."""
    clock = Clock()
    for revocation in (STOLEN, None):
        noted(agent.identities, agent.enroll(), revocation)
    file(agent, 2).write_bytes(b"")

    view = Identities(agent.identities, agent.keys, audit, clock).view(SIGNING)

    assert view.active is not None
    assert view.active.revocation is not None
    refused = view.active.refusal(clock.now())
    assert refused is not None
    assert refused.code == "certificate-revoked"


def test_the_agent_signs_with_nothing_where_what_is_damaged_was_revoked(agent: AgentScanner, audit: AuditTrail) -> None:
    agent.enroll()
    noted(agent.identities, agent.enroll(), STOLEN)
    file(agent, 2).write_bytes(b"")

    with pytest.raises(StateDamaged, match="was revoked"):
        Identities(agent.identities, agent.keys, audit, Clock())


# --- the timer


@pytest.mark.parametrize("store", ["software", "memory"])
def test_the_timer_gets_nothing_over_damage(
    agent: AgentScanner, capsys: pytest.CaptureFixture[str], store: str
) -> None:
    """The agent may have offered its next key: it did not know why the one before is of no use."""
    noted(agent.identities, agent.enroll(), STOLEN)
    file(agent, 1).write_bytes(b"")
    configuration = str(agent.configure(**{"identity.signing": {"key_store": store}}))

    code = run(["renew", "--unattended", "--json", "--config", configuration])

    (said,) = [each for each in json.loads(capsys.readouterr().out)["identities"] if each["identity"] == SIGNING]
    assert (said["state"], said["error"]["code"]) == ("failed", "state-damaged")
    assert code == exits.CONFIGURATION


# --- whoever looks


def said_of_signing(capsys: pytest.CaptureFixture[str], scanner: AgentScanner, *command: str) -> dict[str, Any]:
    """What a command says of the identity that signs."""
    run([*command, "--json", "--config", str(scanner.configure())])
    found: dict[str, Any] | list[dict[str, Any]] = json.loads(capsys.readouterr().out)["identities"]
    return found[SIGNING] if isinstance(found, dict) else next(each for each in found if each["identity"] == SIGNING)


def test_status_says_what_is_in_use_what_is_damaged_what_happens_next_and_who_looks(
    agent: AgentScanner, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.enroll(), agent.enroll()
    file(agent, 2).write_bytes(b"")

    said = said_of_signing(capsys, agent, "status")

    assert (said["state"], said["generation"], said["damaged_newer"]) == ("valid", 1, 2)
    assert said["problem"] == {
        "code": "state-damaged",
        "what": "Generation 2 of the identity signing is damaged; generation 1 is in use, the one before.",
        "remedy": "Look at the disk.",
        "who_must_act": "service engineer",
        "next": "The next run of scanseal renew replaces it with a new one, by itself where it came so.",
    }
    run(["status", "--config", str(agent.configure())])
    shown = capsys.readouterr().out
    assert "scanner    owned" in shown  # it signs on
    for line in (said["problem"]["what"], "Look at the disk.", "To act: service engineer."):
        assert line in shown


def test_check_warns_of_the_disk_and_finds_the_rest_in_order(
    agent: AgentScanner, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.enroll(), agent.enroll()
    file(agent, 2).write_bytes(b"")

    run(["check", "--json", "--config", str(agent.configure())])

    findings = json.loads(capsys.readouterr().out)["findings"]
    about = [each for each in findings if (each["check"], each["subject"]) == ("identity", SIGNING)]
    assert [(each["state"], each["code"]) for each in about] == [("ok", ""), ("warning", "state-damaged")]
    assert "generation 1 is in use, the one before" in about[1]["what"]
    assert about[1]["remedy"] == "Look at the disk."
    by_check = {each["check"]: each["state"] for each in findings}
    assert (by_check["key"], by_check["device-state"]) == ("ok", "ok")


@pytest.mark.parametrize("days_ago", [0, 3], ids=["just come", "came long ago"])
def test_status_tells_the_next_attempt_that_the_timer_makes(
    agent: AgentScanner, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, days_ago: int
) -> None:
    """The next renewal is due at once, whatever the certificate says (ADR 34)."""
    agent.enroll(IdentityName.DEVICE), agent.enroll(), agent.enroll()
    newest = agent.identities.directory(SIGNING) / "newest.json"
    values = read_record(newest, ("number", "before", "at"), agent.files)
    came = (datetime.now(UTC) - timedelta(days=days_ago)).isoformat()
    write_record(newest, values | {"at": came}, agent.files, 0o640)
    file(agent, 2).write_bytes(b"")

    timer = said_of_signing(capsys, agent, "renew", "--dry-run")
    said = said_of_signing(capsys, agent, "status")["next_attempt"]

    assert said["reason"] == timer["reason"] == ("just-renewed" if days_ago == 0 else "at-once")
    if days_ago == 0:
        assert said["at"] == timer["next_attempt"]
