"""The one place that reads policy files."""

from __future__ import annotations

from pathlib import Path

from agent.errors import PolicyError
from agent.policy.model import Policy
from agent.policy.parse import parse_policy
from enroll.errors import StateError
from enroll.statefile import StateFiles

POLICY_LIMIT = 1 << 20  # bytes


def load_policy(path: Path, files: StateFiles) -> Policy:
    """Read a local policy from its file.

    Args:
        path: The file.
        files: How files are read.

    Raises:
        PolicyError: The file cannot be read, or is not what the format allows.
    """
    try:
        data = files.read(path, POLICY_LIMIT, follow=True)
    except StateError as error:
        remedy = f"Name a regular file of at most {POLICY_LIMIT} bytes that you may read."
        raise PolicyError(error.what, remedy=remedy, code="policy-unreadable") from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"{path} line {line}: this is not UTF-8."
        raise PolicyError(what, remedy="Save the file as UTF-8.", code="policy-not-toml", line=line) from error
    return parse_policy(text, str(path))
