"""The owner gives the scanner up: what is the owner's is destroyed, and the next one can take it over.

    release.json      a release is under way, and what it leaves to people; nothing is enrolled until it has come to its
                      end

    goes       the identities of the owner with their keys, requests and wishes; the ACME account; the CA certificates
               that were learned; what FDO knows of the owner, and who was approved
    stays      the vendor's identities; the FDO key, its secret and the credentials, which forget the owner; the audit
               trail; scanseal.toml

Before a key is destroyed its identity is not in use any more, which the agent notices within a second. Each step does
nothing where it has been done. So what a power cut ended is simply run again: by the same command, or by the timer.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from enroll.certificates import name_text, serial_text
from enroll.collector import collect
from enroll.config import EnrollSettings
from enroll.device_state import DeviceEvent
from enroll.errors import (
    DiskRefused,
    KeyDamaged,
    KeyNotFound,
    StateDamaged,
    StateError,
    StateTooNew,
    StateUnreadable,
    StateUnsafe,
    UnsupportedKey,
)
from enroll.fdo.credential import CredentialStore, DeviceCredential, fdo_directory
from enroll.flows.base import FlowContext
from enroll.flows.settings import FdoApproval
from enroll.identity import VENDORS_IDENTITIES, IdentityName
from enroll.record import damaged, read_record, write_record
from enroll.retire import destroy_all, destroy_key

OWNERS_IDENTITIES = tuple(name for name in IdentityName if name not in VENDORS_IDENTITIES)

# What nobody can put right: what only goes with a key store that is away is not among it.
_LOST = (StateError, KeyNotFound, KeyDamaged, UnsupportedKey)
# Of it, what somebody can put right, or what is over by itself.
_NOT_LOST = (DiskRefused, StateTooNew, StateUnreadable, StateUnsafe)
_TAKEN_BACK = 'remove [fdo] approval = "never": with it this owner can take the scanner back without anybody seeing it'
_TRAIL = (
    "decide whether the audit trail goes with the scanner: it holds the SOP Instance UID of each image that was signed"
)
_VOUCHER = (
    "make the voucher out to the next owner, if not done yet, on the owner server; where that has no way of its own: "
    "scanseal fdo voucher extend"
)
_FORGET = "have the owner server forget this scanner"
_NOT_HERE = (
    "do not run scanseal enroll fdo on this network before the scanner has left it: its owner up to now would take it "
    "over again"
)
_FDO_STAYS = frozenset({"credential.current", "credential.pending", "initializing.json"})
_TABLES = ("est", "acme", "cmp", "scep", "offline", "fdo", "revocation")
# Of the scanner, not of its owner.
_NOT_OF_OWNER = frozenset(
    {"manufacturer_url", "key_exchange", "key_store", "token", "key_encoding", "account_key_store"}
)


@dataclass(frozen=True)
class Inventory:
    """What a release is about, in words.

    Args:
        goes: What is destroyed.
        stays: What the next owner finds.
        by_hand: What people have to do.
    """

    goes: tuple[str, ...]
    stays: tuple[str, ...]
    by_hand: tuple[str, ...]


@dataclass(frozen=True)
class _Left:
    """What the record of a release says.

    Args:
        begun_at: In ISO 8601.
        by_hand: What people have to do, as it was before anything was destroyed: what says so goes with it.
        lost: The keys, in words, that could not be found or destroyed up to now.
    """

    begun_at: str
    by_hand: tuple[str, ...]
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class OwnerRelease:
    """The release of one scanner.

    Args:
        context: The parts of the enroller.
    """

    context: FlowContext

    @property
    def is_under_way(self) -> bool:
        """Whether one has begun and not come to its end.

        Raises:
            StateError: That cannot be found out.
        """
        return self.context.files.exists(self.context.identities.release_record)

    def inventory(self) -> Inventory:
        """What would be done; nothing is changed.

        Raises:
            StateError: The state directory cannot be read.
            KeyStoreError: The secret of the FDO credential cannot be used.
        """
        stays = ["the audit trail", *(f"the identity {name}" for name in sorted(VENDORS_IDENTITIES) if self._has(name))]
        credentials = self._read_credentials()
        if not credentials:
            stays.append("no FDO credential, because there is none: the next owner enrolls it as a new scanner")
        elif not isinstance(credentials, str):
            stays.append("the FDO credential with its key: the next owner takes the scanner over by its voucher")
        return Inventory(tuple(self._goes(credentials)), tuple(stays), self.by_hand())

    def by_hand(self) -> tuple[str, ...]:
        """What people have to do; of a release that is under way, what was written down when it began.

        Raises:
            StateError: The state directory cannot be read.
            KeyStoreError: The secret of the FDO credential cannot be used.
        """
        return self._left().by_hand

    def run(self) -> tuple[str, ...]:
        """Do it, or go on with it.

        Returns:
            In words, which keys could not be found or destroyed.

        Raises:
            EnrollerBusy: An enrollment is running.
            KeyStoreError: A key store is away, or refuses; then it is not over, and has to be run again.
            StateError: The disk refused; likewise.
        """
        context = self.context
        identities, files, root = context.identities, context.files, context.settings.state_directory
        with identities.release_lock(), identities.watch_lock():
            identities.owner_file.check_allowed(DeviceEvent.RELEASE)
            left = self._keep(self._left())
            for name in OWNERS_IDENTITIES:
                identities.retract(name)
            for name in OWNERS_IDENTITIES:
                left = self._keep(left, destroy_all(name, identities, context.stores))
                identities.wipe(name)
            left = self._keep(left, self._close_account())
            for path in (root / "acme", root / "anchors", root / "servers", *self._of_fdo()):
                files.remove(path)
            left = self._keep(left, self._collected(left))
            lost = (*left.lost, *self._release_credentials())
            identities.owner_file.release(context.clock.now())
            files.remove(identities.release_record)
        return lost

    def _collected(self, left: _Left) -> list[str]:
        """Destroy the owner's keys that nothing has named any more for a while."""
        found = collect(self.context.identities, self.context.stores)
        for each in found:
            owners = each.name.partition("-")[0] not in VENDORS_IDENTITIES
            if owners and not isinstance(each.why, UnsupportedKey):
                raise each.why
        told = "\n".join(left.lost)
        keys = [each for each in found if each.name not in VENDORS_IDENTITIES]
        return [f"the key {each.name}: {each.why.what}" for each in keys if each.name not in told]

    def _left(self) -> _Left:
        """What the record says; where there is none, or it is damaged, what there is to say now.

        Raises:
            StateError: It cannot be read for now, or a newer scanseal wrote it: it stays as it is.
        """
        if not self.is_under_way:
            return self._found()
        try:
            return self._kept()
        except StateDamaged as error:
            told = f"{error.what} Look up at the CA which certificates of this scanner have to be revoked"
            found = self._found()
            return dataclasses.replace(found, by_hand=(told, *found.by_hand))

    def _found(self) -> _Left:
        return _Left(self.context.clock.now().isoformat(), tuple(self._tasks()))

    def _kept(self) -> _Left:
        path = self.context.identities.release_record
        values = read_record(path, [field.name for field in dataclasses.fields(_Left)], self.context.files)
        return _Left(values["begun_at"], _read_lines(values["by_hand"], path), _read_lines(values["lost"], path))

    def _keep(self, left: _Left, lost: Sequence[str] = ()) -> _Left:
        """Write it down, with keys that were lost now; those of a run that was cut off may be among them again."""
        left = dataclasses.replace(left, lost=tuple(dict.fromkeys((*left.lost, *lost))))
        values = {"begun_at": left.begun_at, "by_hand": json.dumps(left.by_hand), "lost": json.dumps(left.lost)}
        write_record(self.context.identities.release_record, values, self.context.files)
        return left

    def _tasks(self) -> Iterator[str]:
        yield from self._valid_certificates()
        yield from _configured(self.context.settings)
        yield _TRAIL
        credentials = self._read_credentials()
        if isinstance(credentials, str):
            yield credentials
        elif credentials:
            yield _VOUCHER
            if any(credential.owner or credential.was_owned for credential in credentials):
                yield _FORGET
                yield _NOT_HERE
            if self.context.settings.fdo.approval is FdoApproval.NEVER:
                yield _TAKEN_BACK

    @property
    def _credentials(self) -> CredentialStore:
        context = self.context
        return CredentialStore(fdo_directory(context.settings.state_directory), context.stores, context.files)

    def _read_credentials(self) -> tuple[DeviceCredential, ...] | str:
        """Those that have to forget the owner; or in words, why they cannot."""
        try:
            return self._credentials.candidates()
        except _NOT_LOST:
            raise
        except _LOST as error:
            return f"the FDO credential, which stays as it is and is of no use to anybody: {error.what}"

    def _release_credentials(self) -> list[str]:
        credentials = self._read_credentials()
        if isinstance(credentials, str):
            return [credentials]
        self._credentials.release()
        return []

    def _of_fdo(self) -> list[Path]:
        """All that FDO keeps but what the next owner needs; files that a power cut left half written are among it."""
        directory = fdo_directory(self.context.settings.state_directory)
        return [directory / name for name in self.context.files.names(directory) if name not in _FDO_STAYS]

    def _close_account(self) -> list[str]:
        """Destroy the keys of the ACME account, where there is one; the CA keeps its half of it."""
        # A process loads the flow that it uses and no other.
        from enroll.flows.acme.account import AccountRecord  # noqa: PLC0415

        path = self._account
        if not self.context.files.exists(path):
            return []
        try:
            values = read_record(path, [field.name for field in dataclasses.fields(AccountRecord)], self.context.files)
        except StateDamaged as error:
            return [f"the key of the ACME account: {error.what}"]
        record = AccountRecord(**values)
        keys = ((record.key_uri, record.key_name), (record.next_key_uri, record.next_key_name))
        return [
            f"the key of the ACME account: {lost}" for key in keys if (lost := destroy_key(*key, self.context.stores))
        ]

    @property
    def _account(self) -> Path:
        return self.context.settings.state_directory / "acme" / "account.json"

    def _has(self, name: IdentityName) -> bool:
        return self.context.identities.pointer(name) is not None

    def _goes(self, credentials: tuple[DeviceCredential, ...] | str) -> Iterator[str]:
        identities, files, root = self.context.identities, self.context.files, self.context.settings.state_directory
        for name in OWNERS_IDENTITIES:
            count = len(identities.generations(name))
            requests = len(identities.requests_by_hand(name))
            if count or requests or files.names(identities.directory(name) / "pending"):
                yield f"the identity {name}: the keys of {count} generation(s), and of requests under way"
        if files.exists(self._account):
            yield "the account at the ACME server, with its key"
        if files.names(root / "anchors"):
            yield "the CA certificates that were learned"
        is_owned = not isinstance(credentials, str) and any(credential.owner for credential in credentials)
        if is_owned or self._of_fdo():
            yield "what FDO keeps of the owner"

    def _valid_certificates(self) -> Iterator[str]:
        for name in OWNERS_IDENTITIES:
            current = self.context.identities.readable(name)
            if current is not None and self.context.clock.now() <= current.certificate.not_valid_after_utc:
                serial, issuer = serial_text(current.certificate), name_text(current.certificate.issuer)
                yield f"have the certificate {serial} of {name} revoked by {issuer}"


def _read_lines(text: str, path: Path) -> tuple[str, ...]:
    """A list of lines in a record.

    Raises:
        StateDamaged: It is none.
    """
    try:
        lines = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path) from error
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise damaged(path)
    return tuple(lines)


def _configured(settings: EnrollSettings) -> Iterator[str]:
    """What scanseal.toml still says of the owner: addresses, files, names."""
    for table in _TABLES:
        values = getattr(settings, table)
        for field in dataclasses.fields(values):
            value = getattr(values, field.name)
            is_of_owner = isinstance(value, str | Path | tuple) and not isinstance(value, StrEnum)
            if is_of_owner and value != field.default and field.name not in _NOT_OF_OWNER:
                yield f"[{table}] {field.name} in scanseal.toml is of this owner"
