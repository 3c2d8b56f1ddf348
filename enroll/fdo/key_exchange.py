"""How device and owner agree on the secret of a session: FDO 1.1, 3.6 "Key Exchange in the TO2 Protocol".

The owner speaks first (xA), the device answers (xB); what they agreed on becomes keys in `tunnel`. Secrets keep their
leading zeros. One implementation in use takes one away, and one session in 256 fails with it.
"""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.utils import CryptographyDeprecationWarning

from enroll.fdo.fault import Fault
from enroll.fdo.modp_groups import GENERATOR, PRIME_2048, PRIME_3072
from enroll.fdo.public_key import read_point
from enroll.keystore.base import PrivateKey, PublicKey

with warnings.catch_warnings():
    # The library will leave it out one day; the suites that use it, for owners with RSA keys, will go with it.
    warnings.simplefilter("ignore", CryptographyDeprecationWarning)
    from cryptography.hazmat.primitives.asymmetric.dh import DHParameterNumbers, DHPrivateKey, DHPublicNumbers

_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
_LENGTH_BYTES = 2
_P_384 = 384  # bits


class KeyExchangeSuite(StrEnum):
    """The suites, by the names that message 60 has for them."""

    ECDH256 = "ECDH256"
    ECDH384 = "ECDH384"
    DHKEX_ID14 = "DHKEXid14"
    DHKEX_ID15 = "DHKEXid15"
    ASYMKEX2048 = "ASYMKEX2048"
    ASYMKEX3072 = "ASYMKEX3072"


@dataclass(frozen=True)
class SharedSecret:
    """What both sides know, and nobody else.

    Args:
        secret: Goes into the derivation of the keys (ShSe).
        context: Goes along (ContextRand); known to whoever listens.
    """

    secret: bytes = field(repr=False)
    context: bytes = b""


@dataclass(frozen=True)
class Answer:
    """The device's side, which takes one step.

    Args:
        parameter: xB, for the owner.
        shared: What was agreed on.
    """

    parameter: bytes
    shared: SharedSecret


@dataclass(frozen=True)
class OwnerExchange:
    """The owner's side: it has spoken, and waits for xB.

    Args:
        parameter: xA, for the device.
        finish: What was agreed on, from xB; raises `Fault` where it is not well formed.
    """

    parameter: bytes
    finish: Callable[[bytes], SharedSecret] = field(repr=False)


class _Exchange(Protocol):
    """One suite."""

    def offer(self, owner_key: PrivateKey) -> OwnerExchange:
        """The owner begins."""

    def answer(self, offered: bytes, owner_key: PublicKey) -> Answer:
        """The device answers."""


@dataclass(frozen=True)
class _EllipticCurve:
    """xA and xB: length, x, length, y, length, random; all lengths of two bytes."""

    curve: ec.EllipticCurve
    size: int  # bytes of a coordinate
    random_size: int  # bytes

    def offer(self, owner_key: PrivateKey) -> OwnerExchange:  # noqa: ARG002 - the suites of RSA need it
        own, random = ec.generate_private_key(self.curve), secrets.token_bytes(self.random_size)

        def finish(answer: bytes) -> SharedSecret:
            point, theirs = self._read(answer)
            return SharedSecret(own.exchange(ec.ECDH(), point) + theirs + random)

        return OwnerExchange(self._parameter(own.public_key(), random), finish)

    def answer(self, offered: bytes, owner_key: PublicKey) -> Answer:  # noqa: ARG002 - as above
        point, theirs = self._read(offered)
        own, random = ec.generate_private_key(self.curve), secrets.token_bytes(self.random_size)
        shared = SharedSecret(own.exchange(ec.ECDH(), point) + random + theirs)
        return Answer(self._parameter(own.public_key(), random), shared)

    def _parameter(self, key: ec.EllipticCurvePublicKey, random: bytes) -> bytes:
        numbers = key.public_numbers()
        coordinates = (number.to_bytes(self.size, "big") for number in (numbers.x, numbers.y))
        return b"".join(len(part).to_bytes(_LENGTH_BYTES, "big") + part for part in (*coordinates, random))

    def _read(self, parameter: bytes) -> tuple[ec.EllipticCurvePublicKey, bytes]:
        parts, rest = [], parameter
        for size in (self.size, self.size, self.random_size):
            length, part = rest[:_LENGTH_BYTES], rest[_LENGTH_BYTES : _LENGTH_BYTES + size]
            if length != size.to_bytes(_LENGTH_BYTES, "big") or len(part) != size:
                raise Fault("A part of the key exchange has not the length that it must have.")
            parts.append(part)
            rest = rest[_LENGTH_BYTES + size :]
        if rest:
            raise Fault("The key exchange has bytes behind its end.")
        x, y, random = parts
        return read_point(self.curve, x, y), random


@dataclass(frozen=True)
class _ModularGroup:
    """xA and xB: the public value, of the length of the modulus."""

    prime: int

    def offer(self, owner_key: PrivateKey) -> OwnerExchange:  # noqa: ARG002 - as above
        own = self._new_key()
        return OwnerExchange(self._parameter(own), lambda answer: self._shared(own, self._read(answer)))

    def answer(self, offered: bytes, owner_key: PublicKey) -> Answer:  # noqa: ARG002 - as above
        theirs, own = self._read(offered), self._new_key()
        return Answer(self._parameter(own), self._shared(own, theirs))

    @property
    def _numbers(self) -> DHParameterNumbers:
        return DHParameterNumbers(self.prime, GENERATOR)

    @property
    def _size(self) -> int:
        return self.prime.bit_length() // 8

    def _new_key(self) -> DHPrivateKey:
        return self._numbers.parameters().generate_private_key()

    def _parameter(self, own: DHPrivateKey) -> bytes:
        return own.public_key().public_numbers().y.to_bytes(self._size, "big")

    def _shared(self, own: DHPrivateKey, theirs: DHPublicNumbers) -> SharedSecret:
        return SharedSecret(own.exchange(theirs.public_key()))  # as long as the modulus

    def _read(self, parameter: bytes) -> DHPublicNumbers:
        value = int.from_bytes(parameter, "big")
        # SP 800-56A 5.6.2.3.2; shorter than the modulus where the sender has taken leading zeros away.
        if not 1 < value < self.prime - 1 or len(parameter) > self._size:
            raise Fault("The value of the key exchange is out of its range.")
        return DHPublicNumbers(value, self._numbers)


@dataclass(frozen=True)
class _Encryption:
    """xA: random of the owner. xB: random of the device, encrypted to the owner's RSA key."""

    random_size: int  # bytes

    def offer(self, owner_key: PrivateKey) -> OwnerExchange:
        if not isinstance(owner_key, rsa.RSAPrivateKey):
            raise Fault("This key exchange needs an owner with an RSA key.")
        random = secrets.token_bytes(self.random_size)

        def finish(answer: bytes) -> SharedSecret:
            try:
                theirs = owner_key.decrypt(answer, _OAEP)
            except ValueError as error:
                raise Fault("The answer of the key exchange cannot be decrypted.") from error
            if len(theirs) != self.random_size:
                raise Fault("The random of the key exchange has not the length that it must have.")
            return SharedSecret(theirs, random)

        return OwnerExchange(random, finish)

    def answer(self, offered: bytes, owner_key: PublicKey) -> Answer:
        if not isinstance(owner_key, rsa.RSAPublicKey) or len(offered) != self.random_size:
            raise Fault("The random of the key exchange has not the length that it must have.")
        random = secrets.token_bytes(self.random_size)
        return Answer(owner_key.encrypt(random, _OAEP), SharedSecret(random, offered))


_EXCHANGES: dict[KeyExchangeSuite, _Exchange] = {
    KeyExchangeSuite.ECDH256: _EllipticCurve(ec.SECP256R1(), 32, 16),
    KeyExchangeSuite.ECDH384: _EllipticCurve(ec.SECP384R1(), 48, 48),
    KeyExchangeSuite.DHKEX_ID14: _ModularGroup(PRIME_2048),
    KeyExchangeSuite.DHKEX_ID15: _ModularGroup(PRIME_3072),
    KeyExchangeSuite.ASYMKEX2048: _Encryption(32),
    KeyExchangeSuite.ASYMKEX3072: _Encryption(96),
}


def suites_for(owner_key: PublicKey) -> tuple[KeyExchangeSuite, ...]:
    """The suites that fit an owner's key; the first is the usual one."""
    if isinstance(owner_key, ec.EllipticCurvePublicKey):
        return (KeyExchangeSuite.ECDH384,) if owner_key.key_size == _P_384 else (KeyExchangeSuite.ECDH256,)
    if owner_key.key_size == PRIME_2048.bit_length():
        return (KeyExchangeSuite.DHKEX_ID14, KeyExchangeSuite.ASYMKEX2048)
    return (KeyExchangeSuite.DHKEX_ID15, KeyExchangeSuite.ASYMKEX3072)


def offer(suite: KeyExchangeSuite, owner_key: PrivateKey) -> OwnerExchange:
    """The owner begins.

    Raises:
        Fault: The suite does not fit its key.
    """
    _check_fits(suite, owner_key.public_key())
    return _EXCHANGES[suite].offer(owner_key)


def answer(suite: KeyExchangeSuite, offered: bytes, owner_key: PublicKey) -> Answer:
    """The device answers.

    Args:
        suite: As it asked for in message 60.
        offered: xA.
        owner_key: Of the owner that has proved itself.

    Raises:
        Fault: xA is not well formed, or the suite does not fit the owner's key.
    """
    _check_fits(suite, owner_key)
    return _EXCHANGES[suite].answer(offered, owner_key)


def _check_fits(suite: KeyExchangeSuite, owner_key: PublicKey) -> None:
    if suite not in suites_for(owner_key):
        raise Fault(f"The key exchange {suite} does not fit the key of the owner.")
