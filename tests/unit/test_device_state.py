"""The states of a scanner: which facts make which, what leads from one to another, and who has to act (R15)."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from enroll.device_state import (
    TRANSITIONS,
    DeviceEvent,
    DeviceFacts,
    DeviceState,
    Situation,
    may_become,
    refusal,
    situation_of,
    standing,
    state_of,
    ways_out,
)
from enroll.errors import DeviceDisabled, DeviceNeedsService, StateTooNew, StateUnreadable
from enroll.owner_record import OwnerRecord
from tests.support.pki import NOW

RECORDS = {
    "none": None,
    "unowned": OwnerRecord(is_owned=False, is_disabled=False, since=NOW),
    "owned": OwnerRecord(is_owned=True, is_disabled=False, since=NOW),
    "unowned-disabled": OwnerRecord(is_owned=False, is_disabled=True, since=NOW, by="0", reason="it is lent"),
    "owned-disabled": OwnerRecord(is_owned=True, is_disabled=True, since=NOW),
}
LOST = DeviceNeedsService("owner.json is missing.", remedy="Ask its owner.")

# Which record, and whether it is lost; in use, damaged, lost keys: what that makes. Written out, so that nothing of the
# order of the product is used twice.
EXPECTED = {
    ("none", "---"): "unowned",
    ("none", "--k"): "key-lost",
    ("none", "-d-"): "needs-service",
    ("none", "-dk"): "needs-service",
    ("none", "u--"): "unowned",
    ("none", "u-k"): "key-lost",
    ("none", "ud-"): "needs-service",
    ("none", "udk"): "needs-service",
    ("unowned", "---"): "unowned",
    ("unowned", "--k"): "key-lost",
    ("unowned", "-d-"): "needs-service",
    ("unowned", "-dk"): "needs-service",
    ("unowned", "u--"): "unowned",
    ("unowned", "u-k"): "key-lost",
    ("unowned", "ud-"): "needs-service",
    ("unowned", "udk"): "needs-service",
    ("owned", "---"): "unowned",
    ("owned", "--k"): "key-lost",
    ("owned", "-d-"): "needs-service",
    ("owned", "-dk"): "needs-service",
    ("owned", "u--"): "owned",
    ("owned", "u-k"): "key-lost",
    ("owned", "ud-"): "needs-service",
    ("owned", "udk"): "needs-service",
    **{
        (record, "".join(found)): "disabled"
        for record in ("unowned-disabled", "owned-disabled")
        for found in itertools.product("-u", "-d", "-k")
    },
}


def facts(record: str, found: str) -> DeviceFacts:
    return DeviceFacts(
        record=RECORDS[record],
        owners=("device",) if "u" in found else (),
        damaged=("signing",) if "d" in found else (),
        lost=("device",) if "k" in found else (),
    )


@pytest.mark.parametrize(("record", "found"), EXPECTED, ids=["/".join(each) for each in EXPECTED])
def test_every_combination_of_facts_makes_the_state_that_is_written_down(record: str, found: str) -> None:
    assert len(EXPECTED) == len(RECORDS) * 2**3
    assert state_of(facts(record, found)) == EXPECTED[record, found]


@pytest.mark.parametrize(("record", "found"), EXPECTED, ids=["/".join(each) for each in EXPECTED])
def test_without_a_record_that_can_be_believed_a_scanner_needs_service_whatever_else_holds(
    record: str, found: str
) -> None:
    known = facts(record, found)
    for problem in (LOST, StateTooNew("Too new."), StateUnreadable("Not yours.")):
        lost = DeviceFacts(None, problem, known.owners, known.damaged, known.lost)
        assert state_of(lost) is DeviceState.NEEDS_SERVICE
        assert standing(lost).reason == problem.what
        assert standing(lost).who_must_act == problem.who_must_act


@pytest.mark.parametrize(
    ("record", "found", "who", "action", "reason"),
    [
        ("none", "---", "hospital IT", "Run: scanseal enroll est", "no certificate of an owner is in use"),
        ("owned", "u--", "nobody", "", ""),
        (
            "unowned-disabled",
            "---",
            "owner of the scanner",
            "Run: scanseal owner enable",
            f"since {NOW:%Y-%m-%d %H:%M} UTC by user 0: it is lent",
        ),
        (
            "owned-disabled",
            "udk",
            "owner of the scanner",
            "Run: scanseal owner enable",
            f"since {NOW:%Y-%m-%d %H:%M} UTC: no reason was given",
        ),
        (
            "owned",
            "u-k",
            "service engineer",
            "Run: scanseal enroll est, and have the CA revoke the old certificate.",
            "not in its key store: the key of device",
        ),
        (
            "owned",
            "ud-",
            "service engineer",
            "Restore the state directory from a backup, or run: scanseal enroll est",
            "damaged: signing",
        ),
    ],
    ids=["unowned", "owned", "disabled with a reason", "disabled without one", "key lost", "needs service"],
)
def test_each_state_says_why_what_to_do_and_who_does_it(
    record: str, found: str, who: str, action: str, reason: str
) -> None:
    told = standing(facts(record, found), "scanseal enroll est")

    assert (told.reason, told.next_action, told.who_must_act) == (reason, action, who)


def test_a_release_that_is_under_way_comes_before_an_enrollment_and_after_a_disabling() -> None:
    for record, action in (("none", "release"), ("owned", "release"), ("owned-disabled", "enable")):
        known = facts(record, "u--")
        told = standing(DeviceFacts(known.record, None, known.owners, is_releasing=True))
        assert action in told.next_action


# --- what leads from one to another


@pytest.mark.parametrize(
    ("situation", "commands"),
    [
        ("unowned", ["enroll", "owner disable"]),
        ("owned", ["owner disable", "owner release"]),
        ("disabled", ["owner enable", "owner enable --reset-record", "owner release"]),
        ("key-lost", ["enroll", "owner disable", "owner release"]),
        ("certificate-damaged", ["enroll", "owner disable", "owner release"]),
        ("record-lost", ["owner disable", "owner enable --reset-record", "owner release"]),
        ("record-closed", []),
    ],
)
def test_people_are_told_what_leads_out_of_a_state(situation: str, commands: list[str]) -> None:
    """And nothing that is refused there."""
    assert list(ways_out(Situation(situation))) == [f"scanseal {command}" for command in commands]


@pytest.mark.parametrize(("record", "found"), EXPECTED, ids=["/".join(each) for each in EXPECTED])
def test_the_next_action_leads_out_of_the_state(record: str, found: str) -> None:
    known = facts(record, found)
    action, commands = standing(known).next_action, ways_out(situation_of(known))

    assert any(command in action for command in commands) or not commands or state_of(known) is DeviceState.OWNED


# What may be done, written out: by whoever signs or enrolls, gives up, and decides.
ALL = "sign enroll renew give-up disable enable reset release"
MAY_BE_DONE = {
    "unowned": ALL,
    "owned": ALL,
    "key-lost": ALL,
    "certificate-damaged": ALL,
    "disabled": "give-up disable enable reset release",
    "record-lost": "give-up disable reset release",
    "record-closed": "give-up",
}
DONE = tuple(DeviceEvent(event) for event in ALL.split())
FACTS = {
    "unowned": facts("none", "---"),
    "owned": facts("owned", "u--"),
    "key-lost": facts("owned", "u-k"),
    "certificate-damaged": facts("owned", "ud-"),
    "disabled": facts("owned-disabled", "u--"),
    "record-lost": DeviceFacts(record_problem=LOST),
    "record-closed": DeviceFacts(record_problem=StateTooNew("owner.json is of a newer version.")),
}


@pytest.mark.parametrize("event", DONE)
@pytest.mark.parametrize("situation", MAY_BE_DONE)
def test_what_the_state_does_not_let_is_refused_with_the_reason_and_nothing_else_is(
    situation: str, event: DeviceEvent
) -> None:
    refused = refusal(FACTS[situation], event)

    if event in MAY_BE_DONE[situation].split():
        assert refused is None
    elif situation == "disabled":
        assert isinstance(refused, DeviceDisabled)
        assert refused.what == f"The owner has disabled this scanner on {NOW:%Y-%m-%d %H:%M} UTC."
        assert (refused.remedy, refused.who_must_act) == (
            "Its owner may run: scanseal owner enable",
            "owner of the scanner",
        )
    else:
        assert refused is FACTS[situation].record_problem


def test_a_refusal_for_a_disabled_scanner_says_why_it_was_disabled() -> None:
    refused = refusal(facts("unowned-disabled", "---"), DeviceEvent.ENROLL)

    assert refused is not None
    assert refused.what.endswith("UTC (it is lent).")


@pytest.mark.parametrize("event", DONE)
@pytest.mark.parametrize("situation", MAY_BE_DONE)
def test_while_a_release_is_under_way_nothing_comes_that_would_go_with_it(situation: str, event: DeviceEvent) -> None:
    """And everything else stays as allowed or refused as it was: a disabled scanner does not sign meanwhile."""
    known = FACTS[situation]
    refused = refusal(replace(known, is_releasing=True), event)

    if event in {DeviceEvent.ENROLL, DeviceEvent.RENEW, DeviceEvent.GIVE_UP}:
        assert refused is not None
        assert (refused.code, refused.remedy) == ("release-under-way", "Run again: scanseal owner release")
    else:
        assert (refused is None) == (refusal(known, event) is None)


@pytest.mark.parametrize("event", DONE)
@pytest.mark.parametrize(("record", "found"), EXPECTED, ids=["/".join(each) for each in EXPECTED])
def test_whoever_knows_only_what_the_owner_says_gets_the_same_answer(
    record: str, found: str, event: DeviceEvent
) -> None:
    """So the keyholder asks before each signature without a look at certificates and tokens."""
    known = facts(record, found)
    alone = refusal(DeviceFacts(record=known.record), event)

    assert (refusal(known, event) is None) == (alone is None)


def test_only_a_person_leads_out_of_disabled_and_only_the_owner() -> None:
    """Whatever else happens; where the record itself is lost, nothing is signed either (R15)."""
    leaving = {event for event in DeviceEvent if may_become(Situation.DISABLED, event) != {Situation.DISABLED}}

    assert leaving == {DeviceEvent.ENABLE, DeviceEvent.RESET, DeviceEvent.RELEASE, DeviceEvent.LOSE_RECORD}
    assert TRANSITIONS[Situation.DISABLED][DeviceEvent.LOSE_RECORD] == {Situation.RECORD_LOST}


def test_neither_a_restart_nor_the_timer_leads_out_of_what_needs_somebody() -> None:
    for situation in Situation:
        if situation.state in {DeviceState.DISABLED, DeviceState.NEEDS_SERVICE}:
            for event in (DeviceEvent.RESTART, DeviceEvent.RENEW):
                assert may_become(situation, event) == {situation}


def test_every_state_is_reached_and_can_be_left() -> None:
    """But for a record that this version cannot read, which comes with another version and goes with it."""
    reached = {after for events in TRANSITIONS.values() for found in events.values() for after in found}

    assert set(TRANSITIONS) == set(Situation)
    assert {situation.state for situation in Situation} == set(DeviceState)
    assert reached == set(Situation) - {Situation.RECORD_CLOSED}
    for situation, events in TRANSITIONS.items():
        assert any(found - {situation} for found in events.values())


def test_a_disabling_is_possible_in_every_state_and_leads_to_disabled_alone() -> None:
    """Over a record of a newer version it is refused: that is overwritten by nobody."""
    for situation in set(Situation) - {Situation.RECORD_CLOSED}:
        assert may_become(situation, DeviceEvent.DISABLE) == {situation, Situation.DISABLED}
