"""DICOM files for tests: what ships with pydicom, instances of known size, and hostile input."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

from tests.support.dicom_tree import (
    DEFLATED_EXPLICIT_LITTLE_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED,
    Element,
    tag_bytes,
)
from tests.support.raw_dicom import (
    SECONDARY_CAPTURE,
    Node,
    Nodes,
    Writer,
    instance,
    number,
    part10,
    text,
    with_meta,
)

CT_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.2.1"

needs_whole_corpus = pytest.mark.skipif(
    find_spec("data_store") is None, reason="no package with more sample files: pip install pydicom-data"
)

# One small signable corpus file for each transfer syntax.
TRANSFER_SYNTAX_SAMPLES: Final = {
    "implicit-little-endian": "pydicom/test_files/MR_small_implicit.dcm",
    "explicit-little-endian": "pydicom/test_files/CT_small.dcm",
    "explicit-big-endian": "pydicom/test_files/MR_small_bigendian.dcm",
    "deflated": "pydicom/test_files/image_dfl.dcm",
    "rle": "pydicom/test_files/MR_small_RLE.dcm",
    "jpeg-baseline": "pydicom/test_files/SC_rgb_small_odd_jpeg.dcm",
    "jpeg-extended": "pydicom/test_files/JPGExtended.dcm",
    "jpeg-lossless": "pydicom/test_files/SC_rgb_jpeg_gdcm.dcm",
    "jpeg-ls-lossless": "pydicom/test_files/MR_small_jpeg_ls_lossless.dcm",
    "jpeg-2000-lossless": "pydicom/test_files/MR_small_jp2klossless.dcm",
    "jpeg-2000": "pydicom/test_files/JPEG2000.dcm",
}


@dataclass(frozen=True)
class Sample:
    """A file of the corpus; its name does not change between machines."""

    name: str
    path: Path

    def __str__(self) -> str:
        return self.name


@cache
def corpus() -> tuple[Sample, ...]:
    """Every DICOM file inside pydicom and pydicom-data. Nothing is downloaded.

    DICOM files are those called so and those with a DICM prefix: DICOMDIR and what it refers to have no suffix.
    `pydicom.data.get_testdata_files` is not asked, because it fetches what is missing from the network.
    """
    return tuple(
        Sample(f"{origin}/{path.relative_to(folder).as_posix()}", path)
        for origin, folder in _corpus_folders()
        for path in sorted(folder.rglob("*"))
        if path.suffix == ".dcm" or (path.is_file() and not path.suffix and has_dicm_prefix(path))
    )


def _corpus_folders() -> Iterator[tuple[str, Path]]:
    for origin, package, folder in (("pydicom", "pydicom", "data"), ("pydicom-data", "data_store", "data")):
        spec = find_spec(package)
        for location in (spec and spec.submodule_search_locations) or ():
            yield origin, Path(location) / folder


def has_dicm_prefix(path: Path) -> bool:
    """Tell whether the file has the prefix of PS3.10 7.1."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def sample(name: str) -> Sample:
    """The corpus file of this name; skips the test where pydicom-data is not installed."""
    found = next((sample for sample in corpus() if sample.name == name), None)
    if found is None:
        pytest.skip(f"no sample file {name}: pip install pydicom-data")
    return found


# --- instances of known size ---


def _sequence(tag: int, *items: Nodes) -> Node:
    return Node(tag, "SQ", items=items)


def ct_slice(rows: int = 512, columns: int = 512, serial: str = "SN0001") -> bytes:
    """A CT slice in explicit VR little endian with 512 KB of pixels and the usual attributes around them."""
    pixels = b"".join(struct.pack("<H", index * 17 & 0x0FFF) for index in range(rows * columns))
    return part10(
        instance(
            text(0x00080005, "CS", "ISO_IR 100"),
            text(0x00080008, "CS", "ORIGINAL\\PRIMARY\\AXIAL"),
            text(0x00080020, "DA", "20260102"),
            text(0x00080023, "DA", "20260102"),
            text(0x00080033, "TM", "101112"),
            text(0x00080060, "CS", "CT"),
            text(0x00080070, "LO", "Maker"),
            text(0x00080080, "LO", "Hospital"),
            text(0x00081010, "SH", "STATION1"),
            text(0x00081090, "LO", "Model"),
            _sequence(0x00081140, (text(0x00081150, "UI", CT_IMAGE_STORAGE), text(0x00081155, "UI", "2.25.9"))),
            text(0x00100010, "PN", "Doe^Jane"),
            text(0x00100020, "LO", "12345"),
            text(0x00180050, "DS", "1.25"),
            text(0x00180060, "DS", "120"),
            text(0x00181000, "LO", serial),
            text(0x00181020, "LO", "1.0\\2.0"),
            text(0x00200013, "IS", "1"),
            text(0x00200032, "DS", "-125\\-125\\-75"),
            text(0x00200037, "DS", "1\\0\\0\\0\\1\\0"),
            number(0x00280002, 1),
            text(0x00280004, "CS", "MONOCHROME2"),
            number(0x00280010, rows),
            number(0x00280011, columns),
            text(0x00280030, "DS", "0.5\\0.5"),
            number(0x00280100, 16),
            number(0x00280101, 12),
            number(0x00280102, 11),
            number(0x00280103, 0),
            text(0x00281052, "DS", "-1024"),
            text(0x00281053, "DS", "1"),
            Node(0x7FE00010, "OW", pixels),
        )
    )


def enhanced_multiframe(frames: int, transfer_syntax: str = EXPLICIT_LITTLE_ENDIAN) -> bytes:
    """An enhanced CT object: per-frame functional groups nested three deep, 32 x 32 pixels a frame.

    From about 120 frames on the nested sequences reach past the first 16 KiB of the MAC stream, where stock dcmsign
    drops bytes: it is no judge of such an object.
    """
    per_frame = tuple(
        (
            _sequence(
                0x00209111,
                (
                    text(0x00209056, "SH", "1"),
                    Node(0x00209157, "UL", struct.pack("<LL", 1, index + 1)),
                    _sequence(0x00209222, (text(0x00209164, "UI", f"2.25.7{index}"),)),
                ),
            ),
            _sequence(0x00209113, (text(0x00200032, "DS", f"0\\0\\{index}"),)),
        )
        for index in range(frames)
    )
    return part10(
        instance(
            text(0x00080008, "CS", "ORIGINAL\\PRIMARY\\VOLUME\\NONE"),
            number(0x00280002, 1),
            text(0x00280004, "CS", "MONOCHROME2"),
            text(0x00280008, "IS", str(frames)),
            number(0x00280010, 32),
            number(0x00280011, 32),
            number(0x00280100, 16),
            number(0x00280101, 16),
            number(0x00280102, 15),
            number(0x00280103, 0),
            _sequence(0x52009229, (_sequence(0x00289110, (text(0x00280030, "DS", "1\\1"),)),)),
            _sequence(0x52009230, *per_frame),
            Node(0x7FE00010, "OW", bytes(range(256)) * (8 * frames)),
        ),
        transfer_syntax,
    )


# --- hostile input ---


def small_instance() -> bytes:
    """A file of about 1 KB with one of everything, to be damaged."""
    return part10(
        instance(
            text(0x00080070, "LO", "Maker"),
            Node(
                0x00081140,
                "SQ",
                items=((text(0x00081150, "UI", CT_IMAGE_STORAGE), text(0x00081155, "UI", "2.25.9")),),
                undefined_length=True,
                undefined_items=True,
            ),
            _sequence(0x00082112, (_sequence(0x0040A170, (text(0x00080100, "SH", "121320"),)),), ()),
            text(0x00090010, "LO", "SOMEONE"),
            Node(0x00091001, "UN", b"\1\2\3\4"),
            text(0x00100010, "PN", "Doe^Jane"),
            text(0x00204000, "LT", "comment"),
            number(0x00280010, 4),
            number(0x00280011, 4),
            Node(0x60000010, "US", b"\4\0"),
            Node(0x60003000, "OW", b"\1\2"),
            Node(0x7FE00010, "OW", bytes(range(32))),
        )
    )


def raw_instance(body: bytes, transfer_syntax: str = EXPLICIT_LITTLE_ENDIAN) -> bytes:
    """Any bytes as the data set of a file."""
    return with_meta(body, transfer_syntax, sop_class=SECONDARY_CAPTURE, sop_instance="2.25.2")


def explicit(nodes: Nodes) -> bytes:
    """A data set in explicit VR little endian."""
    return Writer(EXPLICIT_LITTLE_ENDIAN).data_set(nodes)


def nested_sequences(depth: int, *, undefined_length: bool) -> bytes:
    """A Content Sequence (0040,A730) inside itself, `depth` times."""
    opening = tag_bytes(0x0040A730) + b"SQ\0\0"
    if undefined_length:
        start = opening + struct.pack("<L", UNDEFINED) + tag_bytes(ITEM) + struct.pack("<L", UNDEFINED)
        end = tag_bytes(ITEM_END) + bytes(4) + tag_bytes(SEQUENCE_END) + bytes(4)
        content = start * depth + end * depth
    else:
        layers = (
            opening + struct.pack("<L", 20 * level + 8) + tag_bytes(ITEM) + struct.pack("<L", 20 * level)
            for level in reversed(range(depth))
        )
        content = b"".join(layers)
    return raw_instance(explicit(instance()) + content)


def many_empty_items(count: int) -> bytes:
    """A sequence that is nothing but items without content."""
    return raw_instance(explicit((*instance(), Node(0x0040A730, "SQ", items=((),) * count))))


def deflate_bomb(megabytes: int) -> bytes:
    """A deflated file whose pixel data are zeros: about a thousandth of that on disk."""
    deflater = zlib.compressobj(level=9, wbits=-zlib.MAX_WBITS)
    header = tag_bytes(0x7FE00010) + b"OB\0\0" + struct.pack("<L", megabytes << 20)
    start = deflater.compress(explicit(instance()) + header) + deflater.flush(zlib.Z_FULL_FLUSH)
    # A full flush forgets what came before, so the same compressed block may be repeated.
    block = deflater.compress(bytes(1 << 20)) + deflater.flush(zlib.Z_FULL_FLUSH)
    return raw_instance(start + block * megabytes + deflater.flush(), DEFLATED_EXPLICIT_LITTLE_ENDIAN)


def length_fields(elements: tuple[Element, ...], body: bytes) -> Iterator[tuple[int, int]]:
    """Position and width of every length field of an explicit VR little endian body, items included."""
    for element in elements:
        wide = body[element.start + 4 : element.start + 6] in {b"SQ", b"OB", b"OW", b"UN"}
        yield (element.start + 8, 4) if wide else (element.start + 6, 2)
        for item in element.items or ():
            if item:
                yield item[0].start - 4, 4
            yield from length_fields(item, body)


def with_each_bit_flipped(data: bytes, step: int = 1) -> Iterator[bytes]:
    """The data with one bit flipped, for every bit behind the preamble or every `step`th."""
    for bit in range(128 * 8, len(data) * 8, step):
        mutant = bytearray(data)
        mutant[bit // 8] ^= 1 << bit % 8
        yield bytes(mutant)


def mutants(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """The data with one to four bytes or runs of bytes changed, cut out or doubled."""
    chance = random.Random(seed)  # noqa: S311 - the same mutants in every run
    for _ in range(count):
        mutant = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(128, len(mutant))
            match chance.randrange(3):
                case 0:
                    mutant[at] = chance.choice(b"\x00\x01\x7f\x80\xfe\xff")
                case 1:
                    del mutant[at : at + chance.randint(1, 8)]
                case _:
                    mutant[at:at] = mutant[at : at + chance.randint(1, 8)]
        yield bytes(mutant)
