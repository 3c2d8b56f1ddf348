"""Pixels compressed without loss after signing, so that not every viewer shows what was signed."""

from __future__ import annotations

import base64
import struct
from functools import cache
from typing import Final

from tests.support.attacks.editing import (
    TRANSFER_SYNTAX_UID,
    Change,
    meta_rewritten,
    one_after_the_other,
    rewritten,
    with_nodes,
    without,
)
from tests.support.attacks.images import reference, signed, slice_with
from tests.support.attacks.registry import Attack
from tests.support.lossless_encoders import (
    EOI,
    SOI,
    Rows,
    entropy_coded,
    even,
    frame_header,
    huffman_table,
    lossless_jpeg,
    rle,
    rows_with_restarts,
    scan_header,
    segment,
    stuffed,
)
from tests.support.raw_dicom import Node, number, part10, text

_PIXEL_DATA, _PLANAR_CONFIGURATION, _PHOTOMETRIC_INTERPRETATION = 0x7FE00010, 0x00280006, 0x00280004
_COLUMNS: Final = 4
_GREY: Final[Rows] = [[0xFFFF, 0x7FFE, 0xFFFD, 0x7FFC], *([index, 900, 0, 4095] for index in range(3))]
_FORGED: Final[Rows] = [[7] * _COLUMNS] * 3
_COLOUR: Final[Rows] = [
    [(3 * (4 * row + pixel) + plus) % 256 for pixel in range(4) for plus in (0, 50, 100)] for row in range(4)
]
# The colours above by CharLS (pyjpegls 1.5), and 32 x 32 pixels of one colour by OpenJPEG 2.5.
_JPEG_LS: Final = base64.b64decode(
    "/9j/9wARCAAEAAQDAREAAhEAAxEA/9oADAMBAAIAAwAAAgBAAAAsYFDL1t9wIBDmTaTJgIcpVekkh7+o/9k="
)
_JPEG_2000: Final = base64.b64decode(
    "/0//UQAvAAAAAAAgAAAAIAAAAAAAAAAAAAAAIAAAACAAAAAAAAAAAAADBwEBBwEBBwEB/1IADAAAAAEBBQQEAAH/XAATQEBISFBISFBISFBISFBISFD/ZAAlAAFDcmVhdGVkIGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjL/kAAKAAAAAAAsAAH/k8+0CAcvx9QEAc/H1AQIf4CAgICAgICAgICAgICAgP/ZAA=="
)
_BEYOND_THE_RANGE: Final = (38, 3)  # offset of a byte, and what it becomes
_WRAPPED: Final = bytes.fromhex(
    "00a72403aa2706ad2a09b02d0cb3300fb63312b93615bc3918bf3c1bc23f1ec54221c84524cb4827ce4b2ad14e2dd451"
)
_EDGE: Final = 32
_ONE_COLOUR, _NOT_TRANSFORMED_BACK = bytes((10, 60, 110)), bytes((60, 178, 78))  # by ISO/IEC 15444-1 G.2


@cache
def grey_slice() -> bytes:
    """4 x 4 pixels of 16 bits, the first ones far apart."""
    pixels = b"".join(struct.pack("<4H", *row) for row in _GREY)
    return signed(part10(slice_with(Node(_PIXEL_DATA, "OW", pixels))))


def _colour(edge: int, pixels: bytes) -> bytes:
    described = (
        number(0x00280002, 3),
        text(_PHOTOMETRIC_INTERPRETATION, "CS", "RGB"),
        number(_PLANAR_CONFIGURATION, 0),
        number(0x00280010, edge),
        number(0x00280011, edge),
        number(0x00280100, 8),
        number(0x00280101, 8),
        number(0x00280102, 7),
        Node(_PIXEL_DATA, "OW", pixels),
    )
    overlay_and_values = {0x60000010, 0x60003000, 0x00281052, 0x00281053}
    return signed(part10(tuple(node for node in slice_with(*described) if node.tag not in overlay_and_values)))


@cache
def colour_slice() -> bytes:
    """4 x 4 pixels in colour."""
    return _colour(4, b"".join(map(bytes, _COLOUR)))


@cache
def shifted_colour_slice() -> bytes:
    """The colours that CharLS makes of those above where they are said to be transformed: HP1."""
    pixels = (tuple(row[at : at + 3]) for row in _COLOUR for at in range(0, len(row), 3))
    return _colour(4, b"".join(bytes(((r + g - 128) % 256, g, (b + g - 128) % 256)) for r, g, b in pixels))


@cache
def wrapped_colour_slice() -> bytes:
    """What CharLS makes of the changed codestream below."""
    return _colour(4, _WRAPPED)


@cache
def coloured_area() -> bytes:
    """32 x 32 pixels of one colour."""
    return _colour(_EDGE, _ONE_COLOUR * _EDGE**2)


@cache
def other_coloured_area() -> bytes:
    """The same in the colour that JPEG 2000 computes with instead."""
    return _colour(_EDGE, _NOT_TRANSFORMED_BACK * _EDGE**2)


def compressed(ending: str, frame: bytes, *others: Node) -> Change:
    """Pixel Data in one fragment, under a lossless transfer syntax, and other elements."""
    return one_after_the_other(
        meta_rewritten(with_nodes(text(TRANSFER_SYNTAX_UID, "UI", "1.2.840.10008.1.2." + ending))),
        rewritten(with_nodes(Node(_PIXEL_DATA, "OB", fragments=(b"", even(frame))), *others)),
    )


def _grey(data: bytes, before: bytes = b"") -> bytes:
    """A codestream of lossless JPEG with these entropy-coded data."""
    return SOI + before + frame_header(4, _COLUMNS) + huffman_table() + scan_header() + data + EOI


_ROW_INTERVALS: Final = segment(0xDD, struct.pack(">H", _COLUMNS))  # DRI
_SIGNED_ROWS: Final = rows_with_restarts(_GREY, lambda _: 7)
_HIDDEN: Final = _grey(_SIGNED_ROWS + rows_with_restarts(_FORGED, lambda row: row - 1, first=1), _ROW_INTERVALS)
_DATA: Final = stuffed(entropy_coded(_GREY))
_PLANES: Final = [b"".join(bytes(row[plane::3]) for row in _COLOUR) for plane in range(3)]
_ADOBE_YCBCR: Final = segment(0xEE, b"Adobe\0\x64\0\0\0\0\1")
_HP_TRANSFORMATION: Final = segment(0xE8, b"mrfx\1")
_START_OF_DATA: Final = b"\xff\x93"


def _with_byte(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes((value,)) + data[at + 1 :]


def _with_style_of_the_tile(codestream: bytes) -> bytes:
    """The coding style of the main header again in that of the tile, but without the transformation of colours."""
    at, start, data = (codestream.index(marker) for marker in (b"\xff\x52", b"\xff\x90", _START_OF_DATA))
    style = bytearray(codestream[at : at + 2 + int.from_bytes(codestream[at + 2 : at + 4])])
    style[8] = 0
    length = int.from_bytes(codestream[start + 6 : start + 10]) + len(style)
    tile_header = codestream[start : start + 6] + struct.pack(">I", length) + codestream[start + 10 : data]
    return codestream[:start] + tile_header + bytes(style) + codestream[data:]


_CALLED_YBR_RCT: Final = text(_PHOTOMETRIC_INTERPRETATION, "CS", "YBR_RCT")
# Where the decoder is an extra that may be missing, no more is sure.
_NOT_VERIFIED: Final = ("integrity: transfer-syntax-differs",)
_NOT_DECODED: Final = (*_NOT_VERIFIED, "integrity: pixels-damaged")
_NOT_RESTORED: Final = (*_NOT_VERIFIED, "integrity: pixels-not-restored")

ATTACKS: Final = (
    Attack(
        "restart-markers-out-of-order",
        "Lossless JPEG with restart markers: those before the signed rows have wrong numbers, so that libjpeg skips "
        "these rows and shows others, which follow.",
        compressed("4.70", _HIDDEN),
        _NOT_DECODED,
        honest=grey_slice,
    ),
    Attack(
        "fill-byte-in-a-scan",
        "Lossless JPEG with FF FF 00 in its data, which some decoders take for two bytes FF and others for one.",
        compressed("4.70", _grey(_DATA.replace(b"\xff\0\xff\0", b"\xff\xff\0", 1))),
        _NOT_DECODED,
        honest=grey_slice,
    ),
    Attack(
        "data-behind-the-last-sample",
        "Lossless JPEG whose scan has room for more, behind the last pixel.",
        compressed("4.70", _grey(_DATA + bytes(40))),
        _NOT_DECODED,
        honest=grey_slice,
    ),
    Attack(
        "jpeg-said-to-be-ycbcr",
        "Lossless JPEG of colours called RGB; a marker says that they are YCbCr, and some decoders convert them.",
        compressed("4.70", lossless_jpeg(_COLOUR, b"\1\2\3", 8, before=_ADOBE_YCBCR)),
        _NOT_DECODED,
        honest=colour_slice,
    ),
    Attack(
        "jpeg-ls-said-to-be-transformed",
        "JPEG-LS with a marker of HP: CharLS undoes a transformation of colours, others do not know it.",
        compressed("4.80", SOI + _HP_TRANSFORMATION + _JPEG_LS.removeprefix(SOI)),
        _NOT_VERIFIED,
        honest=shifted_colour_slice,
    ),
    Attack(
        "jpeg-ls-beyond-the-range",
        "JPEG-LS with an error that no encoder makes: some decoders wrap the sample around, others cut it off.",
        compressed("4.80", _with_byte(_JPEG_LS, *_BEYOND_THE_RANGE)),
        _NOT_VERIFIED,
        honest=wrapped_colour_slice,
    ),
    Attack(
        "jpeg-2000-with-a-style-for-its-tile",
        "JPEG 2000 called YBR_RCT by its main header, but not by that of its only tile.",
        compressed("4.90", _with_style_of_the_tile(_JPEG_2000), _CALLED_YBR_RCT),
        _NOT_VERIFIED,
        honest=other_coloured_area,
    ),
    Attack(
        "text-beside-restored-colours",
        "A second value of Photometric Interpretation, beside colours that JPEG 2000 calls YBR_RCT.",
        compressed("4.90", _JPEG_2000, text(_PHOTOMETRIC_INTERPRETATION, "CS", "YBR_RCT\\NO TUMOUR")),
        _NOT_VERIFIED,
        honest=coloured_area,
    ),
    Attack(
        "text-as-planar-configuration",
        "A remark in the place of Planar Configuration, which compression may have changed.",
        compressed("5", rle(_PLANES), text(_PLANAR_CONFIGURATION, "UT", "The lesion is an artefact.")),
        _NOT_RESTORED,
        honest=colour_slice,
    ),
    Attack(
        "sequence-as-planar-configuration",
        "A sequence in the place of Planar Configuration.",
        compressed("5", rle(_PLANES), Node(_PLANAR_CONFIGURATION, "SQ", items=(reference("2.25.666"),))),
        _NOT_RESTORED,
        honest=colour_slice,
    ),
    Attack(
        "planar-configuration-removed",
        "Colours compressed, and Planar Configuration removed.",
        one_after_the_other(compressed("5", rle(_PLANES)), rewritten(without(_PLANAR_CONFIGURATION))),
        _NOT_RESTORED,
        honest=colour_slice,
    ),
)
