"""What a policy makes of one signature.

The steps, in order: 1 integrity, 2 coverage, 3 algorithms, 4 validity, revocation and compromise, 5 identity. A
signature that is broken or cannot be checked says nothing about the rest.

What the signer states as the time of signing is a claim and never helps. What counts is when the signature existed at
the latest: a certified time stamp, a record of the recipient's own, or the receipt itself prove that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from agent.dicom.report import IdentityLevel, Outcome, SignatureReport
from agent.policy.algorithms import in_profile, key_class
from agent.policy.judgement import Axes, CoverageAxis, CryptoAxis, IntegrityAxis, TimeAxis
from agent.policy.model import AlgorithmStatus, AlgorithmUse, Compromise
from agent.policy.reason import Context, Existence, Reason, codes_of
from agent.policy.signer import Signer, Standing, identify
from agent.policy.verdicts import Verdict
from enroll.certificates import PARSE_ERRORS, public_key_info
from enroll.foreign import printable

_Worths: TypeAlias = Sequence[tuple[str, CryptoAxis]]  # by the name of the algorithm

_LONGEST_NAME = 16  # characters of an algorithm in a message
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
        """Whether a known signer did sign this, so that the signature speaks for the instance."""
        intact = self.axes.integrity is IntegrityAxis.INTACT
        return intact and not any(reason.verdict in UNSOUND for reason in self.reasons)


def judge_signature(signature: SignatureReport, context: Context) -> JudgedSignature:
    """What a policy makes of one signature of the data set.

    Args:
        signature: What was found.
        context: What it is judged by.
    """
    signer = identify(signature, context)
    existence = Existence.of(signature.time.trusted, context.receipt)
    worths = [(name, _worth(use, name, context, existence)) for use, name in _used(signature, context)]
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
        notes=tuple(f"{name} is deprecated." for name, worth in worths if worth is CryptoAxis.DEPRECATED),
        non_profile=not in_profile(signature.algorithms.key),
    )


def _unchecked(signature: SignatureReport, signer: Signer, worths: _Worths) -> JudgedSignature:
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


def _used(signature: SignatureReport, context: Context) -> Iterator[tuple[AlgorithmUse, str]]:
    """What the signature was made with, and the certificates below the anchor if there are rules for them."""
    yield AlgorithmUse.MAC, signature.algorithms.mac
    yield AlgorithmUse.KEY, key_class(signature.algorithms.key)
    if any(rule.use is AlgorithmUse.CERTIFICATE for rule in context.algorithms):
        for certificate in signature.chain.path[:-1]:
            if algorithm := certificate.signature_hash_algorithm:  # Ed25519 and its like have no hash of their own
                yield AlgorithmUse.CERTIFICATE, algorithm.name.upper()


def _worth(use: AlgorithmUse, name: str, context: Context, existence: Existence) -> CryptoAxis:
    """What an algorithm is worth; what is current or deprecated becomes antique with the day `proof_before`."""
    rule = next((rule for rule in context.algorithms if rule.use is use and name in rule.names), None)
    if rule is None or rule.status is AlgorithmStatus.FORBIDDEN:
        return CryptoAxis.FORBIDDEN
    if rule.proof_before is not None:
        end = context.begin(rule.proof_before)
        if rule.status is AlgorithmStatus.ANTIQUE or context.now >= end:
            return CryptoAxis.ANTIQUE_PROVEN if existence.latest < end else CryptoAxis.ANTIQUE_UNPROVEN
    return CryptoAxis.DEPRECATED if rule.status is AlgorithmStatus.DEPRECATED else CryptoAxis.CURRENT


def _algorithms(worths: _Worths) -> Iterator[Reason]:
    for name, worth in worths:
        if worth in _BY_WORTH:
            verdict, why = _BY_WORTH[worth]
            yield Reason(verdict, f"{printable(name, _LONGEST_NAME) or 'an unnamed algorithm'} {why}.")


def _compromises(signature: SignatureReport, context: Context, existence: Existence) -> Iterator[Reason]:
    compromises = () if context.policy is None else context.policy.compromises
    certificates = signature.chain.path or (signature.certificate,)
    named = {name for certificate in certificates if compromises and certificate for name in _hashes(certificate)}
    for compromise in compromises:
        if {compromise.key_sha256, compromise.cert_sha256} & named and existence.latest >= compromise.since:
            yield _compromised(compromise, existence)


def _compromised(compromise: Compromise, existence: Existence) -> Reason:
    since = f"{compromise.kind} since {compromise.since.isoformat()}"
    if compromise.by_others:
        return Reason(Verdict.KEY_COMPROMISED, f"{since}, and no proof of an earlier time.", compromise.id)
    return _revoked(since, existence, compromise.id)


def _revoked(since: str, existence: Existence, rule_id: str = "") -> Reason:
    """The end of a lawful use: older signatures stay good, so that it matters whether this one is known to be newer."""
    if existence.proof is None:
        return Reason(Verdict.VALID_NO_TRUSTED_TIME, f"{since}, and no proof of an earlier time.", rule_id)
    return Reason(Verdict.REVOKED, f"{since}, and the proven time is not earlier.", rule_id)


def _hashes(certificate: x509.Certificate) -> Iterator[str]:
    """SHA-256 of the certificate and of its key."""
    yield certificate.fingerprint(hashes.SHA256()).hex()
    try:
        key = public_key_info(certificate.public_key())
    except PARSE_ERRORS:
        return  # a kind of key that nobody here can name
    yield hashlib.sha256(key).hexdigest()


def _validity(signature: SignatureReport, existence: Existence) -> Iterator[Reason]:
    chain, time = signature.chain, signature.time
    expired = any(finding.code == "certificate-expired" for finding in (*chain.findings, *time.findings))
    if chain.path and expired and existence.latest > _end(chain.path):
        yield Reason(Verdict.VALID_NO_TRUSTED_TIME, "the certificate has expired, and no proof of an earlier time.")
    if chain.revoked_at is not None and existence.latest >= chain.revoked_at:
        yield _revoked(f"the certificate was revoked on {chain.revoked_at.isoformat()}", existence)
    if time.outcome is Outcome.FAILED:
        yield Reason(Verdict.INDETERMINATE, f"the signer's clock is suspect{codes_of(time)}.")


def _end(path: tuple[x509.Certificate, ...]) -> datetime:
    return min(certificate.not_valid_after_utc for certificate in path)


def _axes(
    reasons: Sequence[Reason], worths: _Worths, signature: SignatureReport, signer: Signer, existence: Existence
) -> Axes:
    verdicts = {reason.verdict for reason in reasons}
    crypto = [*(worth for _, worth in worths), *(_REVOCATIONS[verdict] for verdict in verdicts & _REVOCATIONS.keys())]
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
