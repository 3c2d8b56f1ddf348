"""`scanseal enroll cmp` and `scanseal revoke`, against the server of OpenSSL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli import exits
from agent.cli.main import run
from enroll.identity import IdentityName
from enroll.revocation.record import RevocationRecords, RevocationState
from tests.support.cmp_scanner import Site, site


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as running:
        yield running


@pytest.fixture
def configuration(hospital: Site) -> Path:
    """scanseal.toml of the scanner."""
    scanner = hospital.scanner.settings
    tables: dict[str, dict[str, object]] = {
        "device": {"serial_number": scanner.device.serial_number, "model": scanner.device.model},
        "keystore.software": {"passphrase_file": scanner.keystore.software.passphrase_file},
        "identity.device": {"key_algorithm": "p-256"},
        "identity.signing": {"key_algorithm": "rsa-2048"},
        "cmp": {"url": scanner.cmp.url, "anchor_file": scanner.cmp.anchor_file},
    }
    lines = [f"state_directory = {json.dumps(str(scanner.state_directory))}"]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{option} = {json.dumps(str(value))}" for option, value in table.items())]
    path = hospital.server.folder / "scanseal.toml"
    path.write_text("\n".join(lines), "utf-8")
    return path


def scanseal(*words: str, configuration: Path) -> int:
    return run([*words, "--config", str(configuration)])


def test_one_command_gets_both_certificates(
    hospital: Site, configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scanseal("enroll", "cmp", "--dry-run", configuration=configuration) == exits.OK
    assert hospital.server.bodies == []
    assert "POST: ir, certificate request for device: " in capsys.readouterr().out

    assert scanseal("enroll", "cmp", configuration=configuration) == exits.OK

    assert hospital.server.bodies == ["ir", "certConf", "cr", "certConf"]


def test_one_command_gives_a_certificate_up(
    hospital: Site, configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scanseal("enroll", "cmp", "--identity", "signing", configuration=configuration)
    current = hospital.current(IdentityName.SIGNING)

    words = ("revoke", "--identity", "signing", "--reason", "keyCompromise")
    assert scanseal(*words, configuration=configuration) == exits.OK

    assert f"{current.certificate.serial_number:x}" in capsys.readouterr().out
    assert hospital.server.bodies[-1] == "rr"
    # The agent stops signing, whether this CA has OCSP and lists or not.
    known = RevocationRecords(hospital.scanner.identities).of(current)
    assert known is not None
    assert (known.state, known.revocation and known.revocation.reason) == (RevocationState.REVOKED, "keyCompromise")


def test_a_certificate_that_the_ca_has_revoked_already_is_known_as_revoked(hospital: Site, configuration: Path) -> None:
    """RFC 9483 4.2, certRevoked: the run that asked was cut off before it had heard the answer."""
    scanseal("enroll", "cmp", "--identity", "signing", configuration=configuration)
    hospital.server.restart()
    hospital.server.options = ["-pkistatus", "2", "-failure", "10"]

    assert scanseal("revoke", "--identity", "signing", configuration=configuration) == exits.OK

    known = RevocationRecords(hospital.scanner.identities).of(hospital.current(IdentityName.SIGNING))
    assert known is not None
    assert known.state is RevocationState.REVOKED
