"""What an instance comes to: stable names, the action that follows from each, and the exit code.

The names, the actions by mode and the exit codes are a promise to other systems; docs/policy.md explains each.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from functools import cached_property


class Mode(StrEnum):
    """How much of an expectation is enforced. In order of strictness, the mildest first."""

    REPORT = "report"
    WARN = "warn"
    ENFORCE = "enforce"


class Action(StrEnum):
    """What happens to an instance; none destroys it. In order of strictness, the mildest first."""

    ACCEPT = "accept"
    FLAG = "flag"
    QUARANTINE = "quarantine"
    REFUSE = "refuse"

    @cached_property
    def strictness(self) -> int:
        """Larger for a stricter action."""
        return list(Action).index(self)


class Verdict(StrEnum):
    """What an instance is to this recipient. In order of weight, the worst first: it breaks ties between actions."""

    BROKEN = "BROKEN"
    KEY_COMPROMISED = "KEY_COMPROMISED"
    REVOKED = "REVOKED"
    ALGORITHM_FORBIDDEN = "ALGORITHM_FORBIDDEN"
    ANTIQUE_UNPROVEN = "ANTIQUE_UNPROVEN"
    UNSIGNED_VIOLATION = "UNSIGNED_VIOLATION"
    VALID_WRONG_SIGNER = "VALID_WRONG_SIGNER"
    VALID_UNKNOWN_SIGNER = "VALID_UNKNOWN_SIGNER"
    INDETERMINATE = "INDETERMINATE"
    DERIVED_UNVERIFIED_SOURCE = "DERIVED_UNVERIFIED_SOURCE"
    SYNTHETIC_UNVERIFIED = "SYNTHETIC_UNVERIFIED"
    VALID_NO_TRUSTED_TIME = "VALID_NO_TRUSTED_TIME"
    VALID_PARTIAL_COVERAGE = "VALID_PARTIAL_COVERAGE"
    VALID_VENDOR_ONLY = "VALID_VENDOR_ONLY"
    VALID_UNLISTED_DEVICE = "VALID_UNLISTED_DEVICE"
    ANTIQUE_PROVEN = "ANTIQUE_PROVEN"
    UNSIGNED_IN_GRACE = "UNSIGNED_IN_GRACE"
    UNSIGNED_NOT_YET_EXPECTED = "UNSIGNED_NOT_YET_EXPECTED"
    UNSIGNED_EXEMPT = "UNSIGNED_EXEMPT"
    UNSIGNED_NOT_COVERED = "UNSIGNED_NOT_COVERED"
    UNSIGNED = "UNSIGNED"  # only where no policy is given
    DERIVED_VERIFIED_SOURCES = "DERIVED_VERIFIED_SOURCES"
    VALID_EXPECTED_SIGNER = "VALID_EXPECTED_SIGNER"
    VALID = "VALID"  # only where no policy is given

    @cached_property
    def rank(self) -> int:
        """Its place in the order of weight, 0 for the worst."""
        return list(Verdict).index(self)


class ExitCode(IntEnum):
    """What `scanseal verify` ends with (docs/exit-codes.md)."""

    AS_EXPECTED = 0
    BROKEN = 1
    UNSIGNED_VIOLATION = 2
    VALID_WITH_RESERVATIONS = 3
    UNSIGNED = 4
    NOT_ACCEPTED = 5
    UNVERIFIED_SOURCE = 6
    INDETERMINATE = 7


_FINE = (Action.ACCEPT, Action.ACCEPT, Action.ACCEPT)
_NOTED = (Action.ACCEPT, Action.FLAG, Action.FLAG)
_FLAGGED = (Action.FLAG, Action.FLAG, Action.FLAG)
_STOPPED = (Action.FLAG, Action.FLAG, Action.QUARANTINE)

# The actions in the modes report, warn and enforce, and the exit code.
_TABLE: dict[Verdict, tuple[tuple[Action, Action, Action], ExitCode]] = {
    Verdict.BROKEN: (_STOPPED, ExitCode.BROKEN),
    Verdict.KEY_COMPROMISED: (_STOPPED, ExitCode.NOT_ACCEPTED),
    Verdict.REVOKED: (_STOPPED, ExitCode.NOT_ACCEPTED),
    Verdict.ALGORITHM_FORBIDDEN: (_STOPPED, ExitCode.NOT_ACCEPTED),
    Verdict.ANTIQUE_UNPROVEN: (_STOPPED, ExitCode.NOT_ACCEPTED),
    Verdict.UNSIGNED_VIOLATION: (_STOPPED, ExitCode.UNSIGNED_VIOLATION),
    Verdict.VALID_WRONG_SIGNER: (_STOPPED, ExitCode.VALID_WITH_RESERVATIONS),
    Verdict.VALID_UNKNOWN_SIGNER: (_STOPPED, ExitCode.VALID_WITH_RESERVATIONS),
    Verdict.INDETERMINATE: (_FLAGGED, ExitCode.INDETERMINATE),
    Verdict.DERIVED_UNVERIFIED_SOURCE: (_FLAGGED, ExitCode.UNVERIFIED_SOURCE),
    Verdict.SYNTHETIC_UNVERIFIED: (_FLAGGED, ExitCode.UNVERIFIED_SOURCE),
    Verdict.VALID_NO_TRUSTED_TIME: (_FLAGGED, ExitCode.VALID_WITH_RESERVATIONS),
    Verdict.VALID_PARTIAL_COVERAGE: (_FLAGGED, ExitCode.VALID_WITH_RESERVATIONS),
    Verdict.VALID_VENDOR_ONLY: (_NOTED, ExitCode.VALID_WITH_RESERVATIONS),
    Verdict.VALID_UNLISTED_DEVICE: (_NOTED, ExitCode.VALID_WITH_RESERVATIONS),
    Verdict.ANTIQUE_PROVEN: (_NOTED, ExitCode.VALID_WITH_RESERVATIONS),
    Verdict.UNSIGNED_IN_GRACE: (_FINE, ExitCode.UNSIGNED),
    Verdict.UNSIGNED_NOT_YET_EXPECTED: (_FINE, ExitCode.UNSIGNED),
    Verdict.UNSIGNED_EXEMPT: (_FINE, ExitCode.UNSIGNED),
    Verdict.UNSIGNED_NOT_COVERED: (_FINE, ExitCode.UNSIGNED),
    Verdict.UNSIGNED: (_FINE, ExitCode.UNSIGNED),
    Verdict.DERIVED_VERIFIED_SOURCES: (_FINE, ExitCode.AS_EXPECTED),
    Verdict.VALID_EXPECTED_SIGNER: (_FINE, ExitCode.AS_EXPECTED),
    Verdict.VALID: (_FINE, ExitCode.AS_EXPECTED),
}

EXIT_CODES = {verdict: code for verdict, (_, code) in _TABLE.items()}

# What `on` may make stricter but never milder: to relax them would be to accept an instance that is known to be false.
NEVER_RELAXED = frozenset((Verdict.BROKEN, Verdict.KEY_COMPROMISED, Verdict.REVOKED))


def default_action(verdict: Verdict, mode: Mode) -> Action:
    """What a verdict leads to where no rule says otherwise."""
    return _TABLE[verdict][0][list(Mode).index(mode)]
