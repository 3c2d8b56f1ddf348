"""What an instance was made from, as a graph: a verdict per instance, one for the whole, and no way to wear it out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from agent.dicom.claims import Meaning
from agent.dicom.provenance.graph import GraphLimits, LinkCheck, NodeVerdict
from agent.dicom.provenance.sources import StatedSignature, StatedSources
from agent.dicom.provenance.text import provenance_json, provenance_text
from agent.dicom.report import Finding, Outcome
from tests.support.provenance import DIGEST, Archive, claim, mac, node, source, uid, verdicts


def chain(length: int) -> Archive:
    """An instance, `length` steps of derivation after an original."""
    return Archive.of(*(node(number, number + 1) for number in range(1, length + 1)), node(length + 1))


# --- chains whose every instance is signed ---


def test_an_original_has_no_sources_that_could_be_verified() -> None:
    graph = chain(0).graph()
    assert verdicts(graph) == {"1": "verified"}
    assert graph.sources_verified is None
    assert provenance_text(graph).splitlines()[-1] == "it names no sources"
    assert provenance_json(graph)["sources_verified"] is False


def test_an_unsigned_original_without_sources_is_in_doubt_all_the_same() -> None:
    assert Archive.of(node(1, standing=NodeVerdict.UNSIGNED)).graph().sources_verified is False


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_chain_back_to_a_signed_original_is_verified(steps: int) -> None:
    graph = chain(steps).graph()
    assert graph.sources_verified
    assert list(verdicts(graph).values()) == ["verified"] * (steps + 1)
    assert len(graph.edges) == steps


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("standing", ["unsigned", "broken", "unknown-signer", "indeterminate"])
def test_one_unverified_leaf_makes_the_whole_an_unverified_source(steps: int, standing: str) -> None:
    archive = chain(steps)
    archive.nodes[uid(steps + 1)] = node(steps + 1, standing=NodeVerdict(standing))
    graph = archive.graph()
    assert not graph.sources_verified
    assert verdicts(graph)[str(steps + 1)] == standing
    assert set(verdicts(graph).values()) == {"verified", standing}


@pytest.mark.parametrize("position", [1, 3, 5])
def test_one_unverified_link_makes_the_whole_an_unverified_source(position: int) -> None:
    archive = chain(5)
    archive.nodes[uid(position)] = replace(archive.nodes[uid(position)], standing=NodeVerdict.UNSIGNED)
    assert not archive.graph().sources_verified


def test_a_missing_source_is_said_to_be_missing() -> None:
    graph = Archive.of(node(1, 2, 3), node(2)).graph()
    assert verdicts(graph) == {"1": "verified", "2": "verified", "3": "missing"}
    assert not graph.sources_verified


def test_a_root_that_is_not_there_is_missing() -> None:
    graph = Archive.of().graph()
    assert verdicts(graph) == {"1": "missing"}
    assert not graph.sources_verified


def test_a_source_that_cannot_be_read_is_left_open() -> None:
    archive = Archive.of(node(1, 2), node(2))
    archive.unreadable = frozenset((uid(2),))
    assert verdicts(archive.graph())["2"] == "indeterminate"


def test_an_archive_that_answers_with_another_instance_has_not_found_it() -> None:
    archive = Archive.of(node(1, 2))
    archive.nodes[uid(2)] = node(3)
    assert verdicts(archive.graph())["2"] == "missing"


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "2.25.1'--", "1" * 65, "2.25.1\n", "2..5", "*"])
def test_what_is_no_uid_is_never_looked_up(name: str) -> None:
    stated = source(2)
    hostile = replace(stated, reference=replace(stated.reference, sop_instance_uid=name))
    archive = Archive.of(node(1, hostile))
    graph = archive.graph()
    assert archive.lookups == [uid(1)]
    assert [item.verdict.value for item in graph.nodes] == ["verified", "missing"]


# --- what an instance says of itself ---


def test_a_derived_leaf_that_names_no_sources_is_unverified() -> None:
    graph = Archive.of(node(1, 2), node(2, claims=(claim(Meaning.DERIVED),))).graph()
    assert verdicts(graph)["2"] == "no-sources"


def test_what_has_no_image_type_ends_a_branch_by_its_signature() -> None:
    assert Archive.of(node(1, 2), node(2, claims=())).graph().sources_verified


def test_an_original_that_names_sources_is_followed_all_the_same() -> None:
    graph = Archive.of(node(1, 2, claims=(claim(Meaning.ORIGINAL),))).graph()
    assert verdicts(graph) == {"1": "verified", "2": "missing"}


@pytest.mark.parametrize("meaning", [Meaning.ORIGINAL, Meaning.DERIVED, Meaning.SYNTHETIC])
def test_an_origin_that_no_signature_covers_is_unverified(meaning: Meaning) -> None:
    graph = Archive.of(node(1, 2), node(2, 3, claims=(claim(meaning, covered=False),)), node(3)).graph()
    assert verdicts(graph)["2"] == "origin-not-covered"


def test_a_marker_that_is_not_covered_but_repeats_a_covered_one_does_no_harm() -> None:
    claims = (claim(Meaning.DERIVED), claim(Meaning.DERIVED, covered=False, tag=0x00082111))
    assert Archive.of(node(1, 2, claims=claims), node(2)).graph().sources_verified


def test_a_synthetic_leaf_that_says_so_under_its_signature_ends_a_branch() -> None:
    root = node(1, 2, claims=(claim(Meaning.DERIVED), claim(Meaning.SYNTHETIC, tag=0x0008001C)))
    graph = Archive.of(root, node(2, claims=(claim(Meaning.SYNTHETIC, tag=0x0008001C),))).graph()
    assert graph.sources_verified
    assert graph.findings == ()


def test_what_is_made_from_synthetic_data_and_does_not_say_so_is_noted() -> None:
    graph = Archive.of(node(1, 2), node(2, claims=(claim(Meaning.SYNTHETIC, tag=0x0008001C),))).graph()
    assert [(finding.code, finding.outcome) for finding in graph.findings] == [
        ("synthetic-source-undeclared", Outcome.FLAGGED)
    ]


# --- what was stated of a source ---


def test_a_reference_that_no_signature_covers_leaves_the_whole_unverified() -> None:
    graph = Archive.of(node(1, source(2, covered=False)), node(2)).graph()
    assert verdicts(graph) == {"1": "verified", "2": "verified"}
    assert not graph.sources_verified


def test_a_source_that_fits_its_stated_mac_is_verified() -> None:
    graph = Archive.of(node(1, source(2, macs=(mac(),))), node(2)).graph()
    assert [edge.check for edge in graph.edges] == [LinkCheck.FITS]
    assert graph.sources_verified


def test_a_source_that_is_not_what_was_referenced_is_a_mac_mismatch() -> None:
    graph = Archive.of(node(1, source(2, macs=(mac(b"a lie"),))), node(2)).graph()
    assert verdicts(graph)["2"] == "mac-mismatch"
    assert not graph.sources_verified


def test_one_wrong_mac_among_right_ones_is_enough() -> None:
    macs = (mac(), mac(b"a lie", 0x00280010))
    assert verdicts(Archive.of(node(1, source(2, macs=macs)), node(2)).graph())["2"] == "mac-mismatch"


def test_a_mac_that_cannot_be_checked_leaves_the_whole_unverified_without_accusing_the_source() -> None:
    unknown = replace(mac(), algorithm="CRC32")
    graph = Archive.of(node(1, source(2, macs=(unknown,))), node(2)).graph()
    assert [edge.check for edge in graph.edges] == [LinkCheck.NOT_CHECKABLE]
    assert verdicts(graph)["2"] == "verified"
    assert not graph.sources_verified


def test_the_mac_of_a_missing_source_is_not_calculated() -> None:
    archive = Archive.of(node(1, source(2, macs=(mac(),))))
    assert verdicts(archive.graph())["2"] == "missing"
    assert archive.hashed == []


@pytest.mark.parametrize(
    ("borne", "verdict"),
    [({"2.25.99": b"sig!"}, "verified"), ({"2.25.99": b"new!"}, "mac-mismatch"), ({}, "mac-mismatch")],
)
def test_a_stated_signature_has_to_be_the_one_that_the_source_bears(borne: dict[str, bytes], verdict: str) -> None:
    stated = source(2, signatures=(StatedSignature("2.25.99", b"sig!"),))
    assert verdicts(Archive.of(node(1, stated), node(2, signatures=borne)).graph())["2"] == verdict


def test_the_same_stated_mac_is_calculated_once_for_all_who_state_it() -> None:
    derived = [node(number, source(100, macs=(mac(),))) for number in range(2, 50)]
    archive = Archive.of(node(1, *range(2, 50)), *derived, node(100))
    assert archive.graph().sources_verified
    assert archive.hashed == [uid(100)]


def test_a_flood_of_different_macs_of_one_source_is_not_calculated() -> None:
    flood = tuple(mac(DIGEST, 0x00080018, tag) for tag in range(0x00090010, 0x00090010 + 5_000))
    archive = Archive.of(node(1, source(2, macs=flood)), node(2))
    assert not archive.graph().sources_verified
    assert len(archive.hashed) == 16


# --- rings, diamonds, size ---


def test_an_instance_that_names_itself_is_a_cycle() -> None:
    graph = Archive.of(node(1, 1)).graph()
    assert verdicts(graph) == {"1": "cycle"}
    assert not graph.sources_verified


def test_instances_that_were_made_from_each_other_are_a_cycle_and_what_leads_there_is_not() -> None:
    archive = Archive.of(node(1, 2), node(2, 3, 9), node(3, 4), node(4, 2), node(9))
    graph = archive.graph()
    assert verdicts(graph) == {"1": "verified", "2": "cycle", "3": "cycle", "9": "verified", "4": "cycle"}
    assert not graph.sources_verified
    assert len(archive.lookups) == len(set(archive.lookups)) == 5


def test_two_rings_beside_each_other_are_both_found() -> None:
    graph = Archive.of(node(1, 2, 4), node(2, 3), node(3, 2), node(4, 4)).graph()
    assert verdicts(graph) == {"1": "verified", "2": "cycle", "4": "cycle", "3": "cycle"}


def test_a_diamond_is_looked_up_once_and_verified() -> None:
    archive = Archive.of(node(1, 2, 3), node(2, 4), node(3, 4), node(4))
    graph = archive.graph()
    assert graph.sources_verified
    assert archive.lookups == [uid(1), uid(2), uid(3), uid(4)]
    assert len(graph.edges) == 4


def test_a_diamond_is_a_mismatch_as_soon_as_one_side_states_another_source() -> None:
    sides = (node(2, source(4, macs=(mac(),))), node(3, source(4, macs=(mac(b"a lie"),))))
    graph = Archive.of(node(1, 2, 3), *sides, node(4)).graph()
    assert verdicts(graph)["4"] == "mac-mismatch"
    assert [edge.check for edge in graph.edges if edge.source == uid(4)] == [LinkCheck.FITS, LinkCheck.DIFFERS]


def test_diamonds_on_diamonds_stay_as_small_as_they_are() -> None:
    """2 to the power of 200 ways lead to the end."""
    rungs = [node(2 * step, 2 * step + 2, 2 * step + 3) for step in range(1, 201)]
    rungs += [node(2 * step + 1, 2 * step + 2, 2 * step + 3) for step in range(1, 201)]
    archive = Archive.of(node(1, 2, 3), *rungs, node(402), node(403))
    graph = archive.graph()
    assert graph.sources_verified
    assert len(archive.lookups) == 403
    assert provenance_text(graph).count("\n") < 1_000


def test_a_thousand_sources_are_each_verified_once() -> None:
    archive = Archive.of(node(1, *range(2, 1_002)), *(node(number) for number in range(2, 1_002)))
    graph = archive.graph()
    assert graph.sources_verified
    assert len(graph.nodes) == len(archive.lookups) == 1_001


def test_ten_thousand_steps_are_followed_without_recursion() -> None:
    steps = 9_999
    archive = chain(steps)
    start = time.perf_counter()
    graph = archive.graph(limits=GraphLimits(depth=10_000))
    assert graph.sources_verified
    assert len(graph.nodes) == steps + 1
    assert provenance_text(graph, most_lines=20_000)
    assert time.perf_counter() - start < 10


def test_a_ring_of_ten_thousand_is_found() -> None:
    archive = chain(9_999)
    archive.nodes[uid(10_000)] = node(10_000, 1)
    assert set(verdicts(archive.graph(limits=GraphLimits(depth=10_000))).values()) == {"cycle"}


# --- limits ---


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_what_is_deeper_than_the_limit_is_not_followed(depth: int) -> None:
    archive = chain(5)
    graph = archive.graph(limits=GraphLimits(depth=depth))
    assert len(archive.lookups) == depth + 1
    assert verdicts(graph)[str(depth + 1)] == "not-followed"
    assert not graph.sources_verified


def test_a_depth_that_is_just_enough_is_enough() -> None:
    assert chain(5).graph(limits=GraphLimits(depth=5)).sources_verified


def test_more_instances_than_the_limit_are_not_looked_up() -> None:
    archive = Archive.of(node(1, *range(2, 102)), *(node(number) for number in range(2, 102)))
    graph = archive.graph(limits=GraphLimits(instances=50))
    assert len(archive.lookups) == 50
    assert verdicts(graph)["1"] == "not-followed"


def test_more_references_than_the_limit_are_not_kept() -> None:
    everybody = range(1, 101)
    archive = Archive.of(*(node(number, *everybody) for number in everybody))
    graph = archive.graph(limits=GraphLimits(references=1_000))
    assert len(graph.edges) <= 1_000
    assert not graph.sources_verified


def test_more_that_is_stated_than_the_limit_is_not_kept() -> None:
    stated = {number: replace(node(number, number + 1).stated, size=100) for number in range(1, 5)}
    archive = Archive.of(*(replace(node(number, number + 1), stated=stated[number]) for number in stated), node(5))
    assert archive.graph(limits=GraphLimits(stated=400)).sources_verified
    graph = archive.graph(limits=GraphLimits(stated=399))
    assert verdicts(graph) == {"1": "verified", "2": "verified", "3": "verified", "4": "not-followed"}
    assert not graph.sources_verified


def test_an_instance_with_more_sources_than_are_read_is_not_followed_to_the_end() -> None:
    cut = replace(node(1, 2), stated=StatedSources((source(2),), (Finding("sources-too-many", "too many"),)))
    assert verdicts(Archive.of(cut, node(2)).graph()) == {"1": "not-followed", "2": "verified"}


# --- what comes first ---


@pytest.mark.parametrize(
    ("archive", "verdict"),
    [
        (
            lambda: Archive.of(node(1, source(2, macs=(mac(b"a lie"),))), node(2, standing=NodeVerdict.UNSIGNED)),
            "mac-mismatch",
        ),
        (lambda: Archive.of(node(1, 2), node(2, 2, standing=NodeVerdict.BROKEN)), "cycle"),
        (
            lambda: Archive.of(node(1, 2), node(2, standing=NodeVerdict.BROKEN, claims=(claim(Meaning.DERIVED),))),
            "broken",
        ),
    ],
)
def test_of_several_verdicts_the_heaviest_is_given(archive: Callable[[], Archive], verdict: str) -> None:
    assert verdicts(archive().graph())["2"] == verdict


# --- text and JSON ---


def test_the_graph_is_shown_as_a_tree() -> None:
    lie = source(4, macs=(mac(b"a lie"),), covered=False)
    not_as_stated = "not what was referenced, named where no signature covers it"
    graph = Archive.of(node(1, 2, lie), node(2, 3, 5), node(3), node(4), node(5, 3)).graph()
    assert provenance_text(graph).splitlines() == [
        "2.25.1 verified: derived, by serialNumber=SN1",
        "├── 2.25.2 verified: derived, by serialNumber=SN2",
        "│   ├── 2.25.3 verified: original, by serialNumber=SN3",
        "│   └── 2.25.5 verified: derived, by serialNumber=SN5",
        "│       └── 2.25.3 verified: original, by serialNumber=SN3",
        f"└── 2.25.4 mac-mismatch: original, by serialNumber=SN4, {not_as_stated}",
        "unverified source: 2.25.4 is mac-mismatch (1 in doubt)",
    ]


def test_what_was_shown_is_not_unfolded_again() -> None:
    graph = Archive.of(node(1, 2, 3), node(2, 3), node(3, 4), node(4)).graph()
    text = provenance_text(graph)
    assert text.count("2.25.4 ") == 1
    assert "2.25.3 verified: derived, by serialNumber=SN3, see above" in text
    assert text.endswith("sources verified (4 instances)")


def test_a_long_chain_is_numbered_instead_of_indented() -> None:
    text = provenance_text(chain(500).graph())
    assert "(step 500) 2.25.501 verified" in text
    assert max(map(len, text.splitlines())) < 200


def test_a_large_tree_is_cut() -> None:
    archive = Archive.of(node(1, *range(2, 5_002)), *(node(number) for number in range(2, 5_002)))
    lines = provenance_text(archive.graph(), most_lines=100).splitlines()
    assert len(lines) == 102
    assert lines[-2:] == ["...", "sources verified (5001 instances)"]


def test_a_doubt_about_a_reference_alone_is_put_into_words() -> None:
    text = provenance_text(Archive.of(node(1, source(2, covered=False)), node(2)).graph())
    assert text.splitlines()[-1].startswith("unverified source: a reference is not covered")


def test_the_graph_is_json() -> None:
    document = json.loads(json.dumps(provenance_json(Archive.of(node(1, source(2, macs=(mac(),)))).graph())))
    assert document == {
        "root": "2.25.1",
        "sources_verified": False,
        "nodes": [
            {
                "sop_instance_uid": "2.25.1",
                "sop_class_uid": "",
                "verdict": "verified",
                "signer": "serialNumber=SN1",
                "content": ["DERIVED"],
            },
            {"sop_instance_uid": "2.25.2", "sop_class_uid": "", "verdict": "missing", "signer": "", "content": []},
        ],
        "edges": [
            {
                "derived": "2.25.1",
                "source": "2.25.2",
                "attribute": "(0008,2112)",
                "covered": True,
                "check": "not-stated",
            }
        ],
        "findings": [],
    }
