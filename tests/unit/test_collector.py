"""Keys that nothing needs are destroyed, all others stay: the ledger says which were made; what is named is kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.cli.checking_ways import leftover_keys
from agent.cli.signing_rate import trial_key
from enroll.algorithms import HmacAlgorithm, KeyAlgorithm
from enroll.collector import Leftover, collect, unneeded
from enroll.config import Pkcs11StoreSettings, StoreName
from enroll.enroller import Enroller
from enroll.errors import (
    DiskRefused,
    KeyNotFound,
    KeyStoreError,
    KeyStoreUnavailable,
    ServerUnreachable,
    StateError,
    UnsupportedKey,
)
from enroll.flows.base import Enrollment, Issued, OfferedEnrollment
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.journal import PendingRequest, Step
from enroll.keystore import KeyStores, name_in
from enroll.keystore.ledger import Ledger, Place
from enroll.record import write_record
from enroll.statefile import StateFiles
from tests.support.enrolling import CaFlow, Scanner, settings
from tests.support.pki import NOW, HospitalCa

CA = HospitalCa()
SIGNING = IdentityName.SIGNING
ORPHAN = "signing-0123456789abcdef"
SOFTWARE = Place(StoreName.SOFTWARE)
AWAY = Place(StoreName.PKCS11, "away")


@pytest.fixture
def scanner(tmp_path: Path) -> Scanner:
    return Scanner(settings(tmp_path), (CA.certificate,))


def enrolled(scanner: Scanner, identity: IdentityName = SIGNING) -> Generation:
    generation = scanner.issue(CaFlow(CA, scanner.clock), identity)
    assert isinstance(generation, Generation)
    return generation


def ledger(scanner: Scanner) -> Ledger:
    return Ledger(scanner.identities.root, scanner.files)


def orphan(scanner: Scanner, name: str = ORPHAN) -> str:
    return scanner.stores.generate(StoreName.SOFTWARE, name, KeyAlgorithm.P_256)


def collected(scanner: Scanner) -> tuple[Leftover, ...]:
    with scanner.identities.lock():
        return collect(scanner.identities, scanner.stores)


def test_a_key_is_in_the_ledger_before_it_is_made(scanner: Scanner, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[str] = []

    def making(self: object, name: str, data: bytes, passphrase: bytes) -> str:
        noted.extend(ledger(scanner).names())
        raise KeyStoreError("The disk is full.", remedy="Free some space.")

    monkeypatch.setattr("enroll.keystore.software.SoftwareKeyStore._write", making)
    with pytest.raises(KeyStoreError):
        orphan(scanner)

    assert noted == [ORPHAN]
    assert ledger(scanner).place(ORPHAN) == SOFTWARE


def test_no_key_is_made_that_cannot_be_written_down(scanner: Scanner, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise DiskRefused("The disk is full.", remedy="Free some space.")

    monkeypatch.setattr(Ledger, "note", full)
    with pytest.raises(DiskRefused):
        orphan(scanner)

    assert scanner.stores.list() == ()


def test_a_key_that_is_destroyed_is_crossed_out(scanner: Scanner) -> None:
    uri = orphan(scanner)

    scanner.stores.destroy(uri)

    assert ledger(scanner).names() == ()


def test_secrets_and_keys_from_files_are_in_the_ledger_and_those_in_memory_are_not(
    scanner: Scanner,
) -> None:
    key = scanner.stores.load(orphan(scanner))
    scanner.stores.generate_secret(StoreName.SOFTWARE, "fdo-hmac", HmacAlgorithm.SHA256)
    scanner.stores.import_key(StoreName.SOFTWARE, "vendor-wide", key)
    scanner.stores.generate(StoreName.MEMORY, "in-memory", KeyAlgorithm.P_256)

    assert ledger(scanner).names() == ("fdo-hmac", ORPHAN, "vendor-wide")


def test_a_key_that_was_being_measured_when_the_machine_stopped_is_destroyed(scanner: Scanner) -> None:
    """Of `scanseal check --speed`."""
    scanner.identities.root.mkdir()
    scanner.stores.generate_for_trial(StoreName.SOFTWARE, f"check-{'0' * 16}", KeyAlgorithm.P_256)

    assert collect(scanner.identities, scanner.stores) == ()

    assert (scanner.stores.list(), ledger(scanner).names()) == ((), ())


def test_where_there_is_no_state_directory_yet_a_key_is_measured_and_nothing_is_written_down(
    scanner: Scanner, tmp_path: Path
) -> None:
    software = replace(scanner.settings.keystore.software, directory=tmp_path / "keys")
    nowhere = tmp_path / "nowhere"
    stores = KeyStores(replace(scanner.settings.keystore, software=software), nowhere, scanner.files)

    with trial_key(stores, IdentityStore(nowhere, scanner.files), StoreName.SOFTWARE, KeyAlgorithm.P_256, "") as key:
        assert key.key_size == 256

    assert (stores.list(), nowhere.exists()) == ((), False)


def test_the_ledger_names_the_token_also_where_that_is_the_default(scanner: Scanner) -> None:
    pkcs11 = Pkcs11StoreSettings(token="cabinet", pin_file=scanner.settings.keystore.software.passphrase_file)
    stores = KeyStores(replace(scanner.settings.keystore, pkcs11=pkcs11), scanner.identities.root, scanner.files)

    with pytest.raises(KeyStoreError):  # there is no token
        stores.generate(StoreName.PKCS11, ORPHAN, KeyAlgorithm.P_256)

    assert ledger(scanner).place(ORPHAN) == Place(StoreName.PKCS11, "cabinet")


def test_a_name_that_is_more_than_a_name_is_refused(scanner: Scanner) -> None:
    with pytest.raises(KeyStoreError):
        ledger(scanner).note("../../elsewhere", SOFTWARE)
    ledger(scanner).cross_out("../../state")  # names nothing, so nothing happens


def test_a_key_that_nothing_names_is_destroyed_by_the_next_transaction(scanner: Scanner) -> None:
    orphan(scanner)

    generation = enrolled(scanner)

    assert scanner.stores.list() == (generation.key_uri,)
    assert ledger(scanner).names() == (generation.key_uri.removeprefix("software:"),)


def test_what_a_crash_left_of_a_key_file_goes_as_well(scanner: Scanner) -> None:
    ledger(scanner).note(ORPHAN, SOFTWARE)
    keys = scanner.identities.root / "keys"
    keys.mkdir()
    (keys / f".{ORPHAN}.pem.0123456789abcdef").write_bytes(b"half a key")

    assert collected(scanner) == ()

    assert list(keys.iterdir()) == []
    assert ledger(scanner).names() == ()


def test_keys_in_use_and_of_the_generation_before_stay(scanner: Scanner) -> None:
    generations = [enrolled(scanner) for _ in range(4)]
    device = enrolled(scanner, IdentityName.DEVICE)

    assert collected(scanner) == ()

    assert set(scanner.stores.list()) == {generations[2].key_uri, generations[3].key_uri, device.key_uri}


def test_a_key_that_is_not_in_the_ledger_stays(scanner: Scanner) -> None:
    """Another scanner may share the token."""
    orphan(scanner)
    ledger(scanner).cross_out(ORPHAN)

    assert collected(scanner) == ()

    assert scanner.stores.list() == (f"software:{ORPHAN}",)


@pytest.mark.parametrize("name", ["signing-0123", "fdo-0123456789abcdef", "signing-0123456789abcdef0", "elsewhere"])
def test_a_key_of_a_name_that_no_owner_gives_stays(scanner: Scanner, name: str) -> None:
    orphan(scanner, name)

    assert collected(scanner) == ()

    assert scanner.stores.list() == (f"software:{name}",)


def journaled(scanner: Scanner, uri: str) -> None:
    scanner.identities.journal(SIGNING).write(PendingRequest(Step.SENT, ORPHAN, uri, "{}", NOW))


def planned(scanner: Scanner, _: str) -> None:
    scanner.identities.journal(SIGNING).write(PendingRequest(Step.PLANNED, ORPHAN, "", "{}", NOW))


def carried(scanner: Scanner, uri: str) -> None:
    journal = scanner.identities.journal_by_hand(SIGNING, "20261123-abcdef")
    journal.write(PendingRequest(Step.SENT, ORPHAN, uri, "{}", NOW))


def without_pointer(scanner: Scanner, _: str) -> None:
    """Nobody knows which generation is in use."""
    (scanner.identities.directory(SIGNING) / "current").unlink()
    (scanner.identities.directory(SIGNING) / "current").symlink_to("elsewhere")


def damaged_uri(scanner: Scanner, _: str) -> None:
    (scanner.identities.directory(SIGNING) / "generations" / "0001" / "key.uri").write_bytes(b"?")


def damaged_journal(scanner: Scanner, uri: str) -> None:
    journaled(scanner, uri)
    (scanner.identities.directory(SIGNING) / "pending" / "request.json").write_bytes(b"?")


@pytest.mark.parametrize(
    "name_it", [journaled, planned, carried, without_pointer, damaged_uri, damaged_journal], ids=lambda f: f.__name__
)
def test_a_key_stays_as_long_as_something_names_it_or_might(
    scanner: Scanner, name_it: Callable[[Scanner, str], None]
) -> None:
    enrolled(scanner)
    uri = orphan(scanner)
    name_it(scanner, uri)

    left = collected(scanner)

    assert uri in scanner.stores.list()
    is_known = name_it in (journaled, planned, carried)
    assert [each.name for each in left] == ([] if is_known else [SIGNING])
    told = [(finding.subject, finding.code) for finding in leftover_keys(scanner.settings, scanner.files)]
    assert told == ([] if is_known else [(SIGNING, "state-damaged")])


def test_damage_of_one_identity_keeps_no_other_from_being_tidy(scanner: Scanner) -> None:
    enrolled(scanner)
    damaged_uri(scanner, "")
    uri = orphan(scanner, "device-0123456789abcdef")

    assert [left.name for left in collected(scanner)] == [SIGNING]

    assert uri not in scanner.stores.list()


def test_a_damaged_request_that_is_carried_by_hand_keeps_no_keys_for_ever(scanner: Scanner) -> None:
    generation = enrolled(scanner)
    orphan(scanner)
    carried(scanner, "")
    request = scanner.identities.directory(SIGNING) / "offline" / "20261123-abcdef"
    (request / "request.json").write_bytes(b"?")

    with Enroller(scanner.context) as enroller:
        assert enroller.collect() == ()

    assert not request.exists()
    assert scanner.stores.list() == (generation.key_uri,)


def test_keys_of_the_acme_account_stay_while_the_account_names_them(scanner: Scanner) -> None:
    names = [f"acme-account-{digit * 16}" for digit in "123"]
    for name in names:
        orphan(scanner, name)
    fields = ("key_uri", "directory_url", "url", "next_key_uri")
    values = {"key_name": names[0], "next_key_name": names[1], **dict.fromkeys(fields, "")}
    scanner.files.make_directory(scanner.identities.root / "acme")
    write_record(scanner.identities.root / "acme" / "account.json", values, scanner.files)

    assert collected(scanner) == ()
    assert scanner.stores.list() == (f"software:{names[0]}", f"software:{names[1]}")

    (scanner.identities.root / "acme" / "account.json").write_bytes(b"?")
    assert [left.name for left in collected(scanner)] == ["acme-account"]
    assert scanner.stores.list() == (f"software:{names[0]}", f"software:{names[1]}")

    shutil.rmtree(scanner.identities.root / "acme")
    assert collected(scanner) == ()
    assert scanner.stores.list() == ()


def test_a_key_in_a_token_that_is_away_is_told_and_tried_again(
    scanner: Scanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = orphan(scanner)
    destroy = KeyStores.destroy

    def away(self: KeyStores, uri: str) -> None:
        raise KeyStoreUnavailable("The token is away.", remedy="Put it back.")

    monkeypatch.setattr(KeyStores, "destroy", away)
    (left,) = collected(scanner)
    generation = enrolled(scanner)  # nothing depends on it
    (finding,) = leftover_keys(scanner.settings, scanner.files)
    assert (left.name, finding.check, finding.subject) == (ORPHAN, "leftover-key", ORPHAN)
    assert f"{ORPHAN} (software)" in finding.what

    monkeypatch.setattr(KeyStores, "destroy", destroy)
    with Enroller(scanner.context) as enroller:
        assert enroller.collect() == ()
    assert uri not in scanner.stores.list()
    assert generation.key_uri in scanner.stores.list()
    assert list(leftover_keys(scanner.settings, scanner.files)) == []


def test_a_key_in_a_token_that_is_not_configured_any_more_stays_in_the_ledger(scanner: Scanner) -> None:
    ledger(scanner).note(ORPHAN, AWAY)

    (left,) = collected(scanner)

    assert isinstance(left.why, KeyStoreError)
    assert unneeded(scanner.identities) == ((ORPHAN,), ())


def test_a_key_in_a_token_that_is_lost_for_good_is_told_once(scanner: Scanner) -> None:
    ledger(scanner).note(ORPHAN, AWAY)
    scanner.stores = KeyStores(scanner.settings.keystore, scanner.identities.root, scanner.files, ("away",))

    (left,) = collected(scanner)

    assert isinstance(left.why, UnsupportedKey)
    assert collected(scanner) == ()


def test_a_key_whose_place_is_damaged_is_looked_for_everywhere(scanner: Scanner) -> None:
    uri = orphan(scanner)
    (scanner.identities.root / "ledger" / f"{ORPHAN}.json").write_bytes(b"?")

    assert collected(scanner) == ()

    assert uri not in scanner.stores.list()
    assert ledger(scanner).names() == ()


def test_a_ledger_that_is_no_directory_ends_no_transaction_after_its_commit(scanner: Scanner) -> None:
    enrolled(scanner)
    shutil.rmtree(scanner.identities.root / "ledger")
    (scanner.identities.root / "ledger").write_bytes(b"")

    (left,) = collected(scanner)

    assert left.name == ""
    with pytest.raises(StateError):
        list(leftover_keys(scanner.settings, scanner.files))


def test_a_refused_request_leaves_no_key(scanner: Scanner) -> None:
    def unreachable(_: Enrollment | OfferedEnrollment) -> Issued:
        raise ServerUnreachable("No answer.", remedy="Check the network.")

    flow = CaFlow(CA, scanner.clock, answer=unreachable)
    with pytest.raises(ServerUnreachable):
        scanner.issue(flow)
    (waiting,) = scanner.stores.list()

    renamed = scanner.restarted(device=replace(scanner.settings.device, serial_number="ANOTHER"))
    generation = enrolled(renamed)

    assert renamed.stores.list() == (generation.key_uri,)
    assert waiting != generation.key_uri


def test_the_name_of_what_is_no_key_of_ours_is_empty() -> None:
    assert name_in("pkcs11:token=a;object=other-device;type=private") == ""
    assert name_in("pkcs11:token=a;id=%01;type=private") == ""
    assert name_in("pkcs11:token=a;object=scanseal-device-1;type=private") == "device-1"
    with pytest.raises(KeyNotFound):
        name_in("pkcs11:nonsense")


def test_the_ledger_holds_nothing_but_places(scanner: Scanner) -> None:
    enrolled(scanner)
    (record,) = (scanner.identities.root / "ledger").iterdir()

    document = json.loads(record.read_text())

    assert document.get("values", document) == {"key_store": "software", "token": ""}
    assert StateFiles().exists(record)
