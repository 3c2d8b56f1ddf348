"""What a signature does not cover never makes an instance be treated more mildly.

Creator-plus leaves out Station AE Title (0008,0055), because it may rightly change on the way: so anybody can write
there what he likes, and the signature stays good.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from agent.dicom.report import ContentClass, InstanceReport
from agent.policy.judgement import IdentityAxis
from agent.policy.model import MatchKey
from agent.policy.verdicts import Action, Verdict
from tests.support.policies import (
    ATTRIBUTES,
    COVERED,
    CT1,
    SOFTWARE_CA,
    VENDOR_WIDE_CA,
    Signed,
    instance,
    judge,
    policy,
)
from tests.unit.test_policy_claims import SCANNER, VALUES

STATION_AE_TITLE: Final = ATTRIBUTES[MatchKey.AE]
ALL: Final = frozenset((*COVERED, STATION_AE_TITLE))
SUCCESSOR: Final = '[[rule]]\nid = "later"\nmatch.ae = "US_OLD"\nexpect = "signed"\nfrom = 2029-07-01\n'
UNTIL: Final = 'until = 2029-06-30\nreason = "it cannot sign"\n'
EXEMPT: Final = (
    '[[device]]\nid = "us-old"\nmatch.ae = "US_OLD"\nmatch.modality = "CT"\nexpect = "unsigned"\n'
    f'{UNTIL}mode = "report"\n'
)
SOURCES: Final = (
    '[[rule]]\nid = "derived"\nmatch.content = "DERIVED"\nexpect = "signed-with-sources"\nmode = "enforce"\n'
    'on.DERIVED_UNVERIFIED_SOURCE = "quarantine"\n'
)


def derived(station_ae: str, covered: frozenset[int] = ALL - {STATION_AE_TITLE}) -> InstanceReport:
    """A derived image that CT1 signed; its sources are not verified."""
    equipment = replace(CT1, station_ae=station_ae)
    return instance(Signed(covered=tuple(sorted(covered))), equipment=equipment, content=[ContentClass.DERIVED])


def test_an_attribute_outside_of_the_signature_chooses_no_exemption() -> None:
    honest, claiming = (judge(policy(EXEMPT, SUCCESSOR, SOURCES), derived(ae)) for ae in ("CT1", "US_OLD"))

    assert (honest.verdict, honest.action) == (Verdict.DERIVED_UNVERIFIED_SOURCE, Action.QUARANTINE)
    assert claiming == honest


def test_what_the_recipient_observes_counts_whatever_is_covered() -> None:
    entry = '[[device]]\nid = "ct1"\nmatch.ae = "CT1"\nsigner.serial_number = "SN123"\nexpect = "signed"\n'
    claimed, observed = (judge(policy(entry), derived("CT1"), sending_ae=sender) for sender in ("", "CT1"))

    assert claimed.verdict is Verdict.VALID_UNLISTED_DEVICE
    assert observed.verdict is Verdict.VALID_EXPECTED_SIGNER


@pytest.mark.parametrize("key", sorted(ATTRIBUTES))
def test_a_signer_is_listed_only_by_what_his_signature_covers(key: MatchKey) -> None:
    more = 'match.manufacturer = "ACME"\n' if key is MatchKey.SERIAL else 'signer.serial_number = "SN123"\n'
    rules = policy(f'[[device]]\nid = "d"\nmatch.{key} = "{VALUES[key]}"\n{more}expect = "signed"\n')
    whole, without = (
        judge(rules, instance(Signed(covered=tuple(sorted(covered))), equipment=SCANNER))
        for covered in (ALL, ALL - {ATTRIBUTES[key]})
    )

    assert (whole.verdict, whole.axes.identity) == (Verdict.VALID_EXPECTED_SIGNER, IdentityAxis.EXPECTED)
    assert (without.verdict, without.axes.identity) == (Verdict.VALID_UNLISTED_DEVICE, IdentityAxis.UNLISTED)


def test_a_marker_outside_of_the_signature_chooses_no_exemption() -> None:
    """Somebody adds Quality Control Subject (0010,0200) = YES to a signed image."""
    everything = '[[rule]]\nid = "everything"\nexpect = "signed"\nmode = "enforce"\n'
    tests = '[[rule]]\nid = "tests"\nmatch.content = "PHANTOM"\nexpect = "any"\nmode = "report"\n'
    signature = Signed(ca=VENDOR_WIDE_CA, serial="")
    added = instance(signature, content=[ContentClass.PHANTOM])

    assert judge(policy(everything, tests), instance(signature)).action is Action.FLAG
    assert judge(policy(everything, tests), added).action is Action.FLAG


@pytest.mark.parametrize("covered", [ALL, ALL - {0x00181000}, frozenset((0x7FE00010,))])
def test_to_cover_less_is_no_way_around_a_stricter_entry(covered: frozenset[int]) -> None:
    """An image that says it is of CT1 has to be signed by CT1, whatever the signature of somebody else leaves out."""
    rules = policy('[[device]]\nid = "ct1"\nmatch.model = "CT-9000"\nsigner.anchor = "owner-ca"\nexpect = "signed"\n')
    judgement = judge(rules, instance(Signed(ca=SOFTWARE_CA, covered=tuple(sorted(covered)))))

    assert (judgement.verdict, judgement.action) == (Verdict.VALID_WRONG_SIGNER, Action.QUARANTINE)


def test_of_several_signatures_only_what_the_speaking_one_covers_counts() -> None:
    """A vendor's key is used by many; that its signature covers the exemption says nothing of CT1's."""
    report = derived("US_OLD")
    vendor = Signed(ca=VENDOR_WIDE_CA, serial="", covered=tuple(sorted(ALL)))
    both = replace(report, signatures=(*report.signatures, vendor.report(report.equipment)))

    judgement = judge(policy(EXEMPT, SUCCESSOR, SOURCES), both)

    assert (judgement.verdict, judgement.action) == (Verdict.DERIVED_UNVERIFIED_SOURCE, Action.QUARANTINE)


def test_without_a_signature_that_speaks_everything_is_a_claim() -> None:
    rules = policy(EXEMPT, SUCCESSOR, SOURCES)
    unsigned, foreign = (
        judge(rules, replace(derived("US_OLD"), content=frozenset(), claims=(), signatures=signatures))
        for signatures in ((), (Signed(trusted=False, covered=tuple(ALL)).report(CT1),))
    )

    assert unsigned.verdict is Verdict.UNSIGNED_EXEMPT
    assert (foreign.verdict, foreign.action) == (Verdict.VALID_UNKNOWN_SIGNER, Action.FLAG)


# ------------------------------------------------------------------------------- what an exemption does not lift


@pytest.mark.parametrize("expect", ["any", "unsigned"])
def test_an_exemption_lifts_no_demand_on_the_content(expect: str) -> None:
    exempt = f'[[device]]\nid = "us-old"\nmatch.ae = "US_OLD"\nexpect = "{expect}"\n{UNTIL}mode = "report"\n'
    judgement = judge(policy(exempt, SUCCESSOR, SOURCES), derived("US_OLD", ALL))

    assert (judgement.verdict, judgement.action) == (Verdict.DERIVED_UNVERIFIED_SOURCE, Action.QUARANTINE)
    assert {"us-old", "derived"} <= set(judgement.rule_ids)
    assert "quarantine; the mode is enforce, by the entry derived." in judgement.explanation


def test_an_exempt_device_without_a_signature_is_exempt_from_that_alone() -> None:
    unsigned = replace(derived("US_OLD"), signatures=())
    judgement = judge(policy(EXEMPT, SUCCESSOR, SOURCES), unsigned)

    assert (judgement.verdict, judgement.action) == (Verdict.DERIVED_UNVERIFIED_SOURCE, Action.QUARANTINE)
    assert Verdict.UNSIGNED_EXEMPT in judgement.beside


def test_days_of_grace_hold_for_sources_as_well() -> None:
    begun = SOURCES.replace("mode", "from = 2027-01-01\ngrace_days = 14\nmode", 1)

    for received, verdict in (("2027-01-14", "VALID_UNLISTED_DEVICE"), ("2027-01-15", "DERIVED_UNVERIFIED_SOURCE")):
        assert judge(policy(EXEMPT, SUCCESSOR, begun), derived("US_OLD", ALL), received).verdict == verdict


@pytest.mark.parametrize("expect", ["any", "unsigned"])
def test_an_exemption_lists_no_signer(expect: str) -> None:
    exempt = f'[[device]]\nid = "ct1"\nmatch.model = "CT-9000"\nexpect = "{expect}"\n{UNTIL}'
    later = '[[rule]]\nid = "later"\nmatch.model = "CT-9000"\nexpect = "signed"\nfrom = 2029-07-01\n'

    assert judge(policy(exempt, later), instance(Signed())).verdict is Verdict.VALID_UNLISTED_DEVICE


def test_who_may_sign_for_an_exempt_device_is_still_said_by_its_entry() -> None:
    exempt = '[[device]]\nid = "ct1"\nmatch.model = "CT-9000"\nexpect = "any"\nsigner.serial_number = "SN999"\n'

    assert judge(policy(exempt), instance(Signed())).verdict is Verdict.VALID_WRONG_SIGNER
