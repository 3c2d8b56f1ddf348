"""Damages DICOM instances in the ways that break readers: their trees, their headers, their bytes.

    mutator = Mutator(seeds(), seed=1)
    damaged = mutator.mutant(42)

The same seed and number give the same mutant. About half of them are still well-formed, so that what lies behind the
reader is reached as well; and as lengths, encodings and the order of signatures are changed too, some are still intact.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from tests.support.dicom_tree import (
    DEFLATED_EXPLICIT_LITTLE_ENDIAN,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    SHORT_VRS,
    UNDEFINED,
)
from tests.support.raw_dicom import NATIVE_ENCODINGS, SECONDARY_CAPTURE, Nodes, Writer, with_meta
from tests.support.signed_seeds import Seed
from tests.support.tree_mutation import (
    DAMAGES,
    DAMAGES_OF_SEQUENCES,
    VRS,
    Chance,
    flipped,
    in_signatures,
    other_tag,
    somewhere,
    spliced,
)

SYNTAXES: Final = (*NATIVE_ENCODINGS, *(f"1.2.840.10008.1.2.{end}" for end in ("5", "1.98", "8.1", "4.50", "4.90")))
MORE_VRS: Final = ("UR", "US", "UT", "UV", "ZZ", "us", "\0\0")
LENGTHS: Final = (0, 1, 2, 7, 8, 0x7F, 0xFF, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, UNDEFINED)
FIRST_DAMAGED: Final = 100  # byte; the preamble before it is hardly looked at
MOST_LIES: Final = 80  # headers and markers of an instance that may lie

# A place in the bytes, the place behind it, and another instance: what is done there.
DamageOfBytes: TypeAlias = Callable[[bytearray, slice, bytes, Chance], None]


class Mutator:
    """Makes mutants.

    Args:
        corpus: What they are made of.
        seed: Of the random numbers.
    """

    def __init__(self, corpus: Sequence[Seed], seed: int) -> None:
        self._corpus = corpus
        self._seed = seed

    def mutant(self, number: int) -> bytes:
        """The mutant of that number, which does not depend on those before."""
        chance = random.Random(f"{self._seed}:{number}")  # noqa: S311 - the same mutants in every run
        origin, other = chance.choice(self._corpus), chance.choice(self._corpus)
        kind = chance.random()
        if kind < 0.3:
            return bytes_damaged(origin.data, other.data, chance, times=chance.randint(1, 3))
        nodes = origin.nodes
        for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
            nodes = tree_damaged(nodes, other.nodes, chance)
        data = written(nodes, origin.transfer_syntax, chance, lying=kind < 0.5)
        return bytes_damaged(data, other.data, chance, times=1) if kind > 0.93 else data


def tree_damaged(nodes: Nodes, other: Nodes, chance: Chance) -> Nodes:
    """Damage one thing in a data set; `other` is that of another instance."""
    kind = chance.randrange(20)
    if kind == 0:
        return somewhere(nodes, chance, lambda here, _: spliced(here, other, chance))
    if kind < 6:
        return in_signatures(nodes, chance)
    return somewhere(nodes, chance, chance.choice(DAMAGES_OF_SEQUENCES if kind < 9 else DAMAGES))


# --- headers ---


def written(nodes: Nodes, transfer_syntax: str, chance: Chance, *, lying: bool) -> bytes:
    """A file of these nodes, in which headers may lie; now and then in another transfer syntax."""
    in_fragments = any(node.fragments is not None for node in nodes)
    if chance.random() < 0.15 and not in_fragments:
        transfer_syntax = chance.choice(NATIVE_ENCODINGS)
    lies = [chance.randrange(MOST_LIES) for _ in range(chance.randint(1, 2))] if lying else []
    body = DamagingWriter(transfer_syntax, chance, frozenset(lies)).data_set(nodes)
    if chance.random() < 0.02:
        transfer_syntax = chance.choice(SYNTAXES)
    if transfer_syntax == DEFLATED_EXPLICIT_LITTLE_ENDIAN:
        body = _deflated(body, chance)
    return with_meta(body, transfer_syntax, sop_class=SECONDARY_CAPTURE, sop_instance="2.25.2")


class DamagingWriter(Writer):
    """Writes nodes, and lies in some of the headers and markers.

    Args:
        transfer_syntax: In which encoding.
        chance: Decides what the lies are.
        lies: The numbers of the headers and markers that lie, in the order of writing.
    """

    def __init__(self, transfer_syntax: str, chance: Chance, lies: frozenset[int]) -> None:
        super().__init__(transfer_syntax)
        self._written = 0
        self._chance = chance
        self._lies = lies

    def header(self, tag: int, vr: str, length: int) -> bytes:
        """Tag, VR and length, one of them wrong."""
        right = self._fitting(tag, vr, length)
        if not self._lies_now():
            return right
        wrong = (
            self._fitting(tag, vr, _other_length(length, self._chance)),
            self._fitting(other_tag(tag, self._chance), vr, length),
            self._fitting(tag, self._chance.choice((*VRS, *MORE_VRS)), length),
            flipped(right, self._chance),
            right * 2,
            b"",
        )
        return self._chance.choice(wrong)

    def marker(self, tag: int, length: int) -> bytes:
        """An item tag or a delimiter, misplaced or with a wrong length."""
        right = super().marker(tag, length)
        if not self._lies_now():
            return right
        wrong = (
            super().marker(tag, _other_length(length, self._chance)),
            super().marker(self._chance.choice((ITEM, ITEM_END, SEQUENCE_END, 0x00080005)), length),
            super().marker(self._chance.choice((ITEM, ITEM_END)), 0) + right,
            flipped(right, self._chance),
            b"",
        )
        return self._chance.choice(wrong)

    def _lies_now(self) -> bool:
        self._written += 1
        return self._written - 1 in self._lies

    def _fitting(self, tag: int, vr: str, length: int) -> bytes:
        return super().header(tag, vr, length & (0xFFFF if self.explicit and vr in SHORT_VRS else 0xFFFFFFFF))


def _other_length(length: int, chance: Chance) -> int:
    near = (length + offset for offset in (-2, -1, 1, 2, 8))
    return chance.choice((*near, *LENGTHS, length * 2, length // 2)) & 0xFFFFFFFF


def _deflated(body: bytes, chance: Chance) -> bytes:
    """Deflated (PS3.5 A.5), now and then in an odd way or with something behind it."""
    deflater = zlib.compressobj(chance.choice((0, 6, 6, 9)), wbits=-zlib.MAX_WBITS)
    half = len(body) // 2
    stream = deflater.compress(body[:half])
    if chance.random() < 0.2:
        stream += deflater.flush(chance.choice((zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH)))
    stream += deflater.compress(body[half:]) + deflater.flush()
    trailer = struct.pack("<LL", zlib.crc32(body), len(body))
    kind = chance.random()
    if kind < 0.15:
        return stream + chance.choice((trailer, trailer + b"\0", trailer[::-1], b"\0\0", b"\0", stream))
    return flipped(stream, chance) if kind < 0.25 else stream + b"\0" * (len(stream) % 2)


# --- bytes ---


def bytes_damaged(data: bytes, other: bytes, chance: Chance, *, times: int) -> bytes:
    """Change some bytes of a file; `other` is another one."""
    mutant = bytearray(data)
    for _ in range(times):
        at = _any_place(mutant, chance)
        chance.choice(DAMAGES_OF_BYTES)(mutant, slice(at, at + chance.randint(1, 12)), other, chance)
    return bytes(mutant)


def _bit(mutant: bytearray, here: slice, _: bytes, chance: Chance) -> None:
    mutant[here] = flipped(bytes(mutant[here]), chance)


def _byte(mutant: bytearray, here: slice, _: bytes, chance: Chance) -> None:
    mutant[here.start : here.start + 1] = chance.choice((b"\0", b"\1", b"\x7f", b"\x80", b"\xfe", b"\xff", b"\\"))


def _noise(mutant: bytearray, here: slice, _: bytes, chance: Chance) -> None:
    mutant[here] = chance.randbytes(here.stop - here.start)


def _without(mutant: bytearray, here: slice, _other: bytes, _chance: Chance) -> None:
    del mutant[here]


def _twice(mutant: bytearray, here: slice, _other: bytes, _chance: Chance) -> None:
    mutant[here.start : here.start] = mutant[here]


def _length(mutant: bytearray, here: slice, _: bytes, chance: Chance) -> None:
    mutant[here.start : here.start + 4] = struct.pack(chance.choice("<>") + "L", chance.choice(LENGTHS))


def _ending_of_another(mutant: bytearray, here: slice, other: bytes, chance: Chance) -> None:
    mutant[here.start :] = other[_any_place(other, chance) :]


def _cut_off(mutant: bytearray, here: slice, _other: bytes, _chance: Chance) -> None:
    del mutant[here.start :]


def _longer(mutant: bytearray, here: slice, _: bytes, chance: Chance) -> None:
    mutant += chance.choice((b"\0", bytes(8), chance.randbytes(chance.randint(1, 40)), mutant[here.start :]))


def _exchanged(mutant: bytearray, here: slice, _: bytes, chance: Chance) -> None:
    there = _any_place(mutant, chance)
    run = mutant[here]
    mutant[here] = mutant[there : there + len(run)]
    mutant[there : there + len(run)] = run


DAMAGES_OF_BYTES: Final[Sequence[DamageOfBytes]] = (
    *(_bit, _bit, _byte, _noise, _without, _twice, _length, _ending_of_another, _cut_off, _longer, _exchanged),
)


def _any_place(data: bytes | bytearray, chance: Chance) -> int:
    return chance.randrange(FIRST_DAMAGED, max(FIRST_DAMAGED + 1, len(data)))
