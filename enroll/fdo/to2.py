"""TO2, the device's side: the owner proves itself, then the device; then they talk: FDO 1.1, 5.5 and 5.6.

    with Session(channel, credential, key, secret, terms) as session:
        session.begin()                                                     60 to 65
        session.talk(modules)                                               66 to 69
        session.finish()                                                    70 and 71

Every check of FDO 1.1 that a device must make is made, in the order of the messages. Whatever is wrong is told to the
owner (message 255), and nothing has changed on the device.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from enroll.clock import Clock
from enroll.fdo import cbor
from enroll.fdo.conversation import Conversation
from enroll.fdo.cose import Sign1, sign1
from enroll.fdo.credential import DeviceCredential
from enroll.fdo.devmod import DeviceDescription
from enroll.fdo.fault import ErrorCode, Fault
from enroll.fdo.hashes import Hash
from enroll.fdo.key_exchange import Answer, KeyExchangeSuite, answer
from enroll.fdo.messages import (
    MESSAGE_LIMIT,
    NONCE_SIZE,
    EntityAttestationToken,
    MessageType,
    nonce_message,
    read_nonce,
    read_nonce_message,
)
from enroll.fdo.public_key import FdoPublicKey, signature_type, strength
from enroll.fdo.rendezvous import check_leads_somewhere
from enroll.fdo.service_info import ROUNDS_LIMIT, DeviceModule, Inbox, Modules, Outbox
from enroll.fdo.to2_messages import (
    DEFAULT_SERVICE_INFO_SIZE,
    NONCE_HEADER,
    OWNER_KEY_HEADER,
    SETUP_NONCE_HEADER,
    DeviceServiceInfo,
    DeviceServiceInfoReady,
    HelloDevice,
    OwnerServiceInfo,
    OwnerServiceInfoReady,
    ProveOvHdr,
    SetupDevice,
)
from enroll.fdo.transport import Channel
from enroll.fdo.tunnel import CipherSuite, Random, Tunnel, open_tunnel
from enroll.fdo.voucher import OwnerChain, VoucherEntry, VoucherHeader
from enroll.keystore.base import HmacKey, PrivateKey, PublicKey

SESSION_LIMIT = 600.0  # seconds from message 60 to message 70
IDLE_DELAY = 0.2  # seconds after a round of 68 and 69 in which neither side says anything

KeyExchangeAnswer = Callable[[KeyExchangeSuite, bytes, PublicKey], Answer]


@dataclass(frozen=True)
class Terms:
    """What the device asks for, what it says of itself and what it allows.

    Args:
        key_exchange: Suite of the key exchange.
        cipher: Suite of the tunnel.
        service_info_size: Bytes of service info in one message that the device takes; None for the usual.
        description: What the device says of itself.
        reuse: Whether the owner may leave GUID, rendezvous and key as they are.
        judge: Says whether this owner may have the device; raises where it may not. Called after the owner has proved
            itself, before the device does.
        clock: Ends a session that takes too long, and waits for an owner that has nothing to say yet.
        redirect: The to1d that led here; None where the rendezvous server was bypassed.
        random: Makes nonces and initialization vectors.
        agree: Answers the key exchange.
    """

    key_exchange: KeyExchangeSuite
    cipher: CipherSuite
    service_info_size: int | None
    description: DeviceDescription
    reuse: bool
    judge: Callable[[OwnerChain], None]
    clock: Clock
    redirect: Sign1 | None = None
    random: Random = field(default=secrets.token_bytes, repr=False)
    agree: KeyExchangeAnswer = field(default=answer, repr=False)


@dataclass(frozen=True)
class _Shown:
    """What message 61 shows.

    Args:
        key: Of who has signed it.
        nonce: NonceTO2ProveDv, for 64 and 70.
        said: What is signed.
        header: Of the voucher.
    """

    key: FdoPublicKey
    nonce: bytes
    said: ProveOvHdr
    header: VoucherHeader


@dataclass(frozen=True)
class _Agreed:
    """What holds from message 65 on.

    Args:
        tunnel: Encrypts.
        owner_chain: From the manufacturer to who has proved to be the owner.
        nonce: NonceTO2ProveDv.
        setup_nonce: NonceTO2SetupDv.
        setup: What the device is to be.
        message_limit: Bytes of the largest message that the owner takes; 0 where it does not say.
    """

    tunnel: Tunnel = field(repr=False)
    owner_chain: OwnerChain
    nonce: bytes
    setup_nonce: bytes
    setup: SetupDevice
    message_limit: int


class Session:
    """One run of TO2; on an error inside the `with` block the owner is told (message 255).

    Args:
        channel: To the owner.
        credential: The device as this owner should know it.
        key: The device key.
        secret: The HMAC secret.
        terms: What is asked for and allowed.
    """

    def __init__(
        self, channel: Channel, credential: DeviceCredential, key: PrivateKey, secret: HmacKey, terms: Terms
    ) -> None:
        self._conversation = Conversation(channel)
        self._credential = credential
        self._key = key
        self._secret = secret
        self._terms = terms
        self._signature_type = signature_type(key.public_key())
        self._end = terms.clock.monotonic() + SESSION_LIMIT
        self._agreed: _Agreed | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._conversation.__exit__(kind, error, trace)

    @property
    def owner_chain(self) -> OwnerChain:
        """From the manufacturer to who has proved to be the owner."""
        return self._since_65.owner_chain

    @property
    def is_reuse(self) -> bool:
        """Whether the owner leaves the credential as it is."""
        return self._since_65.setup.guid == self._credential.guid

    @property
    def next_owner_key(self) -> FdoPublicKey:
        """Owner2Key, which begins the voucher from now on."""
        return self._since_65.setup.owner_key

    @property
    def next_credential(self) -> DeviceCredential:
        """The credential from message 71 on, with the owner still to be filled in."""
        if self.is_reuse:
            return self._credential
        setup = self._since_65.setup
        return replace(
            self._credential,
            guid=setup.guid,
            rendezvous=setup.rendezvous,
            owner_key_hash=Hash.of(strength(setup.owner_key.key), setup.owner_key.raw),
            owner_key_kind=setup.owner_key.kind,
            owner=None,
        )

    def begin(self) -> None:
        """Messages 60 to 65.

        Raises:
            ErrorReceived: The owner said no.
            Fault: The owner broke the protocol, or did not prove what it has to.
            ServerUnreachable: No answer.
            ScansealError: `terms.judge` refused the owner, or the key could not sign.
        """
        shown = self._hello()
        chain = self._owner_chain(shown)
        if self._terms.redirect is not None:
            # FDO 1.1, 5.5.3: whoever signed the redirection has to be the owner, or somebody has led us astray.
            self._terms.redirect.check(chain.owner.key, chain.owner.signature_type)
        self._terms.judge(chain)
        self._agreed = self._prove(shown, chain)

    def talk(self, modules: Sequence[DeviceModule]) -> None:
        """Messages 66 to 69, until the owner is done.

        Raises:
            EnrollmentError: As `begin`; or a module makes of it that there will be no certificate.
            Fault: As `begin`; or the owner is done before every module is complete.
        """
        ready = DeviceServiceInfoReady(self._next_hmac(), self._terms.service_info_size)
        received = OwnerServiceInfoReady.read(self._ask(MessageType.TO2_DEVICE_SERVICE_INFO_READY, ready.encode()))
        size = DEFAULT_SERVICE_INFO_SIZE if received.max_size is None else received.max_size
        known, outbox, inbox = Modules(modules), Outbox(size, self._since_65.message_limit), Inbox()
        outbox.put(self._terms.description.statements(known.names))
        owner_has_more = False
        for _ in range(ROUNDS_LIMIT):
            # Who has more to say speaks alone: FDO 1.1, 5.6.3 and 5.6.4.
            is_more, info = (False, ()) if owner_has_more else outbox.take()
            body = DeviceServiceInfo(is_more, info).encode()
            said = OwnerServiceInfo.read(self._ask(MessageType.TO2_DEVICE_SERVICE_INFO, body))
            _check_turn(said, device_has_more=is_more)
            for module, name, value in inbox.put(said.info, is_more=said.is_more):
                outbox.put(known.receive(module, name, value))
            if said.is_done:
                if not known.are_complete:
                    raise Fault("The owner is done, and has not given a certificate (fdo.csr).")
                return
            owner_has_more = said.is_more
            if not (info or said.info or owner_has_more):
                self._terms.clock.sleep(IDLE_DELAY)
        raise Fault(f"Service info has not ended after {ROUNDS_LIMIT} rounds.")

    def finish(self) -> None:
        """Messages 70 and 71. Before it the next credential is on the disk, afterwards it is the one in use.

        Raises:
            EnrollmentError: As `begin`; the owner may or may not have finished.
            Fault: As `begin`.
        """
        received = self._ask(MessageType.TO2_DONE, nonce_message(self._since_65.nonce))
        _check_nonce(read_nonce_message(received), self._since_65.setup_nonce)

    @property
    def _since_65(self) -> _Agreed:
        if self._agreed is None:
            raise RuntimeError("begin() comes first")
        return self._agreed

    def _hello(self) -> _Shown:
        """Messages 60 and 61."""
        nonce = self._terms.random(NONCE_SIZE)
        hello = HelloDevice(
            MESSAGE_LIMIT,
            self._credential.guid,
            nonce,
            self._terms.key_exchange,
            self._terms.cipher,
            self._signature_type,
        ).encode()
        signed = Sign1.read(cbor.read(self._exchange(MessageType.TO2_HELLO_DEVICE, hello)))
        if not {NONCE_HEADER, OWNER_KEY_HEADER} <= signed.unprotected.keys():
            raise Fault("The owner shows no key, or no nonce.")
        key = FdoPublicKey.read(signed.unprotected[OWNER_KEY_HEADER])
        signed.check(key.key, key.signature_type)
        said = ProveOvHdr.read(signed.payload)
        _check_nonce(said.nonce, nonce)
        if said.hello_device_hash != Hash.of(said.hmac.plain_algorithm, hello):
            raise Fault("The owner answers another message than the device has sent.")
        if said.signature_type is not self._signature_type:
            raise Fault("The owner wants another kind of signature than the device makes.")
        header = VoucherHeader.read(cbor.read(said.header))
        self._check_header(header, said.hmac)
        return _Shown(key, read_nonce(signed.unprotected[NONCE_HEADER]), said, header)

    def _check_header(self, header: VoucherHeader, mac: Hash) -> None:
        """FDO 1.1, 5.5.3: the header is that of this device, as it was made."""
        if header.guid != self._credential.guid:
            raise Fault("The voucher is that of another device.", ErrorCode.INVALID_GUID)
        expected = self._secret.sign(header.raw)
        if mac.algorithm is not self._credential.hmac_algorithm or not hmac.compare_digest(expected, mac.value):
            raise Fault("The header of the voucher is not as it was made.", ErrorCode.INVALID_VOUCHER)
        if not self._credential.owner_key_hash.is_of(header.manufacturer.raw):
            raise Fault("The voucher begins with another key than the device knows.", ErrorCode.INVALID_VOUCHER)

    def _owner_chain(self, shown: _Shown) -> OwnerChain:
        """Messages 62 and 63, for each entry."""
        chain = OwnerChain.begin(shown.header, shown.said.hmac)
        for number in range(shown.said.entries):
            received = self._exchange(MessageType.TO2_GET_OV_NEXT_ENTRY, cbor.encode([number]))
            index, entry = cbor.read(received).array(2)
            if index.unsigned() != number:
                raise Fault("The owner shows another entry of the voucher than was asked for.")
            chain = chain.extended(VoucherEntry.read(entry))
        if not chain.owner.is_same_key(shown.key):
            raise Fault("Who answers is not the owner that the voucher names.", ErrorCode.INVALID_OWNER_SIGNATURE)
        return chain

    def _prove(self, shown: _Shown, chain: OwnerChain) -> _Agreed:
        """Messages 64 and 65."""
        agreed = self._terms.agree(self._terms.key_exchange, shown.said.key_exchange, chain.owner.key)
        tunnel = open_tunnel(self._terms.cipher, agreed.shared, self._terms.random)
        setup_nonce = self._terms.random(NONCE_SIZE)
        token = EntityAttestationToken(shown.nonce, self._credential.guid, agreed.parameter).encode()
        body = sign1(self._key, self._signature_type, token, {SETUP_NONCE_HEADER: setup_nonce})
        received = tunnel.decrypt(self._exchange(MessageType.TO2_PROVE_DEVICE, body))
        signed = Sign1.read(cbor.read(received))
        signed.check(chain.owner.key, chain.owner.signature_type)
        setup = SetupDevice.read(signed.payload)
        _check_nonce(setup.nonce, setup_nonce)
        self._check_setup(setup, chain.owner)
        return _Agreed(tunnel, chain, shown.nonce, setup_nonce, setup, shown.said.max_message_size)

    def _check_setup(self, setup: SetupDevice, owner: FdoPublicKey) -> None:
        if setup.guid != self._credential.guid:
            check_leads_somewhere(setup.rendezvous)
            return
        if setup.rendezvous != self._credential.rendezvous or not setup.owner_key.is_same_key(owner):
            raise Fault("The owner leaves the GUID as it is and changes the rest.")
        if not self._terms.reuse:
            raise Fault("This device does not let its credential be used again.", ErrorCode.REUSE_REFUSED)

    def _next_hmac(self) -> Hash | None:
        """Over the header that the owner will have; None where it has it already."""
        if self.is_reuse:
            return None
        setup, credential = self._since_65.setup, self._credential
        header = VoucherHeader.make(
            setup.guid,
            setup.rendezvous,
            credential.device_info,
            setup.owner_key,
            credential.certificate_chain_hash,
        )
        return Hash(credential.hmac_algorithm, self._secret.sign(header.raw))

    def _ask(self, number: MessageType, plaintext: bytes) -> cbor.Item:
        """One exchange through the tunnel."""
        tunnel = self._since_65.tunnel
        return cbor.read(tunnel.decrypt(self._exchange(number, tunnel.encrypt(plaintext))))

    def _exchange(self, number: MessageType, body: bytes) -> bytes:
        if self._terms.clock.monotonic() > self._end:
            raise Fault(f"The session has not ended after {SESSION_LIMIT:g} seconds.", ErrorCode.INTERNAL)
        return self._conversation.ask(number, body)


def _check_turn(said: OwnerServiceInfo, *, device_has_more: bool) -> None:
    if device_has_more and (said.info or said.is_more or said.is_done):
        raise Fault("The owner speaks while the device has more to say.")
    if said.is_more and said.is_done:
        raise Fault("The owner is done and has more to say.")


def _check_nonce(received: bytes, sent: bytes) -> None:
    if not hmac.compare_digest(received, sent):
        raise Fault("A nonce comes back that was not sent.")
