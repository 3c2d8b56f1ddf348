"""Fragments have to be those of the frames, because the MAC does not cover where they end (PS3.5 A.4)."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from agent.dicom.fragments import fragment_findings
from agent.dicom.headers import DEFAULT_LIMITS
from agent.dicom.stored_instance import StoredInstance
from agent.errors import DicomError
from tests.support.attacks.images import jpeg, jpeg_2000
from tests.support.dicom_samples import corpus
from tests.support.raw_dicom import Node, Nodes, instance, part10, text

JPEG = "1.2.840.10008.1.2.4.70"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
JPEG_LS = "1.2.840.10008.1.2.4.80"
RLE = "1.2.840.10008.1.2.5"
MPEG_4 = "1.2.840.10008.1.2.4.102"
ITEM_TAG = b"\xfe\xff\x00\xe0"
JPEG_FRAME = jpeg(bytes(9), 0xC3, parameter=1)
JPEG_2000_FRAME = jpeg_2000(bytes(12), reversible=True)
JPEG_OFFSET = len(JPEG_FRAME) + 8  # of the second frame
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


def of_part_2(codestream: bytes) -> bytes:
    """With a component transformation of ISO/IEC 15444-2, before the coding style."""
    return codestream.replace(b"\xff\x52", b"\xff\x77\0\4\0\0\xff\x52")


def with_another_component(codestream: bytes) -> bytes:
    """With the irreversible wavelet for one component (ISO/IEC 15444-1 A.6.2)."""
    style = b"\xff\x53\0\x0a\0\0\1\4\4\0\0\0"
    return codestream.replace(b"\xff\x90", style + b"\xff\x90")


def in_a_file(codestream: bytes) -> bytes:
    """In a JP2 file (ISO/IEC 15444-1 Annex I), as some writers put it there."""
    return b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\0jp2c" + codestream


@pytest.mark.parametrize(
    "fragments",
    [
        lambda: codes(JPEG_FRAME),
        lambda: codes(JPEG_FRAME, bytes(16)),
        lambda: codes(JPEG_FRAME, JPEG_FRAME, frames="2"),
        lambda: codes(JPEG_FRAME, bytes(8), JPEG_FRAME, frames="2", table=offsets(0, JPEG_OFFSET + 16)),
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


@pytest.mark.parametrize(
    "table", [offsets(0, JPEG_OFFSET + 1), offsets(4, JPEG_OFFSET), offsets(0), offsets(JPEG_OFFSET, 0), b"\0\0"]
)
def test_a_basic_offset_table_leads_to_the_frames(table: bytes) -> None:
    assert codes(JPEG_FRAME, JPEG_FRAME, frames="2", table=table) == ["offset-table-wrong"]


def test_an_extended_offset_table_leads_to_the_frames_and_says_how_long_they_are() -> None:
    """PS3.3 C.7.6.3.1.8."""

    def table(starts: bytes, lengths: bytes) -> Nodes:
        return Node(0x7FE00001, "OV", starts), Node(0x7FE00002, "OV", lengths)

    def found(starts: bytes, lengths: bytes) -> list[str]:
        return codes(JPEG_FRAME, JPEG_FRAME, frames="2", more=table(starts, lengths))

    size = len(JPEG_FRAME)
    assert found(extended(0, JPEG_OFFSET), extended(size, size - 1)) == []
    assert found(extended(0, JPEG_OFFSET - 4), extended(size, size)) == ["offset-table-wrong"]
    assert found(extended(0, JPEG_OFFSET), extended(size, size - 4)) == ["offset-table-wrong"]
    assert found(extended(0, JPEG_OFFSET), extended(size)) == ["offset-table-wrong"]


@pytest.mark.parametrize(
    ("frame", "syntax"),
    [(JPEG_2000_FRAME, JPEG), (JPEG_FRAME, JPEG_2000), (JPEG_FRAME, RLE), (b"MZ" + bytes(14), JPEG)],
)
def test_a_frame_begins_as_its_transfer_syntax_demands(frame: bytes, syntax: str) -> None:
    """The transfer syntax is in the file meta information, which no signature covers."""
    assert codes(frame, syntax=syntax) == ["codestream-wrong"]


def endings(*numbers: int) -> frozenset[str]:
    return frozenset(f"1.2.840.10008.1.2.4.{number}" for number in numbers)


ALL_JPEG = endings(*range(50, 67), 70, 80, 81)
ALL_JPEG_2000 = endings(90, 91, 92, 93, 201, 202, 203)


@pytest.mark.parametrize(
    ("frame", "fitting"),
    [
        (jpeg(b"", 0xC0), endings(50, 51)),
        (jpeg(b"", 0xC1), endings(51)),
        (jpeg(b"", 0xC2), endings(53, 55)),
        (jpeg(b"", 0xC9), endings(52)),
        (jpeg(b"", 0xCA), endings(54, 56)),
        (jpeg(b"", 0xC3, parameter=1), endings(57, 70)),
        (jpeg(b"", 0xC3, parameter=6), endings(57)),
        (jpeg(b"", 0xCB, parameter=1), endings(58)),
        (jpeg(b"", 0xDE), endings(*range(59, 67))),
        (jpeg(b"", 0xF7), endings(80, 81)),
        (jpeg(b"", 0xF7, parameter=2), endings(81)),
    ],
)
def test_jpeg_is_of_the_process_that_its_transfer_syntax_names(frame: bytes, fitting: frozenset[str]) -> None:
    """PS3.5 8.2.1 and 8.2.3: among them the lossless ones, of which some allow one predictor or no error only."""
    assert {syntax for syntax in ALL_JPEG if codes(frame, syntax=syntax) == []} == fitting


@pytest.mark.parametrize(
    ("frame", "fitting"),
    [
        (jpeg_2000(b"", reversible=True), endings(90, 91, 92, 93)),
        (jpeg_2000(b""), endings(91, 93)),
        (jpeg_2000(b"", reversible=True, high_throughput=True), endings(201, 202, 203)),
        (jpeg_2000(b"", high_throughput=True), endings(203)),
        (of_part_2(jpeg_2000(b"", reversible=True)), endings(92, 93)),
        (with_another_component(jpeg_2000(b"", reversible=True)), endings(91, 93)),
        (in_a_file(jpeg_2000(b"", reversible=True)), endings(90, 91, 92, 93)),
        (in_a_file(jpeg_2000(b"")), endings(91, 93)),
        (in_a_file(b""), endings()),
        (jpeg_2000(b"").replace(b"\xff\x52", b"\xff\x64"), endings()),
    ],
)
def test_jpeg_2000_is_of_the_part_and_the_wavelet_that_its_transfer_syntax_names(
    frame: bytes, fitting: frozenset[str]
) -> None:
    """PS3.5 8.2.4 and 8.2.14: lossless is only the reversible wavelet (ISO/IEC 15444-1 A.6)."""
    assert {syntax for syntax in ALL_JPEG_2000 if codes(frame, syntax=syntax) == []} == fitting


def test_every_frame_is_looked_at() -> None:
    lossy = jpeg_2000(b"")
    assert codes(JPEG_2000_FRAME, JPEG_2000_FRAME, syntax=JPEG_2000, frames="2") == []
    assert codes(JPEG_2000_FRAME, lossy, syntax=JPEG_2000, frames="2") == ["codestream-wrong"]


@pytest.mark.parametrize("size", range(2, len(JPEG_2000_FRAME) - 30, 2))
def test_a_header_that_is_cut_off_is_none(size: int) -> None:
    assert set(codes(JPEG_2000_FRAME[:size], syntax=JPEG_2000)) <= {"codestream-wrong"} != set()


def test_headers_without_end_cost_no_more_than_a_bound() -> None:
    endless = b"\xff\xd8" + b"\xff\xfe\0\2" * 500_000
    started = time.process_time()
    assert codes(*[endless] * 10, frames="10") == ["codestream-wrong"]
    assert time.process_time() - started < 2


# The reversible wavelet; of the first not everything was kept, and no header tells.
REVERSIBLE_ALTHOUGH_CALLED_LOSSY = {"pydicom/test_files/693_J2KI.dcm", "pydicom/test_files/SC_rgb_gdcm_KY.dcm"}


@pytest.mark.parametrize(("lossy", "syntax"), [(".4.91", JPEG_2000), (".4.81", JPEG_LS)])
def test_a_lossy_image_of_a_real_encoder_is_not_taken_for_a_lossless_one(lossy: str, syntax: str) -> None:
    noticed = {}
    for image in corpus():
        with suppress(DicomError):
            stored = StoredInstance.read(image.path.read_bytes(), DEFAULT_LIMITS)
            if stored.meta.syntax.uid.endswith(lossy):
                noticed[image.name] = bool(fragment_findings(stored.data_set, syntax))
    assert any(noticed.values())
    assert {name for name in noticed if not noticed[name]} <= REVERSIBLE_ALTHOUGH_CALLED_LOSSY


def test_a_boundary_that_nothing_shows_is_reported() -> None:
    """Merged as A + item tag + B, two fragments have the MAC of before."""
    merged = JPEG_FRAME + ITEM_TAG + bytes(8)
    assert codes(merged) == ["fragment-boundary-not-covered"]
    assert codes(JPEG_FRAME, merged, frames="2", table=offsets(0, JPEG_OFFSET)) == ["fragment-boundary-not-covered"]
    assert codes(merged, JPEG_FRAME, frames="2", table=offsets(0, len(merged) + 8)) == []


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
