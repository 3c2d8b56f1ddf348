"""The oracle of the MAC byte stream (PS3.3 C.12.1.1.3.1.1) against the rules and against what dcmsign hashes."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from tests.support import dcmsign, mac_oracle
from tests.support.certificates import Authority, Signer, rsa_key
from tests.support.dcmsign import needs_dcmsign
from tests.support.dicom_samples import Sample, corpus, sample
from tests.support.dicom_tree import (
    DIGITAL_SIGNATURES,
    IMPLICIT_LITTLE_ENDIAN,
    Element,
    Elements,
    Instance,
    UnreadableDicom,
    find,
    parse,
)
from tests.support.raw_dicom import NATIVE_ENCODINGS, Node, instance, number, part10, text

UNREADABLE: Final = {
    "pydicom/test_files/ExplVR_BigEndNoMeta.dcm": "no DICM prefix",
    "pydicom/test_files/ExplVR_LitEndNoMeta.dcm": "no DICM prefix",
    "pydicom/test_files/no_meta.dcm": "no DICM prefix",
    "pydicom/test_files/rtstruct.dcm": "no DICM prefix",
    "pydicom-data/OT-PAL-8-face.dcm": "no DICM prefix",
    "pydicom/test_files/meta_missing_tsyntax.dcm": "no transfer syntax",
    "pydicom/test_files/MR_truncated.dcm": "truncated",
    "pydicom/test_files/rtplan_truncated.dcm": "truncated",
    "pydicom-data/emri_small_jpeg_2k_lossless_too_short.dcm": "truncated",
    "pydicom/test_files/dicomdirtests/DICOMDIR-nooffset": "runs past its sequence",
    "pydicom/test_files/SC_rgb_jpeg.dcm": "VR",
}
# dcmsign hashes these values without their excess padding; the standard says: as encoded.
OVER_PADDED: Final = (
    "pydicom-data/SC_rgb_gdcm2k_uncompressed.dcm",
    "pydicom-data/color3d_jpeg_baseline.dcm",
    "pydicom-data/gdcm-US-ALOKA-16.dcm",
    "pydicom/test_files/SC_rgb_gdcm_KY.dcm",
    "pydicom/test_files/examples_ybr_color.dcm",
)
DCMSIGN_DIFFERS: Final = {
    **dict.fromkeys(OVER_PADDED, "excess padding"),
    "pydicom/palettes/winter.dcm": "duplicate SOP Instance UID: dcmsign keeps the first only",
    "pydicom/test_files/UN_sequence.dcm": "dcmsign takes an undefined-length UN for the SQ it once was",
}
COMPARED: Final = [one for one in corpus() if one.name not in UNREADABLE and one.name not in DCMSIGN_DIFFERS]


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Authority(tmp_path_factory.mktemp("ca"), datetime.now(UTC)).issue("signer", rsa_key(2048))


def dcmsign_stream(source: Path, folder: Path, signer: Signer, *options: str) -> tuple[bytes, Instance]:
    """The stream dcmsign hashed for `source`, and the instance it wrote."""
    target, dump = folder / "signed.dcm", folder / "stream.bin"
    run = dcmsign.sign(source, target, signer.key_file, signer.certificate_file, dump=dump, options=options)
    assert run.accepted, run.output
    return dump.read_bytes(), parse(target.read_bytes())


def oracle_stream(source: Path, signed: Instance) -> bytes:
    """The stream by the oracle: the elements of the source, the signature item of what dcmsign wrote."""
    sequence = find(signed.elements, DIGITAL_SIGNATURES)
    assert sequence is not None
    assert sequence.items
    tags = mac_oracle.signatures(signed.elements)[-1].tags
    return mac_oracle.mac_stream(parse(source.read_bytes()).elements, tags, sequence.items[-1])


@needs_dcmsign
@pytest.mark.parametrize("one", COMPARED, ids=str)
def test_stream_is_what_dcmsign_hashes(one: Sample, tmp_path: Path, signer: Signer) -> None:
    dump, signed = dcmsign_stream(one.path, tmp_path, signer)
    assert oracle_stream(one.path, signed) == dump
    signature = mac_oracle.signatures(signed.elements)[-1]
    assert signature.stream == dump
    assert signature.recovered_digest() == hashlib.sha256(dump).digest()
    assert signature.tags == mac_oracle.signable_tags(parse(one.path.read_bytes()).elements)


@needs_dcmsign
@pytest.mark.parametrize("name", OVER_PADDED)
def test_padding_is_hashed_as_encoded_although_dcmsign_strips_it(name: str, tmp_path: Path, signer: Signer) -> None:
    one = sample(name)
    dump, signed = dcmsign_stream(one.path, tmp_path, signer)
    assert mac_oracle.signatures(signed.elements)[-1].stream == dump
    assert len(oracle_stream(one.path, signed)) > len(dump)


@pytest.mark.parametrize(("name", "reason"), UNREADABLE.items())
def test_what_is_no_part_10_file_is_not_read(name: str, reason: str) -> None:
    with pytest.raises(UnreadableDicom, match=reason):
        parse(sample(name).path.read_bytes())


@needs_dcmsign
def test_a_creator_signature_covers_the_listed_tags_only(tmp_path: Path, signer: Signer) -> None:
    source = sample("pydicom/test_files/CT_small.dcm").path
    dump, signed = dcmsign_stream(source, tmp_path, signer, *dcmsign.CREATOR)
    assert oracle_stream(source, signed) == dump
    assert 0x00100010 not in mac_oracle.signatures(signed.elements)[-1].tags


# --- the rules, construct by construct ---

ITEM_START: Final = "feff00e0"
SEQUENCE_STOP: Final = "feffdde0"
ONE_ITEM: Final = ((text(0x00081155, "UI", "1.2"),),)
CONSTRUCTS: Final = {
    "short VR": (text(0x00080070, "LO", "abc"), "0800 7000 4c4f 0400 61626320"),
    "long VR": (Node(0x7FE00010, "OW", b"\1\2"), "e07f 1000 4f57 0000 02000000 0102"),
    "unlimited text": (text(0x0040A160, "UT", "x"), "4000 60a1 5554 0000 02000000 7820"),
    "empty value": (text(0x00080070, "LO", ""), "0800 7000 4c4f 0000"),
    "empty sequence": (Node(0x00081140, "SQ", items=()), f"0800 4011 5351 0000 {SEQUENCE_STOP}"),
    "empty item": (Node(0x00081140, "SQ", items=((),)), f"0800 4011 5351 0000 {ITEM_START} {SEQUENCE_STOP}"),
    "sequence": (
        Node(0x00081140, "SQ", items=ONE_ITEM),
        f"0800 4011 5351 0000 {ITEM_START} 0800 5511 5549 0400 312e3200 {SEQUENCE_STOP}",
    ),
    "sequence of undefined length": (
        Node(0x00081140, "SQ", items=ONE_ITEM, undefined_length=True, undefined_items=True),
        f"0800 4011 5351 0000 {ITEM_START} 0800 5511 5549 0400 312e3200 {SEQUENCE_STOP}",
    ),
    "nested signature and group length": (
        Node(
            0x00081140,
            "SQ",
            items=(
                (
                    Node(0x00080000, "UL", bytes(4)),
                    *ONE_ITEM[0],
                    Node(0x4FFE0001, "SQ", items=((number(0x04000005, 1),),)),
                    Node(0xFFFAFFFA, "SQ", items=((number(0x04000005, 1),),)),
                    Node(0xFFFCFFFC, "OB", bytes(2)),
                ),
            ),
        ),
        f"0800 4011 5351 0000 {ITEM_START} 0800 5511 5549 0400 312e3200 {SEQUENCE_STOP}",
    ),
}


def readable(elements: Elements, tag: int) -> Element:
    element = find(elements, tag)
    assert element is not None
    return element


@pytest.mark.parametrize("encoding", NATIVE_ENCODINGS)
@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_each_construct_is_encoded_as_c_12_1_1_3_1_1_says(construct: str, encoding: str) -> None:
    node, expected = CONSTRUCTS[construct]
    elements = parse(part10(instance(node), encoding)).elements
    assert mac_oracle.mac_stream(elements, [node.tag], ()) == bytes.fromhex(expected)


def test_fragments_are_hashed_with_item_tags_and_without_lengths() -> None:
    pixels = Node(0x7FE00010, "OB", fragments=(b"", b"\1\2\3\4", b"\5\6"))
    elements = parse(part10(instance(pixels))).elements
    expected = f"e07f 1000 4f42 0000 {ITEM_START} {ITEM_START} 01020304 {ITEM_START} 0506 {SEQUENCE_STOP}"
    assert mac_oracle.mac_stream(elements, [0x7FE00010], ()) == bytes.fromhex(expected)


def test_the_signature_item_comes_last_without_certificate_signature_and_time_stamp() -> None:
    own = tuple(Element(0x04000000 | low, "OB", value=b"\1\2") for low in (0x0115, 0x0120, 0x0305, 0x0310))
    item = (Element(0x04000005, "US", value=b"\7\0"), *own)
    elements = parse(part10(instance())).elements
    expected = "0800 1800 5549 0600 322e32352e32 0004 0500 5553 0200 0700"
    assert mac_oracle.mac_stream(elements, [0x00080018], item) == bytes.fromhex(expected)


def test_un_is_never_signable_nor_is_a_sequence_that_holds_it() -> None:
    unknown = Node(0x00091001, "UN", b"\1\2")
    hidden = Node(0x00081140, "SQ", items=((Node(0x00082112, "SQ", items=((unknown,),)),),))
    undefined = Node(0x00091002, "UN", items=ONE_ITEM, undefined_length=True)
    nodes = instance(unknown, hidden, undefined, text(0x00090010, "LO", "SOMEONE"))
    tags = mac_oracle.signable_tags(parse(part10(nodes)).elements)
    assert tags == (0x00080016, 0x00080018, 0x00090010, 0x0020000D, 0x0020000E)


@pytest.mark.parametrize(("representation", "vr"), [(0, "US"), (1, "SS")])
def test_us_or_ss_follows_pixel_representation_in_implicit_vr(representation: int, vr: str) -> None:
    smallest = Node(0x00280106, vr, b"\1\0")
    nodes = instance(number(0x00280103, representation), smallest)
    elements = parse(part10(nodes, IMPLICIT_LITTLE_ENDIAN)).elements
    assert readable(elements, 0x00280106).vr == vr
