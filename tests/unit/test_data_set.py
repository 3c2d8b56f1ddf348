"""A data set in memory says what is there, and hashes of it what a MAC covers."""

from __future__ import annotations

import hashlib

import pytest

from agent.dicom.data_set import DataSet
from agent.dicom.headers import DEFAULT_LIMITS
from agent.dicom.signable import is_signable
from agent.dicom.stored_instance import StoredInstance
from agent.errors import DicomError
from tests.support.dicom_samples import corpus, small_instance
from tests.support.dicom_tree import parse
from tests.support.mac_oracle import element_stream
from tests.support.mac_oracle import is_signable as signable_by_oracle
from tests.support.raw_dicom import NATIVE_ENCODINGS, Node, instance, number, part10, text


def read(data: bytes) -> DataSet:
    return StoredInstance.read(data, DEFAULT_LIMITS).data_set


SAMPLE = instance(
    text(0x00080005, "CS", "ISO_IR 100"),
    Node(0x00080070, "LO", "Käufer\\Zweiter".encode("latin-1")),
    number(0x00280010, 512),
    text(0x00280008, "IS", "12"),
    Node(0x00281050, "DS", b""),
    Node(
        0x00082112,
        "SQ",
        items=((text(0x00081155, "UI", "2.25.9"), Node(0x0040A170, "SQ", items=((text(0x00080104, "LO", "x"),),))), ()),
        undefined_length=True,
        undefined_items=True,
    ),
    Node(0x7FE00010, "OW", bytes(range(8))),
)


@pytest.mark.parametrize("encoding", NATIVE_ENCODINGS)
def test_values_read_the_same_in_every_encoding(encoding: str) -> None:
    data_set = read(part10(SAMPLE, encoding))
    assert data_set.texts(0x00080070) == ("Käufer", "Zweiter")
    assert data_set.text(0x00080070) == "Käufer"
    assert data_set.number(0x00280010) == 512
    assert data_set.number(0x00280008) == 12
    assert data_set.number(0x00281050) is None
    assert data_set.vr(0x00080070) == b"LO"
    assert 0x00080070 in data_set
    assert 0x00080071 not in data_set


@pytest.mark.parametrize("vr", ["ST", "LT", "UT", "UR"])
def test_a_backslash_in_a_text_of_one_value_is_a_character(vr: str) -> None:
    """PS3.5 6.2 and 6.4: these VRs have no value multiplicity."""
    data_set = read(part10((text(0x00080070, vr, "\\one\\value"),)))
    assert data_set.texts(0x00080070) == ("\\one\\value",)


@pytest.mark.parametrize("encoding", NATIVE_ENCODINGS)
def test_items_are_data_sets_of_their_own(encoding: str) -> None:
    first, second = read(part10(SAMPLE, encoding)).items(0x00082112)
    assert first.text(0x00081155) == "2.25.9"
    assert next(first.items(0x0040A170)).text(0x00080104) == "x"
    assert list(second) == []


def test_what_is_absent_is_empty() -> None:
    data_set = read(part10(SAMPLE))
    assert data_set.value(0x00100010) == b""
    assert data_set.text(0x00100010) == ""
    assert data_set.number(0x00100010) is None
    assert list(data_set.items(0x00081140)) == []
    assert data_set.fragments(0x7FE00010) == ()
    assert bytes(data_set.raw(0x00100010)) == b""


def test_what_cannot_be_shown_is_replaced() -> None:
    data_set = read(part10(instance(Node(0x00080070, "LO", b"a\x1b[2J\xff"))))
    assert data_set.text(0x00080070) == "a\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("stored", "of_another_kind"),
    [
        (Node(0x00080008, "UN", b"DERIVED "), True),
        (Node(0x00080008, "OB", b"DERIVED "), True),
        (Node(0x00080008, "US", b"DERIVED "), True),
        (Node(0x00080008, "SQ", items=()), True),
        (Node(0x00080008, "LO", b"DERIVED "), False),
        (Node(0x00082112, "UN", items=((),), undefined_length=True), True),
        (Node(0x00082112, "OB", b""), True),
        (Node(0x00082112, "LO", b"text"), True),
        (Node(0x00082112, "SQ", items=()), False),
        (Node(0x00091001, "UN", b"ab"), False),
        (Node(0x0018FFF0, "UN", b"ab"), False),
    ],
)
def test_what_is_asked_for_and_stored_under_a_vr_of_another_kind_is_noted(
    stored: Node, *, of_another_kind: bool
) -> None:
    """PS3.5 6.2.2: nobody has to read what is stored as UN. Of private and of new elements nobody knows the kind."""
    for within in (stored, Node(0x00081140, "SQ", items=((stored,),))):
        data_set = read(part10(instance(within)))
        assert data_set.misread == set()
        for item in (data_set, *data_set.items(0x00081140)):
            item.text(stored.tag)
            list(item.items(stored.tag)) if stored.tag == 0x00082112 else []
        assert data_set.misread == ({stored.tag} if of_another_kind else set())


def test_elements_of_unknown_vr_and_what_holds_them_are_unsignable() -> None:
    inside = Node(0x00082112, "SQ", items=((Node(0x00091001, "UN", b"ab"),),))
    data_set = read(part10(instance(inside, Node(0x00091001, "UN", b"ab"), text(0x00080070, "LO", "ab"))))
    assert data_set.survey.unsignable == {0x00082112, 0x00091001}


def test_what_is_covered_is_what_the_oracle_says_over_the_whole_corpus() -> None:
    """PS3.3 C.12.1.1.3.1.1, by an encoder that shares no code with the product."""
    compared = 0
    for image in corpus():
        data = image.path.read_bytes()
        try:
            data_set = read(data)
        except DicomError:
            continue
        unsignable = data_set.survey.unsignable
        tags = frozenset(tag for tag in data_set if tag not in unsignable and is_signable(tag))
        elements = [element for element in parse(data).elements if signable_by_oracle(element)]
        state = hashlib.sha256()
        data_set.cover(tags, state)
        expected = hashlib.sha256(b"".join(element_stream(e) for e in elements if e.tag in tags))
        assert state.digest() == expected.digest(), image.name
        compared += 1
    assert compared >= 200


def test_parts_can_be_covered_again_and_again() -> None:
    data_set = read(small_instance())
    tags = frozenset(data_set.tags) - data_set.survey.unsignable
    first, second = hashlib.sha256(), hashlib.sha256()
    data_set.cover(tags, first)
    data_set.cover(tags, second)
    assert first.digest() == second.digest()


def test_the_fragments_of_pixel_data_are_given_with_their_offset_table() -> None:
    pixels = Node(0x7FE00010, "OB", fragments=(b"", b"ab", b"cdef"))
    fragments = read(part10(instance(pixels), "1.2.840.10008.1.2.5")).fragments(0x7FE00010)
    assert [bytes(fragment) for fragment in fragments] == [b"", b"ab", b"cdef"]


def test_long_values_are_given_in_part() -> None:
    assert len(read(part10(instance(Node(0x7FE00010, "OW", bytes(1 << 17))))).value(0x7FE00010)) == 65_536
