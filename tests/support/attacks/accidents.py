"""What happens to files without any intent."""

from __future__ import annotations

from typing import Final

from tests.support.attacks.editing import bytes_replaced, rewritten, with_items, with_value, without
from tests.support.attacks.images import other_slice
from tests.support.attacks.registry import Attack, Dcmsign
from tests.support.dicom_tree import parse

CANNOT_READ = Dcmsign.CANNOT_READ
WRONG = ("integrity: signature-wrong",)


def _cut_in_the_certificate(data: bytes) -> bytes:
    return data[:-600]


def _cut_between_elements(data: bytes) -> bytes:
    """All elements in front of Pixel Data, and not a byte more."""
    return data[: _start_of_pixels(data)]


def _zeroed(data: bytes) -> bytes:
    """A block of zeros where a disk lost it: the end of the pixels."""
    at = data.index(bytes(range(16, 32)))
    return data[:at] + bytes(16) + data[at + 16 :]


def _bit_rot(data: bytes) -> bytes:
    at = data.index(bytes(range(16, 32)))
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def _mixed(data: bytes) -> bytes:
    """The attributes of one file, and pixels and signature of another."""
    return data[: _start_of_pixels(data)] + other_slice()[_start_of_pixels(other_slice()) :]


def _start_of_pixels(data: bytes) -> int:
    parsed = parse(data)
    return len(parsed.head) + next(element.start for element in parsed.elements if element.tag == 0x7FE00010)


ATTACKS: Final = (
    Attack("bit-rot-in-the-pixels", "One bit of the pixels has changed on a disk.", _bit_rot, WRONG),
    Attack(
        "bit-rot-in-a-tag",
        "One bit of a tag has changed: an attribute became another one.",
        bytes_replaced(b"\x20\x00\x00\x40LT", b"\x20\x00\x01\x40LT"),
        ("integrity: signed-element-absent", "coverage: element-not-covered"),
    ),
    Attack("block-of-zeros", "A disk has lost a block in the middle of the pixels.", _zeroed, WRONG),
    Attack(
        "transfer-cut-off",
        "A transfer was cut off in the middle of an element.",
        _cut_in_the_certificate,
        ("refused: truncated",),
        CANNOT_READ,
    ),
    Attack(
        "transfer-cut-off-between-elements",
        "A transfer was cut off where an element ends, so that the file is well-formed and has lost its pixels along "
        "with its signature.",
        _cut_between_elements,
        ("no signature", "instance: signature-removed"),
    ),
    Attack(
        "text-appended",
        "A tool has appended a line break.",
        lambda data: data + b"\r\n",
        ("refused: truncated",),
        CANNOT_READ,
    ),
    Attack(
        "line-breaks-converted",
        "The file went through something that converts line breaks, such as FTP in text mode.",
        lambda data: data.replace(b"\n", b"\r\n"),
        ("refused: length-wrong",),
        CANNOT_READ,
    ),
    Attack(
        "two-files-mixed",
        "A disk has put the beginning of one file and the end of another together.",
        _mixed,
        WRONG,
    ),
    Attack(
        "characters-converted",
        "An archive has converted all text to UTF-8 and says so; the signature covers which character set it was.",
        rewritten(with_value(0x00080005, b"ISO_IR 192")),
        WRONG,
    ),
    Attack(
        "numbers-written-anew",
        "A tool has written a number in another form: 0.5 as 0.50.",
        rewritten(with_value(0x00280030, b"0.50\\0.50 ")),
        WRONG,
    ),
    Attack(
        "spaces-removed",
        "A tool has put zeros in the place of the spaces that pad a text.",
        rewritten(with_value(0x00080070, b"Example Imaging\0")),
        WRONG,
    ),
    Attack(
        "items-sorted",
        "A tool has sorted the items of a sequence.",
        rewritten(with_items(0x00081140, lambda items: items[::-1])),
        WRONG,
    ),
    Attack(
        "comment-dropped",
        "A gateway has dropped an attribute that it does not know.",
        rewritten(without(0x00204000)),
        ("integrity: signed-element-absent",),
    ),
    Attack(
        "institution-corrected",
        "An administrator has corrected the name of the institution, which C.2 covers.",
        rewritten(with_value(0x00080080, b"Example Hospital Ltd")),
        WRONG,
    ),
)
