"""What is restored must be what every decoder shows: one plain codestream that contradicts nothing."""

from __future__ import annotations

import pytest

from agent.dicom.diagnosis.codestream_shape import check_shape
from agent.dicom.elements import PIXEL_DATA
from agent.dicom.headers import DEFAULT_LIMITS
from agent.dicom.stored_instance import StoredInstance
from agent.errors import DicomError
from tests.support.dicom_samples import corpus

CHECKED = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (57, 70, 80, 90))
Frame = tuple[str, bytes, int, bool]


def frames() -> dict[str, Frame]:
    """A frame of each image of the corpus whose transfer syntax is checked: syntax, bytes, Bits Allocated, signed."""
    found: dict[str, Frame] = {}
    for image in corpus():
        try:
            stored = StoredInstance.read(image.path.read_bytes(), DEFAULT_LIMITS)
        except DicomError:
            continue
        data_set, syntax = stored.data_set, stored.meta.syntax.uid
        if syntax in CHECKED and (data_set.number(0x00280008) or 1) == 1:
            frame = b"".join(map(bytes, data_set.fragments(PIXEL_DATA)[1:]))
            signed = data_set.number(0x00280103) == 1
            found[image.name] = (syntax, frame, data_set.number(0x00280100) or 0, signed)
    return found


# A JP2 file, a sign that contradicts the data set, and pixels inside a sequence of unknown VR.
ODD = ("GDCMJ2K_TextGBR.dcm", "J2K_pixelrep_mismatch.dcm", "UN_sequence.dcm")
FRAMES = {name: frame for name, frame in frames().items() if not name.endswith(ODD)}


def check(frame: Frame, data: bytes, *, signed: bool | None = None, bits: int | None = None) -> None:
    syntax, _, allocated, is_signed = frame
    check_shape(syntax, data, allocated if bits is None else bits, signed=is_signed if signed is None else signed)


@pytest.mark.parametrize("name", FRAMES)
def test_frames_of_real_encoders_are_plain(name: str) -> None:
    check(FRAMES[name], FRAMES[name][1])


@pytest.mark.parametrize("name", FRAMES)
def test_nothing_may_follow_a_codestream(name: str) -> None:
    """Decoders differ in which of several images they show."""
    plain = FRAMES[name][1].rstrip(b"\0\xff")
    for more in (plain, b"junk", b"\xff\xd9", bytes(2)):
        with pytest.raises(ValueError, match="follows"):
            check(FRAMES[name], plain + more)


@pytest.mark.parametrize("name", FRAMES)
def test_a_depth_that_contradicts_the_data_set_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"depth|precision"):
        check(FRAMES[name], FRAMES[name][1], bits=24 - FRAMES[name][2])


@pytest.mark.parametrize("name", [name for name in FRAMES if FRAMES[name][0].endswith(".90")])
def test_a_sign_that_contradicts_the_data_set_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="sign"):
        check(FRAMES[name], FRAMES[name][1], signed=not FRAMES[name][3])


@pytest.mark.parametrize("name", FRAMES)
def test_a_codestream_in_a_file_of_its_own_is_refused(name: str) -> None:
    """A JP2 file (ISO/IEC 15444-1 Annex I) may have a palette that some decoders apply."""
    with pytest.raises(ValueError, match=r"plain|start"):
        check(FRAMES[name], b"\0\0\0\x0cjP  \r\n\x87\n" + FRAMES[name][1])


def test_the_checked_transfer_syntaxes_are_in_the_corpus() -> None:
    assert {frame[0] for frame in FRAMES.values()} == CHECKED - {"1.2.840.10008.1.2.4.57"}


def test_odd_images_of_the_corpus_are_refused() -> None:
    odd = [frame for name, frame in frames().items() if name.endswith(ODD[:2])]
    assert len(odd) == 2
    for frame in odd:
        with pytest.raises(ValueError, match=r"plain|sign"):
            check(frame, frame[1])


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\x4f\xff\x51", b"\xff\xd8\xff\xc3\0\0", b"\xff\xd8" + b"\xff" * 999]
)
@pytest.mark.parametrize("syntax", sorted(CHECKED))
def test_what_is_no_codestream_is_refused(syntax: str, data: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        check_shape(syntax, data, 8, signed=False)
