"""`[signing] identity = "vendor"`: the vendor's key signs original images, and no other takes its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.audit import AuditTrail
from agent.config import AgentSettings, Configuration, SigningIdentity, SigningSettings, load
from agent.daemon.compose import _settings_in_memory
from agent.daemon.demands import Demands
from agent.daemon.signer import IDENTITY_OF, Identities
from agent.daemon.wire import Role
from agent.errors import KeyRefused, NotEnrolled
from enroll.algorithms import KeyAlgorithm
from enroll.clock import SystemClock
from enroll.config import (
    DeviceSettings,
    EnrollSettings,
    IdentitiesSettings,
    SigningIdentitySettings,
    StoreName,
    VendorIdentitySettings,
)
from enroll.errors import ConfigurationError, UnsupportedKey
from enroll.identity import IdentityName
from enroll.proves import Proves
from enroll.statefile import StateFiles
from tests.support.agent_process import Scanner, new_scanner

SIGNING, VENDOR = IdentityName.SIGNING, IdentityName.VENDOR


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Scanner]:
    with new_scanner(tmp_path) as scanner:
        scanner.audit_file.parent.mkdir()
        yield scanner


@pytest.fixture
def audit(scanner: Scanner) -> Iterator[AuditTrail]:
    trail = AuditTrail(scanner.audit_file, SystemClock())
    yield trail
    trail.close()


def follow(scanner: Scanner, audit: AuditTrail, originals: IdentityName) -> Identities:
    return Identities(scanner.identities, scanner.keys, audit, SystemClock(), originals=originals)


def test_only_the_role_of_originals_has_another_key(scanner: Scanner, audit: AuditTrail) -> None:
    identities = follow(scanner, audit, VENDOR)

    assert identities.identity_of == {**IDENTITY_OF, Role.ACQUISITION: VENDOR}
    assert follow(scanner, audit, SIGNING).identity_of == IDENTITY_OF


@pytest.mark.parametrize(("originals", "other"), [(SIGNING, VENDOR), (VENDOR, SIGNING)])
def test_the_other_identity_is_shown_and_signs_nothing(
    scanner: Scanner, audit: AuditTrail, originals: IdentityName, other: IdentityName
) -> None:
    scanner.enroll(other)
    identities = follow(scanner, audit, originals)

    assert identities.view(other).generation is not None
    assert identities.view(other).active is None
    with pytest.raises(NotEnrolled) as refused:
        identities.active_key(identities.identity_of[Role.ACQUISITION])
    assert "scanseal check" in refused.value.remedy

    scanner.enroll(originals)
    identities.refresh()
    assert identities.active_key(originals).generation.identity is originals
    assert identities.active_key(originals).proves is Proves.DEVICE


def test_a_key_that_cannot_sign_stops_the_start_where_it_has_to_sign(scanner: Scanner, audit: AuditTrail) -> None:
    scanner.enroll(VENDOR, KeyAlgorithm.P_256)
    follow(scanner, audit, SIGNING)

    with pytest.raises(UnsupportedKey):
        follow(scanner, audit, VENDOR)


def test_require_hardware_speaks_of_the_identity_that_signs() -> None:
    """A vendor's key in a token will do, whatever the owner's identity would be."""
    in_token = IdentitiesSettings(vendor=VendorIdentitySettings(key_store=StoreName.PKCS11))
    of_vendor = Demands.of(SigningSettings(identity=SigningIdentity.VENDOR, require_hardware=True), 1)
    of_vendor.check_stores(in_token)

    with pytest.raises(KeyRefused, match=r"identity\.vendor"):
        of_vendor.check_stores(IdentitiesSettings())
    with pytest.raises(KeyRefused, match=r"identity\.signing"):
        Demands.of(SigningSettings(require_hardware=True), 1).check_stores(in_token)


def test_no_key_in_memory_is_made_for_an_identity_that_does_not_sign() -> None:
    in_memory = IdentitiesSettings(signing=SigningIdentitySettings(key_store=StoreName.MEMORY))
    enroll = EnrollSettings(device=DeviceSettings(serial_number="CT-000123"), identity=in_memory)
    for identity, made in ((SigningIdentity.SIGNING, [SIGNING]), (SigningIdentity.VENDOR, [])):
        settings = AgentSettings(signing=SigningSettings(identity=identity))
        assert list(_settings_in_memory(Configuration(enroll, settings))) == made


@pytest.mark.parametrize("name", ["device", "derivation", "idevid", "owner", ""])
def test_no_other_identity_can_be_named(scanner: Scanner, name: str) -> None:
    with pytest.raises(ConfigurationError, match="identity"):
        load(scanner.configure(signing={"identity": name}), StateFiles())


def test_the_owner_signs_where_nothing_is_said(scanner: Scanner) -> None:
    assert load(scanner.configure(), StateFiles()).agent.signing.identity == "signing"
