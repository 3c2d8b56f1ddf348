"""Which caller may use which role: `[roles]` of scanseal.toml, resolved once at the start."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.config import RolesSettings
from agent.daemon.peer import Caller
from agent.daemon.wire import Role
from enroll.errors import ConfigurationError

_LARGEST_ID = 2**32 - 2


@dataclass(frozen=True)
class RoleTable:
    """Users and groups by number, each with its roles."""

    users: Mapping[int, frozenset[Role]]
    groups: Mapping[int, frozenset[Role]]

    @classmethod
    def resolve(cls, settings: RolesSettings) -> RoleTable:
        """Look up the names.

        Raises:
            ConfigurationError: An entry of the wrong form, or a name that this machine does not know.
        """
        entries = {
            Role.ACQUISITION: settings.acquisition,
            Role.DERIVATION: settings.derivation,
            Role.SYNTHESIS: settings.synthesis,
        }
        users: dict[int, frozenset[Role]] = {}
        groups: dict[int, frozenset[Role]] = {}
        for role, names in entries.items():
            for name in names:
                kind, number = _resolve(role, name)
                table = users if kind == "user" else groups
                table[number] = table.get(number, frozenset()) | {role}
        return cls(users, groups)

    def of(self, caller: Caller) -> frozenset[Role]:
        """The roles of a caller, by its user and each of its groups."""
        return self.users.get(caller.uid, frozenset()).union(*self._of_groups(caller.groups))

    def _of_groups(self, numbers: Iterable[int]) -> Iterable[frozenset[Role]]:
        return (self.groups[number] for number in numbers if number in self.groups)


def group_number(name: str, where: str) -> int:
    """The number of a group given by name or number.

    Raises:
        ConfigurationError: This machine has no such group.
    """
    return _number("group", name, where)


def _resolve(role: Role, entry: str) -> tuple[str, int]:
    where = f"[roles] {role}"
    kind, separator, name = entry.partition(":")
    if kind not in ("user", "group") or not separator or not name:
        raise ConfigurationError(f"{where} has the entry {entry!r}.", remedy='Write "user:NAME" or "group:NAME".')
    return kind, _number(kind, name, where)


def _number(kind: str, name: str, where: str) -> int:
    if name.isascii() and name.isdigit():
        if int(name[:11]) > _LARGEST_ID:
            raise ConfigurationError(f"{where}: {kind} {name} is out of range.", remedy="Correct the number.")
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid if kind == "user" else grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise ConfigurationError(
            f"{where}: this machine has no {kind} {name!r}.", remedy=f"Create it, or correct the name in {where}."
        ) from error
