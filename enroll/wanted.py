"""What somebody asked for and has not got yet: `scanseal renew` asks for it again until it comes.

    identities/<name>/wanted.json

It is there from the first `scanseal enroll` on, and gone with the first generation.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from enroll.errors import StateDamaged
from enroll.record import read_record, read_time, write_record
from enroll.statefile import GROUP_DIRECTORY, StateFiles

_FILE_MODE = 0o640


@dataclass(frozen=True)
class Wish:
    """Somebody wants a certificate.

    Args:
        flow: The way that was chosen.
        since: When it was asked for first.
    """

    flow: str
    since: datetime


class Wanted:
    """The wish for the first certificate of one identity.

    Args:
        directory: Of the identity.
        files: Reads and writes there.
    """

    def __init__(self, directory: Path, files: StateFiles) -> None:
        self._directory = directory
        self._path = directory / "wanted.json"
        self._files = files

    def read(self) -> Wish | None:
        """The wish; None where there is none.

        Raises:
            StateDamaged: There is one, and it is damaged: asking again is the way out.
            StateError: It cannot be read.
        """
        if not self._files.exists(self._path):
            return None
        values = read_record(self._path, ("flow", "since"), self._files)
        return Wish(values["flow"], read_time(values["since"], self._path))

    def known(self) -> Wish | None:
        """The same for those who ask again; raises as `read`, but for damage."""
        try:
            return self.read()
        except StateDamaged:
            return None

    def write(self, wish: Wish | None) -> None:
        """Keep a wish, or forget it.

        Raises:
            StateError: The disk refused.
        """
        if wish is None:
            self._files.remove(self._path)
            return
        self._files.make_directory(self._directory, GROUP_DIRECTORY)
        write_record(self._path, {"flow": wish.flow, "since": wish.since.isoformat()}, self._files, _FILE_MODE)
