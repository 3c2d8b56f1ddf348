"""The identity directory: what is in use is one complete matching pair, and what is damaged is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from enroll.certificates import check_pair, pem
from enroll.errors import EnrollerBusy, KeyMismatch, StateError
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.keystore.base import PrivateKey, Protection
from enroll.statefile import StateFiles
from enroll.trust import VerifiedCertificate
from tests.support.other_user import error_of
from tests.support.pki import NOW, HospitalCa, new_key
from tests.support.records import rewrite

CA = HospitalCa()
ISSUING_CA = HospitalCa("Issuing CA", CA)
SIGNING = IdentityName.SIGNING
P_256, OTHER_P_256 = new_key(), new_key()
RSA_2048, OTHER_RSA_2048 = rsa.generate_private_key(65537, 2048), rsa.generate_private_key(65537, 2048)


@pytest.fixture
def store(tmp_path: Path) -> IdentityStore:
    return IdentityStore(tmp_path, StateFiles())


def commit(store: IdentityStore, key_uri: str = "software:signing-1") -> Generation:
    certificate = ISSUING_CA.issue(new_key().public_key())
    verified = VerifiedCertificate(certificate, (ISSUING_CA.certificate,))
    return store.commit(SIGNING, verified, key_uri, protection=Protection.SOFTWARE, flow="est", now=NOW)


def file(tmp_path: Path, name: str) -> Path:
    return tmp_path / "identities" / "signing" / "current" / name


def test_at_first_there_is_nothing(store: IdentityStore) -> None:
    assert store.current(SIGNING) is None
    assert store.pointer(SIGNING) is None
    assert store.generations(SIGNING) == ()
    assert store.journal(SIGNING).read() is None


def test_what_is_committed_is_in_use(store: IdentityStore, tmp_path: Path) -> None:
    committed = commit(store)

    assert IdentityStore(tmp_path, StateFiles()).current(SIGNING) == committed
    assert committed.chain == (ISSUING_CA.certificate,)
    assert (committed.number, committed.key_uri, committed.flow) == (1, "software:signing-1", "est")
    assert (committed.protection, committed.committed_at) == (Protection.SOFTWARE, NOW)
    assert store.chain_file(committed).read_bytes() == pem([committed.certificate, ISSUING_CA.certificate])


def test_the_generation_before_stays_as_it_was(store: IdentityStore) -> None:
    first = commit(store)
    before = {path: path.read_bytes() for path in store.chain_file(first).parent.iterdir()}

    second = commit(store, "software:signing-2")

    assert store.current(SIGNING) == second
    assert store.pointer(SIGNING) == "generations/0002"
    assert {path: path.read_bytes() for path in store.chain_file(first).parent.iterdir()} == before
    assert [store.key_uri(SIGNING, number) for number in store.generations(SIGNING)] == [
        "software:signing-1",
        "software:signing-2",
    ]


def test_a_number_is_never_used_again(store: IdentityStore, tmp_path: Path) -> None:
    commit(store)
    unused = commit(store)
    (tmp_path / "identities" / "signing" / "current").unlink()
    StateFiles().point(tmp_path / "identities" / "signing" / "current", "generations/0001")

    assert commit(store).number == unused.number + 1


def test_generations_beyond_9999_are_counted_on(store: IdentityStore, tmp_path: Path) -> None:
    commit(store)
    (tmp_path / "identities" / "signing" / "generations" / "9999").mkdir()

    assert commit(store).number == 10000
    assert commit(store).number == 10001
    assert store.pointer(SIGNING) == "generations/10001"


def test_identities_are_apart(store: IdentityStore) -> None:
    commit(store)

    assert store.current(IdentityName.DEVICE) is None
    assert store.current(IdentityName.IDEVID) is None


@pytest.mark.parametrize("name", ["certificate.pem", "chain.pem", "key.uri", "meta.json"])
@pytest.mark.parametrize(
    "content",
    [None, b"", b"{}", b"\xff" * 10, b"[" * 10_000, b"x" * (2 << 20)],
    ids=["missing", "empty", "braces", "not text", "deeply nested", "huge"],
)
def test_a_damaged_file_is_a_state_error(
    store: IdentityStore, tmp_path: Path, name: str, content: bytes | None
) -> None:
    commit(store)
    path = file(tmp_path, name)
    path.unlink()
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(StateError):
        store.current(SIGNING)


@pytest.mark.parametrize(
    "change",
    [
        {"protection": "magic"},
        {"committed_at": "2026-11-22T12:00:00"},
        {"committed_at": "yesterday"},
        {"flow": 1},
        {"before": "one"},
        {"more": ""},
    ],
)
def test_wrong_metadata_is_a_state_error(store: IdentityStore, tmp_path: Path, change: dict[str, object]) -> None:
    commit(store)
    rewrite(file(tmp_path, "meta.json").resolve(), **change)

    with pytest.raises(StateError, match=r"meta\.json"):
        store.current(SIGNING)


def test_a_chain_of_another_certificate_is_a_state_error(store: IdentityStore, tmp_path: Path) -> None:
    commit(store)
    file(tmp_path, "chain.pem").write_bytes(pem([CA.certificate]))

    with pytest.raises(StateError, match=r"chain\.pem"):
        store.current(SIGNING)


@pytest.mark.parametrize("target", ["generations/0000", "generations/../../device", "/etc", "generations/1", "x"])
def test_a_pointer_to_elsewhere_is_a_state_error(store: IdentityStore, tmp_path: Path, target: str) -> None:
    commit(store)
    StateFiles().point(tmp_path / "identities" / "signing" / "current", target)

    with pytest.raises(StateError):
        store.current(SIGNING)


def test_a_pointer_that_is_no_link_is_a_state_error(store: IdentityStore, tmp_path: Path) -> None:
    (tmp_path / "identities" / "signing" / "current").mkdir(parents=True)

    with pytest.raises(StateError):
        store.pointer(SIGNING)


def test_a_generation_that_was_left_half_written_is_no_hindrance(store: IdentityStore, tmp_path: Path) -> None:
    commit(store)
    draft = tmp_path / "identities" / "signing" / "generations" / ".draft"
    draft.mkdir()
    (draft / "certificate.pem").write_bytes(b"half")

    assert store.generations(SIGNING) == (1,)
    assert commit(store).number == 2
    assert not draft.exists()


def test_there_is_one_enroller_at_a_time(store: IdentityStore, tmp_path: Path) -> None:
    other = "from pathlib import Path; from enroll.identity import *; from enroll.statefile import StateFiles\n"
    other += f"with IdentityStore(Path({str(tmp_path)!r}), StateFiles()).lock(): pass"
    with store.lock():
        with pytest.raises(EnrollerBusy), IdentityStore(tmp_path, StateFiles()).lock():
            pass
        blocked = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, check=False)
    assert "EnrollerBusy" in blocked.stderr

    subprocess.run([sys.executable, "-c", other], check=True)


def test_a_lock_that_cannot_be_made_is_a_state_error(store: IdentityStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "elsewhere")
    (tmp_path / "enroll.lock").symlink_to("elsewhere")

    with pytest.raises(StateError), store.lock():
        pass


def test_what_the_caller_may_not_read_is_not_called_damaged(store: IdentityStore, tmp_path: Path) -> None:
    commit(store)
    identity = store.directory(SIGNING)
    of_this_store = "IdentityStore(folder, StateFiles()).{}(IdentityName.SIGNING)"

    for call, forbidden in (
        ("pointer", identity),
        ("current", identity),
        ("generations", identity / "generations"),
        ("current", identity / "generations" / "0001" / "chain.pem"),
    ):
        said = error_of(of_this_store.format(call), forbidden, tmp_path)
        assert said.startswith("StateUnreadable state-unreadable"), said
        assert "cannot be read: Permission denied. Run this as root, as the user scanseal, or as a member" in said


def test_a_request_under_way_that_the_caller_may_not_read_is_not_called_absent(tmp_path: Path) -> None:
    pending = tmp_path / "identities" / "signing" / "pending"
    pending.mkdir(parents=True)
    said = error_of("IdentityStore(folder, StateFiles()).journal(IdentityName.SIGNING).read()", pending, tmp_path)

    assert said.startswith("StateUnreadable state-unreadable"), said


def test_what_runs_under_the_lock_is_not_taken_for_another_enroller(store: IdentityStore) -> None:
    with pytest.raises(BlockingIOError), store.lock():
        raise BlockingIOError


@pytest.mark.parametrize("key", [P_256, RSA_2048], ids=["p-256", "rsa-2048"])
def test_a_pair_is_checked_by_signing(key: PrivateKey) -> None:
    check_pair(key, CA.issue(key.public_key()))


@pytest.mark.parametrize(
    ("key", "other"),
    [
        (P_256, OTHER_P_256),
        (P_256, ec.generate_private_key(ec.SECP384R1())),
        (P_256, RSA_2048),
        (RSA_2048, OTHER_RSA_2048),
    ],
    ids=["p-256", "curves", "kinds", "rsa-2048"],
)
def test_a_pair_that_does_not_match_is_refused(key: PrivateKey, other: PrivateKey) -> None:
    with pytest.raises(KeyMismatch):
        check_pair(key, CA.issue(other.public_key()))
