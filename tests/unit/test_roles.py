"""Who may use which role."""

from __future__ import annotations

import os
import pwd
import re
import socket

import pytest

from agent.config import RolesSettings
from agent.daemon.peer import Caller, caller_of
from agent.daemon.roles import RoleTable
from agent.daemon.wire import Role
from enroll.errors import ConfigurationError


def test_a_role_goes_to_users_and_to_every_member_of_a_group() -> None:
    table = RoleTable.resolve(RolesSettings(acquisition=("user:1001", "group:2000"), derivation=("group:2000",)))

    assert table.of(Caller(1, 1001, (5,))) == {Role.ACQUISITION}
    assert table.of(Caller(1, 1002, (5, 2000))) == {Role.ACQUISITION, Role.DERIVATION}
    assert table.of(Caller(1, 1002, (2000,))) == {Role.ACQUISITION, Role.DERIVATION}
    assert table.of(Caller(1, 2000, (1001,))) == frozenset()


def test_names_are_looked_up() -> None:
    table = RoleTable.resolve(RolesSettings(synthesis=(f"user:{pwd.getpwuid(0).pw_name}",)))

    assert table.of(Caller(1, 0, ())) == {Role.SYNTHESIS}


def test_a_role_without_entries_is_given_to_nobody() -> None:
    assert RoleTable.resolve(RolesSettings()).of(Caller(1, 0, (0,))) == frozenset()


def test_root_gets_no_role_by_being_root() -> None:
    table = RoleTable.resolve(RolesSettings(acquisition=("user:1001",)))

    assert table.of(Caller(1, 0, (0,))) == frozenset()


@pytest.mark.parametrize(
    "entry",
    ["ct", "user:", "users:ct", ":ct", "user:no-such-user-anywhere", "group:no-such-group-anywhere", "user:4294967295"],
)
def test_an_entry_that_names_nobody_is_refused(entry: str) -> None:
    """A misspelt entry that were ignored would give the role to nobody, silently."""
    with pytest.raises(ConfigurationError, match=re.escape("[roles] acquisition")) as refused:
        RoleTable.resolve(RolesSettings(acquisition=(entry,)))
    assert refused.value.remedy


def test_the_kernel_says_who_the_caller_is() -> None:
    """socket(7), SO_PEERCRED; unix(7)."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        caller = caller_of(ours)

    assert (caller.pid, caller.uid) == (os.getpid(), os.getuid())
    assert caller.groups[0] == os.getgid()
    assert set(os.getgroups()) <= set(caller.groups)
