"""Files that two readers understand differently, and files that hold something where nobody looks."""

from __future__ import annotations

import struct
from typing import Final

from tests.support.attacks.editing import (
    META_START,
    TRANSFER_SYNTAX_UID,
    Change,
    NodesChange,
    bytes_replaced,
    in_item,
    meta_rewritten,
    rewritten,
    with_nodes,
    with_value,
)
from tests.support.attacks.images import deflated_slice, implicit_slice
from tests.support.attacks.registry import Attack, Dcmsign
from tests.support.dicom_samples import deflate_bomb, nested_sequences
from tests.support.dicom_tree import (
    EXPLICIT_BIG_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    parse,
    tag_bytes,
)
from tests.support.raw_dicom import Node, Nodes, text

ACCEPTS, CANNOT_READ = Dcmsign.ACCEPTS, Dcmsign.CANNOT_READ
LOOKS_LIKE_LT: Final = 0x544C  # the letters L and T, read as the low half of a length
REFERENCED_IMAGE_SEQUENCE: Final = 0x00081140
FORGED_PIXELS: Final = Node(0x7FE00010, "OW", b"\xff" * 32)


def _behind(tag: int, *added: Node) -> NodesChange:
    """Elements right behind another one, whatever their own tags are."""

    def of_nodes(nodes: Nodes) -> Nodes:
        at = next(index for index, node in enumerate(nodes, start=1) if node.tag == tag)
        return (*nodes[:at], *added, *nodes[at:])

    return of_nodes


def _in_front(stored: bytes) -> Change:
    """Bytes in front of the data set."""

    def of_file(data: bytes) -> bytes:
        head = parse(data).head
        return head + stored + data[len(head) :]

    return of_file


def _transfer_syntax(uid: str) -> Change:
    """Another transfer syntax in the file meta information."""
    return meta_rewritten(with_nodes(text(TRANSFER_SYNTAX_UID, "UI", uid)))


def _group_length_of_meta(data: bytes) -> bytes:
    (length,) = struct.unpack_from("<L", data, META_START + 8)
    return data[: META_START + 8] + struct.pack("<L", length - 20) + data[META_START + 12 :]


def _preamble(beginning: bytes) -> Change:
    return lambda data: beginning.ljust(128, b"\0") + data[128:]


def _deep(data: bytes) -> bytes:
    """A Content Sequence nested a thousand times."""
    sequence = nested_sequences(1_000, undefined_length=True)
    content = sequence[sequence.index(tag_bytes(0x0040A730)) :]
    before_pixels = data.rindex(tag_bytes(0x4FFE0001) + b"SQ")
    return data[:before_pixels] + content + data[before_pixels:]


_UNKNOWN_SEQUENCE: Final = (
    struct.pack("<HH2sHI", 0x0008, 0x0001, b"UN", 0, 0xFFFFFFFF)
    + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    + struct.pack("<HHI", 0x0009, 0x1001, LOOKS_LIKE_LT)
    + bytes(LOOKS_LIKE_LT)
    + struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
)
_FIRST_LOOKS_EXPLICIT: Final = struct.pack("<HHI", 0x0008, 0x0001, LOOKS_LIKE_LT) + bytes(LOOKS_LIKE_LT)

_TWO_READERS: Final = (
    Attack(
        "second-pixel-data",
        "A second Pixel Data is put behind the first one: some programs show the first, others the last.",
        rewritten(_behind(0x7FE00010, FORGED_PIXELS)),
        ("refused: tag-duplicate",),
        ACCEPTS,
    ),
    Attack(
        "forged-pixel-data-first",
        "A second Pixel Data is put in front of the signed one, for the programs that take the first.",
        rewritten(_behind(0x60003000, FORGED_PIXELS)),
        ("refused: tag-duplicate",),
    ),
    Attack(
        "patient-id-twice",
        "A second Patient ID is added; which one is filed depends on the program.",
        rewritten(_behind(0x00100020, text(0x00100020, "LO", "67890"))),
        ("refused: tag-duplicate",),
        ACCEPTS,
    ),
    Attack(
        "element-twice-in-an-item",
        "A reference inside a signed sequence is there twice, the second time to another image.",
        rewritten(in_item(REFERENCED_IMAGE_SEQUENCE, _behind(0x00081155, text(0x00081155, "UI", "2.25.66")))),
        ("refused: tag-duplicate",),
        ACCEPTS,
    ),
    Attack(
        "element-behind-its-place",
        "An overlay is put behind the pixels, where a program that reads in order no longer expects it.",
        rewritten(_behind(0x7FE00010, Node(0x60020010, "US", b"\4\0"))),
        ("refused: tag-out-of-order",),
        ACCEPTS,
    ),
    Attack(
        "explicit-called-implicit",
        "The file is said to be implicit VR, so that its VRs and lengths are read as other lengths.",
        _transfer_syntax(IMPLICIT_LITTLE_ENDIAN),
        ("refused: vr-ambiguous",),
        CANNOT_READ,
    ),
    Attack(
        "implicit-called-explicit",
        "The file is said to be explicit VR; some programs see that it is not, others do not.",
        _transfer_syntax(EXPLICIT_LITTLE_ENDIAN),
        ("refused: vr-unknown",),
        CANNOT_READ,
        implicit_slice,
    ),
    Attack(
        "little-endian-called-big-endian",
        "The file is said to be big endian, so that every number is read backwards.",
        _transfer_syntax(EXPLICIT_BIG_ENDIAN),
        ("refused: truncated",),
        CANNOT_READ,
    ),
    Attack(
        "implicit-that-looks-explicit",
        "The first length of an implicit VR file is made of two letters: programs that guess take the file for "
        "explicit VR and see another data set.",
        _in_front(_FIRST_LOOKS_EXPLICIT),
        ("refused: vr-ambiguous",),
        ACCEPTS,
        implicit_slice,
    ),
    Attack(
        "unknown-sequence-that-looks-explicit",
        "The same inside a sequence of unknown VR, which is implicit by rule (CP-246) and explicit by habit.",
        _in_front(_UNKNOWN_SEQUENCE),
        ("refused: vr-ambiguous",),
        ACCEPTS,
    ),
    Attack(
        "file-meta-length-wrong",
        "The group length of the file meta information is too small: who goes by it begins the data set elsewhere.",
        _group_length_of_meta,
        ("refused: meta-malformed",),
        ACCEPTS,
    ),
    Attack(
        "two-transfer-syntaxes",
        "The file meta information names two transfer syntaxes.",
        meta_rewritten(_behind(TRANSFER_SYNTAX_UID, text(TRANSFER_SYNTAX_UID, "UI", IMPLICIT_LITTLE_ENDIAN))),
        ("refused: meta-malformed",),
        ACCEPTS,
    ),
    Attack(
        "transfer-syntax-of-another-vr",
        "The transfer syntax is stored with a VR that it cannot have; some programs skip it then.",
        bytes_replaced(tag_bytes(TRANSFER_SYNTAX_UID) + b"UI", tag_bytes(TRANSFER_SYNTAX_UID) + b"SH"),
        ("refused: meta-malformed",),
        ACCEPTS,
    ),
    Attack(
        "file-meta-names-another-instance",
        "The file meta information, which no signature covers, names another instance: archives that index by it file "
        "the image in the wrong place.",
        meta_rewritten(with_value(0x00020003, b"2.25.66\0")),
        ("instance: meta-contradicts",),
        ACCEPTS,
    ),
    Attack(
        "file-meta-names-another-class",
        "The file meta information says that the file is a report.",
        meta_rewritten(with_value(0x00020002, b"1.2.840.10008.5.1.4.1.1.88.33\0")),
        ("instance: meta-contradicts",),
        ACCEPTS,
    ),
    Attack(
        "deflated-with-more-behind-it",
        "Something follows the deflated data set; programs that inflate in pieces go on reading there.",
        lambda data: data + b"more",
        ("refused: deflate-damaged",),
        ACCEPTS,
        deflated_slice,
    ),
    Attack(
        "deflated-and-cut-off",
        "The deflated data set ends in the middle; programs that show what they have show half an image.",
        lambda data: data[:-200],
        ("refused: truncated",),
        CANNOT_READ,
        deflated_slice,
    ),
    Attack(
        "deflate-bomb",
        "A small file inflates to hundreds of megabytes, or to as many gigabytes.",
        lambda _: deflate_bomb(300),
        ("refused: deflate-bomb",),
        honest=deflated_slice,
    ),
    Attack(
        "element-of-file-meta-in-the-data-set",
        "A second transfer syntax stands in the data set, where careless programs find it.",
        rewritten(in_item(REFERENCED_IMAGE_SEQUENCE, with_nodes(text(TRANSFER_SYNTAX_UID, "UI", "1.2.3")))),
        ("refused: group-forbidden",),
        ACCEPTS,
    ),
    Attack(
        "delimiter-in-the-data-set",
        "An end of a sequence stands where no sequence is; some programs stop there and miss the rest.",
        _in_front(struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)),
        ("refused: delimiter-misplaced",),
        CANNOT_READ,
    ),
    Attack(
        "nested-a-thousand-times",
        "Sequences are nested so deeply that programs run out of stack.",
        _deep,
        ("refused: nesting-too-deep",),
    ),
)

_PROGRAMS: Final = {
    "preamble-windows-program": ("the start of a Windows program (CVE-2019-11687)", b"MZ"),
    "preamble-linux-program": ("the start of a Linux program", b"\x7fELF"),
    "preamble-script": ("a script for Unix", b"#!/bin/sh\n"),
    "preamble-macos-program": ("the start of a macOS program", b"\xcf\xfa\xed\xfe"),
    "preamble-java-class": ("the start of a Java class", b"\xca\xfe\xba\xbe"),
    "preamble-pdf": ("the start of a PDF document", b"%PDF-1.7\n"),
    "preamble-zip": ("the start of a ZIP archive", b"PK\3\4"),
    "preamble-web-page": ("a web page with a script in it", b"<script src=//example.org/a.js></script>"),
}
_POLYGLOTS: Final = tuple(
    Attack(
        name,
        f"The 128 bytes in front of the file, which no signature covers, hold {content}: the file is both.",
        _preamble(beginning),
        ("instance: preamble-not-empty",),
        ACCEPTS,
    )
    for name, (content, beginning) in _PROGRAMS.items()
)

_CORNERS: Final = {
    "hidden-in-the-directory-group": ("in group 0004, which belongs into DICOMDIR", text(0x00041500, "CS", "HIDDEN")),
    "hidden-in-the-file-set-group": ("in group 0006, which PS3.5 7.1 forbids", text(0x00060010, "LT", "hidden")),
    "hidden-in-a-forbidden-private-group": (
        "in group 0005, which PS3.5 7.8.1 forbids",
        text(0x00050010, "LO", "HIDDEN"),
    ),
    "hidden-in-length-to-end": ("in Length to End (0008,0001)", Node(0x00080001, "OB", b"hidden")),
    "hidden-in-a-short-length-to-end": (
        "in Length to End (0008,0001) with the VR LT",
        text(0x00080001, "LT", "hidden"),
    ),
    "hidden-in-a-group-length": ("in a group length", Node(0x00280000, "OB", b"hidden")),
    "hidden-in-the-signature-group": ("in group FFFA, beside the signatures", text(0xFFFA0010, "LT", "hidden")),
}


_HIDDEN: Final = tuple(
    Attack(
        name,
        f"Text is hidden {where}: such elements are never part of a signature (PS3.3 C.12.1.1.3.1.1).",
        rewritten(with_nodes(node)),
        ("instance: element-hidden",),
        ACCEPTS,
    )
    for name, (where, node) in _CORNERS.items()
) + tuple(
    Attack(
        f"{name}-of-an-item",
        f"Text is hidden {where}, inside a sequence that the signature covers as a whole.",
        rewritten(in_item(REFERENCED_IMAGE_SEQUENCE, with_nodes(node))),
        ("instance: element-hidden",),
        ACCEPTS,
    )
    for name, (where, node) in _CORNERS.items()
    if node.tag not in {0x00080001, 0x00280000}
)

ATTACKS: Final = (*_TWO_READERS, *_POLYGLOTS, *_HIDDEN)
