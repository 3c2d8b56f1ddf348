"""The judge of the kill sweep sees what it is there to see, and the watcher kills where it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from enroll.identity import IdentityName
from tests.support.reliability.kill_points import Commands, Ended
from tests.support.reliability.kill_stages import machine
from tests.support.reliability.kill_sweep import Stage
from tests.support.reliability.looking import Look

DEVICE = IdentityName.DEVICE
OLD, NEW = "software:device-0000000000000001", "software:device-0000000000000002"
BEFORE = Look(
    current={DEVICE: {"number": 1, "serial": "1", "key": OLD}},
    keys=(OLD,),
    named=(OLD,),
    owner={"ownership": "owned", "disabled": "no"},
    audited=3,
)
SENT = replace(
    BEFORE, keys=(OLD, NEW), named=(OLD, NEW), journals={DEVICE: {"step": "sent", "key": NEW, "name": "device-2"}}
)
ISSUED = replace(SENT, journals={DEVICE: {"step": "issued", "key": NEW, "name": "device-2"}})
DONE = replace(
    BEFORE, current={DEVICE: {"number": 2, "serial": "2", "key": NEW}}, keys=(OLD, NEW), named=(OLD, NEW), journals={}
)

LEFT: dict[str, dict[str, str]] = {DEVICE: {"step": "sent", "key": "software:device-0", "name": "device-0"}}


class Scripted(Stage):
    """A stage whose scanner looks as it is told, and whose server issues as often."""

    def __init__(self, folder: Path, looks: list[Look], issued: list[int], *, gives_again: bool = False) -> None:
        scanner: Any = machine(folder, None, {})  # type: ignore[arg-type]
        super().__init__(scanner, ("renew",), brings=frozenset({DEVICE}), gives_again=gives_again)
        self.issued = iter([0, *issued]).__next__
        scanner.output.write_text("")
        scanner.run = lambda *_, **__: Ended(-9, ("write somewhere",))
        scanner.done = lambda *_, **__: None
        scanner.look = iter(looks).__next__

    def one_trial(self) -> None:
        self._trial(BEFORE, 1)


@pytest.mark.parametrize("cut", [BEFORE, SENT, ISSUED, DONE], ids=["before", "sent", "issued", "done"])
def test_what_ends_well_is_well(tmp_path: Path, cut: Look) -> None:
    more = 0 if cut in (ISSUED, DONE) else 1
    Scripted(tmp_path, [cut, DONE], [1, 1 + more]).one_trial()


@pytest.mark.parametrize("cut", [BEFORE, SENT], ids=["before", "sent"])
def test_where_a_certificate_can_be_fetched_again_no_other_one_may_be_asked_for(tmp_path: Path, cut: Look) -> None:
    for issued in ([0, 1], [1, 1]):
        Scripted(tmp_path, [cut, DONE], issued, gives_again=True).one_trial()
    with pytest.raises(AssertionError, match="issued twice"):
        Scripted(tmp_path, [cut, DONE], [1, 2], gives_again=True).one_trial()


FAULTS: dict[str, tuple[Look, Look, int, str]] = {
    "damage": (replace(BEFORE, damaged=("x",)), DONE, 0, "x"),
    "lost-identity": (replace(BEFORE, current={}), DONE, 0, "is lost"),
    "lost-audit-lines": (replace(BEFORE, audited=2), DONE, 0, "audit"),
    "lost-audit-lines-in-the-end": (BEFORE, replace(DONE, audited=2), 0, "audit"),
    "forgotten-owner": (replace(BEFORE, owner={}), DONE, 0, "owns"),
    "nothing-came": (BEFORE, BEFORE, 0, "did not come"),
    "orphan": (BEFORE, replace(DONE, keys=(OLD, NEW, "software:device-3")), 0, "names"),
    "old-keys": (
        BEFORE,
        replace(DONE, keys=(OLD, NEW, "software:device-3"), named=(OLD, NEW, "software:device-3")),
        0,
        "old keys",
    ),
    "begun-anew": (
        replace(SENT, journals={DEVICE: {"step": "sent", "key": "software:device-3", "name": "device-3"}}),
        DONE,
        1,
        "began anew",
    ),
    "request-left-over": (BEFORE, replace(DONE, journals=LEFT), 0, "left over"),
    "issued-twice": (ISSUED, DONE, 1, "issued twice"),
    "release-left-over": (BEFORE, replace(DONE, releasing=True), 0, "left over"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_is_seen(tmp_path: Path, fault: str) -> None:
    cut, done, more, said = FAULTS[fault]
    with pytest.raises(AssertionError, match=said):
        Scripted(tmp_path, [cut, done], [1, 1 + more]).one_trial()


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    with Commands() as commands:
        commands.skip_unless_watched(tmp_path_factory.mktemp("trial") / "output")
        yield commands


def test_a_command_is_killed_before_the_call_that_is_named(tmp_path: Path, commands: Commands) -> None:
    """Of the record that `owner disable` writes, nothing is there before it has its name."""
    scanner = machine(tmp_path, commands, {})
    scanner.state.mkdir()
    order = scanner.order(("owner", "disable"), watched=True)
    whole = commands.run(order)
    record = scanner.state / "owner.json"
    assert json.loads(record.read_bytes())
    named = next(number for number, call in enumerate(whole.calls, 1) if call == "rename owner.json")
    for step, is_there in ((named, False), (named + 1, True)):
        record.unlink(missing_ok=True)
        ended = commands.run(replace(order, kill_at=step))
        assert (ended.was_killed, len(ended.calls), record.exists()) == (True, step, is_there)


def test_a_command_that_may_not_sync_does_not(tmp_path: Path, commands: Commands) -> None:
    scanner = machine(tmp_path, commands, {})
    scanner.state.mkdir()
    order = scanner.order(("owner", "disable"), watched=True)
    assert any(call.startswith("fsync") for call in commands.run(order).calls)
    (scanner.state / "owner.json").unlink()
    assert not any(call.startswith("fsync") for call in commands.run(replace(order, synced=False)).calls)
