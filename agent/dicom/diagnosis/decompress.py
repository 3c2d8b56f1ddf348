"""Restores native Pixel Data from losslessly compressed Pixel Data, as it may have been when it was signed.

A signature over native pixels cannot be verified while they are compressed (PS3.3 C.12.1.1.3.1.1), although lossless
compression keeps every pixel. What it does not keep is the layout: the order of samples, the VR, unused bits. Those are
few, so each is given out and the MAC decides.

The frames are decoded by `decoding_process.py`, in a process that can do nothing else and whose output cannot grow.
"""

from __future__ import annotations

import fcntl
import math
import os
import signal
import struct
import subprocess
import sys
from collections import ChainMap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from io import FileIO
from itertools import islice, product
from pathlib import Path

import agent
from agent.dicom.data_set import DataSet
from agent.dicom.diagnosis.decoding_process import DECODER_MISSING, DECODERS
from agent.dicom.diagnosis.decoding_request import Request
from agent.dicom.diagnosis.readings import Element, Place
from agent.dicom.elements import (
    BITS_ALLOCATED,
    COLUMNS,
    EXPLICIT_LITTLE_ENDIAN,
    NUMBER_OF_FRAMES,
    PIXEL_DATA,
    PIXEL_REPRESENTATION,
    ROWS,
    SAMPLES_PER_PIXEL,
)
from agent.dicom.fragments import fragment_findings
from agent.errors import DicomError

MOST_RESTORED = 128 << 20  # bytes of native Pixel Data; up to four arrangements of it are held at once
MOST_IMAGES = 4  # of an instance
MOST_WAYS = 64  # in which they may have been stored
_MOST_OF_A_NAME = 16  # characters of a code string (PS3.5 6.2)

PHOTOMETRIC_INTERPRETATION = 0x00280004
PLANAR_CONFIGURATION = 0x00280006
BITS_STORED = 0x00280101

_STANDARD = "1.2.840.10008.1.2."
_RLE = _STANDARD + "5"
_NATIVE_FRAMES = frozenset(_STANDARD + ending for ending in ("1.98", "8.1"))
_JPEG_2000 = frozenset(_STANDARD + ending for ending in ("4.90", "4.201", "4.202"))
# Lossless, and so rare that there is no decoder: JPEG processes 15, 28 and 29 (retired), JPEG 2000 part 2, JPEG XL.
_LOSSLESS_ELSEWHERE = frozenset(f"{_STANDARD}4.{number}" for number in (58, 65, 66, 92, 110))


def decompressed(
    data_set: DataSet, tags: Iterable[int], transfer_syntax: str, seconds: float
) -> tuple[dict[Place, Element], ...]:
    """The elements that lossless compression may have changed, of every image there is: icons are compressed along.

    Args:
        data_set: An instance.
        tags: The elements that are of interest.
        transfer_syntax: UID of how it is stored.
        seconds: How long decoding one image may take.

    Returns:
        All the ways in which the decoded pixels may have been stored.

    Raises:
        DicomError: An image was compressed with loss, or cannot be decoded here.
    """
    ways = [
        [
            {(*place, tag): element for tag, element in way.items()}
            for way in restored_pixels(image, transfer_syntax, seconds)
        ]
        for place, image in islice(compressed_images(data_set, tags), MOST_IMAGES)
    ]
    return tuple(dict(ChainMap(*together)) for together in islice(product(*ways), MOST_WAYS))


def compressed_images(data_set: DataSet, tags: Iterable[int], place: Place = ()) -> Iterator[tuple[Place, DataSet]]:
    """Where Pixel Data is in fragments, in these elements and all inside them.

    Args:
        data_set: In which the elements are.
        tags: Which.
        place: Where the data set is.
    """
    for tag in tags:
        if tag == PIXEL_DATA and data_set.fragments(tag):
            yield place, data_set
        for number, item in enumerate(data_set.items(tag) if data_set.vr(tag) == b"SQ" else ()):
            yield from compressed_images(item, item.tags, (*place, tag, number))


def restored_pixels(data_set: DataSet, transfer_syntax: str, seconds: float) -> tuple[dict[int, Element], ...]:
    """The elements that lossless compression may have changed, as they may have been before.

    Args:
        data_set: An instance with encapsulated Pixel Data.
        transfer_syntax: UID of how it is stored.
        seconds: How long decoding may take.

    Returns:
        All the ways in which the decoded pixels may have been stored.

    Raises:
        DicomError: It was compressed with loss, or cannot be decoded here.
    """
    if transfer_syntax not in DECODERS:
        raise _not_restored(transfer_syntax)
    request = _request(data_set, transfer_syntax, seconds)
    frames = _frames(data_set, _frame_count(data_set, request.frame_size), transfer_syntax)
    others = _photometric_interpretation(data_set, transfer_syntax)
    planar_configurations = _planar_configurations(data_set, request)
    decoded = _decoded(request, frames, seconds)
    ways = []
    for planar, pixels in product(planar_configurations, _high_bits(decoded, request)):
        arranged = _by_plane(pixels, request) if planar else pixels
        padded = arranged + b"\0" * (len(arranged) % 2)
        if planar is not None:
            others = {**others, PLANAR_CONFIGURATION: Element(b"US", struct.pack("<H", planar))}
        # PS3.5 8.1.2: OW above 8 bits, and always if the file was in implicit VR; not everybody keeps to it.
        ways += [{**others, PIXEL_DATA: Element(vr, padded)} for vr in (b"OW", b"OB")]
    return tuple(ways)


def _request(data_set: DataSet, transfer_syntax: str, seconds: float) -> Request:
    """What the data set says of its pixels; the frames come later."""

    def number(tag: int) -> int:
        return data_set.number(tag) or 0

    request = Request(
        transfer_syntax=transfer_syntax,
        photometric_interpretation=data_set.text(PHOTOMETRIC_INTERPRETATION)[:_MOST_OF_A_NAME],
        rows=number(ROWS),
        columns=number(COLUMNS),
        samples=number(SAMPLES_PER_PIXEL),
        bits_allocated=number(BITS_ALLOCATED),
        bits_stored=number(BITS_STORED),
        signed=number(PIXEL_REPRESENTATION) == 1,
        seconds=max(1, math.ceil(seconds)),
        frames=(),
    )
    if request.bits_allocated not in (8, 16, 32) or not 0 < request.bits_stored <= request.bits_allocated:
        raise _unclear(f"Pixels of {request.bits_stored} in {request.bits_allocated} bits are not restored.")
    return request


def _frame_count(data_set: DataSet, frame_size: int) -> int:
    """Number of Frames, if that many fit into memory."""
    count = data_set.number(NUMBER_OF_FRAMES) or 1
    if not 0 < frame_size * count <= MOST_RESTORED or count < 1:
        raise DicomError(
            f"Decompressed, the pixel data would have {frame_size * count} bytes; the limit is {MOST_RESTORED}.",
            remedy="Decompress the instance with a tool you trust and verify the result.",
            code="pixels-too-large",
        )
    return count


def _frames(data_set: DataSet, count: int, transfer_syntax: str) -> list[bytes]:
    """The codestream of each frame (PS3.5 A.4)."""
    wrong = {finding.code for finding in fragment_findings(data_set, transfer_syntax)}
    if "codestream-wrong" in wrong:
        raise _damaged()
    unclear = _unclear("It does not show which fragments of Pixel Data belong to which frame.")
    if wrong - {"fragment-boundary-not-covered"}:  # which does not matter, because fragments were not signed
        raise unclear
    table, *fragments = data_set.fragments(PIXEL_DATA) or (memoryview(b""),)
    offsets = {0} if count == 1 else {offset for (offset,) in struct.iter_unpack("<I", table)}
    groups: list[list[memoryview]] = []
    position = 0
    for fragment in fragments:
        if position in offsets or not groups or len(fragments) == count:
            groups.append([])
        groups[-1].append(fragment)
        position += 8 + len(fragment)
    if len(groups) != count:
        raise unclear
    return [b"".join(group) for group in groups]


def _photometric_interpretation(data_set: DataSet, transfer_syntax: str) -> dict[int, Element]:
    """What it was before, where the compression changed it.

    That is only so for JPEG 2000: RGB goes in, and is decoded to RGB, but is called YBR_RCT meanwhile (PS3.5 8.2.4).
    The decoder refuses what is called so without being so, and the other way round.
    """
    called = bytes(data_set.raw(PHOTOMETRIC_INTERPRETATION))
    if transfer_syntax not in _JPEG_2000 or called != _stored(PHOTOMETRIC_INTERPRETATION, b"CS", b"YBR_RCT "):
        return {}
    return {PHOTOMETRIC_INTERPRETATION: Element(b"CS", b"RGB ")}


def _stored(tag: int, vr: bytes, value: bytes) -> bytes:
    """An element as it stands in a file with encapsulated pixels (PS3.5 A.4)."""
    return EXPLICIT_LITTLE_ENDIAN.header(tag, vr, len(value)) + value


def _planar_configurations(data_set: DataSet, request: Request) -> tuple[bool | None, ...]:
    """What Planar Configuration may have been; None if it is to be left alone."""
    by_plane = data_set.number(PLANAR_CONFIGURATION) == 1
    if request.samples == 1 or request.transfer_syntax in _NATIVE_FRAMES:
        return (None,)
    # It takes the place of what is stored, which may be nothing but such an element.
    values = [_stored(PLANAR_CONFIGURATION, b"US", value) for value in (b"\0\0", b"\1\0")]
    if bytes(data_set.raw(PLANAR_CONFIGURATION)) not in values:
        raise _unclear("Planar Configuration (0028,0006) is neither 0 nor 1.")
    # Compression arranges samples its own way. JPEG and its kin demand the value 0 then, so no 1 was ever made.
    return (True,) if by_plane and request.transfer_syntax != _RLE else (False, True)


def _by_plane(pixels: bytes, request: Request) -> bytes:
    width = request.bits_allocated // 8
    size = request.frame_size
    planes = bytearray(len(pixels))
    for frame in range(0, len(pixels), size):
        for sample, byte in product(range(request.samples), range(width)):
            start = frame + sample * (size // request.samples)
            source = pixels[frame + sample * width + byte : frame + size : request.samples * width]
            planes[start + byte : start + size // request.samples : width] = source
    return bytes(planes)


def _high_bits(pixels: bytes, request: Request) -> tuple[bytes, ...]:
    """The pixels with what compression may do to unused high bits of signed samples: fill them with the sign, or not.

    Only where that is all there is in these bits, because something else may be hidden there.
    """
    if not request.signed or request.bits_stored == request.bits_allocated:
        return (pixels,)
    filled = [_with_high_bits(pixels, request, by_sign=by_sign) for by_sign in (False, True)]
    return (pixels, *(other for other in filled if other != pixels)) if pixels in filled else (pixels,)


def _with_high_bits(pixels: bytes, request: Request, *, by_sign: bool) -> bytes:
    width = request.bits_allocated // 8
    top, sign_bit = divmod(request.bits_stored - 1, 8)
    unused = 0xFF & ~((2 << sign_bit) - 1)
    fill = bytes(0xFF if by_sign and byte >> sign_bit & 1 else 0 for byte in range(256))
    highest = pixels[top::width]
    filled = bytearray(pixels)
    filled[top::width] = highest.translate(bytes(byte & ~unused | fill[byte] & unused for byte in range(256)))
    for place in range(top + 1, width):
        filled[place::width] = highest.translate(fill)
    return bytes(filled)


def _decoded(request: Request, frames: Sequence[bytes], seconds: float) -> bytes:
    """The decoded frames, pixel by pixel, each as large as the data set says."""
    request = replace(request, frames=tuple(map(len, frames)))
    try:
        with ExitStack() as open_files:
            source, target = (open_files.enter_context(_file_in_memory()) for _ in range(2))
            for part in (request.encoded(), *frames):
                source.write(part)
            source.seek(0)
            target.truncate(request.frame_size * len(frames))
            fcntl.fcntl(target, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
            exit_code = _run(source, target, seconds)
            target.seek(0)
            decoded = target.read() if exit_code == 0 else b""
    except subprocess.TimeoutExpired as error:
        raise _too_long() from error
    except OSError as error:
        raise DicomError(
            f"The decoder could not be started: {error.strerror}.",
            remedy="Free memory and try again.",
            code="decoder-failed",
        ) from error
    if exit_code:
        raise _failure(exit_code, request.transfer_syntax)
    return decoded


def _file_in_memory() -> FileIO:
    return FileIO(os.memfd_create("frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "r+")


def _run(source: FileIO, target: FileIO, seconds: float) -> int:
    """Decode in another process; its exit code."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "agent.dicom.diagnosis.decoding_process"],
        stdin=source,
        stdout=target,
        stderr=subprocess.DEVNULL,
        cwd="/",
        # One thread reserves address space enough.
        env={"PYTHONPATH": str(Path(agent.__file__).parent.parent), "OPENBLAS_NUM_THREADS": "1"},
        timeout=seconds,
        check=False,
    )
    return done.returncode


def _failure(exit_code: int, transfer_syntax: str) -> DicomError:
    if exit_code == DECODER_MISSING:
        return DicomError(
            f"The decoder of transfer syntax {transfer_syntax} is not installed.",
            remedy="Install scanseal with its extra: pip install 'scanseal[decompress]'.",
            code="decoder-missing",
        )
    if exit_code in (-signal.SIGXCPU, -signal.SIGKILL):
        return _too_long()
    return _damaged()


def _unclear(what: str) -> DicomError:
    return DicomError(
        what,
        remedy="Decompress the instance with a tool you trust and verify the result.",
        code="pixels-not-restored",
    )


def _damaged() -> DicomError:
    return DicomError(
        "The compressed pixel data cannot be decoded as the data set states, or not all decoders read it alike.",
        remedy="Send the instance again from the source, or decompress it with a tool you trust and verify the result.",
        code="pixels-damaged",
    )


def _too_long() -> DicomError:
    return DicomError(
        "Decompressing the pixel data takes too long.",
        remedy="Decompress the instance with a tool you trust and verify the result.",
        code="decompression-too-long",
    )


def _not_restored(transfer_syntax: str) -> DicomError:
    if transfer_syntax in _LOSSLESS_ELSEWHERE:
        return DicomError(
            f"There is no decoder for transfer syntax {transfer_syntax}.",
            remedy="Decompress the instance with a tool you trust and verify the result.",
            code="decoder-missing",
        )
    return DicomError(
        f"The pixel data was compressed to transfer syntax {transfer_syntax}, which may lose information: "
        "what was signed cannot be restored.",
        remedy="Verify the instance that was signed, before it was compressed.",
        code="compression-lossy",
    )
