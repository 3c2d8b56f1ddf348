"""What `scanseal check` says about where certificates come from."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent import checks, enrollment_checks
from agent.checks import State
from enroll.config import EnrollSettings
from enroll.flows.settings import (
    AcmeSettings,
    CmpSettings,
    EstSettings,
    FlowName,
    OfflineSettings,
    ScepSettings,
    VendorSettings,
)
from enroll.identity import IdentityName
from tests.support.certificates import Authority
from tests.support.pki import DEVICE

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ANCHOR = Path("/ca.pem")
EVERYTHING = EnrollSettings(
    DEVICE,
    est=EstSettings(url="https://est"),
    acme=AcmeSettings(directory_url="https://acme/directory"),
    cmp=CmpSettings(url="http://cmp/"),
    scep=ScepSettings(enabled=True, url="http://scep/"),
    offline=OfflineSettings(anchor_file=ANCHOR),
    vendor=VendorSettings(url="https://vendor"),
)


def test_every_check_is_explained_where_it_is_listed() -> None:
    source = Path(enrollment_checks.__file__).read_text("utf-8")
    used = set(re.findall(r"""(?:Finding\(\s*|check = )"([a-z-]+)\"""", source))

    assert used
    assert used <= set(re.findall(r"^    ([a-z-]+) {2,}", enrollment_checks.__doc__ or "", re.MULTILINE))


def test_every_way_that_is_configured_is_known() -> None:
    # What FDO needs is no configuration but the credential of the factory.
    assert set(enrollment_checks.ways(EVERYTHING)) == set(FlowName) - {FlowName.FDO}
    assert enrollment_checks.ways(EnrollSettings(DEVICE)) == {}


def test_scep_that_is_not_enabled_is_no_way() -> None:
    assert not enrollment_checks.ways(EnrollSettings(DEVICE, scep=ScepSettings(url="http://scep/")))


@pytest.mark.parametrize(
    ("settings", "device", "idevid"),
    [
        (EVERYTHING, "est", "vendor request"),
        (EnrollSettings(DEVICE, vendor=EVERYTHING.vendor), "", "vendor request"),
        (EnrollSettings(DEVICE, offline=EVERYTHING.offline), "offline export", "vendor"),
        (EnrollSettings(DEVICE), "", "vendor"),
    ],
)
def test_only_a_way_that_is_configured_is_advised(settings: EnrollSettings, device: str, idevid: str) -> None:
    assert enrollment_checks.way_for(IdentityName.DEVICE, settings) == device
    assert enrollment_checks.way_for(IdentityName.IDEVID, settings) == idevid


def test_the_owner_of_the_voucher_is_advised_where_there_is_no_other_way_to_the_first_certificate() -> None:
    nothing = EnrollSettings(DEVICE)

    assert enrollment_checks.way_for(IdentityName.DEVICE, nothing, may_onboard=True) == "fdo"
    assert enrollment_checks.way_for(IdentityName.SIGNING, nothing, may_onboard=True) == "fdo"
    assert enrollment_checks.way_for(IdentityName.DEVICE, EVERYTHING, may_onboard=True) == "est"
    assert enrollment_checks.way_for(IdentityName.IDEVID, nothing, may_onboard=True) == "vendor"
    # By FDO comes what one command brings, and that has no option for one identity.
    assert checks.not_enrolled(IdentityName.DERIVATION, in_memory=False, way="fdo").remedy == "Run: scanseal enroll fdo"


@pytest.mark.parametrize("flow", [*FlowName, "test"])
def test_a_certificate_whose_way_is_gone_says_what_to_set(flow: str) -> None:
    finding = enrollment_checks.lost_way(IdentityName.DEVICE, flow)

    assert (finding.state, finding.subject) == (State.WARNING, "device")
    assert f"[{flow}]" in finding.remedy


def test_ca_certificates_that_have_all_expired_enroll_nobody(tmp_path: Path) -> None:
    anchor = Authority(tmp_path, NOW).certificate
    way = enrollment_checks.Way(FlowName.CMP, "http://cmp/", ANCHOR)
    later = anchor.not_valid_after_utc + timedelta(days=1)

    assert enrollment_checks.anchors(way, [anchor], NOW).state is State.OK
    assert enrollment_checks.anchors(way, [anchor], later).state is State.FAILED
    assert enrollment_checks.anchors(way, [], later).state is State.OK


def test_a_certificate_that_names_no_place_is_not_watched_and_that_is_no_fault() -> None:
    finding = enrollment_checks.revocation(
        IdentityName.DEVICE, None, published=False, now=NOW, patience=timedelta(days=7)
    )

    assert finding.state is State.NOT_APPLICABLE


def test_one_that_was_never_asked_about_is_a_warning() -> None:
    finding = enrollment_checks.revocation(
        IdentityName.DEVICE, None, published=True, now=NOW, patience=timedelta(days=7)
    )

    assert finding.state is State.WARNING
    assert finding.remedy
