"""What the keyholder and the commands make of the record of the owner (R15)."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.audit import AuditTrail, only_writer
from agent.cli import exits
from agent.cli.main import run
from agent.daemon.active_key import ActiveKey
from agent.daemon.peer import Caller
from agent.daemon.service import SigningService
from agent.daemon.signer import Identities
from agent.daemon.tally import SigningTally
from agent.daemon.wire import Operation, Request, Role, decode_answer, decode_signature
from agent.errors import SigningError
from enroll.errors import DiskRefused
from enroll.identity import IdentityName
from enroll.owner_file import OwnerFile
from enroll.statefile import StateFiles
from tests.support.agent_process import Scanner, new_scanner
from tests.support.clocks import SteppedClock
from tests.support.other_user import NOBODY
from tests.support.pki import NOW

SIGN = Request(Operation.SIGN, digest=bytes(32))
CALLER = Caller(uid=1001, groups=(1001,), pid=4711)
ROLES = frozenset(Role)
LINES = ("device-disabled", "device-enabled", "device-needs-service")


@dataclass
class Keyholder:
    """The keyholder without its processes; a new one on the same scanner is that after a restart."""

    scanner: Scanner
    audit: AuditTrail
    identities: Identities
    service: SigningService

    @classmethod
    def started(cls, scanner: Scanner) -> Keyholder:
        scanner.audit_file.parent.mkdir(exist_ok=True)
        clock = SteppedClock(_real_time(scanner))
        audit = AuditTrail(scanner.audit_file, clock)
        identities = Identities(scanner.identities, scanner.keys, audit, clock)
        return cls(
            scanner, audit, identities, SigningService(identities, audit, clock, SigningTally(audit, clock, 0.0), dict)
        )

    def sign(self) -> int:
        return decode_signature(self.service.reply(SIGN.encode(), CALLER, ROLES)).generation

    def refusal(self) -> str:
        with pytest.raises(SigningError) as refused:
            self.sign()
        return refused.value.code

    def status(self) -> dict[str, Any]:
        asked = self.service.reply(Request(Operation.STATUS).encode(), CALLER, ROLES)
        said: dict[str, Any] = json.loads(decode_answer(asked))
        return said

    def lines(self) -> list[str]:
        events = [json.loads(line)["event"] for line in self.scanner.audit_file.read_text("ascii").splitlines()]
        return [event for event in events if event in LINES]


def _real_time(scanner: Scanner) -> Any:
    found = scanner.identities.current(IdentityName.SIGNING)
    return found.committed_at if found else NOW


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Scanner]:
    with new_scanner(tmp_path) as scanner:
        scanner.enroll()
        yield scanner


@pytest.fixture
def keyholder(scanner: Scanner) -> Iterator[Keyholder]:
    keyholder = Keyholder.started(scanner)
    yield keyholder
    keyholder.audit.close()


def disable(scanner: Scanner, reason: str = "lent") -> None:
    scanner.identities.owner_file.disable(1000, reason, NOW)


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


def enable(scanner: Scanner) -> None:
    assert scanner.identities.owner_file.enable(1000, NOW, lambda _: False)


# --- the keyholder


def test_the_next_signature_is_refused_without_a_look_around(keyholder: Keyholder) -> None:
    assert keyholder.sign() == 1

    disable(keyholder.scanner)

    assert keyholder.refusal() == "device-disabled"
    assert keyholder.status()["roles"]["acquisition"] == "device-disabled"
    assert keyholder.status()["device"] == {
        "state": "disabled",
        "reason": f"since {NOW:%Y-%m-%d %H:%M} UTC by user 1000: lent",
        "next_action": "Run: scanseal owner enable",
        "who_must_act": "owner of the scanner",
    }

    enable(keyholder.scanner)

    assert keyholder.sign() == 1
    assert keyholder.status()["device"]["state"] == "owned"


def test_a_signature_that_was_being_made_meanwhile_is_not_given_out(
    keyholder: Keyholder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token takes its time. The audit trail knows of no such signature either."""
    sign = ActiveKey.sign

    def slowly(active: ActiveKey, *arguments: Any) -> bytes:
        made = sign(active, *arguments)
        disable(keyholder.scanner)
        return made

    monkeypatch.setattr(ActiveKey, "sign", slowly)

    assert keyholder.refusal() == "device-disabled"
    assert keyholder.scanner.audit("signature") == []
    assert keyholder.status()["unsigned"] == {"since_start": 1, "since_last_signature": 1}


def test_who_may_sign_is_told_before_the_image_is_read(keyholder: Keyholder) -> None:
    disable(keyholder.scanner)

    with pytest.raises(SigningError, match="has disabled this scanner") as refused:
        decode_answer(keyholder.service.reply(Request(Operation.AUTHORIZE).encode(), CALLER, ROLES))
    assert refused.value.code == "device-disabled"


def test_the_audit_trail_says_each_change_once_with_who_and_why(keyholder: Keyholder) -> None:
    for _ in range(3):
        keyholder.identities.refresh()
    assert keyholder.lines() == []

    disable(keyholder.scanner)
    for _ in range(3):
        keyholder.identities.refresh()
        assert keyholder.refusal() == "device-disabled"
    enable(keyholder.scanner)
    for _ in range(3):
        keyholder.identities.refresh()
        keyholder.sign()

    assert keyholder.lines() == ["device-disabled", "device-enabled"]
    (line,) = keyholder.scanner.audit("device-disabled")
    assert line == {"uid": "1000", "since": NOW.isoformat(), "reason": "lent"}


def test_an_enabling_and_a_disabling_between_two_looks_are_not_one_and_the_same(keyholder: Keyholder) -> None:
    disable(keyholder.scanner, "lent")
    keyholder.identities.refresh()
    enable(keyholder.scanner)
    disable(keyholder.scanner, "stolen")

    keyholder.identities.refresh()

    assert [line["reason"] for line in keyholder.scanner.audit("device-disabled")] == ["lent", "stolen"]


def test_a_decision_that_no_agent_has_seen_is_told_at_its_next_start(scanner: Scanner) -> None:
    """It was acknowledged while an agent ran, which was killed before its next look; or all of it within one look."""
    keyholder = Keyholder.started(scanner)
    disable(scanner)
    keyholder.identities.refresh()
    enable(scanner)
    keyholder.audit.close()
    keyholder = Keyholder.started(scanner)
    assert keyholder.lines() == ["device-disabled", "device-enabled"]

    disable(scanner)
    enable(scanner)
    keyholder.sign()
    keyholder.identities.refresh()
    keyholder.audit.close()
    keyholder = Keyholder.started(scanner)
    keyholder.audit.close()
    assert keyholder.lines() == ["device-disabled", "device-enabled"] * 2


def test_a_command_that_finds_the_trail_in_use_leaves_its_line_to_the_agent(
    scanner: Scanner, capsys: pytest.CaptureFixture[str]
) -> None:
    with only_writer(scanner.state, StateFiles()):
        assert shown(capsys, scanner, "owner", "disable", "--reason", "lent")[0] == exits.OK
        assert shown(capsys, scanner, "owner", "enable")[1]["changed"]
    keyholder = Keyholder.started(scanner)
    keyholder.audit.close()

    assert keyholder.lines() == ["device-disabled", "device-enabled"]


def test_a_record_that_cannot_be_written_has_nothing_told_twice(
    keyholder: Keyholder, monkeypatch: pytest.MonkeyPatch
) -> None:
    disable(keyholder.scanner)
    with monkeypatch.context() as full:
        full.setattr(OwnerFile, "forget", raising(DiskRefused("The disk is full.")))
        for _ in range(3):
            keyholder.identities.refresh()
    keyholder.identities.refresh()

    assert keyholder.lines() == ["device-disabled"]
    record = keyholder.scanner.identities.owner_file.read()
    assert record is not None
    assert record.untold == ()


def test_a_start_says_what_keeps_the_scanner_from_signing(scanner: Scanner) -> None:
    disable(scanner)
    for count in (1, 2):
        keyholder = Keyholder.started(scanner)
        assert keyholder.refusal() == "device-disabled"
        keyholder.audit.close()
        assert keyholder.lines() == ["device-disabled"] * count


def test_a_lost_record_refuses_every_role_until_it_is_there_again(keyholder: Keyholder) -> None:
    record = keyholder.scanner.state / "owner.json"
    kept = record.read_bytes()

    record.unlink()
    assert keyholder.refusal() == "device-needs-service"
    record.write_bytes(b"{")
    assert keyholder.refusal() == "device-needs-service"
    assert keyholder.status()["device"]["state"] == "needs-service"
    assert set(keyholder.status()["roles"].values()) == {"device-needs-service"}

    record.write_bytes(kept)
    assert keyholder.sign() == 1
    assert set(keyholder.lines()) == {"device-needs-service", "device-enabled"}


def test_a_key_that_is_lost_does_not_stop_the_start(scanner: Scanner) -> None:
    """The agent says what is lost, and takes up what a person enrolls, without another start."""
    scanner.keys.destroy(scanner.identities.key_uri(IdentityName.SIGNING, 1))
    keyholder = Keyholder.started(scanner)
    assert keyholder.refusal() == "key-damaged"
    assert keyholder.status()["device"]["state"] == "key-lost"

    scanner.enroll()
    keyholder.identities.refresh()

    assert keyholder.sign() == 2
    assert keyholder.status()["device"]["state"] == "owned"
    keyholder.audit.close()


# --- the commands


def shown(capsys: pytest.CaptureFixture[str], scanner: Scanner, *arguments: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = run([*arguments, "--json", "--config", str(scanner.configure())])
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, said


def test_the_commands_write_the_audit_trail_where_no_agent_does(
    scanner: Scanner, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = shown(capsys, scanner, "owner", "disable", "--reason", "lent")
    assert (code, said["state"], said["reason"]) == (exits.OK, "disabled", "lent")
    assert shown(capsys, scanner, "owner", "enable") == (exits.OK, {"state": "enabled", "changed": True})
    assert shown(capsys, scanner, "owner", "enable") == (exits.OK, {"state": "enabled", "changed": False})

    (disabled,), (enabled,) = scanner.audit("device-disabled"), scanner.audit("device-enabled")
    assert (disabled["uid"], disabled["reason"]) == (str(os.getuid()), "lent")
    assert enabled["uid"] == str(os.getuid())


def test_status_and_check_say_the_state_the_next_action_and_whose_turn_it_is(
    scanner: Scanner, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(capsys, scanner, "status")[1]["device"] == {
        "state": "owned",
        "reason": "",
        "next_action": "",
        "who_must_act": "nobody",
        "ways_out": ["scanseal owner disable", "scanseal owner release"],
    }
    disable(scanner)

    device = shown(capsys, scanner, "status")[1]["device"]
    assert (device["state"], device["next_action"]) == ("disabled", "Run: scanseal owner enable")
    assert device["who_must_act"] == "owner of the scanner"
    run(["status", "--config", str(scanner.configure())])
    assert "scanner    disabled: since" in capsys.readouterr().out
    findings = shown(capsys, scanner, "check")[1]["findings"]
    (found,) = [each for each in findings if each["check"] == "device-state"]
    assert (found["state"], found["what"].partition(":")[0]) == ("warning", "disabled")

    (scanner.state / "owner.json").unlink()
    assert shown(capsys, scanner, "status")[1]["device"]["state"] == "needs-service"
    findings = shown(capsys, scanner, "check")[1]["findings"]
    (found,) = [each for each in findings if each["check"] == "device-state"]
    assert found["state"] == "failed"
    assert "--reset-record" in found["remedy"]


def test_status_names_a_key_file_that_is_gone(scanner: Scanner, capsys: pytest.CaptureFixture[str]) -> None:
    scanner.keys.destroy(scanner.identities.key_uri(IdentityName.SIGNING, 1))

    device = shown(capsys, scanner, "status")[1]["device"]

    assert (device["state"], device["reason"]) == ("key-lost", "not in its key store: the key of signing")
    assert device["who_must_act"] == "service engineer"


def test_a_disabled_scanner_renews_nothing(scanner: Scanner, capsys: pytest.CaptureFixture[str]) -> None:
    disable(scanner)

    code, said = shown(capsys, scanner, "renew")

    assert (code, said["error"]["code"]) == (exits.NOT_PERMITTED, "device-disabled")
    assert run(["renew", "--unattended", "--config", str(scanner.configure())]) == exits.OK
    assert "has disabled this scanner" in capsys.readouterr().err
    assert scanner.identities.generations(IdentityName.SIGNING) == (1,)


def test_the_cas_are_asked_about_a_disabled_scanner_too(
    scanner: Scanner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever enables it gets none that signs with a certificate that was revoked meanwhile."""
    asked: list[bool] = []
    monkeypatch.setattr("agent.cli.renew.watch_revocations", lambda *_, patient: asked.append(patient))
    disable(scanner)

    assert run(["renew", "--unattended", "--config", str(scanner.configure())]) == exits.OK
    assert run(["renew", "--config", str(scanner.configure())]) == exits.NOT_PERMITTED
    assert asked == [True, False]
    assert "has disabled this scanner" in capsys.readouterr().err


def test_where_there_is_no_scanner_there_is_nothing_to_disable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with new_scanner(tmp_path) as scanner:
        scanner.state.rmdir()
        assert shown(capsys, scanner, "owner", "disable")[0] == exits.CONFIGURATION
        assert not scanner.state.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as the user of the service: run as root")
def test_root_writes_what_the_user_of_the_service_can_read() -> None:
    with tempfile.TemporaryDirectory() as folder, new_scanner(Path(folder)) as scanner:
        scanner.directory.chmod(0o755)  # as /var/lib; those of pytest are closed to everybody else
        scanner.enroll()
        for path in (scanner.state, *scanner.state.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)

        assert run(["owner", "disable", "--config", str(scanner.configure())]) == exits.OK

        assert {path.lstat().st_uid for path in (scanner.state, *scanner.state.rglob("*"))} == {NOBODY}
        assert os.geteuid() == 0
        assert scanner.audit("device-disabled")[0]["uid"] == "0"
