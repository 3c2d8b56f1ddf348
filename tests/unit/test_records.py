"""Records: a changed one is damaged, one of a newer scanseal is left alone, and neither is taken for the other."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from enroll.certificates import pem, read_kept, write_kept
from enroll.errors import DiskRefused, StateDamaged, StateError, StateTooNew, StateUnsafe
from enroll.journal import Journal, PendingRequest, Step
from enroll.record import FORMAT, read_record, sha256_of, write_record
from enroll.statefile import StateFiles
from tests.support.pki import NOW, HospitalCa
from tests.support.records import values_of

FILES = StateFiles()
VALUES = {"flow": "est", "since": "2026-11-22T12:00:00+00:00", "umlaut": "ü"}
CA = HospitalCa()

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="giving files to a user needs root: run the tests as root")


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "record.json"
    write_record(path, VALUES, FILES)
    return path


def read(path: Path) -> dict[str, str]:
    return read_record(path, VALUES, FILES)


def newer(path: Path, version: int = FORMAT + 1) -> None:
    """As the next scanseal may write it; the checksum stays as it is."""
    values = {"anything": ["else"]}
    whole = {"format": version, "place": path.name, "values": values}
    checksum = sha256_of(json.dumps(whole, sort_keys=True, separators=(",", ":")).encode("ascii"))
    path.write_text(json.dumps({"format": version, "sha256": checksum, "values": values}), "utf-8")


def test_what_is_written_is_read(record: Path) -> None:
    assert read(record) == VALUES
    assert json.loads(record.read_bytes())["format"] == FORMAT


def test_every_byte_that_is_changed_is_noticed_or_changes_nothing(record: Path) -> None:
    whole = record.read_bytes()
    noticed = 0
    for place in range(len(whole)):
        for bit in (1, 0x20, 0x80):
            changed = bytearray(whole)
            changed[place] ^= bit
            record.write_bytes(changed)
            try:
                assert read(record) == VALUES
            except StateDamaged:
                noticed += 1
    assert noticed > 2.5 * len(whole)  # the rest is white space


def test_a_newer_format_is_known_as_such_and_left_as_it_is(record: Path) -> None:
    newer(record)
    before = record.read_bytes()

    with pytest.raises(StateTooNew, match=f"format {FORMAT + 1}") as refused:
        read(record)

    assert (refused.value.code, record.read_bytes()) == ("state-too-new", before)


@pytest.mark.parametrize("version", [0, -1])
def test_a_format_that_never_was_is_damage(record: Path, version: int) -> None:
    newer(record, version)

    with pytest.raises(StateDamaged):
        read(record)


def test_a_damaged_record_is_not_taken_for_one_of_a_newer_format(record: Path) -> None:
    record.write_text(record.read_text("utf-8").replace(f'"format": {FORMAT}', '"format": 9'), "utf-8")

    with pytest.raises(StateDamaged):
        read(record)


def test_a_record_of_another_identity_is_damage(tmp_path: Path) -> None:
    for name in ("device", "signing"):
        (tmp_path / "identities" / name).mkdir(parents=True)
        write_record(tmp_path / "identities" / name / "wanted.json", VALUES, FILES)
    paths = [tmp_path / "identities" / name / "wanted.json" for name in ("device", "signing")]
    paths[1].write_bytes(paths[0].read_bytes())

    assert read(paths[0]) == VALUES
    with pytest.raises(StateDamaged):
        read(paths[1])


def test_a_state_directory_may_move(tmp_path: Path) -> None:
    (tmp_path / "one" / "identities" / "device").mkdir(parents=True)
    write_record(tmp_path / "one" / "identities" / "device" / "wanted.json", VALUES, FILES)
    write_record(tmp_path / "one" / "release.json", VALUES, FILES)
    (tmp_path / "one").rename(tmp_path / "another")

    for name in ("identities/device/wanted.json", "release.json"):
        assert read(tmp_path / "another" / name) == VALUES


# --- files without a place for a checksum


def test_kept_certificates_are_read_by_other_programs_and_noticed_when_they_are_changed(tmp_path: Path) -> None:
    path = tmp_path / "anchors.pem"
    write_kept(path, [CA.certificate], FILES, 0o640)
    whole = path.read_bytes()
    assert whole.endswith(pem([CA.certificate]))
    assert read_kept(path, FILES) == (CA.certificate,)

    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(StateDamaged):
            read_kept(path, FILES)
    path.write_bytes(whole.replace(b"scanseal-format 1", b"scanseal-format 2"))
    with pytest.raises(StateTooNew):
        read_kept(path, FILES)


def test_kept_certificates_of_another_ca_are_not_taken_for_those_of_this_one(tmp_path: Path) -> None:
    """R9: two of the files of `anchors` exchanged. What scanseal 0.1.0 has written says nothing of its place."""
    est, cmp = tmp_path / "est-0a.pem", tmp_path / "cmp-1b.pem"
    write_kept(est, [CA.certificate], FILES, 0o640)
    cmp.write_bytes(est.read_bytes())
    cmp.chmod(0o640)
    with pytest.raises(StateDamaged):
        read_kept(cmp, FILES)

    data = pem([CA.certificate])
    cmp.write_bytes(f"scanseal-format 1 sha256 {sha256_of(data)}\n".encode() + data)
    assert read_kept(cmp, FILES) == (CA.certificate,)


def test_what_a_ca_issued_is_bound_to_its_request(tmp_path: Path) -> None:
    request = PendingRequest(Step.SENT, "signing-0123456789abcdef", "software:signing-0123456789abcdef", "{}", NOW)
    others = Journal(tmp_path / "others", FILES), Journal(tmp_path / "ours", FILES)
    for journal, count in zip(others, (1, 2), strict=True):
        journal.write_issued(journal.write(request), [CA.certificate] * count, [CA.certificate] * count)
        assert journal.read_issued() == ((CA.certificate,) * count, (CA.certificate,) * count)

    for name in ("issued.pem", "intermediates.pem"):
        path = tmp_path / "ours" / name
        before = path.read_bytes()
        for content in ((tmp_path / "others" / name).read_bytes(), b"", None):
            path.unlink()
            if content is not None:
                path.write_bytes(content)
            with pytest.raises(StateDamaged):
                others[1].read_issued()
        path.write_bytes(before)
    assert len(values_of(tmp_path / "ours" / "request.json")["issued_sha256"]) == 64


# --- the disk, and who else may write


@pytest.mark.parametrize("number", ["ENOSPC", "EDQUOT", "EIO", "EROFS", "EMFILE", "ENFILE"])
def test_a_disk_that_refuses_is_not_called_damage(record: Path, monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(getattr(errno, number), "no")

    calls: list[Callable[[], object]] = [lambda: read(record), lambda: write_record(record, VALUES, FILES)]
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        for call in calls:
            with pytest.raises(DiskRefused) as refused:
                call()
            assert refused.value.code == "disk-refused"

    assert read(record) == VALUES


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
def test_a_file_that_others_may_write_is_not_used(record: Path, mode: int) -> None:
    record.chmod(mode)

    with pytest.raises(StateUnsafe, match="may be written by other users") as refused:
        read(record)
    assert refused.value.code == "state-unsafe"


def test_a_directory_that_others_may_write_makes_what_is_in_it_unsafe(record: Path) -> None:
    record.parent.chmod(0o770)

    with pytest.raises(StateUnsafe):
        read(record)


@needs_root
def test_a_file_of_another_user_is_not_used(record: Path) -> None:
    os.chown(record, 12345, -1)

    with pytest.raises(StateUnsafe, match="belongs to #12345"):
        read(record)


@needs_root
def test_root_reads_what_belongs_to_the_service(tmp_path: Path) -> None:
    record = tmp_path / "scanseal" / "state" / "record.json"
    record.parent.mkdir(parents=True)
    write_record(record, VALUES, FILES)
    for path in (record.parent.parent, record.parent, record):
        os.chown(path, 12345, -1)

    assert read(record) == VALUES


def test_a_second_hard_link_is_no_harm(record: Path, tmp_path: Path) -> None:
    """Backups are made so; nobody else may write the file by it."""
    (tmp_path / "backup.json").hardlink_to(record)

    assert read(record) == VALUES


def test_a_missing_state_file_is_damage_and_one_that_an_operator_names_is_not(tmp_path: Path) -> None:
    with pytest.raises(StateDamaged):
        FILES.read(tmp_path / "missing")
    with pytest.raises(StateError) as missing:
        FILES.read(tmp_path / "missing", follow=True)
    assert not isinstance(missing.value, StateDamaged)
