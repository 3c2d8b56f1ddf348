"""What is restored must be what every decoder shows: one plain codestream that leaves nothing open."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from agent.dicom.diagnosis.codestream_shape import check_shape
from agent.dicom.diagnosis.decoding_request import Request
from agent.dicom.elements import PIXEL_DATA
from agent.dicom.headers import DEFAULT_LIMITS
from agent.dicom.stored_instance import StoredInstance
from agent.errors import DicomError
from tests.support.codestream_requests import refused, request
from tests.support.dicom_samples import corpus
from tests.support.lossless_encoders import EOI, SOI, frame_header, huffman_table, lossless_jpeg, scan_header, segment

CHECKED = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (57, 70, 80, 90))
JPEG, JPEG_LS, JPEG_2000 = (f"1.2.840.10008.1.2.4.{number}" for number in (70, 80, 90))
Frame = tuple[Request, bytes]


def frames() -> dict[str, Frame]:
    """A frame of each image of the corpus whose transfer syntax is checked, and what the data set says of it."""
    found: dict[str, Frame] = {}
    for image in corpus():
        try:
            stored = StoredInstance.read(image.path.read_bytes(), DEFAULT_LIMITS)
        except DicomError:
            continue
        data_set, syntax = stored.data_set, stored.meta.syntax.uid
        if syntax in CHECKED and (data_set.number(0x00280008) or 1) == 1:
            frame = b"".join(map(bytes, data_set.fragments(PIXEL_DATA)[1:]))
            said = Request(
                transfer_syntax=syntax,
                photometric_interpretation=data_set.text(0x00280004),
                rows=data_set.number(0x00280010) or 0,
                columns=data_set.number(0x00280011) or 0,
                samples=data_set.number(0x00280002) or 0,
                bits_allocated=data_set.number(0x00280100) or 0,
                bits_stored=data_set.number(0x00280101) or 0,
                signed=data_set.number(0x00280103) == 1,
                seconds=1,
                frames=(len(frame),),
            )
            found[image.name] = (said, frame)
    return found


# A JP2 file, a sign that contradicts the data set, and pixels inside a sequence of unknown VR.
ODD = ("GDCMJ2K_TextGBR.dcm", "J2K_pixelrep_mismatch.dcm", "UN_sequence.dcm")
FRAMES = {name: frame for name, frame in frames().items() if not name.endswith(ODD)}


@pytest.mark.parametrize("name", FRAMES)
def test_frames_of_real_encoders_are_plain(name: str) -> None:
    check_shape(*FRAMES[name])


@pytest.mark.parametrize("name", FRAMES)
def test_nothing_may_follow_a_codestream(name: str) -> None:
    """Decoders differ in which of several images they show."""
    said, frame = FRAMES[name]
    plain = frame.rstrip(b"\0\xff")
    for more in (plain, b"junk", b"\xff\xd9", bytes(2)):
        with pytest.raises((ValueError, struct.error)):
            check_shape(said, plain + more)


@pytest.mark.parametrize("name", FRAMES)
def test_a_depth_that_contradicts_the_data_set_is_refused(name: str) -> None:
    said, frame = FRAMES[name]
    other = 24 - said.bits_allocated
    with pytest.raises(ValueError, match="precision"):
        check_shape(replace(said, bits_allocated=other, bits_stored=other), frame)


@pytest.mark.parametrize("name", [name for name in FRAMES if FRAMES[name][0].transfer_syntax == JPEG_2000])
def test_a_sign_that_contradicts_the_data_set_is_refused(name: str) -> None:
    said, frame = FRAMES[name]
    with pytest.raises(ValueError, match="sign"):
        check_shape(replace(said, signed=not said.signed), frame)


@pytest.mark.parametrize("name", FRAMES)
def test_a_codestream_in_a_file_of_its_own_is_refused(name: str) -> None:
    """A JP2 file (ISO/IEC 15444-1 Annex I) may have a palette that some decoders apply."""
    with pytest.raises(ValueError, match=r"plain|start"):
        check_shape(FRAMES[name][0], b"\0\0\0\x0cjP  \r\n\x87\n" + FRAMES[name][1])


def test_the_checked_transfer_syntaxes_are_in_the_corpus() -> None:
    assert {said.transfer_syntax for said, _ in FRAMES.values()} == CHECKED - {"1.2.840.10008.1.2.4.57"}


def test_odd_images_of_the_corpus_are_refused() -> None:
    odd = [frame for name, frame in frames().items() if name.endswith(ODD[:2])]
    assert len(odd) == 2
    for said, frame in odd:
        with pytest.raises(ValueError, match=r"plain|sign"):
            check_shape(said, frame)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\x4f\xff\x51", b"\xff\xd8\xff\xc3\0\0", b"\xff\xd8" + b"\xff" * 999]
)
@pytest.mark.parametrize("syntax", sorted(CHECKED))
def test_what_is_no_codestream_is_refused(syntax: str, data: bytes) -> None:
    with pytest.raises((ValueError, IndexError, KeyError, struct.error)):
        check_shape(request(syntax), data)


# --- lossless JPEG ---

ROWS = [[7, 9], [500, 4095]]
PLAIN = lossless_jpeg(ROWS)
COLOURS = [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]]
JFIF = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
ADOBE = segment(0xEE, b"Adobe\0\x64\0\0\0\0\0")

TRANSFORMED = segment(0xEE, b"Adobe\0\x64\0\0\0\0\1")


def test_jpeg_of_grey_levels_is_plain_with_and_without_jfif() -> None:
    check_shape(request(JPEG), PLAIN)
    check_shape(request(JPEG), lossless_jpeg(ROWS, before=JFIF))
    check_shape(request(JPEG), lossless_jpeg(ROWS, before=segment(0xFE, b"LEAD Technologies")))


@pytest.mark.parametrize(
    "more",
    [
        segment(0xDD, b"\0\0"),  # DRI
        segment(0xDC, b"\0\2"),  # DNL
        segment(0xDB, bytes(65)),  # DQT
        segment(0xCC, b"\0\0"),  # DAC
        segment(0xDF, b"\x11"),  # EXP
        segment(0xE1, b"Exif\0\0"),
        segment(0xE8, b"mrfx\1"),
        segment(0xC0, frame_header(2, 2)[4:]),
        frame_header(2, 2),
        b"\xff",  # a fill byte
        SOI,
        b"\xff\x01",  # TEM
    ],
    ids=bytes.hex,
)
def test_jpeg_has_no_marker_segment_that_encoders_have_no_need_of(more: bytes) -> None:
    refused(request(JPEG), PLAIN.replace(SOI, SOI + more, 1))


@pytest.mark.parametrize("data", [b"\xff\xff\0", b"\xff\xd0", b"\xff\xd9\xff\xd9", b"\xff\xff\xff\xd9", b"\xff"])
def test_data_of_jpeg_hold_no_marker(data: bytes) -> None:
    header = SOI + frame_header(2, 2) + huffman_table() + scan_header()
    check_shape(request(JPEG), header + b"\1\xff\0\1" + EOI)
    check_shape(request(JPEG), header + b"\1\xff\0\1\xff" + EOI)  # as DCMTK fills up
    refused(request(JPEG), header + b"\1" + data + b"\1" + EOI)


@pytest.mark.parametrize(
    "scan",
    [b"\1\2\0\1\0\0", b"\1\1\0\0\0\0", b"\1\1\0\x08\0\0", b"\1\1\0\1\1\0", b"\1\1\0\1\0\1", b"\0\1\0\0", b"\1\1\0"],
    ids=bytes.hex,
)
def test_the_scan_of_jpeg_has_all_components_and_no_point_transform(scan: bytes) -> None:
    refused(request(JPEG), PLAIN.replace(scan_header(), segment(0xDA, scan)))


def test_components_of_jpeg_have_full_resolution_and_names_of_their_own() -> None:
    for old, new in ((b"\1\1\x11\0", b"\1\1\x22\0"), (b"\1\1\x11\0", b"\2\1\x11\0\1\x11\0")):
        refused(request(JPEG), PLAIN.replace(old, new, 1))


@pytest.mark.parametrize(
    ("photometric", "components", "before", "plain"),
    [
        ("RGB", b"\0\1\2", b"", True),  # DCMTK
        ("RGB", b"RGB", ADOBE, True),  # GDCM
        ("RGB", b"\1\2\3", b"", False),
        ("RGB", b"\0\1\2", JFIF, False),
        ("YBR_FULL", b"\1\2\3", JFIF, True),  # DCMTK
        ("YBR_FULL", b"\1\2\3", b"", True),  # GDCM
        ("RGB", b"RGB", TRANSFORMED, False),
        ("RGB", b"RGB", JFIF + ADOBE, False),
        ("YBR_FULL", b"\1\2\3", JFIF + ADOBE, False),
        ("YBR_FULL", b"\1\2\3", segment(0xE0, b"JFXX\0\x10"), False),
        ("YBR_FULL", b"\1\2\3", ADOBE, False),
        ("YBR_FULL", b"\0\1\2", b"", False),
    ],
)
def test_what_jpeg_says_of_colours_is_what_the_data_set_says(
    photometric: str, components: bytes, before: bytes, *, plain: bool
) -> None:
    frame = lossless_jpeg(COLOURS, components, 8, before)
    said = request(JPEG, photometric, samples=3, bits=8)
    if plain:
        check_shape(said, frame)
    else:
        refused(said, frame)


# --- JPEG-LS ---

FRAME_OF_JPEG_LS = segment(0xF7, b"\x10\0\2\0\2\1\1\x11\0")
SCAN_OF_JPEG_LS = segment(0xDA, b"\1\1\0\0\0\0")
USUAL = segment(0xF8, struct.pack(">B5H", 1, 65535, 18, 67, 276, 64))


@pytest.mark.parametrize("more", [b"", USUAL, segment(0xFE, b"x")])
def test_jpeg_ls_may_state_the_usual_parameters(more: bytes) -> None:
    check_shape(request(JPEG_LS), SOI + FRAME_OF_JPEG_LS + more + SCAN_OF_JPEG_LS + b"\1\xff\x7f\1" + EOI)


@pytest.mark.parametrize(
    "more",
    [
        segment(0xF8, struct.pack(">B5H", 1, 65535, 18, 67, 277, 64)),
        segment(0xF8, b"\2\1\1\0\0"),  # a mapping table
        segment(0xF8, b"\4\2\0\2\0\2"),  # a size
        segment(0xE8, b"mrfx\1"),
        segment(0xE8, b"SPIFF\0"),
        segment(0xDD, b"\0\2"),
        segment(0xDC, b"\0\2"),
        FRAME_OF_JPEG_LS,
        b"\xff",
    ],
    ids=bytes.hex,
)
def test_jpeg_ls_has_no_parameters_of_its_own(more: bytes) -> None:
    refused(request(JPEG_LS), SOI + FRAME_OF_JPEG_LS + more + SCAN_OF_JPEG_LS + b"\1" + EOI)


@pytest.mark.parametrize(
    "scan",
    [b"\1\1\0\1\0\0", b"\1\1\0\0\1\0", b"\1\1\0\0\0\1", b"\1\1\1\0\0\0", b"\0\0\0\0", b"\1\2\0\0\0\0"],
    ids=bytes.hex,
)
def test_the_scan_of_jpeg_ls_is_lossless_without_mapping(scan: bytes) -> None:
    refused(request(JPEG_LS), SOI + FRAME_OF_JPEG_LS + segment(0xDA, scan) + b"\1" + EOI)


def test_jpeg_ls_has_its_components_in_order_each_once() -> None:
    frame = segment(0xF7, b"\x08\0\2\0\2\3\1\x11\0\2\x11\0\3\x11\0")
    said = request(JPEG_LS, "RGB", samples=3, bits=8)
    scans = [segment(0xDA, bytes((1, component, 0, 0, 0, 0))) + b"\1" for component in (1, 2, 3)]
    check_shape(said, SOI + frame + b"".join(scans) + EOI)
    for order in ((0, 1), (0, 2, 1), (0, 1, 2, 2), (0, 0, 1, 2)):
        refused(said, SOI + frame + b"".join(scans[index] for index in order) + EOI)
    refused(said, SOI + frame + scans[0] + segment(0xDA, b"\2\2\0\3\0\0\1\0") + b"\1" + EOI)


def test_a_codestream_without_a_sign_has_no_fewer_bits_than_the_signed_samples() -> None:
    for said, frame in (
        (request(JPEG), lossless_jpeg(ROWS, precision=12)),
        (request(JPEG_LS), SOI + FRAME_OF_JPEG_LS.replace(b"\x10", b"\x0c") + SCAN_OF_JPEG_LS + b"\1" + EOI),
    ):
        check_shape(said, frame)
        check_shape(replace(said, bits_stored=12, signed=True), frame)
        refused(replace(said, signed=True), frame)
