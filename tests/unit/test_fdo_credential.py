"""The files of a credential: nobody else can write one, and a power cut spoils none. FDO 1.1, 3.5."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from enroll.algorithms import HmacAlgorithm
from enroll.config import KeyStoreSettings, SoftwareStoreSettings, StoreName
from enroll.errors import KeyStoreError, ScansealError, StateError, StateUnreadable
from enroll.fdo import cbor
from enroll.fdo.credential import CREDENTIAL_LIMIT, CredentialStore, DeviceCredential, Owner, read_owner
from enroll.fdo.fault import Fault
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.public_key import FdoPublicKey
from enroll.fdo.voucher import VoucherHeader
from enroll.keystore import KeyStores
from enroll.statefile import StateFiles
from tests.support.fdo.credentials import CA, credential, owned
from tests.support.key_stores import secret_file
from tests.support.other_user import NOBODY, run_as
from tests.support.pki import new_key
from tests.unit.test_issue_power_cuts import FailingFiles, PowerCut

SECRET = "software:fdo-hmac"


def key_stores(folder: Path, files: StateFiles | None = None) -> KeyStores:
    passphrase = secret_file(folder / "passphrase", "a passphrase")
    settings = KeyStoreSettings(SoftwareStoreSettings(folder / "keys", passphrase))
    return KeyStores(settings, folder, files or StateFiles())


def device(folder: Path, files: StateFiles | None = None) -> CredentialStore:
    """The credentials of a device whose secret is there already."""
    return CredentialStore(folder / "fdo", key_stores(folder, files), files or StateFiles())


def new_device(folder: Path) -> CredentialStore:
    folder.mkdir(exist_ok=True)
    key_stores(folder).generate_secret(StoreName.SOFTWARE, "fdo-hmac", HmacAlgorithm.SHA256)
    return device(folder)


FIRST, SECOND, THIRD = credential(SECRET, 1), owned(credential(SECRET, 2)), credential(SECRET, 3)


@pytest.fixture
def store(tmp_path: Path) -> CredentialStore:
    made = new_device(tmp_path)
    made.commit(FIRST)
    made.propose(SECOND)
    return made


@pytest.fixture
def current(tmp_path: Path, store: CredentialStore) -> Path:
    assert store.current() == FIRST
    return tmp_path / "fdo" / "credential.current"


@pytest.fixture
def pending(tmp_path: Path, store: CredentialStore) -> Path:
    assert store.pending() == SECOND
    return tmp_path / "fdo" / "credential.pending"


# --- who wrote it


def test_every_changed_bit_is_refused(store: CredentialStore, pending: Path) -> None:
    """One bit of each byte, of a credential with an owner, which has more of them."""
    whole = pending.read_bytes()

    for place, byte in enumerate(whole):
        pending.write_bytes(whole[:place] + bytes([byte ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises((StateError, KeyStoreError)):
            store.pending()


def test_every_shorter_file_is_refused_and_so_is_a_longer_one(store: CredentialStore, current: Path) -> None:
    whole = current.read_bytes()

    for content in (*(whole[:length] for length in range(len(whole))), whole + b"\0", whole + whole):
        current.write_bytes(content)
        with pytest.raises(StateError):
            store.current()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"x" * (CREDENTIAL_LIMIT + 1),
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x81" * 5000,
        cbor.encode([]),
        cbor.encode([b"", b""]),
        cbor.encode([cbor.encode([2, *[None] * 11]), b""]),
        cbor.encode({"a": 1}),
    ],
)
def test_what_is_no_credential_is_refused(store: CredentialStore, current: Path, content: bytes) -> None:
    current.write_bytes(content)

    for read in (store.current, store.candidates):
        with pytest.raises(StateError) as refused:
            read()
        assert refused.value.remedy


def test_neither_file_takes_the_place_of_the_other(store: CredentialStore, current: Path, pending: Path) -> None:
    one, other = current.read_bytes(), pending.read_bytes()
    current.write_bytes(other)
    pending.write_bytes(one)

    for read in (store.current, store.pending):
        with pytest.raises(StateError, match="not written by this device"):
            read()


def test_the_credential_of_another_device_is_refused(store: CredentialStore, current: Path, tmp_path: Path) -> None:
    """Its secret may have the same name."""
    other = new_device(tmp_path / "other")
    other.commit(FIRST)
    shutil.copyfile(tmp_path / "other" / "fdo" / "credential.current", current)

    with pytest.raises(StateError, match="not written by this device"):
        store.current()


def test_an_hmac_over_a_voucher_header_authenticates_no_credential(store: CredentialStore, current: Path) -> None:
    """The secret signs what a stranger has made up (messages 11 and 65), so that must never be a credential."""
    content, _ = cbor.read(current.read_bytes()).array(2)
    secret = store._stores.load_secret(SECRET)
    key = FdoPublicKey.make(new_key().public_key())
    chain_hash = Hash.of(HashAlgorithm.SHA256, b"")
    for info in ("", "scanseal device credential.current\0"):
        header = VoucherHeader.make(b"g" * 16, cbor.Raw(content.raw), info, key, chain_hash)
        for signed in (header.raw, content.content, content.raw, cbor.encode([content.content])):
            current.write_bytes(cbor.encode([content.content, secret.sign(signed)]))
            with pytest.raises(StateError, match="not written by this device"):
                store.current()


def test_what_a_credential_is_authenticated_over_is_no_voucher_header(
    store: CredentialStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the other way round: what the device signs for itself is no HMAC of a voucher."""
    signed: list[bytes] = []

    class Secret:
        def sign(self, data: bytes) -> bytes:
            signed.append(data)
            return b""

    monkeypatch.setattr(KeyStores, "load_secret", lambda *_: Secret())
    store.propose(SECOND)
    store.commit(FIRST)

    assert len(signed) == 2
    for data in signed:
        with pytest.raises(Fault):
            VoucherHeader.read(cbor.read(data))


# --- what it holds


def test_it_comes_back_as_it_was(store: CredentialStore) -> None:
    assert (store.current(), store.pending()) == (FIRST, SECOND)
    assert store.candidates() == (SECOND, FIRST)


def test_one_that_is_there_twice_is_tried_once(store: CredentialStore) -> None:
    """After a power cut between the two operations of a commit."""
    store.propose(FIRST)

    assert store.candidates() == (FIRST,)


def test_an_owner_with_more_certificates_than_can_be_kept_changes_nothing(store: CredentialStore) -> None:
    too_many = Owner("a" * 64, "b" * 64, (CA.certificate,) * 1000)
    greedy = DeviceCredential(**{**vars(SECOND), "owner": too_many})

    for write in (store.propose, store.commit):
        with pytest.raises(StateError, match="more certificates"):
            write(greedy)
    assert store.candidates() == (SECOND, FIRST)


def test_the_owner_is_known_without_the_key_store(store: CredentialStore, tmp_path: Path) -> None:
    assert read_owner(tmp_path / "fdo", StateFiles()) == SECOND.owner
    store.withdraw()
    assert read_owner(tmp_path / "fdo", StateFiles()) is None
    store.commit(SECOND)
    assert read_owner(tmp_path / "fdo", StateFiles()) == SECOND.owner
    assert read_owner(tmp_path / "elsewhere", StateFiles()) is None


# --- the disk


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_the_files_are_for_the_service_and_its_administrators(tmp_path: Path, mask: int) -> None:
    """Whatever the umask of whoever runs it. There is no secret in them; `scanseal status` shows what is."""
    made = new_device(tmp_path)
    before = os.umask(mask)
    try:
        made.commit(FIRST)
        made.propose(SECOND)
    finally:
        os.umask(before)

    folder = tmp_path / "fdo"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"credential.current": 0o640, "credential.pending": 0o640}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    assert {path.stat().st_uid for path in (folder, *folder.iterdir())} == {os.geteuid()}


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files to a user needs root: run the tests as root")
def test_administrators_read_it_and_another_user_does_not(store: CredentialStore, tmp_path: Path) -> None:
    assert store.current()
    tmp_path.chmod(0o755)

    said = run_as(NOBODY, NOBODY, "files.read(folder / 'fdo' / 'credential.current')", tmp_path)

    assert said.startswith(StateUnreadable.__name__)
    administrator = run_as(
        NOBODY, os.getegid(), "print(len(files.read(folder / 'fdo' / 'credential.current')))", tmp_path
    )
    assert administrator.isdigit()


@pytest.mark.parametrize("kind", ["link", "directory", "fifo"])
def test_what_is_no_file_is_not_read(store: CredentialStore, current: Path, kind: str) -> None:
    current.rename(current.with_name("kept"))
    make: dict[str, Callable[[], object]] = {
        "link": lambda: current.symlink_to(current.with_name("kept")),
        "directory": current.mkdir,
        "fifo": lambda: os.mkfifo(current),
    }
    make[kind]()

    with pytest.raises(StateError):
        store.current()


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cuts are between operations, so nothing has to reach the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def change(store: CredentialStore, known: list[DeviceCredential]) -> None:
    """Two changes of owner, of which the second one fails; `known` is what the owner knows last."""
    store.propose(SECOND)
    known.append(SECOND)  # message 71: so it is from now on
    store.commit(SECOND)
    store.propose(THIRD)
    store.withdraw()


@pytest.mark.usefixtures("quick_disk")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_power_cut_leaves_what_the_owner_knows(tmp_path: Path, *, after: bool) -> None:
    """Before message 70 that is the old credential, after message 71 the new one."""
    for operation in itertools.count(1):
        trial = tmp_path / f"trial-{operation}"
        new_device(trial).commit(FIRST)
        known = [FIRST]
        try:
            change(device(trial, FailingFiles(operation, PowerCut(), after=after)), known)
        except PowerCut:
            assert known[-1] in device(trial).candidates()
        else:
            break
    assert operation > 5


@pytest.mark.usefixtures("quick_disk")
def test_a_full_disk_changes_nothing(store: CredentialStore, tmp_path: Path) -> None:
    full = StateError("The disk is full.", remedy="Free some space.")

    for write in (CredentialStore.propose, CredentialStore.commit):
        with pytest.raises(ScansealError, match="full"):
            write(device(tmp_path, FailingFiles(2, full, after=False)), THIRD)
        assert store.candidates() == (SECOND, FIRST)
