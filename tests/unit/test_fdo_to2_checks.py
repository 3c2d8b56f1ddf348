"""Each check that a device must make in TO2 (FDO 1.1, 5.5), against an owner that signs and encrypts what is wrong.

The owner is written from the facts alone (tests/support/fdo/scripted_owner.py). What is refused is refused at once:
with message 255 about that answer, and without the next message.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from enroll.errors import EnrollmentRefused, ProtocolViolation
from enroll.fdo.fault import ErrorCode
from enroll.fdo.hashes import HashAlgorithm
from enroll.fdo.key_exchange import KeyExchangeSuite
from enroll.fdo.to2 import SESSION_LIMIT, Session
from enroll.fdo.transport import ErrorReceived
from enroll.fdo.tunnel import CipherSuite
from enroll.fdo.voucher import OwnerChain
from tests.support.clocks import SteppedClock
from tests.support.fdo import reference_codec as codec
from tests.support.fdo.in_process import Onboarding, ScriptedChannel
from tests.support.fdo.reference_codec import PrivateKey
from tests.support.fdo.scripted_csr import ScriptedCsr
from tests.support.fdo.scripted_owner import (
    Hook,
    HttpAnswer,
    ScriptedDevice,
    ScriptedVoucher,
    algorithm,
    public_key,
    redirection,
    rendezvous,
)
from tests.support.pki import new_key

DEVICE, MANUFACTURER, OWNER, STRANGER = (new_key() for _ in range(4))
RSA_KEY = rsa.generate_private_key(65537, 2048)
MALFORMED, INVALID, INTERNAL = ErrorCode.MESSAGE_BODY, ErrorCode.INVALID_MESSAGE, ErrorCode.INTERNAL
VOUCHER, SIGNATURE, GUID = ErrorCode.INVALID_VOUCHER, ErrorCode.INVALID_OWNER_SIGNATURE, ErrorCode.INVALID_GUID
REUSE = ErrorCode.REUSE_REFUSED


def new() -> Onboarding:
    return Onboarding.new(DEVICE, MANUFACTURER, OWNER)


def refused(case: Onboarding, at: int, code: ErrorCode) -> None:
    """The device refuses answer `at` with `code`, and says nothing more."""
    channel = ScriptedChannel(case.owner)
    with pytest.raises(ProtocolViolation) as raised:
        case.run(channel)
    assert raised.value.code == "fdo-refused"
    assert [(each.previous, ErrorCode(each.code)) for each in channel.reported] == [(at, code)]
    assert case.owner.asked[-1] == at - 1


def succeeds(case: Onboarding) -> Session:
    channel = ScriptedChannel(case.owner)
    session = case.run(channel)
    assert channel.reported == []
    assert case.owner.is_done
    return session


def with_payload(number: int, hook: Hook) -> Onboarding:
    case = new()
    case.owner.hooks.payload[number] = hook
    return case


def part(position: int, value: Any) -> Hook:
    def change(parts: list[Any]) -> list[Any]:
        found = value(parts[position]) if callable(value) else value
        return [*parts[:position], found, *parts[position + 1 :]]

    return change


def signed_by(key: PrivateKey) -> Callable[[bytes], bytes]:
    """The same, signed by another key."""

    def change(message: bytes) -> bytes:
        _, headers, payload, _ = codec.read(message).value
        return codec.sign1(key, algorithm(key), payload, headers)

    return change


# --- nothing is wrong


@pytest.mark.parametrize("cipher", [CipherSuite.A128GCM, CipherSuite.A256GCM, CipherSuite.AES_CCM_64_128_128])
def test_an_owner_written_from_the_facts_alone_onboards_the_device(cipher: CipherSuite) -> None:
    case = new()
    case.cipher = cipher
    session = succeeds(case)
    following = session.next_credential
    assert (following.guid, following.rendezvous.encoded) == (
        case.owner.next_guid,
        codec.write(case.owner.next_rendezvous),
    )
    assert following.owner_key_hash.is_of(codec.write(public_key(OWNER.public_key())))
    assert isinstance(case.owner.module, ScriptedCsr)
    (request,) = case.owner.module.requests
    assert request.public_key() == case.identity_key.public_key()


def test_an_owner_with_an_rsa_key_onboards_the_device() -> None:
    case = Onboarding.new(RSA_KEY, RSA_KEY, RSA_KEY)
    case.exchange = KeyExchangeSuite.ASYMKEX2048
    succeeds(case)


@pytest.mark.parametrize("count", [1, 2, 10, 255])
def test_all_entries_of_a_voucher_are_asked_for_in_their_order(count: int) -> None:
    case = new()
    owners = [STRANGER] * (count - 1) + [OWNER]
    case.show(ScriptedVoucher.of(case.device, MANUFACTURER, owners))
    session = succeeds(case)
    assert case.owner.asked.count(62) == count
    assert len(session.owner_chain.owners) == count + 1


def test_without_entries_the_manufacturer_is_the_owner() -> None:
    case = Onboarding.new(DEVICE, MANUFACTURER, MANUFACTURER)
    case.show(ScriptedVoucher.of(case.device, MANUFACTURER, []))
    session = succeeds(case)
    assert 62 not in case.owner.asked
    assert len(session.owner_chain.owners) == 1


# --- 61: who answers shows the voucher of this device


def test_the_signature_of_61_is_that_of_the_key_in_header_257() -> None:
    case = new()
    case.owner.hooks.signed[61] = signed_by(STRANGER)
    refused(case, 61, SIGNATURE)


@pytest.mark.parametrize("missing", [256, 257])
def test_61_has_both_headers(missing: int) -> None:
    case = new()
    case.owner.hooks.headers[61] = lambda headers: {key: value for key, value in headers.items() if key != missing}
    refused(case, 61, INVALID)


def test_the_nonce_of_61_is_the_one_of_60() -> None:
    refused(with_payload(61, part(3, bytes(16))), 61, INVALID)


def test_the_hello_device_hash_is_over_the_bytes_of_60() -> None:
    refused(with_payload(61, part(6, [-16, bytes(32)])), 61, INVALID)


def test_the_hello_device_hash_is_as_strong_as_the_hmac() -> None:
    refused(with_payload(61, part(6, [-43, bytes(48)])), 61, INVALID)


def test_a_hash_has_the_length_of_its_algorithm() -> None:
    refused(with_payload(61, part(6, lambda value: [-43, value[1]])), 61, MALFORMED)


def test_the_hello_device_hash_is_no_hmac() -> None:
    refused(with_payload(61, part(6, lambda value: [5, value[1]])), 61, INVALID)


@pytest.mark.parametrize("info", [[-35, b""], [-257, b""]])
def test_sig_info_comes_back_as_it_was_sent(info: list[Any]) -> None:
    refused(with_payload(61, part(4, info)), 61, INVALID)


def test_sig_info_has_nothing_in_it() -> None:
    refused(with_payload(61, part(4, [-7, b"\x00"])), 61, MALFORMED)


def test_the_guid_is_that_of_the_device() -> None:
    case = new()
    header = case.device.header(MANUFACTURER.public_key(), guid=bytes(16))
    case.show(replace(case.voucher, header=header, mac=case.device.mac(header)))
    refused(case, 61, GUID)


def test_the_hmac_is_that_of_the_device() -> None:
    case = new()
    other = replace(case.device, secret=bytes(32))
    case.show(replace(case.voucher, mac=other.mac(case.voucher.header)))
    refused(case, 61, VOUCHER)


def test_the_hmac_is_over_the_whole_header() -> None:
    case = new()
    header = case.device.header(MANUFACTURER.public_key(), device_info="Another CT")
    case.show(replace(case.voucher, header=header))
    refused(case, 61, VOUCHER)


def test_the_hmac_is_made_as_the_credential_says() -> None:
    case = new()
    digest = case.device.hash(case.voucher.header)
    case.show(replace(case.voucher, mac=digest))
    refused(case, 61, VOUCHER)


def test_the_manufacturer_key_is_the_one_of_the_credential() -> None:
    case = new()
    case.show(ScriptedVoucher.of(case.device, STRANGER, [OWNER]))
    refused(case, 61, VOUCHER)


def test_the_voucher_is_of_a_known_version() -> None:
    case = new()
    header = case.device.header(MANUFACTURER.public_key(), version=102)
    case.show(replace(case.voucher, header=header, mac=case.device.mac(header)))
    refused(case, 61, VOUCHER)


@pytest.mark.parametrize(
    "header", [b"", b"\xff" * 300, codec.write([101]), codec.write(None)], ids=["nothing", "garbage", "short", "null"]
)
def test_the_header_is_an_ov_header(header: bytes) -> None:
    case = new()
    case.show(replace(case.voucher, header=header, mac=case.device.mac(header)))
    refused(case, 61, MALFORMED)


@pytest.mark.parametrize("payload", [b"", bytes(400), codec.write([1, 2]), codec.write({})])
def test_the_payload_of_61_has_its_eight_parts(payload: bytes) -> None:
    refused(with_payload(61, lambda _: payload), 61, MALFORMED)


@pytest.mark.parametrize("entries", [256, 2**64 - 1, -1, True])
def test_a_voucher_has_at_most_255_entries(entries: int) -> None:
    refused(with_payload(61, part(1, entries)), 61, MALFORMED)


# --- 63: one owner names the next


def test_fewer_entries_than_there_are_do_not_end_with_the_owner() -> None:
    case = new()
    case.show(ScriptedVoucher.of(case.device, MANUFACTURER, [STRANGER, OWNER]))
    case.owner.hooks.payload[61] = part(1, 1)
    refused(case, 63, SIGNATURE)


def test_no_entries_where_the_manufacturer_is_not_the_owner_are_refused() -> None:
    refused(with_payload(61, part(1, 0)), 61, SIGNATURE)


def test_the_owner_key_is_that_of_the_last_entry() -> None:
    case = new()
    case.owner.key = STRANGER
    refused(case, 63, SIGNATURE)


@pytest.mark.parametrize("index", [1, 254, 2**64 - 1])
def test_the_index_of_an_entry_is_the_one_asked_for(index: int) -> None:
    refused(with_payload(63, part(0, index)), 63, INVALID)


@pytest.mark.parametrize("order", [(1, 0), (0, 0), (1, 1)], ids=["swapped", "first repeated", "first missing"])
def test_entries_stand_in_their_order(order: tuple[int, int]) -> None:
    case = new()
    voucher = ScriptedVoucher.of(case.device, MANUFACTURER, [STRANGER, OWNER])
    case.show(replace(voucher, entries=tuple(voucher.entries[number] for number in order)))
    refused(case, 63, VOUCHER)


def test_entries_of_one_key_that_are_swapped_are_found_by_their_hashes() -> None:
    case = Onboarding.new(DEVICE, MANUFACTURER, MANUFACTURER)
    voucher = ScriptedVoucher.of(case.device, MANUFACTURER, [MANUFACTURER, MANUFACTURER])
    case.show(replace(voucher, entries=voucher.entries[::-1]))
    refused(case, 63, VOUCHER)


def test_more_entries_than_there_are_cannot_be_made_of_those_that_are() -> None:
    case = new()
    case.show(replace(case.voucher, entries=case.voucher.entries * 2))
    refused(case, 63, VOUCHER)


def test_an_entry_is_signed_by_the_owner_before() -> None:
    case = new()
    case.show(ScriptedVoucher.of(case.device, MANUFACTURER, []).extended(STRANGER, OWNER.public_key()))
    refused(case, 63, VOUCHER)


@pytest.mark.parametrize("name", ["previous", "device"])
def test_an_entry_has_the_hash_of_what_is_before_and_of_the_device(name: str) -> None:
    case = new()
    empty = ScriptedVoucher.of(case.device, MANUFACTURER, [])
    case.show(empty.extended(MANUFACTURER, OWNER.public_key(), **{name: [-16, bytes(32)]}))
    refused(case, 63, VOUCHER)


def test_the_hash_over_the_entry_before_has_its_tag_in_it() -> None:
    case = new()
    first = ScriptedVoucher.of(case.device, MANUFACTURER, [STRANGER])
    untagged = codec.write(codec.read(first.entries[0]).value)
    case.show(first.extended(STRANGER, OWNER.public_key(), previous=case.device.hash(untagged)))
    refused(case, 63, VOUCHER)


def test_the_extra_of_an_entry_is_null_or_a_map_in_a_byte_string() -> None:
    case = new()
    empty = ScriptedVoucher.of(case.device, MANUFACTURER, [])
    case.show(empty.extended(MANUFACTURER, OWNER.public_key(), extra=b"\xa0"))
    succeeds(case)
    case = new()
    case.show(
        ScriptedVoucher.of(case.device, MANUFACTURER, []).extended(MANUFACTURER, OWNER.public_key(), extra=b"\xff")
    )
    refused(case, 63, MALFORMED)


def test_whoever_signed_the_redirection_is_the_owner() -> None:
    case = new()
    case.to1d = redirection(STRANGER)
    refused(case, 63, SIGNATURE)


def test_without_a_rendezvous_server_there_is_no_redirection_to_check() -> None:
    case = new()
    case.to1d = None
    succeeds(case)


def test_an_owner_that_may_not_have_the_device_does_not_get_its_proof() -> None:
    def judge(chain: OwnerChain) -> None:
        assert chain.owner.key == OWNER.public_key()
        raise EnrollmentRefused("It is not on the list.", remedy="none")

    case = new()
    case.judge = judge
    channel = ScriptedChannel(case.owner)
    with pytest.raises(EnrollmentRefused, match="not on the list"):
        case.run(channel)
    (told,) = channel.reported
    assert (told.previous, told.code, told.text) == (63, INTERNAL, "The device does not go on.")
    assert 64 not in case.owner.asked


# --- 64: the key exchange


def test_the_key_exchange_fits_the_owner_key() -> None:
    case = new()
    case.exchange = KeyExchangeSuite.ECDH384
    refused(case, 63, INVALID)


@pytest.mark.parametrize(
    "change",
    [
        lambda parameter: parameter + b"\x00",
        lambda parameter: parameter[:-1],
        lambda _: b"",
        lambda parameter: b"\x00\x20" + b"\xff" * 32 + parameter[34:],
        lambda parameter: b"\x00\x20" + bytes(32) + parameter[34:],
        lambda parameter: b"\x00\x21\x00" + parameter[2:],
    ],
    ids=["a byte more", "a byte less", "nothing", "x too large", "not on the curve", "another length"],
)
def test_the_parameter_of_the_key_exchange_is_well_formed(change: Hook) -> None:
    refused(with_payload(61, part(5, change)), 63, INVALID)


# --- 65: what the device is to be


def test_65_is_signed_by_the_owner() -> None:
    case = new()
    case.owner.hooks.signed[65] = signed_by(STRANGER)
    refused(case, 65, SIGNATURE)


def test_65_is_not_signed_by_an_owner_of_before() -> None:
    case = new()
    case.owner.hooks.signed[65] = signed_by(MANUFACTURER)
    refused(case, 65, SIGNATURE)


def test_65_is_encrypted() -> None:
    case = new()
    case.owner.hooks.encrypted[65] = lambda _: codec.sign1(OWNER, -7, b"\xf6", {})
    refused(case, 65, MALFORMED)


def test_the_nonce_of_65_is_the_one_of_64() -> None:
    refused(with_payload(65, part(2, bytes(16))), 65, INVALID)


@pytest.mark.parametrize("number", [65, 67, 69, 71])
def test_every_encrypted_message_names_the_suite_that_was_asked_for(number: int) -> None:
    def renamed(body: bytes) -> bytes:
        _, *rest = codec.read(body).value
        return codec.write(replace_tag(body, [codec.write({1: 3}), *rest]))

    case = new()
    case.owner.hooks.encrypted[number] = renamed
    refused(case, number, INVALID)


@pytest.mark.parametrize("number", [65, 67, 69, 71])
def test_every_encrypted_message_is_authentic(number: int) -> None:
    case = new()
    case.owner.hooks.encrypted[number] = lambda body: body[:-1] + bytes([body[-1] ^ 1])
    refused(case, number, INVALID)


@pytest.mark.parametrize("number", [65, 67, 69, 71])
def test_a_message_that_is_encrypted_twice_is_refused(number: int) -> None:
    case = new()
    case.owner.hooks.encrypted[number] = case.owner.encrypted
    refused(case, number, MALFORMED)


def replace_tag(body: bytes, parts: list[Any]) -> Any:
    tagged = codec.read(body)
    return type(tagged)(tagged.tag, parts)


@pytest.mark.parametrize(
    ("hook", "code"),
    [
        (lambda parts: parts[:3], MALFORMED),
        (lambda parts: [*parts, None], MALFORMED),
        (part(0, None), MALFORMED),
        (part(0, [None]), MALFORMED),
        (part(0, [rendezvous("a.example", 1)[0]] * 33), INVALID),
        (part(1, bytes(15)), MALFORMED),
        (part(1, None), MALFORMED),
        (part(3, None), MALFORMED),
        (part(3, [10, 1, b"\x30\x00"]), INVALID),
    ],
    ids=[
        "3 parts",
        "5 parts",
        "no RVInfo",
        "no directive",
        "33 directives",
        "short GUID",
        "no GUID",
        "no key",
        "bad key",
    ],
)
def test_65_is_well_formed(hook: Hook, code: ErrorCode) -> None:
    refused(with_payload(65, hook), 65, code)


@pytest.mark.parametrize(
    "found",
    [[], [[]], [[[13, codec.write(60)]]], [[[1], *rendezvous("rv.example", 80)[0]]], rendezvous("rv..example", 80)],
    ids=["no directive", "an empty one", "only a delay", "for owners only", "no name of a host"],
)
def test_a_device_is_told_where_to_ask_for_its_owner_or_it_would_never_be_found_again(found: list[Any]) -> None:
    refused(with_payload(65, part(0, found)), 65, INVALID)


def test_a_credential_that_leads_nowhere_may_be_used_again() -> None:
    """It does not get worse: the device was found by it."""
    device = replace(ScriptedDevice(DEVICE), rendezvous=[])
    case = Onboarding.new(DEVICE, MANUFACTURER, OWNER)
    case.device = device
    case.show(ScriptedVoucher.of(device, MANUFACTURER, [OWNER]))
    case.reuse = case.owner.reuse = True
    assert succeeds(case).is_reuse


def test_the_hash_of_the_next_owner_key_is_as_strong_as_that_key() -> None:
    """What to ask of an RSA key, DHKEXid14 or DHKEXid15, is known by it the next time (FDO 1.1, 3.6.1)."""
    strong = rsa.generate_private_key(65537, 3072)
    case = with_payload(65, part(3, public_key(strong.public_key())))
    with case.session(ScriptedChannel(case.owner)) as session:
        session.begin()
    assert session.next_credential.owner_key_hash.algorithm is HashAlgorithm.SHA384


def test_the_owner_may_give_the_device_to_another_key() -> None:
    case = with_payload(65, part(3, public_key(STRANGER.public_key())))
    with case.session(ScriptedChannel(case.owner)) as session:
        session.begin()
    assert session.next_owner_key.key == STRANGER.public_key()
    assert session.next_credential.owner_key_hash.is_of(codec.write(public_key(STRANGER.public_key())))


# --- 65: the credential is used again


def test_a_credential_is_used_again_where_the_device_allows_it() -> None:
    case = new()
    case.reuse = case.owner.reuse = True
    session = succeeds(case)
    assert session.is_reuse
    assert session.next_credential == case.credential
    assert case.owner.next_mac is None


def test_a_credential_is_not_used_again_where_the_device_does_not_allow_it() -> None:
    case = new()
    case.owner.reuse = True
    refused(case, 65, REUSE)


@pytest.mark.parametrize(
    ("position", "value"),
    [(0, rendezvous("other.example", 8080)), (0, []), (3, public_key(STRANGER.public_key()))],
    ids=["another rendezvous", "no rendezvous", "another key"],
)
@pytest.mark.parametrize("allowed", [True, False], ids=["allowed", "not allowed"])
def test_half_of_a_credential_is_not_used_again(*, position: int, value: Any, allowed: bool) -> None:
    case = with_payload(65, part(position, value))
    case.owner.reuse, case.reuse = True, allowed
    refused(case, 65, INVALID)


# --- 66 and 67


@pytest.mark.parametrize("answer", [[None], [], [0], [1], [255], [256], [1300], [65535]], ids=str)
def test_the_device_keeps_to_the_size_of_67_and_sends_256_bytes_where_it_is_smaller(answer: list[Any]) -> None:
    case = with_payload(67, lambda _: answer)
    size = answer[0] if answer else None
    succeeds(case)
    assert max(case.owner.sizes) <= max(256, 1300 if size is None else size)


@pytest.mark.parametrize("answer", [[65536], [-1], ["256"], [[]], [256, 256], None, {}], ids=str)
def test_67_is_a_size_of_16_bits_or_null(answer: Any) -> None:
    refused(with_payload(67, lambda _: answer), 67, MALFORMED)


@pytest.mark.parametrize("limit", [0, 1, 300, 65535])
def test_the_device_keeps_to_the_size_of_messages_of_61(limit: int) -> None:
    case = with_payload(61, part(7, limit))
    case.owner.hooks.payload[67] = lambda _: [65535]
    case.owner.max_service_info = 65535
    succeeds(case)
    assert max(case.owner.sizes) <= max(256, limit or 65535)


# --- 70 and 71


def test_the_nonce_of_71_is_the_one_of_64() -> None:
    case = with_payload(71, lambda _: [bytes(16)])
    refused(case, 71, INVALID)
    assert case.owner.is_done


@pytest.mark.parametrize("answer", [[], [bytes(15)], [bytes(16), bytes(16)], bytes(16), [None], {}], ids=str)
def test_71_is_one_nonce(answer: Any) -> None:
    refused(with_payload(71, lambda _: answer), 71, MALFORMED)


# --- all of it


def body_of(message: bytes) -> tuple[bytes, int, bytes]:
    """The tag, where there is one, the number of parts, and the parts."""
    tag, array = (message[:1], message[1:]) if message[0] == 0xD2 else (b"", message)
    assert array[0] in range(0x80, 0x98)
    return tag, array[0] & 0x1F, array[1:]


def of_no_known_length(message: bytes) -> bytes:
    tag, _, parts = body_of(message)
    return tag + b"\x9f" + parts + b"\xff"


def with_a_longer_head(message: bytes) -> bytes:
    tag, count, parts = body_of(message)
    return tag + bytes([0x98, count]) + parts


def with_a_part_more(message: bytes) -> bytes:
    tag, count, parts = body_of(message)
    return tag + bytes([0x80 + count + 1]) + parts + b"\xf6"


def with_another_tag(message: bytes) -> bytes:
    return b"\xd9\xd9\xf7" + message


BROKEN: list[Callable[[bytes], bytes]] = [
    lambda message: message + b"\x00",
    lambda message: message[:-1],
    lambda _: b"",
    lambda message: message * 2,
    of_no_known_length,
    with_a_longer_head,
    with_a_part_more,
    with_another_tag,
    lambda message: bytes([message[0] ^ 0x20]) + message[1:],
    lambda message: b"\x9b" + b"\xff" * 8 + message,
    lambda _: b"\x81" * 60_000,
    lambda message: bytes([*body_of(message)[0], 0x80]),
]


@pytest.mark.parametrize("number", [61, 63, 65, 67, 69, 71])
@pytest.mark.parametrize(
    "change",
    BROKEN,
    ids=[
        "a byte more",
        "a byte less",
        "nothing",
        "twice",
        "no known length",
        "a longer head",
        "a part more",
        "another tag",
        "another type",
        "an array of 2^64 parts",
        "60,000 arrays in each other",
        "no parts",
    ],
)
def test_every_message_is_strict_cbor(change: Callable[[bytes], bytes], number: int) -> None:
    if number == 67 and change is BROKEN[-1]:
        return  # an empty array means the usual size
    case = new()
    case.owner.hooks.signed[number] = change
    refused(case, number, MALFORMED)


def test_a_header_does_not_stand_there_twice() -> None:
    def twice(message: bytes) -> bytes:
        headers = codec.write(codec.read(message).value[1])
        assert headers[0] == 0xA2
        return message.replace(headers, b"\xa3" + headers[1:] + codec.write(256) + codec.write(bytes(16)))

    case = new()
    case.owner.hooks.signed[61] = twice
    refused(case, 61, MALFORMED)


class Kept:
    """Keeps the answers that go by, and gives the first of them again."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []

    def keep(self, body: bytes) -> bytes:
        self.answers.append(body)
        return body

    def again(self, body: bytes) -> bytes:
        return self.answers[0] if self.answers else self.keep(body)


@pytest.mark.parametrize(("earlier", "number"), [(65, 67), (65, 69), (65, 71), (67, 69), (67, 71), (69, 71)])
def test_an_answer_of_before_is_no_answer(earlier: int, number: int) -> None:
    case, kept = new(), Kept()
    case.owner.hooks.encrypted.update({earlier: kept.keep, number: kept.again})
    refused(case, number, INVALID)


def test_message_69_is_not_taken_twice() -> None:
    case, kept = new(), Kept()
    case.owner.hooks.encrypted[69] = kept.again
    refused(case, 69, INVALID)
    assert case.owner.asked.count(68) == 2


@pytest.mark.parametrize("number", [61, 63, 65, 67, 69, 71])
def test_a_session_has_a_deadline(number: int) -> None:
    case = new()
    clock = SteppedClock()
    case.clock = clock

    def slow(answer: HttpAnswer) -> HttpAnswer:
        clock.advance(timedelta(seconds=SESSION_LIMIT + 1))
        return answer

    case.owner.hooks.answer[number] = slow
    if number == 71:  # nothing comes after it
        succeeds(case)
    else:
        refused(case, number, INTERNAL)


def test_a_session_may_take_its_time() -> None:
    case = new()
    clock = SteppedClock()
    case.clock = clock

    def slow(answer: HttpAnswer) -> HttpAnswer:
        clock.advance(timedelta(seconds=SESSION_LIMIT / 12))
        return answer

    case.owner.hooks.answer.update(dict.fromkeys(range(61, 72, 2), slow))
    succeeds(case)


@pytest.mark.parametrize("number", [61, 63, 65, 67, 69, 71])
def test_an_error_of_the_owner_is_not_answered_with_another_one(number: int) -> None:
    case = new()
    error = codec.write([6, number - 1, "not found", None, None])
    case.owner.hooks.answer[number] = lambda _: HttpAnswer(255, error, 500)
    channel = ScriptedChannel(case.owner)
    with pytest.raises(ErrorReceived) as raised:
        case.run(channel)
    assert (raised.value.said.code, channel.reported) == (6, [])


def test_what_comes_after_65_needs_65() -> None:
    case = new()
    session = case.session(ScriptedChannel(case.owner))
    with pytest.raises(RuntimeError, match="begin"):
        session.talk([])
