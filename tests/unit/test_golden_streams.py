"""MAC byte streams that are known beforehand (PS3.3 C.12.1.1.3.1.1): the product, two encoders and dcmsign on the same.

The vectors are in tests/golden/mac_streams.json; how they are made and made anew, in tests/support/golden_streams.py.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Final

import pytest

from agent.dicom.diagnosis.dcmtk_buffer import through_dcmtk_buffer
from agent.dicom.diagnosis.readings import Reading
from agent.dicom.headers import DEFAULT_LIMITS
from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.sign import SignaturePlan, digest_instance
from agent.dicom.stored_instance import StoredInstance
from agent.dicom.window import Window
from tests.support import dcmsign, mac_oracle
from tests.support.certificates import Authority, Signer, rsa_key
from tests.support.dcmsign import needs_dcmsign
from tests.support.dicom_tree import DEFLATED_EXPLICIT_LITTLE_ENDIAN, EXPLICIT_BIG_ENDIAN, parse
from tests.support.golden_streams import (
    GOLDEN_FILE,
    LANDMARK,
    SIGNATURE_UID,
    SIGNED_AT,
    Golden,
    golden_file,
    landings,
    vectors,
)
from tests.support.plain_encoder import content_stream, element_stream, is_signed
from tests.support.product_signing import sign_bytes, verify
from tests.support.raw_dicom import Nodes

GOLDEN: Final[dict[str, Golden]] = json.loads(GOLDEN_FILE.read_text("ascii"))["streams"]
VECTORS: Final = vectors()
LARGE: Final = 200_000  # bytes of a stream; a larger one is tried in fewer forms, to save time
DCMSIGN_BUFFER: Final = 1 << 14  # bytes; dcmsign/libsrc/simaccon.cc of DCMTK 3.6.7

every_vector = pytest.mark.parametrize("name", VECTORS)
every_landing = pytest.mark.parametrize("name", landings())


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Authority(tmp_path_factory.mktemp("ca"), datetime.now(UTC)).issue("signer", rsa_key(2048))


@cache
def plan(profile: str) -> SignaturePlan:
    """The signature whose item is in the streams."""
    signed_at = datetime.strptime(SIGNED_AT, "%Y%m%d%H%M%S.%f%z")
    return SignaturePlan(load_profile(ProfileName(profile)), "sha256", SIGNATURE_UID, signed_at)


def digest(name: str, data: bytes, capacity: int | None = None) -> str:
    """The product's hash of an instance, held as a whole or streamed through a window of `capacity` bytes."""
    window = Window.over(data)
    if capacity is not None:
        window = Window(io.BytesIO(data).readinto, bytearray(capacity), keep=False)
    return digest_instance(window, plan(VECTORS[name].profile)).digest.hex()


def delimited(name: str) -> bytes:
    """The vector with as many delimiters as there can be."""
    vector = VECTORS[name]
    return vector.file(vector.transfer_syntaxes[0], undefined_length=True, undefined_items=True)


# --- the vectors ---


def test_the_committed_vectors_are_those_of_the_plain_encoder() -> None:
    assert GOLDEN_FILE.read_text("ascii") == golden_file()


@every_vector
def test_the_encoder_that_reads_files_agrees_with_the_one_that_starts_from_nodes(name: str) -> None:
    vector = VECTORS[name]
    syntaxes = vector.transfer_syntaxes if GOLDEN[name]["length"] <= LARGE else vector.transfer_syntaxes[:1]
    covered = tuple(node for node in vector.nodes if node.tag not in vector.uncovered)
    for syntax in syntaxes:
        elements = parse(vector.file(syntax)).elements
        tags = {node.tag for node in covered}.intersection(mac_oracle.signable_tags(elements))
        assert mac_oracle.mac_stream(elements, tags, ()) == content_stream(covered)


@every_landing
def test_each_boundary_is_where_the_name_of_the_vector_says(name: str) -> None:
    counted, boundary, place = name.split("-", 2)
    match counted:
        case "stream":
            data = VECTORS[name].stream()
        case "inflated":
            data = parse(VECTORS[name].file(DEFLATED_EXPLICIT_LITTLE_ENDIAN)).body
        case _:
            data = delimited(name)
    assert data.index(LANDMARK) + len(LANDMARK) + int(place.partition("+")[2]) == int(boundary)


# --- the product ---


@every_vector
def test_the_product_hashes_the_golden_stream_in_every_form_through_every_window(name: str) -> None:
    """Every transfer syntax; sequences and items of defined and of undefined length; windows of 4 KiB, 64 KiB, all."""
    vector = VECTORS[name]
    forms = [(False, False), (True, True)]
    if GOLDEN[name]["length"] <= LARGE:
        forms += [(False, True), (True, False)]
    wrong = []
    for syntax, (length, items) in itertools.product(vector.transfer_syntaxes, forms):
        data = vector.file(syntax, undefined_length=length, undefined_items=items)
        # Numbers are turned round in pieces of 64 KiB, which have to fit the window.
        capacities = [None, 1 << 16] if syntax == EXPLICIT_BIG_ENDIAN else [None, 1 << 16, 1 << 12]
        wrong += [
            (syntax, length, items, capacity)
            for capacity in capacities
            if digest(name, data, capacity) != GOLDEN[name]["sha256"]
        ]
    assert wrong == []


@pytest.mark.parametrize("name", [name for name in landings() if name.endswith("+2")])
def test_a_window_may_end_at_any_byte_around_the_place(name: str) -> None:
    data = delimited(name)
    place = data.index(LANDMARK) + len(LANDMARK)
    wrong = [shift for shift in range(-9, 25) if digest(name, data, place + shift) != GOLDEN[name]["sha256"]]
    assert wrong == []


@every_vector
def test_a_signature_of_the_golden_hash_verifies(name: str, signer: Signer) -> None:
    """The verifier hashes anew, on a path of its own: here it is asked about a hash that the product did not make."""
    key = signer.sign_digest("sha256")
    golden = bytes.fromhex(GOLDEN[name]["sha256"])
    vector = VECTORS[name]
    for data in (vector.file(vector.transfer_syntaxes[-1]), delimited(name)):
        signed = sign_bytes(data, plan(vector.profile), lambda _: key(golden), signer.certificate_der)
        (report,) = verify(signed)
        # The fragments of one vector are made up, and no JPEG images.
        assert {finding.code for finding in report.integrity.findings} <= {"codestream-wrong"}


# --- dcmsign ---


def reach_of_nesting(nodes: Nodes) -> int:
    """Where in the stream the last sequence inside a sequence ends."""
    position = reach = 0
    for node in filter(is_signed, nodes):
        inside = position + 8
        for item in node.items or ():
            inside += 4
            for inner in filter(is_signed, item):
                inside += len(element_stream(inner))
                reach = inside if inner.items is not None else reach
        position += len(element_stream(node))
    return reach


@pytest.fixture(scope="module")
def hashed_by_dcmsign(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Callable[[str], tuple[bytes, bytes]]:
    """What dcmsign hashes of a vector, every signable element of it, and the file that it makes."""
    folder = tmp_path_factory.mktemp("dcmsign")
    source, target, dump = folder / "source.dcm", folder / "signed.dcm", folder / "stream.bin"

    @cache
    def sign(name: str) -> tuple[bytes, bytes]:
        source.write_bytes(VECTORS[name].file(VECTORS[name].transfer_syntaxes[0]))
        run = dcmsign.sign(source, target, signer.key_file, signer.certificate_file, dump=dump)
        assert run.accepted, run.output
        return dump.read_bytes(), target.read_bytes()

    return sign


@needs_dcmsign
@every_vector
def test_dcmsign_hashes_the_same_or_drops_bytes_of_nested_sequences_beyond_16_kib(
    name: str, hashed_by_dcmsign: Callable[[str], tuple[bytes, bytes]]
) -> None:
    hashed, signed = hashed_by_dcmsign(name)
    stream = mac_oracle.signatures(parse(signed).elements)[-1].stream
    assert stream.startswith(content_stream(VECTORS[name].nodes))
    if reach_of_nesting(VECTORS[name].nodes) > DCMSIGN_BUFFER:
        assert len(hashed) < len(stream)
    else:
        assert hashed == stream


@needs_dcmsign
@every_vector
def test_the_verifier_knows_which_bytes_dcmsign_drops(
    name: str, hashed_by_dcmsign: Callable[[str], tuple[bytes, bytes]]
) -> None:
    """Byte for byte, so that it can tell dcmsign's fault from tampering."""
    hashed, signed = hashed_by_dcmsign(name)
    signature = mac_oracle.signatures(parse(signed).elements)[-1]
    own_item = signature.stream.removeprefix(content_stream(VECTORS[name].nodes))
    pieces = Reading().pieces(StoredInstance.read(signed, DEFAULT_LIMITS).data_set, signature.tags)
    assert b"".join(piece.data for piece in through_dcmtk_buffer(pieces)) + own_item == hashed


@needs_dcmsign
def test_dcmsign_is_wrong_about_more_than_half_of_the_vectors() -> None:
    """And right about one at least that is nested but not far enough."""
    wrong = {name for name, vector in VECTORS.items() if reach_of_nesting(vector.nodes) > DCMSIGN_BUFFER}
    assert len(wrong) > len(VECTORS) / 2
    assert "file-4096-depth-3-delimiter+2" not in wrong
