"""TO1: where the owner is (FDO 1.1, 5.4), against a rendezvous server that is written from the facts alone."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from enroll.errors import ProtocolViolation
from enroll.fdo.fault import ErrorCode
from enroll.fdo.rendezvous import read_redirect
from enroll.fdo.transport import ErrorReceived
from tests.support.fdo import reference_codec as codec
from tests.support.fdo.in_process import Onboarding, ScriptedChannel
from tests.support.fdo.reference_codec import PrivateKey
from tests.support.fdo.scripted_owner import Hook, HttpAnswer, ScriptedRendezvous, redirection
from tests.support.pki import new_key

DEVICE, MANUFACTURER, OWNER = (new_key() for _ in range(3))
MALFORMED, INVALID = ErrorCode.MESSAGE_BODY, ErrorCode.INVALID_MESSAGE


def new(device_key: PrivateKey = DEVICE) -> tuple[Onboarding, ScriptedRendezvous]:
    case = Onboarding.new(device_key, MANUFACTURER, OWNER)
    return case, ScriptedRendezvous(case.device, redirection(OWNER))


def refused(case: Onboarding, server: ScriptedRendezvous, at: int, code: ErrorCode) -> None:
    channel = ScriptedChannel(server)
    with pytest.raises(ProtocolViolation) as raised:
        case.find_owner(channel)
    assert raised.value.code == "fdo-refused"
    assert [(each.previous, ErrorCode(each.code)) for each in channel.reported] == [(at, code)]


KEYS = {
    "P-256": DEVICE,
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "RSA-2048": rsa.generate_private_key(65537, 2048),
    "RSA-3072": rsa.generate_private_key(65537, 3072),
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_device_proves_itself_and_is_told_where_its_owner_is(key: PrivateKey) -> None:
    case, server = new(key)
    channel = ScriptedChannel(server)
    found = case.find_owner(channel)
    assert (found.raw, channel.reported) == (server.to1d, [])
    (address,) = read_redirect(found)
    assert (address.ip, address.dns, address.port) == (None, "owner.example", 8080)


def test_the_signature_of_the_redirection_is_not_judged_here() -> None:
    # Whose it has to be is known only when the owner has shown the voucher: see the checks of TO2.
    case, server = new()
    server.to1d = redirection(new_key())
    assert case.find_owner(ScriptedChannel(server)).raw == server.to1d


@pytest.mark.parametrize(
    ("hook", "code"),
    [
        (lambda parts: [parts[0], [-35, b""]], INVALID),
        (lambda parts: [parts[0], [-257, b""]], INVALID),
        (lambda parts: [parts[0], [-8, b""]], INVALID),
        (lambda parts: [parts[0], [-7, b"\x00"]], MALFORMED),
        (lambda parts: [parts[0], [-7]], MALFORMED),
        (lambda parts: [parts[0][:15], parts[1]], MALFORMED),
        (lambda parts: [parts[0] + b"\x00", parts[1]], MALFORMED),
        (lambda parts: [*parts, 0], MALFORMED),
        (lambda parts: parts[:1], MALFORMED),
        (lambda _: None, MALFORMED),
    ],
    ids=[
        "another signature",
        "a signature of RSA",
        "an unknown signature",
        "something in sigInfo",
        "half of sigInfo",
        "a short nonce",
        "a long nonce",
        "three parts",
        "one part",
        "null",
    ],
)
def test_31_is_a_nonce_and_the_kind_of_signature_that_was_offered(hook: Hook, code: ErrorCode) -> None:
    case, server = new()
    server.hooks.payload[31] = hook
    refused(case, server, 31, code)


ADDRESS = [None, "owner.example", 8080, 3]


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ([[ADDRESS]], MALFORMED),
        ([[ADDRESS], None], MALFORMED),
        ([[ADDRESS], [-16, bytes(31)]], MALFORMED),
        ([[ADDRESS], [-99, bytes(32)]], INVALID),
        ([None, [-16, bytes(32)]], MALFORMED),
        ([[ADDRESS] * 33, [-16, bytes(32)]], INVALID),
        ([[ADDRESS[:3]], [-16, bytes(32)]], MALFORMED),
        ({}, MALFORMED),
    ],
    ids=[
        "no hash",
        "null for a hash",
        "a short hash",
        "an unknown hash",
        "no addresses",
        "33 addresses",
        "half an address",
        "a map",
    ],
)
def test_33_holds_addresses_and_a_hash(payload: Any, code: ErrorCode) -> None:
    case, server = new()
    server.to1d = codec.sign1(OWNER, -7, codec.write(payload), {})
    refused(case, server, 33, code)


@pytest.mark.parametrize(
    "address",
    [[b"\x7f\x00\x01", None, 8080, 3], [None, "http://evil", 8080, 3], [None, "owner.example", 65536, 3]],
    ids=["three bytes", "a URL for a name", "a port that is none"],
)
def test_an_address_of_33_that_cannot_be_used_spoils_no_other(address: Any) -> None:
    case, server = new()
    server.to1d = redirection(OWNER, [address, ADDRESS])
    (found,) = read_redirect(case.find_owner(ScriptedChannel(server)))
    assert found.dns == "owner.example"


@pytest.mark.parametrize("body", [b"", b"\xf6", b"\xd2", b"\x80", b"\xff" * 100, codec.write(list(range(4)))])
def test_33_is_a_signed_message(body: bytes) -> None:
    case, server = new()
    server.to1d = body
    refused(case, server, 33, MALFORMED)


@pytest.mark.parametrize("number", [31, 33])
def test_nothing_follows_a_message(number: int) -> None:
    case, server = new()
    server.hooks.signed[number] = lambda body: body + b"\x00"
    refused(case, server, number, MALFORMED)


@pytest.mark.parametrize("number", [31, 33])
def test_an_error_of_the_server_is_not_answered_with_another_one(number: int) -> None:
    case, server = new()
    error = codec.write([6, number - 1, "not found", 0, 0])
    server.hooks.answer[number] = lambda _: HttpAnswer(255, error)
    channel = ScriptedChannel(server)
    with pytest.raises(ErrorReceived) as raised:
        case.find_owner(channel)
    assert (raised.value.said.code, channel.reported) == (6, [])
