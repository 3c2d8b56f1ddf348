"""A command of scanseal is killed at each of its steps in turn, and begun again: what must be true then.

A `Stage` is a scanner in front of the command, with the server that it talks to; `kill_stages` has one for each.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from agent.cli import exits
from enroll.config import DeviceSettings, EnrollSettings
from enroll.identity import IdentityName
from enroll.journal import Step
from tests.support.reliability.kill_points import LOOK, Commands, Ended, Order
from tests.support.reliability.looking import Look

TIMER = ("renew",)
_MOST = 3000  # steps of one command; more would never end
_RUNS = 4  # of a command until it is done
_WAIT = 600.0  # seconds between two of them; more than any server asks for
_KEPT = 2  # keys of an identity: the one in use, and the one before
_HAS_CERTIFICATE = {Step.ISSUED, Step.VERIFIED}


@dataclass
class Machine:
    """A scanner: its configuration, its directories, and the commands that work on them.

    Args:
        folder: Where the configuration lies.
        commands: Start the commands.
        tables: The configuration.
        environment: Of the commands.
        places: Directories beside `state` that belong to the scanner: those of its token.
        seconds_later: How far its clock is ahead.
    """

    folder: Path
    commands: Commands
    tables: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, str] = field(default_factory=dict)
    places: Sequence[Path] = ()
    seconds_later: float = 0.0

    def __post_init__(self) -> None:
        self.state = Path(str(dict(self.tables[""])["state_directory"]))
        self.configuration = self.folder / "scanseal.toml"
        self.output = self.folder / "output"
        lines: list[str] = []
        for name, table in self.tables.items():
            lines += [f"[{name}]"] if name else []
            lines += [f"{option} = {json.dumps(value)}" for option, value in table.items()]
        self.configuration.write_text("\n".join(lines), "utf-8")

    @property
    def roots(self) -> tuple[Path, ...]:
        """All that belongs to the scanner."""
        return (self.state, *self.places)

    def keep(self) -> None:
        """From now on `restore` leads back to here."""
        for number, root in enumerate(self.roots):
            kept = self.folder / f"kept-{number}"
            shutil.rmtree(kept, ignore_errors=True)
            if root.exists():
                shutil.copytree(root, kept, symlinks=True)

    def restore(self) -> None:
        """As it was when it was kept."""
        for number, root in enumerate(self.roots):
            shutil.rmtree(root, ignore_errors=True)
            kept = self.folder / f"kept-{number}"
            if kept.exists():
                shutil.copytree(kept, root, symlinks=True)

    def order(self, words: Sequence[str], *, kill_at: int = 0, watched: bool = False) -> Order:
        """A command for this scanner."""
        words = (LOOK, str(self.configuration)) if words[0] == LOOK else (*words, "--config", str(self.configuration))
        roots = tuple(map(str, self.roots)) if watched else ()
        return Order(words, str(self.output), self.environment, roots, kill_at, self.seconds_later)

    def run(self, *words: str, kill_at: int = 0, watched: bool = False) -> Ended:
        """Run a command."""
        return self.commands.run(self.order(words, kill_at=kill_at, watched=watched))

    def done(self, *words: str, codes: Collection[int] = (exits.OK,)) -> None:
        """Run a command, again where it says so, until it is done."""
        before, ended = self.seconds_later, exits.TRY_LATER
        for _ in range(_RUNS):
            ended = self.run(*words).code
            if ended != exits.TRY_LATER:
                break
            self.seconds_later += _WAIT
        self.seconds_later = before
        assert ended in codes, f"{' '.join(words)} ended with {ended}: {self.said}"

    def look(self) -> Look:
        """What a new process finds."""
        code = self.run(LOOK).code
        assert code == exits.OK, f"looking ended with {code}: {self.said}"
        return Look(**json.loads(self.said.splitlines()[-1]))

    @property
    def said(self) -> str:
        """What the last command has said."""
        return self.output.read_text("utf-8")


@dataclass
class Stage:
    """A scanner in front of a command.

    Args:
        machine: The scanner.
        words: The command.
        brings: The identities that have a new generation in the end.
        issued: How many certificates the server has issued up to now; None where it does not count.
        before: Called before each trial: the server goes back, too.
        check_cut: More that must be true when it was killed.
        check_done: More that must be true in the end.
        has_begun: Whether the timer finishes what was killed; where not, the same command is run again. By default:
            where all that it brings was asked for.
        loses: The identities that are gone in the end.
        code: How the command ends, and the timer's.
        goes_on: Whether a key that was made must be used; not where it came in a file, which may come again.
        also: How the second run may end as well: it says that all is done already.
        gives_again: Whether the server gives what it has issued out again; then nothing is issued twice wherever the
            command was killed, and else where the certificate was on the disk.
        every: Kill it at each so manieth step only; where a trial takes seconds.
    """

    machine: Machine
    words: tuple[str, ...]
    brings: frozenset[IdentityName] = frozenset()
    loses: frozenset[IdentityName] = frozenset()
    issued: Callable[[], int] | None = None
    before: Callable[[], None] = lambda: None
    check_cut: Callable[[Look], None] = lambda _: None
    check_done: Callable[[Look], None] = lambda _: None
    has_begun: Callable[[Look], bool] | None = None
    code: int = exits.OK
    goes_on: bool = True
    also: frozenset[int] = frozenset()
    gives_again: bool = False
    every: int = 1

    def sweep(self) -> int:
        """Kill it at every step.

        SoftHSM writes the file about the token itself anew at a login, in place: whoever is killed within has no token
        any more, whatever scanseal does. Such a kill is neither judged nor counted.

        Returns:
            At how many.
        """
        self.machine.keep()
        before = self.machine.look()
        points = 0
        for step in range(1, _MOST, self.every):
            ended = self._trial(before, step)
            if not ended.was_killed:
                return points
            points += not ended.in_token_object
        raise AssertionError(f"more than {_MOST} steps")

    def _trial(self, before: Look, step: int) -> Ended:
        self.machine.restore()
        self.before()
        begun = self._issued()
        ended = self.machine.run(*self.words, kill_at=step, watched=True)
        where = f"killed at step {step}, before: {ended.calls[-1] if ended.calls else 'the first'}"
        said = self.machine.said
        if ended.was_killed and ended.in_token_object:
            return ended
        try:
            assert ended.was_killed or ended.code == self.code, f"it ended with {ended.code}"
            cut = self.machine.look()
            self._judge_cut(before, cut)
            issued = self._issued()
            self.machine.done(*(TIMER if self._has_begun(before, cut) else self.words), codes={self.code, *self.also})
            self._judge_done(before, cut, self.machine.look())
            if self.gives_again:
                assert self._issued() - begun <= len(self.brings), "issued twice"
            elif self._has_begun(before, cut):
                assert self._issued() - issued <= len(self.brings - self._brought(before, cut)), "issued twice"
        except AssertionError as failure:
            failure.add_note(f"{where}\nIt had said: {said}\nThen: {self.machine.said}")
            raise
        return ended

    def _issued(self) -> int:
        return self.issued() if self.issued else 0

    def _has_begun(self, before: Look, cut: Look) -> bool:
        if self.has_begun is not None:
            return self.has_begun(cut)
        begun = {*cut.journals, *cut.wanted, *self._brought(before, cut)}
        return begun >= self.brings

    def _brought(self, before: Look, cut: Look) -> set[str]:
        """The identities whose certificate is on the disk."""
        issued = {name for name, journal in cut.journals.items() if journal["step"] in _HAS_CERTIFICATE}
        return issued | {name for name in self.brings if _number(cut, name) > _number(before, name)}

    def _judge_cut(self, before: Look, cut: Look) -> None:
        assert not cut.damaged, cut.damaged
        for name in before.current:
            assert name in self.loses or _number(cut, name) >= _number(before, name), f"{name} is lost"
        assert cut.audited >= before.audited, "lines of the audit trail are lost"
        assert bool(cut.owner) >= bool(before.owner), "who owns the scanner is forgotten"
        self.check_cut(cut)

    def _judge_done(self, before: Look, cut: Look, done: Look) -> None:
        assert not done.damaged, done.damaged
        for name in (*before.current, *self.brings):
            if name not in self.loses:
                assert _number(done, name) >= _number(before, name) + (name in self.brings), f"{name} did not come"
        assert not self.loses & set(done.current)
        for name in {*done.journals, *done.wanted} & {*self.brings, *self.loses}:
            # What is left of the request for the certificate in use means nothing, and goes with the next one.
            assert done.journals.get(name, {"key": ""})["key"] in ("", done.current[name]["key"]), "one is left over"
        assert not done.releasing, "a release is left over"
        assert not done.orphans, f"keys that nothing names: {done.orphans}"
        for name in IdentityName:
            assert len(done.keys_of(name)) <= _KEPT - (name in self.loses) * _KEPT, f"old keys of {name} are left"
        for name in self.brings if self.goes_on else ():
            journal = cut.journals.get(name)
            if journal and journal["key"]:
                assert done.current[name]["key"] == journal["key"], f"the request for {name} began anew"
        assert done.audited >= cut.audited, "lines of the audit trail are lost"
        self.check_done(done)


def _number(look: Look, name: str) -> int:
    return int(look.current[name]["number"]) if name in look.current else 0


def tables_of(settings: EnrollSettings | DeviceSettings) -> dict[str, dict[str, Any]]:
    """The configuration file of settings, without what is as by default."""
    return {name: table for name, table in _tables("", settings) if table}


def _tables(name: str, settings: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    table: dict[str, Any] = {}
    inner: list[tuple[str, Any]] = []
    for each in dataclasses.fields(settings):
        value = getattr(settings, each.name)
        if dataclasses.is_dataclass(value):
            inner.append((f"{name}.{each.name}".lstrip("."), value))
        elif value is not None and value not in ({}, each.default):
            table[each.name] = _plain(value)
    yield name, table
    yield from itertools.chain.from_iterable(_tables(*each) for each in inner)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, StrEnum | Path) else value
