"""`scanseal owner release`: what is the owner's is destroyed, what is the scanner's stays (ADR 33)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.audit import AuditTrail
from agent.cli.enrolling import text
from agent.daemon.signer import Identities
from enroll.flows.settings import EstSettings, FdoApproval, FdoSettings
from tests.support.agent_process import new_scanner
from tests.support.clocks import SteppedClock
from tests.support.enrolling import CaFlow, Scanner, settings
from tests.support.owner_release import (
    CA,
    DERIVATION,
    DEVICE,
    SIGNING,
    assert_released,
    owned,
    releasing,
    snapshot,
)


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cuts of these tests are between operations, so nothing has to reach the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


# --- what goes, what stays


@pytest.mark.parametrize("fdo", [True, False])
def test_what_is_the_owners_goes_and_all_else_stays(tmp_path: Path, *, fdo: bool) -> None:
    scanner = owned(tmp_path, fdo=fdo)

    assert releasing(scanner).run() == ()

    assert_released(scanner, fdo=fdo)
    assert releasing(scanner).run() == ()
    assert_released(scanner, fdo=fdo)


def test_a_scanner_that_nobody_has_enrolled_can_be_released(tmp_path: Path) -> None:
    scanner = Scanner(settings(tmp_path), (CA.certificate,))

    assert releasing(scanner).run() == ()
    assert releasing(scanner).inventory().goes == ()


def test_the_next_owner_gets_numbers_that_nobody_has_had(tmp_path: Path) -> None:
    """The audit trail names them; and an agent that slept meanwhile sees that something has changed."""
    scanner = owned(tmp_path)
    releasing(scanner).run()

    assert scanner.issue(CaFlow(CA, scanner.clock), SIGNING).number == 4  # type: ignore[union-attr]
    assert scanner.issue(CaFlow(CA, scanner.clock), DEVICE).number == 2  # type: ignore[union-attr]
    assert scanner.issue(CaFlow(CA, scanner.clock), DERIVATION).number == 1  # type: ignore[union-attr]
    releasing(scanner).run()
    again = scanner.issue(CaFlow(CA, scanner.clock), SIGNING)
    assert again.number == 5  # type: ignore[union-attr]
    assert "in place of" not in text(SIGNING, again)  # there is none


def test_what_it_does_is_said_beforehand(tmp_path: Path) -> None:
    scanner = owned(tmp_path).restarted(
        est=EstSettings(url="https://est.example", password_file=Path("/password"), timeout=99),
        fdo=FdoSettings(owner_fingerprints=("a" * 64,), manufacturer_url="https://factory.example", token="line-4"),
    )
    before = snapshot(scanner)
    inventory = releasing(scanner).inventory()

    goes, stays, by_hand = ("\n".join(part) for part in (inventory.goes, inventory.stays, inventory.by_hand))
    assert "signing: the keys of 3 generation(s)" in goes
    assert "ACME" in goes
    assert "the identity vendor" in stays
    assert "FDO credential" in stays
    device = scanner.identities.current(DEVICE)
    assert device is not None
    assert f"{device.certificate.serial_number:x} of device revoked by CN=Hospital CA" in by_hand
    assert "[est] url" in by_hand
    assert "[est] password_file" in by_hand
    assert "[fdo] owner_fingerprints" in by_hand
    assert "timeout" not in by_hand
    assert "manufacturer_url" not in by_hand
    assert "token" not in by_hand
    assert "SOP Instance UID" in by_hand
    assert "scanseal fdo voucher extend" in by_hand
    assert "if not done yet" in by_hand
    assert "owner server forget this scanner" in by_hand
    assert "do not run scanseal enroll fdo on this network" in by_hand
    assert "approval" not in by_hand
    careless = scanner.restarted(fdo=FdoSettings(approval=FdoApproval.NEVER))
    assert any('[fdo] approval = "never"' in line for line in releasing(careless).inventory().by_hand)
    assert snapshot(scanner) == before


def test_without_an_fdo_credential_that_is_said(tmp_path: Path) -> None:
    inventory = releasing(owned(tmp_path, fdo=False)).inventory()

    assert any("no FDO credential" in line for line in inventory.stays)


# --- the agent, which runs meanwhile


def test_the_agent_stops_signing_with_what_is_gone(tmp_path: Path) -> None:
    with new_scanner(tmp_path) as scanner:
        scanner.audit_file.parent.mkdir()
        scanner.enroll()
        clock = SteppedClock()
        trail = AuditTrail(scanner.audit_file, clock)
        identities = Identities(scanner.identities, scanner.keys, trail, clock)
        assert identities.view(SIGNING).active is not None

        scanner.identities.wipe(SIGNING)
        identities.refresh()

        assert identities.view(SIGNING).active is None
        assert identities.view(SIGNING).generation is None
        assert scanner.audit("identity-gone") == [{"identity": "signing"}]
        trail.close()
