"""What several signatures, the signer, and the content of an instance come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import pytest
from cryptography import x509

from agent.dicom.claims import QUALITY_CONTROL_IMAGE
from agent.dicom.content import IMAGE_TYPE
from agent.dicom.elements import PIXEL_DATA
from agent.dicom.report import (
    Chain,
    Claim,
    Comparison,
    ContentClass,
    Coverage,
    Finding,
    Identity,
    IdentityLevel,
    MatchResult,
    Outcome,
)
from agent.policy.algorithms import BUILT_IN_RULES
from agent.policy.judgement import (
    CoverageAxis,
    CryptoAxis,
    ExpectationAxis,
    IdentityAxis,
    IntegrityAxis,
    Judgement,
    TimeAxis,
)
from agent.policy.model import AlgorithmStatus, AlgorithmUse, Policy
from agent.policy.verdicts import Action, Verdict
from tests.support.pki import HospitalCa, name, new_key
from tests.support.policies import (
    COVERED,
    CT1,
    CT1_ENTRY,
    FOREIGN_CA,
    SITE_CA,
    SOFTWARE_CA,
    US_OLD,
    VENDOR_DEVICE_CA,
    VENDOR_WIDE_CA,
    Signed,
    anchor,
    instance,
    judge,
    policy,
)

GOOD: Final = Signed()
BROKEN: Final = Signed(integrity=Outcome.FAILED)
UNCHECKABLE: Final = Signed(integrity=Outcome.INDETERMINATE)
FOREIGN: Final = Signed(ca=FOREIGN_CA)
WRONG: Final = Signed(serial="SN999")
VENDOR_WIDE: Final = Signed(ca=VENDOR_WIDE_CA, serial="")
RULES: Final = policy(CT1_ENTRY)
NO_RULES: Final = policy()


def outcome(judgement: Judgement) -> tuple[Verdict, Action]:
    return judgement.verdict, judgement.action


# ---------------------------------------------------------------------------------------------- several signatures

APPENDED: Final = {
    "broken": (BROKEN, Verdict.BROKEN),
    "of an unknown signer": (FOREIGN, Verdict.VALID_UNKNOWN_SIGNER),
    "of another device": (WRONG, Verdict.VALID_WRONG_SIGNER),
    "that nobody can check": (UNCHECKABLE, Verdict.INDETERMINATE),
    "broken, with the certificate of the device": (BROKEN, Verdict.BROKEN),
    "antique": (Signed(mac="MD5"), Verdict.ANTIQUE_UNPROVEN),
}


@pytest.mark.parametrize("first", [True, False], ids=["in front", "behind"])
@pytest.mark.parametrize(("appended", "said"), APPENDED.values(), ids=APPENDED.keys())
def test_an_appended_signature_neither_hides_a_good_one_nor_does_more_than_flag_it(
    appended: Signed, said: Verdict, *, first: bool
) -> None:
    signatures = (appended, GOOD) if first else (GOOD, appended)

    judgement = judge(RULES, instance(*signatures))

    assert outcome(judgement) == (Verdict.VALID_EXPECTED_SIGNER, Action.FLAG)
    assert said in judgement.beside
    assert judgement.exit_code == 3
    assert judgement.axes.integrity is IntegrityAxis.INTACT


BAD: Final = {
    "broken": (BROKEN, Verdict.BROKEN),
    "antique": (Signed(mac="MD5"), Verdict.ANTIQUE_UNPROVEN),
    "forbidden": (Signed(mac="SHA3"), Verdict.ALGORITHM_FORBIDDEN),
    "wrong signer": (WRONG, Verdict.VALID_WRONG_SIGNER),
}


@pytest.mark.parametrize("appended", [FOREIGN, UNCHECKABLE], ids=["unknown signer", "uncheckable"])
@pytest.mark.parametrize(("bad", "verdict"), BAD.values(), ids=BAD.keys())
def test_an_appended_signature_does_not_make_a_bad_one_better(bad: Signed, verdict: Verdict, appended: Signed) -> None:
    assert outcome(judge(RULES, instance(bad, appended))) == (verdict, Action.QUARANTINE)


def test_a_vendor_wide_key_does_not_make_up_for_the_broken_signature_of_the_device() -> None:
    judgement = judge(RULES, instance(BROKEN, VENDOR_WIDE))

    assert outcome(judgement) == (Verdict.BROKEN, Action.QUARANTINE)
    assert judgement.beside == (Verdict.VALID_VENDOR_ONLY,)


def test_what_is_not_listed_is_protected_from_junk_as_well() -> None:
    assert outcome(judge(NO_RULES, instance(GOOD, BROKEN))) == (Verdict.VALID_UNLISTED_DEVICE, Action.FLAG)


def test_vendor_and_owner_may_both_sign_where_the_policy_names_both() -> None:
    both = CT1_ENTRY.replace('anchor = "owner-ca"', 'anchor = ["owner-ca", "vendor-ca"]')
    vendors = Signed(ca=VENDOR_DEVICE_CA, owner="")

    assert outcome(judge(policy(both), instance(GOOD, vendors))) == (Verdict.VALID_EXPECTED_SIGNER, Action.ACCEPT)
    assert judge(policy(both), instance(vendors)).verdict is Verdict.VALID_EXPECTED_SIGNER


@pytest.mark.parametrize("appended", [UNCHECKABLE, FOREIGN, BROKEN], ids=["uncheckable", "unknown signer", "broken"])
@pytest.mark.parametrize(
    "rules", [RULES, policy(CT1_ENTRY, mode="warn"), policy(mode="report", no_match="enforce")], ids=["1", "2", "3"]
)
def test_no_signature_that_says_nothing_is_better_than_none(rules: Policy, appended: Signed) -> None:
    with_it, without = judge(rules, instance(appended)), judge(rules, instance())

    assert with_it.action.strictness >= without.action.strictness
    assert with_it.axes.expectation is without.axes.expectation


def test_what_nobody_can_check_is_indeterminate_and_quarantined_where_a_signature_is_enforced() -> None:
    judgement = judge(RULES, instance(UNCHECKABLE))

    assert outcome(judgement) == (Verdict.INDETERMINATE, Action.QUARANTINE)
    assert judgement.axes.integrity is IntegrityAxis.INDETERMINATE
    assert judgement.axes.expectation is ExpectationAxis.VIOLATED


def test_an_owner_may_be_milder_to_unknown_signers_than_to_the_unsigned() -> None:
    rules = policy(CT1_ENTRY + 'on.VALID_UNKNOWN_SIGNER = "flag"')

    assert outcome(judge(rules, instance(FOREIGN))) == (Verdict.VALID_UNKNOWN_SIGNER, Action.FLAG)
    assert judge(rules, instance()).action is Action.QUARANTINE


def test_where_no_signature_is_expected_one_that_nobody_can_check_is_flagged() -> None:
    assert outcome(judge(NO_RULES, instance(UNCHECKABLE))) == (Verdict.INDETERMINATE, Action.FLAG)


def test_an_unknown_algorithm_is_forbidden_rather_than_indeterminate() -> None:
    unknown = Signed(mac="SHA3", integrity=Outcome.INDETERMINATE)

    assert judge(NO_RULES, instance(unknown)).verdict is Verdict.ALGORITHM_FORBIDDEN


def test_a_broken_signature_of_an_item_stands_beside_a_good_one_of_the_data_set() -> None:
    nested = replace(BROKEN.report(CT1), location="(0040,A730)[0]")

    assert outcome(judge(RULES, instance(GOOD, nested=(nested,)))) == (Verdict.VALID_EXPECTED_SIGNER, Action.FLAG)
    assert judge(NO_RULES, instance(nested=(nested,))).verdict is Verdict.BROKEN


@pytest.mark.parametrize(
    ("found", "verdict", "action"),
    [
        (Outcome.FAILED, Verdict.BROKEN, Action.QUARANTINE),
        (Outcome.INDETERMINATE, Verdict.INDETERMINATE, Action.FLAG),
        (Outcome.FLAGGED, Verdict.VALID_EXPECTED_SIGNER, Action.FLAG),
    ],
)
def test_what_concerns_the_whole_instance_counts_beside_a_good_signature(
    found: Outcome, verdict: Verdict, action: Action
) -> None:
    report = instance(GOOD, findings=(Finding("meta-contradicts", "", found),))

    assert outcome(judge(RULES, report)) == (verdict, action)


# ---------------------------------------------------------------------------------------------- stripped


@pytest.mark.parametrize("rules", [None, NO_RULES, RULES], ids=["no policy", "no rule", "expected"])
@pytest.mark.parametrize("received", ["2026-11-05", "2026-12-05", "2027-01-05"])
def test_what_was_seen_signed_is_stripped_whatever_is_expected(rules: Policy | None, received: str) -> None:
    judgement = judge(rules, instance(), received, first_seen_signed=True)

    assert judgement.verdict is Verdict.UNSIGNED_VIOLATION
    assert judgement.stripped


def test_what_was_seen_signed_and_still_is_signed_is_not_stripped() -> None:
    judgement = judge(RULES, instance(GOOD), first_seen_signed=True)

    assert outcome(judgement) == (Verdict.VALID_EXPECTED_SIGNER, Action.ACCEPT)
    assert not judgement.stripped


# ---------------------------------------------------------------------------------------------- who signed


def device(signer: str, mode: str = "enforce") -> str:
    return f"""
[[device]]
id = "ct1"
match = {{ manufacturer = "ACME", serial = "SN123" }}
signer = {{ {signer} }}
expect = "signed"
mode = "{mode}"
"""


@pytest.mark.parametrize(
    ("signer", "signed", "verdict"),
    [
        ("", GOOD, Verdict.VALID_EXPECTED_SIGNER),
        ('anchor = "owner-ca"', GOOD, Verdict.VALID_EXPECTED_SIGNER),
        ('anchor = "vendor-ca"', GOOD, Verdict.VALID_WRONG_SIGNER),
        ('serial_number = "SN123"', GOOD, Verdict.VALID_EXPECTED_SIGNER),
        ('serial_number = "SN124"', GOOD, Verdict.VALID_WRONG_SIGNER),
        ('require = ["serial", "model", "owner"]', GOOD, Verdict.VALID_EXPECTED_SIGNER),
        ('require = ["owner"]', Signed(owner=""), Verdict.VALID_WRONG_SIGNER),
        ('require = ["udi"]', GOOD, Verdict.VALID_WRONG_SIGNER),
        ('anchor = "vendor-wide"', VENDOR_WIDE, Verdict.VALID_VENDOR_ONLY),
        ("", Signed(ca=SITE_CA), Verdict.VALID_VENDOR_ONLY),
        ('anchor = "software-ca"', Signed(ca=SOFTWARE_CA), Verdict.VALID_EXPECTED_SIGNER),
        ("", Signed(trusted=False), Verdict.VALID_UNKNOWN_SIGNER),
    ],
)
def test_the_signer_of_a_listed_device(signer: str, signed: Signed, verdict: Verdict) -> None:
    assert judge(policy(device(signer)), instance(signed)).verdict is verdict


@pytest.mark.parametrize(
    ("signer", "action"),
    [("", Action.FLAG), ('require = ["manufacturer"]', Action.FLAG), ('require = ["serial"]', "quarantine")],
)
def test_a_vendor_wide_key_is_quarantined_where_more_is_required_than_it_names(signer: str, action: Action) -> None:
    assert outcome(judge(policy(device(signer)), instance(VENDOR_WIDE))) == (Verdict.VALID_VENDOR_ONLY, action)


def test_a_listed_device_that_nothing_ties_to_the_certificate_is_not_the_expected_one() -> None:
    listed = '[[device]]\nid = "us-old"\nmatch.ae = "US_OLD"\nexpect = "any"\n'
    report = instance(Signed(serial="SN777"), equipment=US_OLD)

    assert judge(policy(listed), report).verdict is Verdict.VALID_UNLISTED_DEVICE


OWN_UDI, OTHER_UDI, UNREADABLE_UDI = "(01)09506000134352(21)A1", "(01)09506000134352(21)B7", "+A999/S1"


@pytest.mark.parametrize(
    ("match", "udi", "verdict"),
    [
        ('{ manufacturer = "ACME", serial = "SN123" }', OTHER_UDI, Verdict.VALID_UNLISTED_DEVICE),
        ('{ manufacturer = "ACME", udi = "(01)09506000134352(21)A1" }', OWN_UDI, Verdict.VALID_EXPECTED_SIGNER),
        ('{ serial = "SN123", udi = "(01)09506000134352(21)A1" }', OWN_UDI, Verdict.VALID_EXPECTED_SIGNER),
        ('{ udi = "+A999/S1" }', f"{OTHER_UDI} | {UNREADABLE_UDI}", Verdict.VALID_UNLISTED_DEVICE),
        ('{ device_uid = "2.25.1" }', OTHER_UDI, Verdict.VALID_UNLISTED_DEVICE),
        ('{ ae = "CT1", manufacturer = "ACME" }', OTHER_UDI, Verdict.VALID_UNLISTED_DEVICE),
    ],
)
def test_a_device_is_tied_to_its_signer_by_what_lists_it(match: str, udi: str, verdict: Verdict) -> None:
    """Whoever signs an image with his own UDI and the serial number of another is not the other (docs/policy.md)."""
    stated = replace(CT1, udi=tuple(udi.split(" | ")), device_uid="2.25.1", station_ae="CT1")
    own = Comparison("udi", MatchResult.MATCH, udi, "https://id.gs1.org/01/09506000134352/21/…")
    silent = Comparison("serial", MatchResult.CERTIFICATE_SILENT, "SN123")
    identity = Identity(level=IdentityLevel.DEVICE, matches=(silent, own))
    signature = replace(Signed(covered=(*COVERED, 0x00080055)).report(stated), identity=identity)
    listed = f'[[device]]\nid = "ct1"\nmatch = {match}\nexpect = "signed"\n'

    assert judge(policy(listed), instance(equipment=stated, signatures=(signature,))).verdict is verdict


@pytest.mark.parametrize("place", ["hardware-serial", "permanent-identifier"])
@pytest.mark.parametrize("required", ["", 'require = ["serial"]'])
def test_the_same_serial_number_in_an_alternative_name_ties_as_well(place: str, required: str) -> None:
    same = Comparison(place, MatchResult.MATCH, "SN123", "SN123")
    signature = replace(GOOD.report(CT1), identity=Identity(level=IdentityLevel.DEVICE, matches=(same,)))

    judged = judge(policy(device(required)), instance(signatures=(signature,)))

    assert judged.verdict is Verdict.VALID_EXPECTED_SIGNER


@pytest.mark.parametrize(
    ("signed", "level"),
    [
        (VENDOR_WIDE, IdentityLevel.VENDOR),
        (Signed(ca=SITE_CA), IdentityLevel.SITE),
        (Signed(owner=""), IdentityLevel.DEVICE),
        (GOOD, IdentityLevel.DEVICE_AND_OWNER),
        (FOREIGN, IdentityLevel.NONE),
        (BROKEN, IdentityLevel.NONE),
    ],
)
def test_every_judgement_names_the_level_that_the_anchor_vouches_for(signed: Signed, level: IdentityLevel) -> None:
    assert judge(RULES, instance(signed)).identity_level is level


def test_a_path_to_an_anchor_that_the_policy_does_not_name_is_of_an_unknown_signer() -> None:
    elsewhere = HospitalCa("Owner CA")  # the same name, another key

    assert judge(RULES, instance(Signed(ca=elsewhere))).verdict is Verdict.VALID_UNKNOWN_SIGNER


def test_a_path_with_a_fault_that_time_does_not_heal_leads_nowhere() -> None:
    report = GOOD.report(CT1)
    refused = replace(report, chain=Chain(findings=(Finding("usage-wrong", ""),), path=report.chain.path))

    assert judge(RULES, instance(signatures=(refused,))).verdict is Verdict.VALID_UNKNOWN_SIGNER


FRAMEWORK: Final = "2.16.840.1.114569.1.1.1"
OTHER_FRAMEWORK: Final = "2.16.840.1.114569.1.1.2"
ANY_POLICY: Final = "2.5.29.32.0"


def asserting(
    ca: HospitalCa, *policies: str, is_ca: bool = False, more: Sequence[x509.ExtensionType] = ()
) -> x509.Certificate:
    """A certificate with certificate policies (RFC 5280 4.2.1.4)."""
    issued = ca.issue(new_key().public_key(), subject=name(COMMON_NAME="A", SERIAL_NUMBER="SN123"), ca=is_ca)
    information = [x509.PolicyInformation(x509.ObjectIdentifier(oid), None) for oid in policies]
    builder = x509.CertificateBuilder(issued.issuer, issued.subject, issued.public_key(), issued.serial_number)
    builder = builder.not_valid_before(issued.not_valid_before_utc).not_valid_after(issued.not_valid_after_utc)
    if information:
        builder = builder.add_extension(x509.CertificatePolicies(information), critical=False)
    for extension in more:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(ca.key, issued.signature_hash_algorithm)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("leaf", "between", "known"),
    [
        ([FRAMEWORK], [FRAMEWORK], True),
        ([FRAMEWORK], [ANY_POLICY], True),
        (["1.2.3", FRAMEWORK], [FRAMEWORK], True),
        ([ANY_POLICY], [FRAMEWORK], False),
        (["1.2.3"], [FRAMEWORK], False),
        ([], [FRAMEWORK], False),
        ([FRAMEWORK], ["1.2.3"], False),
        ([FRAMEWORK], [], False),
        ([FRAMEWORK], [OTHER_FRAMEWORK], False),
    ],
)
def test_every_certificate_below_an_anchor_asserts_the_policy_that_is_asked_for(
    leaf: list[str], between: list[str], *, known: bool
) -> None:
    root = HospitalCa("Framework")
    named = f'policy_oids = ["{OTHER_FRAMEWORK}", "{FRAMEWORK}"]\n'
    framework = anchor("framework", "framework", root.certificate, "device") + named
    path = (asserting(root, *leaf), asserting(root, *between, is_ca=True), root.certificate)
    report = instance(signatures=(replace(GOOD.report(CT1), chain=Chain(path=path)),))

    assert (judge(policy(framework), report).verdict is Verdict.VALID_UNLISTED_DEVICE) is known


@pytest.mark.parametrize(
    ("above", "between", "known"),
    [
        ([], [], True),
        ([x509.InhibitAnyPolicy(0)], [], False),
        ([x509.InhibitAnyPolicy(1)], [], False),
        ([], [x509.InhibitAnyPolicy(0)], True),
        ([x509.PolicyConstraints(0, 0)], [], True),
    ],
)
def test_any_policy_does_not_count_below_an_authority_that_inhibits_it(
    above: list[x509.ExtensionType], between: list[x509.ExtensionType], *, known: bool
) -> None:
    """RFC 5280 4.2.1.14; however many certificates it spares. What maps policies is never followed (4.2.1.11)."""
    root = HospitalCa("Framework")
    framework = f'{anchor("framework", "framework", root.certificate, "device")}policy_oids = ["{FRAMEWORK}"]\n'
    authorities = (
        asserting(root, ANY_POLICY, is_ca=True, more=between),
        asserting(root, FRAMEWORK, is_ca=True, more=above),
    )
    path = (asserting(root, FRAMEWORK), *authorities, root.certificate)
    report = instance(signatures=(replace(GOOD.report(CT1), chain=Chain(path=path)),))

    assert (judge(policy(framework), report).verdict is Verdict.VALID_UNLISTED_DEVICE) is known


# ---------------------------------------------------------------------------------------------- coverage, content, time


@pytest.mark.parametrize(
    "coverage",
    [
        Coverage(missing=(PIXEL_DATA,)),
        Coverage(findings=(Finding("element-unsignable", "", Outcome.FLAGGED),)),
        Coverage(findings=(Finding("coverage-unclear", "", Outcome.INDETERMINATE),)),
    ],
)
def test_whatever_is_wrong_with_the_coverage_is_partial_coverage(coverage: Coverage) -> None:
    report = instance(signatures=(replace(GOOD.report(CT1), coverage=coverage),))

    assert outcome(judge(RULES, report)) == (Verdict.VALID_PARTIAL_COVERAGE, Action.FLAG)


@pytest.mark.parametrize(
    ("changes", "action"),
    [
        ('on.VALID_PARTIAL_COVERAGE = "accept"', Action.ACCEPT),
        ('on.VALID_PARTIAL_COVERAGE = "quarantine"', Action.QUARANTINE),
        ('on.VALID_PARTIAL_COVERAGE = "refuse"', Action.REFUSE),
        ('on.VALID_PARTIAL_COVERAGE = "refuse"\nmode = "warn"', Action.FLAG),
        ('on.BROKEN = "refuse"', Action.FLAG),
    ],
)
def test_on_replaces_an_action_in_the_mode_enforce(changes: str, action: Action) -> None:
    rules = policy(CT1_ENTRY + changes)

    assert judge(rules, instance(Signed(missing=(PIXEL_DATA,)))).action is action


WITH_SOURCES: Final = CT1_ENTRY.replace('"signed"', '"signed-with-sources"')


@pytest.mark.parametrize(
    ("entry", "received", "sources_verified", "verdict"),
    [
        (CT1_ENTRY, "2027-01-05", None, Verdict.VALID_EXPECTED_SIGNER),
        (CT1_ENTRY, "2027-01-05", False, Verdict.DERIVED_UNVERIFIED_SOURCE),
        (CT1_ENTRY, "2027-01-05", True, Verdict.DERIVED_VERIFIED_SOURCES),
        (WITH_SOURCES, "2026-11-30", None, Verdict.VALID_EXPECTED_SIGNER),
        (WITH_SOURCES, "2026-12-14", None, Verdict.VALID_EXPECTED_SIGNER),
        (WITH_SOURCES, "2026-12-15", None, Verdict.DERIVED_UNVERIFIED_SOURCE),
        (WITH_SOURCES, "2027-01-05", False, Verdict.DERIVED_UNVERIFIED_SOURCE),
        (WITH_SOURCES, "2027-01-05", True, Verdict.DERIVED_VERIFIED_SOURCES),
    ],
)
def test_sources_must_be_verified_where_that_is_demanded_and_must_never_be_refuted(
    entry: str, received: str, verdict: Verdict, *, sources_verified: bool | None
) -> None:
    report = instance(GOOD, content=[ContentClass.DERIVED])

    assert judge(policy(entry), report, received, sources_verified=sources_verified).verdict is verdict


@pytest.mark.parametrize(
    "signatures", [(), (FOREIGN,), (BROKEN,), (UNCHECKABLE,), (WRONG,)], ids=["none", "foreign", "broken", "?", "wrong"]
)
def test_only_a_known_signer_answers_for_what_is_synthetic(signatures: tuple[Signed, ...]) -> None:
    judgement = judge(NO_RULES, instance(*signatures, content=[ContentClass.SYNTHETIC]), sources_verified=True)

    assert Verdict.SYNTHETIC_UNVERIFIED in (judgement.verdict, *judgement.beside)
    assert Verdict.DERIVED_VERIFIED_SOURCES not in (judgement.verdict, *judgement.beside)


def test_the_marker_must_be_covered_by_the_signature_of_the_known_signer() -> None:
    own = Signed(covered=(PIXEL_DATA,))
    strangers = Signed(ca=FOREIGN_CA, covered=(IMAGE_TYPE,))

    judgement = judge(RULES, instance(own, strangers, content=[ContentClass.DERIVED]), sources_verified=True)

    assert judgement.verdict is Verdict.DERIVED_UNVERIFIED_SOURCE


@pytest.mark.parametrize(
    ("signatures", "marked"),
    [((GOOD,), True), ((), False), ((FOREIGN,), False), ((Signed(covered=(PIXEL_DATA,)),), False)],
)
def test_a_marker_that_says_not_clinical_counts_where_a_known_signer_covers_it(
    signatures: tuple[Signed, ...], *, marked: bool
) -> None:
    assert judge(RULES, instance(*signatures, content=[ContentClass.TEST])).not_clinical is marked


def test_research_is_marked_and_a_clinical_trial_is_not() -> None:
    def marked(meaning: str) -> bool:
        claim = Claim(QUALITY_CONTROL_IMAGE, "", meaning, covered=True)
        return judge(RULES, instance(GOOD, claims=(claim,))).not_clinical

    assert [marked(meaning) for meaning in ("research", "training", "clinical-trial", "calibration")] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("received", "known_since", "certified", "verdict"),
    [
        ("2039-12-31", "", "", Verdict.VALID_EXPECTED_SIGNER),
        ("2040-01-02", "", "", Verdict.VALID_NO_TRUSTED_TIME),
        ("2040-01-02", "2039-12-31", "", Verdict.VALID_EXPECTED_SIGNER),
        ("2040-01-02", "2040-01-02", "", Verdict.VALID_NO_TRUSTED_TIME),
        ("2040-01-02", "", "2039-12-31", Verdict.VALID_EXPECTED_SIGNER),
        ("2040-01-03", "2039-12-31", "2040-01-02", Verdict.VALID_EXPECTED_SIGNER),
    ],
)
def test_an_expired_certificate_needs_proof_that_the_signature_is_older(
    received: str, known_since: str, certified: str, verdict: Verdict
) -> None:
    signed = Signed(key="ECDSA-P256", certified=certified)

    assert judge(RULES, instance(signed), received, now="2040-02-01", known_since=known_since).verdict is verdict


@pytest.mark.parametrize("revoked", ["", "2027-01-01"])
def test_who_has_no_proof_of_the_time_is_told_what_would_be_one(revoked: str) -> None:
    judgement = judge(RULES, instance(Signed(key="ECDSA-P256", revoked=revoked)), "2040-01-02")

    assert judgement.verdict is Verdict.VALID_NO_TRUSTED_TIME
    assert all(option in judgement.explanation[0] for option in ("--received", "--time-stamp-anchor"))


def test_rules_for_certificates_speak_of_those_below_the_anchor() -> None:
    rule = '[[algorithm]]\nuse = "cert"\nnames = ["SHA384"]\nverify = "current"\n'

    assert judge(policy(CT1_ENTRY, rule), instance(GOOD)).verdict is Verdict.ALGORITHM_FORBIDDEN
    assert judge(policy(CT1_ENTRY, rule.replace("384", "256")), instance(GOOD)).verdict is Verdict.VALID_EXPECTED_SIGNER


def test_built_in_rules_speak_of_certificates_as_well() -> None:
    """What forges a certificate forges every signature below it; docs/policy.md."""
    weak = {rule.status: rule.names for rule in BUILT_IN_RULES if rule.use is AlgorithmUse.CERTIFICATE}

    assert weak[AlgorithmStatus.CURRENT] == {"SHA256", "SHA384", "SHA512"}
    assert judge(policy(CT1_ENTRY), instance(GOOD)).verdict is Verdict.VALID_EXPECTED_SIGNER


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        ('verify = "current"', Verdict.VALID_EXPECTED_SIGNER),
        ('verify = "antique"\nproof_before = 2020-01-01', Verdict.ANTIQUE_UNPROVEN),
        ('verify = "forbidden"', Verdict.ALGORITHM_FORBIDDEN),
    ],
)
def test_the_keys_of_a_weak_chain_are_judged_by_the_rules_for_keys(status: str, verdict: Verdict) -> None:
    rules = policy(
        CT1_ENTRY,
        '[[algorithm]]\nuse = "key"\nnames = ["RSA-3072"]\nverify = "current"\n',
        f'[[algorithm]]\nuse = "key"\nnames = ["ECDSA-P256"]\n{status}\n',
    )

    assert judge(rules, instance(Signed(doubts=("chain-weak",)))).verdict is verdict
    assert judge(rules, instance(GOOD)).verdict is Verdict.VALID_EXPECTED_SIGNER


def test_a_stolen_key_speaks_for_nothing_beside_the_signature_of_another() -> None:
    stolen = Signed(revoked="2027-01-01", why_revoked="keyCompromise")

    assert outcome(judge(RULES, instance(stolen))) == (Verdict.KEY_COMPROMISED, Action.QUARANTINE)
    assert judge(RULES, instance(stolen, VENDOR_WIDE)).verdict is Verdict.KEY_COMPROMISED


def test_what_is_deprecated_says_until_when_and_what_to_do() -> None:
    assert judge(None, instance(Signed(key="RSA-2048"))).explanation[1:] == (
        (
            "RSA-2048 is deprecated, and from 2035-12-31 on proves nothing without a time stamp: "
            "sign with a stronger one, and have older signatures stamped."
        ),
    )


# ---------------------------------------------------------------------------------------------- no policy, axes


@pytest.mark.parametrize(
    ("signatures", "verdict", "code"),
    [
        ((), Verdict.UNSIGNED, 4),
        ((GOOD,), Verdict.VALID, 0),
        ((VENDOR_WIDE,), Verdict.VALID_VENDOR_ONLY, 3),
        ((BROKEN,), Verdict.BROKEN, 1),
        ((Signed(trusted=False),), Verdict.VALID_UNKNOWN_SIGNER, 3),
        ((Signed(missing=(PIXEL_DATA,)),), Verdict.VALID_PARTIAL_COVERAGE, 3),
        ((WRONG,), Verdict.VALID_WRONG_SIGNER, 3),
        ((Signed(mac="MD5"),), Verdict.ANTIQUE_UNPROVEN, 5),
        ((Signed(mac="MD5", certified="2006-01-01"),), Verdict.ANTIQUE_PROVEN, 3),
        ((Signed(mac="SHA3"),), Verdict.ALGORITHM_FORBIDDEN, 5),
        ((Signed(revoked="2027-01-01", certified="2027-01-02"),), Verdict.REVOKED, 5),
        ((Signed(revoked="2027-01-01"),), Verdict.VALID_NO_TRUSTED_TIME, 3),
        ((Signed(revoked="2027-01-01", why_revoked="keyCompromise"),), Verdict.KEY_COMPROMISED, 5),
        ((Signed(doubts=("revocation-unknown",)),), Verdict.INDETERMINATE, 7),
        ((UNCHECKABLE,), Verdict.INDETERMINATE, 7),
    ],
)
def test_without_a_policy_nothing_is_expected(signatures: tuple[Signed, ...], verdict: Verdict, code: int) -> None:
    judgement = judge(None, instance(*signatures))

    assert (judgement.verdict, judgement.exit_code) == (verdict, code)
    assert judgement.axes.expectation is ExpectationAxis.NONE


def test_without_a_policy_what_is_derived_and_unsigned_is_flagged() -> None:
    judgement = judge(None, instance(content=[ContentClass.DERIVED]))

    assert outcome(judgement) == (Verdict.DERIVED_UNVERIFIED_SOURCE, Action.FLAG)
    assert judgement.beside == (Verdict.UNSIGNED,)


AXES: Final = {
    "expected": (GOOD, ("intact", "full", "current", "none", "expected", "met")),
    "certified": (Signed(certified="2027-01-01"), ("intact", "full", "current", "certified", "expected", "met")),
    "broken": (BROKEN, ("broken", "none", "none", "none", "none", "violated")),
    "unknown": (FOREIGN, ("intact", "full", "current", "none", "unknown", "violated")),
    "wrong": (WRONG, ("intact", "full", "current", "none", "wrong", "violated")),
    "vendor": (VENDOR_WIDE, ("intact", "full", "current", "none", "vendor-only", "met")),
    "partial": (Signed(missing=(1,)), ("intact", "partial", "current", "none", "expected", "met")),
    "deprecated": (Signed(key="RSA-2048"), ("intact", "full", "deprecated", "none", "expected", "met")),
    "antique": (Signed(mac="MD5"), ("intact", "full", "antique-unproven", "none", "expected", "violated")),
    "ended": (Signed(revoked="2027-01-01"), ("intact", "full", "current", "missing", "expected", "met")),
}


@pytest.mark.parametrize(("signed", "axes"), AXES.values(), ids=AXES.keys())
def test_six_axes_are_independent_of_the_verdict(signed: Signed, axes: tuple[str, ...]) -> None:
    found = judge(RULES, instance(signed)).axes

    assert (found.integrity, found.coverage, found.crypto, found.time, found.identity, found.expectation) == axes


def test_an_unsigned_instance_has_only_an_expectation() -> None:
    axes = judge(RULES, instance()).axes

    assert axes.integrity is IntegrityAxis.NONE
    assert axes.coverage is CoverageAxis.NONE
    assert axes.crypto is CryptoAxis.NONE
    assert axes.time is TimeAxis.NONE
    assert axes.identity is IdentityAxis.NONE
    assert axes.expectation is ExpectationAxis.VIOLATED


def test_a_judgement_names_the_entries_that_decided_and_says_why() -> None:
    judgement = judge(RULES, instance(GOOD, BROKEN))

    assert judgement.rule_ids == ("ct1", "owner-ca")
    assert judgement.explanation == (
        "VALID_EXPECTED_SIGNER: signature 1: intact, fully covered, and signed by who should have signed.",
        "BROKEN: signature 2: not as it was signed, or malformed (signature-wrong).",
        "flag; the mode is enforce, by the entry ct1.",
    )


def test_keys_outside_of_the_profile_are_marked_and_not_refused() -> None:
    judgement = judge(RULES, instance(Signed(key="ECDSA-P256")))

    assert judgement.verdict is Verdict.VALID_EXPECTED_SIGNER
    assert judgement.non_profile
