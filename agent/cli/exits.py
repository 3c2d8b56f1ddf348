"""Exit codes. They are documented in docs/exit-codes.md and stay as they are.

Codes 1 to 7 are verdicts of `scanseal verify` (`agent.policy.verdicts.ExitCode`); the rest follows sysexits.h, which
keeps clear of them. Python's own 1 for a crash and 2 for a usage error are mapped away.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

import click

from agent.errors import (
    AgentError,
    AgentRefused,
    AlreadyRunning,
    DicomError,
    InputFileError,
    OutputFileError,
    PolicyError,
    RequestRefused,
    RoleNotAllowed,
    SigningError,
)
from enroll.errors import (
    CertificateRevoked,
    ConfigurationError,
    DeviceDisabled,
    DiskRefused,
    EnrollerBusy,
    EnrollmentError,
    EnrollmentRefused,
    EvidenceRefused,
    KeyStoreError,
    KeyStoreUnavailable,
    ScansealError,
    ServerUnreachable,
    StateError,
    TimeStampError,
    VoucherRefused,
)

OK = 0
USAGE = 64
INSTANCE_REFUSED = 65
NO_INPUT = 66
UNAVAILABLE = 69
INTERNAL = 70
OUTPUT = 73
TRY_LATER = 75
TIME_STAMP_REFUSED = 76
NOT_PERMITTED = 77
CONFIGURATION = 78
INTERRUPTED = 130

# What the agent's answer means for the command line; the rest is a request of ours that it did not understand.
_BY_STATUS = {
    403: NOT_PERMITTED,
    408: TRY_LATER,
    413: INSTANCE_REFUSED,
    422: INSTANCE_REFUSED,
    429: TRY_LATER,
    500: UNAVAILABLE,
    503: UNAVAILABLE,
    507: TRY_LATER,
}

# The first class that fits decides.
_BY_CLASS: tuple[tuple[type[ScansealError], int], ...] = (
    (DicomError, INSTANCE_REFUSED),
    (InputFileError, NO_INPUT),
    (OutputFileError, OUTPUT),
    (ConfigurationError, CONFIGURATION),
    (PolicyError, CONFIGURATION),
    (DiskRefused, UNAVAILABLE),
    (StateError, CONFIGURATION),
    (DeviceDisabled, NOT_PERMITTED),
    (AlreadyRunning, TRY_LATER),
    (EnrollerBusy, TRY_LATER),
    (TimeStampError, TIME_STAMP_REFUSED),
    (EvidenceRefused, CONFIGURATION),
    (VoucherRefused, CONFIGURATION),
    (RoleNotAllowed, NOT_PERMITTED),
    (EnrollmentRefused, NOT_PERMITTED),
    (CertificateRevoked, NOT_PERMITTED),
    (ServerUnreachable, UNAVAILABLE),
    (AgentError, UNAVAILABLE),
    (RequestRefused, USAGE),
    (SigningError, CONFIGURATION),
    (KeyStoreUnavailable, UNAVAILABLE),
    (KeyStoreError, CONFIGURATION),
    (EnrollmentError, UNAVAILABLE),
)


def exit_code(error: ScansealError) -> int:
    """The exit code of an error."""
    if isinstance(error, AgentRefused):
        return _BY_STATUS.get(error.status, USAGE)
    return next((code for kind, code in _BY_CLASS if isinstance(error, kind)), INTERNAL)


def described(error: ScansealError) -> dict[str, str]:
    """An error for programs."""
    return {
        "code": error.code,
        "what": error.what,
        "remedy": error.remedy,
        "who_must_act": error.who_must_act,
        "next": error.what_next,
    }


def told(described: Mapping[str, str]) -> list[str]:
    """The same for people, a line each: what happened, what to do, who has to act, what happens next."""
    to_act, what_next = f"To act: {described['who_must_act']}.", f"Next: {described['next']}"
    lines = [described["what"], described["remedy"], to_act, what_next]
    return [line for line in lines if line]


def check_command_name(name: str, known: Iterable[str]) -> None:
    """Say which command was probably meant.

    Raises:
        click.UsageError: There is no such command, but a similar one.
    """
    if name not in known and (near := difflib.get_close_matches(name, known, n=1)):
        raise click.UsageError(f"No such command {name!r}. Did you mean {near[0]!r}?")
