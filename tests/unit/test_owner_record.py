"""The record of the owner: written before the first certificate, never forgotten, never lost in silence (R15)."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from enroll.enroller import asked_for
from enroll.errors import DeviceDisabled, DeviceNeedsService, DiskRefused, StateTooNew
from enroll.flows.base import Issued
from enroll.flows.settings import FlowName
from enroll.identity import Generation, IdentityName
from enroll.journal import Step
from enroll.owner_file import OwnerFile
from enroll.owner_record import OwnerRecord
from enroll.owner_release import OwnerRelease
from enroll.record import FORMAT, write_record
from enroll.statefile import StateFiles
from tests.support.enrolling import CaFlow, Scanner, settings
from tests.support.pki import NOW, Content, HospitalCa

CA = HospitalCa()
DEVICE, SIGNING, VENDOR = IdentityName.DEVICE, IdentityName.SIGNING, IdentityName.VENDOR


@pytest.fixture
def scanner(tmp_path: Path) -> Scanner:
    return Scanner(settings(tmp_path), (CA.certificate,))


def enroll(scanner: Scanner, name: IdentityName = SIGNING) -> Generation:
    issued = scanner.issue(CaFlow(CA, scanner.clock), name)
    assert isinstance(issued, Generation)
    return issued


def record_of(scanner: Scanner) -> OwnerRecord | None:
    """As another process reads it, without what the audit trail has yet to say."""
    found = scanner.restarted().identities.owner_file.read()
    return found and replace(found, untold=())


def path_of(scanner: Scanner) -> Path:
    return scanner.settings.state_directory / "owner.json"


def enable(scanner: Scanner, *, reset: bool = False) -> bool:
    return scanner.identities.owner_file.enable(7, NOW, lambda _: False, reset=reset)


# --- whose it is


def test_a_scanner_that_nobody_has_enrolled_has_no_record_and_misses_none(scanner: Scanner) -> None:
    assert record_of(scanner) is None


def test_the_record_is_there_before_the_first_generation_is_in_use(
    scanner: Scanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut between the two leaves a record without a generation, and never the reverse."""
    seen: list[bool] = []
    point = StateFiles.point

    def looked_at(files: StateFiles, link: Path, target: str) -> None:
        seen.append(path_of(scanner).exists())
        point(files, link, target)

    monkeypatch.setattr(StateFiles, "point", looked_at)
    enroll(scanner)

    assert seen == [True]
    assert record_of(scanner) == OwnerRecord(is_owned=True, is_disabled=False, since=NOW)


def test_what_the_vendor_gives_makes_no_owner(scanner: Scanner) -> None:
    enroll(scanner, VENDOR)
    assert record_of(scanner) == OwnerRecord(is_owned=False, is_disabled=False, since=NOW)

    enroll(scanner, DEVICE)

    assert record_of(scanner) == OwnerRecord(is_owned=True, is_disabled=False, since=NOW)


def test_a_release_leaves_a_scanner_that_nobody_owns_and_that_is_not_disabled(scanner: Scanner) -> None:
    """The disabling was the word of the owner that goes; the next one does not even know of it (ADR 37)."""
    enroll(scanner)
    scanner.identities.owner_file.disable(0, "sold", NOW)

    OwnerRelease(scanner.context).run()

    assert record_of(scanner) == OwnerRecord(is_owned=False, is_disabled=False, since=NOW)
    enroll(scanner)
    assert record_of(scanner) == OwnerRecord(is_owned=True, is_disabled=False, since=NOW)


# --- disabled


def test_a_disabled_scanner_enrolls_nothing_and_goes_on_where_it_was(scanner: Scanner) -> None:
    enroll(scanner)
    written = scanner.identities.owner_file.disable(1000, "  lent\nto others\x1b ", NOW)

    assert record_of(scanner) == replace(written, untold=())
    assert record_of(scanner) == OwnerRecord(
        is_owned=True, is_disabled=True, since=NOW, by="1000", reason="lent to others"
    )
    with pytest.raises(DeviceDisabled, match="lent to others"):
        enroll(scanner)
    with (
        pytest.raises(DeviceDisabled) as refused,
        asked_for((DEVICE,), FlowName.EST, scanner.identities, scanner.clock),
    ):
        pass
    assert refused.value.who_must_act == "owner of the scanner"
    assert scanner.identities.wanted(DEVICE).read() is None

    assert enable(scanner)

    assert enroll(scanner).number == 2
    assert not enable(scanner)


def test_a_certificate_that_comes_for_a_scanner_disabled_meanwhile_waits_for_its_owner(scanner: Scanner) -> None:
    enroll(scanner)

    def answer(asked: object) -> Issued:
        scanner.identities.owner_file.disable(0, "", NOW)
        return Issued((CA.issue(asked.public_key, Content.asked(asked.request, NOW)),))  # type: ignore[attr-defined]

    with pytest.raises(DeviceDisabled):
        scanner.issue(CaFlow(CA, scanner.clock, answer=answer), SIGNING)
    current = scanner.matching_pair()
    assert current is not None
    assert current.number == 1
    pending = scanner.identities.journal(SIGNING).read()
    assert pending is not None
    assert pending.step is Step.VERIFIED

    enable(scanner)
    unasked = CaFlow(CA, scanner.clock)
    assert scanner.issue(unasked, SIGNING).number == 2  # type: ignore[union-attr]
    assert unasked.asked == []


def test_to_disable_again_keeps_since_when_and_takes_a_new_reason(scanner: Scanner) -> None:
    enroll(scanner)
    owner_file = scanner.identities.owner_file
    first = owner_file.disable(0, "lent", NOW)
    scanner.clock.sleep(3600)

    assert owner_file.disable(1, "", scanner.clock.now()) == first
    again = owner_file.disable(1, "stolen", scanner.clock.now())
    assert (again.since, again.by, again.reason) == (NOW, "1", "stolen")


def test_giving_a_certificate_up_is_possible_on_a_disabled_scanner(scanner: Scanner) -> None:
    scanner.identities.owner_file.disable(0, "", NOW)

    with scanner.identities.kept_lock():
        pass
    with pytest.raises(DeviceDisabled), scanner.identities.lock():
        pass


def test_a_disabling_is_not_lost_between_the_steps_of_an_enrollment(scanner: Scanner) -> None:
    """Both write the record: who reads it, and writes it after another has, must have waited for the other."""
    enroll(scanner, VENDOR)
    root = scanner.settings.state_directory
    reading, disabled = threading.Event(), threading.Event()

    class Slow(StateFiles):
        def read(self, path: Path, limit: int = 1 << 20, *, follow: bool = False) -> bytes:
            data = super().read(path, limit, follow=follow)
            if path.name == "owner.json" and not reading.is_set():
                reading.set()
                disabled.wait(0.3)  # where nothing keeps the other out, it is done by then
            return data

    def take_over() -> None:
        OwnerFile(root, Slow(), {VENDOR}).take_over(SIGNING, NOW)

    enrollment = threading.Thread(target=take_over)
    enrollment.start()
    assert reading.wait(10)
    scanner.identities.owner_file.disable(0, "", NOW)
    disabled.set()
    enrollment.join()

    assert record_of(scanner) == OwnerRecord(is_owned=True, is_disabled=True, since=NOW, by="0")


# --- lost


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"yes"', b'"no"').replace(b'"owned"', b'"unowned"'))


def linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere.json"))
    path.symlink_to("elsewhere.json")


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [Path.unlink, emptied, flipped, linked, a_directory], ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("disabled", [False, True], ids=["enabled", "disabled"])
def test_a_lost_record_lets_nothing_through_until_a_person_resets_it(
    scanner: Scanner, harm: object, *, disabled: bool
) -> None:
    enroll(scanner)
    if disabled:
        scanner.identities.owner_file.disable(0, "", NOW)
    harm(path_of(scanner))  # type: ignore[operator]

    with pytest.raises(DeviceNeedsService, match="--reset-record"):
        record_of(scanner)
    with pytest.raises(DeviceNeedsService):
        enroll(scanner)
    with pytest.raises(DeviceNeedsService):
        enable(scanner)

    if harm is a_directory:
        path_of(scanner).rmdir()  # what it is, only a person can say
    assert enable(scanner, reset=True)
    assert record_of(scanner) == OwnerRecord(
        is_owned=True, is_disabled=False, since=NOW, by="7", reason="its record was written anew"
    )
    assert enroll(scanner).number == 2


def test_a_record_that_knows_of_no_owner_while_one_is_in_use_is_an_old_copy(scanner: Scanner) -> None:
    enroll(scanner, VENDOR)
    before = path_of(scanner).read_bytes()
    enroll(scanner, SIGNING)
    path_of(scanner).write_bytes(before)

    with pytest.raises(DeviceNeedsService, match="knows of no owner"):
        record_of(scanner)


def test_a_lost_record_can_be_disabled_because_that_allows_nothing(scanner: Scanner) -> None:
    enroll(scanner)
    path_of(scanner).unlink()

    scanner.identities.owner_file.disable(0, "stolen", NOW)

    assert record_of(scanner) == OwnerRecord(is_owned=True, is_disabled=True, since=NOW, by="0", reason="stolen")


def test_a_record_of_a_newer_scanseal_is_left_as_it_is(scanner: Scanner, monkeypatch: pytest.MonkeyPatch) -> None:
    enroll(scanner)
    with monkeypatch.context() as newer:
        newer.setattr("enroll.record.FORMAT", FORMAT + 1)
        write_record(path_of(scanner), {"ownership": "rented"}, StateFiles())
    before = path_of(scanner).read_bytes()
    owner_file = scanner.identities.owner_file

    for change in (
        lambda: enroll(scanner),
        lambda: enable(scanner, reset=True),
        lambda: owner_file.disable(0, "", NOW),
        lambda: OwnerRelease(scanner.context).run(),
    ):
        with pytest.raises(StateTooNew):
            change()
        assert path_of(scanner).read_bytes() == before


def test_what_is_told_first_and_fails_keeps_the_scanner_disabled(scanner: Scanner) -> None:
    """The audit trail says who has enabled it, or it stays as it is."""
    enroll(scanner)
    scanner.identities.owner_file.disable(0, "", NOW)

    def refuse(_: object) -> bool:
        raise DiskRefused("The disk is full.")

    with pytest.raises(DiskRefused):
        scanner.identities.owner_file.enable(0, NOW, refuse)
    with pytest.raises(DeviceDisabled):
        enroll(scanner)


# --- what people have decided, until the audit trail says so


def untold(scanner: Scanner) -> list[tuple[str, str]]:
    found = scanner.restarted().identities.owner_file.read()
    assert found is not None
    return [(decision.event, decision.reason) for decision in found.untold]


def test_a_decision_stays_in_the_record_until_it_is_told(scanner: Scanner) -> None:
    owner_file = scanner.identities.owner_file
    enroll(scanner)
    told = owner_file.disable(7, "lent", NOW).untold
    enable(scanner)
    assert untold(scanner) == [("device-disabled", "lent"), ("device-enabled", "")]

    owner_file.forget(told)
    enroll(scanner, DEVICE)
    assert untold(scanner) == [("device-enabled", "")]
    OwnerRelease(scanner.context).run()
    enroll(scanner)
    assert untold(scanner) == [("device-enabled", "")]
    owner_file.disable(7, "stolen", NOW)
    assert owner_file.enable(7, NOW, lambda decisions: len(decisions) == 3)
    assert untold(scanner) == []


def test_a_record_has_room_for_every_decision_that_it_keeps(scanner: Scanner) -> None:
    """Of a trail that cannot be written for long, the last ones; and a record too long could not be read."""
    enroll(scanner)
    reasons = [chr(0x1F600 + number) * 300 for number in range(9)]
    for reason in reasons:
        scanner.identities.owner_file.disable(4294967295, reason, NOW)

    assert [reason[0] for _, reason in untold(scanner)] == [reason[0] for reason in reasons[-4:]]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[["device-enabled"]]', '[["device-enabled", "7", "", 1]]'])
def test_decisions_that_are_none_are_damage(scanner: Scanner, text: str) -> None:
    enroll(scanner)
    record = record_of(scanner)
    assert record is not None
    values = {"ownership": "owned", "disabled": "no", "since": NOW.isoformat(), "by": "", "reason": ""}
    write_record(path_of(scanner), {**values, "untold": text}, scanner.context.files)

    with pytest.raises(DeviceNeedsService):
        record_of(scanner)
