"""The power may go at any moment of an export, an import or a cancellation: nothing is lost that somebody carries.

Each trial ends a command at another operation on the disk, just before it or just after.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enroll.certificates import pem
from tests.support.by_hand import ByHand
from tests.support.pki import HospitalCa
from tests.unit.test_issue_power_cuts import FailingFiles, PowerCut

CA = HospitalCa()


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cuts of these tests are between operations, so nothing has to reach the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def cut_off(start: ByHand, act: Callable[[ByHand], object], *, after: bool) -> Iterator[ByHand]:
    """What a restart finds after `act` was cut off at its first operation, its second, and so on to its last."""
    for operation in itertools.count(1):
        trial = start.folder.with_name(f"trial-{operation}")
        shutil.copytree(start.folder, trial, symlinks=True)
        try:
            act(ByHand(trial, CA, files=FailingFiles(operation, PowerCut(), after=after)))
        except PowerCut:
            yield ByHand(trial, CA)
        else:
            break
    assert operation > 3


@pytest.fixture
def start(tmp_path: Path) -> ByHand:
    (tmp_path / "start").mkdir()
    return ByHand(tmp_path / "start", CA)


before_and_after = pytest.mark.parametrize("after", [False, True], ids=["before", "after"])


@before_and_after
def test_an_export_that_was_cut_off_is_gone_on_with_and_leaves_no_key(start: ByHand, *, after: bool) -> None:
    for left in cut_off(start, lambda by_hand: by_hand.export(), after=after):
        under_way = list(left.out())

        request, file = left.export(number=under_way[0] if under_way else "")

        assert list(left.out()) == [request.number]
        assert under_way in ([], [request.number])
        (generation,) = left.take_in(pem([left.granted(file)]))
        assert left.scanner.stores.list() == (generation.key_uri,)
        assert left.folders() == []


@before_and_after
@pytest.mark.parametrize("generations", [0, 1])
def test_the_same_answer_goes_on_with_an_import_that_was_cut_off(
    start: ByHand, generations: int, *, after: bool
) -> None:
    for _ in range(generations):
        start.take_in(pem([start.granted(start.export()[1])]))
    request, file = start.export()
    answer = pem([start.granted(file)])

    for left in cut_off(start, lambda by_hand: by_hand.take_in(answer), after=after):
        before = left.scanner.matching_pair()
        assert generations == 0 or before is not None
        if left.out():
            left.take_in(answer)

        in_use = left.scanner.matching_pair()
        assert in_use is not None
        assert in_use.key_uri == request.pending.key_uri
        left.export()
        assert len(left.folders()) == 1


@before_and_after
def test_a_cancellation_that_was_cut_off_is_made_again(start: ByHand, *, after: bool) -> None:
    request, _ = start.export()

    for left in cut_off(start, lambda by_hand: by_hand.desk.cancel(request.number), after=after):
        if left.out():
            left.desk.cancel(request.number)

        assert left.out() == {}
        assert left.scanner.stores.list() == ()
        left.export()
        assert len(left.folders()) == 1
