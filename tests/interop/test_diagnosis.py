"""Why real tools' signatures do not verify, and what real compressors leave of ours: each told apart from tampering."""

from __future__ import annotations

import base64
import itertools
import random
import struct
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from agent.dicom.diagnosis.dcmtk_buffer import BUFFER_SIZE, through_dcmtk_buffer
from agent.dicom.diagnosis.readings import Reading
from agent.dicom.headers import DEFAULT_LIMITS
from agent.dicom.stored_instance import StoredInstance
from tests.support import dcmsign, product_signing
from tests.support.certificates import Authority, Signer, rsa_key
from tests.support.dcmsign import needs_dcmsign
from tests.support.diagnosing import as_signed, codes, examine, signed_over, variant
from tests.support.dicom_samples import ct_slice, enhanced_multiframe, sample
from tests.support.dicom_tools import filtered, modified, needs_dcmtk
from tests.support.dicom_tree import EXPLICIT_LITTLE_ENDIAN, find, parse
from tests.support.mac_oracle import signatures
from tests.support.raw_dicom import Node, Nodes, Writer, as_nodes, instance, number, part10, text

CONTENT_SEQUENCE: Final = 0x0040A730
SIZES: Final = (20_000, 136_000, 1_500_000)  # bytes of the nested sequences
OVER_PADDED: Final = (
    "pydicom/test_files/SC_rgb_gdcm_KY.dcm",
    "pydicom/test_files/examples_ybr_color.dcm",
    "pydicom-data/SC_rgb_gdcm2k_uncompressed.dcm",
    "pydicom-data/color3d_jpeg_baseline.dcm",
    "pydicom-data/gdcm-US-ALOKA-16.dcm",
)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Authority(tmp_path_factory.mktemp("pki"), datetime.now(UTC)).issue("Scanner", rsa_key(2048))


def signed_by_dcmsign(data: bytes, signer: Signer, *options: str) -> tuple[bytes, bytes]:
    """The signed file, and the bytes that dcmsign says it hashed."""
    with tempfile.TemporaryDirectory() as folder:
        source, target, dump = (Path(folder) / name for name in ("source.dcm", "target.dcm", "dump"))
        source.write_bytes(data)
        run = dcmsign.sign(source, target, signer.key_file, signer.certificate_file, dump=dump, options=options)
        assert run.accepted, run.output
        return target.read_bytes(), dump.read_bytes()


# --- the buffer of dcmsign ---


def nested(depth: int, size: int) -> Nodes:
    """Sequences inside each other, `depth` deep, of about `size` bytes, with elements of many lengths."""
    chance = random.Random(depth * size)  # noqa: S311 - the same object in every run

    def item(levels: int) -> Nodes:
        leaf = text(0x00080104, "LO", "m" * chance.randint(0, 40))
        if levels == 0:
            return (leaf, text(0x0040A160, "UT", "t" * chance.randint(0, 60 + size // 2_000)))
        items = tuple(item(levels - 1) for _ in range(chance.randint(1, 6)))
        return (leaf, Node(CONTENT_SEQUENCE, "SQ", items=items), text(0x0040DB00, "CS", "c" * chance.randint(0, 16)))

    items: list[Nodes] = []
    written = 0
    while written < size:
        items.append(item(depth - 1))
        written += len(Writer(EXPLICIT_LITTLE_ENDIAN).data_set(items[-1]))
    return instance(Node(CONTENT_SEQUENCE, "SQ", items=tuple(items)), Node(0x7FE00010, "OW", bytes(2 * BUFFER_SIZE)))


def assert_hashed_by_dcmsign(signed: bytes, dumped: bytes) -> None:
    """Our account of what dcmsign hashed is what it hashed, byte for byte."""
    data_set = StoredInstance.read(signed, DEFAULT_LIMITS).data_set
    (signature,) = signatures(parse(signed).elements)
    reading = Reading(trimmed=True, passed_on=through_dcmtk_buffer)
    hashed = b"".join(piece.data for piece in reading.pieces(data_set, signature.tags))

    # Behind it comes what the MAC covers of the signature's own item.
    assert dumped[: len(hashed)] == hashed
    assert signature.stream.endswith(dumped[len(hashed) :])
    assert len(dumped) > len(hashed)


@needs_dcmsign
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_what_dcmsign_loses_of_nested_sequences_is_told_byte_for_byte(signer: Signer, depth: int, size: int) -> None:
    signed, dumped = signed_by_dcmsign(part10(nested(depth, size)), signer)

    assert_hashed_by_dcmsign(signed, dumped)
    assert variant(signed) == ("intact" if depth == 1 else "dcmtk-buffer")


@needs_dcmsign
def test_what_dcmsign_loses_of_400_frames_is_told_byte_for_byte(signer: Signer) -> None:
    signed, dumped = signed_by_dcmsign(enhanced_multiframe(400), signer)

    assert_hashed_by_dcmsign(signed, dumped)
    assert variant(signed) == "dcmtk-buffer"


@needs_dcmsign
def test_the_loss_explains_a_signature_and_does_not_make_it_valid(signer: Signer) -> None:
    signed, dumped = signed_by_dcmsign(enhanced_multiframe(400), signer)
    (signature,) = signatures(parse(signed).elements)
    examination = examine(signed)

    assert examination is not None
    assert examination.diagnosis is not None
    assert not examination.diagnosis.legitimate
    assert f"{len(signature.stream) - len(dumped)} bytes" in examination.diagnosis.what


@needs_dcmsign
def test_a_change_that_dcmsign_does_cover_is_not_explained_by_its_losses(signer: Signer) -> None:
    signed, _ = signed_by_dcmsign(enhanced_multiframe(400), signer)

    assert variant(signed.replace(b"\\VOLUME\\", b"\\VOLUMX\\", 1)) == "none"


# --- what else DCMTK does differently ---


@needs_dcmsign
@pytest.mark.parametrize("name", OVER_PADDED)
def test_strings_that_dcmtk_padded_anew_explain_its_signature(signer: Signer, name: str) -> None:
    """PS3.3 C.12.1.1.3.1.1: the bytes as they are encoded; dcmsign corrects them first, here and in what it writes."""
    data = sample(name).path.read_bytes()
    signed, _ = signed_by_dcmsign(data, signer)
    (signature,) = signatures(parse(signed).elements)
    stored = StoredInstance.read(data, DEFAULT_LIMITS).data_set

    as_it_is = b"".join(piece.data for piece in Reading().pieces(stored, signature.tags))
    trimmed = b"".join(piece.data for piece in Reading(trimmed=True).pieces(stored, signature.tags))

    assert not signature.stream.startswith(as_it_is)
    assert signature.stream.startswith(trimmed)


@needs_dcmsign
def test_more_padding_behind_a_string_breaks_our_check_and_not_that_of_dcmtk(signer: Signer) -> None:
    signed, _ = signed_by_dcmsign(ct_slice(32, 32), signer)
    padded = signed.replace(b"LO\x08\0Hospital", b"LO\x0c\0Hospital    ")

    assert variant(signed) == "intact"
    assert variant(padded) == "dcmtk-normalisation"


@needs_dcmtk
def test_the_old_format_of_dcmtk_is_recognised(signer: Signer) -> None:
    signed, _ = signed_by_dcmsign(filtered(ct_slice(32, 32), "dcmcrle"), signer, "-fo")

    assert variant(signed) == "dcmtk-old-format"


@needs_dcmtk
def test_a_vr_that_was_lost_on_the_way_through_implicit_vr_is_restored(signer: Signer) -> None:
    """PS3.5 6.2.2: who does not know a private element writes it as UN."""
    private = (text(0x00290010, "LO", "SIEMENS CSA HEADER"), text(0x00291008, "CS", "IMAGE NUM 4"))
    signed, _ = signed_by_dcmsign(part10(instance(*private)), signer)
    lost = tuple(
        replace(node, vr="UN") if node.tag == 0x00291008 else node for node in as_nodes(parse(signed).elements)
    )

    assert variant(part10(lost)) == "private-vr"


# --- lossless compression of what was signed native ---

LOSSLESS: Final = {
    "RLE": ("dcmcrle",),
    "JPEG lossless, first-order": ("dcmcjpeg", "+e1"),
    "JPEG lossless, process 14": ("dcmcjpeg", "+el", "+sv", "6"),
    "JPEG-LS": ("dcmcjpls", "+el"),
    "JPEG-LS, by line": ("dcmcjpls", "+el", "+il"),
    "JPEG-LS, by sample": ("dcmcjpls", "+el", "+in"),
}
LOSSY: Final = {
    "JPEG baseline": ("dcmcjpeg", "+eb"),
    "JPEG extended": ("dcmcjpeg", "+ee"),
    "JPEG-LS near lossless": ("dcmcjpls", "+en"),
}
PICTURES: Final = {
    "16 bits, signed": "pydicom/test_files/CT_small.dcm",
    "16 bits, implicit VR": "pydicom/test_files/MR_small_implicit.dcm",
    "16 bits, big endian": "pydicom/test_files/MR_small_bigendian.dcm",
    "12 of 16 bits, 10 frames": "pydicom-data/emri_small.dcm",
    "14 of 16 bits, signed": "pydicom-data/693_UNCR.dcm",
    "colour by pixel, odd size": "pydicom/test_files/SC_rgb_small_odd.dcm",
    "colour by plane, big endian": "pydicom/test_files/ExplVR_BigEnd.dcm",
    "colour by plane": "pydicom-data/color-pl.dcm",
    "colour, 16 bits, stored as OB": "pydicom-data/SC_rgb_16bit.dcm",
    "colour, 2 frames": "pydicom-data/SC_rgb_2frame.dcm",
    "palette": "pydicom/test_files/examples_palette.dcm",
    "8 bits, deflated": "pydicom/test_files/image_dfl.dcm",
}


def assert_restored(compressed: bytes) -> None:
    examination = examine(compressed)
    assert examination is not None
    assert examination.diagnosis is not None, examination.findings
    assert examination.diagnosis.variant == "lossless-recompression"
    assert examination.diagnosis.legitimate


@needs_dcmtk
@pytest.mark.parametrize(
    ("compression", "picture"),
    [
        *((compression, picture) for compression in LOSSLESS for picture in ("16 bits, signed", "colour by plane")),
        *((compression, picture) for compression in ("RLE", "JPEG-LS") for picture in PICTURES),
        ("JPEG lossless, first-order", "12 of 16 bits, 10 frames"),
        ("JPEG lossless, first-order", "14 of 16 bits, signed"),
    ],
)
def test_lossless_compression_by_dcmtk_keeps_what_was_signed(signer: Signer, compression: str, picture: str) -> None:
    pytest.importorskip("jpeg_ls", reason="no decoder of JPEG-LS: pip install 'scanseal[decompress]'")
    signed = product_signing.sign(sample(PICTURES[picture]).path.read_bytes(), signer)

    assert_restored(filtered(signed, *LOSSLESS[compression]))


@needs_dcmtk
def test_lossless_compression_of_32_bits_keeps_what_was_signed(signer: Signer) -> None:
    signed = product_signing.sign(sample("pydicom/test_files/rtdose.dcm").path.read_bytes(), signer)

    assert_restored(filtered(signed, "dcmcrle"))


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: str(uid.name))
@pytest.mark.parametrize("picture", ["16 bits, signed", "12 of 16 bits, 10 frames", "palette"])
def test_lossless_compression_by_pydicom_keeps_what_was_signed(
    signer: Signer, tmp_path: Path, syntax: pydicom.uid.UID, picture: str
) -> None:
    for library in ("jpeg_ls", "openjpeg", "pylibjpeg"):
        pytest.importorskip(library, reason="no encoders: pip install 'scanseal[decompress]' pylibjpeg")
    signed = product_signing.sign(sample(PICTURES[picture]).path.read_bytes(), signer)

    assert_restored(compressed_by_pydicom(signed, syntax, tmp_path))


def compressed_by_pydicom(data: bytes, syntax: pydicom.uid.UID, folder: Path, photometric: str = "") -> bytes:
    """What pydicom makes of an instance; under a new Photometric Interpretation if wanted."""
    file = folder / "picture.dcm"
    file.write_bytes(data)
    data_set = pydicom.dcmread(file)
    if photometric:
        data_set.PhotometricInterpretation = photometric
    data_set.compress(syntax, generate_instance_uid=False)
    data_set.save_as(file)
    return file.read_bytes()


def test_colours_called_ybr_rct_by_jpeg_2000_are_those_that_were_signed(signer: Signer, tmp_path: Path) -> None:
    """PS3.5 8.2.4: RGB goes in and comes out, and is called YBR_RCT meanwhile."""
    for library in ("openjpeg", "pylibjpeg"):
        pytest.importorskip(library, reason="no encoder: pip install 'scanseal[decompress]' pylibjpeg")
    signed = product_signing.sign(sample("pydicom/test_files/examples_rgb_color.dcm").path.read_bytes(), signer)

    assert_restored(compressed_by_pydicom(signed, JPEG2000Lossless, tmp_path, "YBR_RCT"))


def test_colours_called_ybr_rct_that_were_not_transformed_are_not_taken_for_rgb(signer: Signer, tmp_path: Path) -> None:
    """Who goes by the name would show other colours than were signed."""
    for library in ("openjpeg", "pylibjpeg"):
        pytest.importorskip(library, reason="no encoder: pip install 'scanseal[decompress]' pylibjpeg")
    signed = product_signing.sign(sample("pydicom/test_files/examples_rgb_color.dcm").path.read_bytes(), signer)
    compressed = compressed_by_pydicom(signed, JPEG2000Lossless, tmp_path)

    assert variant(compressed) == "lossless-recompression"
    assert variant(compressed.replace(b"CS\x04\0RGB ", b"CS\x08\0YBR_RCT ", 1)) == "none"


# 16 x 16 pixels of 16 bits, (13 * i) & 0xFFF for i = 0, 1, ..: made by OpenJPH 0.26.3, reversible, 242 bytes.
HIGH_THROUGHPUT: Final = base64.b64decode(
    "/0//UQApQAAAAAAQAAAAEAAAAAAAAAAAAAAAEAAAABAAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJCQ"
    "kJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAH0AAf+TwAAmGfgFB3QAAMAAEsAAEwDsAQd0ANj+Awd0AMAAE0AAE4A0/QCC"
    "dABoR/sAo1QAwAAVEAAFWBhj/KpwAnUApps2bfrAQgHstgDAACsgABaQiIiIiOfAp6enwngAnj09PT09PT39jGB79jGB7LoA/9k="
)


@pytest.mark.parametrize("transfer_syntax", ["1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202"])
def test_high_throughput_jpeg_2000_keeps_what_was_signed(signer: Signer, transfer_syntax: str) -> None:
    pytest.importorskip("openjpeg", reason="no decoder of JPEG 2000: pip install 'scanseal[decompress]'")
    pixels = Node(0x7FE00010, "OW", b"".join(struct.pack("<H", 13 * index & 0xFFF) for index in range(256)))
    nodes = instance(
        *itertools.starmap(
            number,
            ((0x00280002, 1), (0x00280010, 16), (0x00280011, 16), (0x00280100, 16), (0x00280101, 16), (0x00280103, 0)),
        ),
        Node(pixels.tag, "OB", fragments=(b"", HIGH_THROUGHPUT)),
    )

    assert_restored(signed_over(as_signed([pixels]), [pixels.tag], nodes, signer, transfer_syntax=transfer_syntax))


@needs_dcmtk
@pytest.mark.parametrize("compression", LOSSY)
def test_lossy_compression_does_not_keep_what_was_signed(signer: Signer, compression: str) -> None:
    signed = product_signing.sign(sample("pydicom/test_files/SC_rgb_small_odd.dcm").path.read_bytes(), signer)
    examination = examine(filtered(signed, *LOSSY[compression]))

    assert examination is not None
    assert examination.diagnosis is None
    assert codes(examination) == ["compression-lossy"]


@needs_dcmtk
@pytest.mark.parametrize(("compression", "decompressor"), [("RLE", "dcmdrle"), ("JPEG-LS", "dcmdjpls")])
def test_a_pixel_that_was_changed_under_compression_is_found(
    signer: Signer, compression: str, decompressor: str
) -> None:
    """Compressed, decompressed, one bit of one pixel changed, and compressed again."""
    native = filtered(filtered(ct_with_signature(signer), *LOSSLESS[compression]), decompressor)
    pixels = find(parse(native).elements, 0x7FE00010)
    assert pixels is not None
    changed = bytearray(native)
    changed[native.index(pixels.value[:64]) + 40] ^= 1

    assert variant(filtered(native, *LOSSLESS[compression])) == "lossless-recompression"
    assert variant(filtered(bytes(changed), *LOSSLESS[compression])) == "none"


def ct_with_signature(signer: Signer) -> bytes:
    """A CT slice that the product has signed."""
    return product_signing.sign(ct_slice(64, 64), signer)


@needs_dcmtk
def test_an_attribute_that_was_changed_beside_the_compression_is_found(signer: Signer) -> None:
    compressed = filtered(ct_with_signature(signer), "dcmcrle")

    assert variant(compressed) == "lossless-recompression"
    assert variant(modified(compressed, "-m", "(0028,1053)=2")) == "none"


@needs_dcmtk
def test_a_patient_name_that_a_profile_leaves_open_may_change_beside_the_compression(signer: Signer) -> None:
    compressed = filtered(ct_with_signature(signer), "dcmcrle")

    assert variant(modified(compressed, "-m", "(0010,0010)=Miller^Jane")) == "lossless-recompression"


@needs_dcmtk
def test_a_dcmsign_signature_with_losses_is_recognised_under_compression(signer: Signer) -> None:
    """Both happened: the losses only explain, so together they do."""
    signed, _ = signed_by_dcmsign(enhanced_multiframe(150), signer)
    examination = examine(filtered(signed, "dcmcrle"))

    assert examination is not None
    assert examination.diagnosis is not None
    assert examination.diagnosis.variant == "lossless-recompression+dcmtk-buffer"
    assert not examination.diagnosis.legitimate


@needs_dcmtk
def test_fragments_of_one_frame_are_put_together_again(signer: Signer) -> None:
    """PS3.5 A.4: a frame may be cut into several fragments, and the Basic Offset Table tells which belong together."""
    signed = product_signing.sign(sample("pydicom-data/emri_small.dcm").path.read_bytes(), signer)
    cut = filtered(signed, "dcmcjpeg", "+e1", "+fs", "1", "+ot")

    pixels = find(parse(cut).elements, 0x7FE00010)
    assert pixels is not None
    assert len(pixels.fragments or ()) > 1 + 10
    assert_restored(cut)


@needs_dcmtk
def test_icons_that_were_compressed_along_are_restored_as_well(signer: Signer) -> None:
    """DCMTK compresses every Pixel Data there is, also that of Icon Image Sequence (0088,0200)."""
    signed = product_signing.sign(sample("pydicom/test_files/examples_overlay.dcm").path.read_bytes(), signer)

    assert_restored(filtered(signed, "dcmcrle"))
