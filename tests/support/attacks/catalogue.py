"""All entries, and the document that shows them.

To write docs/attacks.md anew: `python -m tests.support.attacks.catalogue`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.support.attacks import (
    accidents,
    coverage,
    mac_parameters,
    pixels,
    provenance,
    recompressed,
    replay,
    signature_items,
    structure,
    times,
    who_signed,
)
from tests.support.attacks.flips import CONSEQUENCES, parts, uncovered
from tests.support.attacks.images import ct_slice
from tests.support.attacks.limits import LIMITS
from tests.support.attacks.registry import Attack, Dcmsign, Family, Limit

DOCUMENT: Final = Path(__file__).parents[3] / "docs" / "attacks.md"
FAMILIES: Final = (
    Family("Two readers, and corners where nobody looks", structure.ATTACKS),
    Family("The signature item", signature_items.ATTACKS),
    Family("The MAC parameters", mac_parameters.ATTACKS),
    Family("What is not covered", coverage.ATTACKS),
    Family("Pixels and fragments", pixels.ATTACKS),
    Family("Pixels compressed after signing", recompressed.ATTACKS),
    Family("Who signed", who_signed.ATTACKS),
    Family("When", times.ATTACKS),
    Family("Exchanged and replayed", replay.ATTACKS),
    Family("Why, and from what", provenance.ATTACKS),
    Family("Accidents", accidents.ATTACKS),
)
ATTACKS: Final = tuple(attack for family in FAMILIES for attack in family.attacks)


def honest_files() -> dict[Callable[[], bytes], tuple[str, ...]]:
    """What the attacks start from, and what is found of it untouched."""
    return {attack.honest: attack.known for attack in ATTACKS} | {limit.honest: () for limit in LIMITS}


_INTRODUCTION: Final = """\
# Attacks and accidents

What can be done to a signed image, by intent or by accident, and what scanseal says to it. The honest images are signed
under `creator-plus` by a scanner whose certificate names it, and raise nothing. A test changes each as described,
verifies it, and checks that the named finding is there and that the result is not accepted.

- *found* names the fact and the code of the finding. `refused` means that the file is not well-formed, or that two
  programs could understand it differently; nothing else is said of it then. `instance` is what concerns the file as a
  whole, `nested` a signature inside of the data set.
- *dcmsign* is what `dcmsign --verify +rc` of DCMTK 3.6.7, the other free implementation, says to the same file, given
  the same certificates and revocation lists.

"""

_LIMITS: Final = """
## What no signature shows

These changes raise nothing. They are listed, and tested, so that nobody relies on more than there is.

| name | what is done | why it is not noticed, and what helps |
|---|---|---|
"""

_FLIPS: Final = """
## Every byte of a small file

Of a small signed image every bit was changed (of the signature item, one bit of each byte).

| where | bytes | a change of one bit is |
|---|---|---|
"""

_CLOSING: Final = """
This page is written by `python -m tests.support.attacks.catalogue`. Its proof is in `tests/hostile/test_attacks.py`
and, for the last column, in `tests/interop/test_attacks_by_dcmsign.py`.
"""


def document() -> str:
    """The content of docs/attacks.md."""
    return "".join(_pieces())


def _pieces() -> Iterator[str]:
    accepted = sum(attack.dcmsign is Dcmsign.ACCEPTS for attack in ATTACKS)
    yield _INTRODUCTION
    yield f"{len(ATTACKS)} attacks and accidents; dcmsign accepts {accepted} of them.\n"
    for family in FAMILIES:
        yield f"\n## {family.title}\n\n| name | what is done | found | dcmsign |\n|---|---|---|---|\n"
        yield from map(_attack_row, family.attacks)
    yield _LIMITS
    yield from map(_limit_row, LIMITS)
    yield _FLIPS
    sizes = Counter(parts(ct_slice()))
    yield from (f"| {part} | {sizes[part]} | {consequence} |\n" for part, consequence in CONSEQUENCES.items())
    yield f"\nNot covered in this image: {', '.join(map(_name, uncovered()))}.\n"
    yield _CLOSING


def _attack_row(attack: Attack) -> str:
    findings = ", ".join(f"`{finding}`" for finding in attack.findings)
    return f"| {attack.name} | {attack.what} | {findings} | {attack.dcmsign} |\n"


def _limit_row(limit: Limit) -> str:
    listed = "" if limit.listed is None else f" The report lists {_name(limit.listed)} as not covered."
    return f"| {limit.name} | {limit.what} | {limit.why}{listed} |\n"


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
