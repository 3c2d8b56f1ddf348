"""What an unsigned instance says of itself is in the hands of its sender: which rules that escapes, and which not.

No content outweighs an entry with any other key. It does outweigh a rule for everything, and the guide for archive
owners says so.
"""

from __future__ import annotations

import re
from typing import Final

import pytest

from agent.dicom.claims import claims_of, content_of
from agent.dicom.report import ContentClass, Equipment
from agent.policy.model import MatchKey
from agent.policy.verdicts import Action, Verdict
from tests.support.data_sets import code, data_set
from tests.support.policies import CT1, CT1_ENTRY, GUIDE, instance, judge, policy
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
