"""What the evaluation owner refuses in TO2 (FDO 1.1, 5.5 and 5.6): one change in a run that is right otherwise."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from enroll.evaluation.fdo.owner import OwnerRun
from enroll.evaluation.fdo.owner_module import OnboardedDevice, OwnerModule
from enroll.evaluation.fdo.owner_service_info import OwnerServiceTalk
from enroll.evaluation.fdo.sessions import RUN_LIFETIME, RUNS_LIMIT, Services
from enroll.evaluation.fdo.to0 import Registration
from enroll.evaluation.fdo.vouchers import Vouchers
from enroll.fdo import cbor
from enroll.fdo.fault import ErrorCode, Fault
from enroll.fdo.hashes import HashAlgorithm
from enroll.fdo.key_exchange import KeyExchangeSuite
from enroll.fdo.messages import ErrorMessage, MessageType
from enroll.fdo.public_key import SignatureType
from enroll.fdo.service_info import ROUNDS_LIMIT, Outbox, Statement
from enroll.fdo.to2_messages import SETUP_NONCE_HEADER, DeviceServiceInfo, ServiceInfo
from enroll.fdo.transport import ErrorReceived
from enroll.fdo.tunnel import CipherSuite
from enroll.statefile import StateFiles
from tests.support.clocks import SteppedClock
from tests.support.fdo.alteration import (
    AlteringChannel,
    Change,
    emptied,
    in_tunnel,
    last_byte_changed,
    signed_again,
    trailing,
    with_claim,
    with_part,
)
from tests.support.fdo.parties import DirectChannel, Parties, party_keys, sold
from tests.support.fdo.scanner import FdoScanner

M = MessageType
NONCE, UEID, EXCHANGE = 10, 256, -257  # claims: FDO 1.1, 3.3.6
SOMETHING = secrets.token_bytes(16)


class _Talks:
    """A module that says a long text, and is content with one word."""

    name = "talks"
    is_complete = False

    def begin(self) -> list[Statement]:
        return [Statement(self.name, "text", "x" * 1000)]

    def receive(self, name: str, value: cbor.Item) -> list[Statement]:
        self.is_complete = (name, value.text()) == ("word", "thanks")
        return []

    def pause(self) -> None:
        """It waits for the word."""


class _Listens:
    """Its other side."""

    name = "talks"
    is_complete = False

    def begin(self) -> list[Statement]:
        return []

    def receive(self, name: str, value: cbor.Item) -> list[Statement]:
        self.is_complete = (name, len(value.text())) == ("text", 1000)
        return [Statement(self.name, "word", "thanks")]


def talks(_: OnboardedDevice) -> list[OwnerModule]:
    return [_Talks()]


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    folder = tmp_path_factory.mktemp("parties")
    with Parties(folder, make_modules=talks, bypass=True, clock=SteppedClock()) as running:
        yield running


@pytest.fixture(scope="module")
def scanner(parties: Parties, tmp_path_factory: pytest.TempPathFactory) -> FdoScanner:
    scanner = FdoScanner(tmp_path_factory.mktemp("scanner"))
    scanner.initialize(parties.channel())
    return scanner


@pytest.fixture
def refused(parties: Parties, scanner: FdoScanner) -> Iterator[Callable[..., ErrorMessage]]:
    """Onboards with one message changed. The voucher stays, and the run without the change is right afterwards."""
    before = parties.owner.vouchers.all()

    def run(number: MessageType, change: Change = bytes, **terms: Any) -> ErrorMessage:
        channel = AlteringChannel(parties.services, number, change)
        with pytest.raises(ErrorReceived) as refusal:
            scanner.take_over(channel, modules=[_Listens()], **({"service_info_size": 256} | terms))
        assert refusal.value.said.previous == number
        return refusal.value.said

    yield run

    scanner.credentials.withdraw()
    assert parties.owner.vouchers.all() == before
    assert scanner.take_over(parties.channel(), modules=[_Listens()]).guid


HELLO = {
    "encoding": (trailing, ErrorCode.MESSAGE_BODY),
    "zeros": (emptied, ErrorCode.MESSAGE_BODY),
    "guid of nobody": (with_part(1, SOMETHING), ErrorCode.NOT_FOUND),
    "guid too short": (with_part(1, SOMETHING[:15]), ErrorCode.MESSAGE_BODY),
    "nonce too short": (with_part(2, SOMETHING[:15]), ErrorCode.MESSAGE_BODY),
    "key exchange of another key": (with_part(3, KeyExchangeSuite.ECDH384), ErrorCode.INVALID_MESSAGE),
    "unknown key exchange": (with_part(3, "ECDH521"), ErrorCode.INVALID_MESSAGE),
    "unknown cipher": (with_part(4, 2), ErrorCode.INVALID_MESSAGE),
    "cipher that has to be allowed": (with_part(4, CipherSuite.AES128_CTR), ErrorCode.INVALID_MESSAGE),
    "signature of another key": (with_part(5, [SignatureType.ES384, b""]), ErrorCode.INVALID_MESSAGE),
    "unknown signature": (with_part(5, [-8, b""]), ErrorCode.INVALID_MESSAGE),
}


@pytest.mark.parametrize("case", HELLO)
def test_hello_device_60(case: str, refused: Callable[..., ErrorMessage]) -> None:
    change, code = HELLO[case]
    assert refused(M.TO2_HELLO_DEVICE, change).code == code


ENTRY = {
    "encoding": (trailing, ErrorCode.MESSAGE_BODY),
    "index": (with_part(0, 1), ErrorCode.INVALID_MESSAGE),
    "index that is none": (with_part(0, -1), ErrorCode.MESSAGE_BODY),
}


@pytest.mark.parametrize("case", ENTRY)
def test_get_ov_next_entry_62(case: str, parties: Parties, refused: Callable[..., ErrorMessage]) -> None:
    change, code = ENTRY[case]
    (voucher,) = parties.owner.vouchers.all()
    guid = voucher.header.guid
    parties.owner.vouchers.add(sold(parties.owner, guid, parties.owner.keys))
    try:
        assert refused(M.TO2_GET_OV_NEXT_ENTRY, change).code == code
    finally:
        parties.owner.vouchers.add(voucher)


PROOF = {
    "encoding": (trailing, ErrorCode.MESSAGE_BODY),
    "signature": (last_byte_changed, ErrorCode.INVALID_OWNER_SIGNATURE),
}


@pytest.mark.parametrize("case", PROOF)
def test_prove_device_64(case: str, refused: Callable[..., ErrorMessage]) -> None:
    change, code = PROOF[case]
    assert refused(M.TO2_PROVE_DEVICE, change).code == code


TOKEN: dict[str, Change] = {
    "nonce": with_claim(NONCE, SOMETHING),
    "guid": with_claim(UEID, b"\1" + SOMETHING),
    "kind of ueid": with_claim(UEID, b"\2" + SOMETHING),
    "no ueid": with_claim(UEID, None),
    "no key exchange": with_claim(EXCHANGE, None),
    "key exchange that is no point": with_claim(EXCHANGE, [secrets.token_bytes(86)]),
    "another claim": with_claim(1, 1),
    "encoding": cbor.encode,
}


@pytest.mark.parametrize("case", TOKEN)
def test_what_the_device_has_signed_in_64(case: str, scanner: FdoScanner, refused: Callable[..., ErrorMessage]) -> None:
    refused(M.TO2_PROVE_DEVICE, signed_again(scanner.key, TOKEN[case]))


def test_64_by_another_key(refused: Callable[..., ErrorMessage]) -> None:
    refused(M.TO2_PROVE_DEVICE, signed_again(ec.generate_private_key(ec.SECP256R1())))


def test_64_without_a_nonce_of_the_device(scanner: FdoScanner, refused: Callable[..., ErrorMessage]) -> None:
    refused(M.TO2_PROVE_DEVICE, signed_again(scanner.key, unprotected={}))
    refused(M.TO2_PROVE_DEVICE, signed_again(scanner.key, unprotected={SETUP_NONCE_HEADER: b"short"}))


ENCRYPTED = [M.TO2_DEVICE_SERVICE_INFO_READY, M.TO2_DEVICE_SERVICE_INFO, M.TO2_DONE]


@pytest.mark.parametrize("number", ENCRYPTED)
@pytest.mark.parametrize("change", [trailing, emptied, last_byte_changed])
def test_an_encrypted_message_that_was_damaged(
    number: MessageType, change: Change, refused: Callable[..., ErrorMessage]
) -> None:
    refused(number, change)


@pytest.mark.parametrize("number", ENCRYPTED)
@pytest.mark.parametrize("change", [trailing, emptied])
def test_what_is_in_an_encrypted_message(
    number: MessageType, change: Change, parties: Parties, refused: Callable[..., ErrorMessage]
) -> None:
    assert refused(number, in_tunnel(parties, change)).code == ErrorCode.MESSAGE_BODY


@pytest.mark.parametrize(
    "hmac",
    [None, [HashAlgorithm.HMAC_SHA384, bytes(48)], [HashAlgorithm.SHA256, bytes(32)]],
    ids=["as for reuse", "of another strength", "that is a hash"],
)
def test_an_hmac_in_66(hmac: cbor.Encodable, parties: Parties, refused: Callable[..., ErrorMessage]) -> None:
    refused(M.TO2_DEVICE_SERVICE_INFO_READY, in_tunnel(parties, with_part(0, hmac)))


def _said(*info: tuple[str, cbor.Encodable], is_more: bool = False) -> Change:
    pieces = tuple(ServiceInfo(key, cbor.encode(value)) for key, value in info)
    return lambda _: DeviceServiceInfo(is_more, pieces).encode()


DEVMOD: tuple[tuple[str, cbor.Encodable], ...] = (
    ("devmod:active", True),
    *((f"devmod:{name}", "") for name in ("os", "arch", "version", "device", "sep", "bin")),
    ("devmod:nummodules", 1),
    ("devmod:modules", [0, 1, "devmod"]),
)
SERVICE_INFO: dict[str, Change] = {
    "nothing": _said(),
    "a module before devmod": _said(("talks:word", "thanks"), *DEVMOD),
    "a module that is not active": _said(*DEVMOD, ("talks:word", "thanks")),
    "modules that are not as many as said": _said(*DEVMOD[:-2], ("devmod:nummodules", 2), DEVMOD[-1]),
    "a list of modules that is not as long as it says": _said(*DEVMOD[:-1], ("devmod:modules", [0, 2, "devmod"])),
    "devmod that is not active": _said(("devmod:active", False), *DEVMOD[1:]),
    **{f"no {left_out[0]}": _said(*(each for each in DEVMOD if each != left_out)) for left_out in DEVMOD},
}


@pytest.mark.parametrize("case", SERVICE_INFO)
def test_device_service_info_68(case: str, parties: Parties, refused: Callable[..., ErrorMessage]) -> None:
    refused(M.TO2_DEVICE_SERVICE_INFO, in_tunnel(parties, SERVICE_INFO[case]), service_info_size=None)


def test_a_value_that_is_not_complete_in_the_last_68(parties: Parties, refused: Callable[..., ErrorMessage]) -> None:
    cut = DeviceServiceInfo(is_more=False, info=(ServiceInfo("devmod:os", b"\x65Linu"),)).encode()
    refused(M.TO2_DEVICE_SERVICE_INFO, in_tunnel(parties, lambda _: cut))


def test_the_device_speaks_while_the_owner_has_more_to_say(
    parties: Parties, refused: Callable[..., ErrorMessage]
) -> None:
    seen = []

    def second(data: bytes) -> bytes:
        seen.append(data)
        return _said(("talks:active", True))(data) if len(seen) == 2 else data

    said = refused(M.TO2_DEVICE_SERVICE_INFO, in_tunnel(parties, second))

    assert "more to say" in said.text


def test_the_nonce_of_70(parties: Parties, refused: Callable[..., ErrorMessage]) -> None:
    refused(M.TO2_DONE, in_tunnel(parties, with_part(0, SOMETHING)))


def test_messages_have_their_order(parties: Parties, scanner: FdoScanner, refused: Callable[..., ErrorMessage]) -> None:
    """FDO 1.1, 5.5: 64 comes after the last entry, and 70 after the owner was done."""
    for number in M:
        if number in (M.DI_APP_START, M.TO0_HELLO, M.TO1_HELLO_RV, M.TO2_HELLO_DEVICE, M.ERROR):
            continue
        channel = parties.channel()
        with scanner.session(channel) as session:
            session.begin()
            if number != M.TO2_DEVICE_SERVICE_INFO_READY:
                with pytest.raises(ErrorReceived, match="does not come now"):
                    channel.exchange(number, b"")


def test_a_run_ends_with_the_first_fault_and_with_message_255(parties: Parties, scanner: FdoScanner) -> None:
    for end in (M.TO2_DONE, M.ERROR):
        channel = parties.channel()
        session = scanner.session(channel)
        session.begin()
        if end is M.ERROR:
            channel.report(ErrorMessage(ErrorCode.INTERNAL, 65, ""))
        else:
            with pytest.raises(ErrorReceived):
                channel.exchange(end, b"")

        with pytest.raises(ErrorReceived) as refusal:
            session.talk([])

        assert refusal.value.said.code == ErrorCode.INVALID_TOKEN


def test_a_run_does_not_last_for_ever(parties: Parties, scanner: FdoScanner) -> None:
    session = scanner.session(parties.channel())
    session.begin()
    parties.clock.sleep(RUN_LIFETIME)

    with pytest.raises(ErrorReceived, match="no longer"):
        session.talk([])


def test_where_there_are_too_many_runs_the_oldest_gives_way(parties: Parties, scanner: FdoScanner) -> None:
    first = scanner.session(parties.channel())
    first.begin()
    for _ in range(RUNS_LIMIT):
        parties.channel().exchange(M.TO0_HELLO, cbor.encode([]))

    with pytest.raises(ErrorReceived, match="no longer"):
        first.talk([])


def test_of_two_runs_with_one_voucher_the_first_that_is_done_counts(parties: Parties, scanner: FdoScanner) -> None:
    late = scanner.session(parties.channel())
    late.begin()
    late.talk([])
    scanner.take_over(parties.channel())
    kept = parties.owner.vouchers.all()

    with pytest.raises(ErrorReceived) as refusal:
        late.finish()

    assert refusal.value.said.code == ErrorCode.NOT_FOUND
    assert parties.owner.vouchers.all() == kept


def test_a_device_that_comes_to_no_end_is_refused() -> None:
    """FDO 1.1, 5.6.3: IsMoreServiceInfo, again and again."""
    talk = OwnerServiceTalk(OnboardedDevice(SOMETHING, "CT 9000"), talks, Outbox(1300))
    more = DeviceServiceInfo(is_more=True, info=())
    for _ in range(ROUNDS_LIMIT):
        assert not talk.answer(more).is_done

    with pytest.raises(Fault, match="has not ended"):
        talk.answer(more)


def test_a_token_is_for_its_run_alone(parties: Parties, scanner: FdoScanner) -> None:
    channel = DirectChannel(parties.services)
    session = scanner.session(channel)
    session.begin()

    reply = parties.services.answer(M.TO2_DEVICE_SERVICE_INFO_READY, "", b"")

    assert ErrorMessage.read(reply.body).code == ErrorCode.INVALID_TOKEN
    session.talk([])


class _Recorded(DirectChannel):
    """Shows the token of its run."""

    @property
    def token(self) -> str:
        return self._token


def test_a_run_is_forgotten_at_its_end(parties: Parties, scanner: FdoScanner) -> None:
    channel = _Recorded(parties.services)
    scanner.take_over(channel, modules=[_Listens()])

    reply = parties.services.answer(M.TO2_DONE, channel.token, b"")

    assert ErrorMessage.read(reply.body).code == ErrorCode.INVALID_TOKEN


def test_one_message_of_a_run_is_answered_at_a_time(parties: Parties, scanner: FdoScanner) -> None:
    channel = _Recorded(parties.services)

    class Nested(OwnerRun):
        def done(self, body: bytes) -> bytes:
            reply = parties.services.answer(M.TO2_DONE, channel.token, body)
            assert ErrorMessage.read(reply.body).code == ErrorCode.INVALID_TOKEN
            return super().done(body)

    right = parties.runs[M.TO2_HELLO_DEVICE]
    parties.runs[M.TO2_HELLO_DEVICE] = lambda: Nested(parties.owner)
    scanner.take_over(channel)
    parties.runs[M.TO2_HELLO_DEVICE] = right


def test_a_voucher_of_another_owner_is_not_taken(parties: Parties, scanner: FdoScanner, tmp_path: Path) -> None:
    voucher = parties.owner.vouchers.find(scanner.credential.guid)
    other = replace(parties.owner, keys=party_keys("manufacturer"), vouchers=Vouchers(tmp_path, StateFiles()))

    with pytest.raises(Fault, match="somebody else"):
        other.take(voucher)

    assert not other.vouchers.all()


def test_a_device_is_awaited_though_the_rendezvous_server_does_not_answer(
    parties: Parties, scanner: FdoScanner, caplog: pytest.LogCaptureFixture
) -> None:
    voucher = parties.owner.vouchers.find(scanner.credential.guid)
    nowhere = Registration(lambda: DirectChannel(Services({}, parties.clock)), ())

    replace(parties.owner, registration=nowhere).take(voucher)

    assert "does not know of a device" in caplog.text
    assert parties.owner.vouchers.find(scanner.credential.guid) == voucher


def test_the_voucher_from_then_on(parties: Parties, scanner: FdoScanner) -> None:
    """It begins with this owner, is for the new GUID, and has the HMAC of message 66 (FDO 1.1, 5.6)."""
    before = parties.owner.vouchers.find(scanner.credential.guid)
    credential = scanner.take_over(parties.channel())

    (after,) = parties.owner.vouchers.all()
    secret = scanner.scanner.stores.load_secret(credential.secret_uri)
    assert after.header.guid == credential.guid != before.header.guid
    assert after.hmac.value == secret.sign(after.header.raw)
    assert after.header.manufacturer == before.verify().owner
    assert after.device_chain == before.device_chain
    assert not after.entries
    assert after.verify().owner.is_same_key(before.verify().owner)
