"""Which flow brings the certificates of which identity."""

from __future__ import annotations

from pathlib import Path

import pytest

from enroll.clock import SystemClock
from enroll.enroller import Enroller, flow_of
from enroll.errors import ConfigurationError
from enroll.flows.settings import FlowName
from enroll.identity import IdentityName
from enroll.journal import PendingRequest, Step
from enroll.statefile import StateFiles
from tests.support.enrolling import CaFlow, Scanner, settings
from tests.support.pki import HospitalCa


@pytest.fixture
def enroller(tmp_path: Path) -> Enroller:
    return Enroller.configured(settings(tmp_path), SystemClock(), StateFiles())


@pytest.mark.parametrize("identity", [IdentityName.IDEVID, IdentityName.VENDOR])
def test_what_is_not_done_is_not_planned_either(enroller: Enroller, identity: IdentityName) -> None:
    with pytest.raises(ConfigurationError, match="does not come by est"):
        enroller.plan(identity, FlowName.EST)


@pytest.mark.parametrize("identity", [IdentityName.IDEVID, IdentityName.VENDOR])
def test_the_owner_does_not_enroll_the_vendors_identities(enroller: Enroller, identity: IdentityName) -> None:
    with pytest.raises(ConfigurationError, match="does not come by est"):
        enroller.enroll(identity, FlowName.EST)


@pytest.mark.parametrize("identity", [IdentityName.DEVICE, IdentityName.SIGNING])
def test_the_vendor_does_not_enroll_the_owners_identities(enroller: Enroller, identity: IdentityName) -> None:
    with pytest.raises(ConfigurationError, match="does not come by vendor"):
        enroller.enroll(identity, FlowName.VENDOR)


# --- the way of a renewal


CA = HospitalCa()
DEVICE, SIGNING = IdentityName.DEVICE, IdentityName.SIGNING


@pytest.fixture
def scanner(tmp_path: Path) -> Scanner:
    return Scanner(settings(tmp_path), (CA.certificate,))


def came_by(scanner: Scanner, flow: str, identity: IdentityName = SIGNING) -> None:
    scanner.issue(CaFlow(CA, scanner.clock, name=flow), identity)


def under_way(scanner: Scanner, asked: str) -> Path:
    scanner.identities.journal(SIGNING).write(PendingRequest(Step.SENT, "signing-0", "", asked, scanner.clock.now()))
    return scanner.identities.directory(SIGNING) / "pending" / "request.json"


def test_a_renewal_goes_the_way_that_the_certificate_came(scanner: Scanner) -> None:
    came_by(scanner, "cmp")
    came_by(scanner, "acme", DEVICE)

    assert flow_of(SIGNING, scanner.identities) is FlowName.CMP


def test_a_first_request_goes_on_as_it_began_and_otherwise_as_the_device_came(scanner: Scanner) -> None:
    assert flow_of(SIGNING, scanner.identities) is FlowName.EST
    came_by(scanner, "acme", DEVICE)
    assert flow_of(SIGNING, scanner.identities) is FlowName.ACME
    under_way(scanner, '{"flow": "cmp"}')
    assert flow_of(SIGNING, scanner.identities) is FlowName.CMP


@pytest.mark.parametrize("asked", ["", "[]", "{", '{"flow": 1}', '{"flow": "pigeon"}'])
def test_a_request_under_way_that_says_nothing_sensible_stops_nothing(scanner: Scanner, asked: str) -> None:
    came_by(scanner, "acme", DEVICE)
    path = under_way(scanner, asked)
    assert flow_of(SIGNING, scanner.identities) is FlowName.ACME
    path.write_text("{")
    assert flow_of(SIGNING, scanner.identities) is FlowName.ACME


def test_a_way_that_this_version_does_not_know_is_named(scanner: Scanner) -> None:
    came_by(scanner, "pigeon")

    with pytest.raises(ConfigurationError, match="pigeon"):
        flow_of(SIGNING, scanner.identities)
