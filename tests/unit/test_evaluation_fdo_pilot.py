"""What the servers of a pilot do from time to time: take vouchers, and register devices again (FDO 1.1, 5.3)."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from enroll.evaluation.ca import EvaluationCa
from enroll.evaluation.fdo.certificate_sources import CaBehind
from enroll.evaluation.fdo.pilot import FIRST_OWNER, REGISTERED_AGAIN, TRIED_AGAIN, Pilot, PilotTerms
from enroll.evaluation.fdo.rendezvous import Rendezvous, RendezvousTerms
from enroll.fdo import cbor
from enroll.fdo.fault import ErrorCode
from enroll.fdo.hand_over import Renewal
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.messages import MessageType
from enroll.fdo.onboard import urls
from enroll.fdo.rendezvous import RendezvousProtocol, Variable, read_directives, read_redirect
from enroll.fdo.transport import ErrorReceived
from enroll.fdo.voucher import Voucher, VoucherHeader
from enroll.flows.settings import FlowName
from tests.support.clocks import SteppedClock
from tests.support.fdo.parties import Parties, http_channel
from tests.support.fdo.scanner import FdoScanner

CLINIC = "clinic"


@dataclass
class Site:
    """A pilot with two owners, the maker of a scanner, and what the pilot says."""

    pilot: Pilot
    maker: Parties
    clock: SteppedClock
    scanner: FdoScanner
    log: list[str]

    def voucher(self, rendezvous: cbor.Raw | None = None) -> Voucher:
        """The scanner comes from its factory, for the first owner."""
        delivered: list[Voucher] = []
        terms = replace(self.maker.manufacturer.terms, first_owner=self.pilot.owners[FIRST_OWNER].keys.successor)
        terms = replace(terms, rendezvous=rendezvous or terms.rendezvous)
        self.maker.manufacturer = replace(self.maker.manufacturer, terms=terms, deliver=delivered.append)
        self.scanner.initialize(self.maker.channel())
        (voucher,) = delivered
        return voucher

    def bring(self, voucher: Voucher) -> None:
        (self.pilot.incoming / "brought.pem").write_bytes(voucher.pem)
        self.pilot.attend()

    def sold(self, voucher: Voucher) -> Voucher:
        """The same, with an entry for the other owner."""
        seller, key = self.pilot.owners[FIRST_OWNER].keys, voucher.verify().owner
        return voucher.extend(seller.owning(key).key, self.pilot.owners[CLINIC].keys.successor(key))

    def owners(self, voucher: Voucher) -> set[str]:
        return {name for name, owner in self.pilot.owners.items() if owner.vouchers.has(voucher.header.guid)}

    @property
    def is_known(self) -> bool:
        """Whether the rendezvous server of the maker sends the scanner to the pilot."""
        try:
            redirect = self.scanner.find_owner(self.maker.channel())
        except ErrorReceived as error:
            if error.said.code != ErrorCode.NOT_FOUND:
                raise
            return False
        (address,) = read_redirect(redirect)
        return self.pilot.url == f"http://{address.ip}:{address.port}"


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> EvaluationCa:
    return EvaluationCa.create_or_open(tmp_path_factory.mktemp("ca"), SteppedClock())


@pytest.fixture
def site(tmp_path: Path, ca: EvaluationCa) -> Iterator[Site]:
    log: list[str] = []
    clock = SteppedClock()
    terms = PilotTerms(CaBehind(ca), Renewal(FlowName.EST, "https://est.hospital.example"), (CLINIC,))
    with (
        Parties(tmp_path / "maker", clock=clock) as maker,
        Pilot(tmp_path / "pilot", ("127.0.0.1", 0), terms, clock, log.append) as pilot,
    ):
        yield Site(pilot, maker, clock, FdoScanner(tmp_path / "scanner"), log)


def test_without_a_factory_nobody_becomes_a_device(tmp_path: Path, ca: EvaluationCa) -> None:
    """FDO 1.1, 5.2: DI proves nothing."""
    terms = PilotTerms(CaBehind(ca), Renewal(FlowName.EST, "https://est.hospital.example"), factory=False)
    with Pilot(tmp_path / "pilot", ("127.0.0.1", 0), terms, SteppedClock(), lambda _: None) as pilot:
        scanner = FdoScanner(tmp_path / "scanner")

        with pytest.raises(ErrorReceived):
            scanner.initialize(http_channel(pilot.url))

        assert list((tmp_path / "scanner").rglob("credential.*")) == []


def nobody() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def directive(port: int, *, of: Variable, only: Variable | None = None) -> list[cbor.Encodable]:
    values: list[tuple[Variable, cbor.Encodable]] = [
        (Variable.PROTOCOL, RendezvousProtocol.HTTP),
        (Variable.IP_ADDRESS, ipaddress.ip_address("127.0.0.1").packed),
        (of, port),
    ]
    variables: list[cbor.Encodable] = [[name, cbor.encode(value)] for name, value in values]
    return variables if only is None else [*variables, [only]]


def test_a_registration_that_failed_is_tried_again_after_minutes(site: Site) -> None:
    answer = site.maker.runs.pop(MessageType.TO0_HELLO)
    site.bring(site.voucher())
    assert not site.is_known
    assert [line for line in site.log if "is not registered" in line]
    site.maker.runs[MessageType.TO0_HELLO] = answer

    site.clock.sleep(TRIED_AGAIN - 1)
    site.pilot.attend()
    assert not site.is_known

    site.clock.sleep(1)
    site.pilot.attend()
    assert site.is_known


def test_a_registration_is_made_again_each_day(site: Site) -> None:
    """The rendezvous server may have been restarted."""
    site.bring(site.voucher())
    again = Rendezvous(RendezvousTerms(), site.clock)
    site.maker.runs |= {MessageType.TO0_HELLO: again.begin_to0, MessageType.TO1_HELLO_RV: again.begin_to1}

    site.clock.sleep(REGISTERED_AGAIN - 1)
    site.pilot.attend()
    assert not site.is_known

    site.clock.sleep(1)
    site.pilot.attend()
    assert site.is_known


def test_a_registration_is_made_again_when_it_ends(site: Site) -> None:
    """FDO 1.1, 5.3.4: the rendezvous server says how long it will know the owner."""
    site.maker.rendezvous.terms = replace(site.maker.rendezvous.terms, longest=3600)
    site.bring(site.voucher())

    site.clock.sleep(3600)
    assert not site.is_known
    site.pilot.attend()

    assert site.is_known


def test_one_that_cannot_be_registered_keeps_no_other_from_it(site: Site, tmp_path: Path) -> None:
    unreachable = cbor.Raw(cbor.encode([directive(nobody(), of=Variable.OWNER_PORT)]))
    lost = replace(site, scanner=FdoScanner(tmp_path / "lost"))
    terms = site.maker.manufacturer.terms
    site.bring(lost.voucher(unreachable))
    voucher = site.voucher(terms.rendezvous)

    site.bring(voucher)

    assert site.is_known


def test_owners_have_a_port_and_directives_of_their_own(site: Site) -> None:
    """FDO 1.1, 3.3.2: RVOwnerPort, RVOwnerOnly and RVDevOnly."""
    port = urlsplit(site.maker.url).port
    assert port
    rendezvous = [
        directive(nobody(), of=Variable.DEVICE_PORT, only=Variable.DEVICE_ONLY),
        directive(port, of=Variable.OWNER_PORT, only=Variable.OWNER_ONLY),
    ]
    site.bring(site.voucher(cbor.Raw(cbor.encode(rendezvous))))

    assert site.is_known
    assert not [line for line in site.log if "is not registered" in line]


def test_a_scanner_of_another_maker_comes_to_its_owner_without_that_one_from_then_on(site: Site) -> None:
    """FDO 1.1, 5.5.7: message 65 has the next RVInfo."""
    site.bring(site.voucher())

    credential = site.scanner.take_over(http_channel(site.pilot.url))

    (following,) = read_directives(cbor.read(credential.rendezvous.encoded))
    assert list(urls(following)) == [site.pilot.url]
    assert read_redirect(site.scanner.find_owner(http_channel(site.pilot.url)))


def test_a_voucher_that_is_sold_goes_from_one_owner_to_the_other(site: Site) -> None:
    voucher = site.voucher()
    site.bring(voucher)
    assert site.owners(voucher) == {FIRST_OWNER}

    site.bring(site.sold(voucher))

    assert site.owners(voucher) == {CLINIC}
    assert not list(site.pilot.incoming.iterdir())


def test_what_a_power_cut_left_of_a_sale_is_made_up_for(site: Site) -> None:
    """The buyer has it, the seller still, and the file has not been removed."""
    voucher = site.voucher()
    site.bring(voucher)
    sold = site.sold(voucher)
    site.pilot.owners[CLINIC].vouchers.add(sold)

    site.bring(sold)

    assert site.owners(voucher) == {CLINIC}


def test_a_voucher_that_the_buyer_cannot_take_stays_with_the_seller(site: Site) -> None:
    """It holds as far as its entries go, but one certificate of the device is not signed by the next."""
    right = site.voucher()
    chain = (right.device_chain[0], right.device_chain[0])
    certificates = b"".join(each.public_bytes(Encoding.DER) for each in chain)
    seller, key = site.pilot.owners[FIRST_OWNER].keys, right.verify().owner
    header = VoucherHeader.make(
        right.header.guid,
        right.header.rendezvous,
        right.header.device_info,
        seller.successor(key),
        Hash.of(HashAlgorithm.SHA256, certificates),
    )
    site.bring(right)

    site.bring(site.sold(Voucher.make(header, right.hmac, chain)))

    assert site.owners(right) == {FIRST_OWNER}
    assert [line for line in site.log if "brought.pem is not taken" in line]


def test_a_file_among_the_vouchers_that_is_none_stops_nothing(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pilot" / "owners" / FIRST_OWNER / "vouchers" / "letter.pem").write_text("Dear customer")

    site.bring(site.voucher())

    assert site.is_known
    assert "letter.pem" in caplog.text
