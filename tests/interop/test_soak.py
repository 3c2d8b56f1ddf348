"""The script that signs for half an hour works, on a few seconds of it; and it finds what it looks for. R18."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.audit import AuditSummary
from scripts.benchmark import enrolled
from scripts.soak import Figures, Images, keep, soak
from tests.support.agent_process import needs_root_to_look_inside
from tests.support.reliability.load import Report
from tests.support.reliability.processes import Held

SECONDS = 6.0
HELD = Held(resident=25 << 20, descriptors=20)
GOOD = Figures(
    Report(signed=1000, seconds=2.0),
    Images(signed=10),
    begin=(HELD, HELD),
    end=(HELD, HELD),
    lines=1011,
    audit=AuditSummary(1013, (), "0" * 64),
    before=1,
)


@needs_root_to_look_inside
def test_a_few_seconds_of_signing_leave_nothing_behind(tmp_path: Path) -> None:
    figures = soak(enrolled(tmp_path), SECONDS)
    keep(figures, SECONDS / 60)

    assert figures.report.failures == figures.images.failures == []
    assert figures.report.signed > 100
    assert figures.images.signed > 0
    assert figures.lines == figures.given_out
    assert [one.descriptors for one in figures.end] == [one.descriptors for one in figures.begin]
    # A few seconds say nothing of memory: it is that of the first requests still.


def test_a_good_run_has_no_faults() -> None:
    assert GOOD.faults() == []
    assert dict(GOOD.rows())["signatures of digests, all right"] == "1,000 (500 a second)"


@pytest.mark.parametrize(
    ("figures", "fault"),
    [
        (replace(GOOD, report=Report(failures=["no answer"])), "no answer"),
        (replace(GOOD, images=Images(10, ["busy: All connections are in use."])), "busy"),
        (replace(GOOD, end=(HELD, replace(HELD, descriptors=21))), "worker 1: 20 descriptors have become 21"),
        (
            replace(GOOD, end=(replace(HELD, resident=(25 << 20) + (600 << 10)), HELD)),
            "keyholder: 25.0 MiB have become 25.6 MiB",
        ),
        (replace(GOOD, lines=1010), "1011 signatures were given out, and 1010 recorded"),
        (replace(GOOD, lines=1012), "1011 signatures were given out, and 1012 recorded"),
        (replace(GOOD, audit=AuditSummary(1013, (7,), "0" * 64)), "torn lines"),
    ],
    ids=["failure", "image", "descriptors", "memory", "line missing", "too many lines", "torn"],
)
def test_what_is_not_as_it_should_be_is_named(figures: Figures, fault: str) -> None:
    assert any(fault in found for found in figures.faults())
