"""The owner: proves itself to a device, and takes it over (TO2): FDO 1.1, 5.5 and 5.6. NOT FOR PRODUCTION.

At message 70 the voucher of the device is replaced by the one that begins with this owner, and the old one is gone. So
where message 71 is lost the device has to come back with the credential that it was about to put into use: the old one
is answered with "not found" (6). Everything until message 70 can be repeated as often as it takes.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography.x509.oid import NameOID

from enroll.errors import ScansealError
from enroll.evaluation.fdo.owner_module import MakeModules, OnboardedDevice
from enroll.evaluation.fdo.owner_service_info import OwnerServiceTalk
from enroll.evaluation.fdo.party_keys import PartyKeys
from enroll.evaluation.fdo.rendezvous import check_nonce, check_token
from enroll.evaluation.fdo.sessions import Run
from enroll.evaluation.fdo.to0 import Registration
from enroll.evaluation.fdo.vouchers import Vouchers, check_signature_type, device_key
from enroll.fdo import cbor
from enroll.fdo.cose import Sign1, sign1
from enroll.fdo.fault import Fault
from enroll.fdo.hashes import Hash
from enroll.fdo.key_exchange import KeyExchangeSuite, OwnerExchange, offer
from enroll.fdo.messages import (
    GUID_SIZE,
    MESSAGE_LIMIT,
    NONCE_SIZE,
    EntityAttestationToken,
    MessageType,
    nonce_message,
    read_nonce,
    read_nonce_message,
)
from enroll.fdo.public_key import SignatureType, signature_type
from enroll.fdo.service_info import Outbox
from enroll.fdo.to2_messages import (
    DEFAULT_SERVICE_INFO_SIZE,
    NONCE_HEADER,
    OWNER_KEY_HEADER,
    SETUP_NONCE_HEADER,
    DeviceServiceInfo,
    DeviceServiceInfoReady,
    HelloDevice,
    OwnerServiceInfoReady,
    ProveOvHdr,
    SetupDevice,
)
from enroll.fdo.tunnel import USUAL_SUITES, CipherSuite, Tunnel, open_tunnel
from enroll.fdo.voucher import ENTRIES_LIMIT, OwnerChain, Voucher, VoucherHeader
from enroll.keystore.base import PrivateKey, PublicKey

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class OwnerTerms:
    """How an owner takes devices over.

    Args:
        reuse: Whether their credential stays as it is.
        service_info_size: Bytes of service info in one message that the owner takes; None for the usual.
        ciphers: What it takes for a tunnel.
        rendezvous: RVInfo from then on; None for that of the voucher.
    """

    reuse: bool = False
    service_info_size: int | None = None
    ciphers: frozenset[CipherSuite] = USUAL_SUITES
    rendezvous: cbor.Raw | None = None


@dataclass(frozen=True)
class Owner:
    """The owner.

    Args:
        keys: Its keys.
        vouchers: Of its devices.
        make_modules: Makes what it has to say to a device.
        terms: How it takes devices over.
        registration: Makes it known; None where devices come without a rendezvous server.
    """

    keys: PartyKeys
    vouchers: Vouchers
    make_modules: MakeModules
    terms: OwnerTerms = OwnerTerms()
    registration: Registration | None = None

    def begin(self) -> OwnerRun:
        """One run of TO2."""
        return OwnerRun(self)

    def take(self, voucher: Voucher) -> None:
        """Await the device of a voucher.

        Raises:
            Fault: The voucher does not hold, or belongs to somebody else.
            StateError: It cannot be kept.
        """
        self.keys.owning(voucher.verify().owner)
        device_key(voucher)
        self.vouchers.add(voucher)
        self.register(voucher)

    def register(self, voucher: Voucher) -> None:
        """Register at the rendezvous server, before the device has its answer: it may come back at once.

        It can be repeated, so a failure is written into the log.
        """
        if self.registration is None:
            return
        try:
            seconds = self.registration.register(voucher, self.keys.owning(voucher.verify().owner).key)
        except ScansealError as error:
            _LOG.warning("The rendezvous server does not know of a device: %s", error.what)
        else:
            _LOG.info("The rendezvous server knows of %s for %d seconds.", voucher.header.guid.hex(), seconds)

    def replace(self, guid: bytes, voucher: Voucher) -> None:
        """A device is taken over: `voucher` takes the place of the one for `guid`.

        Raises:
            Fault: That one is gone already.
            StateError: The new one cannot be kept.
        """
        self.vouchers.replace(guid, voucher)
        self.register(voucher)


class OwnerRun(Run):
    """TO2 with one device.

    Args:
        owner: It.
    """

    # Known from message 60 on.
    voucher: Voucher
    chain: OwnerChain
    key: PrivateKey
    device_key: PublicKey
    signature_type: SignatureType
    message_limit: int  # bytes that the device takes; 0 where it does not say
    exchange: OwnerExchange
    cipher: CipherSuite
    nonce: bytes  # NonceTO2ProveDv
    # From message 64 on.
    tunnel: Tunnel
    setup: SetupDevice
    # From message 66 on.
    next_voucher: Voucher | None  # None where the credential stays
    talk: OwnerServiceTalk

    def __init__(self, owner: Owner) -> None:
        super().__init__(MessageType.TO2_HELLO_DEVICE)
        self.owner = owner
        self.shown = 0  # entries

    @property
    def answers(self) -> Mapping[MessageType, Callable[[bytes], bytes]]:
        """See `Run`."""
        return {
            MessageType.TO2_HELLO_DEVICE: self.hello_device,
            MessageType.TO2_GET_OV_NEXT_ENTRY: self.next_entry,
            MessageType.TO2_PROVE_DEVICE: self.prove_device,
            MessageType.TO2_DEVICE_SERVICE_INFO_READY: self.service_info_ready,
            MessageType.TO2_DEVICE_SERVICE_INFO: self.service_info,
            MessageType.TO2_DONE: self.done,
        }

    def hello_device(self, body: bytes) -> bytes:
        """Message 60: a device begins; the owner shows its voucher."""
        hello = HelloDevice.read(cbor.read(body))
        self.voucher = self.owner.vouchers.find(hello.guid)
        self.chain = self.voucher.verify()
        self.key = self.owner.keys.owning(self.chain.owner).key
        self.device_key = device_key(self.voucher)
        check_signature_type(hello.signature_type, self.device_key)
        self.signature_type, self.message_limit = hello.signature_type, hello.max_message_size
        self.cipher = _cipher(hello.cipher, self.owner.terms.ciphers)
        self.exchange = offer(_key_exchange(hello.key_exchange), self.key)
        self.nonce = secrets.token_bytes(NONCE_SIZE)
        said = ProveOvHdr(
            self.voucher.header.raw,
            len(self.voucher.entries),
            self.voucher.hmac,
            hello.nonce,
            hello.signature_type,
            self.exchange.parameter,
            Hash.of(self.chain.algorithm, body),
            MESSAGE_LIMIT,
        )
        self._expect_entry_or_proof()
        return self.sign(said.encode(), {NONCE_HEADER: self.nonce, OWNER_KEY_HEADER: cbor.Raw(self.chain.owner.raw)})

    def next_entry(self, body: bytes) -> bytes:
        """Message 62: an entry of the voucher; they are asked for in their order."""
        (number,) = cbor.read(body).array(1)
        if number.unsigned(ENTRIES_LIMIT) != self.shown:
            raise Fault("The entries of the voucher are not asked for in their order.")
        entry = self.voucher.entries[self.shown]
        self.shown += 1
        self._expect_entry_or_proof()
        return cbor.encode([self.shown - 1, cbor.Raw(entry.signed.raw)])

    def prove_device(self, body: bytes) -> bytes:
        """Message 64: the device proves itself; what it is to be from now on."""
        signed = Sign1.read(cbor.read(body))
        signed.check(self.device_key, self.signature_type)
        token = EntityAttestationToken.read(signed.payload)
        check_token(token, self.nonce, self.voucher.header.guid)
        if token.key_exchange is None or SETUP_NONCE_HEADER not in signed.unprotected:
            raise Fault("The device does not answer the key exchange, or gives no nonce.")
        setup_nonce = read_nonce(signed.unprotected[SETUP_NONCE_HEADER])
        self.tunnel = open_tunnel(self.cipher, self.exchange.finish(token.key_exchange))
        self.setup = self.next_setup(setup_nonce)
        self.expected = MessageType.TO2_DEVICE_SERVICE_INFO_READY
        return self.tunnel.encrypt(self.sign(self.setup.encode()))

    def next_setup(self, nonce: bytes) -> SetupDevice:
        """What the device is to be: with reuse exactly what it is."""
        terms, header, owner = self.owner.terms, self.voucher.header, self.chain.owner
        if terms.reuse:
            return SetupDevice(header.rendezvous, header.guid, nonce, owner)
        return SetupDevice(terms.rendezvous or header.rendezvous, secrets.token_bytes(GUID_SIZE), nonce, owner)

    def service_info_ready(self, body: bytes) -> bytes:
        """Message 66: the HMAC with which there is a new voucher."""
        ready = DeviceServiceInfoReady.read(self._decrypted(body))
        self.next_voucher = self._next_voucher(ready.hmac)
        size = DEFAULT_SERVICE_INFO_SIZE if ready.max_size is None else ready.max_size
        outbox = Outbox(size, self.message_limit)
        self.talk = OwnerServiceTalk(_device(self.voucher), self.owner.make_modules, outbox)
        self.expected = MessageType.TO2_DEVICE_SERVICE_INFO
        return self.tunnel.encrypt(OwnerServiceInfoReady(self.owner.terms.service_info_size).encode())

    def service_info(self, body: bytes) -> bytes:
        """Message 68: see `owner_service_info`."""
        answer = self.talk.answer(DeviceServiceInfo.read(self._decrypted(body)))
        if answer.is_done:
            self.expected = MessageType.TO2_DONE
        return self.tunnel.encrypt(answer.encode())

    def done(self, body: bytes) -> bytes:
        """Message 70: the device is taken over."""
        check_nonce(read_nonce_message(self._decrypted(body)), self.nonce)
        if self.next_voucher is not None:
            self.owner.replace(self.voucher.header.guid, self.next_voucher)
        self.expected = None
        return self.tunnel.encrypt(nonce_message(self.setup.nonce))

    def sign(self, payload: bytes, unprotected: Mapping[int, cbor.Encodable] | None = None) -> bytes:
        """Sign as the owner that the voucher names."""
        return sign1(self.key, signature_type(self.key.public_key(), self.chain.owner.kind), payload, unprotected)

    def _expect_entry_or_proof(self) -> None:
        is_more = self.shown < len(self.voucher.entries)
        self.expected = MessageType.TO2_GET_OV_NEXT_ENTRY if is_more else MessageType.TO2_PROVE_DEVICE

    def _decrypted(self, body: bytes) -> cbor.Item:
        return cbor.read(self.tunnel.decrypt(body))

    def _next_voucher(self, hmac: Hash | None) -> Voucher | None:
        header, setup = self.voucher.header, self.setup
        if (hmac is None) is not (setup.guid == header.guid):
            raise Fault("The HMAC of a device is missing, or it is sent for a credential that stays.")
        if hmac is None:
            return None
        if hmac.algorithm is not self.voucher.hmac.algorithm:
            raise Fault("The HMAC of a device is of another kind than before.")
        following = VoucherHeader.make(
            setup.guid, setup.rendezvous, header.device_info, setup.owner_key, header.certificate_chain_hash
        )
        return Voucher.make(following, hmac, self.voucher.device_chain)


def _key_exchange(name: str) -> KeyExchangeSuite:
    if name not in list(KeyExchangeSuite):
        raise Fault(f"The key exchange {name!r} is not known here.")
    return KeyExchangeSuite(name)


def _cipher(number: int, allowed: frozenset[CipherSuite]) -> CipherSuite:
    for suite in allowed:
        if suite == number:
            return suite
    raise Fault(f"The cipher suite {number} is not used here.")


def _device(voucher: Voucher) -> OnboardedDevice:
    numbers = voucher.device_chain[0].subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    serial_number = str(numbers[0].value) if numbers else ""
    return OnboardedDevice(voucher.header.guid, voucher.header.device_info, serial_number)
