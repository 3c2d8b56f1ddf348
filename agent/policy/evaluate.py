"""What an instance is to this recipient: facts, receipt, policy and time in; a judgement out. Pure.

The order of the steps is fixed: 1 integrity, 2 coverage, 3 algorithms, 4 validity, revocation and compromise,
5 identity, each for every signature (`signature.py`, `signer.py`); 6 content class; 7 expectation, for every instance,
whatever step 6 said (`expectation.py`); 8 action by mode. The headline is the verdict with the strictest action; of
equally strict ones, the one that stands first in `Verdict`.

Several signatures. Anybody can append one, so an appended one must change neither a good verdict nor a bad one:

- A sound signature (a known signer did sign this) speaks for the instance. Whatever is said of the others stands
  beside its verdict, and unsound ones raise the action to a flag at most.
- That protects it only from signers who are not better known than its own: where the very device's signature is broken
  and somebody below a vendor-wide key has signed as well, the instance is broken.
- Without a sound signature all of them count, and the worst has the headline.
  Nothing is treated more mildly then than an instance without any signature: otherwise one that nobody can check, or
  that somebody made for himself, would make up for the one that is missing.

What an instance says of itself chooses the entries that speak of it, and anybody can write what no signature covers. A
signed instance is therefore judged twice, by what its signatures cover and by all that it says, and the stricter
judgement stands: what is not covered never makes anything milder, and to cover less is no way around an entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache, partial
from typing import TypeAlias

from agent.dicom.report import ContentClass, Finding, IdentityLevel, InstanceReport, Outcome, SignatureReport
from agent.policy.context import Context
from agent.policy.expectation import NOTHING, Expectation, expectation, sources_demanded
from agent.policy.judgement import Axes, ExpectationAxis, Judgement, Receipt
from agent.policy.match import Applicable, applicable
from agent.policy.model import Entry, Policy
from agent.policy.reason import Reason
from agent.policy.signature import UNSOUND, JudgedSignature, judge_signature
from agent.policy.signer import Standing
from agent.policy.verdicts import Action, Mode, Verdict, default_action
from enroll.foreign import printable

_NOTICED = UNSOUND | {Verdict.INDETERMINATE}  # of a signature that stands beside a sound one
_NOT_CLINICAL = frozenset(("phantom", "quality-control", "service", "research", "training"))
# Content that somebody has to answer for: what it is called if nobody does, and the markers that say what it is.
_MADE = {
    ContentClass.DERIVED: (Verdict.DERIVED_UNVERIFIED_SOURCE, frozenset(("derived", "artificial-intelligence"))),
    ContentClass.SYNTHETIC: (Verdict.SYNTHETIC_UNVERIFIED, frozenset(("synthetic",))),
}
_DOUBTS = frozenset(verdict for verdict, _ in _MADE.values())
_NO_SIGNATURE = JudgedSignature(reasons=(), standing=Standing.UNKNOWN, axes=Axes())
_STRIPPED = Reason(Verdict.UNSIGNED_VIOLATION, "stripped: this instance was seen signed before.")
# What of the policy speaks of an instance, where a signature covers these tags.
_View: TypeAlias = Callable[[frozenset[int]], Applicable | None]
_BY_NO_MATCH = {Mode.REPORT: Action.ACCEPT, Mode.WARN: Action.FLAG, Mode.ENFORCE: Action.QUARANTINE}


def evaluate(
    report: InstanceReport,
    receipt: Receipt,
    policy: Policy | None,
    now: datetime,
    *,
    sources_verified: bool | None = None,
) -> Judgement:
    """Judge an instance.

    Args:
        report: What the verifier found.
        receipt: What the recipient observed.
        policy: The rules; None judges by the built-in rules for algorithms and expects nothing.
        now: When this takes place, aware.
        sources_verified: Whether all sources of a derived instance are verified, at least one; None where nobody
            has looked.
    """
    question = _Question(report, receipt, policy, now, sources_verified)
    claimed = applicable(report, receipt, policy) if policy else None
    judgement = _judged(question, claimed, lambda _: claimed)
    if policy is None:
        return judgement
    view = cache(partial(applicable, report, receipt, policy))
    if all(view(frozenset(signature.coverage.covered)) == claimed for signature in report.signatures):
        return judgement
    proven = _judged(question, claimed, view)
    return max(proven, judgement, key=lambda judgement: (judgement.action.strictness, -judgement.verdict.rank))


@dataclass(frozen=True)
class _Question:
    """What `evaluate` is asked."""

    report: InstanceReport
    receipt: Receipt
    policy: Policy | None
    now: datetime
    sources_verified: bool | None

    def judged(self, signature: SignatureReport, view: _View) -> JudgedSignature:
        """One signature, by what of the policy speaks of the instance then."""
        found = view(frozenset(signature.coverage.covered))
        device = found.device if found else None
        return judge_signature(
            signature, Context(policy=self.policy, device=device, receipt=self.receipt, now=self.now)
        )


def _judged(question: _Question, claimed: Applicable | None, view: _View) -> Judgement:
    """Judge an instance.

    Args:
        question: What is asked.
        claimed: What of the policy speaks of it by all that it says: this counts where no signature speaks.
        view: The same by what a signature covers.
    """
    report, receipt, policy = question.report, question.receipt, question.policy
    signatures = _labelled([question.judged(signature, view) for signature in report.signatures])
    speaking = _speaking(signatures, lambda signature: _Rules(policy, view(signature.covered)))
    found = view(speaking.covered) if speaking else claimed
    rules = _Rules(policy, found)
    expected = expectation(found) if found else NOTHING
    sources = found is not None and sources_demanded(found)
    decisive, beside = _weighed(report, signatures, speaking)
    missing = _STRIPPED if receipt.first_seen_signed else expected.missing
    decisive += [] if signatures else [missing]
    decisive += _content(report, speaking, verified=question.sources_verified, demanded=sources)
    headline = max(decisive, key=lambda reason: (rules.action(reason).strictness, -reason.verdict.rank))
    least = _least_action(report, beside, rules, instead=None if speaking or rules.says(headline) else missing)
    action = max(rules.action(headline), least, key=lambda action: action.strictness)
    reasons = sorted([*decisive, *beside], key=lambda reason: (reason is not headline, reason.verdict.rank))
    leading = speaking or max(signatures, key=lambda signature: headline in signature.reasons, default=_NO_SIGNATURE)
    covered = speaking.covered if speaking else frozenset()
    stale = policy is not None and question.now > policy.expires
    return Judgement(
        verdict=headline.verdict,
        action=action,
        beside=tuple(dict.fromkeys(r.verdict for r in reasons if r.verdict is not headline.verdict)),
        axes=replace(leading.axes, expectation=_state(expected, missing, decisive, speaking, sources=sources)),
        identity_level=leading.level if leading is speaking else IdentityLevel.NONE,
        rule_ids=tuple(dict.fromkeys(_rule_ids(rules, leading, reasons))),
        explanation=tuple(dict.fromkeys(_explanation(report, reasons, leading, rules, action, stale=stale))),
        policy_stale=stale,
        not_clinical=any(claim.meaning in _NOT_CLINICAL and claim.attribute in covered for claim in report.claims),
        stripped=receipt.first_seen_signed and not signatures,
        non_profile=leading.non_profile,
    )


@dataclass(frozen=True)
class _Rules:
    """Which action follows from what, for one instance.

    Args:
        policy: None where no file was given.
        found: What of it speaks of the instance.
    """

    policy: Policy | None
    found: Applicable | None

    def entry(self, reason: Reason) -> Entry | None:
        """Which has the say: the one in force; of the content, the stricter of that and of what an exemption hides."""
        if self.found is None:
            return None
        entries = [self.found.in_force]
        if reason.verdict in _DOUBTS and self.found.of_content is not None:
            entries.append(self.found.of_content)
        return max(entries, key=lambda entry: self._by(entry, reason).strictness)

    def mode(self, entry: Entry | None) -> Mode:
        """That of the entry, or else of the policy."""
        if entry is not None:
            return entry.mode
        return Mode.REPORT if self.policy is None else self.policy.mode

    def says(self, reason: Reason) -> bool:
        """Whether the entry names the action for a verdict itself."""
        entry = self.entry(reason)
        return entry is not None and entry.mode is Mode.ENFORCE and reason.verdict in entry.on

    def action(self, reason: Reason) -> Action:
        """What follows."""
        if reason.verdict is Verdict.UNSIGNED_NOT_COVERED and self.policy is not None:
            return _BY_NO_MATCH[self.policy.no_match]
        return self._by(self.entry(reason), reason)

    def _by(self, entry: Entry | None, reason: Reason) -> Action:
        mode = self.mode(entry)
        if mode is not Mode.ENFORCE:
            return default_action(reason.verdict, mode)
        named = entry.on.get(reason.verdict) if entry else None
        return named or reason.enforced or default_action(reason.verdict, mode)


def _labelled(signatures: Sequence[JudgedSignature]) -> tuple[JudgedSignature, ...]:
    """Say in each reason which signature is meant, where there are several."""
    if len(signatures) == 1:
        return tuple(signatures)
    return tuple(
        replace(signature, reasons=tuple(replace(r, why=f"signature {number}: {r.why}") for r in signature.reasons))
        for number, signature in enumerate(signatures, start=1)
    )


def _speaking(
    signatures: Iterable[JudgedSignature], rules_for: Callable[[JudgedSignature], _Rules]
) -> JudgedSignature | None:
    """The sound signature of the best known signer; of several, the one with the mildest action."""

    def preference(signature: JudgedSignature) -> tuple[int, int]:
        rules = rules_for(signature)
        return -signature.standing, max(rules.action(reason).strictness for reason in signature.reasons)

    return min((signature for signature in signatures if signature.sound), key=preference, default=None)


def _weighed(
    report: InstanceReport, signatures: Sequence[JudgedSignature], speaking: JudgedSignature | None
) -> tuple[list[Reason], list[Reason]]:
    """The reasons that decide, and those that stand beside."""
    decisive = [reason for finding in report.findings for reason in _of_finding(finding)]
    beside: list[Reason] = []
    for signature in signatures:
        outranks = speaking is not None and not signature.sound and signature.standing > speaking.standing
        decides = speaking is None or signature is speaking or outranks
        (decisive if decides else beside).extend(signature.reasons)
    for nested in report.nested:
        if nested.intact is False:
            reason = Reason(Verdict.BROKEN, f"the signature of the item {printable(nested.location)}.")
            (decisive if speaking is None else beside).append(reason)
    return decisive, beside


def _of_finding(finding: Finding) -> Iterator[Reason]:
    """What concerns the instance as a whole."""
    if finding.outcome is Outcome.FAILED:
        yield Reason(Verdict.BROKEN, f"the instance is malformed ({finding.code}).")
    elif finding.outcome is Outcome.INDETERMINATE:
        yield Reason(Verdict.INDETERMINATE, f"the instance cannot be judged ({finding.code}).")


def _least_action(report: InstanceReport, beside: Iterable[Reason], rules: _Rules, *, instead: Reason | None) -> Action:
    """What follows at least, whatever the headline; `instead` is what there would be without any signature."""
    flagged = any(finding.outcome is Outcome.FLAGGED for finding in report.findings)
    least = Action.FLAG if flagged or any(reason.verdict in _NOTICED for reason in beside) else Action.ACCEPT
    unsigned = Action.ACCEPT if instead is None else rules.action(instead)
    return max(least, unsigned, key=lambda action: action.strictness)


def _content(
    report: InstanceReport, speaking: JudgedSignature | None, *, verified: bool | None, demanded: bool
) -> list[Reason]:
    """Step 6: what was made of others needs a signature of its own, and sources that do not speak against it."""
    made = [doubt for content, doubt in _MADE.items() if content in report.content]
    doubts = []
    for verdict, markers in made:
        if speaking is None:
            doubts.append(Reason(verdict, "no signature of a known signer answers for it."))
        elif not all(claim.attribute in speaking.covered for claim in report.claims if claim.meaning in markers):
            doubts.append(Reason(verdict, "the signature does not cover every marker that says so."))
        elif verified is False or (demanded and not verified):
            doubts.append(Reason(verdict, "its sources are not verified."))
    if made and not doubts and verified:
        return [Reason(Verdict.DERIVED_VERIFIED_SOURCES, "signed, and all its sources are verified.")]
    return doubts


def _state(
    expected: Expectation,
    missing: Reason,
    reasons: Iterable[Reason],
    speaking: JudgedSignature | None,
    *,
    sources: bool,
) -> ExpectationAxis:
    """Whether what is expected is there."""
    if speaking is None:
        return ExpectationAxis.VIOLATED if missing.verdict is Verdict.UNSIGNED_VIOLATION else expected.state
    if expected.state not in {ExpectationAxis.VIOLATED, ExpectationAxis.IN_GRACE}:
        return expected.state
    doubts = _DOUBTS.intersection(reason.verdict for reason in reasons)
    return ExpectationAxis.VIOLATED if sources and doubts else ExpectationAxis.MET


def _explanation(  # noqa: PLR0913 - everything that led to it
    report: InstanceReport,
    reasons: Sequence[Reason],
    leading: JudgedSignature,
    rules: _Rules,
    action: Action,
    *,
    stale: bool,
) -> Iterator[str]:
    for reason in reasons:
        yield f"{reason.verdict}: {reason.why}"
    if flagged := [finding.code for finding in report.findings if finding.outcome is Outcome.FLAGGED]:
        yield f"Flagged in any case, because of the instance as a whole ({', '.join(dict.fromkeys(flagged))})."
    yield from leading.notes
    if leading.non_profile:
        yield "The kind of key is outside of PS3.15 C.1, which names RSA only."
    if stale:
        yield "The policy has expired; its rules still stand."
    if rules.policy is not None:
        entry = rules.entry(reasons[0])
        said_by = f"the entry {entry.id}" if entry else f"the policy {rules.policy.id}"
        yield f"{action}; the mode is {rules.mode(entry)}, by {said_by}."


def _rule_ids(rules: _Rules, leading: JudgedSignature, reasons: Sequence[Reason]) -> Iterator[str]:
    if rules.found is not None and rules.found.in_force is not None:
        yield rules.found.in_force.id
    yield from leading.rule_ids
    yield from (entry.id for entry in map(rules.entry, reasons) if entry is not None)
    yield from (reason.rule_id for reason in reasons if reason.rule_id)
