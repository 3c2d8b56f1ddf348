"""The evaluation servers of FDO over HTTP (FDO 1.1, 4.3), and what they keep on disk."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from enroll.errors import StateError
from enroll.evaluation.fdo.party_keys import PartyKeys
from enroll.evaluation.fdo.vouchers import Vouchers
from enroll.fdo import cbor
from enroll.fdo.fault import ErrorCode, Fault
from enroll.fdo.messages import MESSAGE_LIMIT, ErrorMessage, MessageType
from enroll.fdo.public_key import FdoPublicKey, KeyEncoding, KeyType
from enroll.fdo.transport import ErrorReceived
from enroll.fdo.voucher import Voucher
from enroll.statefile import StateFiles
from tests.support.clocks import SteppedClock
from tests.support.fdo.parties import Parties, lengthened, party_keys
from tests.support.fdo.scanner import FdoScanner
from tests.support.fixed_keys import fixed_ec_key, fixed_rsa_key

CBOR = {"Content-Type": "application/cbor"}
HELLO = cbor.encode([])


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    with Parties(tmp_path_factory.mktemp("parties"), clock=SteppedClock()) as running:
        yield running


def ask(
    parties: Parties, number: int | str, body: bytes = HELLO, headers: Mapping[str, str] = CBOR, method: str = "POST"
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(urlsplit(parties.url).netloc, timeout=10)
    try:
        connection.request(method, f"/fdo/101/msg/{number}", body, dict(headers))
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def test_an_answer_names_its_message_and_gives_a_token_of_two_words(parties: Parties) -> None:
    answer, body = ask(parties, 20)

    assert answer.status == 200
    assert answer.headers["Message-Type"] == "21"
    assert answer.headers["Content-Type"] == "application/cbor"
    assert answer.headers["Authorization"].split(" ")[0] == "Bearer"
    assert len(answer.headers["Authorization"].split(" ")) == 2
    assert int(answer.headers["Content-Length"]) == len(body)


@pytest.mark.parametrize(
    "token", ["", "Bearer", "Bearer ", "Bearer another", "bearer {}", "{}", "Basic {}", "Bearer {} {}", "Bearer {}x"]
)
def test_a_message_needs_the_token_of_its_run(token: str, parties: Parties) -> None:
    right = ask(parties, 20)[0].headers["Authorization"].removeprefix("Bearer ")
    headers = {"Authorization": token.format(right, right)} if token else {}

    answer, body = ask(parties, 22, headers=CBOR | headers)

    assert answer.status == 500
    assert answer.headers["Message-Type"] == "255"
    assert ErrorMessage.read(body).code == ErrorCode.INVALID_TOKEN


def test_message_255_of_the_other_side_is_taken_and_ends_its_run(parties: Parties) -> None:
    token = {"Authorization": ask(parties, 20)[0].headers["Authorization"]}

    answer, body = ask(parties, 255, ErrorMessage(500, 21, "no").encode(), CBOR | token)

    assert (answer.status, body) == (200, b"")
    assert ErrorMessage.read(ask(parties, 22, headers=CBOR | token)[1]).code == ErrorCode.INVALID_TOKEN


@pytest.mark.parametrize("number", ["0", "21", "71", "254", "256", "999", "1000", "x", "", "20/", "-20"])
def test_what_no_device_and_no_owner_sends(number: str, parties: Parties) -> None:
    answer, _ = ask(parties, number)

    assert answer.status in (404, 500)
    assert "Authorization" not in answer.headers


def test_only_cbor_is_taken_and_only_by_post(parties: Parties) -> None:
    answer, body = ask(parties, 20, headers={"Content-Type": "application/json"})
    assert (answer.status, ErrorMessage.read(body).code) == (500, ErrorCode.MESSAGE_BODY)

    assert ask(parties, 20, method="GET")[0].status == 404


def test_a_body_is_at_most_as_long_as_a_message(parties: Parties) -> None:
    """FDO 1.1, 4.3: 65535 bytes; and it says beforehand how long it is."""
    assert ErrorMessage.read(ask(parties, 20, bytes(MESSAGE_LIMIT))[1]).text.startswith("There are 65534 bytes after")
    assert ErrorMessage.read(ask(parties, 20, bytes(MESSAGE_LIMIT + 1))[1]).text.endswith("too long.")
    assert ask(parties, 20, b"", CBOR | {"Content-Length": "65537"})[0].status == 413
    assert ask(parties, 20, b"", CBOR | {"Transfer-Encoding": "chunked"})[0].status == 411


def test_a_server_that_cannot_keep_a_voucher_says_so_and_not_why(tmp_path: Path) -> None:
    """FDO 1.1, 3.7: INTERNAL_SERVER_ERROR; the device has no credential then."""
    with Parties(tmp_path) as parties:

        def full(_: Voucher) -> None:
            raise StateError("/secret/place is full.", remedy="Buy a disk.")

        parties.manufacturer = replace(parties.manufacturer, deliver=full)
        scanner = FdoScanner(tmp_path / "scanner")
        with pytest.raises(ErrorReceived) as refusal:
            scanner.initialize(parties.http_channel())

    assert (refusal.value.said.code, refusal.value.said.previous) == (ErrorCode.INTERNAL, MessageType.DI_SET_HMAC)
    assert "secret" not in str(refusal.value)
    assert scanner.credentials.current() is None


@pytest.fixture(scope="module")
def vouchers(parties: Parties, tmp_path_factory: pytest.TempPathFactory) -> tuple[Voucher, Voucher]:
    """Of two devices, the second with a chain of owners."""
    for name in ("one", "other"):
        FdoScanner(tmp_path_factory.mktemp(name)).initialize(parties.channel())
    one, other = parties.owner.vouchers.all()
    return one, lengthened(other, parties.owner.keys, 5)


def test_vouchers_are_kept_replaced_and_given_away(tmp_path: Path, vouchers: tuple[Voucher, Voucher]) -> None:
    one, other = vouchers
    store = Vouchers(tmp_path, StateFiles())
    store.add(one)
    assert store.find(one.header.guid) == one

    store.replace(one.header.guid, other)
    assert list(store.all()) == [other]
    for gone in (store.find, store.remove, lambda guid: store.replace(guid, other)):
        with pytest.raises(Fault) as unknown:
            gone(one.header.guid)
        assert unknown.value.code is ErrorCode.NOT_FOUND

    assert store.remove(other.header.guid) == other
    assert not store.all()


def test_vouchers_in_a_directory_are_there_after_a_restart(tmp_path: Path, vouchers: tuple[Voucher, Voucher]) -> None:
    one, other = vouchers
    Vouchers(tmp_path, StateFiles()).add(one)
    (tmp_path / f"{other.header.guid.hex()}.pem").write_bytes(other.pem)  # as somebody brings it
    (tmp_path / "README").write_text("not a voucher")

    kept = Vouchers(tmp_path, StateFiles()).all()

    assert {voucher.raw for voucher in kept} == {one.raw, other.raw}


def test_a_voucher_that_is_damaged_is_named_and_spoils_no_other(
    tmp_path: Path, vouchers: tuple[Voucher, Voucher], caplog: pytest.LogCaptureFixture
) -> None:
    one, other = vouchers
    store = Vouchers(tmp_path, StateFiles())
    store.add(other)
    path = tmp_path / f"{one.header.guid.hex()}.pem"
    path.write_bytes(one.pem[:-80])

    with pytest.raises(StateError, match=path.name):
        store.find(one.header.guid)
    assert [voucher.raw for voucher in store.all()] == [other.raw]
    assert path.name in caplog.text


def test_a_power_cut_between_two_vouchers_leaves_both(tmp_path: Path, vouchers: tuple[Voucher, Voucher]) -> None:
    """At message 70: the device comes back as the one that it was, or as the one that it is to be."""

    class Cut(StateFiles):
        def remove(self, path: Path) -> None:
            raise KeyboardInterrupt(path)

    one, other = vouchers
    store = Vouchers(tmp_path, Cut())
    store.add(one)

    with pytest.raises(KeyboardInterrupt):
        store.replace(one.header.guid, other)

    assert {voucher.raw for voucher in Vouchers(tmp_path, StateFiles()).all()} == {one.raw, other.raw}


def test_the_keys_of_a_party_are_there_after_a_restart(tmp_path: Path) -> None:
    """One of each kind, for what a device asks for: FDO 1.1, 3.3.4."""
    clock, files = SteppedClock(), StateFiles()
    first = PartyKeys(tmp_path, "Owner", clock, files)
    device = fixed_ec_key().public_key()

    for kind in KeyType:
        made = first.of_kind(kind, device)
        again = PartyKeys(tmp_path, "Owner", clock, files)
        assert again.of_kind(kind, device).chain == made.chain
        assert again.owning(made.public(kind, KeyEncoding.X5CHAIN)).key.private_numbers() == made.key.private_numbers()
        made.chain[0].verify_directly_issued_by(made.chain[1])
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.glob("*.key"))


def test_an_rsa_key_is_as_long_as_that_of_the_device() -> None:
    strong = rsa.generate_private_key(65537, 3072).public_key()

    assert party_keys("owner").of_kind(KeyType.RSA_PKCS, strong).key.key_size == 3072
    assert party_keys("owner").of_kind(KeyType.RSA_PKCS, fixed_rsa_key("signer").public_key()).key.key_size == 2048
    assert party_keys("owner").of_kind(KeyType.RSA_2048_RESTRICTED, strong).key.key_size == 2048


def test_keys_for_rsa_are_made_when_a_device_needs_them(tmp_path: Path) -> None:
    """Those for elliptic curves at once: the maker of a scanner makes its voucher out to one of them."""
    keys = PartyKeys(tmp_path, "Owner", SteppedClock(), StateFiles())
    names = {"root", "P-256", "P-384"}
    with pytest.raises(Fault, match="somebody else"):
        keys.owning(FdoPublicKey.make(fixed_rsa_key("signer").public_key()))
    assert {path.stem for path in tmp_path.iterdir()} == names

    keys.of_kind(KeyType.RSA_2048_RESTRICTED, fixed_ec_key().public_key())

    assert {path.stem for path in tmp_path.iterdir()} == {*names, "RSA-2048"}


def test_a_key_without_its_certificate_is_made_anew(tmp_path: Path) -> None:
    """The power was cut in between; nobody has seen it."""
    PartyKeys(tmp_path, "Owner", SteppedClock(), StateFiles())
    (tmp_path / "P-256.pem").unlink()

    made = PartyKeys(tmp_path, "Owner", SteppedClock(), StateFiles()).of_kind(
        KeyType.SECP256R1, fixed_ec_key().public_key()
    )

    assert made.chain[0].public_key() == made.key.public_key()
