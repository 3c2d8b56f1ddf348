"""State records as tests want them: with other values and the right checksum, or as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from enroll.record import sha256_of, write_document
from enroll.statefile import StateFiles


def values_of(path: Path) -> Any:
    """What a record says, unchecked."""
    return json.loads(path.read_bytes())["values"]


def rewrite(path: Path, **changes: object) -> None:
    """Write a flat record anew with other values, as if the product had."""
    mode = path.stat().st_mode & 0o777
    write_document(path, {**values_of(path), **changes}, StateFiles(), mode)


def set_key_uri(generation: Path, uri: str) -> None:
    """Give a generation the name of another key, as if it had come with it."""
    directory, data = generation.resolve(), f"{uri}\n".encode("ascii")
    (directory / "key.uri").write_bytes(data)
    rewrite(directory / "meta.json", **{"key.uri": sha256_of(data)})
