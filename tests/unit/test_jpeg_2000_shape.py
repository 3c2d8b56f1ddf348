"""JPEG 2000 is restored only from one plain codestream with one coding style for all (ISO/IEC 15444-1 Annex A)."""

from __future__ import annotations

import struct

import pytest

from agent.dicom.diagnosis.codestream_shape import check_shape
from tests.support.codestream_requests import refused, request
from tests.support.lossless_encoders import EOI, segment

JPEG_2000 = "1.2.840.10008.1.2.4.90"
HIGH_THROUGHPUT = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202")
SIZE = struct.pack(">H8IH3B", 0, 2, 2, 0, 0, 2, 2, 0, 0, 1, 15, 1, 1)
STYLE = b"\0\0\0\1\0\1\4\4\0\1"
QUANTIZATION = b"\x40\x80\x88\x88\x90"
PACKETS = b"\x80\x80"


def tile_part(tile: int = 0, number: int = 0, total: int = 1, header: bytes = b"", more: int = 0) -> bytes:
    body = header + b"\xff\x93" + PACKETS
    return segment(0x90, struct.pack(">HIBB", tile, 12 + len(body) + more, number, total)) + body


def codestream(
    size: bytes = SIZE,
    style: bytes = STYLE,
    quantization: bytes = QUANTIZATION,
    more: bytes = b"",
    parts: bytes | None = None,
) -> bytes:
    main = segment(0x51, size) + segment(0x52, style) + segment(0x5C, quantization) + more
    return b"\xff\x4f" + main + (tile_part() if parts is None else parts) + EOI


def tlm(*lengths: int) -> bytes:
    return segment(0x55, b"\0\x40" + struct.pack(f">{len(lengths)}I", *lengths))


def test_a_small_codestream_of_jpeg_2000_is_plain() -> None:
    check_shape(request(JPEG_2000), codestream())
    check_shape(request(JPEG_2000), codestream(more=segment(0x64, b"\0\1x") + tlm(16)))
    check_shape(request(JPEG_2000), codestream(parts=tile_part(total=0) + tile_part(number=1, total=2)))


@pytest.mark.parametrize(
    "more",
    [
        segment(0x53, b"\0\0\1\4\4\0\1"),  # COC
        segment(0x5D, b"\0" + QUANTIZATION),  # QCC
        segment(0x5E, b"\0\0\7"),  # RGN
        segment(0x5F, bytes(7)),  # POC
        segment(0x60, bytes(5)),  # PPM
        segment(0x57, bytes(3)),  # PLM
        segment(0x63, bytes(4)),  # CRG
        segment(0x50, bytes(6)),  # CAP
        segment(0x52, STYLE),
        segment(0x5C, QUANTIZATION),
        segment(0x51, SIZE),
        tlm(17),
        tlm(16, 16),
        tlm(16) + tlm(16),
        b"\xff",
    ],
    ids=bytes.hex,
)
def test_the_main_header_of_jpeg_2000_says_everything_once(more: bytes) -> None:
    refused(request(JPEG_2000), codestream(more=more))


@pytest.mark.parametrize(
    "parts",
    [
        *(
            tile_part(header=segment(marker, STYLE))
            for marker in (0x52, 0x53, 0x5C, 0x5D, 0x5E, 0x5F, 0x61, 0x58, 0x64)
        ),
        tile_part(more=1),
        tile_part(more=-1),
        segment(0x90, bytes(8)) + b"\xff\x93" + PACKETS,  # Psot 0: to the end
        tile_part(tile=1),
        tile_part() + tile_part(tile=1),
        tile_part(number=1, total=2) + tile_part(total=2),
        tile_part(total=3) + tile_part(number=1, total=3),
        tile_part() + tile_part(),
        b"",
    ],
    ids=bytes.hex,
)
def test_tile_parts_of_jpeg_2000_come_in_order_and_without_headers(parts: bytes) -> None:
    refused(request(JPEG_2000), codestream(parts=parts))


def changed(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes((value,)) + data[at + 1 :]


@pytest.mark.parametrize(
    ("at", "value"),
    # Rsiz, the offsets of the image and of its tiles, more tiles, sign, depth, resolution.
    [
        (0, 0x40),
        (0, 0x80),
        (13, 1),
        (17, 1),
        (29, 1),
        (33, 1),
        (21, 1),
        (21, 0),
        (36, 0x8F),
        (36, 17),
        (37, 2),
        (38, 2),
    ],
)
def test_the_size_of_jpeg_2000_is_without_offsets_and_subsampling(at: int, value: int) -> None:
    refused(request(JPEG_2000), codestream(changed(SIZE, at, value)))


@pytest.mark.parametrize(
    ("at", "value"),
    # SOP, EPH, precincts that are missing, progression, layers, colours, levels, blocks, their style, wavelet.
    [
        (0, 2),
        (0, 4),
        (0, 1),
        (1, 5),
        (3, 0),
        (4, 1),
        (5, 2),
        (6, 9),
        (7, 5),
        *((8, 1 << bit) for bit in range(8)),
        (9, 0),
    ],
)
def test_the_coding_style_of_jpeg_2000_is_the_usual(at: int, value: int) -> None:
    refused(request(JPEG_2000), codestream(style=changed(STYLE, at, value)))


@pytest.mark.parametrize(
    "quantization",
    [
        b"\x41" + QUANTIZATION[1:],
        QUANTIZATION[:-1],
        QUANTIZATION + b"\0",
        b"",
        b"\x40\x80\x88\x88\xf8",
        b"\x40\x80\x88\x88\x91",
    ],
)
def test_jpeg_2000_is_not_quantized(quantization: bytes) -> None:
    refused(request(JPEG_2000), codestream(quantization=quantization))


def test_colours_of_jpeg_2000_are_transformed_if_and_only_if_they_are_called_so() -> None:
    size = SIZE[:34] + struct.pack(">H9B", 3, *(7, 1, 1) * 3)
    plain, transformed = (codestream(size, changed(STYLE, 4, flag), b"\x40\x40\x48\x48\x50") for flag in (0, 1))
    rgb, called_so = (request(JPEG_2000, name, samples=3, bits=8) for name in ("RGB", "YBR_RCT"))
    check_shape(rgb, plain)
    check_shape(called_so, transformed)
    refused(rgb, transformed)
    refused(called_so, plain)


@pytest.mark.parametrize("uid", HIGH_THROUGHPUT)
def test_high_throughput_has_one_kind_of_blocks(uid: str) -> None:
    size, style = changed(SIZE, 0, 0x40), changed(STYLE, 8, 0x40)
    check_shape(request(uid), codestream(size, style, more=segment(0x50, b"\0\2\0\0\0\x0a")))
    refused(request(uid), codestream())
    refused(request(uid), codestream(size, style))
    for capabilities in (b"\0\2\0\0\x80\0", b"\0\2\0\0\0\x20", b"\0\3\0\0\0\0\0\0", b"\0\2\0\0\x10\0"):
        refused(request(uid), codestream(size, style, more=segment(0x50, capabilities)))
