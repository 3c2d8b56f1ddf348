"""What the evaluation manufacturer (FDO 1.1, 5.2) and rendezvous server (5.3, 5.4) refuse, message by message."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from enroll.evaluation.fdo.rendezvous import RendezvousTerms
from enroll.fdo import cbor
from enroll.fdo.cose import sign1
from enroll.fdo.fault import ErrorCode, Fault
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.messages import ErrorMessage, MessageType
from enroll.fdo.public_key import FdoPublicKey, SignatureType
from enroll.fdo.rendezvous import OwnerAddress, TransportProtocol, encode_owner_address, read_redirect
from enroll.fdo.transport import ErrorReceived
from enroll.fdo.voucher import Voucher, VoucherHeader
from enroll.keystore.base import PrivateKey
from tests.support.clocks import SteppedClock
from tests.support.fdo.alteration import (
    AlteringChannel,
    Change,
    emptied,
    last_byte_changed,
    signed_again,
    trailing,
    with_claim,
    with_part,
)
from tests.support.fdo.parties import Parties, party_keys
from tests.support.fdo.scanner import FdoScanner

M = MessageType
SOMETHING = secrets.token_bytes(16)
NONCE, UEID, EXCHANGE = 10, 256, -257  # claims: FDO 1.1, 3.3.6


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    with Parties(tmp_path_factory.mktemp("parties"), clock=SteppedClock()) as running:
        yield running


@pytest.fixture(scope="module")
def scanner(parties: Parties, tmp_path_factory: pytest.TempPathFactory) -> FdoScanner:
    scanner = FdoScanner(tmp_path_factory.mktemp("scanner"))
    scanner.initialize(parties.channel())
    return scanner


@pytest.fixture
def voucher(parties: Parties, scanner: FdoScanner) -> Voucher:
    return parties.owner.vouchers.find(scanner.credential.guid)


def owner_key(parties: Parties, voucher: Voucher) -> PrivateKey:
    return parties.owner.keys.owning(voucher.verify().owner).key


def inner(change: Change) -> Change:
    """What the only part of the message wraps is changed."""

    def change_wrapped(data: bytes) -> bytes:
        (wrapped,) = cbor.read(data).array(1)
        return cbor.encode([change(wrapped.bytes())])

    return change_wrapped


APP_START = {
    "encoding": (trailing, ErrorCode.MESSAGE_BODY),
    "zeros": (emptied, ErrorCode.MESSAGE_BODY),
    "nothing": (lambda _: cbor.encode([None]), ErrorCode.MESSAGE_BODY),
    "unknown kind of key": (inner(with_part(0, 2)), ErrorCode.INVALID_MESSAGE),
    "serial number": (inner(with_part(2, "CT\0")), ErrorCode.INVALID_MESSAGE),
    "request that is none": (inner(with_part(4, b"\x30\x00")), ErrorCode.INVALID_MESSAGE),
    "request that is not signed": (inner(last_byte_changed), ErrorCode.INVALID_MESSAGE),
}


@pytest.mark.parametrize("case", APP_START)
def test_app_start_10(case: str, parties: Parties, tmp_path: Path) -> None:
    change, code = APP_START[case]
    before = parties.owner.vouchers.all()

    with pytest.raises(ErrorReceived) as refusal:
        FdoScanner(tmp_path).initialize(AlteringChannel(parties.services, M.DI_APP_START, change))

    assert (refusal.value.said.previous, refusal.value.said.code) == (10, code)
    assert parties.owner.vouchers.all() == before


SET_HMAC = {
    "encoding": trailing,
    "a hash": lambda _: cbor.encode([[HashAlgorithm.SHA256, bytes(32)]]),
    "an hmac that is too strong": lambda _: cbor.encode([[HashAlgorithm.HMAC_SHA384, bytes(48)]]),
    "an hmac that is too short": lambda _: cbor.encode([[HashAlgorithm.HMAC_SHA256, bytes(31)]]),
}


@pytest.mark.parametrize("case", SET_HMAC)
def test_set_hmac_12(case: str, parties: Parties, tmp_path: Path) -> None:
    before = parties.owner.vouchers.all()

    with pytest.raises(ErrorReceived) as refusal:
        FdoScanner(tmp_path).initialize(AlteringChannel(parties.services, M.DI_SET_HMAC, SET_HMAC[case]))

    assert refusal.value.said.previous == M.DI_SET_HMAC
    assert parties.owner.vouchers.all() == before


def test_a_voucher_says_all_of_its_device_and_its_owner(
    parties: Parties, scanner: FdoScanner, voucher: Voucher
) -> None:
    chain = voucher.verify()

    assert len(voucher.entries) == 1
    assert parties.owner.keys.owning(chain.owner).key.public_key() == chain.owner.key
    assert voucher.device_chain[0].public_key() == scanner.key.public_key()
    assert "CT-000123" in voucher.device_chain[0].subject.rfc4514_string()
    with pytest.raises(Fault, match="somebody else"):
        party_keys("manufacturer").owning(chain.owner)


def register(parties: Parties, voucher: Voucher, key: PrivateKey, change: Change = bytes) -> int:
    """TO0 with message 22 changed."""
    assert parties.owner.registration
    registration = replace(
        parties.owner.registration, connect=lambda: AlteringChannel(parties.services, M.TO0_OWNER_SIGN, change)
    )
    return registration.register(voucher, key)


def _with_to0d(key: PrivateKey, change: Change, *, hashed: bool = True) -> Change:
    """Message 22 with another to0d, and a redirection for that."""

    def change_message(data: bytes) -> bytes:
        to0d, redirect = cbor.read(data).array(2)
        signed_part = change(to0d.bytes())
        over = signed_part if hashed else to0d.bytes() + b"something else"
        new_hash = cbor.Raw(Hash.of(HashAlgorithm.SHA256, over).raw)
        return cbor.encode([signed_part, cbor.Raw(signed_again(key, with_part(1, new_hash))(redirect.raw))])

    return change_message


def _with_voucher(key: PrivateKey, change: Change) -> Change:
    def change_to0d(data: bytes) -> bytes:
        voucher, *rest = cbor.read(data).array(3)
        return cbor.encode([cbor.Raw(change(voucher.raw)), *(cbor.Raw(part.raw) for part in rest)])

    return _with_to0d(key, change_to0d)


def refused_registration(parties: Parties, voucher: Voucher, change: Change) -> ErrorMessage:
    with pytest.raises(ErrorReceived) as refusal:
        register(parties, voucher, owner_key(parties, voucher), change)
    assert refusal.value.said.previous == M.TO0_OWNER_SIGN
    return refusal.value.said


@pytest.mark.parametrize("change", [trailing, emptied, last_byte_changed])
def test_an_owner_sign_22_that_was_damaged(change: Change, parties: Parties, voucher: Voucher) -> None:
    refused_registration(parties, voucher, change)


def test_a_hello_20_that_was_damaged(parties: Parties) -> None:
    for body in (b"", b"\x81\x00", b"\x80\x00", b"\xa0"):
        with pytest.raises(ErrorReceived):
            parties.channel().exchange(M.TO0_HELLO, body)


def test_the_nonce_and_the_hash_of_22(parties: Parties, voucher: Voucher) -> None:
    key = owner_key(parties, voucher)

    assert "nonce" in refused_registration(parties, voucher, _with_to0d(key, with_part(2, SOMETHING))).text
    assert "redirection" in refused_registration(parties, voucher, _with_to0d(key, bytes, hashed=False)).text
    assert register(parties, voucher, key, _with_to0d(key, bytes))


def test_a_redirection_by_another_than_the_owner(parties: Parties, voucher: Voucher) -> None:
    another = ec.generate_private_key(ec.SECP256R1())

    said = refused_registration(parties, voucher, _with_to0d(another, bytes))

    assert said.code == ErrorCode.INVALID_OWNER_SIGNATURE


def test_a_redirection_to_nowhere(parties: Parties, voucher: Voucher) -> None:
    nowhere = encode_owner_address(OwnerAddress(None, "owner.example", 1, TransportProtocol.COAP))

    def change(data: bytes) -> bytes:
        to0d, redirect = cbor.read(data).array(2)
        changed = signed_again(owner_key(parties, voucher), with_part(0, [nowhere]))(redirect.raw)
        return cbor.encode([to0d.bytes(), cbor.Raw(changed)])

    assert "address" in refused_registration(parties, voucher, change).text


def _header(voucher: Voucher, number: int, value: cbor.Encodable) -> Change:
    return with_part(1, with_part(number, value)(voucher.header.raw))


def _entries(voucher: Voucher, change: Callable[[bytes], bytes]) -> Change:
    return with_part(4, [cbor.Raw(change(each.signed.raw)) for each in voucher.entries])


def _broken_vouchers(parties: Parties, voucher: Voucher) -> dict[str, Change]:
    another = ec.generate_private_key(ec.SECP256R1())
    entry = voucher.entries[0]
    manufacturer = party_keys("manufacturer").owning(voucher.header.manufacturer).key
    stranger = FdoPublicKey.make(another.public_key())
    wrong_hash = cbor.Raw(Hash.of(HashAlgorithm.SHA256, b"another").raw)
    return {
        "header: version": _header(voucher, 0, 102),
        "header: guid": _header(voucher, 1, SOMETHING),
        "header: device info": _header(voucher, 3, "Another CT"),
        "header: public key": _header(voucher, 4, cbor.Raw(stranger.raw)),
        "header: hash of the certificates": _header(voucher, 5, wrong_hash),
        "header: no hash of the certificates": _header(voucher, 5, None),
        "header: zeros": with_part(1, bytes(len(voucher.header.raw))),
        "version": with_part(0, 102),
        "hmac": with_part(2, [HashAlgorithm.HMAC_SHA256, bytes(32)]),
        "hmac of another strength": with_part(2, [HashAlgorithm.HMAC_SHA384, bytes(48)]),
        "no certificates": with_part(3, None),
        "certificates of another": with_part(3, [b"\x30\x00"]),
        "entry: signature": _entries(voucher, last_byte_changed),
        "entry: signed by another": _entries(voucher, signed_again(another)),
        "entry: previous hash": _entries(voucher, signed_again(manufacturer, with_part(0, wrong_hash))),
        "entry: hash of the device": _entries(voucher, signed_again(manufacturer, with_part(1, wrong_hash))),
        "entry: next owner": _entries(voucher, signed_again(manufacturer, with_part(3, cbor.Raw(stranger.raw)))),
        "entry: the same twice": with_part(4, [cbor.Raw(entry.signed.raw)] * 2),
        "no entry": with_part(4, []),
    }


def test_a_voucher_that_does_not_hold_is_not_registered(parties: Parties, voucher: Voucher) -> None:
    """FDO 1.1, 3.4.6."""
    key = owner_key(parties, voucher)
    for change in _broken_vouchers(parties, voucher).values():
        refused_registration(parties, voucher, _with_voucher(key, change))


def test_certificates_of_a_device_that_do_not_belong_together(parties: Parties, voucher: Voucher) -> None:
    """The header vouches for them, but one is not signed by the next."""
    chain = (voucher.device_chain[0], voucher.device_chain[0])
    data = b"".join(each.public_bytes(Encoding.DER) for each in chain)
    header = VoucherHeader.make(
        voucher.header.guid,
        voucher.header.rendezvous,
        voucher.header.device_info,
        voucher.header.manufacturer,
        Hash.of(HashAlgorithm.SHA256, data),
    )
    manufacturer = party_keys("manufacturer")
    forged = Voucher.make(header, voucher.hmac, chain)
    forged = forged.extend(
        manufacturer.owning(header.manufacturer).key, parties.owner.keys.successor(header.manufacturer)
    )

    with pytest.raises(ErrorReceived) as refusal:
        register(parties, forged, owner_key(parties, voucher))

    assert refusal.value.said.code == ErrorCode.INVALID_VOUCHER


def test_nobody_else_can_register_for_a_guid(parties: Parties, scanner: FdoScanner, voucher: Voucher) -> None:
    """Anybody can be a manufacturer, and has seen the GUID: the device would be led to him, until the owner is back."""
    maker, key = parties.owner.keys, voucher.header.manufacturer
    header = VoucherHeader.make(
        voucher.header.guid,
        voucher.header.rendezvous,
        voucher.header.device_info,
        maker.successor(key),
        voucher.header.certificate_chain_hash,
    )
    forged = Voucher.make(header, voucher.hmac, voucher.device_chain)
    right = scanner.find_owner(parties.channel())

    with pytest.raises(ErrorReceived) as refusal:
        register(parties, forged, maker.owning(header.manufacturer).key)

    assert refusal.value.said.code == ErrorCode.INVALID_GUID
    assert scanner.find_owner(parties.channel()).raw == right.raw
    assert register(parties, voucher, owner_key(parties, voucher))


def test_a_registration_ends(parties: Parties, scanner: FdoScanner, voucher: Voucher) -> None:
    clock = parties.clock
    assert isinstance(clock, SteppedClock)
    parties.rendezvous.terms = RendezvousTerms(longest=60)
    assert register(parties, voucher, owner_key(parties, voucher)) == 60
    assert read_redirect(scanner.find_owner(parties.channel()))

    clock.sleep(60)

    with pytest.raises(ErrorReceived) as refusal:
        scanner.find_owner(parties.channel())
    assert refusal.value.said.code == ErrorCode.NOT_FOUND
    parties.rendezvous.terms = RendezvousTerms()
    parties.owner.register(voucher)


def test_of_too_many_registrations_the_oldest_gives_way(parties: Parties, scanner: FdoScanner, tmp_path: Path) -> None:
    kept = parties.rendezvous.terms
    parties.rendezvous.terms = replace(kept, owners_limit=len(parties.owner.vouchers.all()))
    try:
        FdoScanner(tmp_path).initialize(parties.channel())
        with pytest.raises(ErrorReceived):
            scanner.find_owner(parties.channel())
    finally:
        parties.rendezvous.terms = kept
        parties.owner.register(parties.owner.vouchers.find(scanner.credential.guid))


HELLO_RV = {
    "encoding": (trailing, ErrorCode.MESSAGE_BODY),
    "zeros": (emptied, ErrorCode.MESSAGE_BODY),
    "guid of nobody": (with_part(0, SOMETHING), ErrorCode.NOT_FOUND),
    "guid too long": (with_part(0, SOMETHING + b"1"), ErrorCode.MESSAGE_BODY),
    "signature of another key": (with_part(1, [SignatureType.RS256, b""]), ErrorCode.INVALID_MESSAGE),
    "signature info that is used for nothing": (with_part(1, [SignatureType.ES256, b"1"]), ErrorCode.MESSAGE_BODY),
}


def refused_search(parties: Parties, scanner: FdoScanner, number: MessageType, change: Change) -> ErrorMessage:
    with pytest.raises(ErrorReceived) as refusal:
        scanner.find_owner(AlteringChannel(parties.services, number, change))
    assert refusal.value.said.previous == number
    return refusal.value.said


@pytest.mark.parametrize("case", HELLO_RV)
def test_hello_rv_30(case: str, parties: Parties, scanner: FdoScanner) -> None:
    change, code = HELLO_RV[case]
    assert refused_search(parties, scanner, M.TO1_HELLO_RV, change).code == code


@pytest.mark.parametrize("change", [trailing, emptied, last_byte_changed])
def test_a_prove_to_rv_32_that_was_damaged(change: Change, parties: Parties, scanner: FdoScanner) -> None:
    refused_search(parties, scanner, M.TO1_PROVE_TO_RV, change)


TOKEN: dict[str, Change] = {
    "nonce": with_claim(NONCE, SOMETHING),
    "guid": with_claim(UEID, b"\1" + SOMETHING),
    "kind of ueid": with_claim(UEID, b"\2" + SOMETHING),
    "no nonce": with_claim(NONCE, None),
    "no ueid": with_claim(UEID, None),
    "another claim": with_claim(1, 1),
    "encoding": cbor.encode,
}


@pytest.mark.parametrize("case", TOKEN)
def test_what_the_device_has_signed_in_32(case: str, parties: Parties, scanner: FdoScanner) -> None:
    refused_search(parties, scanner, M.TO1_PROVE_TO_RV, signed_again(scanner.key, TOKEN[case]))


def test_32_by_another_key_or_in_another_way(parties: Parties, scanner: FdoScanner) -> None:
    another = ec.generate_private_key(ec.SECP256R1())
    refused_search(parties, scanner, M.TO1_PROVE_TO_RV, signed_again(another))

    stronger = ec.generate_private_key(ec.SECP384R1())
    with_another = partial(sign1, stronger, SignatureType.ES384)
    refused_search(parties, scanner, M.TO1_PROVE_TO_RV, with_another)
