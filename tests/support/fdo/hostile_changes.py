"""What is done to messages. Nothing is left to chance: each run does the same."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from typing import Any

import cbor2

from enroll.keystore.base import PrivateKey
from tests.support.fdo import reference_codec as codec
from tests.support.fdo.hostile_case import Arrange
from tests.support.fdo.hostile_stage import Stage
from tests.support.fdo.scripted_owner import Hook, HttpAnswer, algorithm

ENCRYPTED = (65, 67, 69, 71)
_BREAK = b"\xff"


def noise(size: int) -> bytes:
    """Bytes that mean nothing."""
    return hashlib.shake_128(b"noise").digest(size)


def garbled(data: bytes) -> bytes:
    """As the conformance tool does it: of the same length, noise in the first quarter, zeros in the rest."""
    size = max(1, len(data) // 4)
    return noise(size) + bytes(len(data) - size)


def zeroed(data: bytes) -> bytes:
    """The same where the noise happens to be the byte that was there."""
    return data[:1] + bytes(len(data) - 1)


def last_bit(data: bytes) -> bytes:
    """A signature or a tag of encryption stands at the end."""
    return data[:-1] + bytes([data[-1] ^ 1])


# --- parts of messages


def part(position: int, value: Any) -> Hook:
    """An array with another part: a value, or what a function makes of the right one."""

    def change(parts: Any) -> list[Any]:
        found = value(parts[position]) if callable(value) else value
        return [*parts[:position], found, *parts[position + 1 :]]

    return change


def within(position: int, value: Any) -> Hook:
    """A message with a tag around an array, encoded, with another part of the array."""

    def change(data: bytes) -> bytes:
        tagged = codec.read(data)
        return codec.write(cbor2.CBORTag(tagged.tag, part(position, value)(list(tagged.value))))

    return change


PROTECTED, UNPROTECTED, PAYLOAD, SIGNATURE_PART = range(4)
ALTERED: dict[str, tuple[str, Hook]] = {
    "protected": ("the protected header is noise", within(PROTECTED, noise(24))),
    "unprotected": ("the unprotected header is empty", within(UNPROTECTED, {})),
    "payload": ("the payload is garbled", within(PAYLOAD, garbled)),
    "signature": ("the signature is garbled", within(SIGNATURE_PART, garbled)),
    "signature-bit": ("one bit of the signature is another", within(SIGNATURE_PART, last_bit)),
}


def another_iv(body: bytes) -> bytes:
    """A COSE_Encrypt0 with another initialization vector."""
    return within(1, lambda headers: {5: noise(len(headers[5]))})(body)  # type: ignore[no-any-return]


def another_ciphertext(body: bytes) -> bytes:
    """A COSE_Encrypt0 with a garbled ciphertext."""
    return within(2, garbled)(body)  # type: ignore[no-any-return]


def signed_by(key: PrivateKey) -> Hook:
    """The same, signed by another key."""

    def change(message: bytes) -> bytes:
        _, headers, payload, _ = codec.read(message).value
        return codec.sign1(key, algorithm(key), payload, headers)

    return change


def nth(number: int, change: Hook) -> Hook:
    """Change only the answer of that number, counted from 1 on."""
    counter = itertools.count(1)
    return lambda value: change(value) if next(counter) == number else value


def since(number: int, change: Hook) -> Hook:
    """Change that answer and all after it."""
    counter = itertools.count(1)
    return lambda value: change(value) if next(counter) >= number else value


# --- where on the stage


def payload(message: int, change: Hook) -> Arrange:
    """What is signed, or the whole of a message that is not; everything around it is right."""
    return lambda stage: _put(stage.owner.hooks.payload, message, change)


def headers(message: int, change: Hook) -> Arrange:
    """The unprotected header."""
    return lambda stage: _put(stage.owner.hooks.headers, message, change)


def message(number: int, change: Hook) -> Arrange:
    """All bytes of a message, before encryption."""

    def arrange(stage: Stage) -> None:
        hooks = stage.rendezvous.hooks if number < 60 else stage.owner.hooks
        hooks.signed[number] = change

    return arrange


def body(number: int, change: Hook) -> Arrange:
    """All bytes of an encrypted message, as they go out."""
    return lambda stage: _put(stage.owner.hooks.encrypted, number, change)


def again(earlier: int, later: int) -> Arrange:
    """An encrypted message comes once more in the place of another one."""
    kept: list[bytes] = []

    def keep(data: bytes) -> bytes:
        kept.append(data)
        return data

    def arrange(stage: Stage) -> None:
        kept.clear()
        if earlier == later:
            stage.owner.hooks.encrypted[later] = lambda data: kept[0] if kept else keep(data)
        else:
            stage.owner.hooks.encrypted.update({earlier: keep, later: lambda _: kept[0]})

    return arrange


def owner_error(number: int, code: int = 500) -> Arrange:
    """The owner says no."""

    def arrange(stage: Stage) -> None:
        error = codec.write([code, number - 1, "no", None, None])
        stage.owner.hooks.answer[number] = lambda _: HttpAnswer(255, error, 500)

    return arrange


def hangs_up(number: int) -> Arrange:
    """The connection is closed in the place of an answer."""

    def arrange(stage: Stage) -> None:
        stage.wire[number] = lambda _: iter([b""])

    return arrange


def with_stage(make: Callable[[Stage], Arrange]) -> Arrange:
    """What needs to know the stage."""
    return lambda stage: make(stage)(stage)


def _put(hooks: dict[int, Hook], number: int, change: Hook) -> None:
    hooks[number] = change


# --- encodings that FDO does not allow (RFC 8949 4.2.1)


def longer_head(data: bytes) -> bytes:
    """The number in the first head takes a byte more than it needs."""
    major, argument = data[0] & 0xE0, data[0] & 0x1F
    assert argument < 24
    return bytes([major | 24, argument]) + data[1:]


def without_length(data: bytes) -> bytes:
    """The first array does not say how many parts it has."""
    place = 1 if data[0] >> 5 == 6 else 0  # behind a tag
    assert data[place] >> 5 == 4
    return data[:place] + b"\x9f" + data[place + 1 :] + _BREAK


def one_part_more(data: bytes) -> bytes:
    """The first array has null behind its last part."""
    place = 1 if data[0] >> 5 == 6 else 0
    return data[:place] + bytes([data[place] + 1]) + data[place + 1 :] + b"\xf6"


def nested(head: bytes, depth: int) -> bytes:
    """Something in something in something."""
    return head * depth + b"\xf6"
