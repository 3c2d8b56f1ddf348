"""Removes what writes that were cut off have left: each writes beside the file that it is to replace.

Nobody reads these, but in the years of a scanner they become many.
"""

from __future__ import annotations

import logging
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from enroll.errors import StateError
from enroll.statefile import StateFiles

AGE = timedelta(days=1)  # no write takes so long; also of what is a day ahead, as clocks are set

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}")  # as `StateFiles.write` names them
_LOG = logging.getLogger(__name__)


def remove_leftover_files(root: Path, files: StateFiles, now: datetime) -> None:
    """Remove them, as far as the disk lets us.

    Args:
        root: The directory of the state.
        files: Removes there.
        now: By the wall clock, as the system dates files.
    """
    for directory, _, names in os.walk(root):
        for path in (Path(directory, name) for name in names if _TEMPORARY.fullmatch(name)):
            try:
                if abs(now - datetime.fromtimestamp(path.lstat().st_mtime, UTC)) > AGE:
                    files.remove(path)
            except (OSError, OverflowError, ValueError, StateError) as error:
                _LOG.info("%s, of a write that was cut off, stays for now: %s", path, error)
