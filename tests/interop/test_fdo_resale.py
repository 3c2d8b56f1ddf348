"""A scanner that was sold: who sold it has kept its voucher, and answers like who has bought it (ADR 33).

Both prove themselves by a voucher that holds. So the person at the scanner decides, by the fingerprint on paper, and
nobody else: `[fdo] approval = "reowning"`, which is the default.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from enroll.clock import Clock, SystemClock
from enroll.device_facts import device_facts, lost_key_files
from enroll.device_state import DeviceState, standing
from enroll.errors import ConfigurationError
from enroll.evaluation.ca import EvaluationCa
from enroll.evaluation.fdo.http_server import FdoServer
from enroll.evaluation.fdo.owner import Owner, OwnerRun
from enroll.evaluation.fdo.rendezvous import Rendezvous, RendezvousTerms
from enroll.evaluation.fdo.sessions import Services
from enroll.evaluation.fdo.to0 import Registration
from enroll.evaluation.fdo.vouchers import Vouchers
from enroll.fdo.messages import MessageType
from enroll.fdo.owner_policy import MOST_WAITING, OwnerPolicy, OwnerRefused
from enroll.fdo.rendezvous import encode_rendezvous
from enroll.fdo.voucher import Voucher
from enroll.flows.base import Pending
from enroll.flows.settings import FdoApproval
from enroll.identity import Generation
from enroll.owner_release import OwnerRelease
from enroll.statefile import StateFiles
from tests.support.fdo.parties import Parties, address_of, directive_of, http_channel, lengthened, party_keys, sold
from tests.support.fdo.scanner import FdoScanner

SELLER, BUYER = "seller", "buyer"


@dataclass(frozen=True)
class Party:
    """One of the two that say that the scanner is theirs.

    Args:
        owner: Its owner server.
        ca: Issues its certificates.
        voucher: By which it proves itself.
    """

    owner: Owner
    ca: EvaluationCa
    voucher: Voucher

    @property
    def fingerprint(self) -> str:
        """What it gives on paper."""
        return self.voucher.verify().owner.fingerprint

    def register(self) -> None:
        """Once more, which a rendezvous server allows at any time."""
        self.owner.register(self.voucher)


@dataclass(frozen=True)
class Sale:
    """A scanner that its owner has released.

    Args:
        scanner: It.
        parties: Who sold it, and who bought it.
    """

    scanner: FdoScanner
    parties: dict[str, Party]

    @property
    def policy(self) -> OwnerPolicy:
        """That of the scanner, as `scanseal fdo approve` has it."""
        context = self.scanner.scanner.context
        return OwnerPolicy(context.settings.fdo, self.scanner.directory, context.files, context.clock)

    def state(self) -> DeviceState:
        """What `scanseal status` says of the scanner as a whole."""
        scanner = self.scanner.scanner
        return standing(device_facts(scanner.identities, lost_key_files(scanner.identities, scanner.stores))).state

    def waiting(self) -> set[str]:
        """The fingerprints of the vouchers of those who have proved themselves, and wait."""
        return {each.voucher for each in self.policy.candidates() if not each.is_approved}

    def check_waits(self, *names: str) -> None:
        """One run ends with a scanner that is nobody's, and these wait for approval."""
        self.scanner.wait()
        before = self.scanner.credential
        assert isinstance(self.scanner.onboard(), Pending)
        assert (self.scanner.credential, before.owner, before.was_owned) == (before, None, True)
        assert self.waiting() == {self.parties[name].voucher.verify().fingerprint for name in names}

    def check_taken_by(self, name: str) -> None:
        """One run ends with a scanner that is theirs."""
        self.scanner.wait()
        party, generation = self.parties[name], self.scanner.onboard()
        assert isinstance(generation, Generation)
        generation.certificate.verify_directly_issued_by(party.ca.certificate)
        owner = self.scanner.credential.owner
        assert owner is not None
        assert owner.fingerprint == party.fingerprint


@contextmanager
def rendezvous_server(clock: Clock) -> Iterator[str]:
    """One more; its address."""
    rendezvous = Rendezvous(RendezvousTerms(), clock)
    runs = {MessageType.TO0_HELLO: rendezvous.begin_to0, MessageType.TO1_HELLO_RV: rendezvous.begin_to1}
    with FdoServer(Services(runs, clock)) as server:
        yield server.url


@contextmanager
def sale(folder: Path, asked_first: str = "", *, is_disabled: bool = False, **terms: Any) -> Iterator[Sale]:
    """Up to the release; then both have registered.

    Args:
        folder: Of all of them.
        asked_first: Whose rendezvous server the scanner asks first; empty where both use the same one.
        is_disabled: Whether who sells it has disabled it before.
        terms: Of `OwnerTerms`, for both.
    """
    with (
        Parties(folder, **terms) as parties,
        rendezvous_server(parties.clock) as sellers,
        parties.next_owner(folder / BUYER, BUYER, **terms) as (buyer, buyer_ca),
    ):
        urls = {"": [parties.url], SELLER: [sellers, parties.url], BUYER: [parties.url, sellers]}[asked_first]
        rendezvous = encode_rendezvous([directive_of(url) for url in urls])
        manufacturer = parties.manufacturer
        parties.manufacturer = replace(manufacturer, terms=replace(manufacturer.terms, rendezvous=rendezvous))
        reuse = bool(terms.get("reuse"))
        scanner = FdoScanner(folder / "scanner", approval=FdoApproval.REOWNING, credential_reuse=reuse)
        scanner.initialize(parties.http_channel())
        assert isinstance(scanner.onboard(), Generation)

        guid = scanner.credential.guid
        kept = parties.owner.vouchers.find(guid)
        made_out = sold(parties.owner, guid, party_keys(BUYER))
        if is_disabled:
            scanner.scanner.identities.owner_file.disable(0, "it is for sale", parties.clock.now())
        assert OwnerRelease(scanner.scanner.context).run() == ()
        buyer.take(made_out)
        if asked_first:
            registration = Registration(lambda: http_channel(sellers), (address_of(parties.url),))
            parties.owner = replace(parties.owner, registration=registration)
        parties.owner.take(kept)
        both = {SELLER: Party(parties.owner, parties.ca, kept), BUYER: Party(buyer, buyer_ca, made_out)}
        yield Sale(scanner, both)


@pytest.mark.parametrize("is_disabled", [False, True], ids=["enabled", "disabled before"])
def test_a_sale_leads_from_owned_to_unowned_and_to_owned_by_the_next(tmp_path: Path, *, is_disabled: bool) -> None:
    """The disabling was the word of the owner that went (ADR 37)."""
    with sale(tmp_path, SELLER, is_disabled=is_disabled) as made:
        owner_file = made.scanner.scanner.identities.owner_file
        assert made.state() is DeviceState.UNOWNED
        made.check_waits(SELLER, BUYER)
        assert made.state() is DeviceState.UNOWNED
        released = owner_file.read()
        assert released is not None
        assert not released.is_owned

        made.policy.approve(made.parties[BUYER].fingerprint)
        made.check_taken_by(BUYER)

        assert made.state() is DeviceState.OWNED
        record = owner_file.read()
        assert record is not None
        assert (record.is_owned, record.is_disabled) == (True, False)


@pytest.mark.parametrize("asked_first", [SELLER, BUYER])
def test_both_wait_until_somebody_approves(asked_first: str, tmp_path: Path) -> None:
    """Neither of them keeps the scanner from asking the other one."""
    with sale(tmp_path, asked_first) as made:
        guid = made.scanner.credential.guid
        for _ in range(3):
            made.check_waits(SELLER, BUYER)

        # A device that does not go on before message 64 costs nobody the voucher.
        assert all(party.owner.vouchers.has(guid) for party in made.parties.values())


@pytest.mark.parametrize("asked_first", [SELLER, BUYER])
@pytest.mark.parametrize(("approved", "other"), [(SELLER, BUYER), (BUYER, SELLER)])
def test_who_is_approved_gets_it_and_keeps_it(approved: str, other: str, asked_first: str, tmp_path: Path) -> None:
    """Whoever is asked first, and although the other one goes on to answer."""
    with sale(tmp_path, asked_first) as made:
        guid = made.scanner.credential.guid
        made.check_waits(SELLER, BUYER)
        made.policy.approve(made.parties[approved].fingerprint)

        made.check_taken_by(approved)

        assert made.scanner.credential.guid != guid
        assert made.policy.candidates() == ()
        made.parties[other].register()
        made.check_taken_by(approved)
        assert made.parties[other].owner.vouchers.has(guid)


@pytest.mark.parametrize("asked_first", [SELLER, BUYER])
def test_who_is_not_approved_stays_refused_where_its_voucher_stays_good(asked_first: str, tmp_path: Path) -> None:
    """FDO 1.1, 5.5.7: with a credential that is used again both are asked for the same device for ever."""
    with sale(tmp_path, asked_first, reuse=True) as made:
        guid = made.scanner.credential.guid
        made.check_waits(SELLER, BUYER)
        made.policy.approve(made.parties[BUYER].fingerprint)

        for _ in range(2):
            made.check_taken_by(BUYER)
            assert made.scanner.credential.guid == guid

        made.parties[BUYER].owner.vouchers.remove(guid)
        before = made.scanner.credential
        made.scanner.wait()
        with pytest.raises(OwnerRefused, match=made.parties[SELLER].fingerprint):
            made.scanner.onboard()
        assert made.scanner.credential == before
        assert made.policy.candidates() == ()


def test_a_seller_that_comes_between_the_two_credentials_does_not_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where message 71 is lost the scanner looks for an owner by the old credential, too, which the seller knows."""
    with sale(tmp_path, SELLER) as made:
        made.check_waits(SELLER, BUYER)
        made.policy.approve(made.parties[BUYER].fingerprint)

        def lost(*_: object) -> bytes:
            raise ConnectionError("cut")

        done = OwnerRun.done
        with monkeypatch.context() as patched:
            patched.setattr(OwnerRun, "done", lambda run, body: lost(done(run, body)))
            made.scanner.wait()
            made.scanner.onboard()
        assert made.scanner.credential.owner is None
        assert made.scanner.credentials.pending() is not None

        made.check_taken_by(BUYER)
        assert made.scanner.credentials.pending() is None


def test_a_seller_that_takes_the_place_at_the_rendezvous_server_only_delays(tmp_path: Path) -> None:
    """FDO 1.1, 5.3: whoever registered last is the one that is known there."""
    with sale(tmp_path) as made:
        seller, buyer = made.parties[SELLER], made.parties[BUYER]
        made.check_waits(SELLER)
        with pytest.raises(ConfigurationError, match="No owner that waits"):
            made.policy.approve(buyer.fingerprint)

        buyer.register()
        made.check_waits(SELLER, BUYER)
        made.policy.approve(buyer.fingerprint)
        seller.register()
        made.check_waits(SELLER)  # and that it has come again takes the approval from nobody
        buyer.register()
        made.check_taken_by(BUYER)


def with_copies(seller: Party, folder: Path, running: ExitStack) -> Party:
    """The seller, with a server for each voucher that it has made of its own; one registration names all of them."""
    addresses, length = [], len(seller.voucher.entries)
    for more in range(1, MOST_WAITING + 1):
        vouchers = Vouchers(folder / f"copy-{more}", StateFiles())
        owner = replace(seller.owner, vouchers=vouchers, registration=None)
        owner.take(lengthened(seller.voucher, owner.keys, length + more))
        services = Services({MessageType.TO2_HELLO_DEVICE: owner.begin}, SystemClock())
        addresses.append(address_of(running.enter_context(FdoServer(services)).url))
    registration = seller.owner.registration
    assert registration is not None
    return replace(seller, owner=replace(seller.owner, registration=replace(registration, addresses=tuple(addresses))))


@pytest.mark.parametrize("asked_first", [SELLER, BUYER])
def test_a_seller_with_many_vouchers_does_not_displace_the_buyer(asked_first: str, tmp_path: Path) -> None:
    """It can make its copy out to itself as often as it likes, and each of them holds."""
    with sale(tmp_path, asked_first) as made, ExitStack() as running:
        with_copies(made.parties[SELLER], tmp_path, running).register()
        for _ in range(2):
            made.scanner.wait()
            assert isinstance(made.scanner.onboard(), Pending)
        assert len(made.waiting()) == 2

        made.policy.approve(made.parties[BUYER].fingerprint)
        made.check_taken_by(BUYER)
