"""Whatever is done to a signed instance: verifying it ends in an error of ours or a report, in little time and memory.

And what is called intact is what was signed. What is tried is in `tests/support/mutation.py`; more of it, by
`scripts/fuzz COUNT SEED`. What was found so stands at the end, made by hand.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from agent.dicom.headers import DEFAULT_LIMITS
from agent.dicom.stored_instance import StoredInstance
from agent.errors import DicomError
from enroll.der import SEQUENCE, encode, object_identifier
from tests.support.costly_instances import certificate, item, sequence
from tests.support.dicom_samples import explicit, raw_instance
from tests.support.dicom_tree import (
    DIGITAL_SIGNATURES,
    ITEM,
    ITEM_END,
    MAC_PARAMETERS,
    SEQUENCE_END,
    UNDEFINED,
    tag_bytes,
)
from tests.support.golden_objects import CONTENT_SEQUENCE
from tests.support.mutation import Mutator
from tests.support.product_signing import sign_without_key
from tests.support.raw_dicom import Node, Nodes, instance, part10, text
from tests.support.reliability.measured import measured
from tests.support.signed_seeds import PIXELS, RLE, RLE_FRAME, image, in_order, seed, seeds
from tests.support.verifier_fuzz import Tally, VerifierFuzzer

MUTANTS: Final = 100_000
PARTS: Final = 8  # which run beside each other
DIAGNOSED: Final = 2_000
SECONDS: Final = 5  # for one mutant; hundreds are done in one
MEGABYTES: Final = 200
ROOT: Final = Path(__file__).parents[2]


def fuzzed(count: int, number: int, *options: str) -> dict[str, Any]:
    """What became of the mutants."""
    command = [sys.executable, "-m", "scripts.fuzz_verifier", str(count), str(number), *options]
    done = subprocess.run(command, capture_output=True, timeout=600, check=False, cwd=ROOT, text=True)
    assert done.returncode in {0, 1}, done.stderr[-2_000:]
    tally: dict[str, Any] = json.loads(done.stdout)
    return tally


def assert_harmless(tally: dict[str, Any]) -> None:
    assert tally["failures"] == []
    assert tally["slowest"] < SECONDS
    assert tally["peak_megabytes"] < MEGABYTES


@pytest.mark.parametrize("part", range(PARTS))
def test_mutants_are_refused_or_reported(part: int) -> None:
    count = MUTANTS // PARTS
    tally = fuzzed(count, part)
    assert_harmless(tally)
    # The mutants still are such that all of the verifier is tried.
    assert tally["reported"] > count / 3
    assert tally["compared"] > count / 25
    assert len(tally["refused"]) > 12
    slowest = round(tally["slowest"], 2)
    measured("R13", f"mutants verified, part {part} of {PARTS}", mutants=count, failures=0, slowest_seconds=slowest)


def test_mutants_are_diagnosed_within_bounds() -> None:
    assert_harmless(fuzzed(DIAGNOSED, PARTS, "--diagnose"))


def test_a_mutant_is_the_same_in_every_run() -> None:
    assert [Mutator(seeds(), 1).mutant(number) for number in range(20, 30)] == [
        Mutator(seeds(), 1).mutant(number) for number in range(20, 30)
    ]


def test_the_mutants_begin_as_valid_instances() -> None:
    fuzzer, tally = VerifierFuzzer(diagnose=True), Tally()
    for start in seeds():
        fuzzer.examine(start.data, tally)
    assert tally.reported == len(seeds())
    assert tally.intact > len(seeds())


# --- what was found: errors that were not ours ---


def with_certificate(stored: bytes) -> bytes:
    """A signed report whose certificate, which no MAC covers, was exchanged for another one of the same key."""

    def exchanged(nodes: Nodes) -> Nodes:
        return tuple(replace(node, value=stored) if node.tag == 0x04000115 else node for node in nodes)

    return part10(
        tuple(
            replace(node, items=tuple(map(exchanged, node.items)))
            if node.tag == DIGITAL_SIGNATURES and node.items
            else node
            for node in seed("a report", instance()).nodes
        )
    )


def common_name(tag: int, value: bytes) -> bytes:
    """A relative distinguished name of one attribute."""
    return encode(SEQUENCE, object_identifier("2.5.4.3") + encode(tag, value))


def name_of(*relative_names: bytes) -> bytes:
    return encode(SEQUENCE, b"".join(encode(0x31, each) for each in relative_names))


UNREADABLE: Final[dict[str, Callable[[], bytes]]] = {
    "an item that holds nothing but signatures": lambda: part10(
        instance(Node(CONTENT_SEQUENCE, "SQ", items=((Node(DIGITAL_SIGNATURES, "SQ", items=((),)),),)))
    ),
    "signatures in the MAC parameters of an empty data set": lambda: raw_instance(
        sequence(MAC_PARAMETERS, item(sequence(DIGITAL_SIGNATURES, item())))
    ),
    "two signs in front of the number of frames": lambda: (
        seed(
            "frames", image(text(0x00280008, "IS", "+-5"), Node(0x7FE00010, "OB", fragments=(b"", RLE_FRAME))), RLE
        ).data
    ),
    "a subject that is not UTF-8": lambda: with_certificate(certificate(name_of(common_name(0x0C, b"\xc3\x28")))),
    "a subject of an empty name": lambda: with_certificate(certificate(name_of(b""))),
    "a subject that names the same twice": lambda: with_certificate(certificate(name_of(common_name(0x0C, b"A") * 2))),
    "a subject that is no text": lambda: with_certificate(certificate(name_of(common_name(0x03, b"\0A")))),
    "a subject without a letter": lambda: with_certificate(certificate(name_of(common_name(0x0C, b"")))),
    "an issuer that is not UTF-8": lambda: with_certificate(
        certificate().replace(b"Hospital CA", b"Hospital\xc3\x28A")
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_an_error_of_ours_or_a_finding(name: str) -> None:
    VerifierFuzzer(diagnose=False).examine(UNREADABLE[name](), Tally())


# --- what was found: instances that two readers see differently ---


def hidden_behind(delimiter: int, vr: bytes, *, nodes: Nodes, tag: int) -> bytes:
    """An uncovered sequence in which a delimiter has a VR, a length and a value.

    A reader that takes it for an element sees nothing particular. To others the sequence ends there, and the value is
    what follows: another patient, other pixels, and an element that hides the genuine ones.
    """
    genuine = b"".join(explicit((node,)) for node in nodes if node.tag > tag)
    others = {0x00100010: b"Evil^Eve", 0x7FE00010: b"\xff" * 16}
    forged = explicit(tuple(replace(n, value=others.get(n.tag, n.value)) for n in nodes if n.tag > tag))
    ends = tag_bytes(ITEM_END) + bytes(4) + tag_bytes(SEQUENCE_END) + bytes(4)
    swallowing = tag_bytes(0xFFFCFFFC) + b"OB\0\0" + struct.pack("<L", len(ends) + len(genuine))
    value = ends[8 if delimiter == ITEM_END else 16 :] + forged + swallowing
    start = tag_bytes(tag) + b"SQ\0\0" + struct.pack("<L", UNDEFINED) + tag_bytes(ITEM) + struct.pack("<L", UNDEFINED)
    delimiting = tag_bytes(delimiter) + vr + struct.pack("<H", len(value)) + value
    before = b"".join(explicit((node,)) for node in nodes if node.tag < tag)
    return raw_instance(before + start + delimiting + ends + genuine)


@pytest.mark.parametrize("delimiter", [ITEM_END, SEQUENCE_END, ITEM])
@pytest.mark.parametrize("vr", [b"LO", b"UI", b"US"])
def test_a_delimiter_with_a_vr_is_no_element(delimiter: int, vr: bytes) -> None:
    """PS3.5 7.5: items and delimiters have no VR. Otherwise an image is valid here and another one everywhere else."""
    signed = hidden_behind(delimiter, vr, nodes=seed("image", image(PIXELS)).nodes, tag=0x00081110)
    with pytest.raises(DicomError):
        StoredInstance.read(signed, DEFAULT_LIMITS)
    unsigned = hidden_behind(delimiter, vr, nodes=in_order(*image(PIXELS)), tag=0x00081110)
    with pytest.raises(DicomError):
        sign_without_key(unsigned)


def test_a_delimiter_with_a_vr_is_no_element_of_an_item_of_known_length() -> None:
    content = explicit((text(0x00080100, "SH", "1"),)) + tag_bytes(ITEM_END) + b"IS\6\x001\\2\\3 "
    with pytest.raises(DicomError):
        StoredInstance.read(
            raw_instance(explicit(instance()) + sequence(CONTENT_SEQUENCE, item(content))), DEFAULT_LIMITS
        )
