"""The seven recorded exchanges with go-fdo replay byte for byte; and with any part of an answer changed, they do not.

What a changed answer must lead to: message 255, about that very answer, and an end of the run. What is not covered by a
signature of the owner is covered by the tunnel (FDO 1.1, 5.5).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives import serialization

from enroll.errors import ProtocolViolation
from enroll.fdo import cbor
from enroll.fdo.cose import Sign1
from enroll.fdo.fault import ErrorCode
from enroll.fdo.messages import ErrorMessage, HelloRv, HelloRvAck, ManufacturingInfo
from enroll.fdo.to2_messages import (
    DeviceServiceInfo,
    DeviceServiceInfoReady,
    HelloDevice,
    OwnerServiceInfo,
    OwnerServiceInfoReady,
)
from enroll.fdo.voucher import OwnerChain, VoucherHeader
from tests.support.fdo.replay import Change, RecordedDevice, ReplayChannel, behind_the_tunnel
from tests.support.fdo.vectors import Vector, vector, vectors

PLAIN = vector("p256-ecdh256-a128gcm")
MALFORMED, INVALID = ErrorCode.MESSAGE_BODY, ErrorCode.INVALID_MESSAGE
VOUCHER, SIGNATURE, GUID = ErrorCode.INVALID_VOUCHER, ErrorCode.INVALID_OWNER_SIGNATURE, ErrorCode.INVALID_GUID

Make = Callable[[Any], Any]

each_recording = pytest.mark.parametrize("recorded", vectors(), ids=str)


def run_to2(device: RecordedDevice, channel: ReplayChannel, redirect: Sign1 | None = None) -> tuple[bytes, OwnerChain]:
    module = device.module()
    with device.session(channel, redirect) as session:
        session.begin()
        session.talk([module])
        session.finish()
    (certificate,) = module.certificates
    return certificate.public_bytes(serialization.Encoding.DER), session.owner_chain


def refusal(recorded: Vector, number: int, change: Change) -> ErrorMessage:
    """What the device says to an exchange in which one answer is changed."""
    device = RecordedDevice(recorded)
    changes = {f"m{number}": change}
    rendezvous, owner = device.to1(**changes), device.to2(**changes)
    with pytest.raises(ProtocolViolation) as refused:
        run_to2(device, owner, device.find_owner(rendezvous))
    assert refused.value.code == "fdo-refused"
    (reported,) = rendezvous.reported + owner.reported
    return reported


# --- as it was


@each_recording
def test_to1_replays_byte_for_byte(recorded: Vector) -> None:
    device = RecordedDevice(recorded)
    channel = device.to1()
    assert device.find_owner(channel).raw == recorded.message(33)
    assert (channel.asked, channel.reported) == ([30, 32], [])


@each_recording
def test_to2_and_fdo_csr_replay_byte_for_byte(recorded: Vector) -> None:
    device = RecordedDevice(recorded)
    channel = device.to2()
    certificate, owner = run_to2(device, channel)
    assert certificate == recorded.enrolled_certificate
    assert len(channel.asked) == len(channel.exchanges)
    assert channel.reported == []
    assert len(owner.owners) == 2


@each_recording
def test_the_next_credential_is_that_of_message_65(recorded: Vector) -> None:
    device = RecordedDevice(recorded)
    with device.session(device.to2()) as session:
        session.begin()
    following = session.next_credential
    if recorded.new_guid is None:
        assert session.is_reuse
        assert following == device.credential
        return
    rendezvous, guid, _, owner_key = cbor2.loads(cbor2.loads(recorded.plaintext(65)).value[2])
    assert following.guid == guid == recorded.new_guid
    assert following.rendezvous.encoded == cbor2.dumps(rendezvous)
    assert following.owner_key_hash.is_of(cbor2.dumps(owner_key))


@each_recording
def test_the_secret_makes_the_hmac_of_message_12(recorded: Vector) -> None:
    device = RecordedDevice(recorded)
    assert device.secret.sign(device.header.raw) == device.mac.value


READERS: dict[int, Callable[[cbor.Item], Any]] = {
    10: ManufacturingInfo.read,
    30: HelloRv.read,
    31: HelloRvAck.read,
    60: HelloDevice.read,
    66: DeviceServiceInfoReady.read,
    67: OwnerServiceInfoReady.read,
    68: DeviceServiceInfo.read,
    69: OwnerServiceInfo.read,
}


@each_recording
def test_each_message_that_is_read_encodes_to_the_same_bytes(recorded: Vector) -> None:
    plain = [(each.number, each.content) for each in recorded.plaintexts]
    clear = [(number, body) for number, body in recorded.all_messages() if number in (10, 30, 31, 60)]
    for number, body in [*clear, *plain]:
        if number in READERS:
            assert READERS[number](cbor.read(body)).encode() == body


# --- with one byte changed


def flipped(position: int, bit: int) -> Change:
    def change(body: bytes) -> bytes:
        altered = bytearray(body)
        altered[position] ^= bit
        return bytes(altered)

    return change


def is_unsigned(recorded: Vector, number: int, position: int) -> bool:
    """Whether nothing that the device has says what this byte must be.

    Only the owner knows NonceTO2ProveDv; and of a chain in header 257 the key alone counts, because the chain that is
    judged stands in the voucher.
    """
    if number != 61:
        return False
    headers, body = cbor2.loads(recorded.message(61)).value[1], recorded.message(61)
    chain = cbor2.dumps(headers[257]) if headers[257][1] == 2 else b""
    free = [(body.index(part), len(part)) for part in (headers[256], chain)]
    return any(start <= position < start + size for start, size in free)


CODES = {
    33: {MALFORMED, INVALID, SIGNATURE},
    61: {MALFORMED, INVALID, SIGNATURE, VOUCHER, GUID},
    63: {MALFORMED, INVALID, VOUCHER},
    65: {MALFORMED, INVALID},
    67: {MALFORMED, INVALID},
    69: {MALFORMED, INVALID},
    71: {MALFORMED, INVALID},
}


@pytest.mark.parametrize("number", sorted(CODES))
@each_recording
def test_any_answer_with_any_byte_changed_is_refused(recorded: Vector, number: int) -> None:
    step = 3 if recorded is PLAIN else 211
    for position in range(0, len(recorded.messages(number)[-1]), step):
        if is_unsigned(recorded, number, position):
            continue
        reported = refusal(recorded, number, flipped(position, 0x80 if position % 2 else 0x01))
        # Who signed to1d is known only after the voucher.
        assert reported.previous == number or (number == 33 and (reported.previous, reported.code) == (63, SIGNATURE))
        assert reported.code in CODES[number]


@pytest.mark.parametrize("number", [65, 67, 69, 71])
@pytest.mark.parametrize("ending", [b"", b"\x00", b"\xf6" * 40], ids=["cut", "one byte more", "many bytes more"])
def test_what_is_behind_the_tunnel_ends_where_it_ends(number: int, ending: bytes) -> None:
    change = behind_the_tunnel(PLAIN, lambda plain: plain + ending if ending else plain[:-1])
    reported = refusal(PLAIN, number, change)
    assert (reported.previous, reported.code) == (number, MALFORMED)


@pytest.mark.parametrize("number", [65, 67, 69, 71])
def test_behind_the_tunnel_any_byte_may_be_anything_and_nothing_worse_than_a_refusal_comes_of_it(number: int) -> None:
    # 67 and 69 are the owner's to say, so that some changes make another proper message; 65 and 71 have no such bytes.
    size = len([each for each in PLAIN.plaintexts if each.number == number][-1].content)
    for position in range(0, size, 3):
        for bit in (0x01, 0x80):
            change = behind_the_tunnel(PLAIN, flipped(position, bit))
            if number in (65, 71):
                assert refusal(PLAIN, number, change).previous == number
            else:
                _at_most_refused(change, number)


def _at_most_refused(change: Change, number: int) -> None:
    device = RecordedDevice(PLAIN)
    channel = device.to2(**{f"m{number}": change})
    try:
        run_to2(device, channel)
    except ProtocolViolation:
        assert [each.previous for each in channel.reported] == [number]
    except (AssertionError, IndexError):  # the device goes on in another way than the recording
        assert number in (67, 69)


# --- with one field changed


def clear(make: Make) -> Change:
    return lambda body: cbor2.dumps(make(cbor2.loads(body)))


def hidden(make: Make) -> Change:
    return behind_the_tunnel(PLAIN, clear(make))


def signed(make: Make, part: int = 2) -> Make:
    """Change a part of a COSE_Sign1: by default what is in its payload."""

    def change(message: cbor2.CBORTag) -> cbor2.CBORTag:
        parts = list(message.value)
        parts[part] = cbor2.dumps(make(cbor2.loads(parts[part]))) if part in (0, 2) else make(parts[part])
        return cbor2.CBORTag(message.tag, parts)

    return change


def with_part(position: int, value: Any) -> Make:
    return lambda parts: [
        *parts[:position],
        value(parts[position]) if callable(value) else value,
        *parts[position + 1 :],
    ]


def untagged(message: cbor2.CBORTag) -> Any:
    return message.value


def tagged_otherwise(message: cbor2.CBORTag) -> cbor2.CBORTag:
    return cbor2.CBORTag(98, message.value)


def without(key: int) -> Make:
    return lambda headers: {name: value for name, value in headers.items() if name != key}


def replaced(key: int, value: Any) -> Make:
    return lambda headers: {**headers, key: value}


def inside_entry(make: Make) -> Make:
    return lambda parts: [parts[0], make(parts[1])]


ZERO_HASH = [-16, bytes(32)]
FOREIGN = cbor2.loads(cbor2.loads(vector("p256-reuse").message(61)).value[2])
FOREIGN_KEY = cbor2.loads(vector("p256-reuse").message(61)).value[1][257]
NOTHING = cbor2.CBORTag(18, [b"", {}, b"", b""])
KEY_257 = cbor2.loads(PLAIN.message(61)).value[1][257]


def of_61(position: int, value: Any) -> Change:
    """A field of 61, which its signature does not cover any more."""
    return clear(signed(with_part(position, value)))


CASES: list[tuple[str, int, Change, ErrorCode]] = [
    ("no tag", 31, lambda _: b"\xf6", MALFORMED),
    ("a nonce of 15 bytes", 31, clear(with_part(0, bytes(15))), MALFORMED),
    ("another kind of signature", 31, clear(with_part(1, [-35, b""])), INVALID),
    ("a kind of signature that does not exist", 31, clear(with_part(1, [-99, b""])), INVALID),
    ("one part more", 31, clear(lambda parts: [*parts, 0]), MALFORMED),
    ("no tag", 33, clear(untagged), MALFORMED),
    ("another tag", 33, clear(tagged_otherwise), MALFORMED),
    ("no algorithm", 33, clear(signed(without(1), 0)), INVALID),
    ("an unknown algorithm", 33, clear(signed(replaced(1, -8), 0)), INVALID),
    ("a critical header", 33, clear(signed(replaced(2, [1]), 0)), INVALID),
    ("no addresses", 33, clear(signed(with_part(0, None))), MALFORMED),
    ("33 addresses", 33, clear(signed(with_part(0, lambda addresses: addresses * 33))), INVALID),
    ("no hash", 33, clear(signed(with_part(1, None))), MALFORMED),
    ("one part more", 33, clear(signed(lambda parts: [*parts, 0])), MALFORMED),
    ("no tag", 61, clear(untagged), MALFORMED),
    ("another tag", 61, clear(tagged_otherwise), MALFORMED),
    ("no nonce", 61, clear(signed(without(256), 1)), INVALID),
    ("no owner key", 61, clear(signed(without(257), 1)), INVALID),
    ("no headers", 61, clear(signed(lambda _: {}, 1)), INVALID),
    ("a nonce of 17 bytes", 61, clear(signed(replaced(256, bytes(17)), 1)), MALFORMED),
    ("another owner key", 61, clear(signed(replaced(257, FOREIGN_KEY), 1)), SIGNATURE),
    ("a key in the encoding Crypto", 61, clear(signed(replaced(257, [10, 0, KEY_257[2]]), 1)), INVALID),
    ("a key of another type", 61, clear(signed(replaced(257, [11, 1, KEY_257[2]]), 1)), INVALID),
    ("a key that is none", 61, clear(signed(replaced(257, [10, 1, b"\x30\x00"]), 1)), INVALID),
    ("another algorithm in the header", 61, clear(signed(replaced(1, -35), 0)), SIGNATURE),
    ("no signature", 61, clear(signed(lambda _: b"", 3)), SIGNATURE),
    ("a signature of zeros", 61, clear(signed(lambda _: bytes(64), 3)), SIGNATURE),
    ("a signature with a byte more", 61, clear(signed(lambda signature: signature + b"\x00", 3)), SIGNATURE),
    ("another header", 61, of_61(0, FOREIGN[0]), SIGNATURE),
    ("another number of entries", 61, of_61(1, 2), SIGNATURE),
    ("another HMAC", 61, of_61(2, FOREIGN[2]), SIGNATURE),
    ("another nonce", 61, of_61(3, bytes(16)), SIGNATURE),
    ("another sigInfo", 61, of_61(4, [-35, b""]), SIGNATURE),
    ("another xA", 61, of_61(5, FOREIGN[5]), SIGNATURE),
    ("another HelloDeviceHash", 61, of_61(6, ZERO_HASH), SIGNATURE),
    ("another size", 61, of_61(7, 1), SIGNATURE),
    ("the index of another entry", 63, clear(with_part(0, 1)), INVALID),
    ("the largest index", 63, clear(with_part(0, 2**64 - 1)), INVALID),
    ("a negative index", 63, clear(with_part(0, -1)), MALFORMED),
    ("no entry", 63, clear(with_part(1, None)), MALFORMED),
    ("an entry without tag", 63, clear(inside_entry(untagged)), MALFORMED),
    ("an empty entry", 63, clear(with_part(1, NOTHING)), MALFORMED),
    ("another hash over what is before", 63, clear(inside_entry(signed(with_part(0, ZERO_HASH)))), VOUCHER),
    ("another hash over the device", 63, clear(inside_entry(signed(with_part(1, ZERO_HASH)))), VOUCHER),
    ("something in extra", 63, clear(inside_entry(signed(with_part(2, None)))), VOUCHER),
    ("another owner", 63, clear(inside_entry(signed(with_part(3, FOREIGN_KEY)))), VOUCHER),
    ("a signature of zeros", 63, clear(inside_entry(signed(lambda _: bytes(64), 3))), VOUCHER),
    ("the entry of another device", 63, lambda _: vector("p256-reuse").message(63), VOUCHER),
    ("in clear", 65, lambda _: PLAIN.plaintext(65), MALFORMED),
    ("with another suite", 65, clear(signed(replaced(1, 3), 0)), INVALID),
    ("without suite", 65, clear(signed(without(1), 0)), INVALID),
    ("without initialization vector", 65, clear(signed(without(5), 1)), INVALID),
    ("an initialization vector of 11 bytes", 65, clear(signed(lambda headers: {5: headers[5][:11]}, 1)), MALFORMED),
    ("of another session", 65, lambda _: vector("p256-reuse").message(65), INVALID),
    ("no tag", 65, hidden(untagged), MALFORMED),
    ("another rendezvous", 65, hidden(signed(with_part(0, []))), SIGNATURE),
    ("another GUID", 65, hidden(signed(with_part(1, bytes(16)))), SIGNATURE),
    ("another nonce", 65, hidden(signed(with_part(2, bytes(16)))), SIGNATURE),
    ("another Owner2Key", 65, hidden(signed(with_part(3, FOREIGN_KEY))), SIGNATURE),
    ("a signature of zeros", 65, hidden(signed(lambda _: bytes(64), 3)), SIGNATURE),
    ("in clear", 67, lambda _: PLAIN.plaintext(67), MALFORMED),
    ("a size of 17 bits", 67, hidden(lambda _: [65536]), MALFORMED),
    ("a negative size", 67, hidden(lambda _: [-1]), MALFORMED),
    ("a text", 67, hidden(lambda _: ["1300"]), MALFORMED),
    ("two sizes", 67, hidden(lambda _: [1300, 1300]), MALFORMED),
    ("no array", 67, hidden(lambda _: None), MALFORMED),
    ("message 65 again", 67, lambda _: PLAIN.message(65), INVALID),
    ("in clear", 69, lambda _: PLAIN.plaintext(69), MALFORMED),
    ("numbers for booleans", 69, hidden(lambda _: [0, 1, []]), MALFORMED),
    ("two parts", 69, hidden(lambda _: [False, []]), MALFORMED),
    ("the empty pair of old implementations", 69, hidden(lambda _: [False, True, [[]]]), MALFORMED),
    ("a text for a value", 69, hidden(lambda _: [False, True, [["fdo.csr:active", "f5"]]]), MALFORMED),
    ("a byte string for a key", 69, hidden(lambda _: [False, True, [[b"fdo.csr:active", b"\xf5"]]]), MALFORMED),
    ("a key of 129 bytes", 69, hidden(lambda _: [False, True, [["m:" + "k" * 127, b"\xf5"]]]), MALFORMED),
    ("a value that is no CBOR", 69, hidden(lambda _: [False, True, [["fdo.csr:active", b"\xff"]]]), MALFORMED),
    ("no value", 69, hidden(lambda _: [False, True, [["fdo.csr:active", b""]]]), INVALID),
    ("no module", 69, hidden(lambda _: [False, True, [[":active", b"\xf5"]]]), INVALID),
    ("no word", 69, hidden(lambda _: [False, True, [["fdo.csr:", b"\xf5"]]]), INVALID),
    ("no key", 69, hidden(lambda _: [False, True, [["", b"\xf5"]]]), INVALID),
    ("done and more", 69, hidden(lambda _: [True, True, []]), INVALID),
    ("an answer of before", 69, lambda _: PLAIN.messages(69)[0], INVALID),
    ("in clear", 71, lambda _: PLAIN.plaintext(71), MALFORMED),
    ("another nonce", 71, hidden(lambda _: [bytes(16)]), INVALID),
    ("the nonce of message 70", 71, hidden(lambda _: cbor2.loads(PLAIN.plaintext(70))), INVALID),
    ("message 70 as it was sent", 71, lambda _: PLAIN.message(70), INVALID),
    ("a short nonce", 71, hidden(lambda _: [bytes(15)]), MALFORMED),
    ("two nonces", 71, hidden(lambda nonces: nonces * 2), MALFORMED),
    ("no nonce", 71, hidden(lambda _: []), MALFORMED),
]


@pytest.mark.parametrize(
    ("number", "change", "code"), [case[1:] for case in CASES], ids=[f"{number}: {name}" for name, number, *_ in CASES]
)
def test_an_answer_with_a_field_changed_is_refused_at_once(number: int, change: Change, code: ErrorCode) -> None:
    reported = refusal(PLAIN, number, change)
    assert (reported.previous, ErrorCode(reported.code)) == (number, code)


def test_a_redirection_with_another_signature_is_refused_once_the_owner_is_known() -> None:
    reported = refusal(PLAIN, 33, lambda _: vector("p256-reuse").message(33))
    assert (reported.previous, reported.code) == (63, SIGNATURE)


def test_an_empty_array_in_67_means_the_usual_size() -> None:
    device = RecordedDevice(PLAIN)
    certificate, _ = run_to2(device, device.to2(m67=hidden(lambda _: [])))
    assert certificate == PLAIN.enrolled_certificate


def test_the_recordings_have_headers_of_different_devices() -> None:
    headers = {VoucherHeader.read(cbor.read(RecordedDevice(each).header.raw)).guid for each in vectors()}
    assert len(headers) == 7
