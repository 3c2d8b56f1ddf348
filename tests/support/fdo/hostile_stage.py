"""A rendezvous server and an owner that are right, until a case makes one of their answers wrong.

They are those of `scripted_owner`, written from the facts alone; all of one run of the scanner.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Self, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from enroll.csr import CertificateRequest, Usage
from tests.support.fdo import reference_codec as codec
from tests.support.fdo.reference_codec import PrivateKey, PublicKey
from tests.support.fdo.scripted_csr import ScriptedCsr
from tests.support.fdo.scripted_owner import (
    Hook,
    HttpAnswer,
    ScriptedDevice,
    ScriptedOwner,
    ScriptedRendezvous,
    ScriptedVoucher,
    redirection,
    rendezvous,
)
from tests.support.pki import DEVICE, NOW, Content, HospitalCa, new_key

HOST: Final = "127.0.0.1"
NOT_FOUND: Final = 6
KEY_BYTES: Final = 32  # of A256GCM, which scanners ask for
_ASKED = CertificateRequest.for_device(DEVICE, Usage.DEVICE)

Wire: TypeAlias = Callable[[HttpAnswer], bytes | Iterator[bytes]]


class MovedClock:
    """Begins at the moment of the tests; goes on by itself, and where it is moved."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._moved = 0.0

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return time.monotonic() - self._begun + self._moved

    def boottime(self) -> float:
        return self.monotonic()

    def boot_id(self) -> str:
        return "boot"

    def sleep(self, seconds: float) -> None:
        self._moved += seconds


@dataclass(frozen=True)
class Keys:
    """Who takes part. `stranger` is nobody whom the voucher names."""

    manufacturer: PrivateKey
    owner: PrivateKey
    stranger: PrivateKey

    @classmethod
    def new(cls, *, with_rsa: bool = False) -> Self:
        keys = [rsa.generate_private_key(65537, 2048) if with_rsa else new_key() for _ in range(3)]
        return cls(*keys)


class OwnersCa(HospitalCa):
    """Issues what a scanner asks for, or what `change` makes of it."""

    def __init__(self, title: str = "Owner CA", **options: Any) -> None:
        super().__init__(title, **options)
        self.change: Callable[[Content], Content] = lambda content: content
        self.key_change: Callable[[PublicKey], PublicKey] = lambda key: key

    def issue(self, key: PublicKey, content: Content | None = None, **changes: Any) -> x509.Certificate:
        asked = self.change(content or Content.asked(_ASKED, NOW))
        return super().issue(self.key_change(key), asked)


@dataclass
class Csr(ScriptedCsr):
    """fdo.csr of an owner; what it says can be changed by its key, before it is encoded."""

    ca: OwnersCa = field(default_factory=OwnersCa)
    changes: dict[str, Hook] = field(default_factory=dict)

    def say(self, key: str, value: Any) -> None:
        change = self.changes.get(key)
        super().say(key, change(value) if change else value)


@dataclass
class Owner(ScriptedOwner):
    """An owner that keeps the key of its session."""

    session_key: bytes = b""

    def _offer(self, exchange: str) -> tuple[bytes, Callable[[bytes], tuple[bytes, bytes]]]:
        parameter, finish = super()._offer(exchange)

        def kept(answer: bytes) -> tuple[bytes, bytes]:
            secret, context = finish(answer)
            self.session_key = codec.derived(secret, context, KEY_BYTES)
            return secret, context

        return parameter, kept


@dataclass
class Stage:
    """Both servers for one run.

    Args:
        device: As its owner knows it.
        keys: Of the parties.
        voucher: Of the device.
        port: Where the servers are, for what they say about themselves.
        clock: Of the scanner.
        wire: What becomes of an answer on the wire, by its number.
        pause: Seconds before each answer, by the clock of the scanner.
    """

    device: ScriptedDevice
    keys: Keys
    voucher: ScriptedVoucher
    port: int
    wire: dict[int, Wire] = field(default_factory=dict)
    pause: float = 0.0
    clock: MovedClock = field(default_factory=MovedClock)

    def __post_init__(self) -> None:
        self.csr = Csr()
        self.owner = Owner(self.voucher, self.keys.owner, self.csr)
        self.owner.next_rendezvous = rendezvous(HOST, self.port)
        self.rendezvous = ScriptedRendezvous(self.device, self.redirection(self.keys.owner))

    @classmethod
    def new(cls, device: ScriptedDevice, keys: Keys, port: int) -> Self:
        """The first owner of a device."""
        return cls(device, keys, ScriptedVoucher.of(device, keys.manufacturer, [keys.owner]), port)

    def again(self) -> Stage:
        """The same servers once more, and nothing is wrong with them."""
        return Stage(self.device, self.keys, self.voucher, self.port)

    def following(self) -> Stage:
        """The owner after message 70: the voucher begins with it, and it has added an entry for itself."""
        owner = self.keys.owner
        device = replace(self.device, guid=self.owner.next_guid, rendezvous=self.owner.next_rendezvous)
        assert self.owner.next_mac is not None
        voucher = ScriptedVoucher(device, device.header(owner.public_key()), self.owner.next_mac)
        keys = replace(self.keys, manufacturer=owner)
        return Stage(device, keys, voucher.extended(owner, owner.public_key()), self.port)

    def honest(self) -> Stage:
        """Whoever comes next, and does nothing wrong."""
        return self.following() if self.owner.is_done and not self.owner.reuse else self.again()

    def redirection(self, signer: PrivateKey, addresses: list[Any] | None = None) -> bytes:
        """to1d."""
        return redirection(signer, [[bytes([127, 0, 0, 1]), None, self.port, 3]] if addresses is None else addresses)

    def show(self, voucher: ScriptedVoucher) -> None:
        """The owner shows another voucher than its own."""
        self.owner.voucher = voucher

    def answer(self, number: int, body: bytes) -> bytes | Iterator[bytes]:
        """What goes over the wire."""
        self.clock.sleep(self.pause)
        said = self._said(number, body)
        role = "rendezvous" if number < 60 else "owner"  # each has a token of its own
        headers = {name: value.replace("scripted", role) for name, value in said.headers.items()}
        wire = self.wire.get(number + 1, plain)
        return wire(replace(said, headers=headers))

    def _said(self, number: int, body: bytes) -> HttpAnswer:
        if number in (30, 60) and self._guid(number, body) != self.device.guid:
            return HttpAnswer(255, codec.write([NOT_FOUND, number, "not found", None, None]), 500)
        return (self.rendezvous if number < 60 else self.owner).answer(number, body)

    @staticmethod
    def _guid(number: int, body: bytes) -> bytes:
        return bytes(codec.read(body)[0 if number == 30 else 1])


def head(answer: HttpAnswer, *lines: str) -> bytes:
    """The head of an answer, with these lines about its body."""
    said = [f"HTTP/1.1 {answer.status} -", "Content-Type: application/cbor", f"Message-Type: {answer.number}"]
    said += [f"{name}: {value}" for name, value in answer.headers.items()]
    return "\r\n".join([*said, *lines, "", ""]).encode("latin-1")


def plain(answer: HttpAnswer) -> bytes:
    """As it should be."""
    return head(answer, f"Content-Length: {len(answer.body)}") + answer.body
