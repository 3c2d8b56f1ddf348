"""Decodes compressed frames in a process of its own, which has given up everything that it does not need.

Codestreams come from anybody, and two of the decoders are written in C. So this process decodes one instance and ends:
it reads a request from standard input, gives up memory, time, files and other processes beyond what the request needs,
and writes the frames one after the other to standard output, pixel by pixel and in little endian. `decompress.py` is
the other side. An image that cannot be decoded ends it with an error, whichever that is.

The request is one line of JSON, the fields of `Request`, and behind it the frames.
"""

from __future__ import annotations

import resource
import struct
import sys
import zlib
from array import array
from collections.abc import Callable
from importlib import import_module

from agent.dicom.diagnosis import jpeg_lossless
from agent.dicom.diagnosis.codestream_shape import check_shape, jpeg_ls_data
from agent.dicom.diagnosis.decoding_request import Request

DECODER_MISSING = 3  # exit code

_STANDARD = "1.2.840.10008.1.2."
_JPEG_LS_LIBRARY = "_CharLS"  # of pyjpegls; what is above it decodes before it tells the size
_ROOM_FOR_HEADERS = 256  # bytes: it encodes into twice as many as it is given
_JPEG_2000_LIBRARY = "openjpeg"
_RLE_HEADER = 64  # bytes (PS3.5 G.5)
_MEMORY = 1 << 30  # bytes of address space, whatever the size of the image
_MEMORY_OF_SAMPLE = 32  # bytes beyond that for each sample of a frame


Decoder = Callable[[Request, bytes], bytes]


def main() -> int:
    """Decode what standard input asks for."""
    source, target = sys.stdin.buffer, sys.stdout.buffer
    request = Request.decoded(source.readline())
    library, decode = DECODERS[request.transfer_syntax]
    try:
        import_module(library)
    except ImportError:
        return DECODER_MISSING
    _give_up(request)
    for size in request.frames:
        compressed = source.read(size)
        check_shape(request, compressed)
        frame = decode(request, compressed)
        if len(frame) != request.frame_size:
            raise ValueError("a frame has another size than the data set says")
        target.write(frame)
    target.flush()
    return 0


def _give_up(request: Request) -> None:
    limits = {
        resource.RLIMIT_AS: _MEMORY + _MEMORY_OF_SAMPLE * request.samples_of_frame,
        resource.RLIMIT_CPU: request.seconds,
        resource.RLIMIT_FSIZE: request.frame_size * len(request.frames),
        resource.RLIMIT_NOFILE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_CORE: 0,
    }
    for limit, most in limits.items():
        resource.setrlimit(limit, (most, most))


def _rle(request: Request, frame: bytes) -> bytes:
    """PS3.5 Annex G: a segment for each byte of each sample, the highest byte first."""
    pixels, width = request.rows * request.columns, request.bits_allocated // 8
    count, *offsets = struct.unpack_from("<16I", frame)
    if count != request.samples * width or any(offsets[count:]):
        raise ValueError("number of segments")
    decoded = bytearray(request.frame_size)
    ends = [*offsets[1:count], len(frame)]
    if offsets[0] != _RLE_HEADER or any(start >= end for start, end in zip(offsets[:count], ends, strict=True)):
        raise ValueError("order of segments")
    for segment, (start, end) in enumerate(zip(offsets[:count], ends, strict=True)):
        sample, byte = divmod(segment, width)
        place = sample * width + width - 1 - byte
        decoded[place :: request.samples * width] = _unpacked(frame[start:end], pixels)
    return bytes(decoded)


def _unpacked(segment: bytes, size: int) -> bytes:
    """PS3.5 G.3.2: runs of bytes as they are, and of one byte repeated; padded to even length."""
    decoded = bytearray()
    position = 0
    while len(decoded) < size:
        head = segment[position]
        if head < 128:
            decoded += segment[position + 1 : position + 2 + head]
            position += 2 + head
        elif head > 128:
            decoded += segment[position + 1 : position + 2] * (257 - head)
            position += 2
        else:
            raise ValueError("a byte that means nothing")  # which not all decoders know
    if len(decoded) != size or not 0 <= len(segment) - position <= 1:
        raise ValueError("length of a segment")
    return bytes(decoded)


def _jpeg_lossless(request: Request, frame: bytes) -> bytes:
    picture = jpeg_lossless.decode(frame, request.samples_of_frame)
    _check_size(request, picture.rows, picture.columns, picture.components)
    return _in_container(picture.samples, request)


def _jpeg_ls(request: Request, frame: bytes) -> bytes:
    library = import_module(_JPEG_LS_LIBRARY)
    header = library.read_header(frame)
    _check_size(request, header["height"], header["width"], header["components"])
    decoded, precision, interleave = (
        library.decode_from_buffer(frame),
        header["bits_per_sample"],
        header["interleave_mode"],
    )
    # Errors beyond the range are wrapped by some decoders and cut off by others. No encoder makes them: there is one
    # way to encode an image.
    shape = (request.rows, request.columns, request.samples, precision)
    encode = library._encode  # noqa: SLF001 - the public function around it loads what may no longer be loaded
    again = bytes(encode(bytes(decoded) + bytes(_ROOM_FOR_HEADERS), 0, interleave, *shape))
    if jpeg_ls_data(request, again) != jpeg_ls_data(request, frame):
        raise ValueError("not what an encoder makes of these samples")
    samples = _numbers(decoded, precision)
    if interleave == 0:
        pixels = request.rows * request.columns
        planes = samples[:]
        for component in range(request.samples):
            samples[component :: request.samples] = planes[component * pixels : (component + 1) * pixels]
    return _in_container(samples, request)


def _jpeg_2000(request: Request, frame: bytes) -> bytes:
    library = import_module(_JPEG_2000_LIBRARY)
    header = library.get_parameters(frame)
    _check_size(request, header["rows"], header["columns"], header["samples_per_pixel"])
    samples = _numbers(library.decode_pixel_data(frame, version=2), header["precision"])
    return _in_container(samples, request)


def _inflated(request: Request, frame: bytes) -> bytes:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    decoded = inflate.decompress(frame, request.frame_size + 1)
    if not inflate.eof or inflate.unused_data not in (b"", b"\0"):
        raise ValueError("something follows the deflated frame")
    return decoded


def _as_it_is(request: Request, frame: bytes) -> bytes:
    if frame[request.frame_size :] not in (b"", b"\0"):
        raise ValueError("something follows the frame")
    return frame[: request.frame_size]


# Transfer syntax UID: the library that is needed, and what decodes a frame.
DECODERS: dict[str, tuple[str, Decoder]] = {
    _STANDARD + ending: decoder
    for ending, decoder in {
        "1.98": ("sys", _as_it_is),
        "4.57": (jpeg_lossless.__name__, _jpeg_lossless),
        "4.70": (jpeg_lossless.__name__, _jpeg_lossless),
        "4.80": (_JPEG_LS_LIBRARY, _jpeg_ls),
        "4.90": (_JPEG_2000_LIBRARY, _jpeg_2000),
        "4.201": (_JPEG_2000_LIBRARY, _jpeg_2000),
        "4.202": (_JPEG_2000_LIBRARY, _jpeg_2000),
        "5": ("struct", _rle),
        "8.1": ("zlib", _inflated),
    }.items()
}


def _check_size(request: Request, rows: int, columns: int, samples: int) -> None:
    """Before memory is taken for it."""
    if (rows, columns, samples) != (request.rows, request.columns, request.samples):
        raise ValueError("the image has another size than the data set says")


def _numbers(decoded: bytes | bytearray, precision: int) -> array[int]:
    numbers = array("B" if precision <= 8 else "H" if precision <= 16 else "I")
    numbers.frombytes(decoded)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _in_container(samples: array[int], request: Request) -> bytes:
    """The samples, each in as many bytes as Bits Allocated says, in little endian."""
    kind = {8: "B", 16: "H", 32: "I"}[request.bits_allocated]
    contained = samples if samples.typecode == kind else array(kind, samples)
    if sys.byteorder == "big":
        contained.byteswap()
    return contained.tobytes()


if __name__ == "__main__":
    sys.exit(main())
