"""Whether a compressed frame is one that all decoders have to read alike.

A viewer decodes the same frame with another decoder. What decoders make of restart markers, of fill bytes, of hints at
colours, of several images, or of a depth that contradicts the data set differs. So a frame is restored only if it has
nothing but what lossless encoders write, each in the one form that leaves nothing open.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from agent.dicom.codestream import START_OF_SCAN, plain_segments
from agent.dicom.diagnosis.decoding_request import Request
from agent.dicom.diagnosis.jpeg_2000_shape import check_jpeg_2000

_STANDARD = "1.2.840.10008.1.2.4."
_START = b"\xff\xd8"
# Before the end there may be a fill byte, with which DCMTK makes the length even; behind it one that pads.
_END = re.compile(rb"\xff?\xff\xd9[\x00\xff]?\Z")
_NO_DATA = re.compile(rb"\xff[^\x00]")  # FF is followed by 00 in entropy-coded data (ISO/IEC 10918-1 B.1.1.5)
_NO_JPEG_LS_DATA = re.compile(rb"\xff[\x80-\xff]")  # and by a bit 0 in those of JPEG-LS (ISO/IEC 14495-1 A.1)

_FRAME, _JPEG_LS_FRAME, _HUFFMAN_TABLES, _PRESET, _COMMENT = 0xC3, 0xF7, 0xC4, 0xF8, 0xFE
_JFIF, _ADOBE = 0xE0, 0xEE
_JPEG_MARKERS = frozenset((_FRAME, _HUFFMAN_TABLES, START_OF_SCAN, _JFIF, _ADOBE, _COMMENT))
_REPEATED = frozenset((_HUFFMAN_TABLES, _COMMENT))
_JFIF_BEGINNING, _JFIF_SIZE = b"JFIF\0", 14  # bytes, without a thumbnail
# Version, two sets of flags, and the transformation of colours: none.
_ADOBE_WITHOUT_TRANSFORMATION = re.compile(rb"Adobe\x00.\x00{5}", re.DOTALL)
_IDS_OF_YCBCR = b"\x01\x02\x03"  # by which libjpeg takes three components for YCbCr, as JFIF has them


def check_shape(request: Request, frame: bytes) -> None:
    """Check a frame before it is decoded.

    Args:
        request: What the data set says.
        frame: The compressed frame, padded to even length.

    Raises:
        ValueError: It is something else.
        IndexError: The same.
        struct.error: The same.
    """
    if request.transfer_syntax in _CHECKS:
        _CHECKS[request.transfer_syntax](request, frame)


def _check_jpeg(request: Request, frame: bytes) -> None:
    """ISO/IEC 10918-1: one frame with one scan, nothing that says anything of colours but what the data set says."""
    if not frame.startswith(_START):
        raise ValueError("no start of image")
    header: dict[int, bytes] = {}
    position = len(_START)
    for marker, content, end in plain_segments(frame, START_OF_SCAN):
        if marker not in _JPEG_MARKERS or (marker in header and marker not in _REPEATED):
            raise ValueError("marker segment")
        header[marker] = bytes(content)
        position = end
    components = _components(request, header[_FRAME])
    if _scanned(header[START_OF_SCAN]) != components:
        raise ValueError("components of the scan")
    _check_colours(request, components, header.get(_JFIF), header.get(_ADOBE))
    _check_end(frame, _NO_DATA.search(frame, position))


def _check_colours(request: Request, components: bytes, jfif: bytes | None, adobe: bytes | None) -> None:
    """What APP0 and APP14 say of a single component does not matter."""
    if len(components) == 1:
        return
    if adobe is not None:
        plain = jfif is None and _ADOBE_WITHOUT_TRANSFORMATION.fullmatch(adobe) is not None
        called_ycbcr = False
    else:
        plain = jfif is None or (jfif.startswith(_JFIF_BEGINNING) and len(jfif) == _JFIF_SIZE)
        called_ycbcr = jfif is not None or components == _IDS_OF_YCBCR
    if not plain or called_ycbcr != request.photometric_interpretation.startswith("YBR_FULL"):
        raise ValueError("colours")


def jpeg_ls_data(request: Request, frame: bytes) -> list[bytes]:
    """The entropy-coded data of each scan of JPEG-LS (ISO/IEC 14495-1).

    There is one frame, its components in one scan or in one scan each, and no parameters but the usual.

    Args:
        request: What the data set says.
        frame: The compressed frame, padded to even length.

    Raises:
        ValueError: It is something else.
        IndexError: The same.
        struct.error: The same.
    """
    if not frame.startswith(_START):
        raise ValueError("no start of image")
    components = scanned = usual = b""
    position, end = len(_START), None
    data: list[bytes] = []
    while not components or scanned != components:
        *header, (_, scan, behind) = plain_segments(frame, START_OF_SCAN, position)
        for marker, content, _ in header:
            if marker == _JPEG_LS_FRAME and not components:
                components, usual = _components(request, bytes(content)), _usual_preset(content[0])
            elif marker != _COMMENT and (marker != _PRESET or content != usual):
                raise ValueError("marker segment")
        scanned += _scanned_by_jpeg_ls(bytes(scan), components)
        if not components.startswith(scanned):
            raise ValueError("components of the scan")
        end = _NO_JPEG_LS_DATA.search(frame, behind)
        position = end.start() if end else len(frame)
        data.append(frame[behind:position])
    _check_end(frame, end)
    return data


def _usual_preset(precision: int) -> bytes:
    """The parameters that hold where none are stated, as some state them (ISO/IEC 14495-1 C.2.4.1.1)."""
    most = (1 << precision) - 1
    factor = (min(most, 4095) + 128) // 256
    # Below 7 bits they are computed in another way, and nobody states them.
    return struct.pack(">B5H", 1, most, factor + 2, 4 * factor + 3, 17 * factor + 4, 64) if factor else b""


def _components(request: Request, frame: bytes) -> bytes:
    """The identifiers of the components, of a frame header (ISO/IEC 10918-1 B.2.2): all in full resolution."""
    precision, _, _, count = struct.unpack_from(">BHHB", frame)
    request.check_depth(precision)
    if request.signed and precision < request.bits_stored:
        raise ValueError("precision")  # the codestream knows no sign: some take its highest bit for it
    identifiers = frame[6::3]
    if count not in (1, 3) or len(frame) != 6 + 3 * count or len(set(identifiers)) != count:
        raise ValueError("components")
    if set(frame[7::3]) != {0x11} or set(frame[8::3]) != {0}:
        raise ValueError("resolution of components")
    return identifiers


def _scanned(scan: bytes) -> bytes:
    """The components of a scan of lossless JPEG (ISO/IEC 10918-1 B.2.3, table B.3)."""
    behind = 1 + 2 * scan[0]
    predictor, *others = scan[behind:]
    if not 1 <= predictor <= 7 or others != [0, 0]:
        raise ValueError("parameters of the scan")
    return scan[1:behind:2]


def _scanned_by_jpeg_ls(scan: bytes, components: bytes) -> bytes:
    """The components of a scan of JPEG-LS (ISO/IEC 14495-1 C.2.3): without loss, without tables."""
    count = scan[0]
    behind = 1 + 2 * count
    error, interleave, transform = scan[behind:]
    if count not in (1, len(components)) or interleave not in ((1, 2) if count > 1 else (0,)):
        raise ValueError("interleaving")
    if error or transform or any(scan[2:behind:2]):
        raise ValueError("parameters of the scan")
    return scan[1:behind:2]


def _check_end(frame: bytes, found: re.Match[bytes] | None) -> None:
    """Check that the data of the last scan are followed by the end and by nothing else."""
    if found is None or not _END.match(frame, found.start()):
        raise ValueError("something follows the scan")


_CHECKS: dict[str, Callable[[Request, bytes], object]] = {
    **dict.fromkeys((_STANDARD + "57", _STANDARD + "70"), _check_jpeg),
    _STANDARD + "80": jpeg_ls_data,
    **dict.fromkeys((_STANDARD + "90", _STANDARD + "201", _STANDARD + "202"), check_jpeg_2000),
}
