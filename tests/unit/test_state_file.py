"""A state file holds the old content or the new, whatever happens; and nothing odd in its place is read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from enroll.errors import DiskRefused, EnrollerBusy, StateError
from enroll.statefile import STATE_FILE_LIMIT, StateFiles

FILES = StateFiles()


class NoSpaceError(OSError):
    def __init__(self) -> None:
        super().__init__(28, "No space left on device")


def entries(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    FILES.write(tmp_path / "a", b"content")

    assert FILES.read(tmp_path / "a") == b"content"
    assert entries(tmp_path) == ["a"]


def test_a_file_is_private_unless_said_otherwise(tmp_path: Path) -> None:
    FILES.write(tmp_path / "private", b"")
    FILES.write(tmp_path / "public", b"", 0o644)

    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "public").stat().st_mode) == 0o644


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_: object) -> None:
        raise NoSpaceError

    path = tmp_path / "a"
    FILES.write(path, b"old")
    monkeypatch.setattr(os, call, fail)

    with pytest.raises(StateError, match="No space left"):
        FILES.write(path, b"new")

    assert path.read_bytes() == b"old"
    assert entries(tmp_path) == ["a"]


@pytest.mark.parametrize("call", ["write", "point"])
def test_a_directory_in_the_place_of_a_file_is_put_aside(tmp_path: Path, call: str) -> None:
    path = tmp_path / "a"
    path.mkdir()
    (path / "inner").write_bytes(b"")

    if call == "write":
        FILES.write(path, b"content")
        assert FILES.read(path) == b"content"
    else:
        FILES.point(path, "content")
        assert FILES.target(path) == "content"

    aside, name = entries(tmp_path)
    assert aside.startswith(".a.damaged-")
    assert (entries(tmp_path / aside), name) == (["inner"], "a")


@pytest.mark.parametrize("call", ["open", "fsync"])
def test_a_directory_that_cannot_be_synced_is_not_said_to_hold_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """What was written is there: whoever enables a scanner must not hear that it is still disabled."""
    path = tmp_path / "a"
    FILES.write(path, b"old")
    genuine_open, genuine_fsync = os.open, os.fsync

    def open_(name: Path, *rest: int) -> int:
        if call == "open" and name == tmp_path:
            raise NoSpaceError
        return genuine_open(name, *rest)

    def fsync(descriptor: int) -> None:
        if call == "fsync" and stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise NoSpaceError
        genuine_fsync(descriptor)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DiskRefused) as refused:
        FILES.write(path, b"new")

    is_new = path.read_bytes() == b"new"
    assert is_new is (call == "fsync")
    assert ("may not survive a power cut" in refused.value.what) is is_new
    assert ("still in use" in str(refused.value)) is not is_new
    assert ("still in use" in refused.value.what_next) is not is_new
    assert entries(tmp_path) == ["a"]


def test_content_is_durable_before_its_name_and_its_name_before_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        calls.append("fsync directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "fsync file")
        fsync(descriptor)

    def noted_replace(source: Path, target: Path) -> None:
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    FILES.write(tmp_path / "a", b"content")

    assert calls == ["fsync file", "rename", "fsync directory"]


def test_a_missing_file_is_a_state_error(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="No such file"):
        FILES.read(tmp_path / "a")


@pytest.mark.parametrize("kind", ["directory", "fifo", "link", "dangling link", "socket"])
def test_only_a_regular_file_is_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    (tmp_path / "b").write_bytes(b"content")
    match kind:
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "link":
            path.symlink_to("b")
        case "dangling link":
            path.symlink_to("c")
        case "socket":
            os.mknod(path, stat.S_IFSOCK | 0o600)

    with pytest.raises(StateError):
        FILES.read(path)


def test_a_file_that_the_operator_names_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    os.mkfifo(tmp_path / "fifo")
    for target in ("file", "fifo", "missing"):
        (tmp_path / f"to-{target}").symlink_to(target)

    assert FILES.read(tmp_path / "to-file", follow=True) == b"content"
    for wrong in (tmp_path / "to-fifo", tmp_path / "to-missing", tmp_path):
        with pytest.raises(StateError):
            FILES.read(wrong, follow=True)
    with pytest.raises(StateError, match="larger"):
        FILES.read(tmp_path / "to-file", 6, follow=True)


def test_reading_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with path.open("wb") as file:
        file.truncate(STATE_FILE_LIMIT + 1)

    with pytest.raises(StateError, match="larger"):
        FILES.read(path)
    assert FILES.read(path, STATE_FILE_LIMIT + 1) == bytes(STATE_FILE_LIMIT + 1)


def test_a_link_is_moved_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "current"
    FILES.point(link, "one")
    FILES.point(link, "two")
    assert link.readlink() == Path("two")

    def fail(*_: object) -> None:
        raise NoSpaceError

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(StateError):
        FILES.point(link, "three")

    assert link.readlink() == Path("two")
    assert entries(tmp_path) == ["current"]


def test_directories_are_made_with_their_parents_which_the_group_may_pass(tmp_path: Path) -> None:
    FILES.make_directory(tmp_path / "a" / "b" / "c")
    FILES.make_directory(tmp_path / "a" / "b" / "c")

    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "a" / "b" / "c").stat().st_mode) == 0o700


def test_a_directory_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o711)
    FILES.make_directory(tmp_path / "a" / "b")
    FILES.make_directory(tmp_path / "a", 0o750)

    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o711


def test_a_file_in_the_place_of_a_directory_is_a_state_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")

    with pytest.raises(StateError):
        FILES.make_directory(tmp_path / "a" / "b")
    with pytest.raises(StateError):
        FILES.rename(tmp_path / "missing", tmp_path / "b")


def test_removing_takes_everything_below_but_follows_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"")
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    (tree / "inner" / "file").write_bytes(b"")
    (tree / "link").symlink_to(outside)

    FILES.remove(tree)
    FILES.remove(tree)

    assert entries(tmp_path) == ["outside"]
    assert entries(outside) == ["kept"]


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    busy = EnrollerBusy("Another one is at work.")
    path = tmp_path / "lock"

    with FILES.locked(path, busy), pytest.raises(EnrollerBusy, match="at work"), FILES.locked(path, busy):
        pass
    with pytest.raises(BlockingIOError), FILES.locked(path, busy):
        raise BlockingIOError
    with FILES.locked(path, busy):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_lock_file_that_cannot_be_opened_is_a_state_error(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to("elsewhere")

    with pytest.raises(StateError), FILES.locked(tmp_path / "lock", EnrollerBusy("")):
        pass
    with pytest.raises(StateError), FILES.locked(tmp_path / "missing" / "lock", EnrollerBusy("")):
        pass
