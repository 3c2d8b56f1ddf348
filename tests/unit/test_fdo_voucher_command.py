"""`scanseal fdo voucher` as its users see it: what it shows, what it refuses, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID

from agent.cli import exits
from agent.cli.main import run
from enroll.certificates import pem
from enroll.clock import SystemClock
from enroll.csr import DIGITAL_SIGNATURE
from enroll.evaluation.authority import certificate_builder
from enroll.fdo import cbor
from enroll.fdo.public_key import KeyEncoding, KeyType
from enroll.fdo.rendezvous import Variable
from enroll.fdo.voucher import ENTRIES_LIMIT, FILE_LIMIT, Voucher
from tests.support.fdo.vouchers import (
    DEVICE_INFO,
    GUID,
    NOW,
    Party,
    PrivateKey,
    device,
    factory_voucher,
    key_of,
    party,
    voucher_with,
)
from tests.support.mislabelled_key import mislabelled_key
from tests.support.pki import CA_KEY_USAGE

MAKER, HOSPITAL, BUYER = party("Maker", "P-256", 0), party("Hospital", "P-256", 1), party("Buyer", "P-256", 2)
BY_KEY = factory_voucher(MAKER).extend(MAKER.key, HOSPITAL.public())
BY_CHAIN = factory_voucher(MAKER, KeyEncoding.X5CHAIN).extend(MAKER.key, HOSPITAL.public(KeyEncoding.X5CHAIN))


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment for which the certificates of the tests are made."""

    def now(_: SystemClock) -> datetime:
        return NOW

    monkeypatch.setattr(SystemClock, "now", now)


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    exit_code: int
    text: str
    error: str

    @property
    def record(self) -> dict[str, Any]:
        """What a program reads."""
        parsed: dict[str, Any] = json.loads(self.text)
        return parsed

    @property
    def refusal(self) -> tuple[int, str]:
        """Exit code and code of an error for programs."""
        return self.exit_code, self.record["error"]["code"]


@dataclass(frozen=True)
class Desk:
    """A folder with vouchers, keys and certificates, and the commands."""

    folder: Path
    output: pytest.CaptureFixture[str]

    def file(self, content: bytes, name: str = "voucher.pem") -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def key(self, key: PrivateKey, passphrase: bytes = b"", name: str = "key.pem") -> Path:
        encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        encoded = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        return self.file(encoded, name)

    def secret(self, secret: bytes, name: str = "passphrase") -> Path:
        path = self.file(secret, name)
        path.chmod(0o600)
        return path

    def public(self, owner: Party, name: str = "next.pem") -> Path:
        encoded = owner.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return self.file(encoded, name)

    def chain(self, owner: Party, name: str = "next.pem") -> Path:
        return self.file(pem(owner.chain), name)

    def anchor(self, owner: Party) -> Path:
        return self.file(pem([owner.anchor]), f"ca-of-{owner.name}.pem")

    def run(self, *arguments: object) -> Answer:
        self.output.readouterr()
        code = run(["fdo", "voucher", *map(str, arguments)])
        said = self.output.readouterr()
        return Answer(code, said.out, said.err)

    def extend(self, voucher: Voucher, key: Path, to: Path, *more: object) -> Answer:
        """To new.pem."""
        arguments = (self.file(voucher.pem), "--key", key, "--to", to, "--output", self.new, "--json", *more)
        return self.run("extend", *arguments)

    @property
    def new(self) -> Path:
        return self.folder / "new.pem"


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


# Whatever the command.


@pytest.mark.parametrize("command", ["show", "verify", "owners"])
@pytest.mark.parametrize("encoded", [BY_KEY.pem, BY_KEY.raw], ids=["PEM", "CBOR"])
def test_a_voucher_is_read_in_pem_and_in_cbor(desk: Desk, command: str, encoded: bytes) -> None:
    assert desk.run(command, desk.file(encoded)).exit_code == exits.OK


@pytest.mark.parametrize("command", ["show", "verify", "owners"])
@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "voucher-malformed"),
        (b"\0" * 100, "voucher-malformed"),
        (BY_KEY.raw[:-1], "voucher-malformed"),
        (b"-----BEGIN OWNERSHIP VOUCHER-----\n\x1b[2J\n-----END OWNERSHIP VOUCHER-----", "voucher-malformed"),
        (BY_KEY.pem * 2, "voucher-malformed"),
        (BY_KEY.raw[:-1] + bytes([BY_KEY.raw[-1] ^ 1]), "voucher-broken"),
    ],
    ids=range(6),
)
def test_what_does_not_hold_is_refused_and_nothing_of_it_is_shown(
    desk: Desk, command: str, content: bytes, code: str
) -> None:
    answer = desk.run(command, desk.file(content), "--json")
    assert answer.refusal == (exits.CONFIGURATION, code)
    assert list(answer.record) == ["error"]
    text = desk.run(command, desk.file(content))
    assert (text.text, "\x1b" in text.error) == ("", False)


@pytest.mark.parametrize("command", ["show", "verify", "owners"])
def test_a_file_that_cannot_be_read_or_is_too_large_is_named(desk: Desk, command: str) -> None:
    for path in (desk.folder / "missing.pem", desk.folder, desk.file(BY_KEY.pem + bytes(FILE_LIMIT))):
        answer = desk.run(command, path, "--json")
        assert answer.exit_code == exits.NO_INPUT
        assert str(path) in answer.record["error"]["what"]


@pytest.mark.parametrize("command", ["show", "owners"])
def test_names_of_others_do_not_write_on_the_terminal(desk: Desk, command: str) -> None:
    """Device info and certificates are made by somebody else."""
    villain = party("Owner\x1b[2J\u202e\r\nowner now: You")
    voucher = factory_voucher(villain, KeyEncoding.X5CHAIN, device_info="CT\x1b]0;title\x07\n\u202e")
    said = desk.run(command, desk.file(voucher.pem)).text
    assert all(line.isprintable() for line in said.splitlines())
    assert not [line for line in said.splitlines() if line.startswith("owner now: You")]
    assert "\x1b" not in desk.run(command, desk.file(voucher.pem), "--json").text


@pytest.mark.parametrize("command", ["show", "verify", "owners", "extend"])
def test_a_voucher_that_was_cut_off_is_told_as_such(desk: Desk, command: str) -> None:
    more = ("--key", desk.key(HOSPITAL.key), "--to", desk.public(BUYER), "--output", desk.new)
    said = desk.run(command, desk.file(BY_KEY.pem[:-100]), *(more if command == "extend" else ()))
    assert "damaged or cut off?" in said.error


@pytest.mark.parametrize("command", ["verify", "owners", "extend"])
def test_of_several_vouchers_one_is_taken(desk: Desk, command: str) -> None:
    """A shell makes several of vouchers/*.pem."""
    files = desk.file(BY_KEY.pem), desk.file(BY_CHAIN.pem, "other.pem")
    more = ("--key", desk.key(HOSPITAL.key), "--to", desk.public(BUYER), "--output", desk.new)
    answer = desk.run(command, *files, *(more if command == "extend" else ()))
    assert answer.exit_code == exits.USAGE
    assert "2 files. Name one of them; scanseal fdo voucher show tells which scanner each is about." in answer.error
    assert " FILE\n" in desk.run(command, "--help").text.partition("\n\n")[0] + "\n"


def test_show_takes_several(desk: Desk) -> None:
    files = desk.file(BY_KEY.pem), desk.file(BY_CHAIN.pem, "other.pem")
    assert [json.loads(line)["file"] for line in desk.run("show", *files, "--json").text.splitlines()] == [
        str(file) for file in files
    ]
    assert [line for line in desk.run("show", *files).text.splitlines() if line.endswith(".pem")] == [
        f"{'file':<21}{file}" for file in files
    ]


def test_every_command_shows_its_exit_codes_and_an_example(desk: Desk) -> None:
    assert "voucher.pem" in desk.run("--help").text
    for command in ("show", "verify", "owners", "extend"):
        said = desk.run(command, "--help").text
        assert "Exit code: 0 " in said
        assert f"Example: scanseal fdo voucher {command} voucher.pem" in said


# show


def test_show_says_which_device_whose_and_where_it_looks_for_its_owner(desk: Desk) -> None:
    shown = desk.run("show", desk.file(BY_KEY.pem), "--json").record
    chain = BY_KEY.verify()
    assert (shown["guid"], shown["device_info"], shown["entries"]) == (GUID.hex(), DEVICE_INFO, 1)
    assert shown["manufacturer"]["fingerprint"] == MAKER.public().fingerprint
    assert shown["owner_fingerprint"] == shown["owner"]["fingerprint"] == HOSPITAL.public().fingerprint
    assert shown["voucher_fingerprint"] == chain.fingerprint
    assert shown["device_certificates"] == ["CN=device", "CN=CA of device"]
    assert shown["rendezvous"] == [
        {
            "protocol": "HTTPS",
            "dns": "fdo.example.com",
            "ip_address": "192.0.2.1",
            "device_port": 8443,
            "owner_port": 8443,
            "delay": 60,
        }
    ]


def test_show_says_it_in_words(desk: Desk) -> None:
    lines = desk.run("show", desk.file(BY_CHAIN.pem)).text.splitlines()
    assert f"device               {DEVICE_INFO}, GUID {GUID.hex()}" in lines
    assert "owner now            CN=Hospital (claimed, not proved), P-256" in lines
    assert f"owner fingerprint    {HOSPITAL.public().fingerprint}" in lines
    assert (
        "rendezvous           protocol HTTPS, name fdo.example.com, address 192.0.2.1, port 8443 for devices, "
        "port 8443 for owners, wait 60 s afterwards"
    ) in lines


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ([Variable.DEVICE_ONLY], "for devices only"),
        ([Variable.OWNER_ONLY], "for owners only"),
        ([Variable.BYPASS], "the owner itself is there"),
        ([Variable.IP_ADDRESS, cbor.encode(bytes(15) + b"\1")], "address ::1"),
        ([Variable.DNS, cbor.encode("a\x1b[2Jb")], "name a [2Jb"),
        ([Variable.DNS, b"\xff"], "name (cannot be used)"),
        ([Variable.DEVICE_PORT], "port (cannot be used) for devices"),
        ([Variable.SERVER_CERTIFICATE_HASH, cbor.encode([-16, bytes(32)])], f"server certificate SHA256 {'00' * 32}"),
        ([Variable.CA_CERTIFICATE_HASH, cbor.encode([-16, b""])], "CA certificate (cannot be used)"),
        ([Variable.USER_INPUT, cbor.encode(value=True)], "user may be asked: yes"),
        ([Variable.WIFI_SSID, cbor.encode("net")], "Wi-Fi network net"),
        ([Variable.WIFI_PASSWORD, cbor.encode("secret")], "Wi-Fi password (not shown)"),
        ([Variable.MEDIUM, cbor.encode(20)], "network any Ethernet"),
        ([Variable.MEDIUM, cbor.encode(21)], "network any Wi-Fi"),
        ([Variable.MEDIUM, cbor.encode(3)], "network Ethernet 3"),
        ([Variable.MEDIUM, cbor.encode(12)], "network Wi-Fi 2"),
        ([Variable.MEDIUM, cbor.encode(99)], "network 99 (unknown)"),
        ([Variable.PROTOCOL, cbor.encode(4)], "protocol TLS"),
        ([Variable.PROTOCOL, cbor.encode(77)], "protocol 77 (unknown)"),
        ([Variable.EXTERNAL, cbor.encode(["mechanism"])], "by another mechanism (not shown)"),
        ([99, b"\xff"], "variable 99 (unknown)"),
    ],
    ids=str,
)
def test_every_variable_has_words(desk: Desk, variable: Sequence[cbor.Encodable], words: str) -> None:
    """FDO 1.1, 3.3.2. Of what is secret, or has no meaning here, only that it is there."""
    voucher = factory_voucher(MAKER, rendezvous=cbor.Raw(cbor.encode([[variable]])))
    assert f"rendezvous           {words}" in desk.run("show", desk.file(voucher.pem)).text.splitlines()
    assert "secret" not in desk.run("show", desk.file(voucher.pem), "--json").text


@pytest.mark.parametrize(
    ("rendezvous", "words"), [([], "none"), ([[]], "says nothing"), (5, "cannot be read"), ([5], "cannot be read")]
)
def test_rendezvous_information_that_says_nothing_is_shown_as_such(
    desk: Desk, rendezvous: cbor.Encodable, words: str
) -> None:
    voucher = factory_voucher(MAKER, rendezvous=cbor.Raw(cbor.encode(rendezvous)))
    assert f"rendezvous           {words}" in desk.run("show", desk.file(voucher.pem)).text.splitlines()


# owners


def test_owners_are_named_in_turn_and_their_names_are_claims(desk: Desk) -> None:
    sold = BY_CHAIN.extend(HOSPITAL.key, BUYER.public())
    owners = desk.run("owners", desk.file(sold.pem), "--json").record["owners"]
    assert [owner["role"] for owner in owners] == ["manufacturer", "owner", "owner, owns it now"]
    assert [owner["name"] for owner in owners] == ["CN=Maker", "CN=Hospital", None]
    assert [owner["proved"] for owner in owners] == [False, False, False]
    assert [owner["fingerprint"] for owner in owners] == [
        each.public().fingerprint for each in (MAKER, HOSPITAL, BUYER)
    ]
    assert {owner["key"] for owner in owners} == {"P-256"}
    lines = desk.run("owners", desk.file(sold.pem)).text.splitlines()
    assert "  0  manufacturer: CN=Maker (claimed, not proved)" in lines
    assert "  2  owner, owns it now: no name: a key alone" in lines


def test_a_name_is_proved_by_an_anchor_that_its_certificate_leads_to(desk: Desk) -> None:
    anchors = ("--anchor", desk.anchor(HOSPITAL), "--anchor", desk.anchor(BUYER))
    maker, hospital = desk.run("owners", desk.file(BY_CHAIN.pem), *anchors, "--json").record["owners"]
    assert (maker["proved"], maker["proved_by"]) == (False, None)
    assert (hospital["proved"], hospital["proved_by"]) == (True, "CN=CA of Hospital")
    said = desk.run("owners", desk.file(BY_CHAIN.pem), *anchors).text
    assert "CN=Hospital (proved by CN=CA of Hospital)" in said


def test_without_an_entry_the_manufacturer_owns_the_device(desk: Desk) -> None:
    (owner,) = desk.run("owners", desk.file(factory_voucher(MAKER).pem), "--json").record["owners"]
    assert owner["role"] == "manufacturer, owns it now"


def test_the_kind_of_an_rsa_key_is_told_with_its_size(desk: Desk) -> None:
    for kind, text in ((KeyType.RSA_PKCS, "RSA-2048"), (KeyType.RSA_PSS, "RSA-2048 (PSS)")):
        voucher = factory_voucher(party("Maker", "RSA-2048"), kind=kind)
        assert desk.run("show", desk.file(voucher.pem), "--json").record["owner"]["key"] == text


# verify


def checks(answer: Answer) -> dict[str, str]:
    """What came of each check."""
    assert answer.exit_code == exits.OK
    return {check["check"]: check["result"] for check in answer.record["checks"]}


def test_verify_says_what_was_not_asked_for_and_what_needs_the_device(desk: Desk) -> None:
    assert checks(desk.run("verify", desk.file(BY_KEY.pem), "--json")) == {
        "entries": "passed",
        "keys": "passed",
        "certificates": "passed",
        "manufacturer": "not asked for",
        "device": "not asked for",
        "hmac": "needs the device",
    }
    said = desk.run("verify", desk.file(BY_KEY.pem)).text
    assert "holds, as far as that can be told without the device" in said
    assert "anybody may have made it; give --manufacturer-fingerprint or --manufacturer-anchor" in said
    assert "only the device can tell that this is its voucher" in said


def test_the_manufacturer_is_known_by_its_fingerprint_as_people_write_it(desk: Desk) -> None:
    digits = MAKER.public().fingerprint
    written = ":".join(digits[place : place + 2] for place in range(0, 64, 2)).upper()
    for fingerprint in (digits, written):
        answer = desk.run("verify", desk.file(BY_KEY.pem), "--manufacturer-fingerprint", fingerprint, "--json")
        assert checks(answer)["manufacturer"] == "passed"


def test_the_manufacturer_is_known_by_the_anchor_of_its_certificate(desk: Desk) -> None:
    answer = desk.run("verify", desk.file(BY_CHAIN.pem), "--manufacturer-anchor", desk.anchor(MAKER), "--json")
    assert checks(answer)["manufacturer"] == "passed"


def test_of_several_manufacturers_one_has_to_fit(desk: Desk) -> None:
    other = "00" * 32
    fitting = ("--manufacturer-fingerprint", other, "--manufacturer-anchor", desk.anchor(MAKER))
    assert checks(desk.run("verify", desk.file(BY_CHAIN.pem), *fitting, "--json"))["manufacturer"] == "passed"
    wrong = ("--manufacturer-fingerprint", other, "--manufacturer-anchor", desk.anchor(HOSPITAL))
    answer = desk.run("verify", desk.file(BY_CHAIN.pem), *wrong, "--json")
    assert answer.refusal == (exits.CONFIGURATION, "voucher-manufacturer-unknown")


def test_an_owner_is_not_the_manufacturer(desk: Desk) -> None:
    fingerprint = HOSPITAL.public().fingerprint
    answer = desk.run("verify", desk.file(BY_KEY.pem), "--manufacturer-fingerprint", fingerprint, "--json")
    assert answer.refusal == (exits.CONFIGURATION, "voucher-manufacturer-unknown")
    assert MAKER.public().fingerprint in answer.record["error"]["what"]


def test_a_manufacturer_that_is_a_key_alone_leads_to_no_anchor(desk: Desk) -> None:
    answer = desk.run("verify", desk.file(BY_KEY.pem), "--manufacturer-anchor", desk.anchor(MAKER), "--json")
    assert answer.refusal == (exits.CONFIGURATION, "voucher-manufacturer-unknown")
    assert "key alone" in answer.record["error"]["what"]


def test_the_certificate_of_the_device_leads_to_an_anchor(desk: Desk) -> None:
    answer = desk.run("verify", desk.file(BY_KEY.pem), "--device-anchor", desk.anchor(device()), "--json")
    assert checks(answer)["device"] == "passed"
    wrong = desk.run("verify", desk.file(BY_KEY.pem), "--device-anchor", desk.anchor(MAKER), "--json")
    assert wrong.refusal == (exits.CONFIGURATION, "voucher-device-unknown")
    without = Voucher.make(BY_KEY.header, BY_KEY.hmac, ())
    answer = desk.run("verify", desk.file(without.pem), "--device-anchor", desk.anchor(device()), "--json")
    assert answer.refusal == (exits.CONFIGURATION, "voucher-broken")


@pytest.mark.parametrize("typed", ["", "12", "00" * 31, "zz" * 32, "00" * 33, "\x1b[2J"])
def test_what_is_no_fingerprint_is_told(desk: Desk, typed: str) -> None:
    answer = desk.run("verify", desk.file(BY_KEY.pem), "--manufacturer-fingerprint", typed)
    assert answer.exit_code == exits.CONFIGURATION
    assert "is no SHA-256 fingerprint" in answer.error
    assert "\x1b" not in answer.error


def test_a_file_of_anchors_without_one_is_told(desk: Desk) -> None:
    empty = desk.file(b"nothing", "empty.pem")
    for option in ("--manufacturer-anchor", "--device-anchor"):
        assert desk.run("verify", desk.file(BY_KEY.pem), option, empty).exit_code == exits.CONFIGURATION
    assert desk.run("owners", desk.file(BY_KEY.pem), "--anchor", empty).exit_code == exits.CONFIGURATION


# extend


def test_the_present_owner_passes_a_scanner_on(desk: Desk) -> None:
    answer = desk.extend(BY_KEY, desk.key(HOSPITAL.key), desk.public(BUYER))
    assert answer.exit_code == exits.OK
    extended = Voucher.read(desk.new.read_bytes())
    assert desk.new.read_bytes().startswith(b"-----BEGIN OWNERSHIP VOUCHER-----\n")
    assert extended.entries[:-1] == BY_KEY.entries
    assert extended.verify().owner == BUYER.public()
    assert answer.record["owner_fingerprint"] == BUYER.public().fingerprint
    assert answer.record["voucher_fingerprint"] == extended.verify().fingerprint
    assert answer.record["entries"] == 2
    assert (answer.record["guid"], answer.record["warning"]) == (GUID.hex(), "")
    assert sorted(path.name for path in desk.folder.iterdir()) == ["key.pem", "new.pem", "next.pem", "voucher.pem"]


def test_extend_names_the_scanner_to_compare_with(desk: Desk) -> None:
    arguments = ("--key", desk.key(HOSPITAL.key), "--to", desk.public(BUYER), "--output", desk.new)
    said = desk.run("extend", desk.file(BY_KEY.pem), *arguments).text
    assert f"GUID {GUID.hex()}: compare with scanseal status on the scanner" in said


def test_the_manufacturer_passes_on_what_nobody_owns_yet(desk: Desk) -> None:
    answer = desk.extend(factory_voucher(MAKER), desk.key(MAKER.key), desk.public(BUYER))
    assert answer.exit_code == exits.OK


def test_a_key_may_be_encrypted(desk: Desk) -> None:
    key, passphrase = desk.key(HOSPITAL.key, b"correct horse"), desk.secret(b"correct horse\n")
    answer = desk.extend(BY_KEY, key, desk.public(BUYER), "--passphrase-file", passphrase)
    assert answer.exit_code == exits.OK


def test_a_next_owner_is_written_as_the_manufacturer_is(desk: Desk) -> None:
    """FDO 1.1, 3.4: with its certificates, or as a key alone."""
    key = desk.key(HOSPITAL.key)
    assert desk.extend(BY_CHAIN, key, desk.chain(BUYER)).exit_code == exits.OK
    assert Voucher.read(desk.new.read_bytes()).verify().owner == BUYER.public(KeyEncoding.X5CHAIN)
    assert desk.extend(BY_KEY, key, desk.chain(BUYER), "--force").exit_code == exits.OK
    assert Voucher.read(desk.new.read_bytes()).verify().owner == BUYER.public()
    answer = desk.extend(BY_CHAIN, key, desk.public(BUYER), "--force")
    assert answer.refusal == (exits.CONFIGURATION, "voucher-next-owner-unsuitable")
    assert "by their certificates" in answer.record["error"]["what"]


@pytest.mark.parametrize("key", [MAKER.key, BUYER.key, key_of("P-384"), key_of("RSA-2048")], ids=range(4))
def test_nobody_else_passes_it_on(desk: Desk, key: PrivateKey) -> None:
    answer = desk.extend(BY_KEY, desk.key(key), desk.public(BUYER))
    assert answer.refusal == (exits.CONFIGURATION, "voucher-of-another-owner")
    assert HOSPITAL.public().fingerprint in answer.record["error"]["what"]
    assert not desk.new.exists()


@pytest.mark.parametrize("kind", ["P-384", "RSA-2048", "RSA-3072"])
def test_a_next_owner_has_a_key_of_the_same_kind(desk: Desk, kind: str) -> None:
    answer = desk.extend(BY_KEY, desk.key(HOSPITAL.key), desk.public(party("Other", kind)))
    assert answer.refusal == (exits.CONFIGURATION, "voucher-next-owner-unsuitable")
    assert "same kind" in answer.record["error"]["what"]


@pytest.mark.parametrize("voucher", [BY_KEY, BY_CHAIN], ids=["key", "chain"])
def test_the_present_owner_is_no_next_owner(desk: Desk, voucher: Voucher) -> None:
    answer = desk.extend(voucher, desk.key(HOSPITAL.key), desk.chain(HOSPITAL))
    assert answer.refusal == (exits.CONFIGURATION, "voucher-next-owner-unsuitable")
    assert "present owner's own" in answer.record["error"]["what"]
    assert not desk.new.exists()


@pytest.mark.parametrize("voucher", [BY_KEY, BY_CHAIN], ids=["key", "chain"])
@pytest.mark.parametrize("signs", [None, False], ids=["issued by another CA", "key usage without signatures"])
def test_a_ca_is_no_next_owner(desk: Desk, voucher: Voucher, *, signs: bool | None) -> None:
    """RFC 5280 4.2.1.9 and 4.2.1.3."""
    chain = (ca_certificate(issuer=BUYER),) if signs is None else (ca_certificate(signs=signs),)
    answer = desk.extend(voucher, desk.key(HOSPITAL.key), desk.file(pem(chain), "next.pem"))
    assert answer.exit_code == exits.CONFIGURATION
    assert "certificate of a CA" in answer.record["error"]["what"]
    assert not desk.new.exists()


@pytest.mark.parametrize("signs", [None, True])
def test_a_self_signed_owner_may_say_that_it_is_a_ca_and_that_is_told(desk: Desk, *, signs: bool | None) -> None:
    """RFC 5280 4.2.1.9: as `openssl req -x509` makes one."""
    to = desk.file(pem([ca_certificate(signs=signs)]), "next.pem")
    answer = desk.extend(BY_CHAIN, desk.key(HOSPITAL.key), to)
    assert answer.exit_code == exits.OK
    assert "is that of a CA" in answer.record["warning"]
    arguments = ("--key", desk.key(HOSPITAL.key), "--to", to, "--output", desk.new, "--force")
    assert answer.record["warning"] in desk.run("extend", desk.file(BY_CHAIN.pem), *arguments).text


def ca_certificate(*, issuer: Party | None = None, signs: bool | None = None) -> x509.Certificate:
    """Self-signed, or issued by somebody; its key may sign where its key usage, if it has one, says so."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA of Buyer")])
    issued_by, key = (issuer.chain[0].subject, issuer.key) if issuer else (name, BUYER.key)
    builder = certificate_builder(name, BUYER.public().key, NOW, timedelta(days=1)).issuer_name(issued_by)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    if signs is not None:
        builder = builder.add_extension(DIGITAL_SIGNATURE if signs else CA_KEY_USAGE, critical=True)
    return builder.sign(key, hashes.SHA256())


def test_a_full_voucher_is_not_passed_on(desk: Desk) -> None:
    full, owner = voucher_with(ENTRIES_LIMIT)
    answer = desk.extend(full, desk.key(owner.key), desk.public(BUYER))
    assert answer.refusal == (exits.CONFIGURATION, "voucher-full")
    assert not desk.new.exists()


def test_nothing_that_is_there_is_replaced_without_force_and_the_voucher_never(desk: Desk) -> None:
    key, to = desk.key(HOSPITAL.key), desk.public(BUYER)
    desk.new.write_bytes(b"something")
    assert desk.extend(BY_KEY, key, to).exit_code == exits.OUTPUT
    assert desk.new.read_bytes() == b"something"
    assert desk.extend(BY_KEY, key, to).record["error"]["next"] == "Nothing was written."
    assert desk.extend(BY_KEY, key, to, "--force").exit_code == exits.OK
    desk.new.unlink()
    desk.new.symlink_to(desk.folder / "voucher.pem")
    assert desk.extend(BY_KEY, key, to, "--force").exit_code == exits.OUTPUT
    assert desk.folder.joinpath("voucher.pem").read_bytes() == BY_KEY.pem


@pytest.mark.parametrize("name", ["voucher.pem", "key.pem", "next.pem"])
def test_none_of_the_files_that_are_read_is_ever_replaced(desk: Desk, name: str) -> None:
    arguments = ("--key", desk.key(HOSPITAL.key), "--to", desk.public(BUYER), "--force")
    voucher = desk.file(BY_KEY.pem)
    before = desk.folder.joinpath(name).read_bytes()
    assert desk.run("extend", voucher, *arguments, "--output", desk.folder / name).exit_code == exits.OUTPUT
    assert desk.folder.joinpath(name).read_bytes() == before


def test_a_folder_that_cannot_be_written_is_told(desk: Desk) -> None:
    arguments = ("--key", desk.key(HOSPITAL.key), "--to", desk.public(BUYER))
    answer = desk.run("extend", desk.file(BY_KEY.pem), *arguments, "--output", desk.folder / "key.pem" / "new.pem")
    assert answer.exit_code == exits.OUTPUT
    assert answer.error.endswith("Next: Nothing was written.\n")


@pytest.mark.parametrize(
    ("passphrase", "given", "words"),
    [
        (b"right", b"wrong", "another passphrase"),
        (b"right", b"", "needs a passphrase"),
        (b"", b"right", "has no passphrase"),
    ],
)
def test_a_key_that_does_not_open_is_told_and_no_secret_is(
    desk: Desk, passphrase: bytes, given: bytes, words: str
) -> None:
    more = ("--passphrase-file", desk.secret(given)) if given else ()
    answer = desk.extend(BY_KEY, desk.key(HOSPITAL.key, passphrase), desk.public(BUYER), *more)
    assert answer.exit_code == exits.CONFIGURATION
    assert words in answer.record["error"]["what"]
    assert "right" not in answer.text.replace(str(desk.folder), "")


def test_a_passphrase_that_everybody_may_read_is_refused(desk: Desk) -> None:
    secret = desk.secret(b"right")
    secret.chmod(0o644)
    key = desk.key(HOSPITAL.key, b"right")
    answer = desk.extend(BY_KEY, key, desk.public(BUYER), "--passphrase-file", secret)
    assert answer.exit_code == exits.CONFIGURATION


def test_what_is_no_key_of_an_owner_is_told(desk: Desk) -> None:
    other = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for content in (b"", b"\0\1\2", pem(HOSPITAL.chain), other, mislabelled_key()):
        answer = desk.extend(BY_KEY, desk.file(content, "key.pem"), desk.public(BUYER))
        assert answer.refusal == (exits.CONFIGURATION, "configuration-invalid")
    assert desk.extend(BY_KEY, desk.folder / "missing", desk.public(BUYER)).exit_code == exits.NO_INPUT


def test_what_is_no_next_owner_is_told(desk: Desk) -> None:
    key = desk.key(HOSPITAL.key)
    other = (
        ed25519.Ed25519PrivateKey.generate()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    public = desk.public(BUYER).read_bytes()
    damaged = public.replace(b"PUBLIC KEY", b"CERTIFICATE")
    for content in (b"", b"\0\1", damaged, other, public * 2, public + pem(BUYER.chain), public[:60], BY_KEY.pem):
        answer = desk.extend(BY_KEY, key, desk.file(content, "next.pem"))
        assert answer.exit_code == exits.CONFIGURATION
        assert str(desk.folder / "next.pem") in answer.record["error"]["what"]
    assert desk.extend(BY_KEY, key, desk.folder / "missing").exit_code == exits.NO_INPUT
    assert not desk.new.exists()


def test_certificates_of_a_next_owner_are_in_their_order(desk: Desk) -> None:
    """FDO 1.1, 3.3.4: an X5CHAIN begins with the certificate of the key."""
    answer = desk.extend(BY_CHAIN, desk.key(HOSPITAL.key), desk.file(pem(BUYER.chain[::-1]), "next.pem"))
    assert answer.exit_code == exits.CONFIGURATION
    assert "not in their order" in answer.record["error"]["what"]


def test_more_certificates_than_a_device_reads_are_refused(desk: Desk) -> None:
    chain = (BUYER.chain[0], *[BUYER.anchor] * 8)
    answer = desk.extend(BY_CHAIN, desk.key(HOSPITAL.key), desk.file(pem(chain), "next.pem"))
    assert answer.refusal == (exits.CONFIGURATION, "voucher-next-owner-unsuitable")
    assert not desk.new.exists()


def test_nobody_is_given_a_private_key(desk: Desk) -> None:
    answer = desk.extend(BY_KEY, desk.key(HOSPITAL.key), desk.key(BUYER.key, name="next.pem"))
    assert answer.exit_code == exits.CONFIGURATION
    assert "private key" in answer.record["error"]["what"]


def test_a_broken_voucher_is_not_passed_on(desk: Desk) -> None:
    broken = desk.file(BY_KEY.raw[:-1] + bytes([BY_KEY.raw[-1] ^ 1]))
    arguments = ("--key", desk.key(HOSPITAL.key), "--to", desk.public(BUYER), "--output", desk.new, "--json")
    assert desk.run("extend", broken, *arguments).refusal == (exits.CONFIGURATION, "voucher-broken")
    assert not desk.new.exists()
