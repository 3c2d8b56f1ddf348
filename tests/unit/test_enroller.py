"""Which flow brings the certificates of which identity."""

from __future__ import annotations

from pathlib import Path

import pytest

from enroll.clock import SystemClock
from enroll.enroller import Enroller
from enroll.errors import ConfigurationError
from enroll.flows.settings import FlowName
from enroll.identity import IdentityName
from enroll.statefile import StateFiles
from tests.support.enrolling import settings


@pytest.fixture
def enroller(tmp_path: Path) -> Enroller:
    return Enroller.configured(settings(tmp_path), SystemClock(), StateFiles())


@pytest.mark.parametrize("identity", [IdentityName.IDEVID, IdentityName.VENDOR])
def test_the_owner_does_not_enroll_the_vendors_identities(enroller: Enroller, identity: IdentityName) -> None:
    with pytest.raises(ConfigurationError, match="does not come by est"):
        enroller.enroll(identity, FlowName.EST)


@pytest.mark.parametrize("identity", [IdentityName.DEVICE, IdentityName.SIGNING])
def test_the_vendor_does_not_enroll_the_owners_identities(enroller: Enroller, identity: IdentityName) -> None:
    with pytest.raises(ConfigurationError, match="does not come by vendor"):
        enroller.enroll(identity, FlowName.VENDOR)
