"""`scanseal enroll` helps somebody who does not know which way to take."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli import exits
from agent.cli.enroll import FLOWS
from agent.cli.main import run
from enroll.certificates import pem
from tests.support.key_stores import secret_file
from tests.support.pki import HospitalCa

ROOT = Path(__file__).parents[2]
GUIDE = "docs/operations/hospital-it.md"
CONFIGURATION = """
state_directory = "{folder}/state"
[device]
serial_number = "CT-000123"
[keystore.software]
passphrase_file = "{folder}/passphrase"
[est]
url = "https://est.hospital.example"
anchor_file = "{folder}/anchor.pem"
username = "scanner"
password_file = "{folder}/passphrase"
"""


def test_without_a_way_it_says_when_to_take_which(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["enroll"]) == exits.USAGE

    said = "".join(capsys.readouterr())
    assert [flow for flow in FLOWS if f"\n  {flow} " not in said] == []
    assert GUIDE in said
    assert (ROOT / GUIDE).exists()


def test_a_way_that_there_is_not_is_answered_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["enroll", "kerberos"]) == exits.USAGE

    assert "est, acme, cmp, offline, scep, vendor" in capsys.readouterr().err


@pytest.mark.parametrize("flow", [flow for flow in FLOWS if flow not in {"offline", "vendor"}])
def test_every_way_over_the_network_shows_its_exit_codes_and_an_example(
    flow: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["enroll", flow, "--help"]) == exits.OK

    said = capsys.readouterr().out
    assert "Exit code: 0 enrolled" in said
    assert f"Example: scanseal enroll {flow}" in said
    assert "--dry-run" in said


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """Of a scanner that has no identity yet."""
    secret_file(tmp_path / "passphrase", "correct horse battery staple")
    (tmp_path / "anchor.pem").write_bytes(pem([HospitalCa().certificate]))
    path = tmp_path / "scanseal.toml"
    path.write_text(CONFIGURATION.format(folder=tmp_path), "utf-8")
    return path


def test_a_new_scanner_is_told_what_would_be_sent_for_both_identities(
    configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["enroll", "est", "--dry-run", "--config", str(configuration)]) == exits.OK

    said = capsys.readouterr().out
    assert "device: to https://est.hospital.example/.well-known/est/simpleenroll" in said
    assert "the same for signing, once device has its certificate\n    proved by the device identity" in said
    assert said.endswith("Nothing was sent.\n")


def test_what_needs_the_device_identity_alone_is_told_to_need_it(
    configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["enroll", "est", "--identity", "signing", "--dry-run", "--config", str(configuration)]

    assert run(command) == exits.CONFIGURATION
    assert "enroll the identity device first" in capsys.readouterr().err
