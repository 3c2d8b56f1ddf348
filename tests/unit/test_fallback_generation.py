"""A damaged generation: the one before is in use, it says so, and nothing looks as if there had never been anything."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from enroll.collector import collect
from enroll.enroller import Enroller
from enroll.errors import DeviceNeedsService, DiskRefused, StateDamaged, StateTooNew, StateUnsafe
from enroll.failure import Failures
from enroll.identity import Generation
from enroll.revocation.lists import Revocation
from enroll.statefile import StateFiles
from enroll.wanted import Wish
from tests.support.enrolling import CaFlow, Scanner, settings
from tests.support.generations import SIGNING, STOLEN, file, noted
from tests.support.pki import NOW, HospitalCa
from tests.support.records import rewrite

CA = HospitalCa()
FILES_OF_GENERATION = ("certificate.pem", "chain.pem", "anchor.pem", "key.uri", "meta.json")


@pytest.fixture
def scanner(tmp_path: Path) -> Scanner:
    return Scanner(settings(tmp_path), (CA.certificate,))


def issue(scanner: Scanner) -> Generation:
    generation = scanner.issue(CaFlow(CA, scanner.clock))
    assert isinstance(generation, Generation)
    return generation


@pytest.mark.parametrize("name", FILES_OF_GENERATION)
@pytest.mark.parametrize("content", [None, b"", b"x"], ids=["missing", "empty", "other"])
def test_where_the_newest_is_damaged_the_one_before_is_in_use(
    scanner: Scanner, name: str, content: bytes | None
) -> None:
    first, second = issue(scanner), issue(scanner)
    path = file(scanner, second.number, name)
    path.unlink()
    if content is not None:
        path.write_bytes(content)

    found = scanner.matching_pair()

    assert found is not None
    assert (found.number, found.certificate, found.damaged_newer) == (1, first.certificate, 2)
    assert isinstance(found.damage, StateDamaged)
    assert "Generation 2 of the identity signing is damaged; generation 1 is in use" in found.damage.what


def test_the_next_enrollment_replaces_the_damaged_one_and_its_number_is_not_used_again(scanner: Scanner) -> None:
    first, second = issue(scanner), issue(scanner)
    file(scanner, 2).write_bytes(b"")

    third = issue(scanner)

    assert (third.number, third.damaged_newer) == (3, None)
    assert scanner.matching_pair() == third
    assert set(scanner.stores.list()) >= {third.key_uri, first.key_uri}
    file(scanner, 3).write_bytes(b"")
    found = scanner.matching_pair()
    assert found is not None  # not the damaged one, which has the number before
    assert (found.number, found.damaged_newer) == (1, 3)
    assert second.number == 2


@pytest.mark.parametrize("name", FILES_OF_GENERATION)
def test_after_a_damaged_one_was_replaced_there_is_one_before_again(scanner: Scanner, name: str) -> None:
    """Whichever file is lost of both: `meta.json` is not alone in knowing which was in use before."""
    issue(scanner), issue(scanner)
    file(scanner, 2, name).write_bytes(b"")
    issue(scanner)
    file(scanner, 3, name).write_bytes(b"")
    collect(scanner.identities, scanner.stores)  # as each run begins

    found = scanner.matching_pair()

    assert found is not None
    assert (found.number, found.damaged_newer) == (1, 3)


def test_where_both_are_damaged_that_is_said_and_only_a_person_begins_anew(scanner: Scanner) -> None:
    for _ in range(3):
        issue(scanner)
    for number in (2, 3):
        file(scanner, number).write_bytes(b"")

    with pytest.raises(StateDamaged, match=r"0003/chain\.pem"):
        scanner.identities.current(SIGNING)
    assert issue(scanner).number == 4
    assert scanner.matching_pair() is not None


def test_the_first_generation_has_none_before(scanner: Scanner) -> None:
    issue(scanner)
    file(scanner, 1, "meta.json").write_bytes(b"")

    with pytest.raises(StateDamaged):
        scanner.identities.current(SIGNING)


def test_a_lost_pointer_is_not_the_state_before_the_first_enrollment(scanner: Scanner) -> None:
    issue(scanner)
    (scanner.identities.directory(SIGNING) / "current").unlink()

    with pytest.raises(StateDamaged, match="current is missing, and this identity has been in use"):
        scanner.identities.current(SIGNING)
    assert scanner.identities.readable(SIGNING) is None
    assert issue(scanner).number == 2


def test_a_pointer_to_an_older_generation_is_damage(scanner: Scanner) -> None:
    """Its key still exists, and the owner may have renewed because it was stolen."""
    issue(scanner), issue(scanner)
    StateFiles().point(scanner.identities.directory(SIGNING) / "current", "generations/0001")

    with pytest.raises(StateDamaged, match="leads back to an older generation"):
        scanner.identities.current(SIGNING)


@pytest.mark.parametrize("content", [None, b"", b"{}"])
def test_nothing_depends_on_the_record_of_the_newest_number_alone(scanner: Scanner, content: bytes | None) -> None:
    newest = issue(scanner)
    path = scanner.identities.directory(SIGNING) / "newest.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)

    assert scanner.identities.current(SIGNING) == newest


def test_a_release_explains_that_nothing_is_in_use(scanner: Scanner) -> None:
    issue(scanner)
    scanner.identities.release_record.write_bytes(b"")
    scanner.identities.retract(SIGNING)

    assert scanner.identities.current(SIGNING) is None


def test_a_disk_that_fails_for_now_is_no_damage(scanner: Scanner, monkeypatch: pytest.MonkeyPatch) -> None:
    issue(scanner)
    second = issue(scanner)

    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(DiskRefused):
            scanner.identities.current(SIGNING)
        with pytest.raises(DiskRefused):
            scanner.identities.readable(SIGNING)
    assert scanner.identities.current(SIGNING) == second


@pytest.mark.parametrize("name", ["chain.pem", "meta.json"])
def test_a_sector_that_cannot_be_read_is_damage(scanner: Scanner, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    issue(scanner)
    issue(scanner)
    genuine = os.open

    def refuse(path: Path, *rest: int) -> int:
        if str(path).endswith(f"0002/{name}"):
            raise OSError(errno.EIO, "Input/output error")
        return genuine(path, *rest)

    monkeypatch.setattr(os, "open", refuse)

    found = scanner.identities.current(SIGNING)
    assert found is not None
    assert (found.number, found.damaged_newer) == (1, 2)


def test_a_disk_that_cannot_read_once_has_lost_nothing(scanner: Scanner, monkeypatch: pytest.MonkeyPatch) -> None:
    second = (issue(scanner), issue(scanner))[1]
    genuine, refused = os.open, []

    def refuse_once(path: Path, *rest: int) -> int:
        if str(path) not in refused and str(scanner.identities.root) in str(path):
            refused.append(str(path))
            raise OSError(errno.EIO, "Input/output error")
        return genuine(path, *rest)

    monkeypatch.setattr(os, "open", refuse_once)

    assert scanner.identities.current(SIGNING) == second
    assert refused


def unreadable(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """These files lie in sectors that the disk cannot read; they may be replaced."""
    genuine = os.open

    def refuse(path: Path, flags: int, *rest: int) -> int:
        if str(path).endswith(names):
            raise OSError(errno.EIO, "Input/output error")
        return genuine(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)


@pytest.mark.parametrize("name", ["0001/chain.pem", "newest.json", "pending/request.json", "last-failure.json"])
def test_whatever_the_disk_cannot_read_keeps_nobody_from_enrolling_again(
    scanner: Scanner, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    issue(scanner)
    path = scanner.identities.directory(SIGNING) / name
    if not name.startswith("0001"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"?")
    with monkeypatch.context() as patch:
        unreadable(patch, name)
        with Failures(scanner.identities).noted(SIGNING, "est", scanner.clock):
            assert issue(scanner).number == 2

    assert scanner.matching_pair() is not None


def test_what_cannot_be_read_of_the_owner_s_record_is_for_service_and_can_be_written_anew(
    scanner: Scanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    issue(scanner)
    owner_file = scanner.identities.owner_file
    with monkeypatch.context() as patch:
        unreadable(patch, "/owner.json")
        with pytest.raises(DeviceNeedsService):
            owner_file.read()
        owner_file.disable(0, "", NOW)

    record = owner_file.read()
    assert record is not None
    assert record.is_disabled


def by_timer(scanner: Scanner) -> None:
    with Enroller(scanner.context) as enroller:
        enroller.collect()


@pytest.mark.parametrize("way", [issue, by_timer], ids=["enrolled", "timer"])
@pytest.mark.parametrize("cut", [True, False], ids=["killed", "full disk"])
def test_a_run_that_ends_after_the_new_generation_is_in_use_is_brought_to_its_end(
    scanner: Scanner, monkeypatch: pytest.MonkeyPatch, way: Callable[[Scanner], object], *, cut: bool
) -> None:
    """A `current` that is lost later would look as if there had never been a certificate."""
    scanner.identities.wanted(SIGNING).write(Wish("est", NOW))

    def ends(*_: object, **__: object) -> None:
        raise KeyboardInterrupt if cut else DiskRefused("No space left on device.")

    with monkeypatch.context() as patch:
        patch.setattr("enroll.generation_use.write_record", ends)
        with pytest.raises(KeyboardInterrupt if cut else DiskRefused) as ended:
            issue(scanner)
    if isinstance(ended.value, DiskRefused):
        assert "The new certificate is in use" in ended.value.what
        assert "before" not in ended.value.what_next

    if way is by_timer:
        scanner.identities.journal(SIGNING).clear()  # an import has none
    way(scanner)

    assert scanner.identities.generations(SIGNING) == (1,)
    assert scanner.identities.wanted(SIGNING).read() is None
    (scanner.identities.directory(SIGNING) / "current").unlink()
    with pytest.raises(StateDamaged):
        scanner.identities.current(SIGNING)


def test_a_generation_of_a_newer_version_is_neither_damaged_nor_begun_anew(
    scanner: Scanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    issue(scanner)
    issue(scanner)
    with monkeypatch.context() as patch:
        patch.setattr("enroll.record.FORMAT", 2)
        rewrite(file(scanner, 2, "meta.json"))

    for read in (scanner.identities.current, scanner.identities.readable):
        with pytest.raises(StateTooNew):
            read(SIGNING)


def test_a_generation_that_others_may_write_is_not_used_and_the_one_before_neither(scanner: Scanner) -> None:
    issue(scanner)
    issue(scanner)
    file(scanner, 2).chmod(0o666)

    with pytest.raises(StateUnsafe):
        scanner.identities.readable(SIGNING)


def test_a_generation_that_never_came_into_use_is_not_the_one_before(scanner: Scanner) -> None:
    """A crash before the last step, and a request that was given up: its key is gone."""
    first = issue(scanner)
    source, unused = file(scanner, 1).parent, file(scanner, 2).parent
    unused.mkdir()
    for name in FILES_OF_GENERATION:
        (unused / name).write_bytes((source / name).read_bytes())
    third = issue(scanner)
    file(scanner, third.number).write_bytes(b"")

    found = scanner.matching_pair()

    assert third.number == 3
    assert found is not None
    assert (found.number, found.certificate) == (1, first.certificate)


# --- a revoked one


@pytest.mark.parametrize("lost", ["", "revocation.json", "revoked/0002.json"])
def test_one_that_was_revoked_is_not_followed_by_the_one_before(scanner: Scanner, lost: str) -> None:
    """A thief of the key would be forgotten, and the scanner would sign on and renew by itself."""
    issue(scanner)
    noted(scanner.identities, issue(scanner), STOLEN)
    if lost:
        (scanner.identities.directory(SIGNING) / lost).write_bytes(b"?")
    file(scanner, 2).write_bytes(b"")

    with pytest.raises(StateDamaged, match="was revoked, so the generation before is not used either"):
        scanner.identities.current(SIGNING)
    assert issue(scanner).number == 3  # by a person
    assert scanner.matching_pair() is not None


def test_where_a_hold_was_lifted_the_one_before_is_in_use(scanner: Scanner) -> None:
    issue(scanner)
    second = issue(scanner)
    for revocation in (Revocation(NOW, "certificateHold"), None):
        noted(scanner.identities, second, revocation)
    file(scanner, 2).write_bytes(b"")

    found = scanner.matching_pair()

    assert found is not None
    assert (found.number, found.damaged_newer) == (1, 2)
