"""The rendezvous server: owners register (TO0), devices ask (TO1): FDO 1.1, 5.3 and 5.4. NOT FOR PRODUCTION.

What is registered ends with the process; owners register again.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from enroll.clock import Clock
from enroll.evaluation.fdo.sessions import Run
from enroll.evaluation.fdo.to0_messages import OwnerSign, seconds_message
from enroll.evaluation.fdo.vouchers import check_signature_type, device_key
from enroll.fdo import cbor
from enroll.fdo.cose import Sign1
from enroll.fdo.fault import ErrorCode, Fault
from enroll.fdo.hashes import Hash
from enroll.fdo.messages import (
    NONCE_SIZE,
    EntityAttestationToken,
    HelloRv,
    HelloRvAck,
    MessageType,
    nonce_message,
)
from enroll.fdo.public_key import SignatureType
from enroll.fdo.rendezvous import read_redirect
from enroll.fdo.voucher import Voucher
from enroll.keystore.base import PublicKey


@dataclass(frozen=True)
class RendezvousTerms:
    """What is taken.

    Args:
        longest: Seconds for which an owner is known at most.
        owners_limit: How many registrations are kept; the oldest gives way.
    """

    longest: int = 30 * 24 * 60 * 60
    owners_limit: int = 1000


@dataclass(frozen=True)
class Registered:
    """Where the owner of a device is.

    Args:
        header: Of the voucher, its SHA-256: which device it is, and who made it.
        redirect: to1d, encoded.
        device_key: Of the device, which alone may know.
        end: When it is forgotten, on the monotonic clock.
    """

    header: bytes
    redirect: bytes
    device_key: PublicKey
    end: float


class Rendezvous:
    """The rendezvous server.

    Args:
        terms: What is taken.
        clock: Ends registrations.
    """

    def __init__(self, terms: RendezvousTerms, clock: Clock) -> None:
        self.terms = terms
        self._clock = clock
        self._guard = threading.Lock()
        self._registered: OrderedDict[bytes, Registered] = OrderedDict()

    def begin_to0(self) -> RegistrationRun:
        """One run of TO0."""
        return RegistrationRun(self)

    def begin_to1(self) -> RedirectionRun:
        """One run of TO1."""
        return RedirectionRun(self)

    def keep(self, voucher: Voucher, redirect: bytes, seconds: int) -> None:
        """Know an owner; what was known of the device before is forgotten.

        Raises:
            Fault: Another device is known by this GUID. Anybody can make a voucher for a GUID that he has seen.
        """
        guid, digest = voucher.header.guid, hashlib.sha256(voucher.header.raw).digest()
        kept = Registered(digest, redirect, device_key(voucher), self._clock.monotonic() + seconds)
        with self._guard:
            before = self._registered.get(guid)
            if before is not None and before.header != digest:
                raise Fault("Another device is known by this GUID.", ErrorCode.INVALID_GUID)
            self._registered.pop(guid, None)
            if len(self._registered) >= self.terms.owners_limit:
                self._registered.popitem(last=False)
            self._registered[guid] = kept

    def find(self, guid: bytes) -> Registered:
        """Where the owner of a device is.

        Raises:
            Fault: Nobody has said so, or too long ago (NOT_FOUND).
        """
        with self._guard:
            known = self._registered.get(guid)
        if known is None or known.end <= self._clock.monotonic():
            raise Fault("No owner of this device is known here.", ErrorCode.NOT_FOUND)
        return known


class RegistrationRun(Run):
    """TO0 with one owner.

    Args:
        rendezvous: The server.
    """

    nonce: bytes  # known from message 20 on

    def __init__(self, rendezvous: Rendezvous) -> None:
        super().__init__(MessageType.TO0_HELLO)
        self.rendezvous = rendezvous

    @property
    def answers(self) -> Mapping[MessageType, Callable[[bytes], bytes]]:
        """See `Run`."""
        return {MessageType.TO0_HELLO: self.hello, MessageType.TO0_OWNER_SIGN: self.owner_sign}

    def hello(self, body: bytes) -> bytes:
        """Message 20: an owner begins."""
        cbor.read(body).array(0)
        self.nonce = secrets.token_bytes(NONCE_SIZE)
        self.expected = MessageType.TO0_OWNER_SIGN
        return nonce_message(self.nonce)

    def owner_sign(self, body: bytes) -> bytes:
        """Message 22: the owner shows its voucher, and says where it listens."""
        said = OwnerSign.read(cbor.read(body))
        check_nonce(said.nonce, self.nonce)
        chain = said.voucher.verify()
        said.redirect.check(chain.owner.key, chain.owner.signature_type)
        _, hash_item = said.redirect.payload.array(2)
        if not read_redirect(said.redirect) or not Hash.read(hash_item).is_of(said.signed_part):
            raise Fault("The redirection names no address, or belongs to another registration.")
        seconds = min(said.wait_seconds, self.rendezvous.terms.longest)
        self.rendezvous.keep(said.voucher, said.redirect.raw, seconds)
        self.expected = None
        return seconds_message(seconds)


class RedirectionRun(Run):
    """TO1 with one device.

    Args:
        rendezvous: The server.
    """

    # Known from message 30 on.
    guid: bytes
    known: Registered
    signature_type: SignatureType
    nonce: bytes

    def __init__(self, rendezvous: Rendezvous) -> None:
        super().__init__(MessageType.TO1_HELLO_RV)
        self.rendezvous = rendezvous

    @property
    def answers(self) -> Mapping[MessageType, Callable[[bytes], bytes]]:
        """See `Run`."""
        return {MessageType.TO1_HELLO_RV: self.hello, MessageType.TO1_PROVE_TO_RV: self.prove}

    def hello(self, body: bytes) -> bytes:
        """Message 30: a device begins."""
        hello = HelloRv.read(cbor.read(body))
        self.guid, self.signature_type = hello.guid, hello.signature_type
        self.known = self.rendezvous.find(hello.guid)
        check_signature_type(hello.signature_type, self.known.device_key)
        self.nonce = secrets.token_bytes(NONCE_SIZE)
        self.expected = MessageType.TO1_PROVE_TO_RV
        return HelloRvAck(self.nonce, self.signature_type).encode()

    def prove(self, body: bytes) -> bytes:
        """Message 32: the device proves itself, and learns where its owner is."""
        signed = Sign1.read(cbor.read(body))
        signed.check(self.known.device_key, self.signature_type)
        check_token(EntityAttestationToken.read(signed.payload), self.nonce, self.guid)
        self.expected = None
        return self.known.redirect


def check_token(token: EntityAttestationToken, nonce: bytes, guid: bytes) -> None:
    """Whether a device has signed for this run and about itself.

    Raises:
        Fault: It has not.
    """
    check_nonce(token.nonce, nonce)
    if token.guid != guid:
        raise Fault("A device proves to be another one than it has said.", ErrorCode.INVALID_GUID)


def check_nonce(received: bytes, sent: bytes) -> None:
    """Whether a nonce is the one that was sent.

    Raises:
        Fault: It is not.
    """
    if not hmac.compare_digest(received, sent):
        raise Fault("A nonce comes back that was not sent.")
