"""What a device or an owner says, with one message changed on its way: for tests of the servers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from enroll.evaluation.fdo.sessions import Services
from enroll.fdo import cbor
from enroll.fdo.cose import Sign1, sign1
from enroll.fdo.messages import MessageType
from enroll.fdo.transport import Received
from enroll.keystore.base import PrivateKey
from tests.support.fdo.parties import DirectChannel, Parties

Change: TypeAlias = Callable[[bytes], bytes]


class AlteringChannel(DirectChannel):
    """Changes one message."""

    def __init__(self, services: Services, number: MessageType, change: Change) -> None:
        super().__init__(services)
        self._number = number
        self._change = change

    def exchange(self, number: MessageType, body: bytes) -> Received:
        return super().exchange(number, self._change(body) if number == self._number else body)


def trailing(data: bytes) -> bytes:
    """With something behind its end."""
    return data + b"\0"


def emptied(data: bytes) -> bytes:
    """As long as before, and of nothing but zeros."""
    return bytes(len(data))


def last_byte_changed(data: bytes) -> bytes:
    """A signature or a ciphertext stands at the end."""
    return data[:-1] + bytes([data[-1] ^ 1])


def with_part(number: int, value: cbor.Encodable) -> Change:
    """An array with another part."""

    def change(data: bytes) -> bytes:
        parts: list[cbor.Encodable] = [cbor.Raw(part.raw) for part in cbor.read(data).array()]
        return cbor.encode([*parts[:number], value, *parts[number + 1 :]])

    return change


def with_claim(name: int, value: cbor.Encodable | None) -> Change:
    """A token (EAT) with another claim; without it where `value` is None."""

    def change(data: bytes) -> bytes:
        claims: dict[int | str, cbor.Encodable] = {
            key: cbor.Raw(item.raw) for key, item in cbor.read(data).map().items()
        }
        claims[name] = value
        return cbor.encode({key: each for key, each in claims.items() if isinstance(key, int) and each is not None})

    return change


def signed_again(
    key: PrivateKey, change: Change = bytes, unprotected: Mapping[int, cbor.Encodable] | None = None
) -> Change:
    """A signature over another payload, or by another key."""

    def change_signed(data: bytes) -> bytes:
        signed = Sign1.read(cbor.read(data))
        headers = {name: cbor.Raw(item.raw) for name, item in signed.unprotected.items() if isinstance(name, int)}
        chosen = headers if unprotected is None else unprotected
        return sign1(key, signed.algorithm, change(signed.payload.raw), chosen)

    return change_signed


def in_tunnel(parties: Parties, change: Change) -> Change:
    """A message of TO2 that is changed and encrypted again with the keys of its session."""

    def change_encrypted(data: bytes) -> bytes:
        tunnel = parties.to2.tunnel
        return tunnel.encrypt(change(tunnel.decrypt(data)))

    return change_encrypted
