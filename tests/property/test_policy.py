"""What holds of every policy of one file, every instance and every receipt.

The letters are those of the properties that docs/policy.md promises: a signature that is taken away, added, or dated
differently never makes anything better; the same input has the same outcome.
"""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, get_type_hints

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.dicom.report import Claim, ContentClass, Equipment, InstanceReport, Outcome
from agent.errors import PolicyError
from agent.policy.evaluate import evaluate
from agent.policy.judgement import ExpectationAxis, Judgement, Receipt
from agent.policy.model import Policy
from agent.policy.parse import KEYS, parse_policy
from agent.policy.verdicts import Action, Mode, Verdict
from tests.support.policies import (
    CT1,
    FOREIGN_CA,
    OWNER_CA,
    SITE_CA,
    SOFTWARE_CA,
    US_OLD,
    VENDOR_DEVICE_CA,
    VENDOR_WIDE_CA,
    Signed,
    certificate,
    day,
    instance,
    key_sha256,
    policy_text,
)

EXAMPLES: Final = settings(max_examples=300, deadline=None)
FIRST_DAY: Final = day("2026-11-01")

# --- policies ---

DAYS: Final = [f"2027-0{month}-{number:02}" for month in range(1, 6) for number in (1, 15)]
MATCHES: Final = [
    'match = { manufacturer = "ACME", serial = "SN123" }',
    'match = { model = "CT-9000" }',
    'match = { modality = ["CT", "MR"] }',
    'match = { ae = "US_OLD", modality = "US" }',
    'match = { sending_ae = "GATEWAY" }',
    'match = { content = ["DERIVED", "SYNTHETIC"] }',
    'match = { content = ["PHANTOM", "TEST"] }',
    "",
]
SIGNERS: Final = [
    "",
    'signer = { anchor = "owner-ca" }',
    'signer = { anchor = ["owner-ca", "vendor-ca"], serial_number = "SN123" }',
    'signer = { require = ["serial", "owner"] }',
]


@st.composite
def entries(draw: st.DrawFn, identifier: str, match: str) -> str:
    kind = draw(st.sampled_from(["device", "rule"])) if match else "rule"
    lines = [f'[[{kind}]]\nid = "{identifier}"', match]
    lines.append(f'expect = "{draw(st.sampled_from(["any", "signed", "signed-with-sources"]))}"')
    begin = draw(st.none() | st.sampled_from(DAYS))
    if begin:
        lines += [f"from = {begin}", f"grace_days = {draw(st.integers(0, 60))}"]
    lines.append(f'mode = "{draw(st.sampled_from(list(Mode)))}"')
    if kind == "device":
        lines.append(draw(st.sampled_from(SIGNERS)))
    return "\n".join(lines) + "\n"


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Any policy without an `on`, with which an owner may decide against every property below."""
    chosen = draw(st.lists(st.sampled_from(MATCHES), unique=True, max_size=5))
    tables = [draw(entries(f"e{number}", match)) for number, match in enumerate(chosen)]
    if draw(st.booleans()):
        kind = draw(st.sampled_from(["key-compromise", "sold"]))
        key = key_sha256(certificate(OWNER_CA, "SN123"))
        since = f"{draw(st.sampled_from(DAYS))}T00:00:00Z"
        tables.append(f'[[compromise]]\nid = "c"\nkind = "{kind}"\nkey_sha256 = "{key}"\nsince = {since}\n')
    if draw(st.booleans()):
        tables.append(
            '[[migration]]\nid = "m"\nmatch.sending_ae = "OLDPACS"\ntreat_as = "history"\n'
            "received.from = 2027-01-10\nreceived.until = 2027-03-10\n"
        )
    modes = st.sampled_from(list(Mode))
    return parse_policy(policy_text(*tables, mode=draw(modes), no_match=draw(modes)), "policy.toml")


# --- instances and receipts ---

equipment: Final = st.sampled_from([CT1, US_OLD, Equipment(), replace(CT1, device_serial="SN999")])
contents: Final = st.frozensets(st.sampled_from(list(ContentClass)), max_size=2)
outcomes: Final = st.sampled_from([Outcome.PASSED, Outcome.PASSED, Outcome.INDETERMINATE, Outcome.FAILED])
moments: Final = st.integers(0, 300).map(lambda days: FIRST_DAY + timedelta(days=days))
dates: Final = moments.map(lambda moment: moment.date().isoformat())
signed: Final = st.builds(
    Signed,
    ca=st.sampled_from([OWNER_CA, OWNER_CA, VENDOR_WIDE_CA, VENDOR_DEVICE_CA, SITE_CA, SOFTWARE_CA, FOREIGN_CA]),
    serial=st.sampled_from(["SN123", "SN123", "SN999", ""]),
    owner=st.sampled_from(["St Elsewhere", ""]),
    mac=st.sampled_from(["SHA256", "SHA256", "MD5", "SHA3"]),
    key=st.sampled_from(["RSA-3072", "RSA-2048", "RSA-1024", "ECDSA-P256"]),
    integrity=outcomes,
    missing=st.sampled_from([(), (), (0x7FE00010,)]),
    certified=st.just("") | dates | st.just("2005-05-05"),
    trusted=st.sampled_from([True, True, False]),
    revoked=st.just("") | dates,
    why_revoked=st.sampled_from(["", "superseded", "keyCompromise"]),
    doubts=st.sampled_from([(), (), ("chain-weak",), ("revocation-unknown",)]),
    clock=outcomes,
)
# What anybody can append: a signature of his own, or one that fails, with whatever certificate he has seen.
appended: Final = signed.map(lambda wanted: replace(wanted, trusted=False)) | signed.map(
    lambda wanted: replace(wanted, integrity=Outcome.FAILED)
)
receipts: Final = st.builds(
    Receipt,
    received_at=moments,
    sending_ae=st.sampled_from(["", "GATEWAY", "OLDPACS", "US_OLD"]),
    first_seen_signed=st.booleans(),
    known_since=st.none() | moments,
)
verified: Final[st.SearchStrategy[bool | None]] = st.sampled_from([None, True, False])


@st.composite
def situations(draw: st.DrawFn, signatures: st.SearchStrategy[list[Signed]]) -> tuple[InstanceReport, Receipt]:
    report = instance(*draw(signatures), equipment=draw(equipment), content=draw(contents))
    return report, draw(receipts)


def judged(report: InstanceReport, receipt: Receipt, rules: Policy | None, *, sources: bool | None = None) -> Judgement:
    return evaluate(report, receipt, rules, receipt.received_at, sources_verified=sources)


several: Final = st.lists(signed, max_size=3)
any_rules: Final = st.none() | policies()


@EXAMPLES
@given(situation=situations(several), rules=any_rules, sources=verified)
def test_the_same_input_has_the_same_outcome(
    situation: tuple[InstanceReport, Receipt], rules: Policy | None, *, sources: bool | None
) -> None:
    judgement = judged(*situation, rules, sources=sources)

    assert judged(*situation, rules, sources=sources) == judgement
    assert judgement.verdict not in judgement.beside
    assert len(judgement.explanation) >= 1 + len(judgement.beside)


@EXAMPLES
@given(situations(several), any_rules, moments)
def test_e_a_claimed_time_decides_nothing(
    situation: tuple[InstanceReport, Receipt], rules: Policy | None, claimed: datetime
) -> None:
    report, receipt = situation
    dated = [replace(s, time=replace(s.time, claimed=claimed), signed_at=f"{claimed}") for s in report.signatures]

    assert judged(replace(report, signatures=tuple(dated)), receipt, rules) == judged(report, receipt, rules)


def test_c_no_date_of_the_header_reaches_an_evaluation() -> None:
    kinds = {*get_type_hints(InstanceReport).values(), *get_type_hints(Equipment).values()}
    kinds |= set(get_type_hints(Claim).values())

    assert not any("date" in str(kind) for kind in kinds)
    assert not any("date" in field.name for field in dataclasses.fields(Equipment))


@EXAMPLES
@given(situation=situations(st.lists(signed, min_size=1, max_size=3)), rules=policies(), sources=verified)
def test_d_removing_all_signatures_never_helps_once_one_is_expected_or_was_seen(
    situation: tuple[InstanceReport, Receipt], rules: Policy, *, sources: bool | None
) -> None:
    report, receipt = situation
    with_them = judged(report, receipt, rules, sources=sources)
    without = judged(replace(report, signatures=()), receipt, rules, sources=sources)

    if without.axes.expectation is ExpectationAxis.VIOLATED:
        assert without.action.strictness >= with_them.action.strictness


@EXAMPLES
@given(situation=situations(st.lists(signed, min_size=1, max_size=1)), rules=any_rules, sources=verified)
def test_d_removing_a_valid_signature_never_helps(
    situation: tuple[InstanceReport, Receipt], rules: Policy | None, *, sources: bool | None
) -> None:
    report, receipt = situation
    valid = judged(report, receipt, rules, sources=sources)
    without = judged(replace(report, signatures=()), receipt, rules, sources=sources)

    if valid.verdict in {Verdict.VALID, Verdict.VALID_EXPECTED_SIGNER, Verdict.DERIVED_VERIFIED_SOURCES}:
        assert without.action.strictness >= valid.action.strictness
        assert without.verdict.rank <= valid.verdict.rank


@EXAMPLES
@given(situation=situations(several), another=appended, place=st.integers(0, 3), rules=any_rules, sources=verified)
def test_what_anybody_can_append_neither_hides_a_good_signature_nor_helps_a_bad_one(
    situation: tuple[InstanceReport, Receipt],
    another: Signed,
    place: int,
    rules: Policy | None,
    *,
    sources: bool | None,
) -> None:
    report, receipt = situation
    signatures = list(report.signatures)
    signatures.insert(place, another.report(report.equipment))

    before = judged(report, receipt, rules, sources=sources)
    after = judged(replace(report, signatures=tuple(signatures)), receipt, rules, sources=sources)

    assert after.action.strictness >= before.action.strictness
    assert not report.signatures or after.verdict.rank <= before.verdict.rank
    if before.verdict in {Verdict.VALID, Verdict.VALID_EXPECTED_SIGNER}:
        assert after.verdict is before.verdict
        assert after.action is Action.FLAG


@EXAMPLES
@given(situations(several), policies())
def test_a_policy_that_has_expired_judges_as_before(situation: tuple[InstanceReport, Receipt], rules: Policy) -> None:
    report, receipt = situation
    stale = replace(rules, expires=receipt.received_at - timedelta(seconds=1))
    judgement = judged(report, receipt, stale)

    assert judgement.policy_stale
    assert replace(judgement, policy_stale=False, explanation=()) == replace(
        judged(report, receipt, rules), explanation=()
    )


@EXAMPLES
@given(
    table=st.sampled_from([name for name in KEYS if name]),
    key=st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True),
)
@example(table="policy", key="seriall")
def test_f_an_unknown_key_anywhere_refuses_the_file(table: str, key: str) -> None:
    if key in KEYS[table]:
        return
    one_of_each = policy_text(
        '[[device]]\nid = "d"\nexpect = "signed"\nmatch.ae = "A"\nsigner.anchor = "owner-ca"\non.BROKEN = "refuse"\n',
        '[[rule]]\nid = "r"\nexpect = "any"\n',
        '[[algorithm]]\nuse = "mac"\nnames = ["SHA256"]\nverify = "current"\n',
        f'[[compromise]]\nid = "c"\nkind = "sold"\nsince = 2027-01-01T00:00:00Z\nkey_sha256 = "{"0" * 64}"\n',
        '[[migration]]\nid = "m"\nmatch.sending_ae = "A"\ntreat_as = "history"\n'
        "received.from = 2027-01-01\nreceived.until = 2027-01-02\n",
    )
    parse_policy(one_of_each, "policy.toml")
    header = f"[{table}]" if table == "policy" else f"[[{table}]]"
    if header in one_of_each:
        text = one_of_each.replace(header, f"{header}\n{key} = 1", 1)
    else:
        inner = {"match": "match.ae", "signer": "signer.anchor", "on": "on.BROKEN", "received": "received.from"}[table]
        text = one_of_each.replace(inner, f"{table}.{key} = 1\n{inner}", 1)

    with pytest.raises(PolicyError) as caught:
        parse_policy(text, "policy.toml")
    assert caught.value.code == "unknown-key"
    assert text.split("\n")[caught.value.line - 1].endswith(f"{key} = 1")
