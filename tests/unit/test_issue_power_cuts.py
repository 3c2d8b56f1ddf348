"""The power may go at any moment of an enrollment: there is one matching pair afterwards, or none yet, never a mixture.

Each trial ends the transaction at another operation on the disk, just before it or just after. What a power cut does
within one operation is the matter of test_state_file.py.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from enroll.errors import KeyStoreError, StateError
from enroll.identity import Generation, IdentityName
from enroll.statefile import StateFiles
from tests.support.enrolling import CaFlow, Keyholder, Scanner, settings, with_memory_key
from tests.support.pki import HospitalCa

CA = HospitalCa()
ANCHORS = (CA.certificate,)
SIGNING = IdentityName.SIGNING


class PowerCut(BaseException):
    """Not an Exception: nothing in the program gets to handle it."""


class FailingFiles(StateFiles):
    """Works until the operation with the given number, counted from 1."""

    def __init__(self, last: int, error: BaseException, *, after: bool) -> None:
        self.left = last
        self.error = error
        self.after = after

    def _count(self, operation: Callable[[], None]) -> None:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise self.error
        operation()
        if self.left == 0:
            raise self.error

    def write(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        self._count(lambda: StateFiles.write(self, path, data, mode))

    def point(self, link: Path, target: str) -> None:
        self._count(lambda: StateFiles.point(self, link, target))

    def make_directory(self, path: Path, mode: int = 0o700) -> None:
        self._count(lambda: StateFiles.make_directory(self, path, mode))

    def rename(self, source: Path, target: Path) -> None:
        self._count(lambda: StateFiles.rename(self, source, target))

    def remove(self, path: Path) -> None:
        self._count(lambda: StateFiles.remove(self, path))


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cuts of these tests are between operations, so nothing has to reach the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def issue(scanner: Scanner) -> Generation:
    generation = scanner.issue(CaFlow(CA, scanner.clock))
    assert isinstance(generation, Generation)
    return generation


def prepared(folder: Path, generations: int) -> Path:
    folder.mkdir()
    scanner = Scanner(settings(folder), ANCHORS)
    for _ in range(generations):
        issue(scanner)
    return folder


def assert_sound(scanner: Scanner, generations: int) -> None:
    """One matching pair, the old or the new; then the next runs succeed and leave no key that nothing names."""
    current = scanner.matching_pair()
    numbers = {current.number} if current else {0}
    assert numbers <= {generations, generations + 1}

    renewed = issue(scanner)

    assert scanner.matching_pair() == renewed
    assert scanner.identities.journal(SIGNING).read() is None
    named = {scanner.identities.key_uri(SIGNING, number) for number in scanner.identities.generations(SIGNING)}
    assert set(scanner.stores.list()) <= named
    last = issue(scanner)
    assert set(scanner.stores.list()) == {renewed.key_uri, last.key_uri}


@pytest.mark.parametrize("generations", [0, 2])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_power_cut_leaves_a_matching_pair(tmp_path: Path, generations: int, *, after: bool) -> None:
    start = prepared(tmp_path / "start", generations)
    for operation in itertools.count(1):
        trial = tmp_path / f"trial-{operation}"
        shutil.copytree(start, trial, symlinks=True)
        try:
            issue(Scanner(settings(trial), ANCHORS, files=FailingFiles(operation, PowerCut(), after=after)))
        except PowerCut:
            assert_sound(Scanner(settings(trial), ANCHORS), generations)
        else:
            break
    assert operation > 20


@pytest.mark.parametrize("generations", [0, 2])
def test_a_full_disk_leaves_a_matching_pair(tmp_path: Path, generations: int) -> None:
    start = prepared(tmp_path / "start", generations)
    full = StateError("The disk is full.", remedy="Free some space.")
    for operation in itertools.count(1):
        trial = tmp_path / f"trial-{operation}"
        shutil.copytree(start, trial, symlinks=True)
        files = FailingFiles(operation, full, after=False)
        with contextlib.suppress(StateError, KeyStoreError):
            issue(Scanner(settings(trial), ANCHORS, files=files))
        if files.left > 0:
            break
        assert_sound(Scanner(settings(trial), ANCHORS), generations)
    assert operation > 20


# --- a key in memory


def offering(folder: Path, files: StateFiles | None = None) -> Keyholder:
    """The agent of a scanner whose enroller works with `files`."""
    return Keyholder(Scanner(with_memory_key(settings(folder)), ANCHORS, files=files))


def assert_offers_are_served(trial: Path, keyholder: Keyholder, generations: int) -> None:
    """What is in use belongs to a key that is held; then the offer is served, and a key of the agent's next process."""
    scanner = Scanner(with_memory_key(settings(trial)), ANCHORS)
    current = scanner.identities.current(SIGNING)
    assert (current.number if current else 0) in {generations, generations + 1}
    scanner.issue(CaFlow(CA, scanner.clock))
    served = keyholder.matching_pair()
    assert served is not None
    assert served.number > generations

    restarted = Keyholder(scanner)
    restarted.offer()
    issue(scanner)
    assert restarted.matching_pair() is not None
    assert scanner.identities.journal(SIGNING).read() is None


@pytest.mark.parametrize("generations", [0, 2])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_power_cut_of_the_enroller_costs_no_offer(tmp_path: Path, generations: int, *, after: bool) -> None:
    """The agent lives on, so its key and its offer do."""
    for operation in itertools.count(1):
        trial = tmp_path / f"trial-{operation}"
        trial.mkdir()
        keyholder = offering(trial, FailingFiles(operation, PowerCut(), after=after))
        whole = Scanner(with_memory_key(settings(trial)), ANCHORS)
        for _ in range(generations):
            keyholder.offer()
            issue(whole)
        keyholder.offer()
        try:
            issue(keyholder.scanner)
        except PowerCut:
            assert_offers_are_served(trial, keyholder, generations)
        else:
            break
    assert operation > 15


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_power_cut_of_the_scanner_costs_the_key_and_nothing_else(tmp_path: Path, *, after: bool) -> None:
    """The certificate may be there, for a key that is gone: the next one follows it."""
    for operation in itertools.count(1):
        trial = tmp_path / f"trial-{operation}"
        trial.mkdir()
        keyholder = offering(trial, FailingFiles(operation, PowerCut(), after=after))
        keyholder.offer()
        try:
            issue(keyholder.scanner)
        except PowerCut:
            started = offering(trial)
            started.offer()
            issue(started.scanner)
            assert started.matching_pair() is not None
            assert started.scanner.identities.journal(SIGNING).read() is None
        else:
            break
    assert operation > 15
