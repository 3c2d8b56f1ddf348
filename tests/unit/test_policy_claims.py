"""What an unsigned instance says of itself is in the hands of its sender: which rules that escapes, and which not.

No content outweighs an entry with any other key. It does outweigh a rule for everything, and the guide for archive
owners says so.
"""

from __future__ import annotations

import re
from typing import Final

import pytest

from agent.dicom.claims import claims_of, content_of
from agent.dicom.report import ContentClass, Equipment, InstanceReport
from agent.policy.model import MatchKey
from agent.policy.verdicts import Action, Verdict
from tests.support.data_sets import code, data_set
from tests.support.policies import COVERED, CT1, CT1_ENTRY, GUIDE, Signed, instance, judge, policy
from tests.support.raw_dicom import Node, text

CLAIMS: Final = {
    "phantom": text(0x00100200, "CS", "YES"),
    "quality control": text(0x00280300, "CS", "YES"),
    "service": text(0x00189004, "CS", "SERVICE"),
    "training": code(0x00401012, "113004"),
}
CALIBRATION: Final = text(0x00500004, "CS", "YES")
EXEMPT: Final = '[[rule]]\nid = "tests"\nmatch.content = ["PHANTOM", "TEST"]\nexpect = "any"\n'
EVERYTHING: Final = '[[rule]]\nid = "everything"\nexpect = "signed"\n'
NOTHING: Final[frozenset[int]] = frozenset()

# One instance that has a value for every key, and the rule that asks for that value.
SCANNER: Final = Equipment(
    manufacturer="ACME",
    model="CT-9000",
    device_serial="SN123",
    device_uid="2.25.1",
    udi=("(01)00844868000005(21)6",),
    software_versions=("4.2",),
    station="ROOM1",
    station_ae="CT_AE",
    institution="St Elsewhere",
    department="Radiology",
    modality="CT",
)
VALUES: Final = {
    MatchKey.DEVICE_UID: "2.25.1",
    MatchKey.UDI: "(01)00844868000005(21)6",
    MatchKey.SERIAL: "SN123",
    MatchKey.AE: "CT_AE",
    MatchKey.SENDING_AE: "CT_AE",
    MatchKey.STATION: "ROOM1",
    MatchKey.MODEL: "CT-9000",
    MatchKey.SOFTWARE_VERSION: "4.2",
    MatchKey.MANUFACTURER: "ACME",
    MatchKey.MODALITY: "CT",
    MatchKey.SOP_CLASS: "1.2.840.10008.5.1.4.1.1.2",
    MatchKey.INSTITUTION: "St Elsewhere",
    MatchKey.DEPARTMENT: "Radiology",
}


def claimed(*markers: Node) -> frozenset[ContentClass]:
    """The content that an unsigned instance with these markers claims."""
    return content_of(claims_of(data_set(*markers), NOTHING))


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_takes_no_expectation_away_from_a_device(claim: str) -> None:
    judgement = judge(policy(CT1_ENTRY, EXEMPT), instance(content=claimed(CLAIMS[claim])))

    assert (judgement.verdict, judgement.action) == (Verdict.UNSIGNED_VIOLATION, Action.QUARANTINE)
    assert judgement.rule_ids[0] == "ct1"


@pytest.mark.parametrize("key", sorted(set(MatchKey) - {MatchKey.CONTENT}))
def test_a_claim_takes_no_expectation_away_from_an_entry_with_any_other_key(key: MatchKey) -> None:
    maker = 'match.manufacturer = "ACME"\n' if key is MatchKey.SERIAL else ""
    rule = f'[[rule]]\nid = "rule"\nmatch.{key} = "{VALUES[key]}"\n{maker}expect = "signed"\n'
    phantom = instance(equipment=SCANNER, content=[ContentClass.PHANTOM, ContentClass.TEST])

    judgement = judge(policy(EXEMPT, rule), phantom, sending_ae="CT_AE")

    assert (judgement.verdict, judgement.rule_ids[0]) == (Verdict.UNSIGNED_VIOLATION, "rule")


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_outweighs_a_rule_for_everything(claim: str) -> None:
    assert judge(policy(EVERYTHING), instance()).verdict is Verdict.UNSIGNED_VIOLATION

    judgement = judge(policy(EVERYTHING, EXEMPT), instance(content=claimed(CLAIMS[claim])))

    assert (judgement.verdict, judgement.action) == (Verdict.UNSIGNED_EXEMPT, Action.ACCEPT)


def test_that_something_was_calibrated_is_no_content_and_escapes_nothing() -> None:
    """PS3.3 C.8.7.10: the object of known size may be in the picture of a patient."""
    assert claimed(CALIBRATION) == frozenset()
    assert judge(policy(EVERYTHING, EXEMPT), instance(content=claimed(CALIBRATION))).rule_ids[0] == "everything"


@pytest.mark.parametrize("content", [ContentClass.DERIVED, ContentClass.SYNTHETIC])
def test_no_exemption_by_content_lets_an_unsigned_derived_or_synthetic_instance_through(content: ContentClass) -> None:
    exempt = f'[[rule]]\nid = "made"\nmatch.content = "{content}"\nexpect = "any"\n'

    assert judge(policy(EVERYTHING, exempt), instance(content=[content])).action is Action.FLAG


NESTED: Final = {
    "a contribution": (Node(0x0018A001, "SQ", items=((code(0x0040A170, "109100"),),)), 0x0040A170),
    "an algorithm": (
        Node(0x00620002, "SQ", items=((Node(0x00620007, "SQ", items=((code(0x0066002F, "123110"),),)),),)),
        0x0066002F,
    ),
}


def signed_with(nested: str, *, covered: bool) -> InstanceReport:
    """A signed instance with a marker in an item, where the signature covers its sequence or just a namesake."""
    marker, namesake = NESTED[nested]
    tag = marker.tag if covered else namesake
    claims = claims_of(data_set(marker), frozenset((tag,)))
    return instance(Signed(covered=(*COVERED, tag)), content=content_of(claims), claims=claims)


@pytest.mark.parametrize("nested", NESTED)
def test_a_marker_in_an_item_is_covered_with_its_sequence_and_not_by_a_namesake(nested: str) -> None:
    assert judge(None, signed_with(nested, covered=True)).verdict is Verdict.VALID
    doubted = judge(None, signed_with(nested, covered=False)).verdict
    assert doubted in {Verdict.SYNTHETIC_UNVERIFIED, Verdict.DERIVED_UNVERIFIED_SOURCE}


@pytest.mark.parametrize("nested", NESTED)
def test_a_rule_for_content_finds_a_marker_in_an_item_that_is_covered(nested: str) -> None:
    rule = '[[rule]]\nid = "made"\nmatch.content = ["DERIVED", "SYNTHETIC"]\nexpect = "signed-with-sources"\n'

    judgement = judge(policy(EVERYTHING, rule), signed_with(nested, covered=True))

    assert judgement.rule_ids[0] == "made"


# ---------------------------------------------------------------------------------------------- the guide

SECTION: Final = GUIDE.read_text("utf-8").partition("## What an instance says of itself\n")[2].partition("\n## ")[0]
TRAP, REMEDY = re.findall(r"```toml\n(.*?)```", SECTION, re.DOTALL)


def rows() -> list[tuple[str, ...]]:
    return [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in SECTION.splitlines()
        if line.startswith("| unsigned")
    ]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_the_guide_warns_of_the_trap_and_shows_the_way_out(row: tuple[str, ...]) -> None:
    said, trap, remedy = row
    content = [ContentClass.PHANTOM] if "PHANTOM" in said else []
    sender = "QA_LAB" if "QA_LAB" in said else "CT_AE"

    for entries, verdict in ((TRAP, trap), (REMEDY, remedy)):
        assert judge(policy(entries), instance(equipment=CT1, content=content), sending_ae=sender).verdict == verdict
