"""A release that is cut off, or finds something damaged, lost or away, comes to its end all the same (ADR 33)."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from enroll.enroller import asked_for as asked_for_identity
from enroll.errors import DiskRefused, KeyStoreUnavailable, StateError, StateTooNew
from enroll.flows.settings import FlowName
from enroll.identity import IdentityName, IdentityStore
from enroll.keystore import KeyStores
from enroll.owner_release import OWNERS_IDENTITIES
from enroll.record import write_record
from tests.support.enrolling import CaFlow, Scanner, settings
from tests.support.owner_release import (
    CA,
    DERIVATION,
    DEVICE,
    FILES,
    IN_TOKEN,
    SIGNING,
    assert_released,
    kept_keys,
    moved_into_a_token,
    owned,
    releasing,
)
from tests.support.records import rewrite, values_of
from tests.unit.test_issue_power_cuts import FailingFiles, PowerCut


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cuts of these tests are between operations, so nothing has to reach the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


# --- it is cut off


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_power_cut_at_any_moment_is_gone_on_with(tmp_path: Path, *, after: bool) -> None:
    """Until it has come to its end nothing is enrolled, because it would go as well."""
    start = tmp_path / "start"
    start.mkdir()
    owned(start)
    for operation in itertools.count(1):
        trial = tmp_path / f"trial-{operation}"
        shutil.copytree(start, trial, symlinks=True)
        scanner = Scanner(settings(trial), (CA.certificate,))
        try:
            releasing(scanner, FailingFiles(operation, PowerCut(), after=after)).run()
        except PowerCut:
            under_way = releasing(scanner).is_under_way
            if under_way:
                with pytest.raises(StateError, match="give it up"):
                    scanner.issue(CaFlow(CA, scanner.clock), SIGNING)
            if under_way or scanner.identities.current(DEVICE) is not None:
                assert releasing(scanner).run() == ()
            assert_released(scanner)
            scanner.issue(CaFlow(CA, scanner.clock), SIGNING)
        else:
            break
    assert operation > 40


def test_who_asks_for_an_identity_meanwhile_leaves_no_wish_behind(tmp_path: Path) -> None:
    """Otherwise the timer would hand the scanner back to the owner that has just given it up."""
    scanner = owned(tmp_path)
    write_record(scanner.identities.release_record, {"begun_at": ""}, FILES)
    scanner.identities.wipe(DEVICE)

    with (
        pytest.raises(StateError, match="give it up"),
        asked_for_identity((DEVICE,), FlowName.FDO, scanner.identities, scanner.clock),
    ):
        pass

    assert scanner.identities.wanted(DEVICE).read() is None


# --- what is away or lost


def test_a_token_that_is_away_keeps_it_from_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its keys would be the old owner's for ever, and nothing would name them any more."""
    scanner = owned(tmp_path)
    release = releasing(scanner)

    def away(*_: object) -> None:
        raise KeyStoreUnavailable("The token is away.")

    with monkeypatch.context() as patched:
        patched.setattr(KeyStores, "destroy", away)
        with pytest.raises(KeyStoreUnavailable):
            release.run()
    assert release.is_under_way
    assert [scanner.identities.current(name) for name in OWNERS_IDENTITIES] == [None] * 4
    assert scanner.identities.generations(SIGNING) == (1, 2, 3)

    assert release.run() == ()
    assert_released(scanner)


def test_a_key_whose_name_is_lost_is_told(tmp_path: Path) -> None:
    scanner = owned(tmp_path)
    identities = scanner.identities
    uri = identities.key_uri(SIGNING, 2)
    (identities.directory(SIGNING) / "generations" / "0002" / "key.uri").write_text("\n")
    (identities.directory(DERIVATION) / "pending" / "request.json").write_text("{")
    (scanner.settings.state_directory / "acme" / "account.json").write_text("{")

    lost = releasing(scanner).run()

    assert [line.partition(":")[0] for line in lost] == [
        "the key of generation 2 of signing",
        "the key of a request of derivation",
        "the key of the ACME account",
    ]
    left = {"software:acme-0123456789abcdef", "software:derivation-0123456789abcdef"}
    assert set(scanner.stores.list()) - kept_keys(scanner) - left in (set(), {uri})


def test_a_token_that_is_lost_for_good_can_be_left_out_and_its_keys_are_named(tmp_path: Path) -> None:
    """Otherwise it would keep the scanner with its owner for ever."""
    scanner = owned(tmp_path)
    second = scanner.identities.key_uri(SIGNING, 2)
    moved_into_a_token(scanner)
    scanner.stores.destroy(second)
    with pytest.raises(KeyStoreUnavailable):
        releasing(scanner).run()

    left = releasing(scanner, without_tokens=("another", "gone")).run()

    assert [line.partition(":")[0] for line in left] == [
        "the key of generation 2 of signing",
        "the key of a request of signing",
        "the key of a request of derivation",
    ]
    assert all(IN_TOKEN in line for line in left)
    assert_released(scanner)


def test_an_fdo_secret_that_is_lost_keeps_nothing_from_going(tmp_path: Path) -> None:
    """The TPM was replaced, say: then no owner can take the scanner over by FDO any more."""
    scanner = owned(tmp_path)
    scanner.stores.destroy("software:fdo-1-hmac")

    assert any("FDO credential" in line for line in releasing(scanner).inventory().by_hand)
    (left,) = releasing(scanner).run()
    assert left.startswith("the FDO credential, which stays as it is")
    assert not releasing(scanner).is_under_way
    assert scanner.identities.generations(SIGNING) == ()


def test_a_damaged_credential_keeps_nothing_from_going(tmp_path: Path) -> None:
    scanner = owned(tmp_path)
    (scanner.settings.state_directory / "fdo" / "credential.current").write_bytes(b"")

    assert any("damaged" in line for line in releasing(scanner).inventory().by_hand)
    (told,) = releasing(scanner).run()
    assert "credential" in told
    assert scanner.identities.current(DEVICE) is None


# --- the list of what people have to do


def test_the_list_is_written_before_anything_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scanner = owned(tmp_path)
    by_hand = releasing(scanner).inventory().by_hand

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(IdentityStore, "retract", interrupted)
        with pytest.raises(KeyboardInterrupt):
            releasing(scanner).run()

    assert json.loads(values_of(scanner.identities.release_record)["by_hand"]) == list(by_hand)


def test_a_damaged_list_keeps_nothing_from_going_and_that_is_said(tmp_path: Path) -> None:
    scanner = owned(tmp_path)
    for damaged in ("", '{"begun_at": ""}', '{"begun_at": "", "by_hand": "[1]", "lost": "[]"}'):
        scanner.identities.release_record.write_text(damaged)
        assert any("release.json is damaged" in line for line in releasing(scanner).inventory().by_hand)

    releasing(scanner).run()

    assert_released(scanner)


NOT_LOST = {
    "release.json": "release.json",
    "of-the-account": "acme/account.json",
    "of-fdo": "fdo/credential.current",
}


@pytest.mark.parametrize("name", NOT_LOST.values(), ids=NOT_LOST)
def test_what_cannot_be_read_for_now_is_not_taken_for_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Otherwise nobody would be told which certificates to revoke; and FDO would still know the owner."""
    scanner = owned(tmp_path)
    told = releasing(scanner).inventory().by_hand
    whole = IdentityStore.wipe
    with monkeypatch.context() as patched:
        patched.setattr(IdentityStore, "wipe", interrupted_after(whole))
        with pytest.raises(KeyboardInterrupt):
            releasing(scanner).run()
    path = scanner.settings.state_directory / name
    before = path.read_bytes()
    genuine = os.open

    def refuse(opened: Path, *rest: int) -> int:
        if opened == path:
            raise OSError(errno.EMFILE, "Too many open files")
        return genuine(opened, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(DiskRefused):
            releasing(scanner).run()

    assert path.read_bytes() == before
    assert releasing(scanner).inventory().by_hand == told
    assert releasing(scanner).run() == ()
    assert_released(scanner)


def interrupted_after(step: Callable[[IdentityStore, IdentityName], None]) -> Callable[..., None]:
    def interrupted(identities: IdentityStore, name: IdentityName) -> None:
        step(identities, name)
        raise KeyboardInterrupt

    return interrupted


def test_a_list_of_a_newer_version_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scanner = owned(tmp_path)
    record = scanner.identities.release_record
    write_record(record, {"begun_at": "", "by_hand": "[]", "lost": "[]"}, FILES)
    with monkeypatch.context() as patched:
        patched.setattr("enroll.record.FORMAT", 2)
        rewrite(record)
    before = record.read_bytes()

    with pytest.raises(StateTooNew):
        releasing(scanner).run()

    assert record.read_bytes() == before
    assert scanner.identities.current(DEVICE) is not None
