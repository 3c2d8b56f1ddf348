"""What every command owes its user: help, stable exit codes, errors that name the remedy, JSON for programs."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import click
import pytest

from agent.cli import exits
from agent.cli.demo import DemoError
from agent.cli.main import COMMANDS, run
from agent.cli.options import written_whole
from agent.errors import AgentRefused, DicomError, OutputFileError
from agent.policy.verdicts import EXIT_CODES, ExitCode
from enroll.errors import (
    KeyDamaged,
    KeyMismatch,
    KeyNotFound,
    KeyStoreError,
    KeyStoreUnavailable,
    PinRefused,
    ScansealError,
    UnsupportedKey,
)

ROOT = Path(__file__).parents[2]


def commands() -> list[click.Command]:
    found: list[click.Command] = []
    for module in COMMANDS.values():
        command = importlib.import_module(module).command
        found += command.commands.values() if isinstance(command, click.Group) else [command]
    return found


@pytest.mark.parametrize("command", commands(), ids=lambda command: str(command.name))
def test_every_option_of_every_command_is_explained(command: click.Command) -> None:
    unexplained = [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
    assert not unexplained


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_0(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == exits.OK
    assert f"scanseal {name}" in capsys.readouterr().out


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verfiy"]) == exits.USAGE
    assert "Did you mean 'verify'?" in capsys.readouterr().err


def test_an_unknown_option_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "--ancor", "ca.pem", "file.dcm"]) == exits.USAGE
    assert "--anchor" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["sign", "a.dcm"],
        ["sign", "a.dcm", "b.dcm", "--output", "signed.dcm"],
        ["sign", "one/a.dcm", "two/a.dcm", "--output-directory", "."],
    ],
)
def test_sign_wants_to_know_where_each_signed_file_goes(arguments: list[str]) -> None:
    assert run(arguments) == exits.USAGE


def test_a_missing_configuration_says_so_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--json", "--config", str(tmp_path / "absent.toml")]) == exits.CONFIGURATION
    error = json.loads(capsys.readouterr().out)["error"]
    assert set(error) == {"code", "what", "remedy", "who_must_act", "next"}
    assert all(error.values())


def test_a_fault_of_ours_is_never_mistaken_for_a_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("agent.cli.status.configuration", fail)
    assert run(["status"]) == exits.INTERNAL
    assert "fault of scanseal" in capsys.readouterr().err


def test_every_error_has_an_exit_code_of_its_own_kind() -> None:
    def below(kind: type[ScansealError]) -> set[type[ScansealError]]:
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    for kind in below(ScansealError) - {ScansealError, DemoError, AgentRefused}:
        assert exits.exit_code(kind.__new__(kind)) != exits.INTERNAL, kind  # not made: some need more than a text


def test_a_refusal_by_the_agent_keeps_its_meaning() -> None:
    assert exits.exit_code(AgentRefused("no", status=403)) == exits.NOT_PERMITTED
    assert exits.exit_code(AgentRefused("not now", status=503)) == exits.UNAVAILABLE
    assert exits.exit_code(AgentRefused("cut off", status=422)) == exits.INSTANCE_REFUSED
    assert exits.exit_code(DicomError("cut off")) == exits.INSTANCE_REFUSED


def test_a_token_that_is_only_away_has_nothing_to_be_corrected() -> None:
    """As `scanseal check` says of it."""
    assert exits.exit_code(KeyStoreUnavailable("away")) == exits.UNAVAILABLE
    for kind in (KeyStoreError, PinRefused, KeyNotFound, KeyDamaged, KeyMismatch, UnsupportedKey):
        assert exits.exit_code(kind("wrong")) == exits.CONFIGURATION


def test_the_exit_codes_are_documented() -> None:
    documented = {
        int(row) for row in re.findall(r"^\| (\d+) \|", (ROOT / "docs/exit-codes.md").read_text("utf-8"), re.MULTILINE)
    }
    of_commands = {value for name, value in vars(exits).items() if name.isupper() and not name.startswith("_")}
    assert documented == of_commands | set(ExitCode)
    assert set(EXIT_CODES.values()) == set(ExitCode) == set(range(8))


def test_output_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail_half_way() -> None:
        with written_whole(tmp_path / "signed.dcm") as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputFileError), written_whole(tmp_path / "file" / "signed.dcm"):
        pass
