"""The data sets of the golden streams that stand for whole objects."""

from __future__ import annotations

import itertools
import struct
from typing import Final

from tests.support.raw_dicom import Node, Nodes, instance, number, text

CONTENT_SEQUENCE: Final = 0x0040A730


def sequence(tag: int, *items: Nodes) -> Node:
    """A sequence with these items."""
    return Node(tag, "SQ", items=items)


def code(tag: int, value: str, scheme: str, meaning: str) -> Node:
    """A sequence with one coded entry (PS3.3 8)."""
    entry = (text(0x00080100, "SH", value), text(0x00080102, "SH", scheme), text(0x00080104, "LO", meaning))
    return sequence(tag, entry)


def leaves(count: int) -> tuple[Nodes, ...]:
    """Items without a sequence, 60 bytes each in the stream, as in a report."""
    return tuple(
        (
            text(0x0040A010, "CS", "CONTAINS"),
            text(0x0040A040, "CS", "TEXT"),
            text(0x0040A160, "UT", f"Finding number {index:05}"),
        )
        for index in range(count)
    )


def empty_everywhere() -> Nodes:
    """Sequences without items, items without elements, elements without values; and what is never signed."""
    hollow = sequence(CONTENT_SEQUENCE, (), (sequence(CONTENT_SEQUENCE),), (sequence(CONTENT_SEQUENCE, (), ()),))
    never = (
        Node(0x00080000, "UL", bytes(4)),
        text(0x00081155, "UI", ""),
        sequence(0x4FFE0001, (number(0x04000005, 1),)),
        sequence(0xFFFAFFFA, (number(0x04000005, 1),)),
        Node(0xFFFCFFFC, "OB", bytes(6)),
    )
    return instance(
        Node(0x00080000, "UL", bytes(4)),
        Node(0x00080001, "UL", bytes(4)),
        text(0x00080070, "LO", ""),
        sequence(0x00081140),
        sequence(0x00082112, never, ()),
        text(0x00090010, "LO", "SOMEONE"),
        Node(0x00091001, "UN", b"\1\2\3\4"),
        hollow,
        Node(0x7FE00010, "OW"),
        Node(0xFFFCFFFC, "OB", bytes(8)),
    )


ONE_OF_EACH_VR: Final = (
    (0x00080005, "CS", b"ISO_IR 192"),
    (0x00080018, "UI", b"1.2.3\0"),
    (0x00080020, "DA", b"20261122"),
    (0x0008002A, "DT", b"20261122101500.5"),
    (0x00080030, "TM", b"101500"),
    (0x00080054, "AE", b"STATION "),
    (0x00080081, "ST", b"Street\r\n"),
    (0x00080100, "SH", b"CODE"),
    (0x00080104, "LO", b"meaning "),
    (0x00080119, "UC", b"a long code value "),
    (0x00080120, "UR", b"https://example.org/"),
    (0x00081150, "UI", b"1.2.840\0"),
    (0x00090010, "LO", b"SOMEONE "),
    (0x00100010, "PN", "Jørgensen^Åse".encode() + b" "),
    (0x00101010, "AS", b"042Y"),
    (0x00180050, "DS", b"1.25"),
    (0x00186020, "SL", struct.pack("<l", -70000)),
    (0x00189219, "SS", struct.pack("<h", -3)),
    (0x00200013, "IS", b"12"),
    (0x00204000, "LT", b"comment "),
    (0x00209157, "UL", struct.pack("<LLL", 1, 2, 70000)),
    (0x00209165, "AT", struct.pack("<HHHH", 0x0020, 0x9056, 0x7FE0, 0x0010)),
    (0x00280010, "US", struct.pack("<H", 258)),
    (0x0040A160, "UT", b"text, as long as may be "),
    (0x00660016, "OF", struct.pack("<ff", 1.5, -2.25)),
    (0x00660040, "OL", struct.pack("<LL", 1, 0x01020304)),
    (0x00701A07, "OD", struct.pack("<d", 3.5)),
    (0x00720065, "OB", b"\1\2"),
    (0x00720069, "OW", struct.pack("<HH", 0x0102, 0x0304)),
    (0x00720074, "FD", struct.pack("<dd", 0.1, -1e300)),
    (0x00720076, "FL", struct.pack("<f", 0.1)),
    (0x00720081, "OV", struct.pack("<QQ", 1, 0x0102030405060708)),
    (0x00720082, "SV", struct.pack("<q", -(1 << 40))),
    (0x00720083, "UV", struct.pack("<Q", 1 << 63)),
)


def every_vr() -> Nodes:
    """One element of every VR, in an item inside an item."""
    elements = tuple(sorted((Node(*row) for row in ONE_OF_EACH_VR), key=lambda node: node.tag))
    return instance(sequence(CONTENT_SEQUENCE, (sequence(CONTENT_SEQUENCE, elements),)))


def large_numbers() -> Nodes:
    """Values that are turned round in several pieces when the file is big endian."""
    words = struct.pack("<65536H", *range(1 << 16)) * 12
    offsets = struct.pack("<20000Q", *(index * 65537 for index in range(20_000)))
    return instance(
        number(0x00280010, 768),
        Node(0x60003000, "OW", words[:70_002]),
        Node(0x7FE00001, "OV", offsets),
        Node(0x7FE00010, "OW", words),
    )


def many_fragments() -> Nodes:
    """Frames of ten fragments each, some of them empty, as JPEG may be cut up (PS3.5 A.4.1); not real JPEG."""
    frames = [
        (b"\xff\xd8\xff\xe0" * 8, *(bytes((index, frame & 0xFF)) * (frame * index * 7 % 600) for index in range(9)))
        for frame in range(300)
    ]
    sizes = (sum(8 + len(fragment) for fragment in frame) for frame in frames[:-1])
    table = struct.pack("<300L", *itertools.accumulate(sizes, initial=0))
    return instance(
        sequence(CONTENT_SEQUENCE, *leaves(10)),
        text(0x00280008, "IS", "300"),
        Node(0x7FE00010, "OB", fragments=(table, *itertools.chain.from_iterable(frames))),
        Node(0xFFFCFFFC, "OB", bytes(10)),
    )


def enhanced_ct() -> Nodes:
    """Functional groups of 400 frames, with a source image and its purpose for each: four sequences deep."""
    per_frame = tuple(
        (
            sequence(0x00089124, (sequence(0x00082112, (*source(index),)),)),
            sequence(0x00189329, (text(0x00089007, "CS", "ORIGINAL\\PRIMARY\\VOLUME\\NONE"),)),
            sequence(
                0x00209111,
                (
                    text(0x00189074, "DT", f"202611221015{index // 10 % 60:02}.{index % 10}"),
                    text(0x00209056, "SH", "1"),
                    Node(0x00209157, "UL", struct.pack("<LL", 1, index + 1)),
                ),
            ),
            sequence(0x00209113, (text(0x00200032, "DS", f"-125\\-125\\{index * 0.625:.3f}"),)),
            sequence(0x00209116, (text(0x00200037, "DS", "1\\0\\0\\0\\1\\0"),)),
        )
        for index in range(400)
    )
    shared: Nodes = (sequence(0x00289110, (text(0x00180050, "DS", "0.625"), text(0x00280030, "DS", "0.5\\0.5"))),)
    return instance(
        text(0x00080008, "CS", "ORIGINAL\\PRIMARY\\VOLUME\\NONE"),
        text(0x00100010, "PN", "Doe^Jane"),
        text(0x00280008, "IS", "400"),
        number(0x00280010, 16),
        number(0x00280011, 16),
        sequence(0x52009229, shared),
        sequence(0x52009230, *per_frame),
        Node(0x7FE00010, "OW", bytes(range(256)) * 2 * 400),
    )


def source(index: int) -> Nodes:
    """The item that names one source image and what it was for."""
    return (
        text(0x00081150, "UI", "1.2.840.10008.5.1.4.1.1.2"),
        text(0x00081155, "UI", f"2.25.{16384 + index}"),
        code(0x0040A170, "121322", "DCM", "Source image for image processing operation"),
    )


def structured_report() -> Nodes:
    """A report of 1.3 MB: 60 chapters of 36 measurements, each with its unit and the text of its finding."""
    chapters = tuple(
        (
            text(0x0040A010, "CS", "CONTAINS"),
            text(0x0040A040, "CS", "CONTAINER"),
            code(0x0040A043, "121070", "DCM", f"Findings {chapter}"),
            text(0x0040A050, "CS", "SEPARATE"),
            sequence(CONTENT_SEQUENCE, *(measurement(chapter, index) for index in range(36))),
        )
        for chapter in range(60)
    )
    return instance(
        text(0x00080060, "CS", "SR"),
        text(0x00100010, "PN", "Doe^Jane"),
        text(0x0040A040, "CS", "CONTAINER"),
        code(0x0040A043, "126000", "DCM", "Imaging Measurement Report"),
        text(0x0040A050, "CS", "SEPARATE"),
        sequence(CONTENT_SEQUENCE, *chapters),
    )


def measurement(chapter: int, index: int) -> Nodes:
    """One number with its unit, inferred from one text."""
    unit = code(0x004008EA, "mm", "UCUM", "millimeter")
    inferred: Nodes = (
        text(0x0040A010, "CS", "INFERRED FROM"),
        text(0x0040A040, "CS", "TEXT"),
        code(0x0040A043, "121071", "DCM", "Finding"),
        text(0x0040A160, "UT", f"{chapter}.{index}: " + "unchanged, " * (20 + index % 13) + "that is all"),
    )
    return (
        text(0x0040A010, "CS", "CONTAINS"),
        text(0x0040A040, "CS", "NUM"),
        code(0x0040A043, "121206", "DCM", "Distance"),
        sequence(0x0040A300, (unit, text(0x0040A30A, "DS", f"{chapter}.{index:02}"))),
        sequence(CONTENT_SEQUENCE, inferred),
    )


def unsignable_at_the_end() -> Nodes:
    """Sequences that turn out to be unsignable only at their end, long after the start left every small window."""
    unknown: Nodes = (Node(0x00091001, "UN", b"\1\2"),)
    return instance(
        text(0x00080070, "LO", "Maker"),
        sequence(0x00081115, *leaves(2000), unknown),
        text(0x00080060, "CS", "CT"),
        sequence(0x00081250, unknown),
        text(0x00180050, "DS", "1.25"),
        sequence(CONTENT_SEQUENCE, *leaves(100)),
        sequence(0x00400555, *leaves(10), (sequence(CONTENT_SEQUENCE, unknown),)),
        Node(0x7FE00010, "OW", bytes(range(256)) * 20),
    )
