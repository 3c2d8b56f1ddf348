"""What a verification found: one frozen report, for programs and for people."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from cryptography import x509

from enroll.certificates import name_text


class Verdict(StrEnum):
    """What an instance is, with the names that a policy uses too. In order of weight: the first that fits is said."""

    BROKEN = "BROKEN"
    UNKNOWN_SIGNER = "VALID_UNKNOWN_SIGNER"
    INDETERMINATE = "INDETERMINATE"
    PARTIAL_COVERAGE = "VALID_PARTIAL_COVERAGE"
    VALID = "VALID"
    UNSIGNED = "UNSIGNED"


@dataclass(frozen=True)
class SignatureReport:
    """What is known of one signature.

    Args:
        uid: Digital Signature UID.
        signed_at: Digital Signature DateTime as written.
        algorithm: MAC Algorithm as written.
        intact: Whether the covered bytes are those that were signed; None where that cannot be checked.
        trusted: Whether the signer leads to an anchor, may sign, and was valid when it says it signed.
        reason: Why it is not intact, or not trusted; empty otherwise.
        covered: The covered tags.
        not_covered: Tags that are there and that the profile demands, but that are not covered.
        certificate: The signer's certificate, where there is one.
    """

    uid: str
    signed_at: str
    algorithm: str
    intact: bool | None
    trusted: bool
    reason: str
    covered: tuple[int, ...]
    not_covered: tuple[int, ...]
    certificate: x509.Certificate | None = field(repr=False)

    @property
    def signer(self) -> str:
        """The subject of the certificate, RFC 4514."""
        return name_text(self.certificate.subject) if self.certificate else ""

    @property
    def verdict(self) -> Verdict:
        """This signature on its own."""
        if self.intact is None:
            return Verdict.INDETERMINATE
        if not self.intact:
            return Verdict.BROKEN
        if not self.trusted:
            return Verdict.UNKNOWN_SIGNER
        return Verdict.PARTIAL_COVERAGE if self.not_covered else Verdict.VALID


@dataclass(frozen=True)
class VerificationReport:
    """What is known of an instance.

    Args:
        signatures: One report for each signature of the data set, in order.
    """

    signatures: tuple[SignatureReport, ...]

    @property
    def verdict(self) -> Verdict:
        """The instance as a whole: one broken signature breaks it, else the best signature counts."""
        verdicts = [signature.verdict for signature in self.signatures]
        if Verdict.BROKEN in verdicts:
            return Verdict.BROKEN
        ranking = (Verdict.VALID, Verdict.PARTIAL_COVERAGE, Verdict.UNKNOWN_SIGNER, Verdict.INDETERMINATE)
        return next((verdict for verdict in ranking if verdict in verdicts), Verdict.UNSIGNED)
