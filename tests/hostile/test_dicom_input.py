"""Damaged and malicious instances: a DicomError with a code, in bounded time and memory, and nothing else."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from agent.errors import DicomError
from tests.support.dicom_samples import (
    deflate_bomb,
    enhanced_multiframe,
    explicit,
    length_fields,
    many_empty_items,
    mutants,
    nested_sequences,
    raw_instance,
    sample,
    small_instance,
    with_each_bit_flipped,
)
from tests.support.dicom_tree import (
    DEFLATED_EXPLICIT_LITTLE_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    parse,
    tag_bytes,
)
from tests.support.product_signing import (
    assert_nothing_else_changed,
    newest_signature,
    sign_without_key,
)
from tests.support.raw_dicom import NATIVE_ENCODINGS, Node, as_nodes, deflated, instance, number, part10, text
from tests.support.reliability.measured import measured

SECONDS: Final = 10
MEMORY_BYTES: Final = 512 << 20
MUTANTS: Final = 5_000
RLE_LOSSLESS: Final = "1.2.840.10008.1.2.5"


def refusal_of(data: bytes) -> str:
    """The code with which the product refuses the bytes, which must come with words for a person."""
    with pytest.raises(DicomError) as refusal:
        sign_without_key(data)
    assert refusal.value.what
    assert refusal.value.code
    return refusal.value.code


def assert_signed_correctly_or_refused(data: bytes) -> bool:
    """Bytes that may or may not be an instance: a signature over what the oracle says, or a DicomError.

    Returns:
        Whether they were signed.
    """
    try:
        result = sign_without_key(data)
    except DicomError:
        return False
    assert_nothing_else_changed(data, result.signed)
    assert result.digests == (newest_signature(result.signed).stream_digest(),)
    return True


# --- truncation ---


def truncations(data: bytes) -> Iterator[int]:
    """All lengths up to 2,000 bytes and every 97th beyond."""
    yield from range(min(2_000, len(data)))
    yield from range(2_000, len(data), 97)


@pytest.mark.parametrize("name", ["CT_small", "MR_small_implicit", "MR_small_bigendian", "MR_small_RLE", "reportsi"])
def test_a_truncated_instance_is_refused(name: str) -> None:
    data = sample(f"pydicom/test_files/{name}.dcm").path.read_bytes()
    instance = parse(data)
    boundaries = {len(instance.head) + element.end for element in instance.elements}
    for length in truncations(data):
        if length in boundaries:
            assert_signed_correctly_or_refused(data[:length])
        else:
            assert refusal_of(data[:length]), length


def test_a_truncated_deflated_instance_is_refused() -> None:
    data = encoded(DEFLATED_EXPLICIT_LITTLE_ENDIAN)
    for length in range(len(data) - 1):
        assert refusal_of(data[:length]), length


def test_pixel_data_cut_off_is_called_truncated() -> None:
    data = sample("pydicom/test_files/CT_small.dcm").path.read_bytes()
    assert refusal_of(data[:-1000]) == "truncated"


# --- lengths ---


@pytest.mark.parametrize("wrong", [0xFFFFFFF0, 0xFFFFFFFE, 0x80000000, 0x7FFFFFFF, 0x00010000, 1, 3, 0, 0xFFFFFFFF])
def test_every_length_field_may_lie(wrong: int) -> None:
    data = small_instance()
    parsed = parse(data)
    start = len(parsed.head)
    for position, width in length_fields(parsed.elements, parsed.body):
        at = start + position
        lie = struct.pack("<L", wrong)[:width]
        assert_signed_correctly_or_refused(data[:at] + lie + data[at + width :])


@pytest.mark.parametrize("wrong", [0xFFFFFFF0, 0x7FFFFFFF, 0x00010000])
def test_a_length_past_the_end_is_refused(wrong: int) -> None:
    data = small_instance()
    parsed = parse(data)
    start = len(parsed.head)
    for position, width in length_fields(parsed.elements, parsed.body):
        if width == 4:
            at = start + position
            assert refusal_of(data[:at] + struct.pack("<L", wrong) + data[at + 4 :]), position


@pytest.mark.parametrize("wrong", [0, 1, 0xFFFF, 0xFFFFFFF0, 0xFFFFFFFF])
def test_the_lengths_of_the_file_meta_information_may_lie(wrong: int) -> None:
    data = small_instance()
    for at in range(132, data.index(b"\x08\x00\x16\x00")):
        assert_signed_correctly_or_refused(data[:at] + struct.pack("<L", wrong) + data[at + 4 :])


# --- not an instance at all ---


NO_INSTANCES: Final = {
    "empty": b"",
    "one byte": b"\0",
    "preamble without prefix": bytes(128),
    "preamble only": bytes(128) + b"DICM",
    "text": b"This is not an image.\n" * 100,
    "JPEG": b"\xff\xd8\xff\xe0" + bytes(1_000),
    "zeros": bytes(10_000),
    "meta only": raw_instance(b""),
    "unknown transfer syntax": raw_instance(explicit(instance()), "1.2.3.4"),
    "private GE transfer syntax": raw_instance(explicit(instance()), "1.2.840.113619.5.2"),
    "transfer syntax that is no UID": raw_instance(explicit(instance()), "not a uid"),
    "transfer syntax that is empty": raw_instance(explicit(instance()), ""),
    "implicit body called explicit": raw_instance(part10(instance(), IMPLICIT_LITTLE_ENDIAN)[-100:]),
    "plain body called deflated": raw_instance(explicit(instance()), DEFLATED_EXPLICIT_LITTLE_ENDIAN),
    "nothing called deflated": raw_instance(b"", DEFLATED_EXPLICIT_LITTLE_ENDIAN),
}


@pytest.mark.parametrize("name", NO_INSTANCES)
def test_what_is_no_instance_is_refused(name: str) -> None:
    assert refusal_of(NO_INSTANCES[name])


# --- malformed data sets ---


ORPHANED_SIGNATURE: Final = (
    number(0x04000005, 0),
    text(0x04000100, "UI", "2.25.8"),
    text(0x04000105, "DT", "20260101000000+0000"),
    text(0x04000110, "CS", "X509_1993_SIG"),
    Node(0x04000115, "OB", b"\x30\x02\x05\x00"),
    Node(0x04000120, "OB", bytes(256)),
)


def item(content: bytes, length: int | None = None) -> bytes:
    return tag_bytes(ITEM) + struct.pack("<L", len(content) if length is None else length) + content


END_OF_ITEM: Final = tag_bytes(ITEM_END) + bytes(4)
END_OF_SEQUENCE: Final = tag_bytes(SEQUENCE_END) + bytes(4)
OPEN_SEQUENCE: Final = tag_bytes(0x0040A730) + b"SQ\0\0\xff\xff\xff\xff"
START: Final = explicit(instance())
CODE: Final = explicit((text(0x00080100, "SH", "1"),))
MALFORMED: Final = {
    "duplicate tag": explicit((*instance(), text(0x0020000E, "UI", "2.25.5"))),
    "second pixel data": explicit((*instance(), Node(0x7FE00010, "OW", bytes(4)), Node(0x7FE00010, "OW", bytes(4)))),
    "tags out of order": explicit((*instance(), text(0x00080070, "LO", "Maker"))),
    "duplicate tag in an item": START
    + explicit((Node(0x0040A730, "SQ", items=((text(0x00080100, "SH", "1"), text(0x00080100, "SH", "1")),)),)),
    "tags out of order in an item": START
    + explicit((Node(0x0040A730, "SQ", items=((text(0x00080102, "SH", "1"), text(0x00080100, "SH", "1")),)),)),
    "unknown VR": START + tag_bytes(0x00280010) + b"ZZ\2\0\0\0",
    "lower case VR": START + tag_bytes(0x00280010) + b"us\2\0\0\0",
    "VR of zeros": START + tag_bytes(0x00280010) + b"\0\0\2\0\0\0",
    "item at top level": START + item(CODE),
    "item delimiter at top level": START + END_OF_ITEM,
    "sequence delimiter at top level": START + END_OF_SEQUENCE,
    "sequence without delimiter": START + OPEN_SEQUENCE + item(CODE),
    "open item without delimiter": START + OPEN_SEQUENCE + item(CODE, 0xFFFFFFFF) + END_OF_SEQUENCE,
    "element instead of an item": START + OPEN_SEQUENCE + CODE + END_OF_SEQUENCE,
    "item delimiter of a closed item": START + OPEN_SEQUENCE + item(CODE) + END_OF_ITEM + END_OF_SEQUENCE,
    "item longer than its sequence": START + tag_bytes(0x0040A730) + b"SQ\0\0\x10\0\0\0" + item(CODE, 100) + bytes(92),
    "undefined length of a text": START + tag_bytes(0x0040A160) + b"UT\0\0\xff\xff\xff\xff" + END_OF_SEQUENCE,
    "file meta information in the data set": explicit((text(0x00020010, "UI", "1.2.840.10008.1.2"), *instance())),
    "bytes behind the end": START + b"\1\2\3",
    "no UIDs": explicit((text(0x00080070, "LO", "Maker"),)),
    "an empty UID": explicit(tuple(Node(node.tag, "UI", b"") for node in instance())),
    "a UID of unknown VR": explicit(tuple(Node(node.tag, "UN", node.value) for node in instance())),
    "an unknown VR inside a signed sequence": START
    + explicit((Node(0x0040A730, "SQ", items=((Node(0x00091001, "UN", b"ab"),),)),)),
    "signature sequence that is no sequence": START + explicit((Node(0xFFFAFFFA, "OB", b"ab"),)),
    "MAC parameters that are no sequence": START + explicit((Node(0x4FFE0001, "OB", b"ab"),)),
    "signature without MAC parameters": START + explicit((Node(0xFFFAFFFA, "SQ", items=(ORPHANED_SIGNATURE,)),)),
    "MAC parameters without a number": START + explicit((Node(0x4FFE0001, "SQ", items=((),)),)),
    "MAC ID number of the wrong size": START
    + explicit((Node(0x4FFE0001, "SQ", items=((Node(0x04000005, "US", b"\1\0\0\0"),),)),)),
}
FRAGMENTS: Final = tag_bytes(0x7FE00010) + b"OB\0\0\xff\xff\xff\xff"
MALFORMED_ENCAPSULATED: Final = {
    "fragments without delimiter": FRAGMENTS + item(b"") + item(b"ab"),
    "fragment of undefined length": FRAGMENTS + item(b"ab", 0xFFFFFFFF) + END_OF_SEQUENCE,
    "fragment longer than the file": FRAGMENTS + item(b"ab", 0xFFFFFFF0) + END_OF_SEQUENCE,
    "element among fragments": FRAGMENTS + item(b"") + CODE + END_OF_SEQUENCE,
    "item delimiter among fragments": FRAGMENTS + item(b"") + END_OF_ITEM + END_OF_SEQUENCE,
    "fragments of a text": tag_bytes(0x0040A160) + b"UT\0\0\xff\xff\xff\xff" + item(b"ab") + END_OF_SEQUENCE,
}
# Unusual, and yet an instance: signed, or refused by choice.
UNUSUAL: Final = {
    "an odd length": START + explicit((Node(0x00204000, "LT", b"abc"),)),
    "an odd length of pixels": START + explicit((Node(0x7FE00010, "OB", b"abc"),)),
    "a length for the delimiter": START + OPEN_SEQUENCE + item(CODE) + tag_bytes(SEQUENCE_END) + b"\4\0\0\0",
    "an unpadded UID": explicit(tuple(Node(node.tag, "UI", b"2.25.5") for node in instance())),
    "no pixel data": START,
    "reserved bytes set": START + tag_bytes(0x7FE00010) + b"OB\1\2\2\0\0\0ab",
    "text that is not ASCII": START + explicit((Node(0x00204000, "LT", b"\xff\xfe"),)),
    "MAC parameters without signatures": START + explicit((Node(0x4FFE0001, "SQ", items=()),)),
    "a nested signature of any content": START
    + explicit((Node(0x0040A730, "SQ", items=((Node(0xFFFAFFFA, "SQ", items=()),),)),)),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_data_set_is_refused(name: str) -> None:
    assert refusal_of(raw_instance(MALFORMED[name]))


@pytest.mark.parametrize("name", MALFORMED_ENCAPSULATED)
def test_malformed_encapsulated_pixel_data_are_refused(name: str) -> None:
    assert refusal_of(raw_instance(START + MALFORMED_ENCAPSULATED[name], RLE_LOSSLESS))


def test_fragments_in_a_native_transfer_syntax_are_refused() -> None:
    assert refusal_of(raw_instance(START + FRAGMENTS + item(b"") + item(b"ab") + END_OF_SEQUENCE))


@pytest.mark.parametrize("name", MALFORMED)
def test_deflating_a_malformed_data_set_does_not_help(name: str) -> None:
    assert refusal_of(raw_instance(deflated(MALFORMED[name]), DEFLATED_EXPLICIT_LITTLE_ENDIAN))


@pytest.mark.parametrize("name", UNUSUAL)
def test_an_unusual_data_set_is_signed_correctly_or_refused(name: str) -> None:
    assert_signed_correctly_or_refused(raw_instance(UNUSUAL[name]))


def test_the_lowest_free_mac_number_is_used_up_to_the_last() -> None:
    def numbered(*numbers: int) -> bytes:
        parameters = (
            (
                number(0x04000005, each),
                text(0x04000010, "UI", EXPLICIT_LITTLE_ENDIAN),
                text(0x04000015, "CS", "SHA256"),
                Node(0x04000020, "AT", tag_bytes(0x00080018)),
            )
            for each in numbers
        )
        return part10((*instance(), Node(0x4FFE0001, "SQ", items=tuple(parameters))))

    assert newest_signature(sign_without_key(numbered(*range(19))).signed).mac_id == 19
    assert newest_signature(sign_without_key(numbered(0, 1, 3)).signed).mac_id == 2
    assert refusal_of(numbered(*range(20))) == "too-many-signatures"


# --- bombs ---

IN_A_SMALL_PROCESS: Final = """
import json, pathlib, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
from agent.errors import DicomError
from tests.support.product_signing import sign_without_key
data = pathlib.Path(sys.argv[1]).read_bytes()
try:
    outcome = "signed" if sign_without_key(data) else ""
except DicomError as refusal:
    outcome = refusal.code
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"outcome": outcome, "peak_kilobytes": peak}))
"""
BOMBS: Final[dict[str, Callable[[], bytes]]] = {
    "deflate bomb of 4 GB": lambda: deflate_bomb(4_000),
    "10,000 nested sequences, closed": lambda: nested_sequences(10_000, undefined_length=False),
    "10,000 nested sequences, open": lambda: nested_sequences(10_000, undefined_length=True),
    "10,000 nested sequences, deflated": lambda: raw_instance(
        deflated(parse_body(nested_sequences(10_000, undefined_length=True))), DEFLATED_EXPLICIT_LITTLE_ENDIAN
    ),
    "300,000 empty items": lambda: many_empty_items(300_000),
    "60,000 private elements": lambda: part10(
        instance(*(Node(0x00110000 | low, "UN") for low in range(0x1000, 0xFFFF)))
    ),
}


def parse_body(data: bytes) -> bytes:
    """What stands behind the file meta information, not looked into."""
    return data[data.index(tag_bytes(0x00080016) + b"UI") :]


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_or_signed_in_bounded_time_and_memory(name: str, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.dcm"
    bomb.write_bytes(BOMBS[name]())
    done = subprocess.run(
        [sys.executable, "-c", IN_A_SMALL_PROCESS, str(bomb), str(MEMORY_BYTES)],
        capture_output=True,
        timeout=SECONDS,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr.decode()[-2_000:]
    assert json.loads(done.stdout)["outcome"]


@pytest.mark.parametrize("undefined_length", [True, False])
def test_moderate_nesting_is_signed(*, undefined_length: bool) -> None:
    data = nested_sequences(16, undefined_length=undefined_length)
    assert assert_signed_correctly_or_refused(data)


def test_a_large_multi_frame_object_is_signed() -> None:
    assert assert_signed_correctly_or_refused(enhanced_multiframe(400))


# --- fuzz ---


def encoded(encoding: str) -> bytes:
    """The small instance in a native encoding."""
    return part10(as_nodes(parse(small_instance()).elements), encoding)


@pytest.mark.parametrize("encoding", NATIVE_ENCODINGS)
def test_every_flipped_bit_is_signed_correctly_or_refused(encoding: str) -> None:
    for mutant in with_each_bit_flipped(encoded(encoding)):
        assert_signed_correctly_or_refused(mutant)


@pytest.mark.parametrize("encoding", NATIVE_ENCODINGS)
def test_mutants_are_signed_correctly_or_refused(encoding: str) -> None:
    count = MUTANTS // len(NATIVE_ENCODINGS)
    for mutant in mutants(encoded(encoding), count, seed=7):
        assert_signed_correctly_or_refused(mutant)
    measured("R13", f"mutants signed rightly or refused, in {encoding}", mutants=count, failures=0)
