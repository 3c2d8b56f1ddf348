"""What a policy makes of one signature.

The steps, in order: 1 integrity, 2 coverage, 3 algorithms, 4 validity, revocation and compromise, 5 identity. A
signature that is broken or cannot be checked says nothing about the rest.

What the signer states as the time of signing is a claim and never helps. What counts is when the signature existed at
the latest: a certified time stamp, a record of the recipient's own, or the receipt itself prove that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from agent.dicom.report import IdentityLevel, Outcome, SignatureReport
from agent.policy.algorithms import hash_under, in_profile, key_class, key_of
from agent.policy.context import Context
from agent.policy.existence import Existence, existence_of, named_in
from agent.policy.judgement import Axes, CoverageAxis, CryptoAxis, IntegrityAxis, TimeAxis
from agent.policy.model import AlgorithmStatus, AlgorithmUse
from agent.policy.reason import Reason, codes_of
from agent.policy.signer import Signer, Standing, identify
from agent.policy.verdicts import Verdict
from enroll.foreign import printable

_LONGEST_NAME = 16  # characters of an algorithm in a message
_UNPROVEN = (
    "and no proof of an earlier time; say when you received it (--received), "
    "or whom you trust for its time stamp (--time-stamp-anchor)."
)
_REVOCATIONS = {Verdict.KEY_COMPROMISED: CryptoAxis.COMPROMISED, Verdict.REVOKED: CryptoAxis.REVOKED}
_BY_WORTH = {
    CryptoAxis.FORBIDDEN: (Verdict.ALGORITHM_FORBIDDEN, "is forbidden"),
    CryptoAxis.ANTIQUE_UNPROVEN: (Verdict.ANTIQUE_UNPROVEN, "is antique, and nothing proves that the signature is old"),
    CryptoAxis.ANTIQUE_PROVEN: (Verdict.ANTIQUE_PROVEN, "is antique, and the signature is known to be old"),
}
# Of such a signature nobody can say that a known signer made it for this instance.
UNSOUND = frozenset(
    (
        Verdict.BROKEN,
        Verdict.KEY_COMPROMISED,
        Verdict.REVOKED,
        Verdict.ALGORITHM_FORBIDDEN,
        Verdict.ANTIQUE_UNPROVEN,
        Verdict.VALID_WRONG_SIGNER,
        Verdict.VALID_UNKNOWN_SIGNER,
    )
)


@dataclass(frozen=True)
class _Used:
    """An algorithm that a signature rests on.

    Args:
        use: What for.
        name: As a policy names it; empty where nobody here can.
        where: Nothing for the signature itself, else of whom it is.
    """

    use: AlgorithmUse
    name: str
    where: str = ""

    def __str__(self) -> str:
        return f"{printable(self.name, _LONGEST_NAME) or 'an unnamed algorithm'}{self.where}"


@dataclass(frozen=True)
class _Worth:
    """What an algorithm is worth.

    Args:
        used: The algorithm.
        axis: Its worth.
        end: From when on only older signatures count, if there is such a day.
    """

    used: _Used
    axis: CryptoAxis
    end: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class JudgedSignature:
    """What a policy makes of a signature.

    Args:
        reasons: Its verdicts, at least one.
        standing: How well the signer is known.
        level: How closely the signature identifies the signer.
        axes: The same for programs; the expectation is not a matter of one signature.
        covered: The tags that it covers.
        rule_ids: The entries that were used.
        notes: What is to be said besides the reasons.
        non_profile: Whether PS3.15 C.1 does not name the kind of key.
    """

    reasons: tuple[Reason, ...]
    standing: Standing
    level: IdentityLevel = IdentityLevel.NONE
    axes: Axes
    covered: frozenset[int] = frozenset()
    rule_ids: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    non_profile: bool = False

    @property
    def sound(self) -> bool:
        """Whether a known signer did sign this, so that the signature may speak for the instance."""
        intact = self.axes.integrity is IntegrityAxis.INTACT
        return intact and not any(reason.verdict in UNSOUND for reason in self.reasons)


def judge_signature(signature: SignatureReport, context: Context) -> JudgedSignature:
    """What a policy makes of one signature of the data set.

    Args:
        signature: What was found.
        context: What it is judged by.
    """
    signer = identify(signature, context)
    existence = existence_of(signature.time, context)
    worths = [_worth(used, context, existence) for used in dict.fromkeys(_used(signature))]
    if signature.intact is not True:
        return _unchecked(signature, signer, worths)
    reasons = [
        *_coverage(signature),
        *_algorithms(worths),
        *_compromises(signature, context, existence),
        *_validity(signature, existence),
        *([signer.reason] if signer.reason else []),
    ]
    if not reasons:
        valid = Verdict.VALID if context.policy is None else Verdict.VALID_EXPECTED_SIGNER
        reasons.append(Reason(valid, "intact, fully covered, and signed by who should have signed."))
    return JudgedSignature(
        reasons=tuple(reasons),
        standing=signer.standing,
        level=signer.level,
        axes=_axes(reasons, worths, signature, signer, existence),
        covered=frozenset(signature.coverage.covered),
        rule_ids=signer.rule_ids,
        notes=tuple(_notes(worths, existence)),
        non_profile=not in_profile(signature.algorithms.key),
    )


def _unchecked(signature: SignatureReport, signer: Signer, worths: Sequence[_Worth]) -> JudgedSignature:
    """A signature that is broken or cannot be checked. Who signed only tells how much that weighs."""
    forbidden = [reason for reason in _algorithms(worths) if reason.verdict is Verdict.ALGORITHM_FORBIDDEN]
    if signature.intact is False:
        axis = IntegrityAxis.BROKEN
        reasons = [Reason(Verdict.BROKEN, f"not as it was signed, or malformed{codes_of(signature.integrity)}.")]
    else:
        axis = IntegrityAxis.INDETERMINATE
        unclear = Reason(Verdict.INDETERMINATE, f"it cannot be checked{codes_of(signature.integrity)}.")
        reasons = forbidden or [unclear]
    return JudgedSignature(reasons=tuple(reasons), standing=signer.standing, axes=Axes(integrity=axis))


def _coverage(signature: SignatureReport) -> Iterator[Reason]:
    coverage = signature.coverage
    if coverage.missing or coverage.outcome is not Outcome.PASSED:
        what = f"{len(coverage.missing)} elements that it should cover are not covered{codes_of(coverage)}."
        yield Reason(Verdict.VALID_PARTIAL_COVERAGE, what)


def _used(signature: SignatureReport) -> Iterator[_Used]:
    """What the signature was made with, and what the certificates that vouch for the signer were.

    The keys of authorities are a matter of the rules only where the verifier finds one of them weak: an owner who names
    the kinds of keys that may sign does not mean those of authorities.
    """
    yield _Used(AlgorithmUse.MAC, signature.algorithms.mac)
    yield _Used(AlgorithmUse.KEY, key_class(signature.algorithms.key))
    path = signature.chain.path
    for certificate in path[:-1]:
        if (name := hash_under(certificate)) is not None:
            yield _Used(AlgorithmUse.CERTIFICATE, name, " (under a certificate)")
    if _found(signature, "chain-weak"):
        for authority in path[1:]:
            yield _Used(AlgorithmUse.KEY, key_of(authority), " (the key of an authority)")


def _worth(used: _Used, context: Context, existence: Existence) -> _Worth:
    """What an algorithm is worth; what is current or deprecated becomes antique with the day `proof_before`."""
    rule = next((rule for rule in context.algorithms if rule.use is used.use and used.name in rule.names), None)
    if rule is None or rule.status is AlgorithmStatus.FORBIDDEN:
        return _Worth(used, CryptoAxis.FORBIDDEN)
    end = None if rule.proof_before is None else context.begin(rule.proof_before)
    if end is not None and (rule.status is AlgorithmStatus.ANTIQUE or context.now >= end):
        return _Worth(used, CryptoAxis.ANTIQUE_PROVEN if existence.latest < end else CryptoAxis.ANTIQUE_UNPROVEN, end)
    return _Worth(used, CryptoAxis.DEPRECATED if rule.status is AlgorithmStatus.DEPRECATED else CryptoAxis.CURRENT, end)


def _algorithms(worths: Sequence[_Worth]) -> Iterator[Reason]:
    for worth in worths:
        if worth.axis in _BY_WORTH:
            verdict, why = _BY_WORTH[worth.axis]
            yield Reason(verdict, f"{worth.used} {why}.")


def _notes(worths: Sequence[_Worth], existence: Existence) -> Iterator[str]:
    for worth in worths:
        if worth.axis is CryptoAxis.DEPRECATED:
            until = f", and from {worth.end:%Y-%m-%d} on proves nothing without a time stamp" if worth.end else ""
            yield f"{worth.used} is deprecated{until}: sign with a stronger one, and have older signatures stamped."
    if existence.disbelief:
        yield f"The time stamp proves nothing here: {existence.disbelief}."


def _compromises(signature: SignatureReport, context: Context, existence: Existence) -> Iterator[Reason]:
    compromises = () if context.policy is None else context.policy.compromises
    certificates = signature.chain.path or (signature.certificate,)
    names = named_in(filter(None, certificates)) if compromises else frozenset()
    for compromise in compromises:
        if {compromise.key_sha256, compromise.cert_sha256} & names and existence.latest >= compromise.since:
            since = f"{compromise.kind} since {compromise.since.isoformat()}"
            yield _ended(since, existence, compromise.id, by_others=compromise.by_others)


def _ended(since: str, existence: Existence, rule_id: str = "", *, by_others: bool) -> Reason:
    """The end of a key: older signatures stay good.

    Of a lawful use it matters whether this one is known to be newer; a key that others have signs what it wants.
    """
    if by_others:
        return Reason(Verdict.KEY_COMPROMISED, f"{since}, and no proof of an earlier time.", rule_id)
    if existence.proof is None:
        return Reason(Verdict.VALID_NO_TRUSTED_TIME, f"{since}, {_UNPROVEN}", rule_id)
    return Reason(Verdict.REVOKED, f"{since}, and the proven time is not earlier.", rule_id)


def _validity(signature: SignatureReport, existence: Existence) -> Iterator[Reason]:
    chain, time = signature.chain, signature.time
    if chain.path and existence.latest > _end(chain.path):
        yield Reason(Verdict.VALID_NO_TRUSTED_TIME, f"the certificate has expired, {_UNPROVEN}")
    for revocation in chain.revocations:
        if existence.latest >= revocation.at:
            since = f"the certificate was revoked on {revocation.at.isoformat()}"
            stated = f" ({revocation.reason})" if revocation.reason else ""
            yield _ended(f"{since}{stated}", existence, by_others=revocation.by_others)
    if _found(signature, "revocation-unknown"):
        yield Reason(Verdict.INDETERMINATE, "no current list says whether the certificate was revoked.")
    if time.outcome is Outcome.FAILED:
        yield Reason(Verdict.INDETERMINATE, f"the stated time of signing is suspect{codes_of(time)}.")


def _found(signature: SignatureReport, code: str) -> bool:
    """Whether the verifier noticed this in the chain."""
    return any(finding.code == code for finding in signature.chain.findings)


def _end(path: tuple[x509.Certificate, ...]) -> datetime:
    return min(certificate.not_valid_after_utc for certificate in path)


def _axes(
    reasons: Sequence[Reason],
    worths: Sequence[_Worth],
    signature: SignatureReport,
    signer: Signer,
    existence: Existence,
) -> Axes:
    verdicts = {reason.verdict for reason in reasons}
    crypto = [*(worth.axis for worth in worths), *(_REVOCATIONS[verdict] for verdict in verdicts & _REVOCATIONS.keys())]
    if Verdict.VALID_NO_TRUSTED_TIME in verdicts:
        time = TimeAxis.MISSING
    elif existence.proof is None:
        time = TimeAxis.NONE
    else:
        time = TimeAxis.CERTIFIED if existence.proof == signature.time.trusted else TimeAxis.RECORDED
    return Axes(
        integrity=IntegrityAxis.INTACT,
        coverage=CoverageAxis.PARTIAL if Verdict.VALID_PARTIAL_COVERAGE in verdicts else CoverageAxis.FULL,
        crypto=min(crypto, key=list(CryptoAxis).index),
        time=time,
        identity=signer.axis,
    )
