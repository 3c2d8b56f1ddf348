"""Remembers across processes which PIN file a token has refused: a timer would send a wrong PIN again at every run.

    <state directory>/tokens/<hash of label and serial number>.json

The PIN itself is not kept, not even hashed: few digits are soon guessed. What counts is whether its file was changed.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import pkcs11

from enroll.errors import PinRefused, StateError
from enroll.record import read_record, write_record
from enroll.statefile import StateFiles

_FIELDS = ("token", "pin_file")


class RefusedPins:
    """The notes of one state directory.

    Args:
        state_directory: Where they lie; whoever does not own it reads them and writes none.
        files: Reads and writes them.
    """

    def __init__(self, state_directory: Path, files: StateFiles) -> None:
        self._state_directory = state_directory
        self._files = files

    def check(self, token: pkcs11.Token, pin_file: Path) -> None:
        """Find out whether this PIN may be sent.

        Raises:
            PinRefused: The token refused what is in this file, and the file was not changed since.
        """
        with contextlib.suppress(StateError):  # an unreadable note is none
            path = self._path(token)
            if not self._files.exists(path) or read_record(path, _FIELDS, self._files)["pin_file"] != _state(pin_file):
                return
            raise PinRefused(
                f"The token {token.label} has refused the PIN in {pin_file} before, so it was not sent again.",
                remedy=f"Write the right PIN into {pin_file}: a file that was changed is tried. Tokens lock after a "
                "few wrong ones.",
            )

    def note(self, token: pkcs11.Token, pin_file: Path) -> None:
        """Take note of a refusal."""
        path = self._path(token)
        with contextlib.suppress(StateError):  # then each process has its own try, as far as the token allows it
            self._files.check_owner(self._state_directory)
            self._files.make_directory(path.parent)
            write_record(path, {"token": token.label, "pin_file": _state(pin_file)}, self._files)

    def forget(self, token: pkcs11.Token) -> None:
        """The token has accepted a PIN."""
        with contextlib.suppress(StateError):
            if self._files.exists(self._path(token)):
                self._files.remove(self._path(token))

    def _path(self, token: pkcs11.Token) -> Path:
        name = hashlib.sha256(token.label.encode() + b"\0" + token.serial).hexdigest()[:32]
        return self._state_directory / "tokens" / f"{name}.json"


def _state(pin_file: Path) -> str:
    try:
        status = pin_file.stat()
    except OSError:
        return ""
    return f"{pin_file} {status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns}"
