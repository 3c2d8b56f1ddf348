"""Names, actions and exit codes of verdicts are promises: here they are written out a second time."""

from __future__ import annotations

from typing import Final

import pytest

from agent.policy.verdicts import EXIT_CODES, NEVER_RELAXED, Action, Mode, Verdict, default_action

PROMISED: Final = """
BROKEN                     flag    flag    quarantine  1
KEY_COMPROMISED            flag    flag    quarantine  5
REVOKED                    flag    flag    quarantine  5
ALGORITHM_FORBIDDEN        flag    flag    quarantine  5
ANTIQUE_UNPROVEN           flag    flag    quarantine  5
UNSIGNED_VIOLATION         flag    flag    quarantine  2
VALID_WRONG_SIGNER         flag    flag    quarantine  3
VALID_UNKNOWN_SIGNER       flag    flag    quarantine  3
INDETERMINATE              flag    flag    flag        7
DERIVED_UNVERIFIED_SOURCE  flag    flag    flag        6
SYNTHETIC_UNVERIFIED       flag    flag    flag        6
VALID_NO_TRUSTED_TIME      flag    flag    flag        3
VALID_PARTIAL_COVERAGE     flag    flag    flag        3
VALID_VENDOR_ONLY          accept  flag    flag        3
VALID_UNLISTED_DEVICE      accept  flag    flag        3
ANTIQUE_PROVEN             accept  flag    flag        3
UNSIGNED_IN_GRACE          accept  accept  accept      4
UNSIGNED_NOT_YET_EXPECTED  accept  accept  accept      4
UNSIGNED_EXEMPT            accept  accept  accept      4
UNSIGNED_NOT_COVERED       accept  accept  accept      4
UNSIGNED                   accept  accept  accept      4
DERIVED_VERIFIED_SOURCES   accept  accept  accept      0
VALID_EXPECTED_SIGNER      accept  accept  accept      0
VALID                      accept  accept  accept      0
"""
ROWS: Final = [line.split() for line in PROMISED.strip().splitlines()]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_follows_from_a_verdict(row: list[str]) -> None:
    verdict = Verdict(row[0])

    assert [default_action(verdict, mode) for mode in Mode] == row[1:4]
    assert EXIT_CODES[verdict] == int(row[4])


def test_the_order_is_the_order_of_weight() -> None:
    assert [verdict.value for verdict in Verdict] == [row[0] for row in ROWS]
    assert [verdict.rank for verdict in Verdict] == list(range(len(ROWS)))
    assert EXIT_CODES.keys() == set(Verdict)


@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_stricter_mode_never_has_a_milder_action(verdict: Verdict) -> None:
    actions = [default_action(verdict, mode).strictness for mode in Mode]

    assert actions == sorted(actions)


def test_no_verdict_refuses_a_transfer_by_default() -> None:
    assert all(default_action(verdict, mode) is not Action.REFUSE for verdict in Verdict for mode in Mode)


def test_what_is_never_relaxed_is_about_integrity_and_compromise() -> None:
    assert {Verdict.BROKEN, Verdict.KEY_COMPROMISED, Verdict.REVOKED} == NEVER_RELAXED
