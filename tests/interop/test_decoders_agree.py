"""A viewer has another decoder: whatever is restored from a codestream, DCMTK shows as well, or refuses.

Codestreams of real encoders and of our own are damaged or rebuilt in many ways. That most mutants are refused does not
matter; that those which are not mean the same to both does.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from agent.dicom.diagnosis.codestream_shape import check_shape
from agent.dicom.diagnosis.decoding_process import DECODERS
from agent.dicom.diagnosis.decoding_request import Request
from agent.dicom.elements import PIXEL_DATA
from tests.support.dicom_samples import ct_slice
from tests.support.dicom_tools import filtered, needs_dcmtk
from tests.support.dicom_tree import find, parse
from tests.support.lossless_encoders import even, lossless_jpeg
from tests.support.raw_dicom import Node, instance, number, part10, text

pytestmark = needs_dcmtk

STANDARD: Final = "1.2.840.10008.1.2."
EDGE: Final = 16  # pixels
MUTANTS: Final = 700  # of each compression
INTERESTING: Final = (0x00, 0x01, 0x02, 0x07, 0x0F, 0x7F, 0x80, 0xC4, 0xD0, 0xD7, 0xDA, 0xDD, 0xFE, 0xFF)


def frame_of(data: bytes) -> bytes:
    """The only frame of an instance."""
    pixels = find(parse(data).elements, PIXEL_DATA)
    assert pixels is not None
    assert pixels.fragments is not None
    return pixels.fragments[1]


def seeds(ending: str) -> list[bytes]:
    image = ct_slice(EDGE, EDGE)
    match ending:
        case "4.70":
            rows = [[row * column * 37 & 0xFFFF for column in range(EDGE)] for row in range(EDGE)]
            return [frame_of(filtered(image, "dcmcjpeg", "+e1")), lossless_jpeg(rows)]
        case "4.57":
            return [frame_of(filtered(image, "dcmcjpeg", "+el", "+sv", str(value))) for value in range(2, 8)]
        case "4.80":
            return [frame_of(filtered(image, "dcmcjpls"))]
        case _:
            return [frame_of(filtered(image, "dcmcrle"))]


def mutants(originals: list[bytes], count: int) -> Iterator[bytes]:
    """Bytes changed, put in, taken out; pieces moved within a codestream and from one to another."""
    chance = random.Random(count)  # noqa: S311 - the same in every run
    for _ in range(count):
        mutant = bytearray(chance.choice(originals))
        for _ in range(chance.choice((1, 1, 1, 2))):
            at = chance.randrange(len(mutant))
            match chance.randrange(6):
                case 0:
                    mutant[at] ^= 1 << chance.randrange(8)
                case 1:
                    mutant[at] = chance.choice(INTERESTING)
                case 2:
                    mutant[at:at] = bytes(chance.choices(INTERESTING, k=chance.randint(1, 4)))
                case 3:
                    del mutant[at : at + chance.randint(1, 3)]
                case 4:
                    other = chance.choice(originals)
                    start = chance.randrange(len(other))
                    mutant[at:at] = other[start : start + chance.randint(2, 40)]
                case _:
                    mutant[-chance.randint(2, 8) : -2] = bytes(chance.choices(INTERESTING, k=2))
        yield even(bytes(mutant))


def described(ending: str, frame: bytes) -> bytes:
    """An instance with such a frame."""
    nodes = instance(
        number(0x00280002, 1),
        text(0x00280004, "CS", "MONOCHROME2"),
        number(0x00280010, EDGE),
        number(0x00280011, EDGE),
        number(0x00280100, 16),
        number(0x00280101, 16),
        number(0x00280102, 15),
        number(0x00280103, 0),
        Node(PIXEL_DATA, "OB", fragments=(b"", frame)),
    )
    return part10(nodes, STANDARD + ending)


def ours(ending: str, frame: bytes) -> bytes | None:
    """What is restored; None if nothing."""
    request = Request(
        STANDARD + ending, "MONOCHROME2", EDGE, EDGE, 1, 16, 16, signed=False, seconds=1, frames=(len(frame),)
    )
    try:
        check_shape(request, frame)
        return DECODERS[request.transfer_syntax][1](request, frame)
    except Exception:  # noqa: BLE001 - the process that decodes ends with whatever it is
        return None


def theirs(program: str, folder: Path) -> Callable[[tuple[int, bytes]], bytes | None]:
    """What DCMTK shows; None if nothing."""

    def decoded(numbered: tuple[int, bytes]) -> bytes | None:
        index, data = numbered
        source, target = folder / f"{index}.dcm", folder / f"{index}.native.dcm"
        source.write_bytes(data)
        done = subprocess.run([program, source, target], capture_output=True, check=False, timeout=60)
        if done.returncode:
            return None
        pixels = find(parse(target.read_bytes()).elements, PIXEL_DATA)
        return pixels.value if pixels else None

    return decoded


@pytest.mark.parametrize(
    ("ending", "program", "library"),
    [("4.70", "dcmdjpeg", ""), ("4.57", "dcmdjpeg", ""), ("4.80", "dcmdjpls", "_CharLS"), ("5", "dcmdrle", "")],
)
def test_what_is_restored_is_what_dcmtk_shows(ending: str, program: str, library: str, tmp_path: Path) -> None:
    if library:
        pytest.importorskip(library, reason="no decoder: pip install 'scanseal[decompress]'")
    originals = seeds(ending)
    restored = {
        frame: pixels
        for frame in (*originals, *mutants(originals, MUTANTS))
        if (pixels := ours(ending, frame)) is not None
    }
    instances = [described(ending, frame) for frame in restored]
    with ThreadPoolExecutor(2) as pool:
        shown = list(pool.map(theirs(program, tmp_path), enumerate(instances)))

    assert shown[: len(originals)] == list(restored.values())[: len(originals)]
    differing = [
        frame.hex() for frame, other in zip(restored, shown, strict=True) if other not in {None, restored[frame]}
    ]
    assert differing == []
