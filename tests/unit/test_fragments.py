"""Fragments have to be those of the frames, because the MAC does not cover where they end (PS3.5 A.4)."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from agent.dicom.fragments import fragment_findings
from agent.dicom.headers import DEFAULT_LIMITS
from agent.dicom.stored_instance import StoredInstance
from agent.errors import DicomError
from tests.support.dicom_samples import corpus
from tests.support.raw_dicom import Node, Nodes, instance, part10, text

JPEG = "1.2.840.10008.1.2.4.70"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
RLE = "1.2.840.10008.1.2.5"
MPEG_4 = "1.2.840.10008.1.2.4.102"
ITEM_TAG = b"\xfe\xff\x00\xe0"
JPEG_FRAME = b"\xff\xd8\xff\xc3\0\x0b" + bytes(10)
JPEG_2000_FRAME = b"\xff\x4f\xff\x51" + bytes(12)
RLE_FRAME = struct.pack("<16L", 1, 64, *(0,) * 14) + bytes(16)


def codes(*fragments: bytes, table: bytes = b"", syntax: str = JPEG, frames: str = "1", more: Nodes = ()) -> list[str]:
    pixels = Node(0x7FE00010, "OB", fragments=(table, *fragments))
    data = part10(instance(text(0x00280008, "IS", frames), *more, pixels), syntax)
    stored = StoredInstance.read(data, DEFAULT_LIMITS)
    return [finding.code for finding in fragment_findings(stored.data_set, syntax)]


def offsets(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}L", *values)


def extended(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


@pytest.mark.parametrize(
    "fragments",
    [
        lambda: codes(JPEG_FRAME),
        lambda: codes(JPEG_FRAME, bytes(16)),
        lambda: codes(JPEG_FRAME, JPEG_FRAME, frames="2"),
        lambda: codes(JPEG_FRAME, bytes(8), JPEG_FRAME, frames="2", table=offsets(0, 40)),
        lambda: codes(RLE_FRAME, RLE_FRAME, frames="2", syntax=RLE, table=offsets(0, 88)),
        lambda: codes(JPEG_2000_FRAME, syntax=JPEG_2000, table=offsets(0)),
        lambda: codes(b"\0\0\0\1at any", b"place at all", syntax=MPEG_4, frames="200"),
    ],
)
def test_fragments_that_are_those_of_the_frames_raise_nothing(fragments: Callable[[], list[str]]) -> None:
    assert fragments() == []


@pytest.mark.parametrize(
    "fragments",
    [
        lambda: codes(JPEG_FRAME, frames="2"),
        lambda: codes(JPEG_FRAME, JPEG_FRAME),
        lambda: codes(JPEG_FRAME, JPEG_FRAME, JPEG_FRAME, frames="2"),
        lambda: codes(RLE_FRAME, bytes(16), syntax=RLE),
        lambda: codes(JPEG_FRAME, frames="0"),
        codes,
    ],
)
def test_another_number_of_frames_than_stated_is_a_fault(fragments: Callable[[], list[str]]) -> None:
    assert fragments() == ["fragments-wrong"]


def test_merged_frames_are_found_by_their_number() -> None:
    assert codes(JPEG_FRAME + ITEM_TAG + JPEG_FRAME, frames="2") == ["fragments-wrong"]


@pytest.mark.parametrize("table", [offsets(0, 25), offsets(4, 24), offsets(0), offsets(24, 0), b"\0\0", offsets(0, 48)])
def test_a_basic_offset_table_leads_to_the_frames(table: bytes) -> None:
    assert codes(JPEG_FRAME, JPEG_FRAME, frames="2", table=table) == ["offset-table-wrong"]


def test_an_extended_offset_table_leads_to_the_frames_and_says_how_long_they_are() -> None:
    """PS3.3 C.7.6.3.1.8."""

    def table(starts: bytes, lengths: bytes) -> Nodes:
        return Node(0x7FE00001, "OV", starts), Node(0x7FE00002, "OV", lengths)

    def found(starts: bytes, lengths: bytes) -> list[str]:
        return codes(JPEG_FRAME, JPEG_FRAME, frames="2", more=table(starts, lengths))

    assert found(extended(0, 24), extended(16, 15)) == []
    assert found(extended(0, 20), extended(16, 16)) == ["offset-table-wrong"]
    assert found(extended(0, 24), extended(16, 12)) == ["offset-table-wrong"]
    assert found(extended(0, 24), extended(16)) == ["offset-table-wrong"]


@pytest.mark.parametrize(
    ("frame", "syntax"),
    [(JPEG_2000_FRAME, JPEG), (JPEG_FRAME, JPEG_2000), (JPEG_FRAME, RLE), (b"MZ" + bytes(14), JPEG)],
)
def test_a_frame_begins_as_its_transfer_syntax_demands(frame: bytes, syntax: str) -> None:
    """The transfer syntax is in the file meta information, which no signature covers."""
    assert codes(frame, syntax=syntax) == ["codestream-wrong"]


def test_a_boundary_that_nothing_shows_is_reported() -> None:
    """Merged as A + item tag + B, two fragments have the MAC of before."""
    merged = JPEG_FRAME + ITEM_TAG + bytes(8)
    assert codes(merged) == ["fragment-boundary-not-covered"]
    assert codes(JPEG_FRAME, merged, frames="2", table=offsets(0, 24)) == ["fragment-boundary-not-covered"]
    assert codes(merged, JPEG_FRAME, frames="2", table=offsets(0, 36)) == []


def test_the_total_length_shows_that_fragments_were_merged() -> None:
    merged = JPEG_FRAME + ITEM_TAG + bytes(8)

    def total(length: int) -> Nodes:
        return (Node(0x7FE00003, "UV", extended(length)),)

    assert codes(merged, more=total(len(merged))) == []
    assert codes(merged, more=total(len(merged) - len(ITEM_TAG))) == ["fragments-wrong"]


def test_no_image_of_a_real_encoder_raises_anything() -> None:
    """Every encapsulated image of pydicom and pydicom-data that can be read, but for one that was made for this."""
    embedded = "pydicom/test_files/JPEG2000-embedded-sequence-delimiter.dcm"
    checked = 0
    for image in corpus():
        try:
            stored = StoredInstance.read(image.path.read_bytes(), DEFAULT_LIMITS)
        except DicomError:
            continue
        if stored.meta.syntax.encapsulated:
            checked += 1
            codes = [finding.code for finding in fragment_findings(stored.data_set, stored.meta.syntax.uid)]
            assert codes == ["fragment-boundary-not-covered"] * (image.name == embedded), image.name
    assert checked >= 50
