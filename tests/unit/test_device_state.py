"""The states of a scanner: which facts make which, what leads from one to another, and who has to act (R15)."""

from __future__ import annotations

import itertools

import pytest

from enroll.device_state import (
    TRANSITIONS,
    DeviceEvent,
    DeviceFacts,
    DeviceState,
    may_become,
    standing,
    state_of,
    ways_out,
)
from enroll.errors import DeviceNeedsService, StateTooNew, StateUnreadable
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
    ("state", "commands"),
    [
        ("unowned", ["enroll", "owner disable"]),
        ("owned", ["owner disable", "owner release"]),
        ("disabled", ["owner enable", "owner enable --reset-record", "owner release"]),
        ("key-lost", ["enroll", "owner disable", "owner release"]),
        ("needs-service", ["enroll", "owner disable", "owner enable --reset-record", "owner release"]),
    ],
)
def test_people_are_told_what_leads_out_of_a_state(state: str, commands: list[str]) -> None:
    assert list(ways_out(DeviceState(state))) == [f"scanseal {command}" for command in commands]


@pytest.mark.parametrize(("record", "found"), EXPECTED, ids=["/".join(each) for each in EXPECTED])
def test_the_next_action_leads_out_of_the_state(record: str, found: str) -> None:
    known = facts(record, found)
    action = standing(known).next_action

    assert any(command in action for command in ways_out(state_of(known))) or state_of(known) is DeviceState.OWNED


def test_only_a_person_leads_out_of_disabled_and_only_the_owner() -> None:
    """Whatever else happens; where the record itself is lost, nothing is signed either (R15)."""
    leaving = {event for event in DeviceEvent if may_become(DeviceState.DISABLED, event) != {DeviceState.DISABLED}}

    assert leaving == {DeviceEvent.ENABLE, DeviceEvent.RESET, DeviceEvent.RELEASE, DeviceEvent.LOSE_RECORD}
    assert TRANSITIONS[DeviceState.DISABLED][DeviceEvent.LOSE_RECORD] == {DeviceState.NEEDS_SERVICE}


def test_neither_a_restart_nor_the_timer_leads_out_of_a_state_that_needs_somebody() -> None:
    for state in (DeviceState.DISABLED, DeviceState.NEEDS_SERVICE):
        for event in (DeviceEvent.RESTART, DeviceEvent.RENEW):
            assert may_become(state, event) == {state}


def test_every_state_is_reached_and_can_be_left() -> None:
    reached = {after for events in TRANSITIONS.values() for states in events.values() for after in states}

    assert reached == set(DeviceState) == set(TRANSITIONS)
    for state, events in TRANSITIONS.items():
        assert any(states - {state} for states in events.values())


def test_a_disabling_is_possible_in_every_state_and_leads_to_disabled_alone() -> None:
    for state in DeviceState:
        assert may_become(state, DeviceEvent.DISABLE) <= {state, DeviceState.DISABLED}
        assert DeviceState.DISABLED in may_become(state, DeviceEvent.DISABLE)
