"""Whether a compressed frame is one plain codestream that says of its samples what the data set says.

A viewer decodes the same frame with another decoder. What decoders make of wrappers, palettes, further codestreams, or
a sign and a depth that contradict the data set differs; so nothing is restored from such a frame, whatever ours makes
of it.
"""

from __future__ import annotations

_JPEG = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (57, 70))
_JPEG_LS = "1.2.840.10008.1.2.4.80"
_JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (90, 201, 202))

_END = b"\xff\xd9"  # EOI, EOC
_SOC_SIZ = b"\xff\x4f\xff\x51"
_SOT = b"\xff\x90"
_SOS = b"\xff\xda"
_SIZ_COMPONENTS = 42  # offset of the first Ssiz (ISO/IEC 15444-1 A.5.1)
_MOST_SEGMENTS = 100_000


def check_shape(transfer_syntax: str, frame: bytes, bits_allocated: int, *, signed: bool) -> None:
    """Check a frame before it is decoded.

    Args:
        transfer_syntax: UID of how it is compressed.
        frame: The compressed frame, padded to even length.
        bits_allocated: Bits Allocated (0028,0100).
        signed: Whether Pixel Representation (0028,0103) says so.

    Raises:
        ValueError: It is something else.
    """
    if transfer_syntax in _JPEG_2000:
        _check_jpeg_2000(frame, bits_allocated, signed=signed)
    elif transfer_syntax in _JPEG or transfer_syntax == _JPEG_LS:
        _check_jpeg(frame, bits_allocated)


def _check_jpeg(frame: bytes, bits_allocated: int) -> None:
    """ISO/IEC 10918-1 and 14495-1: after FF the entropy-coded data hold nothing that could be the end."""
    if frame[:2] != b"\xff\xd8":
        raise ValueError("no start of image")
    position = 2
    for _ in range(_MOST_SEGMENTS):
        while frame[position : position + 2] == b"\xff\xff":
            position += 1
        marker, length = frame[position : position + 2], int.from_bytes(frame[position + 2 : position + 4])
        if length < 2 or marker[:1] != b"\xff":
            raise ValueError("no marker segment")
        if marker[1] in (0xC3, 0xF7) and (frame[position + 4] > 8) != (bits_allocated > 8):
            raise ValueError("precision")
        position += 2 + length
        if marker == _SOS:
            # A later scan may not hide an end in its parameters: the first one behind the first scan counts.
            _check_end(frame, frame.find(_END, position))
            return
    raise ValueError("too many segments")


def _check_jpeg_2000(frame: bytes, bits_allocated: int, *, signed: bool) -> None:
    if frame[:4] != _SOC_SIZ:
        raise ValueError("not a plain codestream")
    components = int.from_bytes(frame[_SIZ_COMPONENTS - 2 : _SIZ_COMPONENTS])
    for component in range(components):
        depth = frame[_SIZ_COMPONENTS + 3 * component]
        if bool(depth & 0x80) != signed or ((depth & 0x7F) + 1 > 8) != (bits_allocated > 8):
            raise ValueError("depth or sign")
    position = 2
    for _ in range(_MOST_SEGMENTS):
        marker = frame[position : position + 2]
        if marker == _END:
            _check_end(frame, position)
            return
        if marker == _SOT:
            # Psot (A.4.2): 0 for a last tile-part that lasts to the end of the codestream.
            length = int.from_bytes(frame[position + 6 : position + 10])
            position = position + length if length else frame.find(_END, position)
        else:
            length = int.from_bytes(frame[position + 2 : position + 4])
            position += 2 + length
        if marker[:1] != b"\xff" or position < 0:
            raise ValueError("no marker segment")
    raise ValueError("too many segments")


def _check_end(frame: bytes, position: int) -> None:
    # Padded to even length with 00, or with FF, which JPEG calls a fill byte.
    if position < 0 or frame[position + len(_END) :] not in (b"", b"\0", b"\xff"):
        raise ValueError("something follows the codestream")
