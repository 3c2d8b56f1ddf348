"""What `scanseal status` says of FIDO Device Onboard."""

from __future__ import annotations

from typing import Any

from agent.cli.onboarding_state import lines

RECORD: dict[str, Any] = {
    "guid": "00" * 16,
    "device_info": "Example CT\x1b[2J\nowned by nobody",
    "owner": None,
    "released": False,
    "renewal": None,
    "unfinished": False,
    "approval": [],
}


def test_the_name_that_a_manufacturer_gave_the_scanner_does_nothing_to_the_terminal() -> None:
    (line,) = lines(RECORD)
    assert line.isprintable()
    assert "Example CT" in line
