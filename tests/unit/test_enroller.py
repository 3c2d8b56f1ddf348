"""Which flow brings the certificates of which identity."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from enroll.certificates import serial_text
from enroll.clock import SystemClock
from enroll.enroller import Enroller, flow_of
from enroll.errors import ConfigurationError, EnrollmentError, ServerUnreachable, StateError
from enroll.failure import Failures
from enroll.flows.base import Pending
from enroll.flows.settings import FdoRenewal, FdoSettings, FlowName
from enroll.flows.vendor import _proof
from enroll.identity import Generation, IdentityName
from enroll.issue import NotAsked
from enroll.journal import PendingRequest, Step
from enroll.renewal.ladder import RUNGS
from enroll.renewal.silence import Purpose, Silences
from enroll.revocation.lists import Revocation
from enroll.revocation.record import RevocationRecord, RevocationRecords, RevocationState
from enroll.statefile import StateFiles
from enroll.wanted import Wish
from tests.support.clocks import SteppedClock
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

    assert flow_of(SIGNING, scanner.settings, scanner.identities) is FlowName.CMP


def test_a_first_request_goes_on_as_it_began_and_otherwise_as_the_device_came(scanner: Scanner) -> None:
    assert flow_of(SIGNING, scanner.settings, scanner.identities) is FlowName.EST
    came_by(scanner, "acme", DEVICE)
    assert flow_of(SIGNING, scanner.settings, scanner.identities) is FlowName.ACME
    under_way(scanner, '{"flow": "cmp"}')
    assert flow_of(SIGNING, scanner.settings, scanner.identities) is FlowName.CMP


@pytest.mark.parametrize("asked", ["", "[]", "{", '{"flow": 1}', '{"flow": "pigeon"}'])
def test_a_request_under_way_that_says_nothing_sensible_stops_nothing(scanner: Scanner, asked: str) -> None:
    came_by(scanner, "acme", DEVICE)
    path = under_way(scanner, asked)
    assert flow_of(SIGNING, scanner.settings, scanner.identities) is FlowName.ACME
    path.write_text("{")
    assert flow_of(SIGNING, scanner.settings, scanner.identities) is FlowName.ACME


def test_a_way_that_this_version_does_not_know_is_named(scanner: Scanner) -> None:
    came_by(scanner, "pigeon")

    with pytest.raises(ConfigurationError, match="pigeon"):
        flow_of(SIGNING, scanner.settings, scanner.identities)


# --- the way after FIDO Device Onboard, which renews nothing (ADR 33)


def renewing_by(scanner: Scanner, renewal: FdoRenewal) -> Scanner:
    return scanner.restarted(fdo=FdoSettings(renewal=renewal))


def asks_for(scanner: Scanner, flow: str, *identities: IdentityName) -> None:
    for name in identities:
        scanner.identities.wanted(name).write(Wish(flow, scanner.clock.now()))


@pytest.mark.parametrize("renewal", [FlowName.EST, FlowName.ACME, FlowName.CMP])
def test_what_came_by_fdo_is_renewed_as_configured_and_the_others_follow(scanner: Scanner, renewal: FlowName) -> None:
    came_by(scanner, "fdo", DEVICE)
    scanner = renewing_by(scanner, FdoRenewal(renewal.value))

    assert flow_of(DEVICE, scanner.settings, scanner.identities) is renewal
    assert flow_of(SIGNING, scanner.settings, scanner.identities) is renewal
    asks_for(scanner, "fdo", SIGNING)
    assert flow_of(SIGNING, scanner.settings, scanner.identities) is renewal


def test_a_way_of_its_own_stays(scanner: Scanner) -> None:
    came_by(scanner, "fdo", DEVICE)
    came_by(scanner, "cmp", SIGNING)
    scanner = renewing_by(scanner, FdoRenewal.EST)

    assert flow_of(SIGNING, scanner.settings, scanner.identities) is FlowName.CMP
    asks_for(scanner, "acme", IdentityName.DERIVATION)
    assert flow_of(IdentityName.DERIVATION, scanner.settings, scanner.identities) is FlowName.ACME


def test_where_nobody_says_how_it_is_renewed_the_options_are_named(scanner: Scanner) -> None:
    came_by(scanner, "fdo", DEVICE)

    for identity in (DEVICE, SIGNING):
        with pytest.raises(ConfigurationError, match="renewal") as raised:
            flow_of(identity, scanner.settings, scanner.identities)
        assert raised.value.code == "renewal-not-configured"


def test_an_onboarding_under_way_goes_on_by_fdo(scanner: Scanner) -> None:
    """Whatever its renewal will be. It brings the device identity and no other."""
    scanner = renewing_by(scanner, FdoRenewal.EST)
    asks_for(scanner, "fdo", DEVICE, SIGNING)
    assert flow_of(DEVICE, scanner.settings, scanner.identities) is FlowName.FDO
    scanner.identities.wanted(DEVICE).write(None)
    request = PendingRequest(Step.SENT, "device-0", "", '{"flow": "fdo"}', scanner.clock.now())
    scanner.identities.journal(DEVICE).write(request)

    assert flow_of(DEVICE, scanner.settings, scanner.identities) is FlowName.FDO


# --- what is an answer of a server, and what is none


def test_a_proof_that_has_ended_is_no_answer_of_the_server(scanner: Scanner) -> None:
    """Nobody was asked: the server still counts as silent, and somebody may put right what is wrong here."""
    came_by(scanner, "est", DEVICE)
    url = "https://127.0.0.1:1"
    scanner = scanner.restarted(est=replace(scanner.settings.est, url=url))
    assert isinstance(scanner.clock, SteppedClock)
    scanner.clock.advance(timedelta(days=800))
    silences = Silences(scanner.settings.state_directory, scanner.files)
    silences.note(url, Purpose.ENROLLMENT, scanner.clock.now())

    for _ in range(len(RUNGS) + 2):
        with pytest.raises(StateError) as refused:
            Enroller(scanner.context).enroll(DEVICE, FlowName.EST)
        assert refused.value.code == "certificate-wrong-dates"
        assert refused.value.what_next == EnrollmentError.what_next

    assert silences.of(url, Purpose.ENROLLMENT) is not None
    failure = Failures(scanner.identities).last(DEVICE)
    assert failure is not None
    assert failure.in_a_row == len(RUNGS)


@pytest.mark.parametrize("named", [True, False], ids=["the CA named a moment", "the agent offers nothing"])
def test_a_run_that_asks_nobody_is_no_answer_of_the_server_either(
    scanner: Scanner, monkeypatch: pytest.MonkeyPatch, *, named: bool
) -> None:
    """Else a server that is away would be asked for the other identities as if it had answered (R6)."""
    now, url = scanner.clock.now(), "https://127.0.0.1:1"
    scanner = scanner.restarted(est=replace(scanner.settings.est, url=url))
    silences, failures = Silences(scanner.settings.state_directory, scanner.files), Failures(scanner.identities)
    flow = CaFlow(CA, scanner.clock, name="est")
    flow.answer = lambda _: Pending(now + timedelta(hours=5), "an operator looks at it")
    monkeypatch.setattr(Enroller, "_connect", lambda *_: nullcontext(flow))
    if not named:
        monkeypatch.setattr("enroll.enroller.issue", lambda *_, **__: NotAsked())
    failed = ServerUnreachable("No answer.", remedy="Wait.")

    def fail() -> None:
        silences.note(url, Purpose.ENROLLMENT, now)
        with pytest.raises(ServerUnreachable), failures.noted(DEVICE, "est", scanner.clock):
            raise failed

    fail()
    enroller = Enroller(scanner.context)
    assert isinstance(enroller.enroll(DEVICE, FlowName.EST), Pending if named else NotAsked)
    if named:  # this one did ask
        assert (silences.of(url, Purpose.ENROLLMENT), failures.last(DEVICE)) == (None, None)
        fail()
        assert isinstance(enroller.enroll(DEVICE, FlowName.EST), Pending)

    assert silences.of(url, Purpose.ENROLLMENT) is not None
    assert failures.last(DEVICE) is not None
    assert len(flow.asked) == (1 if named else 0)


@pytest.mark.parametrize("told", [True, False], ids=["the CA is told", "nobody is told"])
def test_a_server_that_hears_what_became_of_its_certificate_has_answered(
    scanner: Scanner, monkeypatch: pytest.MonkeyPatch, *, told: bool
) -> None:
    """After a cut, the confirmation may be all that is asked (RFC 9810 5.3.18)."""
    url = "https://127.0.0.1:1"
    scanner = scanner.restarted(cmp=replace(scanner.settings.cmp, url=url))
    silences = Silences(scanner.settings.state_directory, scanner.files)
    flow = CaFlow(CA, scanner.clock, name="cmp", hears_of_it=told)
    monkeypatch.setattr(Enroller, "_connect", lambda *_: nullcontext(flow))

    def no_answer(*_: object) -> bool:
        raise ServerUnreachable("No answer.", remedy="Wait.")

    with monkeypatch.context() as patch:
        patch.setattr(CaFlow, "confirm", no_answer)
        with pytest.raises(ServerUnreachable):
            Enroller(scanner.context).enroll(DEVICE, FlowName.CMP)
    silences.note(url, Purpose.ENROLLMENT, scanner.clock.now())
    assert isinstance(Enroller(scanner.context).enroll(DEVICE, FlowName.CMP), Generation)

    assert len(flow.asked) == 1
    assert (silences.of(url, Purpose.ENROLLMENT) is None) is told


def test_nor_is_a_factory_identity_that_is_revoked(tmp_path: Path) -> None:
    vendor = HospitalCa("Vendor CA")
    scanner = Scanner(settings(tmp_path), (vendor.certificate,))
    factory = scanner.issue(CaFlow(vendor, scanner.clock, name="vendor"), IdentityName.IDEVID)
    assert isinstance(factory, Generation)
    now = scanner.clock.now()
    known = RevocationRecord(factory.number, serial_text(factory.certificate), now, RevocationState.REVOKED)
    RevocationRecords(scanner.identities).write(factory, replace(known, revocation=Revocation(now)))
    came_by(scanner, "vendor", IdentityName.VENDOR)

    with pytest.raises(StateError) as refused:
        _proof(IdentityName.VENDOR, scanner.context)
    assert refused.value.code == "certificate-revoked"
