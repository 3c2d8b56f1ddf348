"""A rendezvous server and an owner that are written from the facts alone, on `cbor2` and `cryptography`.

    voucher = ScriptedVoucher.of(device, manufacturer, [owner])
    owner = ScriptedOwner(voucher, owner_key)
    owner.hooks.payload[65] = lambda parts: ...      each answer can be replaced, by number, at each step:

    payload      what is signed, or the whole of a message that is not, as Python values
    headers      the unprotected header of 61, 63 and 65
    signed       all bytes of the message, before encryption
    encrypted    all bytes of the body
    answer       number, status, headers and body, as they go out over HTTP

A hook for every answer of one number may keep count and change one of them. Nothing of the product takes part, so that
what both sides misread is found. The owner checks all that the device says, and fails the test where it is not right.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, Self

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM

from tests.support.fdo import reference_codec as codec
from tests.support.fdo.reference_codec import PrivateKey, PublicKey

_CIPHERS: Mapping[int, tuple[type[AESGCM | AESCCM], int, int]] = {  # class, bytes of the key, bytes of the IV
    1: (AESGCM, 16, 12),
    3: (AESGCM, 32, 12),
    32: (AESCCM, 16, 7),
    33: (AESCCM, 32, 7),
}
_CURVES: Mapping[str, tuple[ec.EllipticCurve, int, int]] = {  # curve, bytes of a coordinate, bytes of the random
    "ECDH256": (ec.SECP256R1(), 32, 16),
    "ECDH384": (ec.SECP384R1(), 48, 48),
}
_RANDOM_SIZES = {"ASYMKEX2048": 32, "ASYMKEX3072": 96}
_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)

Hook = Callable[[Any], Any]
Piece = tuple[str, bytes]


@dataclass(frozen=True)
class HttpAnswer:
    """An answer as it goes out."""

    number: int
    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Authorization": "Bearer scripted"})


@dataclass(frozen=True)
class Hooks:
    """What becomes of the answers; see above."""

    payload: dict[int, Hook] = field(default_factory=dict)
    headers: dict[int, Hook] = field(default_factory=dict)
    signed: dict[int, Hook] = field(default_factory=dict)
    encrypted: dict[int, Hook] = field(default_factory=dict)
    answer: dict[int, Callable[[HttpAnswer], HttpAnswer]] = field(default_factory=dict)

    def sent(self, answer: HttpAnswer) -> HttpAnswer:
        """The answer, with the last of the hooks."""
        hook = self.answer.get(answer.number)
        return hook(answer) if hook else answer


def unchanged(value: Any) -> Any:
    return value


# --- what a factory makes


@dataclass(frozen=True)
class ScriptedDevice:
    """A device as its factory made it: P-256 or RSA-2048 with SHA-256, P-384 or RSA-3072 with SHA-384."""

    key: PrivateKey
    guid: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    device_info: str = "Example CT"
    rendezvous: Sequence[Any] = field(default_factory=lambda: rendezvous("rendezvous.example", 8080))

    @property
    def digest(self) -> str:
        return "sha384" if self.key.key_size in (384, 3072) else "sha256"

    def mac(self, data: bytes) -> list[Any]:
        """An HMAC of the device (FDO 1.1, 3.3.1)."""
        return [5 if self.digest == "sha256" else 6, hmac.digest(self.secret, data, self.digest)]

    def hash(self, data: bytes) -> list[Any]:
        """A hash of the same strength."""
        return [-16 if self.digest == "sha256" else -43, hashlib.new(self.digest, data).digest()]

    def header(self, manufacturer: PublicKey, **changes: Any) -> bytes:
        """The OVHeader (FDO 1.1, 3.4.2)."""
        parts = {
            "version": 101,
            "guid": self.guid,
            "rendezvous": self.rendezvous,
            "device_info": self.device_info,
            "manufacturer": public_key(manufacturer),
            "chain_hash": None,
        }
        return codec.write(list((parts | changes).values()))


@dataclass(frozen=True)
class ScriptedVoucher:
    """A voucher, in parts: everything can be put in the place of anything."""

    device: ScriptedDevice
    header: bytes
    mac: list[Any]
    entries: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, device: ScriptedDevice, manufacturer: PrivateKey, owners: Sequence[PrivateKey]) -> Self:
        """From the manufacturer to the last of `owners`."""
        header = device.header(manufacturer.public_key())
        voucher = cls(device, header, device.mac(header))
        signers = [manufacturer, *owners]
        for signer, owner in pairwise(signers):
            voucher = voucher.extended(signer, owner.public_key())
        return voucher

    def extended(self, signer: PrivateKey, owner: PublicKey, **changes: Any) -> Self:
        """With one more entry (FDO 1.1, 3.4.3), with some of its parts changed."""
        before = self.entries[-1] if self.entries else self.header + codec.write(self.mac)
        about = codec.read(self.header)
        parts = {
            "previous": self.device.hash(before),
            "device": self.device.hash(about[1] + about[3].encode()),
            "extra": None,
            "owner": public_key(owner),
        }
        entry = codec.sign1(signer, algorithm(signer), codec.write(list((parts | changes).values())), {})
        return replace(self, entries=(*self.entries, entry))


def rendezvous(host: str, port: int) -> list[Any]:
    """An RVInfo with one directive (FDO 1.1, 3.3.2)."""
    values = {12: 1, 5: host, 3: port, 4: port}
    return [[[number, codec.write(value)] for number, value in values.items()]]


def public_key(key: PublicKey) -> list[Any]:
    """A public key in the encoding X509 (FDO 1.1, 3.3.4)."""
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return [10 if key.key_size == 256 else 11, 1, encoded]
    return [1 if key.key_size == 2048 else 5, 1, encoded]


def algorithm(key: PrivateKey | PublicKey) -> int:
    """How a key signs (FDO 1.1, 3.3.5)."""
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        return -7 if key.key_size == 256 else -35
    return -257 if key.key_size == 2048 else -258


def redirection(owner: PrivateKey, addresses: Sequence[Any] | None = None) -> bytes:
    """to1d (FDO 1.1, 5.4.4): where the owner says it is."""
    listed = [[None, "owner.example", 8080, 3]] if addresses is None else list(addresses)
    return codec.sign1(owner, algorithm(owner), codec.write([listed, [-16, bytes(32)]]), {})


# --- the servers


class Scripted(Protocol):
    """A server without its transport."""

    def answer(self, number: int, body: bytes) -> HttpAnswer:
        """What it says to a message."""


@dataclass
class ScriptedRendezvous:
    """TO1, for one device."""

    device: ScriptedDevice
    to1d: bytes
    hooks: Hooks = field(default_factory=Hooks)
    nonce: bytes = field(default_factory=lambda: secrets.token_bytes(16))

    def answer(self, number: int, body: bytes) -> HttpAnswer:
        signed = {30: self._hello, 32: self._prove}[number](body)
        message = self.hooks.signed.get(number + 1, unchanged)(signed)
        return self.hooks.sent(HttpAnswer(number + 1, message))

    def _hello(self, body: bytes) -> bytes:
        kind = [algorithm(self.device.key), b""]
        assert codec.read(body) == [self.device.guid, kind]
        return codec.write(self.hooks.payload.get(31, unchanged)([self.nonce, kind]))

    def _prove(self, body: bytes) -> bytes:
        token = codec.read(codec.verify1(self.device.key.public_key(), body).payload)
        assert token == {10: self.nonce, 256: b"\x01" + self.device.guid}
        return self.to1d


class Said(NamedTuple):
    """What an owner says in 69."""

    is_more: bool
    is_done: bool
    pieces: Sequence[Piece] = ()


class OwnerModule(Protocol):
    """What an owner has to say."""

    def reply(self, pieces: Sequence[Piece], *, is_more: bool) -> Said:
        """Its answer to what the device says in 68."""


@dataclass
class Says:
    """Says what it was told to, one after the other; says nothing as long as the device has more to say."""

    script: list[Said]
    heard: list[Piece] = field(default_factory=list)

    def reply(self, pieces: Sequence[Piece], *, is_more: bool) -> Said:
        self.heard += pieces
        return Said(is_more=False, is_done=False) if is_more else self.script.pop(0)


@dataclass
class ScriptedOwner:
    """TO2, for one voucher. What it came to know of the device is in its fields."""

    voucher: ScriptedVoucher
    key: PrivateKey
    module: OwnerModule
    reuse: bool = False
    max_service_info: int | None = None
    hooks: Hooks = field(default_factory=Hooks)
    asked: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    next_guid: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    next_rendezvous: Sequence[Any] = field(default_factory=lambda: rendezvous("next.example", 8081))
    next_mac: list[Any] | None = None
    is_done: bool = False
    _nonces: dict[int, bytes] = field(default_factory=dict)
    _finish: Callable[[bytes], tuple[bytes, bytes]] | None = None
    _suite: int = 0
    _cipher: AESGCM | AESCCM | None = None

    def answer(self, number: int, body: bytes) -> HttpAnswer:
        self.asked.append(number)
        handlers = {
            60: self._hello,
            62: self._entry,
            64: self._prove,
            66: self._ready,
            68: self._service_info,
            70: self._done,
        }
        is_encrypted = number >= 66
        answer = handlers[number](self._decrypted(body) if is_encrypted else body)
        message = self.hooks.signed.get(number + 1, unchanged)(answer)
        if number >= 64:
            message = self.hooks.encrypted.get(number + 1, unchanged)(self.encrypted(message))
        return self.hooks.sent(HttpAnswer(number + 1, message))

    @property
    def device(self) -> ScriptedDevice:
        return self.voucher.device

    @property
    def next_owner_key(self) -> PublicKey:
        """Owner2Key: the owner goes on with its key."""
        return self.key.public_key()

    def signed(self, number: int, payload: Any, headers: Mapping[int, Any]) -> bytes:
        """A COSE_Sign1 of the owner, with its hooks."""
        changed = self.hooks.payload.get(number, unchanged)(payload)
        encoded = changed if isinstance(changed, bytes) else codec.write(changed)
        shown = self.hooks.headers.get(number, unchanged)(dict(headers))
        return codec.sign1(self.key, algorithm(self.key), encoded, shown)

    def encrypted(self, message: bytes) -> bytes:
        """A body of the session."""
        assert self._cipher is not None
        return codec.seal0(self._cipher, self._suite, secrets.token_bytes(_CIPHERS[self._suite][2]), message)

    def _decrypted(self, body: bytes) -> bytes:
        assert self._cipher is not None
        suite, plaintext = codec.open0(self._cipher, body)
        assert suite == self._suite
        self.sizes.append(len(plaintext))
        return plaintext

    def _hello(self, body: bytes) -> bytes:
        size, guid, nonce, exchange, self._suite, kind = codec.read(body)
        assert (size, guid, kind) == (65535, self.device.guid, [algorithm(self.device.key), b""])
        parameter, self._finish = self._offer(exchange)
        self._nonces[61] = secrets.token_bytes(16)
        payload = [
            self.voucher.header,
            len(self.voucher.entries),
            self.voucher.mac,
            nonce,
            kind,
            parameter,
            self.device.hash(body),
            65535,
        ]
        return self.signed(61, payload, {256: self._nonces[61], 257: public_key(self.key.public_key())})

    def _entry(self, body: bytes) -> bytes:
        (index,) = codec.read(body)
        answer = [index, codec.read(self.voucher.entries[index])]
        return codec.write(self.hooks.payload.get(63, unchanged)(answer))

    def _prove(self, body: bytes) -> bytes:
        proof = codec.verify1(self.device.key.public_key(), body)
        token = codec.read(proof.payload)
        assert set(token) == {10, 256, -257}
        assert (token[10], token[256]) == (self._nonces[61], b"\x01" + self.device.guid)
        self._nonces[64] = proof.unprotected[-259]
        assert self._finish is not None
        secret, context = self._finish(token[-257][0])
        cipher, size, _ = _CIPHERS[self._suite]
        self._cipher = cipher(codec.derived(secret, context, size))
        about = codec.read(self.voucher.header)
        named = (about[2], about[1]) if self.reuse else (self.next_rendezvous, self.next_guid)
        return self.signed(65, [*named, self._nonces[64], public_key(self.next_owner_key)], {})

    def _ready(self, message: bytes) -> bytes:
        self.next_mac, _ = codec.read(message)
        about = codec.read(self.voucher.header)
        next_header = [101, self.next_guid, self.next_rendezvous, about[3], public_key(self.next_owner_key), about[5]]
        assert self.next_mac == (None if self.reuse else self.device.mac(codec.write(next_header)))
        return codec.write(self.hooks.payload.get(67, unchanged)([self.max_service_info]))

    def _service_info(self, message: bytes) -> bytes:
        is_more, info = codec.read(message)
        assert len(message) <= max(256, self.max_service_info or 1300)
        assert info or not is_more
        said = self.module.reply([(key, value) for key, value in info], is_more=is_more)
        answer = [said.is_more, said.is_done, [list(piece) for piece in said.pieces]]
        return codec.write(self.hooks.payload.get(69, unchanged)(answer))

    def _done(self, message: bytes) -> bytes:
        assert codec.read(message) == [self._nonces[61]]
        self.is_done = True
        return codec.write(self.hooks.payload.get(71, unchanged)([self._nonces[64]]))

    def _offer(self, exchange: str) -> tuple[bytes, Callable[[bytes], tuple[bytes, bytes]]]:
        """xA, and what makes ShSe and ContextRand of xB (FDO 1.1, 3.6)."""
        if exchange in _CURVES:
            return _offer_on_curve(*_CURVES[exchange])
        random, key = secrets.token_bytes(_RANDOM_SIZES[exchange]), self.key
        assert isinstance(key, rsa.RSAPrivateKey)
        return random, lambda answer: (key.decrypt(answer, _OAEP), random)


def _offer_on_curve(
    curve: ec.EllipticCurve, size: int, random_size: int
) -> tuple[bytes, Callable[[bytes], tuple[bytes, bytes]]]:
    own, random = ec.generate_private_key(curve), secrets.token_bytes(random_size)
    numbers = own.public_key().public_numbers()
    parts = (numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big"), random)

    def finish(answer: bytes) -> tuple[bytes, bytes]:
        x, y, theirs = (answer[2 : 2 + size], answer[4 + size : 4 + 2 * size], answer[6 + 2 * size :])
        assert answer == b"".join(len(part).to_bytes(2, "big") + part for part in (x, y, theirs))
        point = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve).public_key()
        return own.exchange(ec.ECDH(), point) + theirs + random, b""

    return b"".join(len(part).to_bytes(2, "big") + part for part in parts), finish
