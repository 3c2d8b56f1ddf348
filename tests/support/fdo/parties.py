"""Manufacturer, rendezvous server and owners that run in this process, for scanners and for Go devices.

    with Parties(folder) as parties:
        parties.url                          all of them, over HTTP on a port of this process
        parties.channel()                    the same without a socket

A test puts a hostile party in the place of a right one by `parties.runs[MessageType.TO2_HELLO_DEVICE] = ...`: each run
has a method for each message, which takes and gives bytes.
"""

from __future__ import annotations

import atexit
import ipaddress
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Self

from enroll.clock import Clock, SystemClock
from enroll.evaluation.authority import Authority
from enroll.evaluation.ca import EvaluationCa
from enroll.evaluation.fdo.certificate_sources import CaBehind, CertificateSource
from enroll.evaluation.fdo.fdo_csr import Enrollments
from enroll.evaluation.fdo.http_server import FdoServer
from enroll.evaluation.fdo.issued_certificates import IssuedCertificates
from enroll.evaluation.fdo.manufacturer import Manufacturer, ManufacturerTerms
from enroll.evaluation.fdo.owner import Owner, OwnerTerms
from enroll.evaluation.fdo.owner_module import MakeModules
from enroll.evaluation.fdo.owner_modules import OwnerModules
from enroll.evaluation.fdo.party_keys import PartyKeys
from enroll.evaluation.fdo.rendezvous import Rendezvous, RendezvousTerms
from enroll.evaluation.fdo.sessions import Run, Services
from enroll.evaluation.fdo.to0 import Registration
from enroll.evaluation.fdo.vouchers import Vouchers
from enroll.fdo.messages import ErrorMessage, MessageType
from enroll.fdo.rendezvous import Directive, OwnerAddress, RendezvousProtocol, TransportProtocol, encode_rendezvous
from enroll.fdo.transport import Channel, ErrorReceived, HttpChannel, Pins, Received, context_for
from enroll.fdo.voucher import Voucher, VoucherEntry
from enroll.statefile import StateFiles
from tests.support.fdo.vouchers import payload, sign_entry

TIMEOUT = 10.0  # seconds of one exchange


class DirectChannel:
    """The way to services of this process, without a socket."""

    where = "the services of this process"

    def __init__(self, services: Services) -> None:
        self._services = services
        self._token = ""
        self.reported: list[ErrorMessage] = []

    def exchange(self, number: MessageType, body: bytes) -> Received:
        reply = self._services.answer(number, self._token, body)
        if reply.number == MessageType.ERROR:
            raise ErrorReceived(ErrorMessage.read(reply.body), self.where)
        self._token = reply.token
        return Received(reply.number, reply.body)

    def report(self, error: ErrorMessage) -> None:
        self.reported.append(error)
        self._services.answer(MessageType.ERROR, self._token, error.encode())

    def close(self) -> None:
        """There is nothing to close."""


class Parties:
    """All parties at one address; runs in a `with` block.

    Args:
        folder: Where CAs lie.
        bypass: Whether devices go to the owner without asking the rendezvous server.
        make_modules: What the owner says to devices; a certificate of its own CA by default.
        clock: The time.
        terms: Of `OwnerTerms`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        bypass: bool = False,
        make_modules: MakeModules | None = None,
        clock: Clock | None = None,
        **terms: Any,
    ) -> None:
        self.clock = clock or SystemClock()
        self.runs: dict[MessageType, Callable[[], Run]] = {}
        self.services = Services(self.runs, self.clock)
        self.server = FdoServer(self.services)
        self.url = self.server.url
        self.ca = EvaluationCa.create_or_open(folder / "owner-ca", self.clock)
        self.rendezvous = Rendezvous(RendezvousTerms(), self.clock)
        self.owner = Owner(
            party_keys("owner"),
            Vouchers(folder / "vouchers", StateFiles()),
            make_modules or certificates_of(CaBehind(self.ca), folder),
            OwnerTerms(**terms),
            None if bypass else Registration(self.channel, (address_of(self.url),)),
        )
        self.manufacturer = Manufacturer(
            party_keys("manufacturer"),
            Authority(self.ca.directory / "root", StateFiles()),
            ManufacturerTerms(
                encode_rendezvous([directive_of(self.url, bypass=bypass)]), party_keys("owner").successor
            ),
            self._take,
            self.clock,
        )
        self.to2 = self.owner.begin()  # the one that began last
        self.runs |= {
            MessageType.DI_APP_START: self._begin_di,
            MessageType.TO0_HELLO: self.rendezvous.begin_to0,
            MessageType.TO1_HELLO_RV: self.rendezvous.begin_to1,
            MessageType.TO2_HELLO_DEVICE: self._begin_to2,
        }

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()

    def set_terms(self, **terms: Any) -> None:
        """From now on the owner does other things; see `OwnerTerms`."""
        self.owner = replace(self.owner, terms=replace(self.owner.terms, **terms))

    def channel(self) -> DirectChannel:
        """To all of them, without a socket."""
        return DirectChannel(self.services)

    def http_channel(self) -> Channel:
        """To all of them, over HTTP."""
        return http_channel(self.url)

    @contextmanager
    def next_owner(self, folder: Path, name: str, **terms: Any) -> Iterator[tuple[Owner, EvaluationCa]]:
        """Another owner, with keys and an address of its own, that registers at the same rendezvous server."""
        folder.mkdir()
        clock = self.clock
        ca = EvaluationCa.create_or_open(folder / "owner-ca", clock)
        runs: dict[MessageType, Callable[[], Run]] = {}
        with FdoServer(Services(runs, clock)) as server:
            registration = Registration(self.http_channel, (address_of(server.url),))
            modules = certificates_of(CaBehind(ca), folder)
            vouchers = Vouchers(folder / "vouchers", StateFiles())
            owner = Owner(party_keys(name), vouchers, modules, OwnerTerms(**terms), registration)
            runs[MessageType.TO2_HELLO_DEVICE] = owner.begin
            yield owner, ca

    # What the tests change is looked up when a run begins.
    def _take(self, voucher: Voucher) -> None:
        self.owner.take(voucher)

    def _begin_di(self) -> Run:
        return self.manufacturer.begin()

    def _begin_to2(self) -> Run:
        self.to2 = self.owner.begin()
        return self.to2


@cache
def party_keys(name: str) -> PartyKeys:
    """The same for the whole process: keys for RSA take their time."""
    return PartyKeys(_keys_folder() / name, name, SystemClock(), StateFiles())


@cache
def _keys_folder() -> Path:
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return Path(folder.name)


def sold(owner: Owner, guid: bytes, buyer: PartyKeys) -> Voucher:
    """The voucher of a device that an owner gives away, with an entry for the next one."""
    voucher = owner.vouchers.remove(guid)
    seller = voucher.verify().owner
    return voucher.extend(owner.keys.owning(seller).key, buyer.successor(seller))


def lengthened(voucher: Voucher, keys: PartyKeys, entries: int) -> Voucher:
    """A voucher with so many entries, all of the party that owns it already; `Voucher.extend` verifies it each time."""
    chain = voucher.verify()
    added: list[VoucherEntry] = []
    while len(chain.owners) <= entries:
        owner = chain.owner
        added.append(sign_entry(keys.owning(owner).key, owner.kind, payload(chain, keys.successor(owner))))
        chain = chain.extended(added[-1])
    return Voucher.make(voucher.header, voucher.hmac, voucher.device_chain, (*voucher.entries, *added))


def certificates_of(source: CertificateSource, folder: Path) -> MakeModules:
    """What an owner says whose certificates come from there."""
    issued = IssuedCertificates(folder / "issued", StateFiles())
    return OwnerModules(Enrollments(source, issued, logging.getLogger(__name__).info))


def http_channel(url: str) -> Channel:
    """To a server, over HTTP."""
    return HttpChannel(url, context_for(Pins()), SystemClock(), TIMEOUT)


def directive_of(url: str, *, bypass: bool = False) -> Directive:
    """The rendezvous directive that leads to `url`."""
    scheme, _, rest = url.partition("://")
    host, _, port = rest.rpartition(":")
    protocol = RendezvousProtocol.HTTPS if scheme == "https" else RendezvousProtocol.HTTP
    return Directive((host,), int(port), protocol, bypass)


def address_of(url: str) -> OwnerAddress:
    """The address of an owner at `url`."""
    scheme, _, rest = url.partition("://")
    host, _, port = rest.rpartition(":")
    protocol = TransportProtocol.HTTPS if scheme == "https" else TransportProtocol.HTTP
    return OwnerAddress(ipaddress.ip_address(host), None, int(port), protocol)
