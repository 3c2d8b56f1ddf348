"""The identity directory: every certificate this scanner ever had, and which one is in use.

    identities/<name>/generations/<NNNN>/                  one of them, see `enroll.generation_files`
    identities/<name>/current -> generations/<NNNN>        one atomic rename decides
    identities/<name>/newest.json                          its number, so that a lost or older `current` is noticed
    identities/<name>/revoked/<NNNN>.json                  see `enroll.generation_use`
    identities/<name>/wanted.json                          it was asked for and never came, see `enroll.wanted`
    identities/<name>/pending/                             a request under way, see `enroll.journal` and `enroll.offer`

A generation is written completely before `current` leads to it and never changed afterwards, so a reader needs no
lock and sees one matching pair at any time. Numbers are never used twice: when an owner gives the scanner up, the
directory of its last generation stays, empty (`enroll.owner_release`).
Where the generation in use is damaged, the one before it is, whose key is still kept. Where that is damaged, too, or
`current` is, or what is damaged was revoked, nothing is in use until a person enrolls
([ADR 34](../docs/adr/0034-state-records.md)).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from cryptography import x509

from enroll.device_state import DeviceEvent
from enroll.errors import EnrollerBusy, StateDamaged
from enroll.generation import VENDORS_IDENTITIES, Generation, IdentityName
from enroll.generation_files import (
    KEY,
    GenerationContent,
    read_before,
    read_certificate,
    read_generation,
    read_key_uri,
    write_generation,
)
from enroll.generation_use import Newest, read_newest, revoked_file, settle
from enroll.journal import Journal
from enroll.keystore.base import Protection
from enroll.offer import FILE_NAME as OFFER_FILE_NAME
from enroll.offer import Offer, read_offer
from enroll.owner_file import OwnerFile
from enroll.record import damaged
from enroll.statefile import GROUP_DIRECTORY, StateFiles
from enroll.trust import VerifiedCertificate
from enroll.wanted import Wanted

__all__ = ["VENDORS_IDENTITIES", "Generation", "IdentityName", "IdentityStore"]

_POINTER = re.compile(r"generations/([0-9]{4,9})")
_FILE_MODE = 0o640
_STAY = frozenset({"generations", "pending"})  # the numbers, and where the keyholder writes
_LOG = logging.getLogger(__name__)


class IdentityStore:
    """The identities of one scanner.

    Args:
        root: The state directory.
        files: Reads and writes below it.
    """

    def __init__(self, root: Path, files: StateFiles) -> None:
        self._root = root
        self._files = files

    @property
    def root(self) -> Path:
        """The state directory."""
        return self._root

    @property
    def files(self) -> StateFiles:
        """Reads and writes below it."""
        return self._files

    @property
    def owner_file(self) -> OwnerFile:
        """Whose the scanner is, and whether it may sign."""
        return OwnerFile(self._root, self._files, VENDORS_IDENTITIES)

    def directory(self, name: IdentityName) -> Path:
        """Where everything about an identity lies."""
        return self._root / "identities" / name

    def chain_file(self, generation: Generation) -> Path:
        """The PEM file with the certificate and its intermediates."""
        return self._generation_directory(generation.identity, generation.number) / "chain.pem"

    def pointer(self, name: IdentityName) -> str | None:
        """What `current` leads to; None where there is no identity yet. Cheap: for noticing a change.

        Raises:
            StateUnreadable: Not for the user who runs this.
            StateDamaged: `current` is not a link to a generation.
            StateError: It cannot be read.
        """
        path = self.directory(name) / "current"
        target = self._files.target(path)
        if target is not None and not _POINTER.fullmatch(target):
            raise damaged(path)
        return target

    def current(self, name: IdentityName) -> Generation | None:
        """The generation in use, or the one before where it is damaged; None where there is none yet.

        Raises:
            StateDamaged: There is one, and it is damaged, as is the one before, or revoked, too; or `current` is lost.
            StateTooNew: A newer scanseal wrote it.
            StateError: It cannot be read.
        """
        number = self._in_use(name)
        if not number:
            return None
        try:
            return self._load(name, number)
        except StateDamaged as error:
            if self._files.exists(revoked_file(self.directory(name), number)):
                what = f"{error.what} Its certificate was revoked, so the generation before is not used either."
                raise StateDamaged(what, remedy="Find out why, and enroll again.") from error
            before = self._before(name, number)
            if before is None:
                raise
            return replace(before, damaged_newer=number)

    def readable(self, name: IdentityName) -> Generation | None:
        """The generation in use; None where there is none, or only damage: enrolling again is the way out of it.

        Raises:
            StateUnreadable: Not for the user who runs this.
            StateError: As `current`, but for damage.
        """
        try:
            return self.current(name)
        except StateDamaged as error:
            _LOG.warning("The identity %s cannot be read: %s", name, error.what)
            return None

    def generations(self, name: IdentityName) -> tuple[int, ...]:
        """The numbers of all generations, one that was never put into use included, and none that was wiped.

        Raises:
            StateError: The directory cannot be read.
        """
        numbers = self._numbers(name)
        return tuple(number for number in numbers if self._files.names(self._generation_directory(name, number)))

    def certificates(self) -> Iterator[x509.Certificate]:
        """Every certificate this scanner ever had; one that is damaged is left out.

        Raises:
            StateUnreadable: Not for the user who runs this.
        """
        for name in IdentityName:
            for number in self.generations(name):
                try:
                    yield read_certificate(self._generation_directory(name, number), self._files)
                except StateDamaged as error:
                    _LOG.warning("A certificate of generation %d of %s is lost: %s", number, name, error.what)

    def anchor(self, generation: Generation) -> x509.Certificate | None:
        """The CA certificate that a generation led to when it came; None where that was not kept.

        Raises:
            StateError: It is damaged.
        """
        directory = self._generation_directory(generation.identity, generation.number)
        return read_generation(directory, self._files).anchor

    def key_uri(self, name: IdentityName, number: int) -> str:
        """The name of the key of one generation.

        Raises:
            StateError: There is no such generation, or it is damaged.
        """
        return read_key_uri(self._generation_directory(name, number), self._files)

    def number_before(self, name: IdentityName, number: int) -> int | None:
        """Which generation was in use before one; 0 where none was, None where nobody knows any more."""
        before = read_before(self._generation_directory(name, number), self._files)
        newest = read_newest(self.directory(name), self._files)
        return newest.before if before is None and newest.number == number else before

    def journal(self, name: IdentityName) -> Journal:
        """The journal of a request under way."""
        return Journal(self.directory(name) / "pending", self._files)

    def wanted(self, name: IdentityName) -> Wanted:
        """The wish for a first certificate."""
        return Wanted(self.directory(name), self._files)

    def requests_by_hand(self, name: IdentityName) -> tuple[str, ...]:
        """The names of the journals of requests that are sent by hand.

        Raises:
            StateError: The directory cannot be read.
        """
        return tuple(sorted(self._files.names(self.directory(name) / "offline")))

    def journal_by_hand(self, name: IdentityName, request: str) -> Journal:
        """The journal of a request that is sent by hand; there may be several at a time."""
        return Journal(self.directory(name) / "offline" / request, self._files)

    def offer(self, name: IdentityName) -> Offer | None:
        """What the keyholder offers; None where there is nothing.

        Raises:
            StateError: It is damaged; see `read_offer`.
        """
        return read_offer(self.directory(name) / "pending", self._files)

    def commit(  # noqa: PLR0913 - everything a generation is made of
        self,
        name: IdentityName,
        verified: VerifiedCertificate,
        key_uri: str,
        *,
        protection: Protection,
        flow: str,
        now: datetime,
    ) -> Generation:
        """Write a new generation and put it into use. Before the last step nothing has changed for any reader.

        Raises:
            DeviceDisabled: The owner has disabled the scanner meanwhile; the generation before is still in use.
            StateError: The disk refused; likewise.
        """
        self.owner_file.take_over(name, now)
        number = max(self._numbers(name), default=0) + 1
        final, draft = self._generation_directory(name, number), self._draft(name)
        self._files.remove(draft)
        self._files.make_directory(draft, GROUP_DIRECTORY)
        in_use = self.readable(name)
        content = GenerationContent(
            certificate=verified.certificate,
            chain=verified.chain,
            anchor=verified.anchor,
            key_uri=key_uri,
            protection=protection,
            flow=flow,
            committed_at=now,
            before=in_use.number if in_use else 0,
        )
        write_generation(draft, content, self._files, final=final)
        self._files.rename(draft, final)
        generation = self._load(name, number)
        self._files.point(self.directory(name) / "current", f"generations/{final.name}")
        self.settle(generation)
        return generation

    def settle(self, generation: Generation) -> None:
        """Write down that a generation is in use; also after a run that was cut off before it could.

        Raises:
            StateError: The disk refused; the generation is in use nevertheless.
        """
        name, number = generation.identity, generation.number
        newest = Newest(number, self.number_before(name, number), generation.committed_at)
        settle(self.directory(name), newest, self._files, _FILE_MODE)

    def retract(self, name: IdentityName) -> None:
        """Have an identity not in use any more; its generations stay.

        Raises:
            StateError: The disk refused.
        """
        self._files.remove(self.directory(name) / "current")

    def wipe(self, name: IdentityName) -> None:
        """Forget everything about an identity whose keys are destroyed; after a crash it is simply done again.

        Raises:
            StateError: The disk refused.
        """
        self.retract(name)
        self._files.remove(self._draft(name))
        *before, last = self._numbers(name) or (0,)
        for number in (*before, last):
            generation = self._generation_directory(name, number)
            # The name of the key goes last: as long as anything is there, so is that.
            for entry in sorted(self._files.names(generation), key=lambda entry: entry == KEY):
                self._files.remove(generation / entry)
        for number in before:
            self._files.remove(self._generation_directory(name, number))
        self.journal(name).clear()
        self._files.remove(self.directory(name) / "pending" / OFFER_FILE_NAME)  # the keyholder offers again
        for entry in self._files.names(self.directory(name)):
            if entry not in _STAY:
                self._files.remove(self.directory(name) / entry)

    @property
    def release_record(self) -> Path:
        """What is there while the owner gives the scanner up; see `enroll.owner_release`."""
        return self.owner_file.release_record

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other enroller out; readers are not held up.

        Raises:
            EnrollerBusy: There is one at work.
            DeviceDisabled: The owner has disabled the scanner.
            StateError: The lock file cannot be made, or the state directory belongs to another user; or an owner is
                giving the scanner up, and what came now would go with it; or as `OwnerFile.read`.
        """
        with self.release_lock():
            self.owner_file.check_allowed(DeviceEvent.ENROLL)
            yield

    @contextmanager
    def kept_lock(self) -> Iterator[None]:
        """The same for what a disabled scanner may do, too: giving certificates up. Raises as `lock` does."""
        with self.release_lock():
            self.check_kept()
            yield

    def check_kept(self) -> None:
        """Whether the owner keeps the scanner.

        Raises:
            StateError: The owner has begun to give it up: nobody can enroll before that has come to its end.
        """
        self.owner_file.check_allowed(DeviceEvent.GIVE_UP)

    def release_lock(self) -> AbstractContextManager[None]:
        """The same for whoever releases the scanner."""
        return self._locked("enroll.lock", "Another enrollment is running.")

    def watch_lock(self) -> AbstractContextManager[None]:
        """Keep everybody else from asking about revocations; enrollments are not held up. Raises as `lock` does."""
        return self._locked("watch.lock", "Another run asks whether something is revoked.")

    def _locked(self, name: str, what: str) -> AbstractContextManager[None]:
        self._files.check_owner(self._root)
        self._files.make_directory(self._root, GROUP_DIRECTORY)
        return self._files.locked(self._root / name, EnrollerBusy(what, remedy="Try again when it is over."))

    def _numbers(self, name: IdentityName) -> tuple[int, ...]:
        """All numbers that are taken."""
        entries = self._files.names(self.directory(name) / "generations")
        return tuple(sorted(int(entry) for entry in entries if _POINTER.fullmatch(f"generations/{entry}")))

    def _generation_directory(self, name: IdentityName, number: int) -> Path:
        return self.directory(name) / "generations" / f"{number:04d}"

    def _draft(self, name: IdentityName) -> Path:
        return self.directory(name) / "generations" / ".draft"

    def _in_use(self, name: IdentityName) -> int:
        """The number that `current` leads to; 0 where there is no identity yet.

        Raises:
            StateDamaged: `current` is missing, or leads back to an older one.
            StateError: It cannot be read.
        """
        target = self.pointer(name)
        number = int(target.rpartition("/")[2]) if target else 0
        newest = read_newest(self.directory(name), self._files).number
        if self._files.exists(self.release_record) or number >= newest:
            return number
        if self.pointer(name) != target:
            return self._in_use(name)  # an enrollment has come to its end between the two
        path = self.directory(name) / "current"
        what = "leads back to an older generation" if target else "is missing, and this identity has been in use"
        raise StateDamaged(f"{path} {what}.", remedy="Restore it from a backup, or enroll again.")

    def _before(self, name: IdentityName, number: int) -> Generation | None:
        """The same with its content; None where that is damaged, or there is none."""
        before = self.number_before(name, number)
        if before is None:
            before = max((each for each in self.generations(name) if each < number), default=0)
        try:
            return self._load(name, before) if before else None
        except StateDamaged:
            return None

    def _load(self, name: IdentityName, number: int) -> Generation:
        content = read_generation(self._generation_directory(name, number), self._files)
        return Generation(
            identity=name,
            number=number,
            certificate=content.certificate,
            chain=content.chain,
            key_uri=content.key_uri,
            protection=content.protection,
            flow=content.flow,
            committed_at=content.committed_at,
        )
