"""What goes into an evaluation besides the report and the policy, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from agent.dicom.report import IdentityLevel
from agent.policy.verdicts import EXIT_CODES, Action, ExitCode, Verdict


@dataclass(frozen=True)
class Receipt:
    """What the recipient itself observed of an instance: nothing of it can be backdated by whoever sent it.

    Args:
        received_at: When the recipient first received it, aware. This day decides whether a signature is expected.
        sending_ae: The application entity title that sent it; empty where it came on another way.
        first_seen_signed: Whether this SOP Instance UID was recorded as signed before.
        known_since: Since when a record of the recipient's own proves that the instance existed, signatures
            included; aware, None where there is no such record.
    """

    received_at: datetime
    sending_ae: str = ""
    first_seen_signed: bool = False
    known_since: datetime | None = None


class IntegrityAxis(StrEnum):
    """Whether the bytes are those that were signed."""

    NONE = "none"  # no signature
    INTACT = "intact"
    BROKEN = "broken"
    INDETERMINATE = "indeterminate"


class CoverageAxis(StrEnum):
    """Whether the signature covers what it should."""

    NONE = "none"  # no signature that counts
    FULL = "full"
    PARTIAL = "partial"


class CryptoAxis(StrEnum):
    """What the signature is worth cryptographically. In order of weight, the worst first."""

    COMPROMISED = "compromised"
    REVOKED = "revoked"
    FORBIDDEN = "forbidden"
    ANTIQUE_UNPROVEN = "antique-unproven"
    ANTIQUE_PROVEN = "antique-proven"
    DEPRECATED = "deprecated"
    CURRENT = "current"
    NONE = "none"  # no signature that counts


class TimeAxis(StrEnum):
    """What proves when the signature existed."""

    CERTIFIED = "certified"  # a time stamp that verifies
    RECORDED = "recorded"  # the recipient's own record
    NONE = "none"
    MISSING = "missing"  # none, and it would be needed: the certificate has ended


class IdentityAxis(StrEnum):
    """Who signed."""

    NONE = "none"  # no signature that counts
    UNKNOWN = "unknown"
    WRONG = "wrong"  # another signer than the policy or the image names
    VENDOR_ONLY = "vendor-only"
    UNLISTED = "unlisted"
    EXPECTED = "expected"
    TRUSTED = "trusted"  # leads to an anchor; no policy says more


class ExpectationAxis(StrEnum):
    """What the policy expects, and whether it is there."""

    NONE = "none"  # no policy
    MET = "met"
    VIOLATED = "violated"
    IN_GRACE = "in-grace"
    NOT_YET = "not-yet"
    EXEMPT = "exempt"
    NOT_COVERED = "not-covered"  # no rule speaks


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Six independent answers, for programs that do not want to parse verdicts.

    Of several signatures, the first five tell of the one that supplies the verdict.
    """

    integrity: IntegrityAxis = IntegrityAxis.NONE
    coverage: CoverageAxis = CoverageAxis.NONE
    crypto: CryptoAxis = CryptoAxis.NONE
    time: TimeAxis = TimeAxis.NONE
    identity: IdentityAxis = IdentityAxis.NONE
    expectation: ExpectationAxis = ExpectationAxis.NONE


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What an instance is to this recipient, and why.

    Args:
        verdict: The headline.
        action: What follows, by the mode of the rule in force.
        beside: All other verdicts, the worst first.
        axes: The same in six independent answers.
        identity_level: How closely a signature that counts identifies the signer.
        rule_ids: The entries of the policy that decided, in the order in which they were used.
        explanation: For people, a line for each verdict and for what else matters. Holds no data of patients.
        policy_stale: Whether the policy has expired; its rules still stand.
        not_clinical: Whether a good signature covers a marker that says phantom, quality control, training and so on.
        stripped: Whether a signature was there once and is there no more.
        non_profile: Whether the signature uses a kind of key that PS3.15 C.1 does not name.
    """

    verdict: Verdict
    action: Action
    beside: tuple[Verdict, ...] = ()
    axes: Axes
    identity_level: IdentityLevel = IdentityLevel.NONE
    rule_ids: tuple[str, ...] = ()
    explanation: tuple[str, ...] = ()
    policy_stale: bool = False
    not_clinical: bool = False
    stripped: bool = False
    non_profile: bool = False

    @property
    def exit_code(self) -> ExitCode:
        """The code of the verdict; never that of an expected one for an instance that is not accepted."""
        code = EXIT_CODES[self.verdict]
        accepted = code is not ExitCode.AS_EXPECTED or self.action is Action.ACCEPT
        return code if accepted else ExitCode.VALID_WITH_RESERVATIONS
