"""R3: the power goes at any moment while a scanner signs and renews; what its disk holds then is a scanner that works.

The disk is an ext4 on a file, and a cut is a copy of that file (`tests/support/reliability/power_cut.py`). The control
is the same without fsync: there the judge has to find damage, or it would find none here, either.
"""

from __future__ import annotations

import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.audit import SYNCED_WITHIN
from agent.cli import exits
from enroll.identity import IdentityName
from tests.support.reliability.kill_points import Commands
from tests.support.reliability.kill_stages import Hospital, machine
from tests.support.reliability.kill_sweep import Machine
from tests.support.reliability.measured import measured
from tests.support.reliability.power_cut import NEVER_BY_ITSELF, cut, make_disk, mounted, skip_without_disks
from tests.support.reliability.signing_agent import SigningAgent, agent_tables, audited_digests

CUTS = 50
CONTROL_CUTS = 8
SEED = 20261123
LONGEST = 0.5  # seconds between two cuts
MARGIN = 1.0  # seconds; the machine of the tests has other things to do, too
IN_MEMORY = Path("/dev/shm")
FORCED = ("renew", "--force")


@dataclass
class Site:
    """A scanner on a disk of its own that signs and renews without end, and what it has promised.

    Args:
        folder: Of its own.
        stack: Ends everything.
        synced: Whether its programs may sync.
    """

    folder: Path
    stack: ExitStack
    synced: bool = True
    renewed: list[tuple[float, int]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.over = threading.Event()
        self.renewing = 0  # the process
        self.stood = 0.0  # seconds
        self.image, self.copy = self.folder / "disk", self.folder / "copy"
        self.disk, self.place = self.folder / "mounted", self.folder / "mounted-copy"
        make_disk(self.image)

    def start(self) -> None:
        """Enroll, and begin."""
        enter = self.stack.enter_context
        hospital = Hospital(self.folder / "ca")
        enter(hospital.today())
        enter(mounted(self.image, self.disk, *(() if self.synced else NEVER_BY_ITSELF)))
        self.tables: dict[str, dict[str, Any]] = {"est": hospital.table, **agent_tables(self.folder)}
        self.scanner = self._machine(self.folder / "scanner", self.disk)
        self.cut_off = self._machine(self.folder / "cut-off", self.place)
        self.scanner.done("enroll", "est")
        self.agent = SigningAgent(self.scanner, enter(Commands()), clock=self.clock)
        self.agent.start(synced=self.synced)
        self.stack.callback(self.agent.stop)
        assert self.agent.sign(), self.agent.said
        os.sync()
        for work in (self._sign, self._renew):
            thread = threading.Thread(target=work)
            thread.start()
            self.stack.callback(thread.join)
        self.stack.callback(self.over.set)

    def clock(self) -> float:
        """The seconds in which the programs ran."""
        return time.monotonic() - self.stood

    @contextmanager
    def _time_stands_still(self) -> Iterator[None]:
        begin = time.monotonic()
        try:
            yield
        finally:
            self.stood += time.monotonic() - begin

    def _machine(self, folder: Path, disk: Path) -> Machine:
        folder.mkdir()
        tables = {**self.tables, "": {"state_directory": str(disk / "state")}}
        return machine(folder, self.stack.enter_context(Commands()), tables)

    def _sign(self) -> None:
        while not self.over.is_set():
            if not self.agent.sign():
                self.failures.append(f"the agent has ended: {self.agent.said}")
                return
            time.sleep(0.01)

    def _renew(self) -> None:
        scanner = self.scanner
        while not self.over.is_set():
            order = replace(scanner.order(FORCED), synced=self.synced)
            self.renewing = scanner.commands.start(order)
            code = scanner.commands.wait().code
            if code != exits.OK:
                self.failures.append(f"not renewed: {scanner.said}")
                return
            target = (scanner.state / "identities" / IdentityName.SIGNING / "current").readlink()
            self.renewed.append((self.clock(), int(target.name)))

    def cut(self) -> None:
        """The power goes now. Then the scanner starts; it must be what it has promised, and renew."""
        assert not self.failures, self.failures
        moment = self.clock()
        signed = {digest for at, digest in list(self.agent.signed) if at < moment - SYNCED_WITHIN - MARGIN}
        promised = max((number for at, number in list(self.renewed) if at < moment), default=1)
        writers = [self.agent.process, *filter(None, [self.renewing])]
        with cut(self.image, self.copy, writers), self._time_stands_still(), mounted(self.copy, self.place):
            audited = audited_digests(self.cut_off.state)
            assert signed <= audited, f"{len(signed - audited)} of {len(signed)} signatures are not in the trail"
            found = self.cut_off.look()
            assert not found.damaged, found.damaged
            number = found.current[IdentityName.SIGNING]["number"]
            assert number >= promised, f"generation {promised} is gone, {number} is in use"
            self.cut_off.done(*FORCED)
            found = self.cut_off.look()
            assert not found.damaged, found.damaged
            assert found.current[IdentityName.SIGNING]["number"] > number
            assert not found.orphans, found.orphans


@contextmanager
def running(*, synced: bool = True) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder, ExitStack() as stack:
        skip_without_disks(Path(folder))
        site = Site(Path(folder), stack, synced)
        site.start()
        yield site


def test_a_scanner_whose_power_goes_at_any_moment_loses_nothing_that_it_has_promised() -> None:
    chance = random.Random(SEED)  # noqa: S311 - moments, the same in every run
    with running() as site:
        for number in range(1, CUTS + 1):
            time.sleep(chance.uniform(0, LONGEST))
            try:
                site.cut()
            except AssertionError as failure:
                failure.add_note(f"cut {number} of seed {SEED}")
                raise
        renewals, signatures = len(site.renewed), len(site.agent.signed)

    measured("R3", "power cuts", cuts=CUTS, bad=0, renewals=renewals, signatures=signatures, seed=SEED)
    assert renewals > CUTS // 5
    assert signatures > CUTS


def test_without_fsync_the_same_judge_finds_damage() -> None:
    chance = random.Random(SEED)  # noqa: S311 - as above
    bad = 0
    with running(synced=False) as site:
        while len(site.renewed) < 2 or site.clock() < site.agent.signed[0][0] + 2 * (SYNCED_WITHIN + MARGIN):
            time.sleep(LONGEST)
        for _ in range(CONTROL_CUTS):
            time.sleep(chance.uniform(0, LONGEST))
            bad += is_damaged(site)
        failures = site.failures

    measured("R3", "power cuts without fsync, which must be seen", cuts=CONTROL_CUTS, bad=bad)
    assert failures == []
    assert bad > 0


def is_damaged(site: Site) -> bool:
    """What the judge stumbles over may be anything."""
    try:
        site.cut()
    except Exception:  # noqa: BLE001 - as above; AssertionError is one, too
        return True
    return False
