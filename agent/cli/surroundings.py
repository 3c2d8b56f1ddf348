"""What a scanner runs in, seen from outside, for `scanseal check`: files and their owners, limits of services."""

from __future__ import annotations

import os
import pwd
import resource
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.checks import Finding, Place, State, failure
from agent.config import AgentSettings
from agent.daemon.roles import RoleTable, group_number
from enroll.errors import ConfigurationError, StateError
from enroll.statefile import StateFiles
from enroll.statefile_refusals import unreadable

AGENT_SERVICE = "scanseal.service"
SERVICES = (AGENT_SERVICE, "scanseal-renew.service")

_SECRET_FOLDERS = ("keys", "tpm")
_PUBLIC_FOLDERS = ("identities", "audit")
_PATIENCE = 10  # seconds
_INFINITY = "infinity"


@dataclass(frozen=True)
class ServiceLimits:
    """What systemd allows a service.

    Args:
        memory_lock: Bytes of memory that may be locked; None for no limit.
        core: Bytes of a core dump; None for no limit.
    """

    memory_lock: int | None
    core: int | None


def callers(settings: AgentSettings) -> Finding:
    """Whether this machine has the users and groups that are configured."""
    check = "callers"
    try:
        if settings.socket.group:
            group_number(settings.socket.group, "[socket] group")
        RoleTable.resolve(settings.roles)
    except ConfigurationError as error:
        return failure(check, error)
    return Finding(check, State.OK, "the users and groups in [socket] and [roles] are there")


def state_places(root: Path, files: StateFiles) -> Iterator[Place]:
    """The state directory, then what lies in it, as far as its owner matters.

    Raises:
        StateUnreadable: Not for the user who runs this.
        StateError: Not there, or the disk failed.
    """
    yield _place(root)
    for name in (*_PUBLIC_FOLDERS, *_SECRET_FOLDERS):
        folder, secret = root / name, name in _SECRET_FOLDERS
        if not files.exists(folder):
            continue
        yield _place(folder, secret=secret)
        for entry in sorted(files.names(folder)):
            yield _place(folder / entry, secret=secret)


def can_be_made(root: Path) -> bool:
    """Whether a directory is not there, and this user may make it."""
    try:
        nearest = next(path for path in (root, *root.parents) if path.exists())
    except OSError:
        return False  # looking at the directory itself says why
    return nearest != root and nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)


def _place(path: Path, *, secret: bool = False) -> Place:
    try:
        status = path.lstat()
    except PermissionError as error:
        raise unreadable(path) from error
    except OSError as error:
        raise StateError(
            f"{path} cannot be looked at: {error.strerror}.",
            remedy="Run: systemd-tmpfiles --create scanseal.conf; or name another state_directory.",
        ) from error
    return Place(path, status.st_uid, status.st_mode & 0o7777, secret)


def user_name(number: int) -> str:
    """The name of a user, or its number where it has none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"#{number}"


def limits_of_services() -> Mapping[str, ServiceLimits]:
    """What systemd allows each service of scanseal that it knows; nothing where there is no systemd."""
    program = shutil.which("systemctl")
    found = {name: _limits_of(program, name) for name in SERVICES} if program else {}
    return {name: limits for name, limits in found.items() if limits}


def _limits_of(program: str, service: str) -> ServiceLimits | None:
    command = [program, "show", service, "--property=LoadState,LimitMEMLOCK,LimitCORE"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=True).stdout
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    values = dict(line.partition("=")[::2] for line in shown.splitlines())
    limits = [values.get(name, "") for name in ("LimitMEMLOCK", "LimitCORE")]
    if values.get("LoadState") != "loaded" or not all(limit == _INFINITY or limit.isdecimal() for limit in limits):
        return None
    memory_lock, core = (None if limit == _INFINITY else int(limit) for limit in limits)
    return ServiceLimits(memory_lock, core)


def own_memory_lock() -> bool:
    """Whether this process might lock all of its memory."""
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return hard == resource.RLIM_INFINITY or os.geteuid() == 0
