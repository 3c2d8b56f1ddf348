"""Images that were not signed are counted, and the audit trail hears of them without being filled by them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.audit import AuditTrail
from agent.daemon.tally import INTERVAL, SigningTally
from agent.daemon.wire import Role
from agent.errors import SigningError
from tests.support.agent_process import Scanner, new_scanner
from tests.support.clocks import SteppedClock


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Scanner]:
    with new_scanner(tmp_path) as scanner:
        scanner.audit_file.parent.mkdir()
        yield scanner


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def tally(scanner: Scanner, clock: SteppedClock) -> Iterator[SigningTally]:
    audit = AuditTrail(scanner.audit_file, clock)
    clock.sleep(100)
    yield SigningTally(audit, clock, clock.monotonic())
    audit.close()


def failure(code: str) -> SigningError:
    return SigningError("The token is gone.", remedy="Put it back.", code=code)


def test_what_is_not_signed_is_counted_since_the_start_and_since_the_last_signature(tally: SigningTally) -> None:
    for _ in range(3):
        tally.unsigned(Role.ACQUISITION, failure("awaiting-certificate"))
    tally.signed(Role.ACQUISITION)
    tally.unsigned(Role.ACQUISITION, failure("signing-failed"))

    assert tally.figures()["unsigned"] == {"since_start": 4, "since_last_signature": 1}


def test_the_time_to_the_first_signature_is_kept(tally: SigningTally, clock: SteppedClock) -> None:
    assert tally.figures()["first_signature_seconds"] is None
    for _ in range(2):
        clock.sleep(1.5)
        tally.signed(Role.ACQUISITION)

    assert tally.figures()["first_signature_seconds"] == 1.5


def test_a_burst_is_one_line_every_ten_seconds(tally: SigningTally, clock: SteppedClock, scanner: Scanner) -> None:
    for _ in range(int(2.5 * INTERVAL)):
        tally.unsigned(Role.ACQUISITION, failure("awaiting-certificate"))
        tally.write()
        clock.sleep(1)
    tally.write(at_once=True)

    assert [line["count"] for line in scanner.audit("images-unsigned")] == [1, 10, 10, 4]


def test_when_signing_goes_on_the_rest_is_written(tally: SigningTally, clock: SteppedClock, scanner: Scanner) -> None:
    tally.unsigned(Role.ACQUISITION, failure("key-expired"))
    tally.write()
    for _ in range(2):
        tally.unsigned(Role.ACQUISITION, failure("key-expired"))
    tally.unsigned(Role.ACQUISITION, failure("awaiting-certificate"))
    tally.write()
    assert len(scanner.audit("images-unsigned")) == 1

    tally.signed(Role.ACQUISITION)
    tally.write()
    tally.write()
    assert scanner.audit("images-unsigned")[1:] == [
        {"count": 2, "code": "key-expired"},
        {"count": 1, "code": "awaiting-certificate"},
    ]


def test_without_a_loss_nothing_is_written(tally: SigningTally, clock: SteppedClock, scanner: Scanner) -> None:
    tally.signed(Role.ACQUISITION)
    clock.sleep(2 * INTERVAL)
    tally.write(at_once=True)

    assert scanner.audit("images-unsigned") == []


def test_the_log_hears_of_the_first_image_of_a_row_and_of_the_end_of_the_row(
    tally: SigningTally, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for images in (3, 1):
        for _ in range(images):
            tally.unsigned(Role.ACQUISITION, failure("key-store-unavailable"))
        for _ in range(2):
            tally.signed(Role.ACQUISITION)

    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert lines == [
        ("ERROR", "Images are not signed: The token is gone. Put it back."),
        ("INFO", "Signing goes on; 3 images went unsigned."),
        ("ERROR", "Images are not signed: The token is gone. Put it back."),
        ("INFO", "Signing goes on; 1 image went unsigned."),
    ]


def test_a_role_that_signs_does_not_end_the_row_of_one_that_does_not(
    tally: SigningTally, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise every image would make a line."""
    for _ in range(3):
        tally.unsigned(Role.SYNTHESIS, failure("key-damaged"))
        tally.signed(Role.ACQUISITION)

    assert len(caplog.records) == 1
