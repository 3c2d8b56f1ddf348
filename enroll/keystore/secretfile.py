"""Reads the file that holds a PIN or a passphrase."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from enroll.errors import KeyStoreUnavailable, StateError
from enroll.statefile import StateFiles

SECRET_LIMIT = 1023  # bytes; OpenSSL takes no longer passphrase


def read_secret(path: Path | None, option: str, files: StateFiles) -> bytes:
    """The secret in `path`, without the one line end that editors add.

    A file that every local user may read protects nothing, so it is refused. Its group is not looked at: systemd
    shows the access list of a credential file as group permission.

    Args:
        path: The file; None where the option is not set.
        option: Name of the option, for messages.
        files: Reads it.

    Raises:
        KeyStoreUnavailable: Not set, unreadable, readable by everybody, empty or too long. Never holds the secret.
    """
    if path is None:
        raise KeyStoreUnavailable(f"{option} is not set.", remedy="Name a file that holds the secret.")
    try:
        data = files.read(path, SECRET_LIMIT + len(b"\r\n"), follow=True)
        open_to_all = path.stat().st_mode & stat.S_IRWXO
    except StateError as error:
        raise KeyStoreUnavailable(error.what, remedy=f"Check {option}.") from error
    except OSError as error:
        raise KeyStoreUnavailable(f"{path} cannot be read: {error.strerror}.", remedy=f"Check {option}.") from error
    if open_to_all:
        raise KeyStoreUnavailable(f"Every local user has access to {path}.", remedy=f"Run: chmod o= {path}")
    secret = re.sub(rb"\r?\n\Z", b"", data)
    if not 0 < len(secret) <= SECRET_LIMIT:
        raise KeyStoreUnavailable(
            f"{path} holds {len(secret)} bytes.", remedy=f"Put a secret of 1 to {SECRET_LIMIT} bytes into it."
        )
    return secret
