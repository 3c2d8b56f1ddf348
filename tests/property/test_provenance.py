"""Whatever instances name each other as sources, the graph ends, asks once, and never verifies what it should not."""

from __future__ import annotations

from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.dicom.provenance.graph import GraphLimits, LinkCheck, NodeVerdict
from agent.dicom.provenance.text import provenance_json, provenance_text
from tests.support.provenance import DIGEST, Archive, mac, node, source, uid

EXAMPLES: Final = settings(max_examples=300, deadline=None)
MOST: Final = 12
STANDINGS: Final = [
    NodeVerdict.VERIFIED,
    NodeVerdict.VERIFIED,
    NodeVerdict.VERIFIED,
    NodeVerdict.UNSIGNED,
    NodeVerdict.BROKEN,
    NodeVerdict.UNKNOWN_SIGNER,
]
NUMBERS: Final = st.integers(1, MOST)
SOURCES: Final = st.lists(
    st.builds(
        lambda number, covered, macs: source(number, covered=covered, macs=macs),
        NUMBERS,
        st.sampled_from([True, True, True, False]),
        st.sampled_from([(), (), (mac(),), (mac(b"a lie"),)]),
    ),
    max_size=3,
    unique_by=lambda stated: stated.reference.sop_instance_uid,
)


@st.composite
def archives(draw: st.DrawFn) -> Archive:
    """Some of the instances 1 to MOST, naming each other at will."""
    present = draw(st.sets(NUMBERS, max_size=MOST)) | {1}
    nodes = [node(number, *draw(SOURCES), standing=draw(st.sampled_from(STANDINGS))) for number in sorted(present)]
    return Archive.of(*nodes)


def reached(archive: Archive, start: str) -> set[str]:
    """What can be reached from an instance in one step or more, by brute force."""
    found: set[str] = set()
    unread = [start]
    while unread:
        here = archive.nodes.get(unread.pop())
        for stated in here.stated.sources if here else ():
            if stated.reference.sop_instance_uid not in found:
                found.add(stated.reference.sop_instance_uid)
                unread.append(stated.reference.sop_instance_uid)
    return found


@EXAMPLES
@given(archives())
def test_each_instance_is_asked_for_once_and_each_is_reached(archive: Archive) -> None:
    graph = archive.graph()
    everything = reached(archive, uid(1)) | {uid(1)}
    assert sorted(archive.lookups) == sorted(everything)
    assert {item.sop_instance_uid for item in graph.nodes} == everything


@EXAMPLES
@given(archives())
def test_the_whole_is_verified_exactly_if_nothing_anywhere_is_in_doubt(archive: Archive) -> None:
    graph = archive.graph()
    everything = reached(archive, uid(1)) | {uid(1)}
    fine = all(
        (found := archive.nodes.get(name)) is not None
        and found.standing is NodeVerdict.VERIFIED
        and name not in reached(archive, name)
        and all(stated.reference.covered for stated in found.stated.sources)
        and all(stated_mac.value == DIGEST for stated in found.stated.sources for stated_mac in stated.macs)
        for name in everything
    )
    assert graph.sources_verified == (None if fine and not graph.edges else fine)


@EXAMPLES
@given(archives())
def test_every_ring_is_found_and_no_leaf_is_taken_for_one(archive: Archive) -> None:
    lied_about = {edge.source for edge in archive.graph().edges if edge.check is LinkCheck.DIFFERS}
    for item in archive.graph().nodes:
        name = item.sop_instance_uid
        if name in reached(archive, name) and name not in lied_about:
            assert item.verdict is NodeVerdict.CYCLE
        if not reached(archive, name):
            assert item.verdict is not NodeVerdict.CYCLE


@EXAMPLES
@given(archives())
def test_taking_an_instance_away_never_verifies_anything(archive: Archive) -> None:
    before = archive.graph().sources_verified
    for name in sorted(reached(archive, uid(1)) - {uid(1)}):
        kept = {other: item for other, item in archive.nodes.items() if other != name}
        assert not Archive(kept).graph().sources_verified or before


@EXAMPLES
@given(archives(), st.builds(GraphLimits, st.integers(0, 4), st.integers(1, 6), st.integers(0, 8)))
def test_tighter_limits_never_verify_anything_and_are_kept(archive: Archive, limits: GraphLimits) -> None:
    whole, part = archive.graph(), archive.graph(limits=limits)
    assert not part.sources_verified or whole.sources_verified
    assert len(part.nodes) <= limits.instances
    assert len(part.edges) <= limits.references


@EXAMPLES
@given(archives())
def test_text_and_json_name_every_instance(archive: Archive) -> None:
    graph = archive.graph()
    text, document = provenance_text(graph), provenance_json(graph)
    assert all(f"{item.sop_instance_uid} {item.verdict.value}" in text for item in graph.nodes)
    assert document["sources_verified"] == bool(graph.sources_verified)
