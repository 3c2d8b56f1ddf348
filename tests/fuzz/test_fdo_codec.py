"""What FDO reads first of hostile bytes: 100,000 cases end in a value or in a `Fault`, and no bomb takes much memory.

Damaged are the recorded messages, what was in the encrypted ones, and parts of them: bytes of a quarter, values of
another half; the rest is made up. `cbor2` judges each one too: only what is encoded again to the same bytes is read
(RFC 8949 4.2.1).
"""

from __future__ import annotations

import random
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives import serialization

from enroll.fdo import cbor
from enroll.fdo.cose import Sign1
from enroll.fdo.fault import Fault
from enroll.fdo.hashes import Hash
from enroll.fdo.key_exchange import KeyExchangeSuite, SharedSecret, answer, suites_for
from enroll.fdo.messages import EntityAttestationToken, HelloRv, HelloRvAck, ManufacturingInfo
from enroll.fdo.public_key import FdoPublicKey, signature_type
from enroll.fdo.to2_messages import (
    DeviceServiceInfo,
    DeviceServiceInfoReady,
    HelloDevice,
    OwnerServiceInfo,
    OwnerServiceInfoReady,
    ProveOvHdr,
    SetupDevice,
)
from enroll.fdo.tunnel import CipherSuite, open_tunnel
from enroll.fdo.voucher import VoucherEntry, VoucherHeader
from enroll.keystore.base import PublicKey
from tests.support.byte_mutation import mutations
from tests.support.fdo import reference_codec
from tests.support.fdo.vectors import Vector, vectors
from tests.support.reliability.measured import measured

CASES = 100_000
SHARES = 10  # tests, so that they can run next to each other
MEMORY = 4 << 20  # bytes for one item of 64 KiB; 2.6 million are taken by the worst one that we know

Use = Callable[[bytes], object]


@dataclass(frozen=True)
class Seed:
    """What is damaged, and what reads it."""

    name: str
    data: bytes
    use: Use


def reads(reader: Callable[[cbor.Item], object]) -> Use:
    return lambda data: reader(cbor.read(data))


READERS: Mapping[int, Use] = {
    10: reads(ManufacturingInfo.read),
    11: reads(lambda item: [VoucherHeader.read(part.embedded()) for part in item.array(1)]),
    12: reads(lambda item: [Hash.read(part) for part in item.array(1)]),
    30: reads(HelloRv.read),
    31: reads(HelloRvAck.read),
    32: reads(lambda item: EntityAttestationToken.read(Sign1.read(item).payload)),
    33: reads(Sign1.read),
    60: reads(HelloDevice.read),
    61: reads(lambda item: ProveOvHdr.read(Sign1.read(item).payload)),
    63: reads(lambda item: VoucherEntry.read(item.array(2)[1])),
    64: reads(lambda item: EntityAttestationToken.read(Sign1.read(item).payload)),
    65: reads(lambda item: SetupDevice.read(Sign1.read(item).payload)),
    66: reads(DeviceServiceInfoReady.read),
    67: reads(OwnerServiceInfoReady.read),
    68: reads(DeviceServiceInfo.read),
    69: reads(OwnerServiceInfo.read),
}


def signed_by(key: PublicKey, original: bytes) -> Use:
    """No damage leaves a signature right, but that of the header that is not signed."""
    right = Sign1.read(cbor.read(original))

    def use(data: bytes) -> None:
        signed = Sign1.read(cbor.read(data))
        signed.check(key, signature_type(key))
        assert (signed.protected, signed.payload.raw) == (right.protected, right.payload.raw)

    return use


def decrypted(vector: Vector, original: bytes) -> Use:
    """Nothing but what was encrypted is decrypted."""
    shared = SharedSecret(vector.key_exchange.shared_secret, vector.key_exchange.context_random)

    def use(data: bytes) -> None:
        open_tunnel(CipherSuite(vector.cipher), shared).decrypt(data)
        assert data == original

    return use


def agreed_on(vector: Vector, key: PublicKey) -> Use:
    suite = KeyExchangeSuite(vector.kex)
    assert suite in suites_for(key)
    return lambda data: answer(suite, data, key)


def _seeds_of(vector: Vector) -> Iterator[Seed]:
    plaintexts = [(plain.number, plain.content) for plain in vector.plaintexts]
    for number, data in [*(each for each in vector.all_messages() if each[0] in READERS), *plaintexts]:
        if number in READERS and (number < 65 or (number, data) in plaintexts):
            yield Seed(f"message {number}", data, READERS[number])
    for number, data in vector.all_messages():
        if number >= 65:
            yield Seed("encrypted", data, decrypted(vector, data))
    item = Sign1.read(cbor.read(vector.message(61))).unprotected[257]
    owner = FdoPublicKey.read(item).key
    device = serialization.load_der_private_key(vector.device_key_pkcs8, None).public_key()
    assert isinstance(device, PublicKey)
    yield Seed("public key", item.raw, reads(FdoPublicKey.read))
    for key, data in ((owner, vector.message(33)), (owner, vector.message(61)), (device, vector.message(64))):
        yield Seed("signature", data, signed_by(key, data))
    if not vector.kex.startswith("DH"):  # these take their time, and are a number only
        yield Seed("key exchange", vector.key_exchange.x_a, agreed_on(vector, owner))


@cache
def seeds() -> tuple[Seed, ...]:
    return tuple(seed for vector in vectors() for seed in _seeds_of(vector))


def made_up(chance: random.Random) -> bytes:
    """Random bytes, or heads in a row of which some claim much."""
    if chance.randrange(3) == 0:
        return chance.randbytes(chance.randrange(60))
    data = b""
    for _ in range(chance.randrange(1, 40)):
        major = chance.randrange(8) << 5
        if chance.randrange(6):
            data += bytes([major | chance.choice((0, 1, 2, 3, 20, 21, 22))])
        else:
            power = chance.randrange(4)
            data += bytes([major | 24 + power]) + chance.randbytes(1 << power)
    return data


def other_value(chance: random.Random, value: Any) -> Any:
    """Something else in the place of a value, often nearly the same."""
    nearly: list[Any] = []
    if isinstance(value, bytes) and value:
        nearly = [value[:-1], value + b"\0", bytes(len(value)), b"\xff" * len(value), value[::-1], value * 2]
    elif isinstance(value, list):
        nearly = [value[:-1], [*value, None], value[::-1], value * 2]
    elif isinstance(value, Mapping):
        nearly = [{**value, 1: -7}, {**value, "x": 0}, list(value.values())]
    elif isinstance(value, int):
        nearly = [value + 1, -1 - value, value ^ 1, value ^ 3, abs(value) << 8]
    usual = [0, 1, -1, 255, 2**32, -(2**64), b"", b"\0", bytes(16), "", "a", None, True, False, [], {}]
    return chance.choice([*nearly, *nearly, *usual])


def changed(chance: random.Random, value: Any) -> Any:
    """The value with one part of it changed, which may be within a string that is CBOR itself."""
    if chance.randrange(8) == 0:
        return other_value(chance, value)
    if isinstance(value, cbor2.CBORTag):
        return cbor2.CBORTag(value.tag ^ (chance.randrange(8) == 0), changed(chance, value.value))
    if isinstance(value, list) and value:
        at = chance.randrange(len(value))
        return [*value[:at], changed(chance, value[at]), *value[at + 1 :]]
    if isinstance(value, Mapping) and value:
        key = chance.choice(list(value))
        return {**value, key: changed(chance, value[key])}
    inside = reference_codec.deterministic_value(value, 16, 1000) if isinstance(value, bytes) else None
    if inside and isinstance(inside[0], cbor2.CBORTag | list | Mapping):
        return reference_codec.write(changed(chance, inside[0]))
    return other_value(chance, value)


def damaged(chance: random.Random, damage: Iterator[Callable[[bytes], bytes]], seed: Seed) -> bytes:
    kind = chance.randrange(4)
    if kind == 0:
        return made_up(chance)
    value = reference_codec.deterministic_value(seed.data, 16, 1000)
    if kind == 1 or value is None:
        data = seed.data
        for mutate in islice(damage, chance.randrange(1, 3)):
            data = mutate(data or b"\0")
        return data
    return reference_codec.write(changed(chance, value[0]))


def cases(count: int, seed: int) -> Iterator[Seed]:
    chance, damage = random.Random(seed), mutations(2 * count, seed)  # noqa: S311 - not for secrets
    for _ in range(count):
        source = chance.choice(seeds())
        yield replace(source, data=damaged(chance, damage, source))


def outcome(case: Seed) -> str:
    """Whether it was read; that only what has one encoding is; anything but a `Fault` fails the test."""
    try:
        case.use(case.data)
        result = "read"
    except Fault as fault:
        result = f"{fault.code}"
    if case.name != "key exchange":
        try:
            is_read = bool(cbor.read(case.data))
        except cbor.Malformed:
            is_read = False
        is_right = reference_codec.deterministic_value(case.data, cbor.DEPTH_LIMIT, cbor.PARTS_LIMIT) is not None
        assert is_read == is_right, case.data.hex()
    return result


@pytest.mark.parametrize("share", range(SHARES))
def test_damaged_and_made_up_bytes_are_read_or_refused(share: int) -> None:
    tally: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what RFC 5280 forbids and old CAs did
        for case in cases(CASES // SHARES, share):
            tally[outcome(case)] += 1
    print(share, dict(tally))  # noqa: T201 - for whoever wants to know
    assert tally["read"] > CASES // SHARES // 100  # the damage is small enough to come through the first check
    assert tally.total() == CASES // SHARES
    measured(
        "R12", f"damaged and made-up messages, share {share} of {SHARES}", messages=tally.total(), read=tally["read"]
    )


def _of_size(head: bytes, unit: bytes) -> bytes:
    """As many of `unit` behind `head` as there is room for."""
    return (head + unit * cbor.SIZE_LIMIT)[: cbor.SIZE_LIMIT]


def _head(major: cbor.Major, argument: int) -> bytes:
    first, *rest = reference_codec.write(argument)
    return bytes([major << 5 | first, *rest])


def _array(part: bytes, count: int) -> bytes:
    return _head(cbor.Major.ARRAY, count) + part * count


def _map(value: bytes, count: int) -> bytes:
    pairs = (_head(cbor.Major.UNSIGNED, key + (1 << 16)) + value for key in range(count))
    return _head(cbor.Major.MAP, count) + b"".join(pairs)


_ROOM = cbor.SIZE_LIMIT - 64
_PARTS = cbor.PARTS_LIMIT - 64
BOMBS: Mapping[str, bytes] = {
    "arrays in arrays": _of_size(b"", b"\x81"),
    "maps in maps": _of_size(b"", b"\xa1\x00"),
    "tags": _of_size(b"", b"\xc1"),
    "as many numbers as there is room for": _array(b"\0", _ROOM),
    "as many numbers as are read": _array(b"\0", _PARTS),
    "strings, as deep as is read": b"\x81" * 15 + _array(b"\x46scanse", _PARTS),
    "tagged strings, as deep as is read": b"\x81" * 13 + _array(b"\xc1\xc1\x53nineteen bytes long", _PARTS // 3),
    "empty arrays": _array(b"\x80", _PARTS),
    "empty maps": _array(b"\xa0", _PARTS),
    "arrays in arrays in an array": _array(b"\x81\x81\x80", _PARTS // 3),
    "a map": _map(b"\x42ab", _PARTS // 2),
    "a map of maps": _map(b"\xa1\x00\x00", _PARTS // 4),
    "maps, as deep as is read": b"\x81" * 14 + _array(b"\xa1\x00\x54twenty bytes of text", _PARTS // 3),
    "a map, as deep as is read": b"\x81" * 15 + _map(b"\x4aten bytes!", _PARTS // 2),
    "one string, as deep as is read": b"\x81" * 16 + _head(cbor.Major.BYTES, _ROOM) + bytes(_ROOM),
    "one text, as deep as is read": b"\x81" * 16 + _head(cbor.Major.TEXT, _ROOM) + bytes(_ROOM),
    "an array of 2^64-1": _head(cbor.Major.ARRAY, 2**64 - 1),
    "a map of 2^64-1": _head(cbor.Major.MAP, 2**64 - 1),
    "a string of 2^64-1": _head(cbor.Major.BYTES, 2**64 - 1),
    "arrays that claim what is there": _of_size(b"", _head(cbor.Major.ARRAY, 0x1000)),
    "arrays that claim more": _of_size(b"", _head(cbor.Major.ARRAY, 2**32)),
    "half of what it claims": _of_size(_head(cbor.Major.ARRAY, _ROOM // 2), b"\x45abcde"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_little_memory(name: str) -> None:
    data = BOMBS[name]
    assert len(data) <= cbor.SIZE_LIMIT
    tracemalloc.start()
    try:
        result = "read"
        try:
            item: cbor.Item | None = cbor.read(data)
        except cbor.Malformed as refusal:
            item, result = None, refusal.what
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    print(f"{name}: {peak} bytes: {result}")  # noqa: T201 - the figures
    assert item is None or item.raw == data
    assert peak < MEMORY


def test_more_than_is_read_is_not_looked_at() -> None:
    data = bytes(64 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(cbor.Malformed, match="at most"):
            cbor.read(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 16
    finally:
        tracemalloc.stop()
