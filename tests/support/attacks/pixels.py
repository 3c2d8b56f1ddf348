"""Pixel data: exchanged, relabelled, and fragments whose boundaries the MAC does not show (PS3.5 A.4)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from tests.support.attacks.editing import (
    both,
    in_item,
    in_mac_parameters,
    one_after_the_other,
    relabelled,
    rewritten,
    with_fragments,
    with_nodes,
    with_tag_list,
    with_value,
    without,
)
from tests.support.attacks.images import (
    half_lossy_jpeg_2000,
    jpeg,
    jpeg_frame,
    jpeg_frames,
    jpeg_in_two_fragments,
    jpeg_ls_near_lossless,
    jpeg_with_icon,
    lossy_jpeg_2000,
    raw_jpeg,
    rle_frames,
)
from tests.support.attacks.registry import Attack, Dcmsign
from tests.support.dicom_tree import MAC_PARAMETERS, SEQUENCE_END, parse, tag_bytes
from tests.support.mac_oracle import element_stream
from tests.support.raw_dicom import Node, number

ACCEPTS, REFUSES, CANNOT_READ = Dcmsign.ACCEPTS, Dcmsign.REFUSES, Dcmsign.CANNOT_READ
WRONG = ("integrity: signature-wrong",)
PIXEL_DATA, ICON_IMAGE_SEQUENCE = 0x7FE00010, 0x00880200
ITEM_TAG: Final = b"\xfe\xff\x00\xe0"
Fragments = tuple[bytes, ...]


def _merged(fragments: Fragments) -> Fragments:
    """The first two fragments behind the offset table made one, with the tag between them: the same MAC."""
    table, first, second, *rest = fragments
    return (table, first + ITEM_TAG + second, *rest)


def _split(fragments: Fragments) -> Fragments:
    """The first fragment cut where it holds the bytes of an item tag: the same MAC."""
    table, first, *rest = fragments
    at = first.index(ITEM_TAG)
    return (table, first[:at], first[at + len(ITEM_TAG) :], *rest)


def _swallowed(data: bytes, first: int, last: int, ends: int, icon: int | None) -> bytes:
    """Elements from `first` to `last` taken into the last fragment in front of them, without a change of the MAC.

    What is hashed of fragments ends with the tag of a sequence delimiter, and so does what is hashed of a sequence. So
    the fragment takes in its own end and all that follows, up to where a sequence ends in the same way.

    Args:
        data: The file.
        first: The first element that disappears.
        last: The last one: a sequence.
        ends: How many sequence delimiters end the fragments and what is around them.
        icon: The sequence that holds the fragments; None where they are at the top level.
    """
    delimiters = tag_bytes(SEQUENCE_END) * ends
    gone = [e for e in parse(data).elements if first <= e.tag <= last and e.tag != MAC_PARAMETERS]
    stream = delimiters + b"".join(map(element_stream, gone))
    swallowed = stream.removesuffix(delimiters)
    tags = {element.tag for element in gone}
    longer = with_fragments(lambda fragments: (*fragments[:-1], fragments[-1] + swallowed))
    change = one_after_the_other(
        rewritten(both(without(*tags), longer if icon is None else in_item(icon, longer))),
        in_mac_parameters(with_tag_list(lambda listed: tuple(tag for tag in listed if tag not in tags))),
    )
    return change(data)


_MERGED_LENGTH: Final = len(jpeg(bytes(range(32)))) + len(ITEM_TAG)
_TABLE: Final = (Node(0x7FE00001, "OV", bytes(8)), Node(0x7FE00002, "OV", struct.pack("<Q", _MERGED_LENGTH)))
_TOTAL: Final = Node(0x7FE00003, "UV", struct.pack("<Q", _MERGED_LENGTH))


_NATIVE: Final = (
    Attack(
        "pixels-changed",
        "A few pixels are changed: a lesion is painted in or out.",
        rewritten(with_nodes(Node(PIXEL_DATA, "OW", bytes(range(30)) + b"\xff\xff"))),
        WRONG,
    ),
    Attack(
        "pixels-removed",
        "Pixel Data is removed.",
        rewritten(without(PIXEL_DATA)),
        ("integrity: signed-element-absent",),
    ),
    Attack(
        "pixels-with-another-vr",
        "Pixel Data is stored as bytes instead of words, so that a change of byte order leaves them as they are.",
        rewritten(with_nodes(Node(PIXEL_DATA, "OB", bytes(range(32))))),
        WRONG,
    ),
    Attack(
        "rows-and-columns-changed",
        "Rows and Columns are changed, so that the pixels are shown in other places.",
        rewritten(with_nodes(number(0x00280010, 2), number(0x00280011, 8))),
        WRONG,
    ),
    Attack(
        "inverted",
        "MONOCHROME2 becomes MONOCHROME1: black becomes white.",
        rewritten(with_value(0x00280004, b"MONOCHROME1 ")),
        WRONG,
    ),
    Attack(
        "native-pixels-called-jpeg",
        "The file is said to hold JPEG, and the pixels are native.",
        relabelled("4.50"),
        ("refused: pixel-data-native",),
        CANNOT_READ,
    ),
)

_FRAGMENTS: Final = (
    Attack(
        "fragments-merged",
        "Two fragments are made one, with the tag between them: what is hashed stays the same, and the image can no "
        "longer be decoded, or shows something else.",
        rewritten(with_fragments(_merged)),
        ("coverage: fragment-boundary-not-covered",),
        ACCEPTS,
        jpeg_in_two_fragments,
    ),
    Attack(
        "frames-merged",
        "The same with two frames: one of them disappears.",
        rewritten(with_fragments(_merged)),
        ("integrity: fragments-wrong",),
        ACCEPTS,
        rle_frames,
    ),
    Attack(
        "frames-merged-beside-an-offset-table",
        "The same where a table says where frames begin.",
        rewritten(with_fragments(_merged)),
        ("integrity: fragments-wrong",),
        ACCEPTS,
        jpeg_frames,
    ),
    Attack(
        "frame-split",
        "A frame that happens to hold the bytes of an item tag is cut in two there: what is hashed stays the same.",
        rewritten(with_fragments(_split)),
        ("integrity: offset-table-wrong",),
        ACCEPTS,
        jpeg_frames,
    ),
    Attack(
        "frames-exchanged",
        "Two frames change places.",
        rewritten(with_fragments(lambda fragments: (fragments[0], fragments[2], fragments[1]))),
        WRONG,
        honest=rle_frames,
    ),
    Attack(
        "last-frame-removed",
        "The last frame is removed.",
        rewritten(with_fragments(lambda fragments: fragments[:-1])),
        ("integrity: signature-wrong", "integrity: fragments-wrong"),
        honest=rle_frames,
    ),
    Attack(
        "all-fragments-removed",
        "Pixel Data keeps nothing but its offset table.",
        rewritten(with_fragments(lambda fragments: fragments[:1])),
        ("integrity: signature-wrong", "integrity: fragments-wrong"),
        honest=rle_frames,
    ),
    Attack(
        "offset-table-changed",
        "The Basic Offset Table leads to the wrong frame.",
        rewritten(with_fragments(lambda fragments: (struct.pack("<2L", 0, 0), *fragments[1:]))),
        ("integrity: signature-wrong", "integrity: offset-table-wrong"),
        honest=jpeg_frames,
    ),
    Attack(
        "extended-offset-table-added",
        "An Extended Offset Table is added that makes merged fragments look right.",
        rewritten(both(with_fragments(_merged), with_nodes(*_TABLE))),
        ("coverage: element-not-covered",),
        honest=jpeg_in_two_fragments,
    ),
    Attack(
        "total-length-added",
        "A total length is added that makes merged fragments look right.",
        rewritten(both(with_fragments(_merged), with_nodes(_TOTAL))),
        ("coverage: element-not-covered",),
        ACCEPTS,
        jpeg_in_two_fragments,
    ),
    Attack(
        "number-of-frames-changed",
        "An image of two frames is said to have one.",
        rewritten(with_value(0x00280008, b"1 ")),
        ("integrity: signature-wrong", "integrity: fragments-wrong"),
        honest=rle_frames,
    ),
    Attack(
        "fragment-of-odd-length",
        "A fragment has an odd length: programs differ in whether they skip a byte behind it.",
        rewritten(with_fragments(lambda fragments: (*fragments[:-1], fragments[-1][:-1]))),
        ("refused: length-wrong",),
        honest=rle_frames,
    ),
    Attack(
        "elements-swallowed-by-the-last-fragment",
        "Private results behind Pixel Data disappear into the last fragment, where decoders ignore them; what is "
        "hashed stays the same.",
        lambda data: _swallowed(data, 0x7FE10010, 0x7FE11002, 1, None),
        ("coverage: fragment-boundary-not-covered",),
        ACCEPTS,
        raw_jpeg,
    ),
    Attack(
        "elements-swallowed-by-the-icon",
        "The functional groups, which say where and how large each frame is, disappear into the last fragment of a "
        "compressed icon; what is hashed stays the same.",
        lambda data: _swallowed(data, 0x00880201, 0x52009229, 2, ICON_IMAGE_SEQUENCE),
        ("instance: fragment-boundary-not-covered",),
        ACCEPTS,
        jpeg_with_icon,
    ),
    Attack(
        "fragments-of-the-icon-merged",
        "Two fragments of a compressed icon are made one.",
        rewritten(in_item(ICON_IMAGE_SEQUENCE, with_fragments(_merged))),
        ("instance: fragment-boundary-not-covered",),
        ACCEPTS,
        jpeg_with_icon,
    ),
)


_UNCOVERED: Final = "the transfer syntax stands in the file meta information and in the MAC parameters"


def _mislabelled(  # noqa: PLR0917 - what the entries differ in
    name: str,
    ending: str,
    what: str,
    dcmsign: Dcmsign = ACCEPTS,
    honest: Callable[[], bytes] = jpeg_frame,
    image: str = "A lossy JPEG image",
) -> Attack:
    return Attack(
        name,
        f"{image} is said to be {what}: {_UNCOVERED}, and no signature covers either.",
        relabelled(ending),
        ("integrity: codestream-wrong",),
        dcmsign,
        honest,
    )


_JPEG: Final = (
    _mislabelled("jpeg-relabelled-as-lossless", "4.70", "lossless JPEG"),
    _mislabelled("jpeg-relabelled-as-retired-lossless", "4.58", "lossless JPEG of a retired process"),
    _mislabelled("jpeg-relabelled-as-jpeg-ls", "4.80", "lossless JPEG-LS"),
    _mislabelled("jpeg-relabelled-as-jpeg-2000", "4.90", "JPEG 2000"),
    _mislabelled("jpeg-relabelled-as-rle", "5", "RLE"),
    _mislabelled(
        "jpeg-relabelled-as-uncompressed",
        "1.98",
        "uncompressed, so that the compressed bytes are shown as pixels",
        REFUSES,
    ),
    _mislabelled("jpeg-relabelled-as-deflated", "8.1", "a deflated frame", REFUSES),
    _mislabelled("jpeg-relabelled-as-video", "4.102", "a video, for which nothing is known of its frames"),
)
_JPEG_LS_IMAGE, _JPEG_2000_IMAGE = "A near-lossless JPEG-LS image", "A lossy JPEG 2000 image"
_CALLED_LOSSLESS: Final = (
    _mislabelled(
        "jpeg-ls-relabelled-as-lossless", "4.80", "lossless", honest=jpeg_ls_near_lossless, image=_JPEG_LS_IMAGE
    ),
    _mislabelled(
        "jpeg-2000-relabelled-as-lossless", "4.90", "lossless", honest=lossy_jpeg_2000, image=_JPEG_2000_IMAGE
    ),
    _mislabelled(
        "jpeg-2000-partly-lossy-relabelled-as-lossless",
        "4.90",
        "lossless",
        honest=half_lossy_jpeg_2000,
        image="A JPEG 2000 image whose second frame is lossy",
    ),
    _mislabelled(
        "jpeg-2000-relabelled-as-part-2",
        "4.92",
        "lossless of part 2 of the standard",
        honest=lossy_jpeg_2000,
        image=_JPEG_2000_IMAGE,
    ),
    _mislabelled(
        "jpeg-2000-relabelled-as-high-throughput",
        "4.203",
        "High-Throughput JPEG 2000, which DCMTK does not know",
        REFUSES,
        honest=lossy_jpeg_2000,
        image=_JPEG_2000_IMAGE,
    ),
)

ATTACKS: Final = (*_NATIVE, *_FRAGMENTS, *_JPEG, *_CALLED_LOSSLESS)
