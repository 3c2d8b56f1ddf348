"""From what an instance says it was made, and whether a source is what was stated of it (PS3.3 C.12.4, C.17.2.1)."""

from __future__ import annotations

import hashlib
import time

import pytest
from pydicom.datadict import dictionary_keyword

from agent.dicom.provenance import sources as provenance
from agent.dicom.provenance.sources import MOST_SOURCES, StatedMac, StatedSources, mac_of, stated_sources
from agent.dicom.report import Outcome
from tests.support.data_sets import data_set
from tests.support.dicom_tree import EXPLICIT_LITTLE_ENDIAN, parse
from tests.support.mac_oracle import element_stream
from tests.support.provenance import SOURCE_IMAGE_SEQUENCE, mac_item, reference, uid
from tests.support.raw_dicom import NATIVE_ENCODINGS, Node, Nodes, instance, number, part10, text

NOTHING: frozenset[int] = frozenset()
SIGNATURE = Node(0x04000120, "OB", b"\1" * 100)
DEFLATED = "1.2.840.10008.1.2.1.99"
RLE = "1.2.840.10008.1.2.5"
JPEG = "1.2.840.10008.1.2.4.70"


def sequence(tag: int, *items: Nodes) -> Node:
    return Node(tag, "SQ", items=items)


def stated(*nodes: Node, covered: frozenset[int] = NOTHING) -> StatedSources:
    return stated_sources(data_set(*nodes), covered)


def named(*nodes: Node) -> list[str]:
    return [found.reference.sop_instance_uid for found in stated_sources(data_set(*nodes), NOTHING).sources]


def derivation(*sources: int) -> Node:
    """Derivation Image Sequence > Source Image Sequence (C.7.6.16.2.6)."""
    return sequence(0x00089124, (sequence(SOURCE_IMAGE_SEQUENCE, *map(reference, sources)),))


def by_series(tag: int, *sources: Nodes) -> Node:
    """The Hierarchical SOP Instance Reference Macro (Table C.17-3)."""
    return sequence(tag, (sequence(0x00081115, (sequence(0x00081199, *sources),)),))


# --- where sources are named ---

PLACES: list[tuple[Node, int]] = [
    (sequence(SOURCE_IMAGE_SEQUENCE, reference(7), reference(8)), SOURCE_IMAGE_SEQUENCE),
    (sequence(0x00420013, reference(7), reference(8)), 0x00420013),
    (derivation(7, 8), 0x00089124),
    (by_series(0x00089154, reference(7), reference(8)), 0x00089154),
    (by_series(0x0040A360, reference(7), reference(8)), 0x0040A360),
    (sequence(0x00209172, reference(7), reference(8)), 0x00209172),
    (sequence(0x00081164, (text(0x00081167, "UI", uid(7)),), (text(0x00081167, "UI", uid(8)),)), 0x00081164),
    (sequence(0x52009229, (derivation(7, 8),)), 0x52009229),
    (sequence(0x52009230, (derivation(7),), (derivation(8),)), 0x52009230),
    (sequence(0x52009230, (sequence(0x00209172, reference(7)),), (sequence(0x00209172, reference(8)),)), 0x52009230),
]


@pytest.mark.parametrize("encoding", NATIVE_ENCODINGS)
@pytest.mark.parametrize(("place", "attribute"), PLACES)
def test_sources_are_found_wherever_they_mean_made_from(place: Node, attribute: int, encoding: str) -> None:
    stated = stated_sources(data_set(place, transfer_syntax=encoding), NOTHING)
    found = tuple(source.reference for source in stated.sources)
    assert [source.sop_instance_uid for source in found] == [uid(7), uid(8)]
    assert {source.attribute for source in found} == {attribute}
    assert not any(source.covered for source in found)


@pytest.mark.parametrize(("place", "attribute"), PLACES)
def test_a_reference_is_covered_where_its_attribute_of_the_data_set_is(place: Node, attribute: int) -> None:
    assert all(source.reference.covered for source in stated_sources(data_set(place), frozenset((attribute,))).sources)


@pytest.mark.parametrize(
    "see_also",
    [
        sequence(0x00081140, reference(7)),  # Referenced Image
        by_series(0x0040A375, reference(7)),  # Current Requested Procedure Evidence
        by_series(0x0040A385, reference(7)),  # Pertinent Other Evidence
        by_series(0x00089092, reference(7)),  # Referenced Image Evidence
        by_series(0x00089121, reference(7)),  # Referenced Raw Data
        sequence(0x0008114A, reference(7)),  # Referenced Instance
    ],
)
def test_what_means_see_also_is_no_source(see_also: Node) -> None:
    assert named(see_also) == []


def test_an_instance_without_sources_has_none() -> None:
    assert stated() == StatedSources()


def test_a_source_named_in_many_frames_is_one_source() -> None:
    frames = sequence(0x52009230, *((derivation(7, 8),) for _ in range(400)))
    assert named(sequence(SOURCE_IMAGE_SEQUENCE, reference(8)), frames) == [uid(8), uid(7)]


def test_a_source_named_twice_is_covered_where_one_place_is() -> None:
    nodes = (sequence(SOURCE_IMAGE_SEQUENCE, reference(7)), by_series(0x00089154, reference(7)))
    (found,) = stated(*nodes, covered=frozenset((0x00089154,))).sources
    assert (found.reference.covered, found.reference.attribute) == (True, 0x00089154)


def test_an_item_that_names_nothing_is_a_source_that_cannot_be_found() -> None:
    assert named(sequence(SOURCE_IMAGE_SEQUENCE, ())) == [""]


def test_a_hostile_uid_is_bounded_and_printable() -> None:
    item = (Node(0x00081155, "UI", b"../../etc/passwd\x1b\n" * 50),)
    (found,) = named(sequence(SOURCE_IMAGE_SEQUENCE, item))
    assert len(found) <= 64
    assert found.isprintable()


def test_a_thousand_sources_are_read() -> None:
    assert len(named(sequence(SOURCE_IMAGE_SEQUENCE, *map(reference, range(1_000))))) == 1_000


def test_more_sources_than_are_looked_at_are_reported() -> None:
    found = stated(sequence(SOURCE_IMAGE_SEQUENCE, *map(reference, range(MOST_SOURCES + 5))))
    assert len(found.sources) == MOST_SOURCES
    assert [finding.code for finding in found.findings] == ["sources-too-many"]


def series(empty: int) -> Node:
    """Source Image Evidence Sequence (0008,9154): series without an instance, and then one with a source."""
    named_there = (sequence(0x00081199, reference(7)),)
    return sequence(0x00089154, (sequence(0x00081115, *((),) * empty, named_there),))


def test_a_source_behind_many_items_that_name_none_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "MOST_ITEMS", 33)
    found = stated(series(30))  # and one study, one series, one source
    assert [source.reference.sop_instance_uid for source in found.sources] == [uid(7)]
    assert found.findings == ()


@pytest.mark.parametrize(
    "place",
    [
        series(31),
        sequence(0x52009230, *((derivation(),) for _ in range(17))),
        sequence(SOURCE_IMAGE_SEQUENCE, reference(7, sequence(0x04000403, *((),) * 33))),
        sequence(SOURCE_IMAGE_SEQUENCE, reference(7, sequence(0x04000402, *((),) * 33))),
    ],
)
def test_more_items_than_are_read_are_reported(place: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they name a source or not: what stands behind them is not known."""
    monkeypatch.setattr(provenance, "MOST_ITEMS", 33)
    found = stated(place)
    assert found.sources == ()
    assert [(finding.code, finding.outcome) for finding in found.findings] == [
        ("sources-too-many", Outcome.INDETERMINATE)
    ]


@pytest.mark.parametrize(
    "much", [mac_item(b"", (0x00080018,) * 25), mac_item(b"\1" * 100, ()), sequence(0x04000402, (SIGNATURE,))]
)
def test_more_that_is_stated_than_is_kept_is_reported(much: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = (sequence(SOURCE_IMAGE_SEQUENCE, reference(7, much)), sequence(0x00420013, reference(8, much)))
    assert (stated(*nodes).findings, stated(*nodes).size) == ((), 200)
    monkeypatch.setattr(provenance, "MOST_STATED", 199)
    found = stated(*nodes)
    assert [source.reference.sop_instance_uid for source in found.sources] == [uid(7)]
    assert [finding.code for finding in found.findings] == ["sources-too-many"]


def test_frames_that_name_no_source_are_not_read_one_by_one() -> None:
    frames = sequence(0x52009230, *((sequence(0x00289110, (text(0x00280030, "DS", "1\\1"),)),) for _ in range(2_000)))
    read = data_set(frames)
    start = time.perf_counter()
    assert stated_sources(read, NOTHING).sources == ()
    assert time.perf_counter() - start < 0.01


# --- what is stated of a source ---


@pytest.mark.parametrize("encoding", NATIVE_ENCODINGS)
def test_a_stated_mac_is_read_in_every_encoding(encoding: str) -> None:
    item = reference(7, mac_item(b"\1" * 32, (0x00080018, 0x7FE00010)))
    (found,) = stated_sources(data_set(sequence(0x00082112, item), transfer_syntax=encoding), NOTHING).sources
    assert found.macs == (StatedMac(EXPLICIT_LITTLE_ENDIAN, "SHA256", (0x00080018, 0x7FE00010), b"\1" * 32),)
    assert (found.reference.mac, found.reference.mac_algorithm) == (b"\1" * 32, "SHA256")


def test_everything_that_is_stated_of_a_source_anywhere_is_kept() -> None:
    one, other = mac_item(b"\1" * 32, (0x00080018,)), mac_item(b"\2" * 32, (0x00080018,))
    nodes = (sequence(SOURCE_IMAGE_SEQUENCE, reference(7, one)), by_series(0x00089154, reference(7, other)))
    (found,) = stated(*nodes).sources
    assert [mac.value[:1] for mac in found.macs] == [b"\1", b"\2"]


def test_a_stated_signature_is_read() -> None:
    signature = (text(0x04000100, "UI", "2.25.99"), Node(0x04000120, "OB", b"signature!"))
    item = reference(7, sequence(0x04000402, signature))
    (found,) = stated(sequence(SOURCE_IMAGE_SEQUENCE, item)).sources
    assert [(signature.uid, signature.value) for signature in found.signatures] == [("2.25.99", b"signature!")]


@pytest.mark.parametrize("tags", [b"", b"\x08", b"\x08\x00\x18\x00\x28"])
def test_a_damaged_list_of_elements_is_read_as_far_as_it_goes(tags: bytes) -> None:
    padded = tags + b"\0" * (len(tags) % 2)
    damaged = sequence(0x04000403, (Node(0x04000020, "AT", padded),))
    (found,) = stated(sequence(SOURCE_IMAGE_SEQUENCE, reference(7, damaged))).sources
    assert found.macs[0].elements in ((), (0x00080018,))


# --- the stated MAC: the plain hash of the listed elements ---

SOURCE = instance(
    text(0x00080008, "CS", "ORIGINAL\\PRIMARY"),
    number(0x00280010, 2),
    sequence(0x00081140, reference(9, sequence(0x0040A170, (text(0x00080104, "LO", "a purpose"),)))),
    Node(0x00090010, "LO", b"ACME"),
    Node(0x00091001, "UN", b"what is it"),
    Node(0x7FE00010, "OW", bytes(range(8))),
)
LISTED = (0x00080008, 0x00080018, 0x00081140, 0x00280010, 0x7FE00010)


def mac(algorithm: str = "SHA256", tags: tuple[int, ...] = LISTED, syntax: str = EXPLICIT_LITTLE_ENDIAN) -> StatedMac:
    return StatedMac(syntax, algorithm, tags, b"")


@pytest.mark.parametrize("encoding", NATIVE_ENCODINGS)
@pytest.mark.parametrize("algorithm", ["SHA256", "SHA384", "SHA512", "SHA1", "MD5"])
def test_a_stated_mac_is_the_hash_of_the_elements_by_the_oracle(algorithm: str, encoding: str) -> None:
    elements = parse(part10(SOURCE, EXPLICIT_LITTLE_ENDIAN)).elements
    stream = b"".join(element_stream(element) for element in elements if element.tag in LISTED)
    expected = hashlib.new(algorithm.lower(), stream, usedforsecurity=False).digest()
    assert mac_of(data_set(*SOURCE, transfer_syntax=encoding), encoding, mac(algorithm)) == expected


def test_a_stated_mac_holds_no_field_of_a_signature_item_and_is_not_encrypted() -> None:
    plain = b"\x08\x00\x08\x00CS\x10\x00ORIGINAL\\PRIMARY\x08\x00\x18\x00UI\x06\x002.25.2"
    stated_mac = mac(tags=(0x00080008, 0x00080018))
    assert mac_of(data_set(*SOURCE), EXPLICIT_LITTLE_ENDIAN, stated_mac) == hashlib.sha256(plain).digest()


def test_a_source_that_lacks_a_listed_element_hashes_to_nothing() -> None:
    lacking = tuple(node for node in SOURCE if node.tag != 0x00280010)
    assert mac_of(data_set(*lacking), EXPLICIT_LITTLE_ENDIAN, mac()) == b""


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE_ENDIAN, DEFLATED])
def test_of_native_pixels_any_native_transfer_syntax_gives_the_same_hash(syntax: str) -> None:
    expected = mac_of(data_set(*SOURCE), EXPLICIT_LITTLE_ENDIAN, mac())
    assert mac_of(data_set(*SOURCE), EXPLICIT_LITTLE_ENDIAN, mac(syntax=syntax)) == expected


def test_without_pixels_the_transfer_syntax_makes_no_difference() -> None:
    stated_mac = mac(tags=(0x00080018,), syntax=JPEG)
    assert mac_of(data_set(*SOURCE), EXPLICIT_LITTLE_ENDIAN, stated_mac)


FRAGMENTS = (*SOURCE[:-1], Node(0x7FE00010, "OB", fragments=(b"", b"frame!")))


@pytest.mark.parametrize(
    ("source", "syntax", "stated_mac"),
    [
        (SOURCE, EXPLICIT_LITTLE_ENDIAN, mac("CRC32")),
        (SOURCE, EXPLICIT_LITTLE_ENDIAN, mac(tags=())),
        (SOURCE, EXPLICIT_LITTLE_ENDIAN, mac(tags=(0x00091001,))),
        (SOURCE, EXPLICIT_LITTLE_ENDIAN, mac(tags=(0xFFFAFFFA,))),
        (SOURCE, EXPLICIT_LITTLE_ENDIAN, mac(syntax="1.2.840.10008.1.2")),
        (FRAGMENTS, RLE, mac()),
        (FRAGMENTS, RLE, mac(syntax=JPEG)),
    ],
)
def test_what_cannot_be_calculated_is_told_apart_from_what_differs(
    source: Nodes, syntax: str, stated_mac: StatedMac
) -> None:
    assert mac_of(data_set(*source, transfer_syntax=syntax), syntax, stated_mac) is None


def test_of_fragments_their_own_transfer_syntax_gives_the_hash() -> None:
    assert mac_of(data_set(*FRAGMENTS, transfer_syntax=RLE), RLE, mac(syntax=RLE))


def test_the_attributes_are_those_of_the_data_dictionary() -> None:
    named_tags = {
        name: tag
        for name, tag in vars(provenance).items()
        if name.isupper() and isinstance(tag, int) and tag > 1 << 19 and name[:5] != "MOST_"
    }
    words = {name: dictionary_keyword(tag) for name, tag in named_tags.items()}
    assert {name: word for name, word in words.items() if word.upper() != name.replace("_", "")} == {}
