"""Compressed pixels come from anybody: whatever they are, decoding ends soon, takes bounded memory and does no harm."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Final

import pytest

from agent.dicom.data_set import DataSet
from agent.dicom.diagnosis import decompress, jpeg_lossless
from agent.dicom.diagnosis.decoding_process import DECODER_MISSING, DECODERS
from agent.dicom.diagnosis.decoding_request import Request
from agent.dicom.diagnosis.decompress import MOST_RESTORED, restored_pixels
from agent.dicom.elements import EXPLICIT_LITTLE_ENDIAN, PIXEL_DATA
from agent.dicom.headers import DEFAULT_LIMITS
from agent.errors import DicomError
from tests.support.dicom_samples import ct_slice, sample
from tests.support.dicom_tools import filtered, needs_dcmtk
from tests.support.dicom_tree import find, parse
from tests.support.raw_dicom import Node, Writer, number

ROOT: Final = Path(__file__).parents[2]
STANDARD: Final = "1.2.840.10008.1.2."
RLE, JPEG_LOSSLESS, JPEG_LS, JPEG_2000 = (STANDARD + ending for ending in ("5", "4.70", "4.80", "4.90"))
DEFLATED_FRAMES, FRAMES_AS_THEY_ARE = STANDARD + "8.1", STANDARD + "1.98"
SECONDS: Final = 20.0
FRAME_SIZE: Final = 64 * 64 * 2  # bytes


def picture(
    *fragments: bytes,
    rows: int = 64,
    columns: int = 64,
    bits_allocated: int = 16,
    bits_stored: int = 16,
    frames: int = 1,
) -> DataSet:
    """A data set with encapsulated Pixel Data."""
    nodes = (
        number(0x00280002, 1),
        Node(0x00280008, "IS", f"{frames:4}".encode("ascii")),
        number(0x00280010, rows),
        number(0x00280011, columns),
        number(0x00280100, bits_allocated),
        number(0x00280101, bits_stored),
        number(0x00280103, 0),
        Node(PIXEL_DATA, "OB", fragments=(b"", *fragments)),
    )
    data = Writer("1.2.840.10008.1.2.1").data_set(nodes)
    return DataSet(data, 0, len(data), EXPLICIT_LITTLE_ENDIAN, DEFAULT_LIMITS, encapsulated=True)


def refused(data_set: DataSet, transfer_syntax: str, seconds: float = SECONDS) -> str:
    """The code of the refusal."""
    with pytest.raises(DicomError) as refusal:
        restored_pixels(data_set, transfer_syntax, seconds)
    assert refusal.value.remedy
    return refusal.value.code


def codestream(compression: str) -> bytes:
    """64 x 64 pixels of 16 bits, compressed."""
    match compression:
        case "RLE":
            compressed = filtered(ct_slice(64, 64), "dcmcrle")
        case "JPEG lossless":
            compressed = filtered(ct_slice(64, 64), "dcmcjpeg", "+e1")
        case "JPEG-LS":
            compressed = filtered(ct_slice(64, 64), "dcmcjpls")
        case _:
            compressed = sample("pydicom/test_files/MR_small_jp2klossless.dcm").path.read_bytes()
    pixels = find(parse(compressed).elements, PIXEL_DATA)
    assert pixels is not None
    assert pixels.fragments is not None
    return pixels.fragments[1]


def damaged(data: bytes, count: int) -> Iterator[bytes]:
    """The data with bytes changed, cut out or cut off."""
    chance = random.Random(len(data))  # noqa: S311 - the same in every run
    for _ in range(count):
        mutant = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            mutant[chance.randrange(len(mutant))] = chance.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, chance.randrange(256)))
        if chance.randrange(4) == 0:
            del mutant[chance.randrange(len(mutant)) :]
        yield bytes(mutant) + b"\0" * (len(mutant) % 2)


@needs_dcmtk
@pytest.mark.parametrize(
    ("compression", "transfer_syntax", "library"),
    [
        ("RLE", RLE, "struct"),
        ("JPEG lossless", JPEG_LOSSLESS, "struct"),
        ("JPEG-LS", JPEG_LS, "_CharLS"),
        ("JPEG 2000", JPEG_2000, "openjpeg"),
    ],
)
def test_damaged_codestreams_are_decoded_to_the_stated_size_or_refused(
    compression: str, transfer_syntax: str, library: str
) -> None:
    pytest.importorskip(library, reason="no decoder: pip install 'scanseal[decompress]'")
    codes: set[str] = set()
    sizes: set[int] = set()
    for mutant in damaged(codestream(compression), 12):
        try:
            ways = restored_pixels(picture(mutant), transfer_syntax, SECONDS)
        except DicomError as error:
            codes.add(error.code)
        else:
            sizes |= {len(way[PIXEL_DATA].value) for way in ways}

    assert codes <= {"pixels-damaged", "decompression-too-long"}
    assert sizes <= {FRAME_SIZE}


@needs_dcmtk
def test_the_jpeg_decoder_of_our_own_ends_on_whatever_it_is_given() -> None:
    decoded = 0
    for mutant in damaged(codestream("JPEG lossless"), 500):
        try:
            image = jpeg_lossless.decode(mutant, 64 * 64)
        except (ValueError, IndexError, KeyError, RuntimeError, struct.error):
            continue
        assert len(image.samples) <= 64 * 64
        decoded += 1

    assert decoded > 0


@needs_dcmtk
def test_a_codestream_cut_off_anywhere_is_refused() -> None:
    whole = codestream("JPEG lossless")
    end = whole.rindex(b"\xff\xd9")

    assert len(jpeg_lossless.decode(whole, 64 * 64).samples) == 64 * 64
    for length in range(0, end, 7):
        with pytest.raises((ValueError, IndexError, KeyError, RuntimeError, struct.error)):
            jpeg_lossless.decode(whole[:length], 64 * 64)


@needs_dcmtk
@pytest.mark.parametrize(
    ("compression", "transfer_syntax", "rows", "columns"),
    [
        *(
            (*codec, *size)
            for codec in (("JPEG lossless", JPEG_LOSSLESS), ("JPEG-LS", JPEG_LS))
            for size in ((32, 64), (64, 32), (128, 32), (65, 64))
        ),
        # PS3.5 Annex G: it states no size, only the number of pixels shows.
        ("RLE", RLE, 32, 64),
        ("RLE", RLE, 65, 64),
    ],
)
def test_an_image_of_another_size_than_the_data_set_says_is_refused(
    compression: str, transfer_syntax: str, rows: int, columns: int
) -> None:
    data_set = picture(codestream(compression), rows=rows, columns=columns)

    assert refused(data_set, transfer_syntax) in {"pixels-damaged", "decoder-missing"}


@pytest.mark.parametrize("frame", [b"", b"\0\0", bytes(64), b"\1\0\0\0\xff\xff\xff\xff" + bytes(56), b"\xff" * 64])
def test_segments_that_lie_nowhere_are_refused(frame: bytes) -> None:
    assert refused(picture(frame), RLE) == "pixels-damaged"


def test_a_deflated_frame_that_grows_is_refused() -> None:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = deflater.compress(bytes(64 << 20)) + deflater.flush()

    assert refused(picture(bomb + b"\0" * (len(bomb) % 2)), DEFLATED_FRAMES) == "pixels-damaged"


def test_frames_stored_as_they_are_are_given_back_as_they_are() -> None:
    ways = restored_pixels(picture(bytes(range(256)) * 32), FRAMES_AS_THEY_ARE, SECONDS)

    assert {bytes(way[PIXEL_DATA].value) for way in ways} == {bytes(range(256)) * 32}


def test_more_pixels_than_may_be_restored_are_refused_before_anything_is_decoded() -> None:
    frames = MOST_RESTORED // (65_534 * 2) + 1

    assert refused(picture(bytes(64), rows=1, columns=65_534, frames=frames), RLE) == "pixels-too-large"


@pytest.mark.parametrize("frames", [-1, 2, 9_999])
def test_fragments_that_cannot_be_frames_are_refused(frames: int) -> None:
    assert refused(picture(bytes(64), bytes(64), bytes(64), frames=frames), RLE) in {
        "pixels-not-restored",
        "pixels-too-large",
    }


@pytest.mark.parametrize(("allocated", "stored"), [(1, 1), (12, 12), (16, 17), (16, 0), (64, 64)])
def test_bits_that_cannot_be_are_refused(allocated: int, stored: int) -> None:
    assert refused(picture(bytes(64), bits_allocated=allocated, bits_stored=stored), RLE) == "pixels-not-restored"


def test_a_decoder_that_takes_too_long_is_ended() -> None:
    assert refused(picture(bytes(64)), RLE, seconds=0.001) == "decompression-too-long"


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("4.91", "compression-lossy"),
        ("4.203", "compression-lossy"),
        ("4.50", "compression-lossy"),
        ("4.81", "compression-lossy"),
        ("4.110", "decoder-missing"),
        ("4.92", "decoder-missing"),
    ],
)
def test_what_is_not_restored_is_refused_by_name(ending: str, code: str) -> None:
    assert refused(picture(bytes(64)), STANDARD + ending) == code


def test_a_decoder_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompress, "_run", lambda *_: DECODER_MISSING)
    with pytest.raises(DicomError, match=r"is not installed.*scanseal\[decompress\]"):
        restored_pixels(picture(bytes(64)), RLE, SECONDS)


def test_the_decoding_process_says_that_a_library_is_missing() -> None:
    request = Request(JPEG_2000, "MONOCHROME2", 16, 16, 1, 16, 16, signed=False, seconds=5, frames=(64,))
    # Without site-packages.
    command = [sys.executable, "-I", "-S", "-c", program("sys.exit(decoding_process.main())")]

    assert (
        subprocess.run(command, input=request.encoded() + bytes(64), capture_output=True, check=False).returncode
        == DECODER_MISSING
    )


def program(last: str) -> str:
    return f"import sys; sys.path.insert(0, {str(ROOT)!r}); from agent.dicom.diagnosis import decoding_process; {last}"


def attempt(doing: str) -> str:
    """What becomes of an attempt in a process that gave up what a decoder gives up."""
    lines = (
        "import os, socket, sys",
        f"sys.path.insert(0, {str(ROOT)!r})",
        "from agent.dicom.diagnosis import decoding_process",
        f"decoding_process._give_up(decoding_process.Request({RLE!r}, '', 64, 64, 1, 16, 16, False, 1, (64,)))",
        "try:",
        f"    {doing}",
        "except (OSError, MemoryError) as error:",
        "    print(type(error).__name__)",
        "else:",
        "    print('done')",
    )
    command = [sys.executable, "-P", "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.strip() or f"killed by {-done.returncode}"


@pytest.mark.parametrize(
    "doing",
    [
        "open('/etc/passwd')",
        "socket.socket()",
        "bytearray(4 << 30)",
        "os.memfd_create('more')",
        "os.pipe()",
    ],
)
def test_a_decoder_can_reach_nothing(doing: str) -> None:
    assert attempt(doing) in {"OSError", "MemoryError", "PermissionError"}


def test_a_decoder_that_loops_is_killed_by_the_kernel() -> None:
    assert attempt("while True: pass").startswith("killed by")


def test_the_output_of_a_decoder_cannot_grow_beyond_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file it writes to is sealed at that size, whatever becomes of the process."""
    written = []

    def run(_source: FileIO, target: FileIO, _seconds: float) -> int:
        written.append(target.write(bytes(FRAME_SIZE)))
        with pytest.raises(PermissionError):
            target.write(b"more")
        return 1

    monkeypatch.setattr(decompress, "_run", run)

    assert refused(picture(bytes(64)), RLE) == "pixels-damaged"
    assert written == [FRAME_SIZE]


def test_every_decoder_is_asked_for_by_name() -> None:
    """So that the process loads what it needs before it gives up files."""
    assert all(library for library, _ in DECODERS.values())
