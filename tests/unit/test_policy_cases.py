"""What a policy of one file says of an instance: the table of the format, and each border by a day."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

import pytest

from agent.dicom.report import ContentClass, Equipment, Outcome
from agent.policy.evaluate import evaluate
from agent.policy.judgement import Receipt
from agent.policy.model import Policy
from agent.policy.parse import parse_policy
from agent.policy.verdicts import Action, Mode, Verdict
from tests.support.first_table import FIRST_POLICY, FIRST_TABLE
from tests.support.policies import (
    CT1_ENTRY,
    FOREIGN_CA,
    OWNER_CA,
    US_OLD,
    VENDOR_WIDE_CA,
    Signed,
    certificate,
    instance,
    judge,
    key_sha256,
    policy,
)

BROKEN: Final = Signed(integrity=Outcome.FAILED)
VENDOR_WIDE: Final = Signed(ca=VENDOR_WIDE_CA, serial="")


@pytest.mark.parametrize("name", list(FIRST_TABLE))
def test_the_first_table(name: str) -> None:
    case, verdicts = FIRST_TABLE[name]
    rules = parse_policy(FIRST_POLICY, "policy.toml")
    judgement = evaluate(case.report, case.receipt, rules, case.now, sources_verified=case.sources_verified)

    assert (judgement.verdict, *judgement.beside) == verdicts


# ---------------------------------------------------------------------------------------------- borders, by a day

ENDING: Final = CT1_ENTRY + "until = 2027-06-30\n"
FINE: Final = ("accept", "accept", "accept")
FLAGGED: Final = ("flag", "flag", "flag")
STOPPED: Final = ("flag", "flag", "quarantine")
NOTED: Final = ("accept", "flag", "flag")


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(
    ("received", "verdict", "actions"),
    [
        ("2026-11-30", Verdict.UNSIGNED_NOT_YET_EXPECTED, FINE),
        ("2026-12-01", Verdict.UNSIGNED_IN_GRACE, FINE),
        ("2026-12-02", Verdict.UNSIGNED_IN_GRACE, FINE),
        ("2026-12-14", Verdict.UNSIGNED_IN_GRACE, FINE),
        ("2026-12-15", Verdict.UNSIGNED_VIOLATION, STOPPED),
        ("2026-12-16", Verdict.UNSIGNED_VIOLATION, STOPPED),
        ("2027-06-29", Verdict.UNSIGNED_VIOLATION, STOPPED),
        ("2027-06-30", Verdict.UNSIGNED_VIOLATION, STOPPED),
        ("2027-07-01", Verdict.UNSIGNED_NOT_COVERED, FINE),
    ],
)
def test_unsigned_by_day_of_receipt_and_mode(
    received: str, verdict: Verdict, actions: tuple[str, ...], mode: Mode
) -> None:
    judgement = judge(policy(ENDING, mode=mode), instance(), received)

    assert (judgement.verdict, judgement.action) == (verdict, actions[list(Mode).index(mode)])


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("received", ["2026-11-30", "2026-12-01", "2026-12-14", "2026-12-15", "2027-06-30"])
def test_a_listed_device_that_signs_is_expected_on_every_day_until_its_last(received: str, mode: Mode) -> None:
    judgement = judge(policy(ENDING, mode=mode), instance(Signed()), received)

    assert (judgement.verdict, judgement.action) == (Verdict.VALID_EXPECTED_SIGNER, Action.ACCEPT)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(
    ("received", "verdict", "actions"),
    [
        ("2029-06-29", Verdict.UNSIGNED_EXEMPT, FINE),
        ("2029-06-30", Verdict.UNSIGNED_EXEMPT, FINE),
        ("2029-07-01", Verdict.UNSIGNED_VIOLATION, STOPPED),
    ],
)
def test_an_exemption_ends_in_its_successor(
    received: str, verdict: Verdict, actions: tuple[str, ...], mode: Mode
) -> None:
    exemption = """
[[device]]
id = "us-old"
match = { ae = "US_OLD", modality = "US" }
expect = "unsigned"
until = 2029-06-30
reason = "no update"
[[rule]]
id = "all-us"
match.modality = "US"
expect = "signed"
from = 2029-07-01
"""
    judgement = judge(policy(exemption, mode=mode), instance(equipment=US_OLD), received)

    assert (judgement.verdict, judgement.action) == (verdict, actions[list(Mode).index(mode)])


MIGRATION: Final = """
[[migration]]
id = "import"
match.sending_ae = "OLDPACS"
received.from = 2027-04-01
received.until = 2027-04-30
treat_as = "history"
"""


@pytest.mark.parametrize(
    ("received", "sending_ae", "verdict"),
    [
        ("2027-03-31", "OLDPACS", Verdict.UNSIGNED_VIOLATION),
        ("2027-04-01", "OLDPACS", Verdict.UNSIGNED_EXEMPT),
        ("2027-04-02", "OLDPACS", Verdict.UNSIGNED_EXEMPT),
        ("2027-04-30", "OLDPACS", Verdict.UNSIGNED_EXEMPT),
        ("2027-05-01", "OLDPACS", Verdict.UNSIGNED_VIOLATION),
        ("2027-04-15", "OTHER", Verdict.UNSIGNED_VIOLATION),
        ("2027-04-15", "", Verdict.UNSIGNED_VIOLATION),
    ],
)
def test_a_migration_lifts_the_expectation_in_its_window_and_from_its_source(
    received: str, sending_ae: str, verdict: Verdict
) -> None:
    judgement = judge(policy(CT1_ENTRY, MIGRATION), instance(), received, sending_ae=sending_ae)

    assert judgement.verdict is verdict


@pytest.mark.parametrize("received", ["2027-04-01", "2027-04-30"])
def test_a_migration_proves_nothing_about_the_age_of_a_signature(received: str) -> None:
    judgement = judge(policy(CT1_ENTRY, MIGRATION), instance(Signed(mac="MD5")), received, sending_ae="OLDPACS")

    assert judgement.verdict is Verdict.ANTIQUE_UNPROVEN


def judged_with_proof(rules: Policy, signed: Signed, proof: str, moment: str) -> Verdict:
    """Of what existed on a day: it was received, or certified, or recorded then."""
    return judge(
        rules,
        instance(replace(signed, certified=moment if proof == "certified" else "")),
        moment if proof == "received" else "2027-05-01",
        known_since=moment if proof == "known_since" else "",
    ).verdict


SINCE: Final = "2027-03-10"


def compromise(kind: str) -> str:
    return f"""
[[compromise]]
id = "gone"
key_sha256 = "{key_sha256(certificate(OWNER_CA, "SN123"))}"
since = {SINCE}T12:00:00+01:00
kind = "{kind}"
"""


@pytest.mark.parametrize("kind", ["key-compromise", "ca-compromise"])
@pytest.mark.parametrize("proof", ["received", "certified", "known_since"])
@pytest.mark.parametrize(
    ("moment", "verdict"),
    [
        ("2027-03-09", Verdict.VALID_EXPECTED_SIGNER),
        ("2027-03-10", Verdict.KEY_COMPROMISED),
        ("2027-03-11", Verdict.KEY_COMPROMISED),
    ],
)
def test_after_a_compromise_only_what_is_known_to_be_older_stays_good(
    kind: str, proof: str, moment: str, verdict: Verdict
) -> None:
    rules = policy(CT1_ENTRY, compromise(kind))

    assert judged_with_proof(rules, Signed(), proof, moment) is verdict


@pytest.mark.parametrize("kind", ["superseded", "sold", "decommissioned"])
@pytest.mark.parametrize(
    ("proof", "moment", "verdict"),
    [
        ("received", "2027-03-09", Verdict.VALID_EXPECTED_SIGNER),
        ("received", "2027-03-10", Verdict.VALID_NO_TRUSTED_TIME),
        ("received", "2027-03-11", Verdict.VALID_NO_TRUSTED_TIME),
        ("certified", "2027-03-09", Verdict.VALID_EXPECTED_SIGNER),
        ("certified", "2027-03-10", Verdict.REVOKED),
        ("certified", "2027-03-11", Verdict.REVOKED),
        ("known_since", "2027-03-09", Verdict.VALID_EXPECTED_SIGNER),
        ("known_since", "2027-03-10", Verdict.REVOKED),
    ],
)
def test_a_sale_is_an_end_and_no_compromise(kind: str, proof: str, moment: str, verdict: Verdict) -> None:
    rules = policy(CT1_ENTRY, compromise(kind))

    assert judged_with_proof(rules, Signed(), proof, moment) is verdict


@pytest.mark.parametrize(("mac", "end"), [("MD5", 2010), ("RIPEMD160", 2010)])
@pytest.mark.parametrize("proof", ["received", "certified", "known_since"])
@pytest.mark.parametrize(
    ("day_of_year", "verdict"),
    [
        ("-12-30", Verdict.ANTIQUE_PROVEN),
        ("-12-31", Verdict.ANTIQUE_PROVEN),
        ("-01-01", Verdict.ANTIQUE_UNPROVEN),
    ],
)
def test_an_antique_signature_needs_proof_of_existence(
    mac: str, end: int, proof: str, day_of_year: str, verdict: Verdict
) -> None:
    moment = f"{end - (day_of_year != '-01-01')}{day_of_year}"

    assert judged_with_proof(policy(CT1_ENTRY), Signed(mac=mac), proof, moment) is verdict


@pytest.mark.parametrize(
    ("moment", "verdict"),
    [
        ("2017-02-22", Verdict.ANTIQUE_PROVEN),
        ("2017-02-23", Verdict.ANTIQUE_UNPROVEN),
        ("2017-02-24", Verdict.ANTIQUE_UNPROVEN),
    ],
)
def test_sha1_proves_something_until_the_day_of_its_collision(moment: str, verdict: Verdict) -> None:
    assert judge(policy(CT1_ENTRY), instance(Signed(mac="SHA1", certified=moment))).verdict is verdict


@pytest.mark.parametrize(
    ("key", "received", "now", "verdict"),
    [
        ("RSA-2048", "2027-01-05", "2027-01-05", Verdict.VALID_EXPECTED_SIGNER),
        ("RSA-2048", "2035-12-30", "2035-12-30", Verdict.VALID_EXPECTED_SIGNER),
        ("RSA-2048", "2035-12-30", "2035-12-31", Verdict.ANTIQUE_PROVEN),
        ("RSA-2048", "2035-12-31", "2035-12-31", Verdict.ANTIQUE_UNPROVEN),
        ("RSA-3072", "2035-12-30", "2036-01-01", Verdict.ANTIQUE_PROVEN),
        ("RSA-4096", "2036-01-01", "2036-01-01", Verdict.ANTIQUE_UNPROVEN),
        ("RSA-2047", "2027-01-05", "2027-01-05", Verdict.ANTIQUE_UNPROVEN),
        ("RSA-1024", "2009-12-31", "2027-01-05", Verdict.ANTIQUE_PROVEN),
        ("ECDSA-P256", "2036-01-01", "2036-01-01", Verdict.VALID_EXPECTED_SIGNER),
        ("DSA", "2027-01-05", "2027-01-05", Verdict.ALGORITHM_FORBIDDEN),
    ],
)
def test_keys_grow_old_by_the_built_in_rules(key: str, received: str, now: str, verdict: Verdict) -> None:
    assert judge(policy(CT1_ENTRY), instance(Signed(key=key)), received, now=now).verdict is verdict


@pytest.mark.parametrize(("now", "stale"), [("2098-12-31", False), ("2099-01-01", True), ("2099-01-02", True)])
def test_a_stale_policy_keeps_its_rules_and_says_so(now: str, *, stale: bool) -> None:
    fresh, later = judge(policy(CT1_ENTRY), instance()), judge(policy(CT1_ENTRY), instance(), now=now)

    assert later.policy_stale is stale
    assert replace(later, policy_stale=False, explanation=fresh.explanation) == fresh


@pytest.mark.parametrize(
    ("moment", "verdict"),
    [
        ("2026-11-30T22:59:59+00:00", Verdict.UNSIGNED_NOT_YET_EXPECTED),
        ("2026-11-30T23:00:00+00:00", Verdict.UNSIGNED_IN_GRACE),
        ("2026-12-01T00:00:00+01:00", Verdict.UNSIGNED_IN_GRACE),
        ("2026-11-30T18:00:00-06:00", Verdict.UNSIGNED_IN_GRACE),
    ],
)
def test_days_begin_in_the_time_zone_of_the_policy(moment: str, verdict: Verdict) -> None:
    received = datetime.fromisoformat(moment)

    assert evaluate(instance(), Receipt(received), policy(CT1_ENTRY), received).verdict is verdict


# ---------------------------------------------------------------------------------------------- actions, by mode

SIGNATURES: Final = {
    Verdict.BROKEN: (Signed(integrity=Outcome.FAILED), STOPPED),
    Verdict.INDETERMINATE: (Signed(clock=Outcome.FAILED), FLAGGED),
    Verdict.ALGORITHM_FORBIDDEN: (Signed(mac="SHA3"), STOPPED),
    Verdict.ANTIQUE_UNPROVEN: (Signed(mac="MD5"), STOPPED),
    Verdict.ANTIQUE_PROVEN: (Signed(mac="MD5", certified="2006-06-06"), NOTED),
    Verdict.VALID_UNKNOWN_SIGNER: (Signed(ca=FOREIGN_CA), STOPPED),
    Verdict.VALID_WRONG_SIGNER: (Signed(serial="SN999"), STOPPED),
    Verdict.VALID_PARTIAL_COVERAGE: (Signed(missing=(0x7FE00010,)), FLAGGED),
    Verdict.VALID_VENDOR_ONLY: (VENDOR_WIDE, NOTED),
    Verdict.VALID_EXPECTED_SIGNER: (Signed(), FINE),
    Verdict.VALID_NO_TRUSTED_TIME: (Signed(revoked="2027-01-01"), FLAGGED),
    Verdict.REVOKED: (Signed(revoked="2027-01-01", certified="2027-01-02"), STOPPED),
}


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("verdict", SIGNATURES.keys())
def test_what_follows_from_a_signature_by_mode(verdict: Verdict, mode: Mode) -> None:
    signed, actions = SIGNATURES[verdict]

    judgement = judge(policy(CT1_ENTRY, mode=mode), instance(signed))

    assert (judgement.verdict, judgement.action) == (verdict, actions[list(Mode).index(mode)])


@pytest.mark.parametrize(("mode", "action"), list(zip(Mode, NOTED, strict=True)))
def test_a_device_that_is_not_listed(mode: Mode, action: str) -> None:
    judgement = judge(policy(mode=mode), instance(Signed()))

    assert (judgement.verdict, judgement.action) == (Verdict.VALID_UNLISTED_DEVICE, action)


@pytest.mark.parametrize(("no_match", "action"), list(zip(Mode, Action, strict=False)))
@pytest.mark.parametrize("mode", list(Mode))
def test_what_no_rule_speaks_of_is_up_to_no_match(mode: Mode, no_match: Mode, action: Action) -> None:
    judgement = judge(policy(mode=mode, no_match=no_match), instance())

    assert (judgement.verdict, judgement.action) == (Verdict.UNSIGNED_NOT_COVERED, action)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("expect", ["any", "signed", "signed-with-sources"])
@pytest.mark.parametrize("content", [ContentClass.DERIVED, ContentClass.SYNTHETIC])
def test_what_is_derived_or_synthetic_and_unsigned_is_flagged_whatever_is_expected(
    content: ContentClass, expect: str, mode: Mode
) -> None:
    rule = f'[[rule]]\nid = "all"\nexpect = "{expect}"\n'
    unverified = {
        ContentClass.DERIVED: Verdict.DERIVED_UNVERIFIED_SOURCE,
        ContentClass.SYNTHETIC: Verdict.SYNTHETIC_UNVERIFIED,
    }

    judgement = judge(policy(rule, mode=mode), instance(content=[content]))

    assert unverified[content] in (judgement.verdict, *judgement.beside)
    assert judgement.action is (Action.QUARANTINE if expect != "any" and mode == "enforce" else Action.FLAG)


# ---------------------------------------------------------------------------------------------- which entry has the say

ALL_CT: Final = '[[rule]]\nid = "all-ct"\nmatch.modality = "CT"\nexpect = "signed"\nmode = "warn"\n'
DERIVED: Final = '[[rule]]\nid = "derived"\nmatch.content = "DERIVED"\nexpect = "signed"\n'
PHANTOMS: Final = '[[rule]]\nid = "phantoms"\nmatch.content = "PHANTOM"\nexpect = "any"\n'
BOTH: Final = [ContentClass.PHANTOM, ContentClass.DERIVED]
THE_MODEL: Final = '[[rule]]\nid = "model"\nmatch.model = "CT-9000"\nexpect = "any"\n'


@pytest.mark.parametrize(
    ("entries", "content", "received", "decided", "verdict"),
    [
        ([CT1_ENTRY, ALL_CT], [], "2027-01-05", "ct1", Verdict.UNSIGNED_VIOLATION),
        ([CT1_ENTRY, ALL_CT], [], "2026-11-05", "all-ct", Verdict.UNSIGNED_VIOLATION),
        ([CT1_ENTRY, ALL_CT], [], "2026-12-05", "ct1", Verdict.UNSIGNED_IN_GRACE),
        ([ALL_CT, THE_MODEL], [], "2027-01-05", "model", Verdict.UNSIGNED_EXEMPT),
        ([ALL_CT, PHANTOMS], [ContentClass.PHANTOM], "2027-01-05", "all-ct", Verdict.UNSIGNED_VIOLATION),
        ([PHANTOMS], [ContentClass.PHANTOM], "2027-01-05", "phantoms", Verdict.UNSIGNED_EXEMPT),
        ([DERIVED, PHANTOMS], BOTH, "2027-01-05", "derived", Verdict.UNSIGNED_VIOLATION),
        ([PHANTOMS, DERIVED], BOTH, "2027-01-05", "derived", Verdict.UNSIGNED_VIOLATION),
    ],
)
def test_the_most_specific_entry_that_applies_on_the_day_has_the_say(
    entries: list[str], content: list[ContentClass], received: str, decided: str, verdict: Verdict
) -> None:
    judgement = judge(policy(*entries), instance(content=content), received)

    assert judgement.verdict == verdict
    assert judgement.rule_ids[0] == decided


@pytest.mark.parametrize(
    ("station_ae", "sending_ae", "key", "fits"),
    [
        ("CT_AE", "", "ae", True),
        ("", "CT_AE", "ae", True),
        ("CT_AE", "GATEWAY", "ae", True),
        ("", "GATEWAY", "ae", False),
        ("CT_AE", "GATEWAY", "sending_ae", False),
        ("", "CT_AE", "sending_ae", True),
    ],
)
def test_an_ae_is_what_the_instance_says_or_what_sent_it(
    station_ae: str, sending_ae: str, key: str, *, fits: bool
) -> None:
    rule = f'[[rule]]\nid = "a"\nmatch.{key} = "CT_AE"\nexpect = "signed"\n'
    report = instance(equipment=Equipment(station_ae=station_ae))

    judgement = judge(policy(rule), report, sending_ae=sending_ae)

    assert (judgement.verdict is Verdict.UNSIGNED_VIOLATION) is fits


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("device_uid", "1.2.840.1"),
        ("udi", "(01)00844868000005(21)7"),
        ("station", "CT-ROOM-1"),
        ("model", "CT-9000"),
        ("software_version", "4.2"),
        ("manufacturer", "ACME"),
        ("modality", "CT"),
        ("sop_class", "1.2.840.10008.5.1.4.1.1.2"),
        ("institution", "St Elsewhere"),
        ("department", "Radiology"),
        ("content", "TEST"),
    ],
)
def test_every_key_is_compared_letter_by_letter(key: str, value: str) -> None:
    scanner = Equipment(
        manufacturer="ACME",
        model="CT-9000",
        device_uid="1.2.840.1",
        udi=("(01)00844868000005(21)6", "(01)00844868000005(21)7"),
        software_versions=("4.2", "firmware 7"),
        station="CT-ROOM-1",
        institution="St Elsewhere",
        department="Radiology",
        modality="CT",
    )
    report = instance(equipment=scanner, content=[ContentClass.TEST])
    rule = f'[[rule]]\nid = "a"\nmatch.{key} = ["0.9", "{value}"]\nexpect = "signed"\n'.replace(
        '"0.9", ' if key == "content" else "\0", ""
    )

    assert judge(policy(rule), report).verdict is Verdict.UNSIGNED_VIOLATION
    assert (
        judge(policy(rule), instance(equipment=Equipment(), sop_class_uid="")).verdict is Verdict.UNSIGNED_NOT_COVERED
    )
