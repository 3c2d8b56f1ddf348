"""The identity directory: every certificate this scanner ever had, and which one is in use.

    identities/<name>/generations/<NNNN>/certificate.pem   the certificate
                                         chain.pem         the same, then its intermediates: what TLS wants
                                         anchor.pem        what it led to when it came
                                         key.uri           the name of its key in a key store
                                         meta.json         how and when it came
    identities/<name>/current -> generations/<NNNN>        one atomic rename decides
    identities/<name>/wanted.json                          it was asked for and never came, see `enroll.wanted`
    identities/<name>/pending/                             a request under way, see `enroll.journal` and `enroll.offer`

A generation is written completely before `current` leads to it and never changed afterwards, so a reader needs no
lock and sees one matching pair at any time. Numbers are never used twice: when an owner gives the scanner up, the
directory of its last generation stays, empty (`enroll.owner_release`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from cryptography import x509

from enroll.certificates import pem, read_certificates
from enroll.errors import EnrollerBusy, StateError, StateUnreadable
from enroll.journal import Journal
from enroll.keystore.base import Protection
from enroll.offer import FILE_NAME as OFFER_FILE_NAME
from enroll.offer import Offer, read_offer
from enroll.record import damaged, read_record, read_time, write_record
from enroll.statefile import GROUP_DIRECTORY, StateFiles, unreadable
from enroll.trust import VerifiedCertificate
from enroll.wanted import Wanted

_POINTER = re.compile(r"generations/([0-9]{4,9})")
_URI = re.compile(r"[a-z][a-z0-9+.-]*:[!-~]{1,2048}")  # RFC 3986 3: a scheme, then visible ASCII
_FILE_MODE = 0o640
_KEY_FILE = "key.uri"
_STAY = frozenset({"generations", "pending"})  # the numbers, and where the keyholder writes
_LOG = logging.getLogger(__name__)


class IdentityName(StrEnum):
    """The identities of a scanner: from its vendor, of its owner, and those that sign.

    The vendor's two stay when the owner changes: the factory identity (IEEE 802.1AR IDevID), and what signs original
    images where the owner has no CA. What signs original images, what is made from them, and what a model makes, are
    three keys with three certificates.
    """

    IDEVID = "idevid"
    VENDOR = "vendor"
    DEVICE = "device"
    SIGNING = "signing"
    DERIVATION = "derivation"
    SYNTHESIS = "synthesis"


VENDORS_IDENTITIES = frozenset({IdentityName.IDEVID, IdentityName.VENDOR})  # all others are the owner's


@dataclass(frozen=True)
class Generation:
    """One key and certificate of an identity.

    Args:
        identity: Whose.
        number: Counts from 1.
        certificate: Passed every check of `enroll.trust` when it came.
        chain: Its intermediates; the anchor is left out.
        key_uri: The name of its key.
        protection: Where the key really lives.
        flow: The way it came.
        committed_at: When it came.
    """

    identity: IdentityName
    number: int
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    key_uri: str
    protection: Protection
    flow: str
    committed_at: datetime


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
            StateError: `current` is not a link to a generation.
        """
        path = self.directory(name) / "current"
        try:
            target = str(path.readlink())
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise unreadable(path) from error
        except OSError as error:
            raise damaged(path) from error
        if not _POINTER.fullmatch(target):
            raise damaged(path)
        return target

    def current(self, name: IdentityName) -> Generation | None:
        """The generation in use; None where there is none yet.

        Raises:
            StateError: There is one, and it is damaged.
        """
        target = self.pointer(name)
        return None if target is None else self._load(name, int(target.rpartition("/")[2]))

    def readable(self, name: IdentityName) -> Generation | None:
        """The generation in use; None where there is none that can be read: enrolling again is the way out of damage.

        Raises:
            StateUnreadable: Not for the user who runs this.
        """
        try:
            return self.current(name)
        except StateUnreadable:
            raise
        except StateError as error:
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
                    yield from read_certificates(
                        self._generation_directory(name, number) / "certificate.pem", self._files
                    )
                except StateUnreadable:
                    raise
                except StateError as error:
                    _LOG.warning("A certificate of generation %d of %s is lost: %s", number, name, error.what)

    def anchor(self, generation: Generation) -> x509.Certificate | None:
        """The CA certificate that a generation led to when it came; None where that was not kept.

        Raises:
            StateError: It is damaged.
        """
        path = self._generation_directory(generation.identity, generation.number) / "anchor.pem"
        return read_certificates(path, self._files)[0] if self._files.exists(path) else None

    def key_uri(self, name: IdentityName, number: int) -> str:
        """The name of the key of one generation.

        Raises:
            StateError: There is no such generation, or it is damaged.
        """
        path = self._generation_directory(name, number) / _KEY_FILE
        uri = self._files.read(path).decode("ascii", errors="replace").removesuffix("\n")
        if not _URI.fullmatch(uri):
            raise damaged(path)
        return uri

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
            StateError: The disk refused; the generation before is still in use.
        """
        number = max(self._numbers(name), default=0) + 1
        final, draft = self._generation_directory(name, number), self._draft(name)
        self._files.remove(draft)
        self._files.make_directory(draft, GROUP_DIRECTORY)
        chain = (verified.certificate, *verified.chain)
        self._files.write(draft / "certificate.pem", pem(chain[:1]), _FILE_MODE)
        self._files.write(draft / "chain.pem", pem(chain), _FILE_MODE)
        self._files.write(draft / _KEY_FILE, f"{key_uri}\n".encode("ascii"), _FILE_MODE)
        meta = {"flow": flow, "protection": str(protection), "committed_at": now.isoformat()}
        write_record(draft / "meta.json", meta, self._files, _FILE_MODE)
        if verified.anchor is not None:
            self._files.write(draft / "anchor.pem", pem((verified.anchor,)), _FILE_MODE)
        self._files.rename(draft, final)
        generation = self._load(name, number)
        self._files.point(self.directory(name) / "current", f"generations/{final.name}")
        self.wanted(name).write(None)
        return generation

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
            for entry in sorted(self._files.names(generation), key=lambda entry: entry == _KEY_FILE):
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
        return self._root / "release.json"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other enroller out; readers are not held up.

        Raises:
            EnrollerBusy: There is one at work.
            StateError: The lock file cannot be made, or the state directory belongs to another user; or an owner is
                giving the scanner up, and what came now would go with it.
        """
        with self.release_lock():
            self.check_kept()
            yield

    def check_kept(self) -> None:
        """Whether the owner keeps the scanner.

        Raises:
            StateError: The owner has begun to give it up: nobody can enroll before that has come to its end.
        """
        if self._files.exists(self.release_record):
            raise StateError(
                "The owner of this scanner has begun to give it up, and that has not come to its end.",
                remedy="Run again: scanseal owner release",
                code="release-under-way",
            )

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

    def _load(self, name: IdentityName, number: int) -> Generation:
        directory = self._generation_directory(name, number)
        certificates = read_certificates(directory / "certificate.pem", self._files)
        certificate, *chain = read_certificates(directory / "chain.pem", self._files)
        if certificates != (certificate,):
            raise damaged(directory / "chain.pem")
        meta_file = directory / "meta.json"
        meta = read_record(meta_file, ("flow", "protection", "committed_at"), self._files)
        if meta["protection"] not in list(Protection):
            raise damaged(meta_file)
        return Generation(
            identity=name,
            number=number,
            certificate=certificate,
            chain=tuple(chain),
            key_uri=self.key_uri(name, number),
            protection=Protection(meta["protection"]),
            flow=meta["flow"],
            committed_at=read_time(meta["committed_at"], meta_file),
        )
