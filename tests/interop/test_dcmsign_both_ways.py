"""Signatures travel both ways: dcmsign's verify here, ours verify there, also side by side in one file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import pytest

from agent.errors import DicomError
from tests.support import dcmsign, product_signing
from tests.support.certificates import Authority, Signer, rsa_key
from tests.support.dcmsign import Exit, needs_dcmsign
from tests.support.dicom_samples import TRANSFER_SYNTAX_SAMPLES, Sample, corpus, ct_slice, enhanced_multiframe, sample
from tests.support.dicom_tree import (
    DIGITAL_SIGNATURES,
    EXPLICIT_BIG_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    MAC_PARAMETERS,
    UNDEFINED,
    find,
    parse,
)
from tests.support.mac_oracle import signatures
from tests.support.product_signing import intact
from tests.support.raw_dicom import Nodes, Writer, as_nodes

pytestmark = needs_dcmsign

CT: Final = "pydicom/test_files/CT_small.dcm"
STRUCTURED_REPORT: Final = "pydicom/test_files/reportsi.dcm"
NATIVE_SAMPLES: Final = ("implicit-little-endian", "explicit-little-endian", "explicit-big-endian", "deflated")
HASHES: Final = ("SHA256", "SHA384", "SHA512")
# Files that dcmsign cannot read, or signs wrongly.
NOT_SIGNED_BY_DCMSIGN: Final = {
    "pydicom/palettes/winter.dcm": "SOP Instance UID twice",
    "pydicom/test_files/UN_sequence.dcm": "takes an undefined-length UN for a sequence",
    "pydicom/test_files/nested_priv_SQ.dcm": "an element of odd length",
    "pydicom/test_files/no_meta.dcm": "unreadable for dcmsign",
    "pydicom/test_files/MR_truncated.dcm": "unreadable for dcmsign",
    "pydicom/test_files/rtplan_truncated.dcm": "unreadable for dcmsign",
    "pydicom/test_files/SC_rgb_jpeg.dcm": "unreadable for dcmsign",
    "pydicom-data/emri_small_jpeg_2k_lossless_too_short.dcm": "unreadable for dcmsign",
}
# A DICOMDIR holds only elements of group 0004, which are never signed: dcmsign's signature has an empty tag list.
DIRECTORIES: Final = [one for one in corpus() if one.path.name.startswith("DICOMDIR")]
COMPARED: Final = [one for one in corpus() if one.name not in NOT_SIGNED_BY_DCMSIGN and one not in DIRECTORIES]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), datetime.now(UTC))


@pytest.fixture(scope="module")
def signers(authority: Authority) -> dict[int, Signer]:
    return {bits: authority.issue(f"rsa-{bits}", rsa_key(bits)) for bits in (2048, 3072, 4096)}


@pytest.fixture
def signer(signers: dict[int, Signer]) -> Signer:
    return signers[2048]


@pytest.fixture
def by_dcmsign(tmp_path: Path, signer: Signer) -> Callable[..., bytes]:
    """Signs bytes with dcmsign; `options` as on its command line."""

    def sign(data: bytes, *options: str, key: Signer = signer, hash_name: str = "SHA256") -> bytes:
        source, target = tmp_path / "source.dcm", tmp_path / "signed.dcm"
        source.write_bytes(data)
        run = dcmsign.sign(source, target, key.key_file, key.certificate_file, hash_name=hash_name, options=options)
        assert run.accepted, run.output
        return target.read_bytes()

    return sign


@pytest.fixture
def dcmsign_verdict(tmp_path: Path, authority: Authority) -> Callable[[bytes], Exit]:
    """What dcmsign says of all signatures in an instance."""

    def verdict(data: bytes) -> Exit:
        source = tmp_path / "verified.dcm"
        source.write_bytes(data)
        return Exit(dcmsign.verify(source, authority.certificate_file, require="+rg").exit_code)

    return verdict


# --- dcmsign signs, we verify ---


@pytest.mark.parametrize("options", [(), dcmsign.CREATOR], ids=["no-profile", "creator"])
@pytest.mark.parametrize("bits", [2048, 3072, 4096])
@pytest.mark.parametrize("hash_name", HASHES)
def test_dcmsigns_signature_verifies_here(
    hash_name: str, bits: int, options: tuple[str, ...], by_dcmsign: Callable[..., bytes], signers: dict[int, Signer]
) -> None:
    signed = by_dcmsign(sample(CT).path.read_bytes(), *options, key=signers[bits], hash_name=hash_name)
    (report,) = product_signing.verify(signed)
    assert report.intact
    assert report.algorithms.mac == hash_name
    assert report.certificate == signers[bits].certificate


@pytest.mark.parametrize("one", COMPARED, ids=str)
def test_what_dcmsign_signs_of_the_corpus_verifies_here(one: Sample, tmp_path: Path, signer: Signer) -> None:
    target = tmp_path / "signed.dcm"
    run = dcmsign.sign(one.path, target, signer.key_file, signer.certificate_file)
    assert run.accepted, run.output
    assert intact(target.read_bytes()) == [True]


@pytest.mark.parametrize("one", DIRECTORIES, ids=str)
def test_a_signature_that_covers_nothing_is_not_intact(one: Sample, by_dcmsign: Callable[..., bytes]) -> None:
    signed = by_dcmsign(one.path.read_bytes())
    with contextlib.suppress(DicomError):
        assert intact(signed) == [False]


# --- we sign, dcmsign verifies ---


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
@pytest.mark.parametrize("hash_name", HASHES)
def test_our_signature_verifies_in_dcmsign(
    hash_name: str, bits: int, dcmsign_verdict: Callable[[bytes], Exit], signers: dict[int, Signer]
) -> None:
    signed = product_signing.sign(sample(CT).path.read_bytes(), signers[bits], hash_name.lower())
    assert dcmsign_verdict(signed) == Exit.OK


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN, EXPLICIT_BIG_ENDIAN])
@pytest.mark.parametrize("frames", [1, 40])
def test_our_signature_of_nested_functional_groups_verifies_in_dcmsign(
    frames: int, syntax: str, dcmsign_verdict: Callable[[bytes], Exit], signer: Signer
) -> None:
    """As long as they end in the first 16 KiB of the stream, where stock dcmsign is still right."""
    assert dcmsign_verdict(product_signing.sign(enhanced_multiframe(frames, syntax), signer)) == Exit.OK


def test_our_signature_of_a_ct_slice_of_512_kb_verifies_in_dcmsign(
    dcmsign_verdict: Callable[[bytes], Exit], signer: Signer
) -> None:
    assert dcmsign_verdict(product_signing.sign(ct_slice(), signer)) == Exit.OK


# --- side by side ---


@pytest.mark.parametrize("order", ["dcmsign-first", "product-first"])
@pytest.mark.parametrize("syntax", TRANSFER_SYNTAX_SAMPLES)
def test_signatures_of_both_stand_side_by_side_in_every_transfer_syntax(
    syntax: str,
    order: str,
    by_dcmsign: Callable[..., bytes],
    dcmsign_verdict: Callable[[bytes], Exit],
    signer: Signer,
) -> None:
    data = sample(TRANSFER_SYNTAX_SAMPLES[syntax]).path.read_bytes()
    if order == "product-first":
        data = product_signing.sign(data, signer)
    data = by_dcmsign(data, *dcmsign.CREATOR)
    if order == "dcmsign-first":
        before = data
        data = product_signing.sign(data, signer)
        product_signing.assert_nothing_else_changed(before, data)
    assert intact(data) == [True, True]
    assert dcmsign_verdict(data) == Exit.OK


def test_four_signatures_of_two_makers_with_three_hashes(
    by_dcmsign: Callable[..., bytes], dcmsign_verdict: Callable[[bytes], Exit], signers: dict[int, Signer]
) -> None:
    data = sample(CT).path.read_bytes()
    data = by_dcmsign(data, hash_name="SHA384")
    data = product_signing.sign(data, signers[3072], "sha512")
    data = by_dcmsign(data, *dcmsign.CREATOR, key=signers[3072], hash_name="SHA512")
    data = product_signing.sign(data, signers[2048], "sha256")
    assert intact(data) == [True] * 4
    assert dcmsign_verdict(data) == Exit.OK
    assert len({signature.mac_id for signature in signatures(parse(data).elements)}) == 4


@pytest.mark.parametrize("syntax", NATIVE_SAMPLES)
@pytest.mark.parametrize("lengths", ["+e", "-e"])
def test_we_add_to_sequences_of_defined_and_undefined_length(
    lengths: str,
    syntax: str,
    by_dcmsign: Callable[..., bytes],
    dcmsign_verdict: Callable[[bytes], Exit],
    signer: Signer,
) -> None:
    data = by_dcmsign(sample(TRANSFER_SYNTAX_SAMPLES[syntax]).path.read_bytes(), lengths)
    signed = product_signing.sign(data, signer)
    product_signing.assert_nothing_else_changed(data, signed)
    assert length_forms(signed) == [lengths == "-e"] * 2
    assert intact(signed) == [True, True]
    assert dcmsign_verdict(signed) == Exit.OK


@pytest.mark.parametrize("undefined_items", [True, False], ids=["open-items", "closed-items"])
@pytest.mark.parametrize("undefined_length", [True, False], ids=["open-sequence", "closed-sequence"])
def test_we_add_to_sequences_whose_items_have_another_length_form(
    undefined_length: bool,  # noqa: FBT001 - a parameter of the test, not of a function
    undefined_items: bool,  # noqa: FBT001
    dcmsign_verdict: Callable[[bytes], Exit],
    signer: Signer,
) -> None:
    instance = parse(product_signing.sign(sample(CT).path.read_bytes(), signer))
    nodes = in_form(as_nodes(instance.elements), undefined_length=undefined_length, undefined_items=undefined_items)
    data = instance.head + Writer(instance.transfer_syntax).data_set(nodes)
    signed = product_signing.sign(data, signer)
    product_signing.assert_nothing_else_changed(data, signed)
    assert length_forms(signed) == [undefined_length] * 2
    assert intact(signed) == [True, True]
    assert dcmsign_verdict(signed) == Exit.OK


def length_forms(data: bytes) -> list[bool]:
    """Whether (4FFE,0001) and (FFFA,FFFA) are of undefined length."""
    instance = parse(data)
    order: Literal["big", "little"] = "big" if instance.transfer_syntax == EXPLICIT_BIG_ENDIAN else "little"
    width = 4 if instance.transfer_syntax == IMPLICIT_LITTLE_ENDIAN else 8
    forms = []
    for tag in (MAC_PARAMETERS, DIGITAL_SIGNATURES):
        element = find(instance.elements, tag)
        assert element is not None
        at = element.start + width
        forms.append(int.from_bytes(instance.body[at : at + 4], order) == UNDEFINED)
    return forms


def in_form(nodes: Nodes, *, undefined_length: bool, undefined_items: bool) -> Nodes:
    """The nodes with another length form of the two sequences of signatures."""
    chosen = {MAC_PARAMETERS, DIGITAL_SIGNATURES}
    return tuple(
        replace(node, undefined_length=undefined_length, undefined_items=undefined_items)
        if node.tag in chosen
        else node
        for node in nodes
    )


# --- nested ---


@pytest.mark.parametrize("order", ["nested-first", "outer-first"])
def test_a_nested_signature_and_ours_around_it_leave_each_other_alone(
    order: str, tmp_path: Path, signer: Signer, dcmsign_verdict: Callable[[bytes], Exit]
) -> None:
    source, target = tmp_path / "source.dcm", tmp_path / "nested.dcm"
    data = sample(STRUCTURED_REPORT).path.read_bytes()
    source.write_bytes(product_signing.sign(data, signer) if order == "outer-first" else data)
    run = dcmsign.sign_item(source, target, signer.key_file, signer.certificate_file, "ConceptNameCodeSequence[0]")
    assert run.accepted, run.output
    signed = target.read_bytes()
    if order == "nested-first":
        signed = product_signing.sign(signed, signer)
    outer = signatures(parse(signed).elements)[0]
    assert 0x0040A043 in outer.tags
    assert outer.recovered_digest() == outer.stream_digest()
    assert dcmsign_verdict(signed) == Exit.OK
    assert all(intact(signed))


# --- what must break a signature ---


def with_byte_changed(data: bytes, tag: int) -> bytes:
    """The instance with the last byte of an element's value changed."""
    instance = parse(data)
    element = find(instance.elements, tag)
    assert element is not None
    at = len(instance.head) + element.end - 1
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("maker", ["product", "dcmsign"])
def test_a_changed_pixel_breaks_a_creator_signature(
    maker: str, by_dcmsign: Callable[..., bytes], dcmsign_verdict: Callable[[bytes], Exit], signer: Signer
) -> None:
    data = sample(CT).path.read_bytes()
    signed = product_signing.sign(data, signer) if maker == "product" else by_dcmsign(data, *dcmsign.CREATOR)
    changed = with_byte_changed(signed, 0x7FE00010)
    assert intact(changed) == [False]
    assert dcmsign_verdict(changed) == Exit.VERIFICATION_FAILED


@pytest.mark.parametrize("maker", ["product", "dcmsign"])
def test_a_changed_patient_name_does_not_break_a_creator_signature(
    maker: str, by_dcmsign: Callable[..., bytes], dcmsign_verdict: Callable[[bytes], Exit], signer: Signer
) -> None:
    data = sample(CT).path.read_bytes()
    signed = product_signing.sign(data, signer) if maker == "product" else by_dcmsign(data, *dcmsign.CREATOR)
    changed = with_byte_changed(signed, 0x00100010)
    assert intact(changed) == [True]
    assert dcmsign_verdict(changed) == Exit.OK


def test_every_signed_element_breaks_the_signature_when_changed(signer: Signer) -> None:
    signed = product_signing.sign(sample(CT).path.read_bytes(), signer)
    elements = parse(signed).elements
    tags = [tag for tag in signatures(elements)[0].tags if (element := find(elements, tag)) and element.value]
    assert [tag for tag in tags if intact(with_byte_changed(signed, tag)) != [False]] == []
