"""What `scanseal owner release`, and the timer that goes on with it, say and write into the audit trail (ADR 33)."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.audit import only_writer, verify
from agent.cli import exits
from agent.cli.main import run
from enroll.errors import StateTooNew
from enroll.owner_release import OwnerRelease
from enroll.record import write_record
from tests.support.enrolling import Scanner
from tests.support.owner_release import (
    DERIVATION,
    DEVICE,
    FILES,
    IN_TOKEN,
    SIGNING,
    assert_released,
    moved_into_a_token,
    owned,
    releasing,
    snapshot,
)
from tests.support.records import rewrite


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cuts of these tests are between operations, so nothing has to reach the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


CONFIGURATION = """
state_directory = "{state}"
[device]
serial_number = "CT-000123"
model = "Example CT"
[keystore.software]
passphrase_file = "{folder}/passphrase"
[identity.signing]
key_algorithm = "rsa-3072"
[est]
url = "https://est.example"
"""


def command(scanner: Scanner, *options: str) -> int:
    folder = scanner.settings.state_directory.parent
    path = folder / "scanseal.toml"
    path.write_text(CONFIGURATION.format(state=scanner.settings.state_directory, folder=folder))
    return run(["owner", "release", "--config", str(path), *options])


def test_the_command_says_first_what_it_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    scanner = owned(tmp_path)
    before = snapshot(scanner)
    assert command(scanner, "--dry-run", "--json") == exits.OK
    said: Mapping[str, Any] = json.loads(capsys.readouterr().out)
    assert said.keys() == {"goes", "stays", "by_hand"}
    assert "[est] url in scanseal.toml is of this owner" in said["by_hand"]
    assert command(scanner, "--dry-run") == exits.OK
    assert capsys.readouterr().out.endswith("Nothing was changed.\n")

    assert command(scanner) == exits.INTERRUPTED  # nobody is there to agree
    asked = capsys.readouterr().err
    assert "By hand" in asked
    assert asked.endswith("Nothing was released.\n")
    assert "Interrupted" not in asked
    assert snapshot(scanner) == before


def test_where_nothing_goes_it_claims_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    scanner = owned(tmp_path)
    releasing(scanner).run()

    assert command(scanner) == exits.INTERRUPTED
    asked = capsys.readouterr().err
    assert "Destroy what goes" not in asked
    assert "nobody has enrolled" not in asked

    assert command(scanner, "--yes") == exits.OK
    assert capsys.readouterr().out.startswith("Nothing of an owner was there.\n")


def test_the_command_releases_and_writes_into_the_audit_trail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scanner = owned(tmp_path)
    assert command(scanner, "--yes") == exits.OK

    assert "The scanner is released." in capsys.readouterr().out
    (scanner.settings.state_directory / "agent.lock").unlink()
    assert verify(scanner.settings.state_directory / "audit" / "audit.jsonl").records == 2 + len(tasks(scanner))
    assert any("of device revoked" in task for task in tasks(scanner))
    assert set(events(scanner)) == {"owner-release-begun", "owner-release-task", "owner-released"}
    assert_released(scanner)


def test_an_agent_that_runs_is_the_only_writer_of_the_audit_trail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scanner = owned(tmp_path)
    root = scanner.settings.state_directory
    with only_writer(root, FILES):
        assert command(scanner, "--yes") == exits.OK

    assert (root / "audit" / "audit.jsonl").read_bytes() == b""
    assert "released" in capsys.readouterr().out


def test_the_timer_goes_on_with_what_was_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scanner = owned(tmp_path)
    scanner.identities.retract(SIGNING)
    write_record(scanner.identities.release_record, {"begun_at": ""}, FILES)
    command(scanner, "--dry-run")
    configuration = str(tmp_path / "scanseal.toml")
    capsys.readouterr()
    run(["status", "--config", configuration])
    shown = capsys.readouterr().out
    assert shown.startswith("warning    The owner of this scanner has begun to give it up")
    assert shown.count("has begun to give it up") == 1
    run(["check", "--config", configuration])
    assert "has begun to give it up" in capsys.readouterr().out.splitlines()[1]

    assert run(["renew", "--config", configuration, "--dry-run"]) == exits.CONFIGURATION  # nothing will be renewed
    assert scanner.identities.current(DEVICE) is not None
    (scanner.identities.directory(DERIVATION) / "pending" / "request.json").write_text("{")
    scanner.stores.destroy("software:derivation-0123456789abcdef")
    assert run(["renew", "--config", configuration]) == exits.OK
    told = capsys.readouterr().err
    assert "find and destroy the key of a request of derivation" in told
    assert "The scanner is released" in told
    (scanner.settings.state_directory / "agent.lock").unlink()
    assert_released(scanner)
    assert [event for event in events(scanner) if event != "owner-release-task"] == [
        "owner-release-begun",
        "key-not-destroyed",
        "owner-released",
    ]


def test_what_a_lost_token_holds_is_said_and_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scanner = owned(tmp_path)
    moved_into_a_token(scanner, by_hand=False)
    assert command(scanner, "--yes") == exits.UNAVAILABLE
    assert "--without-token" in capsys.readouterr().err

    assert command(scanner, "--yes", "--json", "--without-token", "gone") == exits.OK

    by_hand = json.loads(capsys.readouterr().out)["by_hand"]
    assert sum(IN_TOKEN in line for line in by_hand) == 2
    assert [event for event in events(scanner) if event != "owner-release-task"] == [
        *["owner-release-begun"] * 2,
        *["key-not-destroyed"] * 2,
        "owner-released",
    ]


UNFINISHED = (
    "The release of this scanner is not finished, and nothing is enrolled until it is. "
    "Run: scanseal owner release. The timer finishes it, too.\n"
)


@contextmanager
def interruption(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ctrl-C when all identities have gone."""

    def interrupted(_: OwnerRelease) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(OwnerRelease, "_close_account", interrupted)
        yield


def cut_off(scanner: Scanner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said after Ctrl-C."""
    with interruption(monkeypatch):
        assert command(scanner, "--yes") == exits.INTERRUPTED
    assert scanner.identities.generations(DEVICE) == ()
    return capsys.readouterr().err


def test_what_is_left_by_hand_survives_an_interruption(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificates that have to be revoked are named nowhere else any more."""
    scanner = owned(tmp_path)
    device = scanner.identities.current(DEVICE)
    assert device is not None
    (scanner.identities.directory(DERIVATION) / "pending" / "request.json").write_text("{")
    assert command(scanner, "--dry-run", "--json") == exits.OK
    before = json.loads(capsys.readouterr().out)["by_hand"]

    said = cut_off(scanner, monkeypatch, capsys)
    assert said.endswith(UNFINISHED)
    assert command(scanner, "--dry-run", "--json") == exits.OK
    assert json.loads(capsys.readouterr().out)["by_hand"][: len(before)] == before
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert command(scanner) == exits.INTERRUPTED
    assert capsys.readouterr().err.endswith(UNFINISHED)

    assert command(scanner, "--yes", "--json") == exits.OK
    by_hand = json.loads(capsys.readouterr().out)["by_hand"]
    assert by_hand[: len(before)] == before
    assert any(f"{device.certificate.serial_number:x} of device" in line for line in by_hand)
    assert by_hand[-1].startswith("find and destroy the key of a request of derivation")
    assert events(scanner).count("key-not-destroyed") == 1
    assert tasks(scanner) == before


def test_the_timer_that_finishes_it_says_what_is_left_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scanner = owned(tmp_path)
    cut_off(scanner, monkeypatch, capsys)

    assert run(["renew", "--config", str(tmp_path / "scanseal.toml")]) == exits.OK

    told = capsys.readouterr().err
    assert told.startswith("The scanner is released: what was begun is finished.\n")
    assert "of device revoked by CN=Hospital CA" in told
    assert "of signing revoked by CN=Hospital CA" in told


def test_the_timer_that_is_interrupted_says_that_it_is_not_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person may run `scanseal renew`, too, and has to know that the scanner is half given up."""
    scanner = owned(tmp_path)
    cut_off(scanner, monkeypatch, capsys)
    renewal = ["renew", "--config", str(tmp_path / "scanseal.toml")]

    with interruption(monkeypatch):
        assert run(renewal) == exits.INTERRUPTED

    assert capsys.readouterr() == ("", UNFINISHED)
    assert run(renewal) == exits.OK
    assert not releasing(scanner).is_under_way


def test_over_a_record_of_the_owner_of_a_newer_version_nothing_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It could not be brought to its end: that record is overwritten by nobody (ADR 37)."""
    scanner = owned(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("enroll.record.FORMAT", 2)
        rewrite(scanner.settings.state_directory / "owner.json")
    before = snapshot(scanner)

    assert command(scanner, "--yes", "--json") == exits.CONFIGURATION

    assert json.loads(capsys.readouterr().out)["error"]["code"] == "state-too-new"
    with pytest.raises(StateTooNew):
        releasing(scanner).run()
    assert snapshot(scanner) == before


def tasks(scanner: Scanner) -> list[str]:
    trail = scanner.settings.state_directory / "audit" / "audit.jsonl"
    records = [json.loads(line) for line in trail.read_text().splitlines()]
    return [record["fields"]["task"] for record in records if record["event"] == "owner-release-task"]


def events(scanner: Scanner) -> list[str]:
    trail = scanner.settings.state_directory / "audit" / "audit.jsonl"
    return [json.loads(line)["event"] for line in trail.read_text().splitlines()]
