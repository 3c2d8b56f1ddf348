"""Manufacturer, rendezvous server and owners at one address, and what they keep. NOT FOR PRODUCTION.

    manufacturer/                    its keys, and the CA of its devices
    owners/<name>/keys/              the keys of an owner
    owners/<name>/vouchers/          one file for each device that it owns
    owners/<name>/certificates/      the newest certificate of each device
    incoming/                        vouchers that somebody puts there; a file goes when an owner has taken its voucher

A voucher that one owner here passes on to another one here is taken from the first. The file in `incoming` goes last,
so a power cut in between is made up for at the next start.

A device asks the rendezvous servers that stand in its voucher, which may be those of its maker; owners register there.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from enroll.clock import Clock
from enroll.errors import EnrollmentError, StateError
from enroll.evaluation.authority import Authority
from enroll.evaluation.fdo.certificate_sources import CertificateSource
from enroll.evaluation.fdo.fdo_csr import Enrollments
from enroll.evaluation.fdo.http_server import FdoServer
from enroll.evaluation.fdo.issued_certificates import IssuedCertificates
from enroll.evaluation.fdo.manufacturer import Manufacturer, ManufacturerTerms
from enroll.evaluation.fdo.owner import Owner, OwnerTerms
from enroll.evaluation.fdo.owner_modules import OwnerModules
from enroll.evaluation.fdo.party_keys import PartyKeys
from enroll.evaluation.fdo.rendezvous import Rendezvous, RendezvousTerms
from enroll.evaluation.fdo.sessions import Run, Services
from enroll.evaluation.fdo.to0 import Registration
from enroll.evaluation.fdo.vouchers import Vouchers
from enroll.fdo import cbor
from enroll.fdo.fault import ErrorCode, Fault
from enroll.fdo.hand_over import Renewal
from enroll.fdo.messages import MessageType
from enroll.fdo.onboard import urls
from enroll.fdo.rendezvous import (
    Directive,
    OwnerAddress,
    RendezvousProtocol,
    TransportProtocol,
    encode_rendezvous,
    read_directives,
)
from enroll.fdo.to2_messages import HelloDevice
from enroll.fdo.transport import Channel, HttpChannel, Pins, context_for
from enroll.fdo.voucher import FILE_LIMIT, Voucher
from enroll.foreign import printable
from enroll.keystore.base import PrivateKey
from enroll.statefile import StateFiles

FIRST_OWNER = "hospital"
WARNING = "NOT FOR PRODUCTION"
TIMEOUT = 10.0  # seconds of one exchange with a rendezvous server
REGISTERED_AGAIN = 24 * 60 * 60.0  # seconds; rendezvous servers forget
TRIED_AGAIN = 5 * 60.0  # seconds after a registration that failed, or is to end sooner

Log = Callable[[str], None]


@dataclass(frozen=True)
class PilotTerms:
    """How devices are taken over.

    Args:
        source: Has their certificates.
        renewal: Where those are renewed.
        owners: Names of owners beside the first one, and those that there are already.
        bypass: Whether devices come to their owner without asking a rendezvous server.
        factory: Whether the manufacturer answers. DI proves nothing: whoever reaches it may be any device.
    """

    source: CertificateSource
    renewal: Renewal
    owners: tuple[str, ...] = ()
    bypass: bool = False
    factory: bool = True


class Pilot:
    """All parties; their server runs in a `with` block.

    Args:
        directory: Where everything is kept; made where it is missing.
        address: Host and port to listen on, the host as an IP address; port 0 takes a free one.
        terms: How devices are taken over.
        clock: Dates what is made, and measures timeouts.
        log: Gets a line for everything that happens.

    Raises:
        OSError: The port cannot be used.
        StateError: What is kept cannot be written or is damaged.
    """

    def __init__(self, directory: Path, address: tuple[str, int], terms: PilotTerms, clock: Clock, log: Log) -> None:
        self.incoming = directory / "incoming"
        self._clock, self._log, self._files = clock, log, StateFiles()
        self._told: dict[str, str] = {}  # why a file in `incoming` is not taken
        self._register_at: dict[bytes, float] = {}  # by GUID, on the monotonic clock
        self._runs: dict[MessageType, Callable[[], Run]] = {}
        self._server = FdoServer(Services(self._runs, clock), None, address, log)
        host, port = address[0], int(self.url.rpartition(":")[2])
        self._address = OwnerAddress(ipaddress.ip_address(host), None, port, TransportProtocol.HTTP)
        self._rendezvous = encode_rendezvous([Directive((host,), port, RendezvousProtocol.HTTP, terms.bypass)])
        names = dict.fromkeys((FIRST_OWNER, *terms.owners, *self._owners_before(directory / "owners")))
        self.owners = {name: self._owner(directory / "owners" / name, name, terms) for name in names}
        self._files.make_directory(self.incoming)
        self._serve()
        if terms.factory:
            self._make_devices(directory / "manufacturer")

    @property
    def url(self) -> str:
        """Where all of them are."""
        return self._server.url

    def __enter__(self) -> Self:
        self._server.start()
        self._register_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def attend(self) -> None:
        """Do what is to be done from time to time: take vouchers that came in, register devices.

        Raises:
            StateError: What is kept cannot be written or read.
        """
        for name in sorted(self._files.names(self.incoming)):
            self._take(self.incoming / name)
        self._register_all()

    def _owners_before(self, directory: Path) -> list[str]:
        """Those of earlier runs: devices know them."""
        return [name for name in sorted(self._files.names(directory)) if self._files.exists(directory / name / "keys")]

    def _owner(self, directory: Path, name: str, terms: PilotTerms) -> Owner:
        keys = PartyKeys(directory / "keys", f"{name}, {WARNING}", self._clock, self._files)
        vouchers = Vouchers(directory / "vouchers", self._files)
        issued = IssuedCertificates(directory / "certificates", self._files)
        modules = OwnerModules(Enrollments(terms.source, issued, self._log), terms.renewal)
        registration = None if terms.bypass else self._registration(self.url, Pins())
        return Owner(keys, vouchers, modules, OwnerTerms(rendezvous=self._rendezvous), registration)

    def _make_devices(self, directory: Path) -> None:
        keys = PartyKeys(directory, f"manufacturer, {WARNING}", self._clock, self._files)
        first = self.owners[FIRST_OWNER]
        manufacturer = Manufacturer(
            keys,
            Authority(directory / "root", self._files),
            ManufacturerTerms(self._rendezvous, first.keys.successor),
            first.take,
            self._clock,
        )
        self._runs[MessageType.DI_APP_START] = manufacturer.begin

    def _serve(self) -> None:
        rendezvous = Rendezvous(RendezvousTerms(), self._clock)
        self._runs |= {
            MessageType.TO0_HELLO: rendezvous.begin_to0,
            MessageType.TO1_HELLO_RV: rendezvous.begin_to1,
            MessageType.TO2_HELLO_DEVICE: lambda: _RunOfOwner(tuple(self.owners.values())),
        }

    def _registration(self, url: str, pins: Pins) -> Registration:
        def connect() -> Channel:
            return HttpChannel(url, context_for(pins), self._clock, TIMEOUT)

        return Registration(connect, (self._address,))

    def _take(self, path: Path) -> None:
        try:
            voucher = Voucher.read(self._files.read(path, FILE_LIMIT))
            guid, name = voucher.header.guid, self._owner_of(voucher)
            self.owners[name].take(voucher)
            for other, owner in self.owners.items():
                if other != name and owner.vouchers.has(guid):
                    owner.vouchers.remove(guid)
        except (Fault, StateError) as error:
            # It may still be written, so it is looked at again; but told of once.
            if self._told.get(path.name) != error.what:
                self._told[path.name] = error.what
                self._log(f"{printable(path.name)} is not taken: {printable(error.what)}")
            return
        self._files.remove(path)
        self._register_at.pop(guid, None)
        self._log(f"{name} owns {guid.hex()} now, as {printable(path.name)} said.")

    def _owner_of(self, voucher: Voucher) -> str:
        """The name of the owner here that a voucher names."""
        key = voucher.verify().owner
        for name, owner in self.owners.items():
            with contextlib.suppress(Fault):
                owner.keys.owning(key)
                return name
        raise Fault("The voucher belongs to nobody here.", ErrorCode.INVALID_VOUCHER)

    def _register_all(self) -> None:
        """Register every voucher for which it is time."""
        owned = {
            voucher.header.guid: (owner, voucher) for owner in self.owners.values() for voucher in owner.vouchers.all()
        }
        now = self._clock.monotonic()
        self._register_at = {guid: self._register_at.get(guid, now) for guid in owned}
        for guid in [guid for guid, when in self._register_at.items() if when <= now]:
            known_for = self._register(*owned[guid])
            self._register_at[guid] = self._clock.monotonic() + max(TRIED_AGAIN, min(known_for, REGISTERED_AGAIN))
            if known_for == 0:
                return  # the next time: vouchers that come in must not wait until all servers have kept silent

    def _register(self, owner: Owner, voucher: Voucher) -> float:
        """Register at the rendezvous servers that a voucher names (FDO 1.1, 5.3).

        Returns:
            Seconds for which all of them know it; 0 where one does not.
        """
        try:
            directives = read_directives(cbor.read(voucher.header.rendezvous.encoded), for_owner=True)
            key = owner.keys.owning(voucher.verify().owner).key
            asked = [directive for directive in directives if directive.hosts and not directive.bypass]
            known = [self._register_by(directive, voucher, key) for directive in asked]
        except (Fault, StateError) as error:
            self._log(f"{voucher.header.guid.hex()} cannot be registered: {printable(error.what)}")
            return 0
        return min(known, default=REGISTERED_AGAIN)

    def _register_by(self, directive: Directive, voucher: Voucher, key: PrivateKey) -> float:
        """The same for the first of the addresses of a directive that takes it."""
        pins = Pins(directive.server_certificate, directive.ca_certificate)
        for url in urls(directive):
            try:
                return self._registration(url, pins).register(voucher, key)
            except EnrollmentError as error:
                self._log(f"{voucher.header.guid.hex()} is not registered: {error.what}")
        return 0


class _RunOfOwner(Run):
    """TO2 with whoever owns the device.

    Args:
        owners: All there are.
    """

    answers: Mapping[MessageType, Callable[[bytes], bytes]] = {}  # those of the owner's run

    def __init__(self, owners: Sequence[Owner]) -> None:
        super().__init__(MessageType.TO2_HELLO_DEVICE)
        self._owners = owners
        self._run: Run | None = None

    def answer(self, number: int, body: bytes) -> bytes:
        """See `Run`."""
        if self._run is None:
            self._run = self._owner_of(HelloDevice.read(cbor.read(body)).guid).begin()
        answer = self._run.answer(number, body)
        self.expected = self._run.expected
        return answer

    def _owner_of(self, guid: bytes) -> Owner:
        for owner in self._owners:
            if owner.vouchers.has(guid):
                return owner
        raise Fault("There is no voucher of this device here.", ErrorCode.NOT_FOUND)
