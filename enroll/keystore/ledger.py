"""Which keys were made here and are not destroyed yet.

    ledger/<name of the key>.json      the key store and the token that it was to be made in

A key is written down before it is made, and crossed out after it is destroyed. So no crash leaves a key that nobody
knows of; `enroll.collector` finds out which of them nothing needs any more. A token may be shared with other scanners:
what is not in the ledger is never touched, whatever its name is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from enroll.config import StoreName
from enroll.keystore.base import KEY_NAME, check_key_name
from enroll.record import damaged, read_record, write_record
from enroll.statefile import GROUP_DIRECTORY, StateFiles

_SUFFIX = ".json"
_FILE_MODE = 0o640  # administrators may see which keys there are; nothing here is secret


@dataclass(frozen=True)
class Place:
    """Where a key was to be made.

    Args:
        store: The key store.
        token: Label of the token, for PKCS#11.
    """

    store: StoreName
    token: str = ""

    def __str__(self) -> str:
        return f"{self.store} {self.token}".rstrip()


class Ledger:
    """The ledger of one scanner.

    Args:
        state_directory: The state directory.
        files: Reads and writes below it.
    """

    def __init__(self, state_directory: Path, files: StateFiles) -> None:
        self._directory = state_directory / "ledger"
        self._files = files

    def note(self, name: str, place: Place) -> None:
        """Write down a key that is made next.

        Raises:
            KeyStoreError: This is not the name of a key.
            StateError: The disk refused, and the key must not be made.
        """
        check_key_name(name)
        self._files.make_directory(self._directory, GROUP_DIRECTORY)
        write_record(self._path(name), {"key_store": place.store, "token": place.token}, self._files, _FILE_MODE)

    def names(self) -> tuple[str, ...]:
        """The names of all keys that may be there, sorted.

        Raises:
            StateError: The directory cannot be read.
        """
        files = self._files.names(self._directory)
        names = (file.removesuffix(_SUFFIX) for file in files if file.endswith(_SUFFIX))
        return tuple(sorted(name for name in names if KEY_NAME.fullmatch(name)))

    def place(self, name: str) -> Place:
        """Where a key of this ledger is.

        Raises:
            StateError: Its record is damaged.
        """
        path = self._path(name)
        values = read_record(path, ("key_store", "token"), self._files)
        if values["key_store"] not in list(StoreName):
            raise damaged(path)
        return Place(StoreName(values["key_store"]), values["token"])

    def cross_out(self, name: str) -> None:
        """A key is destroyed; nothing happens where it is not in the ledger.

        Raises:
            StateError: The disk refused.
        """
        if KEY_NAME.fullmatch(name) and self._files.exists(self._path(name)):
            self._files.remove(self._path(name))

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}{_SUFFIX}"
