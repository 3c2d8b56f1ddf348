"""The recorded exchanges: complete runs of DI, TO1 and TO2 against go-fdo, with all secrets of the device.

They are in tests/golden/fdo, one file each; the names of the fields are those of the files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

_FOLDER: Final = Path(__file__).parents[2] / "golden" / "fdo"


@dataclass(frozen=True)
class Exchange:
    """One request and its answer, as they were on the wire."""

    type: int
    request: bytes
    response_type: int
    response: bytes


@dataclass(frozen=True)
class Plaintext:
    """What was in one encrypted message: 65 to 71, in the order in which they were sent."""

    number: int
    is_of_owner: bool
    content: bytes


@dataclass(frozen=True)
class KeyExchange:
    """Both parameters, what came out of them, and the key derived from that."""

    x_a: bytes
    x_b: bytes
    shared_secret: bytes
    context_random: bytes
    session_key: bytes


@dataclass(frozen=True)
class Vector:
    """One recorded onboarding. `name` is that of its file; `new_guid` is None where the credential was used again."""

    name: str
    kex: str
    cipher: int
    device_key_pkcs8: bytes
    hmac_secret: bytes
    guid: bytes
    new_guid: bytes | None
    exchanges: tuple[Exchange, ...]
    key_exchange: KeyExchange
    plaintexts: tuple[Plaintext, ...]
    enrolled_certificate: bytes

    def __str__(self) -> str:
        """Names it in the output of pytest."""
        return self.name

    def messages(self, number: int) -> tuple[bytes, ...]:
        """The bodies of all messages with this number, as they were on the wire."""
        return tuple(body for sent, body in self.all_messages() if sent == number)

    def message(self, number: int) -> bytes:
        """The body of the first message with this number."""
        return self.messages(number)[0]

    def plaintext(self, number: int) -> bytes:
        """What was in the first encrypted message with this number."""
        return next(plain.content for plain in self.plaintexts if plain.number == number)

    def all_messages(self) -> tuple[tuple[int, bytes], ...]:
        """Number and body of each message, in the order in which they were sent."""
        return tuple(
            message
            for each in self.exchanges
            for message in ((each.type, each.request), (each.response_type, each.response))
        )


@cache
def vectors() -> tuple[Vector, ...]:
    """All of them, sorted by name."""
    return tuple(_read(path) for path in sorted(_FOLDER.glob("*.json")))


def vector(name: str) -> Vector:
    """The one of this name."""
    return next(each for each in vectors() if each.name == name)


def _read(path: Path) -> Vector:
    fields = json.loads(path.read_text("ascii"))
    exchanges = tuple(
        Exchange(each["type"], bytes.fromhex(each["req"]), each["resp_type"], bytes.fromhex(each["resp"]))
        for each in fields["messages"]
    )
    return Vector(
        name=path.stem,
        kex=fields["kex"],
        cipher=fields["cipher"],
        device_key_pkcs8=bytes.fromhex(fields["device_key_pkcs8"]),
        hmac_secret=bytes.fromhex(fields["hmac_secret"]),
        guid=bytes.fromhex(fields["guid"]),
        new_guid=bytes.fromhex(fields["new_guid"]) if fields["new_guid"] else None,
        exchanges=exchanges,
        key_exchange=_key_exchange(fields["kexstate"]),
        plaintexts=_plaintexts(exchanges, fields["to2_plaintexts"]),
        enrolled_certificate=bytes.fromhex(fields["enrolled_cert"]),
    )


def _key_exchange(fields: Mapping[str, Any]) -> KeyExchange:
    return KeyExchange(*(bytes.fromhex(fields[name]) for name in ("xA", "xB", "ShSe", "ContextRand", "SEK")))


def _plaintexts(exchanges: tuple[Exchange, ...], recorded: list[list[str]]) -> tuple[Plaintext, ...]:
    first_encrypted = 65
    numbers = [number for each in exchanges for number in (each.type, each.response_type) if number >= first_encrypted]
    return tuple(
        Plaintext(number, who == "o", bytes.fromhex(content))
        for number, (who, content) in zip(numbers, recorded, strict=True)
    )
