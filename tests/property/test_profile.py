"""The profiles for any tag and any data set: C.2 is always covered, and the rules are those of docs/profiles.md."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from agent.dicom.profile import ProfileName, load_profile
from tests.support.creator_attributes import CREATOR_VERSION_UID
from tests.support.excluded_attributes import (
    ALTHOUGH_EXCLUDED,
    COERCION_PRONE,
    DECIDED,
    OF_MODULES,
    covered_by_creator_plus,
    is_demanded_by_c_2,
)

RSA = load_profile(ProfileName.CREATOR_RSA)
PLUS = {switch: load_profile(ProfileName.CREATOR_PLUS, private_elements=switch) for switch in (False, True)}

NAMED = sorted(RSA.creator | OF_MODULES | COERCION_PRONE | DECIDED | ALTHOUGH_EXCLUDED)
TAGS = st.one_of(
    st.integers(0, 0xFFFFFFFF),
    st.sampled_from(NAMED),
    st.builds(
        lambda group, element: group << 16 | element, st.sampled_from((0x10, 0x12, 0x32, 0x38)), st.integers(0, 0xFFFF)
    ),
    st.builds(lambda group, element: group << 16 | element, st.integers(0x5000, 0x60FF), st.integers(0, 0xFFFF)),
)
DATA_SETS = st.lists(st.one_of(TAGS, st.just(CREATOR_VERSION_UID)), unique=True, max_size=60).map(sorted)


@given(TAGS)
def test_creator_rsa_is_the_list_of_c_2(tag: int) -> None:
    assert RSA.selection().selects(tag) is is_demanded_by_c_2(tag)
    assert RSA.reason(tag) == "" or not is_demanded_by_c_2(tag)


@given(DATA_SETS)
def test_creator_plus_covers_all_that_creator_rsa_covers(tags: list[int]) -> None:
    for profile in PLUS.values():
        assert set(filter(RSA.selection().selects, tags)) <= set(filter(profile.selection().selects, tags))


@given(tags=DATA_SETS, private_elements=st.booleans())
@example(tags=[CREATOR_VERSION_UID, 0x00090010, 0x00100010], private_elements=False)
def test_creator_plus_covers_what_its_rules_say(*, tags: list[int], private_elements: bool) -> None:
    covered = list(filter(PLUS[private_elements].selection().selects, tags))
    assert covered == list(covered_by_creator_plus(tags, private_elements=private_elements))


@given(tag=TAGS, private_elements=st.booleans())
def test_there_is_a_reason_exactly_where_something_is_not_covered(*, tag: int, private_elements: bool) -> None:
    profile = PLUS[private_elements]
    assert bool(profile.reason(tag)) is not profile.selection().selects(tag)
