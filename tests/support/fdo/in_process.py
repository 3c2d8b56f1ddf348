"""The device of this project and a scripted owner, in one process and without a socket."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from enroll.clock import Clock
from enroll.est.attributes import WantedAttributes
from enroll.fdo import cbor
from enroll.fdo.certificate_module import CertificateModule
from enroll.fdo.cose import Sign1
from enroll.fdo.credential import DeviceCredential
from enroll.fdo.devmod import DeviceDescription
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.key_exchange import KeyExchangeSuite, suites_for
from enroll.fdo.messages import ErrorMessage
from enroll.fdo.public_key import FdoPublicKey
from enroll.fdo.service_info import DeviceModule
from enroll.fdo.to1 import find_owner
from enroll.fdo.to2 import Session, Terms
from enroll.fdo.transport import ErrorReceived, Received
from enroll.fdo.tunnel import CipherSuite
from enroll.fdo.voucher import OwnerChain
from tests.support.clocks import SteppedClock
from tests.support.fdo import reference_codec as codec
from tests.support.fdo.reference_codec import PrivateKey
from tests.support.fdo.scripted_csr import ScriptedCsr
from tests.support.fdo.scripted_owner import (
    OwnerModule,
    Scripted,
    ScriptedDevice,
    ScriptedOwner,
    ScriptedVoucher,
    redirection,
)

DESCRIPTION = DeviceDescription("Linux", "x86_64", "12", "Example CT", ":", "x86_64")


@dataclass
class ScriptedChannel:
    """The way to a scripted server. `reported` holds what the device has told it (message 255)."""

    server: Scripted
    reported: list[ErrorMessage] = field(default_factory=list)
    where: str = "http://scripted.example"

    def exchange(self, number: int, body: bytes) -> Received:
        answer = self.server.answer(number, body)
        if answer.number == 255:
            raise ErrorReceived(ErrorMessage.read(answer.body), self.where)
        return Received(answer.number, answer.body)

    def report(self, error: ErrorMessage) -> None:
        self.reported.append(error)

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True)
class DeviceSecret:
    """The HMAC secret of a scripted device."""

    device: ScriptedDevice

    def sign(self, data: bytes) -> bytes:
        return bytes(self.device.mac(data)[1])


@dataclass
class Onboarding:
    """A device, the keys of its manufacturer and of its owner, and what both want; the owner can be replaced."""

    device: ScriptedDevice
    manufacturer: PrivateKey
    owner_key: PrivateKey
    voucher: ScriptedVoucher
    owner: ScriptedOwner
    reuse: bool = False
    cipher: CipherSuite = CipherSuite.A128GCM
    exchange: KeyExchangeSuite | None = None
    clock: Clock = field(default_factory=SteppedClock)
    to1d: bytes | None = None
    judge: Callable[[OwnerChain], None] = lambda _: None
    service_info_size: int | None = None
    identity_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def new(
        cls, device_key: PrivateKey, manufacturer: PrivateKey, owner_key: PrivateKey, module: OwnerModule | None = None
    ) -> Onboarding:
        """One that succeeds: a voucher of one entry, and an owner that issues a certificate."""
        device = ScriptedDevice(device_key)
        voucher = ScriptedVoucher.of(device, manufacturer, [owner_key])
        owner = ScriptedOwner(voucher, owner_key, module or ScriptedCsr())
        return cls(device, manufacturer, owner_key, voucher, owner, to1d=redirection(owner_key))

    def show(self, voucher: ScriptedVoucher) -> None:
        """The owner has another voucher."""
        self.voucher = self.owner.voucher = voucher

    @property
    def credential(self) -> DeviceCredential:
        """As the factory made it."""
        manufacturer = codec.write(codec.read(self.device.header(self.manufacturer.public_key()))[4])
        strong = self.device.digest == "sha384"
        return DeviceCredential(
            self.device.guid,
            cbor.Raw(codec.write(self.device.rendezvous)),
            self.device.device_info,
            Hash.of(HashAlgorithm.SHA384 if strong else HashAlgorithm.SHA256, manufacturer),
            FdoPublicKey.read(cbor.read(manufacturer)).kind,
            None,
            "software:fdo",
            "software:fdo-secret",
            HashAlgorithm.HMAC_SHA384 if strong else HashAlgorithm.HMAC_SHA256,
        )

    def session(self, channel: ScriptedChannel) -> Session:
        """The device's side."""
        terms = Terms(
            key_exchange=self.exchange or suites_for(self.owner_key.public_key())[0],
            cipher=self.cipher,
            service_info_size=self.service_info_size,
            description=DESCRIPTION,
            reuse=self.reuse,
            judge=self.judge,
            clock=self.clock,
            redirect=None if self.to1d is None else Sign1.read(cbor.read(self.to1d)),
        )
        return Session(channel, self.credential, self.device.key, DeviceSecret(self.device), terms)

    def run(self, channel: ScriptedChannel, modules: Sequence[DeviceModule] | None = None) -> Session:
        """All of TO2."""
        with self.session(channel) as session:
            session.begin()
            session.talk([self.csr()] if modules is None else modules)
            session.finish()
        return session

    def csr(self) -> CertificateModule:
        """The module fdo.csr, with a request of the identity key."""

        def request(wanted: WantedAttributes) -> x509.CertificateSigningRequest:
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CT-000123")])
            return (
                x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self.identity_key, hashes.SHA256())
            )

        return CertificateModule(request)

    def find_owner(self, channel: ScriptedChannel) -> Sign1:
        """TO1."""
        return find_owner(channel, self.credential, self.device.key)
