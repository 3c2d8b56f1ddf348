"""The factory: a device gets its first credential, or nothing at all. FDO 1.1, 5.2."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import hmac as reference_hmac
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from enroll.algorithms import KeyAlgorithm
from enroll.config import KeyStoreSettings, SoftwareStoreSettings
from enroll.errors import ConfigurationError, KeyStoreError, ProtocolViolation, ServerUnreachable, StateError
from enroll.fdo import cbor
from enroll.fdo.fault import ErrorCode
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.messages import ErrorMessage, ManufacturingInfo, MessageType
from enroll.fdo.public_key import FdoPublicKey, KeyEncoding, KeyType
from enroll.fdo.transport import ErrorReceived
from enroll.fdo.voucher import VoucherHeader
from enroll.record import write_record
from enroll.statefile import StateFiles
from tests.support.fdo.factory import (
    GUID,
    KEY,
    PRODUCT,
    RENDEZVOUS,
    CutFiles,
    NewScanner,
    ScriptedManufacturer,
    header_for,
)
from tests.support.fdo.vectors import Vector, vectors
from tests.support.key_stores import secret_file
from tests.unit.test_issue_power_cuts import PowerCut

APP_START, SET_HMAC = MessageType.DI_APP_START, MessageType.DI_SET_HMAC


def software(folder: Path) -> KeyStoreSettings:
    folder.mkdir(exist_ok=True)
    return KeyStoreSettings(SoftwareStoreSettings(folder / "keys", secret_file(folder / "passphrase", "a passphrase")))


@pytest.fixture
def scanner(tmp_path: Path) -> NewScanner:
    return NewScanner(tmp_path, software(tmp_path))


# --- what is said


def test_the_device_says_what_it_is_and_authenticates_the_header_as_it_came(scanner: NewScanner) -> None:
    """Message 10 is not part of the standard; what other implementations agree on is in it. 12 is over raw bytes."""
    manufacturer = ScriptedManufacturer()

    credential = scanner.initialize(manufacturer)

    (wrapped,) = cbor2.loads(manufacturer.received[APP_START])
    kind, encoding, serial_number, device_info, request = cbor2.loads(wrapped)
    assert (kind, encoding, serial_number, device_info) == (10, 1, "CT-4711", "Example CT")
    csr = x509.load_der_x509_csr(request)
    assert csr.is_signature_valid
    assert csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "CT-4711"
    assert csr.public_key() == scanner.stores.load(credential.key_uri).public_key()
    ((number, value),) = cbor2.loads(manufacturer.received[SET_HMAC])
    assert (number, value) == (5, scanner.stores.load_secret(credential.secret_uri).sign(header_for().raw))
    assert manufacturer.reported == []


def test_the_credential_holds_what_the_header_says(scanner: NewScanner) -> None:
    credential = scanner.initialize()

    assert (credential.guid, credential.device_info) == (GUID, "Example CT")
    assert credential.rendezvous.encoded == RENDEZVOUS
    assert credential.owner_key_hash == Hash.of(HashAlgorithm.SHA256, KEY.raw)
    assert (credential.owner_key_kind, credential.hmac_algorithm) == (KeyType.SECP256R1, HashAlgorithm.HMAC_SHA256)
    assert (credential.owner, credential.was_owned, credential.certificate_chain_hash) == (None, False, None)
    assert (scanner.credentials.current(), scanner.credentials.pending()) == (credential, None)
    assert [path.name for path in scanner.directory.iterdir()] == ["credential.current"]
    assert scanner.made() == {credential.key_uri, credential.secret_uri}


@pytest.mark.parametrize(
    ("algorithm", "kind", "hmac"),
    [
        (KeyAlgorithm.P_256, KeyType.SECP256R1, HashAlgorithm.HMAC_SHA256),
        (KeyAlgorithm.P_384, KeyType.SECP384R1, HashAlgorithm.HMAC_SHA384),
        (KeyAlgorithm.RSA_2048, KeyType.RSA_2048_RESTRICTED, HashAlgorithm.HMAC_SHA256),
        (KeyAlgorithm.RSA_3072, KeyType.RSA_PKCS, HashAlgorithm.HMAC_SHA384),
    ],
)
def test_every_kind_of_key_has_hashes_of_its_strength(
    scanner: NewScanner, algorithm: KeyAlgorithm, kind: KeyType, hmac: HashAlgorithm
) -> None:
    scanner.product = replace(PRODUCT, key_algorithm=algorithm, encoding=KeyEncoding.X5CHAIN)
    curve = {KeyType.SECP256R1: ec.SECP256R1(), KeyType.SECP384R1: ec.SECP384R1()}.get(kind)
    key = ec.generate_private_key(curve) if curve else rsa.generate_private_key(65537, int(algorithm[4:]))
    manufacturer = ScriptedManufacturer(cbor.encode([header_for(key.public_key()).raw]))

    credential = scanner.initialize(manufacturer)

    info = ManufacturingInfo.read(cbor.read(manufacturer.received[APP_START]))
    assert (info.kind, info.encoding) == (kind, KeyEncoding.X5CHAIN)
    (sent,) = cbor.read(manufacturer.received[SET_HMAC]).array(1)
    assert Hash.read(sent).algorithm == credential.hmac_algorithm == hmac
    assert credential.owner_key_hash.algorithm == Hash.read(sent).plain_algorithm


@pytest.mark.parametrize("vector", vectors(), ids=str)
def test_recorded_messages_mean_the_same_here(vector: Vector) -> None:
    """Messages 10 to 12 of another device, which go-fdo has accepted."""
    start, answer, hmac = map(vector.message, (10, 11, 12))
    assert ManufacturingInfo.read(cbor.read(start)).encode() == start
    (wrapped,) = cbor.read(answer).array(1)
    header = VoucherHeader.read(wrapped.embedded())
    (sent,) = cbor.read(hmac).array(1)
    strong = Hash.read(sent).algorithm is HashAlgorithm.HMAC_SHA384

    expected = reference_hmac.HMAC(vector.hmac_secret, hashes.SHA384() if strong else hashes.SHA256())
    expected.update(header.raw)
    assert expected.finalize() == Hash.read(sent).value


# --- manufacturers that are none


def header(**parts: Any) -> bytes:
    """Message 11 with something wrong; the header as a list, so that everything can be."""
    usual: dict[str, cbor.Encodable] = {
        "version": 101,
        "guid": GUID,
        "rendezvous": cbor.Raw(RENDEZVOUS),
        "device_info": "Example CT",
        "key": cbor.Raw(KEY.raw),
        "chain_hash": None,
    }
    return cbor.encode([cbor.encode(list((usual | parts).values()))])


def directives(*variables: Sequence[Any]) -> cbor.Raw:
    """RVInfo of one directive."""
    return cbor.Raw(cbor.encode([[[name, *map(cbor.encode, value)] for name, *value in variables]]))


def other_key(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> cbor.Raw:
    return cbor.Raw(FdoPublicKey.make(key.public_key()).raw)


RSA_KEY = rsa.generate_private_key(65537, 2048)
BAD_HEADERS = {
    "version-100": header(version=100),
    "version-2.0": header(version=200),
    "version-text": header(version="101"),
    "guid-empty": header(guid=b""),
    "guid-short": header(guid=GUID[:15]),
    "guid-long": header(guid=GUID + b"\0"),
    "guid-text": header(guid="a" * 16),
    "no-directive": header(rendezvous=[]),
    "empty-directive": header(rendezvous=[[]]),
    "no-rendezvous": header(rendezvous=None),
    "for-owners": header(rendezvous=directives((1,), (5, "rendezvous.example"))),
    "coap": header(rendezvous=directives((12, 5), (5, "rendezvous.example"))),
    "bad-name": header(rendezvous=directives((5, "rendezvous/example"))),
    "only-a-delay": header(rendezvous=directives((13, 60))),
    "many-directives": header(rendezvous=[[]] * 5000),
    "long-device-info": header(device_info="x" * 5000),
    "device-info-bytes": header(device_info=b"x"),
    "key-p384": header(key=other_key(ec.generate_private_key(ec.SECP384R1()))),
    "key-rsa": header(key=other_key(RSA_KEY)),
    "key-lies": header(key=cbor.Raw(KEY.raw.replace(b"\x83\x0a", b"\x83\x0b", 1))),
    "key-unknown": header(key=[99, 1, b""]),
    "key-null": header(key=None),
    "chain-hash-short": header(chain_hash=[-16, b"x" * 31]),
    "chain-hash-unknown": header(chain_hash=[-1, b"x" * 32]),
    "more-parts": header(more=None),
    "fewer-parts": cbor.encode([cbor.encode([101, GUID])]),
    "not-wrapped": cbor.encode([[101, GUID]]),
    "two": cbor.encode([header_for().raw, header_for().raw]),
    "nothing": cbor.encode([]),
    "null": cbor.encode([None]),
    "bare": header_for().raw,
    "map": cbor.encode({0: header_for().raw}),
    "empty": b"",
    "trailing": cbor.encode([header_for().raw]) + b"\0",
    "trailing-within": cbor.encode([header_for().raw + b"\0"]),
    "cut": cbor.encode([header_for().raw])[:-1],
    "endless": b"\x9f" + cbor.encode(header_for().raw) + b"\xff",
    "long-number": b"\x98\x01" + cbor.encode(header_for().raw),
    "bomb": b"\x9b\x7f" + b"\xff" * 7,
    "deep": b"\x81" * 60000,
    "zeros": b"\0" * 60,
}


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_a_header_that_is_not_proper_leaves_nothing(scanner: NewScanner, name: str) -> None:
    manufacturer = ScriptedManufacturer(BAD_HEADERS[name])

    with pytest.raises(ProtocolViolation, match="in message 11") as refused:
        scanner.initialize(manufacturer)

    assert refused.value.code == "fdo-refused"
    (reported,) = manufacturer.reported
    assert (reported.previous, reported.code in list(ErrorCode)) == (11, True)
    assert set(manufacturer.received) == {APP_START}
    scanner.assert_untouched()


@pytest.mark.parametrize(
    "done", [b"", cbor.encode([1]), cbor.encode({}), cbor.encode(None), b"\x80\0", b"\x9f\xff", b"\x98\0"]
)
def test_a_last_message_that_is_not_proper_leaves_nothing(scanner: NewScanner, done: bytes) -> None:
    manufacturer = ScriptedManufacturer(done=done)

    with pytest.raises(ProtocolViolation, match="in message 13"):
        scanner.initialize(manufacturer)

    assert [reported.previous for reported in manufacturer.reported] == [13]
    scanner.assert_untouched()


def raising(error: Exception, at: MessageType) -> Callable[[MessageType], None]:
    """What happens to a message."""

    def stop(number: MessageType) -> None:
        if number is at:
            raise error

    return stop


@pytest.mark.parametrize("number", [APP_START, SET_HMAC])
@pytest.mark.parametrize(
    "error",
    [ErrorReceived(ErrorMessage(500, 10, "no"), "the manufacturer"), ServerUnreachable("Nobody answers.")],
    ids=["refused", "silent"],
)
def test_what_does_not_come_to_its_end_leaves_nothing(
    scanner: NewScanner, number: MessageType, error: Exception
) -> None:
    manufacturer = ScriptedManufacturer(before=raising(error, number))

    with pytest.raises(type(error)):
        scanner.initialize(manufacturer)

    assert manufacturer.reported == []
    scanner.assert_untouched()
    scanner.initialize()


# --- what is there already


def test_a_device_is_initialized_once(scanner: NewScanner) -> None:
    credential, manufacturer = scanner.initialize(), ScriptedManufacturer()

    with pytest.raises(StateError, match="already") as refused:
        scanner.initialize(manufacturer)

    assert refused.value.code == "fdo-initialized"
    assert "signing" not in refused.value.what_next
    assert manufacturer.received == {}
    assert scanner.credentials.candidates() == (credential,)
    assert scanner.made() == {credential.key_uri, credential.secret_uri}


def test_an_rsa_key_has_no_cosekey(scanner: NewScanner) -> None:
    scanner.product = replace(PRODUCT, key_algorithm=KeyAlgorithm.RSA_2048, encoding=KeyEncoding.COSEKEY)

    with pytest.raises(ConfigurationError, match="COSEKEY"):
        scanner.initialize()
    scanner.assert_untouched()


def test_a_store_that_cannot_be_used_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    manufacturer = ScriptedManufacturer()

    with pytest.raises(KeyStoreError):
        NewScanner(tmp_path, KeyStoreSettings()).initialize(manufacturer)

    assert manufacturer.received == {}


# --- the power goes


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cuts are between operations, so nothing has to reach the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def assert_one_credential(trial: Path) -> None:
    """The next run ends with one credential, and no key that it does not name."""
    scanner = NewScanner(trial, software(trial))
    before = scanner.credentials.current()
    if before is None:
        scanner.initialize()
    else:
        with pytest.raises(StateError, match="already"):
            scanner.initialize()
    current = scanner.credentials.current()
    assert current is not None
    assert before in (None, current)
    assert scanner.credentials.pending() is None
    assert scanner.made() == {current.key_uri, current.secret_uri}
    assert "initializing.json" not in scanner.files.names(scanner.directory)


@pytest.mark.usefixtures("quick_disk")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_power_cut_at_any_operation_leaves_no_key_after_the_next_run(tmp_path: Path, *, after: bool) -> None:
    for operation in itertools.count(1):
        trial = tmp_path / f"trial-{operation}"
        cut = NewScanner(trial, software(trial), files=CutFiles(operation, after=after))
        try:
            cut.initialize()
        except PowerCut:
            assert_one_credential(trial)
        else:
            break
    assert operation > 8


def lose_power(trial: Path, number: MessageType, when: str) -> None:
    """A run whose power goes when message `number` is sent, before or after it arrives."""
    files = CutFiles(10_000, after=False)

    def cut(message: MessageType) -> None:
        if message is number:
            files.left = 0
            raise PowerCut

    scanner = NewScanner(trial, software(trial), files=files)
    manufacturer = ScriptedManufacturer(before=cut) if when == "before" else ScriptedManufacturer(after=cut)
    with pytest.raises(PowerCut):
        scanner.initialize(manufacturer)
    assert manufacturer.reported == []


@pytest.mark.usefixtures("quick_disk")
@pytest.mark.parametrize("number", [APP_START, SET_HMAC])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_power_cut_at_any_message_leaves_no_key_after_the_next_run(
    tmp_path: Path, number: MessageType, when: str
) -> None:
    lose_power(tmp_path / "trial", number, when)
    assert NewScanner(tmp_path / "trial", software(tmp_path / "trial")).made()

    assert_one_credential(tmp_path / "trial")


def test_before_message_12_the_credential_is_on_the_disk(tmp_path: Path) -> None:
    """Somebody may have a voucher of it from then on, so the scanner can still be onboarded with it."""
    trial = tmp_path / "trial"
    lose_power(trial, SET_HMAC, "after")

    credentials = NewScanner(trial, software(trial)).credentials
    assert credentials.current() is None
    assert [credential.guid for credential in credentials.candidates()] == [GUID]


def test_keys_that_cannot_be_removed_now_are_not_forgotten(tmp_path: Path) -> None:
    """The token may be away, say."""
    trial = tmp_path / "trial"
    lose_power(trial, SET_HMAC, "after")
    made = NewScanner(trial, software(trial)).made()
    with pytest.raises(KeyStoreError):
        NewScanner(trial, KeyStoreSettings()).initialize()

    assert NewScanner(trial, software(trial)).made() == made
    assert_one_credential(trial)


@pytest.mark.parametrize(
    "values",
    [
        {"name": ""},
        {"name": "fdo-"},
        {"name": "a"},
        {"name": "fdo-0123456789abcdef/../x"},
        {"key_store": "cloud"},
        {"key_store": ""},
    ],
)
def test_a_damaged_record_costs_no_key(scanner: NewScanner, values: dict[str, str]) -> None:
    """A name that is too short would fit others."""
    scanner.stores.generate(PRODUCT.key_store, "signing-fdo-a", KeyAlgorithm.P_256)
    kept = scanner.stores.list()
    scanner.directory.mkdir()
    usual = {"name": "fdo-0123456789abcdef", "key_store": "software", "token": ""}
    write_record(scanner.directory / "initializing.json", usual | values, StateFiles())

    with pytest.raises(StateError, match="damaged"):
        scanner.initialize()

    assert scanner.stores.list() == kept
