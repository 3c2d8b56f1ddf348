"""What the owner has decided about the scanner: whose it is, and whether it may sign.

    owner.json    ownership: unowned | owned, disabled: yes | no, since when, by which user, for which reason;
                  untold: what people have decided, as long as the audit trail does not say so

It is written before the first generation of any identity is put into use, and never removed. So a record that is
missing where there ever was a generation has been lost, as one that is damaged; then nothing is signed and nothing is
enrolled until a person has looked, because a scanner that was disabled must not come back by losing a file. What to
make of it all is in `enroll.device_state`.

Whoever changes the record holds its lock meanwhile: an enrollment that has just come to its end, and a person who
disables the scanner at that moment, must not overwrite each other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass, replace
from datetime import datetime
from pathlib import Path

from enroll.errors import DeviceDisabled, DeviceNeedsService, StateDamaged
from enroll.foreign import printable
from enroll.record import damaged, read_record, read_time, write_record
from enroll.statefile import GROUP_DIRECTORY, StateFiles

ENABLE = "scanseal owner enable"
RESET = f"{ENABLE} --reset-record"
DEVICE_ENABLED = "device-enabled"  # in the audit trail; the reverse of `DeviceDisabled.code`

_FILE_NAME = "owner.json"
_FILE_MODE = 0o640
_FIELDS = ("ownership", "disabled", "since", "by", "reason", "untold")
_DECISION_SIZE = 4  # of the members of one
_UNTOLD_LIMIT = 4  # decisions, for which a record has room; of more the oldest are forgotten
_OWNERSHIP = {"unowned": False, "owned": True}
_DISABLED = {"no": False, "yes": True}


@dataclass(frozen=True)
class OwnerDecision:
    """What a person has decided, as the audit trail says it.

    Args:
        event: `device-disabled` or `device-enabled`.
        uid: Number of that user.
        since: Since when that holds, in ISO 8601.
        reason: Why.
    """

    event: str
    uid: str
    since: str
    reason: str

    def fields(self) -> dict[str, str]:
        """The particulars."""
        return {"uid": self.uid, "since": self.since, "reason": self.reason}


Told = Callable[[Collection[OwnerDecision]], bool]  # hears of decisions; whether the audit trail says so now


@dataclass(frozen=True)
class OwnerRecord:
    """What the record says.

    Args:
        is_owned: Whether an owner has taken the scanner over, and not released it.
        is_disabled: Whether the owner has disabled it.
        since: When that was written.
        by: Number of the user who wrote it; empty where it came with an enrollment or a release.
        reason: Why it is disabled, in the words of whoever did that; or that the record was lost.
        untold: What people have decided and the audit trail may not say yet.
    """

    is_owned: bool
    is_disabled: bool
    since: datetime
    by: str = ""
    reason: str = ""
    untold: tuple[OwnerDecision, ...] = ()

    @property
    def decision(self) -> OwnerDecision:
        """What was decided last, if a person has."""
        event = DeviceDisabled.code if self.is_disabled else DEVICE_ENABLED
        return OwnerDecision(event, self.by, self.since.isoformat(), self.reason)

    def after(self, before: OwnerRecord | None) -> OwnerRecord:
        """The same, where it is what a person has decided after a record that there was."""
        untold = before.untold if before else ()
        return replace(self, untold=(*untold, self.decision)[-_UNTOLD_LIMIT:])


class OwnerFile:
    """The record of one scanner.

    Args:
        root: The state directory.
        files: Reads and writes there.
        vendors: The names of the identities that are not the owner's.
    """

    def __init__(self, root: Path, files: StateFiles, vendors: Collection[str]) -> None:
        self._root = root
        self._path = root / _FILE_NAME
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
            record = self._read()
        except StateDamaged as error:
            raise _lost(error.what) from error
        if not record.is_owned and self.owners_in_use():
            raise _lost(f"{self._path} knows of no owner, and certificates of one are in use.")
        return record

    def check_may_enroll(self) -> None:
        """Whether the owner wants this scanner to have certificates.

        Raises:
            DeviceDisabled: The owner has disabled it.
            StateError: As `read`.
        """
        check_enabled(self.read())

    def take_over(self, identity: str, now: datetime) -> None:
        """Write down whose the scanner is, before a generation of an identity is put into use.

        Raises:
            DeviceDisabled: The owner has disabled it meanwhile.
            StateError: The disk refused; or as `read`.
        """
        with self._locked():
            record = self.read()
            check_enabled(record)
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
            before = self._known()
            again = before is not None and before.is_disabled
            if before is not None and again and not reason:
                return before
            is_owned = before.is_owned if before else self.owners_in_use()
            since = before.since if before and again else now
            record = OwnerRecord(is_owned, is_disabled=True, since=since, by=str(by), reason=_line(reason))
            return self._write(record.after(before))

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
            try:
                before = self.read()
                if before is None or not before.is_disabled:
                    return False
                is_owned, reason = before.is_owned, ""
            except StateDamaged:
                if not reset:
                    raise
                before, is_owned, reason = None, self.owners_in_use(), "its record was written anew"
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
            record = self._known()
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
            before = self._known()  # one of a newer scanseal stays
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

    def _known(self) -> OwnerRecord | None:
        """What the record says; None where it says nothing that could be believed."""
        try:
            return self.read()
        except StateDamaged:
            return None

    def _read(self) -> OwnerRecord:
        values = read_record(self._path, _FIELDS, self._files)
        if values["ownership"] not in _OWNERSHIP or values["disabled"] not in _DISABLED:
            raise damaged(self._path)
        return OwnerRecord(
            is_owned=_OWNERSHIP[values["ownership"]],
            is_disabled=_DISABLED[values["disabled"]],
            since=read_time(values["since"], self._path),
            by=values["by"],
            reason=values["reason"],
            untold=self._read_decisions(values["untold"]),
        )

    def _read_decisions(self, text: str) -> tuple[OwnerDecision, ...]:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise damaged(self._path) from error
        if not isinstance(found, list) or not all(_is_decision(each) for each in found):
            raise damaged(self._path)
        return tuple(OwnerDecision(*each) for each in found)

    def _write(self, record: OwnerRecord) -> OwnerRecord:
        values = {
            "ownership": _word(record.is_owned, _OWNERSHIP),
            "disabled": _word(record.is_disabled, _DISABLED),
            "since": record.since.isoformat(),
            "by": record.by,
            "reason": record.reason,
            "untold": json.dumps([astuple(decision) for decision in record.untold]),
        }
        write_record(self._path, values, self._files, _FILE_MODE)
        return record

    def _locked(self) -> AbstractContextManager[None]:
        self._files.make_directory(self._root, GROUP_DIRECTORY)
        return self._files.locked(self._root / "owner.lock", None)


def check_enabled(record: OwnerRecord | None) -> None:
    """Whether the owner has not disabled the scanner.

    Raises:
        DeviceDisabled: The owner has.
    """
    if record is not None and record.is_disabled:
        raise DeviceDisabled(
            f"The owner has disabled this scanner on {record.since:%Y-%m-%d %H:%M} UTC{_because(record)}.",
            remedy=f"Its owner may run: {ENABLE}",
        )


def _is_decision(found: object) -> bool:
    if not isinstance(found, list) or len(found) != _DECISION_SIZE:
        return False
    return all(isinstance(member, str) for member in found)


def _because(record: OwnerRecord) -> str:
    return f" ({record.reason})" if record.reason else ""


def _line(reason: str) -> str:
    return printable(" ".join(reason.split()))


def _lost(what: str) -> DeviceNeedsService:
    return DeviceNeedsService(
        f"{what} Nobody knows any more whether its owner has disabled this scanner.",
        remedy=f"Find out why, and ask its owner. Then run: {RESET}",
    )


def _word(value: bool, words: Mapping[str, bool]) -> str:  # noqa: FBT001 - the value of a record
    return next(word for word, meaning in words.items() if meaning is value)
