"""The honest instances that attacks start from, each signed by the product under creator-plus."""

from __future__ import annotations

import struct
from datetime import datetime
from functools import cache
from typing import Final

from cryptography.hazmat.primitives import hashes

from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.sign import SignaturePlan
from tests.support.attacks.signers import MODEL, OWNER, SERIAL, SIGNED_AT, Signer, scanner
from tests.support.dicom_samples import CT_IMAGE_STORAGE
from tests.support.dicom_tree import DEFLATED_EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from tests.support.product_signing import sign_bytes
from tests.support.raw_dicom import Node, Nodes, instance, number, part10, text

JPEG_BASELINE: Final = "1.2.840.10008.1.2.4.50"
JPEG_LS_NEAR_LOSSLESS: Final = "1.2.840.10008.1.2.4.81"
JPEG_2000: Final = "1.2.840.10008.1.2.4.91"
RLE: Final = "1.2.840.10008.1.2.5"
COMPREHENSIVE_SR: Final = "1.2.840.10008.5.1.4.1.1.88.33"
BASELINE_PROCESS, JPEG_LS_PROCESS = 0xC0, 0xF7  # the markers SOF0 of ISO/IEC 10918-1, SOF55 of ISO/IEC 14495-1
SIGNATURE_UID: Final = "2.25.1000"
CREATOR_VERSION_UID: Final = text(0x00089123, "UI", "2.25.77")  # with it private elements are the content (C.19.1)


def signed(  # noqa: PLR0917 - what a signature can be like
    data: bytes,
    by: Signer | None = None,
    at: datetime = SIGNED_AT,
    uid: str = SIGNATURE_UID,
    profile: ProfileName = ProfileName.CREATOR_PLUS,
    purpose: str = "",
) -> bytes:
    """An instance with a signature of the product."""
    signer = by or scanner()
    plan = SignaturePlan(load_profile(profile), "sha256", uid, at, purpose)
    return sign_bytes(data, plan, lambda digest: signer.sign(digest, hashes.SHA256()), signer.certificate_der)


# --- parts ---


def equipment(serial: str = SERIAL) -> Nodes:
    """What an image says of the scanner."""
    return (
        text(0x00080070, "LO", "Example Imaging"),
        text(0x00080080, "LO", OWNER),
        text(0x00081090, "LO", MODEL),
        text(0x00181000, "LO", serial),
    )


def reference(uid: str) -> Nodes:
    """An item that refers to an instance."""
    return (text(0x00081150, "UI", CT_IMAGE_STORAGE), text(0x00081155, "UI", uid))


def geometry(frames: int = 1) -> Nodes:
    """How 4 x 4 pixels are stored."""
    return (
        number(0x00280002, 1),
        text(0x00280004, "CS", "MONOCHROME2"),
        *((text(0x00280008, "IS", str(frames)),) if frames > 1 else ()),
        number(0x00280010, 4),
        number(0x00280011, 4),
        number(0x00280100, 16),
        number(0x00280101, 16),
        number(0x00280102, 15),
        number(0x00280103, 0),
    )


def patient(patient_name: str = "Doe^Jane", patient_id: str = "12345") -> Nodes:
    """Who is in the image, which no profile covers."""
    return (text(0x00100010, "PN", patient_name), text(0x00100020, "LO", patient_id))


def merged(*groups: Nodes) -> Nodes:
    """The nodes in order; of several with one tag, the last."""
    nodes = {node.tag: node for group in groups for node in group}
    return tuple(nodes[tag] for tag in sorted(nodes))


SLICE: Final[Nodes] = merged(
    instance(),
    equipment(),
    patient(),
    geometry(),
    (
        text(0x00080005, "CS", "ISO_IR 100"),
        text(0x00080008, "CS", "ORIGINAL\\PRIMARY\\AXIAL"),
        text(0x00080012, "DA", "20261023"),
        text(0x00080013, "TM", "101112"),
        text(0x0008001C, "CS", "NO"),
        text(0x00080020, "DA", "20261023"),
        text(0x00080060, "CS", "CT"),
        text(0x0008103E, "LO", "Thorax"),
        Node(0x00081140, "SQ", items=(reference("2.25.9"), reference("2.25.8"))),
        text(0x00090010, "LO", "SOMEONE"),
        text(0x00091001, "LO", "private"),
        text(0x00100200, "CS", "NO"),
        text(0x00180060, "DS", "120"),
        text(0x00200032, "DS", "-125\\-125\\-75"),
        text(0x00200037, "DS", "1\\0\\0\\0\\1\\0"),
        text(0x00204000, "LT", "comment"),
        text(0x00280030, "DS", "0.5\\0.5"),
        text(0x00281052, "DS", "-1024"),
        text(0x00281053, "DS", "1"),
        Node(0x60000010, "US", b"\4\0"),
        Node(0x60003000, "OW", b"\1\2"),
        Node(0x7FE00010, "OW", bytes(range(32))),
    ),
)


def slice_with(*more: Node) -> Nodes:
    """The slice with other or more elements."""
    return merged(SLICE, more)


# --- images ---


@cache
def ct_slice() -> bytes:
    """An original CT slice with a bit of everything."""
    return signed(part10(SLICE))


@cache
def other_slice() -> bytes:
    """A slice of another patient, of the same scanner."""
    other = (*patient("Roe^Richard", "67890"), text(0x00080018, "UI", "2.25.5"), Node(0x7FE00010, "OW", bytes(32)))
    return signed(part10(slice_with(*other)), uid="2.25.1001")


@cache
def implicit_slice() -> bytes:
    """The slice in implicit VR little endian; without Synthetic Data, which dcmsign has in no dictionary."""
    return signed(part10(tuple(node for node in SLICE if node.tag != 0x0008001C), IMPLICIT_LITTLE_ENDIAN))


@cache
def deflated_slice() -> bytes:
    """The slice, deflated."""
    return signed(part10(SLICE, DEFLATED_EXPLICIT_LITTLE_ENDIAN))


@cache
def slice_under_c_2() -> bytes:
    """The slice, signed under the minimum of PS3.15 C.2."""
    return signed(part10(SLICE), profile=ProfileName.CREATOR_RSA)


@cache
def slice_signed_twice() -> bytes:
    """The slice with a second signature of the scanner, made a day later."""
    return signed(ct_slice(), uid="2.25.1002")


@cache
def slice_with_purpose() -> bytes:
    """The slice, its signature with a purpose: 14, source."""
    return signed(part10(SLICE), purpose="14")


@cache
def derived_slice() -> bytes:
    """An image that was made of another one, and says so."""
    return signed(
        part10(
            slice_with(
                text(0x00080008, "CS", "DERIVED\\SECONDARY\\AXIAL"),
                text(0x00082111, "ST", "denoised"),
                Node(0x00082112, "SQ", items=(reference("2.25.9"),)),
            )
        )
    )


@cache
def phantom_slice() -> bytes:
    """An image of a phantom for quality control, artificially completed, and with every mark that says so."""
    return signed(
        part10(
            slice_with(
                text(0x0008001C, "CS", "YES"),
                text(0x00100200, "CS", "YES"),
                text(0x00189004, "CS", "SERVICE"),
                text(0x00280300, "CS", "YES"),
                text(0x00500004, "CS", "YES"),
                Node(0x0018A001, "SQ", items=((text(0x00080070, "LO", "Example Software"),),)),
            )
        )
    )


@cache
def report() -> bytes:
    """A structured report."""
    words = ("No tumour.", "No metastases.")
    content = Node(0x0040A730, "SQ", items=tuple(map(content_item, words)))
    header = (
        text(0x00080016, "UI", COMPREHENSIVE_SR),
        text(0x00080060, "CS", "SR"),
        text(0x0040A040, "CS", "CONTAINER"),
        text(0x0040A491, "CS", "COMPLETE"),
        text(0x0040A493, "CS", "VERIFIED"),
    )
    return signed(part10(merged(instance(), equipment(), patient(), header, (content,))))


def content_item(words: str) -> Nodes:
    """A text of a report."""
    return text(0x0040A010, "CS", "CONTAINS"), text(0x0040A040, "CS", "TEXT"), text(0x0040A160, "UT", words)


# --- images in fragments ---


def jpeg(filling: bytes, process: int = BASELINE_PROCESS, parameter: int = 0) -> bytes:
    """Something with the markers of a JPEG codestream: SOI, the header of a frame and of a scan, EOI.

    The parameter of the scan is the predictor of lossless JPEG, or the error that JPEG-LS allows.
    """
    frame = struct.pack(">BBHBHHB3B", 0xFF, process, 11, 8, 4, 4, 1, 1, 0x11, 0)
    scan = struct.pack(">BBHB2B3B", 0xFF, 0xDA, 8, 1, 1, 0, parameter, 63, 0)
    stream = b"\xff\xd8" + frame + scan + filling + b"\xff\xd9"
    return stream + b"\0" * (len(stream) % 2)


def jpeg_2000(filling: bytes, *, reversible: bool = False, high_throughput: bool = False) -> bytes:
    """Something with the markers of a JPEG 2000 codestream: SOC, SIZ, CAP if needed, COD, SOT, SOD, EOC."""
    size = struct.pack(">BBHH8IH3B", 0xFF, 0x51, 41, high_throughput << 14, 4, 4, 0, 0, 4, 4, 0, 0, 1, 15, 1, 1)
    capabilities = struct.pack(">BBHIH", 0xFF, 0x50, 8, 0x20000, 0) if high_throughput else b""
    coding_style = struct.pack(">BBHBBHB5B", 0xFF, 0x52, 12, 0, 2, 1, 0, 1, 4, 4, 0x40 * high_throughput, reversible)
    tile_part = struct.pack(">BBHHIBB", 0xFF, 0x90, 10, 0, 14 + len(filling), 0, 1) + b"\xff\x93" + filling
    stream = b"\xff\x4f" + size + capabilities + coding_style + tile_part + b"\xff\xd9"
    return stream + b"\0" * (len(stream) % 2)


def rle(filling: bytes) -> bytes:
    """A frame of RLE with one segment (PS3.5 G)."""
    return struct.pack("<16L", 1, 64, *(0,) * 14) + filling


def encapsulated(*fragments: bytes, syntax: str = JPEG_BASELINE, frames: int = 1, more: Nodes = ()) -> bytes:
    """A slice whose pixels are in fragments, the Basic Offset Table first."""
    pixels = Node(0x7FE00010, "OB", fragments=fragments)
    return signed(part10(slice_with(*geometry(frames), pixels, *more), syntax))


@cache
def jpeg_frame() -> bytes:
    """One frame of JPEG in one fragment."""
    return encapsulated(b"", jpeg(bytes(range(32))))


@cache
def jpeg_in_two_fragments() -> bytes:
    """One frame of JPEG, cut into two fragments, without an offset table."""
    frame = jpeg(bytes(range(32)))
    return encapsulated(b"", frame[:32], frame[32:])


@cache
def jpeg_frames() -> bytes:
    """Two frames of JPEG, each in a fragment, with a Basic Offset Table; the first holds the bytes of an item tag."""
    first, second = jpeg(b"\1" + b"\xfe\xff\x00\xe0" * 5), jpeg(b"\2" * 20)
    return encapsulated(struct.pack("<2L", 0, 8 + len(first)), first, second, frames=2)


@cache
def rle_frames() -> bytes:
    """Two frames of RLE."""
    return encapsulated(b"", rle(b"\x0f" + bytes(15)), rle(b"\x0f" + bytes(range(15))), syntax=RLE, frames=2)


@cache
def raw_jpeg() -> bytes:
    """A frame of JPEG with private results behind it, the last of them an empty sequence."""
    private = (
        text(0x7FE10010, "LO", "SOMEONE"),
        Node(0x7FE11001, "OB", b"private result"),
        Node(0x7FE11002, "SQ", items=()),
    )
    return encapsulated(b"", jpeg(bytes(range(32))), more=(CREATOR_VERSION_UID, *private))


@cache
def jpeg_with_icon() -> bytes:
    """A frame of JPEG with an icon that is compressed as well, and with functional groups."""
    frame = jpeg(bytes(range(32)))
    icon = (*geometry(), Node(0x7FE00010, "OB", fragments=(b"", frame[:32], frame[32:])))
    spacing = Node(0x00289110, "SQ", items=((text(0x00280030, "DS", "0.5\\0.5"),),))
    more = (Node(0x00880200, "SQ", items=(icon,)), Node(0x52009229, "SQ", items=((spacing,),)))
    return encapsulated(b"", frame, more=more)


# --- images compressed with loss ---


@cache
def jpeg_ls_near_lossless() -> bytes:
    """A frame of JPEG-LS in which each sample may be off by 3."""
    return encapsulated(b"", jpeg(bytes(range(32)), JPEG_LS_PROCESS, parameter=3), syntax=JPEG_LS_NEAR_LOSSLESS)


@cache
def lossy_jpeg_2000() -> bytes:
    """A frame of JPEG 2000 with the irreversible wavelet."""
    return encapsulated(b"", jpeg_2000(bytes(range(32))), syntax=JPEG_2000)


@cache
def half_lossy_jpeg_2000() -> bytes:
    """A frame of JPEG 2000 with the reversible wavelet, and one with the other."""
    frames = (jpeg_2000(bytes(range(32)), reversible=True), jpeg_2000(bytes(range(32))))
    return encapsulated(b"", *frames, syntax=JPEG_2000, frames=2)


@cache
def reduced_jpeg_2000() -> bytes:
    """A frame of JPEG 2000 with the reversible wavelet, of which not all was kept."""
    return encapsulated(b"", jpeg_2000(bytes(8), reversible=True), syntax=JPEG_2000)
