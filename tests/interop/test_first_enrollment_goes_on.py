"""What somebody asked for once comes: the timer goes on with a first enrollment that did not end at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.cli import exits
from agent.cli.main import run
from enroll.evaluation.est_server import EstOptions, EstServer
from enroll.identity import IdentityName
from tests.support.agent_process import Scanner, new_scanner
from tests.support.flow_servers.est import approve_all
from tests.support.hospital import Hospital

QUICK = {"identity.signing": {"key_algorithm": "rsa-2048"}}
USUAL = ("device", "signing")
OTHERS_ABSENT = dict.fromkeys(("vendor", "derivation", "synthesis"), "absent")


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path / "ca")


@pytest.fixture
def scanner(tmp_path: Path, hospital: Hospital) -> Iterator[Scanner]:
    with new_scanner(tmp_path) as scanner:
        scanner.configure(**hospital.tables(), **QUICK)
        yield scanner


def command(scanner: Scanner, *words: str) -> int:
    return run([*words, "--config", str(scanner.directory / "scanseal.toml")])


def states(scanner: Scanner, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, str]:
    capsys.readouterr()
    command(scanner, "renew", "--json", *words)
    return {each["identity"]: each["state"] for each in json.loads(capsys.readouterr().out)["identities"]}


def wishes(scanner: Scanner) -> list[Path]:
    return sorted((scanner.identities.root / "identities").glob("*/wanted.json"))


def has(scanner: Scanner, *names: str) -> bool:
    return all(scanner.identities.current(IdentityName(name)) is not None for name in names)


def forget_until(scanner: Scanner, name: IdentityName) -> None:
    """The time to ask again has come."""
    journal = scanner.identities.journal(name)
    pending = journal.read()
    assert pending is not None
    journal.write(replace(pending, until=None))


def test_a_ca_that_was_away_is_asked_for_both(
    scanner: Scanner, hospital: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(scanner, "enroll", "est") == exits.UNAVAILABLE
    assert command(scanner, "renew") == exits.UNAVAILABLE
    assert "signing: asked for by est on " in capsys.readouterr().out
    command(scanner, "status")
    status = capsys.readouterr().out
    assert "device     not enrolled yet\n" in status
    assert "failed      [server-unreachable] by est at " in status
    assert "signing    not enrolled yet\n           asked for   by est since " in status

    with hospital.answers():
        assert command(scanner, "renew") == exits.OK

    assert has(scanner, *USUAL)
    assert wishes(scanner) == []


def test_approval_by_hand_is_waited_for_by_both(scanner: Scanner, hospital: Hospital) -> None:
    address = ("127.0.0.1", int(hospital.url.rpartition(":")[2]))
    with EstServer(hospital.ca, address, options=EstOptions(approve_by_hand=True)) as server:
        assert command(scanner, "enroll", "est") == exits.TRY_LATER
        approve_all(server)
        forget_until(scanner, IdentityName.DEVICE)
        assert command(scanner, "renew") == exits.TRY_LATER
        assert has(scanner, "device")

        approve_all(server)
        forget_until(scanner, IdentityName.SIGNING)
        assert command(scanner, "renew") == exits.OK

    assert has(scanner, *USUAL)


def test_a_wrong_password_that_was_put_right_is_tried(
    scanner: Scanner, hospital: Hospital, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    password = tmp_path / "password"
    password.write_text("wrong\n")
    password.chmod(0o600)
    tables: dict[str, Any] = {"est": {**hospital.tables()["est"], "password_file": str(password)}}
    scanner.configure(**tables, **QUICK)
    with hospital.answers():
        assert command(scanner, "enroll", "est") == exits.NOT_PERMITTED
        assert "Error [enrollment-refused]: " in capsys.readouterr().err
        assert states(scanner, capsys, "--dry-run") == {**dict.fromkeys(USUAL, "wanted"), **OTHERS_ABSENT}

        password.write_bytes(hospital.ca.password_file.read_bytes())
        assert command(scanner, "renew") == exits.OK

    assert has(scanner, *USUAL)


def test_a_way_that_is_not_configured_leaves_no_wish(scanner: Scanner, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(scanner, "enroll", "cmp") == exits.CONFIGURATION
    assert wishes(scanner) == []
    assert set(states(scanner, capsys).values()) == {"absent"}


def test_neither_does_it_end_the_wish_that_is_there(scanner: Scanner) -> None:
    assert command(scanner, "enroll", "est") == exits.UNAVAILABLE
    before = [path.read_bytes() for path in wishes(scanner)]
    assert command(scanner, "enroll", "cmp") == exits.CONFIGURATION

    assert [path.read_bytes() for path in wishes(scanner)] == before


def test_what_nobody_asked_for_is_not_enrolled(
    scanner: Scanner, hospital: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(scanner, "enroll", "est", "--identity", "device") == exits.UNAVAILABLE
    with hospital.answers():
        assert states(scanner, capsys)["signing"] == "absent"

    assert has(scanner, "device")
