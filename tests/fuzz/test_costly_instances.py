"""An instance of a few megabytes costs a verifier seconds and not minutes, and less than a gigabyte."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from agent.dicom.diagnosis.patience import DIAGNOSIS_WORK
from tests.support.costly_instances import (
    MANY,
    MOST_SIGNATURES,
    combining_characters,
    compressed_later,
    in_many_fragments,
    inflated_pixels,
    inflated_source_macs,
    item,
    left_out,
    many_purposes,
    nested,
    nested_signatures,
    sequence,
    signatures_around_signatures,
    with_sequence,
)
from tests.support.golden_objects import CONTENT_SEQUENCE
from tests.support.signed_seeds import JPEG, RLE

SECONDS: Final = 20  # of the processor; half of it on the machine where this was written
MEMORY: Final = 1 << 30  # bytes beyond what the program takes itself
ROOT: Final = Path(__file__).parents[2]

VERIFY: Final = """
import json, pathlib, resource, sys
from agent.cli.verification_text import text_of
from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.signer_chain import TrustMaterial
from agent.dicom.verify import Verification, Verifier
from agent.policy.evaluate import evaluate
from agent.policy.judgement import Receipt
from agent.verification_document import document_of
from enroll.errors import ScansealError
from tests.support.pki import NOW
from tests.support.signed_seeds import authority

data, seconds = pathlib.Path(sys.argv[1]).read_bytes(), int(sys.argv[2])
trust = TrustMaterial((authority().certificate,))
verification = Verification(load_profile(ProfileName.CREATOR_PLUS), NOW, trust, diagnosis_work=int(sys.argv[4]))
taken = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + int(sys.argv[3]),) * 2)
used = resource.getrusage(resource.RUSAGE_SELF)
resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + seconds + 1,) * 2)
try:
    report = Verifier(verification).verify(data)
except ScansealError as refusal:
    print(refusal.code)
else:
    judgement = evaluate(report, Receipt(NOW), None, NOW)
    text_of(pathlib.Path("costly.dcm"), report, judgement, None)
    json.dumps(document_of(report, judgement, None))
    print(judgement.verdict)
spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
taken = sum(each.ru_utime + each.ru_stime for each in spent) - used.ru_utime - used.ru_stime
sys.exit(f"{taken:.1f} seconds" if taken > seconds else 0)
"""

SOURCE_IMAGES, CONTRIBUTING_EQUIPMENT, ORIGINAL_ATTRIBUTES, PER_FRAME = 0x00082112, 0x0018A001, 0x04000561, 0x52009230
INSTANCES: Final[dict[str, Callable[[], bytes]]] = {
    "900,000 empty items": lambda: with_sequence(CONTENT_SEQUENCE, item() * MANY),
    "900,000 empty items, 30 deep": lambda: with_sequence(
        CONTENT_SEQUENCE, item(nested(28, sequence(CONTENT_SEQUENCE, item() * MANY)))
    ),
    "900,000 empty items under 20 signatures": lambda: with_sequence(
        CONTENT_SEQUENCE, item() * MANY, count=MOST_SIGNATURES
    ),
    "100,000 sources": lambda: with_sequence(SOURCE_IMAGES, item() * 100_000),
    "100,000 pieces of equipment": lambda: with_sequence(CONTRIBUTING_EQUIPMENT, item() * 100_000),
    "100,000 recorded changes": lambda: with_sequence(ORIGINAL_ATTRIBUTES, item() * 100_000),
    "300,000 frames with a derivation": lambda: with_sequence(PER_FRAME, item(sequence(0x00089124, item())) * 300_000),
    "270,000 series": lambda: with_sequence(
        0x00089154, item(sequence(0x00081115, item(sequence(0x00081199, b"")) * 9)) * 30_000
    ),
    "90,000 algorithms of segments": lambda: with_sequence(
        0x00620002, item(sequence(0x00620007, item(sequence(0x0066002F, item() * 7)) * 9)) * 10_000
    ),
    "900,000 MACs of one source": lambda: with_sequence(SOURCE_IMAGES, item(sequence(0x04000403, item() * 880_000))),
    "20 nested signatures behind 900,000 items": lambda: nested_signatures(0, MANY),
    "20 nested signatures, 28 deep, beside 850,000 items": lambda: nested_signatures(28, 850_000),
    "400 nested signatures around 900,000 items": lambda: signatures_around_signatures(
        sequence(CONTENT_SEQUENCE, item() * MANY)
    ),
    "900,000 elements that 20 signatures leave out": lambda: left_out(16),
    "900,000 fragments under 20 signatures": lambda: in_many_fragments(RLE, 1, b""),
    "900,000 frames under 20 signatures": lambda: in_many_fragments(JPEG, MANY, b"\xff\xd8\xff\xe0"),
    "900,000 purposes of one signature": lambda: many_purposes(MANY),
    "names of 65 KB of accents": combining_characters,
    "pixels that inflate to 600 MB": lambda: inflated_pixels(600),
    "MACs of sources that inflate to 130 MB": lambda: inflated_source_macs(2_000),
}


DIAGNOSED: Final[dict[str, Callable[[], bytes]]] = {
    "900,000 empty items": INSTANCES["900,000 empty items"],
    "900,000 empty items, 30 deep": INSTANCES["900,000 empty items, 30 deep"],
    "900,000 modified attributes": lambda: with_sequence(
        ORIGINAL_ATTRIBUTES, item(sequence(0x04000550, item() * 90_000)) * 10
    ),
    "an image of 255 MB that was compressed later": lambda: compressed_later(1),
    "an image of 255 MB that was compressed later, 20 signatures": lambda: compressed_later(MOST_SIGNATURES),
    "an image of 127 MB that was compressed later, 20 signatures": lambda: compressed_later(MOST_SIGNATURES, 170),
    "an image of 20 MB that was compressed later, 20 signatures": lambda: compressed_later(MOST_SIGNATURES, 27),
}


def verify(data: bytes, folder: Path, diagnosis_work: int) -> None:
    """Verify in a process that may take so much and no more."""
    file = folder / "costly.dcm"
    file.write_bytes(data)
    arguments = (str(file), str(SECONDS), str(MEMORY), str(diagnosis_work))
    done = subprocess.run(
        [sys.executable, "-c", VERIFY, *arguments], capture_output=True, timeout=300, check=False, cwd=ROOT, text=True
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    assert done.stdout


@pytest.mark.parametrize("name", INSTANCES)
def test_verifying_costs_seconds_and_less_than_a_gigabyte(name: str, tmp_path: Path) -> None:
    verify(INSTANCES[name](), tmp_path, diagnosis_work=0)


@pytest.mark.parametrize("name", DIAGNOSED)
def test_a_diagnosis_costs_seconds_and_less_than_a_gigabyte(name: str, tmp_path: Path) -> None:
    verify(DIAGNOSED[name](), tmp_path, DIAGNOSIS_WORK)
