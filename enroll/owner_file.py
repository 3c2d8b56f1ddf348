"""The file with the record of the owner: who may change it, and what is made of it where it is missing.

It is written before the first generation of any identity is put into use, and never removed. So a record that is
missing where there ever was a generation has been lost, as one that is damaged; then nothing is signed and nothing is
enrolled until a person has looked, because a scanner that was disabled must not come back by losing a file.

Whether something may be done at all says the table in `enroll.device_state`, which is asked here for whoever signs,
enrolls or changes the record.

Whoever changes the record holds its lock meanwhile: an enrollment that has just come to its end, and a person who
disables the scanner at that moment, must not overwrite each other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from enroll.device_state import DeviceEvent, DeviceFacts, refusal
from enroll.errors import DeviceNeedsService, StateDamaged, StateError
from enroll.foreign import printable
from enroll.owner_record import RESET, OwnerDecision, OwnerRecord, read_owner_record, write_owner_record
from enroll.statefile import GROUP_DIRECTORY, StateFiles

Told = Callable[[Collection[OwnerDecision]], bool]  # hears of decisions; whether the audit trail says so now


class OwnerFile:
    """The record of one scanner.

    Args:
        root: The state directory.
        files: Reads and writes there.
        vendors: The names of the identities that are not the owner's.
    """

    def __init__(self, root: Path, files: StateFiles, vendors: Collection[str]) -> None:
        self._root = root
        self._path = root / "owner.json"
        self._files = files
        self._vendors = vendors

    def mark(self) -> tuple[int, ...] | None:
        """What differs whenever the record has changed; None where there is none. Cheap: for noticing a change.

        Raises:
            StateError: That cannot be found out.
        """
        return self._files.mark(self._path)

    def read(self) -> OwnerRecord | None:
        """What it says; None of a scanner that has never had a certificate.

        Raises:
            DeviceNeedsService: It is damaged, or missing although there were generations; or it knows of no owner, and
                an identity of one is in use.
            StateTooNew: A newer scanseal wrote it.
            StateUnreadable: Not for the user who runs this.
            StateError: It cannot be read now.
        """
        if not self._files.exists(self._path):
            if self._has_generations():
                raise _lost(f"{self._path} is missing, and this scanner has had certificates.")
            return None
        try:
            record = read_owner_record(self._path, self._files)
        except StateDamaged as error:
            raise _lost(error.what) from error
        if not record.is_owned and self.owners_in_use():
            raise _lost(f"{self._path} knows of no owner, and certificates of one are in use.")
        return record

    def check_allowed(self, event: DeviceEvent) -> None:
        """Whether something may be done now, by the table of the states.

        Raises:
            DeviceDisabled: The owner has disabled the scanner.
            StateError: The owner is giving it up; or as `read`, where the record has a say.
        """
        self._ask(event, is_releasing=self._files.exists(self.release_record))

    @property
    def release_record(self) -> Path:
        """What is there while the owner gives the scanner up; see `enroll.owner_release`."""
        return self._root / "release.json"

    def take_over(self, identity: str, now: datetime) -> None:
        """Write down whose the scanner is, before a generation of an identity is put into use.

        Raises:
            DeviceDisabled: The owner has disabled it meanwhile.
            StateError: The disk refused; or as `read`.
        """
        with self._locked():
            record = self._ask(DeviceEvent.ENROLL).record
            is_owners = identity not in self._vendors
            if record is None or (is_owners and not record.is_owned):
                untold = record.untold if record else ()
                self._write(OwnerRecord(is_owners, is_disabled=False, since=now, untold=untold))

    def disable(self, by: int, reason: str, now: datetime) -> OwnerRecord:
        """Have nothing signed and nothing enrolled from now on. What was damaged is written anew: that allows nothing.

        Args:
            by: Number of the user who asks for it.
            reason: Why; shortened to one line.
            now: The time.

        Returns:
            What is written now. Where it was disabled already, nothing changes but the reason.

        Raises:
            StateTooNew: A newer scanseal wrote the record.
            StateError: The disk refused; nothing has changed.
        """
        with self._locked():
            before = self._ask(DeviceEvent.DISABLE).record
            again = before is not None and before.is_disabled
            if before is not None and again and not reason:
                return before
            is_owned = before.is_owned if before else self.owners_in_use()
            since = before.since if before and again else now
            record = OwnerRecord(is_owned, is_disabled=True, since=since, by=str(by), reason=_line(reason))
            record = record.after(before)
            self._write(record)
            return record

    def enable(self, by: int, now: datetime, told: Told, *, reset: bool = False) -> bool:
        """Let the scanner sign and enroll again.

        Args:
            by: Number of the user who asks for it.
            now: The time.
            told: Hears what will be written, before it is. If it fails, nothing is.
            reset: Whether to write a record anew that is damaged or missing: nobody knows then what it said.

        Returns:
            Whether there was anything to change.

        Raises:
            DeviceNeedsService: It is damaged or missing, and not to be written anew.
            StateTooNew: A newer scanseal wrote it.
            StateError: The disk refused; nothing has changed.
        """
        with self._locked():
            found = self._ask(DeviceEvent.RESET if reset else DeviceEvent.ENABLE)
            before = found.record
            if found.record_problem is not None:
                is_owned, reason = self.owners_in_use(), "its record was written anew"
            elif before is None or not before.is_disabled:
                return False
            else:
                is_owned, reason = before.is_owned, ""
            record = OwnerRecord(is_owned, is_disabled=False, since=now, by=str(by), reason=reason).after(before)
            self._write(replace(record, untold=()) if told(record.untold) else record)
            return True

    def forget(self, told: Collection[OwnerDecision]) -> None:
        """Keep no longer what the audit trail says now.

        Raises:
            StateTooNew: A newer scanseal wrote the record.
            StateError: The disk refused; nothing has changed.
        """
        with self._locked():
            try:
                record = self.read()
            except StateDamaged:
                return
            if record is None:
                return
            untold = tuple(decision for decision in record.untold if decision not in told)
            if untold != record.untold:
                self._write(replace(record, untold=untold))

    def release(self, now: datetime) -> None:
        """Write down that nobody owns the scanner any more, after everything of its owner is gone, also the disabling.

        Raises:
            StateTooNew: A newer scanseal wrote the record.
            StateError: The disk refused.
        """
        with self._locked():
            before = self._ask(DeviceEvent.RELEASE).record
            untold = before.untold if before else ()
            self._write(OwnerRecord(is_owned=False, is_disabled=False, since=now, untold=untold))

    def owners_in_use(self) -> bool:
        """Whether an identity of an owner is in use.

        Raises:
            StateError: The identity directory cannot be read.
        """
        identities = self._root / "identities"
        return any(
            self._files.exists(identities / name / "current")
            for name in self._files.names(identities)
            if name not in self._vendors
        )

    def _has_generations(self) -> bool:
        """Whether there ever was a generation, be it of the vendor: of one that was wiped the number stays."""
        identities = self._root / "identities"
        return any(self._files.names(identities / name / "generations") for name in self._files.names(identities))

    def _ask(self, event: DeviceEvent, *, is_releasing: bool = False) -> DeviceFacts:
        """What is known of the owner, where that lets something be done."""
        try:
            facts = DeviceFacts(record=self.read(), is_releasing=is_releasing)
        except StateError as error:
            facts = DeviceFacts(record_problem=error, is_releasing=is_releasing)
        if (refused := refusal(facts, event)) is not None:
            raise refused
        return facts

    def _write(self, record: OwnerRecord) -> None:
        write_owner_record(record, self._path, self._files)

    def _locked(self) -> AbstractContextManager[None]:
        self._files.make_directory(self._root, GROUP_DIRECTORY)
        return self._files.locked(self._root / "owner.lock", None)


def _line(reason: str) -> str:
    return printable(" ".join(reason.split()))


def _lost(what: str) -> DeviceNeedsService:
    return DeviceNeedsService(
        f"{what} Nobody knows any more whether its owner has disabled this scanner.",
        remedy=f"Find out why, and ask its owner. Then run: {RESET}",
    )
