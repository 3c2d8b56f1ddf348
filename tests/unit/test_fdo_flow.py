"""FIDO Device Onboard as a flow: what is kept when it is cut off or goes wrong (ADR 33, facts of FDO 1.1, 3.7 and 5.5).

The scanner is that of the product, the owner the one for evaluation, both in this process.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from enroll.certificates import pem, read_certificates
from enroll.csr import CertificateRequest, Usage, build
from enroll.enroller import Enroller, flow_of
from enroll.errors import CertificateRefused, ConfigurationError, EnrollmentRefused, ScansealError, StateError
from enroll.evaluation.fdo.owner import OwnerRun
from enroll.evaluation.fdo.sessions import Reply
from enroll.fdo.hand_over import anchors_file
from enroll.fdo.messages import MessageType
from enroll.fdo.owner_policy import AWAITED, OwnerPolicy
from enroll.fdo.rendezvous import Directive, RendezvousProtocol, encode_rendezvous
from enroll.flows.base import FlowContext, OfferedEnrollment, Pending, PlannedExchange
from enroll.flows.fdo import FdoFlow
from enroll.flows.settings import FdoApproval, FlowName
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.issue import planned
from enroll.journal import Step
from enroll.keystore import KeyStores
from enroll.keystore.base import Protection
from enroll.statefile import StateFiles
from tests.support.fdo.parties import Parties, party_keys, sold
from tests.support.fdo.scanner import FdoScanner
from tests.support.pki import HospitalCa, new_key
from tests.unit.test_issue_power_cuts import FailingFiles, PowerCut

DEVICE, SIGNING = IdentityName.DEVICE, IdentityName.SIGNING
M = MessageType


class Owner(Parties):
    """All servers; keeps the numbers of the messages that come."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.heard: list[int] = []
        answer = self.services.answer

        def listening(number: int, token: str, body: bytes) -> Reply:
            self.heard.append(number)
            return answer(number, token, body)

        self.services.answer = listening  # type: ignore[method-assign]

    @property
    def guids(self) -> list[bytes]:
        """The devices that the owner knows."""
        return [voucher.header.guid for voucher in self.owner.vouchers.all()]

    def forget(self) -> None:
        """Nobody knows any device any more, as where vouchers without an entry are not registered."""
        for guid in self.guids:
            self.owner.vouchers.remove(guid)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    with Owner(tmp_path_factory.mktemp("owner")) as parties:
        yield parties


@pytest.fixture
def owner(running: Owner) -> Iterator[Owner]:
    runs = dict(running.runs)
    running.forget()
    running.heard.clear()
    yield running
    running.runs.update(runs)


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cuts of these tests are between operations, so nothing has to reach the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def made(folder: Path, owner: Owner) -> FdoScanner:
    """A scanner from its factory."""
    scanner = FdoScanner(folder)
    scanner.initialize(owner.channel())
    owner.heard.clear()
    return scanner


@pytest.fixture
def scanner(tmp_path: Path, owner: Owner) -> FdoScanner:
    return made(tmp_path / "scanner", owner)


def assert_onboarded(scanner: FdoScanner, owner: Owner) -> Generation:
    """One matching pair, one credential, which the owner knows; and no key that nothing names."""
    current = scanner.scanner.matching_pair(DEVICE)
    assert current is not None
    assert current.flow == FlowName.FDO
    current.certificate.verify_directly_issued_by(owner.ca.certificate)
    assert scanner.credentials.pending() is None
    assert scanner.credential.owner is not None
    assert owner.guids == [scanner.credential.guid]
    assert scanner.scanner.identities.journal(DEVICE).read() is None
    assert_no_orphans(scanner)
    return current


def assert_no_orphans(scanner: FdoScanner) -> None:
    identities, credential = scanner.scanner.identities, scanner.credential
    named = {credential.key_uri, credential.secret_uri}
    named |= {identities.key_uri(DEVICE, number) for number in identities.generations(DEVICE)}
    pending = identities.journal(DEVICE).read()
    named |= {pending.key_uri} if pending else set()
    assert set(scanner.scanner.stores.list()) <= named


def until_onboarded(scanner: FdoScanner) -> Generation:
    """As the timer does, with the waits left out."""
    answers = []
    for _ in range(3):
        scanner.wait()
        answers.append(scanner.onboard())
        if isinstance(answers[-1], Generation):
            return answers[-1]
    raise AssertionError(answers)


# --- it goes well


def test_onboarding_ends_with_the_device_identity(
    scanner: FdoScanner, owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    old = scanner.credential
    with caplog.at_level(logging.INFO, "enroll"):
        assert isinstance(scanner.onboard(), Generation)

    assert_onboarded(scanner, owner)
    new = scanner.credential
    assert new.guid != old.guid
    assert (new.key_uri, new.secret_uri) == (old.key_uri, old.secret_uri)
    assert read_certificates(anchors_file(scanner.scanner.settings.state_directory), StateFiles()) == (
        owner.ca.certificate,
    )
    assert new.owner is not None
    told = [
        f"A rendezvous server is asked: {owner.url}",
        f"The owner is asked: {owner.url}",
        f"The owner has proved itself: its key has the fingerprint {new.owner.fingerprint}",
        "A certificate has come.",
    ]
    assert [line for line in caplog.messages if line in told] == told
    assert M.ERROR not in owner.heard


def test_the_owner_onboards_its_scanner_again(scanner: FdoScanner, owner: Owner) -> None:
    """What the owner issued before is renewed; keys that are no longer needed go."""
    generations = [until_onboarded(scanner) for _ in range(3)]

    assert [generation.number for generation in generations] == [1, 2, 3]
    assert_onboarded(scanner, owner)
    names = [generation.key_uri for generation in generations]
    assert generations[0].key_uri not in scanner.scanner.stores.list()
    assert set(names[1:]) <= set(scanner.scanner.stores.list())


# --- it is cut off


def failing(scanner: FdoScanner, files: StateFiles) -> None:
    """One run on a disk that fails."""
    settings = scanner.scanner.settings
    stores = KeyStores(settings.keystore, settings.state_directory, files)
    identities = IdentityStore(settings.state_directory, files)
    with Enroller(FlowContext(settings, stores, identities, scanner.scanner.clock, files)) as enroller:
        enroller.enroll(DEVICE, FlowName.FDO)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_power_cut_at_any_moment_ends_onboarded(tmp_path: Path, owner: Owner, *, after: bool) -> None:
    """Both credentials are there from message 70 to message 71, and either of them may be the one that is known."""
    for operation in itertools.count(1):
        owner.forget()
        scanner = made(tmp_path / f"trial-{operation}", owner)
        try:
            failing(scanner, FailingFiles(operation, PowerCut(), after=after))
        except PowerCut:
            until_onboarded(scanner)
            assert_onboarded(scanner, owner)
        else:
            break
    assert operation > 15


def test_a_full_disk_at_any_moment_ends_onboarded(tmp_path: Path, owner: Owner) -> None:
    full = StateError("The disk is full.", remedy="Free some space.")
    for operation in itertools.count(1):
        owner.forget()
        scanner = made(tmp_path / f"trial-{operation}", owner)
        files = FailingFiles(operation, full, after=False)
        try:
            failing(scanner, files)
        except ScansealError:
            until_onboarded(scanner)
        if files.left > 0:
            break
        assert_onboarded(scanner, owner)
    assert operation > 15


def lost(*_: object) -> Any:
    raise ConnectionError("The cable is out.")


def losing(owner: Owner, method: str) -> None:
    """The owner does all of it, and its answer is lost."""

    def begin() -> OwnerRun:
        run = owner.owner.begin()
        real: Callable[[bytes], bytes] = getattr(run, method)

        setattr(run, method, lambda body: lost(real(body)))
        return run

    owner.runs[M.TO2_HELLO_DEVICE] = begin


def interrupted(owner: Owner) -> None:
    """Message 70 does not reach the owner."""

    def begin() -> OwnerRun:
        run = owner.owner.begin()
        run.done = lost  # type: ignore[assignment, method-assign]
        return run

    owner.runs[M.TO2_HELLO_DEVICE] = begin


def found_again(owner: Owner) -> None:
    owner.runs[M.TO2_HELLO_DEVICE] = owner.owner.begin


@pytest.mark.parametrize("method", ["hello_device", "next_entry", "prove_device", "service_info_ready", "service_info"])
def test_an_answer_that_is_lost_before_the_end_changes_nothing(scanner: FdoScanner, owner: Owner, method: str) -> None:
    before, guids = scanner.credential, owner.guids
    losing(owner, method)
    assert isinstance(scanner.onboard(), Pending)

    assert (scanner.credential, scanner.credentials.pending(), owner.guids) == (before, None, guids)
    found_again(owner)
    until_onboarded(scanner)
    assert_onboarded(scanner, owner)


def test_between_70_and_71_both_credentials_are_kept(scanner: FdoScanner, owner: Owner) -> None:
    before = scanner.credential
    losing(owner, "done")
    answer = scanner.onboard()

    assert isinstance(answer, Pending)
    pending = scanner.credentials.pending()
    assert pending is not None
    assert pending.owner is not None
    assert scanner.credential == before
    assert owner.guids == [pending.guid]
    assert scanner.scanner.identities.current(DEVICE) is None


def test_where_nobody_knows_either_credential_what_came_is_used(scanner: FdoScanner, owner: Owner) -> None:
    """The certificate came from the owner, and nobody will give it again. Both credentials stay."""
    before = scanner.credential
    losing(owner, "done")
    scanner.onboard()
    owner.forget()
    pending = scanner.credentials.pending()
    assert pending is not None
    assert pending.owner is not None
    # The power went before they were written: the renewal needs them nevertheless.
    anchors = anchors_file(scanner.scanner.settings.state_directory)
    anchors.unlink()

    generation = until_onboarded(scanner)

    assert generation.certificate in pending.owner.issued
    assert read_certificates(anchors, StateFiles()) == pending.owner.anchors
    assert (scanner.credential, scanner.credentials.pending()) == (before, pending)
    assert scanner.scanner.matching_pair(DEVICE) == generation
    assert_no_orphans(scanner)


def test_what_came_is_not_used_as_long_as_somebody_may_know_better(scanner: FdoScanner, owner: Owner) -> None:
    losing(owner, "done")
    scanner.onboard()
    rendezvous = owner.runs[M.TO1_HELLO_RV]
    owner.runs[M.TO1_HELLO_RV] = lost
    scanner.wait()
    assert isinstance(scanner.onboard(), Pending)
    owner.runs[M.TO1_HELLO_RV] = rendezvous
    found_again(owner)

    until_onboarded(scanner)
    assert_onboarded(scanner, owner)


@pytest.mark.parametrize("reaches_the_owner", [False, True])
def test_the_first_success_drops_the_other_credential(
    scanner: FdoScanner, owner: Owner, *, reaches_the_owner: bool
) -> None:
    """Message 70 came, or did not come: the owner knows the pending credential, or the current one."""
    if reaches_the_owner:
        losing(owner, "done")
    else:
        interrupted(owner)
    before = scanner.credential
    scanner.onboard()
    assert (before.guid in owner.guids) is not reaches_the_owner
    assert scanner.credentials.pending() is not None
    found_again(owner)

    until_onboarded(scanner)
    assert_onboarded(scanner, owner)


def test_an_owner_whose_session_lost_its_end_is_the_owner(scanner: FdoScanner, owner: Owner, tmp_path: Path) -> None:
    """Its certificate may be in use, so another one, or one before it, has to wait for the release."""
    interrupted(owner)
    scanner.onboard()
    with owner.next_owner(tmp_path / "buyer", "buyer") as (buyer, ca):
        buyer.take(sold(owner.owner, scanner.credential.guid, party_keys("buyer")))
        scanner.wait()
        with pytest.raises(EnrollmentRefused, match="another owner"):
            scanner.onboard()

        scanner.release()
        until_onboarded(scanner).certificate.verify_directly_issued_by(ca.certificate)


# --- it goes wrong


def test_a_certificate_that_does_not_pass_ends_the_session_and_nothing_is_kept(
    scanner: FdoScanner, owner: Owner, tmp_path: Path
) -> None:
    """It leads to another CA than the one that is configured."""
    path = tmp_path / "anchor.pem"
    path.write_bytes(pem([HospitalCa().certificate]))
    scanner.configure(anchor_file=path)
    before, guids = scanner.credential, owner.guids
    keys = scanner.scanner.stores.list()

    with pytest.raises(CertificateRefused):
        scanner.onboard()

    assert owner.heard[-1] == M.ERROR
    assert M.TO2_DONE not in owner.heard
    assert (scanner.credential, scanner.credentials.pending(), owner.guids) == (before, None, guids)
    assert scanner.scanner.identities.current(DEVICE) is None
    assert not anchors_file(scanner.scanner.settings.state_directory).exists()
    assert scanner.scanner.stores.list() == keys


def test_a_ca_that_says_no_costs_the_key(scanner: FdoScanner, owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> x509.Certificate:
        raise EnrollmentRefused("This device is not on the list.")

    monkeypatch.setattr(owner.ca, "issue", refuses)
    before, keys = scanner.credential, scanner.scanner.stores.list()

    with pytest.raises(EnrollmentRefused, match="The CA refused"):
        scanner.onboard()

    assert owner.heard[-1] == M.ERROR
    assert (scanner.credential, scanner.credentials.pending()) == (before, None)
    assert scanner.scanner.stores.list() == keys
    assert scanner.scanner.identities.journal(DEVICE).read() is None


def test_an_owner_that_may_not_is_told_before_the_device_proves_itself(scanner: FdoScanner, owner: Owner) -> None:
    scanner.configure(owner_fingerprints=("0" * 64,))
    before = scanner.credential
    with pytest.raises(EnrollmentRefused) as raised:
        scanner.onboard()

    assert raised.value.code == "owner-refused"
    assert M.TO2_PROVE_DEVICE not in owner.heard
    assert owner.heard[-1] == M.ERROR
    assert scanner.credential == before
    # The request is kept for the right owner.
    pending = scanner.scanner.identities.journal(DEVICE).read()
    assert pending is not None
    assert pending.step is Step.SENT
    scanner.configure(owner_fingerprints=())
    assert until_onboarded(scanner).key_uri == pending.key_uri


def test_an_owner_that_needs_approval_waits_for_it(scanner: FdoScanner, owner: Owner) -> None:
    scanner.configure(approval=FdoApproval.ALWAYS)
    answer = scanner.onboard()

    assert isinstance(answer, Pending)
    assert answer.reason.startswith(AWAITED)
    assert answer.until <= scanner.scanner.clock.now()
    assert M.TO2_PROVE_DEVICE not in owner.heard
    policy = OwnerPolicy(scanner.scanner.settings.fdo, scanner.directory, StateFiles(), scanner.scanner.clock)
    (waiting,) = policy.candidates()
    policy.approve(waiting.voucher)
    until_onboarded(scanner)
    assert_onboarded(scanner, owner)
    assert policy.candidates() == ()


# --- what it is for


def test_only_the_device_identity_comes_this_way(scanner: FdoScanner) -> None:
    with pytest.raises(ConfigurationError, match="signing does not come by FIDO"):
        FdoFlow.connect(SIGNING, scanner.scanner.context)


def test_without_a_credential_another_way_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        FdoFlow.connect(DEVICE, FdoScanner(tmp_path / "scanner").scanner.context)
    assert raised.value.code == "fdo-not-initialized"
    assert "signing" not in raised.value.what_next


def test_a_key_in_memory_gets_no_certificate(scanner: FdoScanner) -> None:
    request = CertificateRequest.for_device(scanner.scanner.settings.device, Usage.DEVICE)
    key = new_key()
    signed = build(key, request)
    offered = OfferedEnrollment(signed, request, key.public_key(), Protection.MEMORY)

    with pytest.raises(ConfigurationError, match="in memory"):
        FdoFlow.connect(DEVICE, scanner.scanner.context).enroll(offered)


def test_the_plan_names_every_address_in_order_and_sends_nothing(scanner: FdoScanner, owner: Owner) -> None:
    directives = [
        Directive(("rv.example", "192.0.2.1"), 8080, RendezvousProtocol.HTTP),
        Directive((), delay=60),
        Directive(("rv2.example",)),
    ]
    scanner.credentials.commit(replace(scanner.credential, rendezvous=encode_rendezvous(directives)))

    found = plan(scanner)

    assert [exchange.to for exchange in found] == [
        "http://rv.example:8080",
        "http://192.0.2.1:8080",
        "https://rv2.example",
        "http://rv2.example",
        "the owner, wherever that is told to be",
    ]
    assert scanner.credential.guid.hex() in found[0].what
    assert "TO2" in found[-1].what
    assert "serialNumber=CT-000123" in found[-1].what
    assert {exchange.proof for exchange in found} == {"the FDO device key"}
    assert owner.heard == []


def test_the_plan_of_a_bypass_is_the_owner(scanner: FdoScanner) -> None:
    directive = Directive(("owner.example",), 443, RendezvousProtocol.HTTPS, bypass=True)
    scanner.credentials.commit(replace(scanner.credential, rendezvous=encode_rendezvous([directive])))
    (exchange,) = plan(scanner)

    assert exchange.to == "https://owner.example:443"
    assert "simpleenroll" in exchange.what


def plan(scanner: FdoScanner) -> tuple[PlannedExchange, ...]:
    context = scanner.scanner.context
    with FdoFlow.connect(DEVICE, context) as flow:
        return planned(DEVICE, context.settings, identities=context.identities, flow=flow)


def test_without_a_word_of_the_owner_the_renewal_has_to_be_configured(scanner: FdoScanner) -> None:
    until_onboarded(scanner)

    with pytest.raises(ConfigurationError, match="renews nothing"):
        flow_of(DEVICE, scanner.scanner.settings, scanner.scanner.identities)
