"""What is inserted into an instance to sign it: every other byte stays as it was (A.3 of PS3.15: bit-preserving)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from agent.dicom.elements import (
    DIGITAL_SIGNATURES_SEQUENCE,
    MAC_PARAMETERS_SEQUENCE,
    SEQUENCE_DELIMITATION,
    UNDEFINED_LENGTH,
    Encoding,
)
from agent.dicom.outline import Outline, SequenceSpan


@dataclass(frozen=True)
class Edit:
    """Bytes that take the place of `remove` bytes at `offset`.

    `remove` is 0, but for the length field of a signature sequence that was there before, and for the body of a
    deflated instance.
    """

    offset: int
    remove: int
    insert: bytes = field(repr=False)


def insertions(outline: Outline, encoding: Encoding, mac_item: bytes, signature_item: bytes) -> tuple[Edit, ...]:
    """The edits that add a signature, in order of their offsets, not overlapping.

    Args:
        outline: Of the data set.
        encoding: Of the data set.
        mac_item: The encoded item for the MAC Parameters Sequence (4FFE,0001).
        signature_item: The encoded item for the Digital Signatures Sequence (FFFA,FFFA).
    """
    return (
        *_add_item(MAC_PARAMETERS_SEQUENCE, outline.mac_parameters, outline.mac_parameters_offset, mac_item, encoding),
        *_add_item(
            DIGITAL_SIGNATURES_SEQUENCE, outline.signatures, outline.signatures_offset, signature_item, encoding
        ),
    )


def _add_item(tag: int, span: SequenceSpan | None, offset: int, item: bytes, encoding: Encoding) -> Iterator[Edit]:
    if span is None:
        yield Edit(offset, 0, encoding.header(tag, b"SQ", len(item)) + item)
    elif span.length == UNDEFINED_LENGTH:
        delimiter = len(encoding.item_header(SEQUENCE_DELIMITATION, 0))
        yield Edit(span.end - delimiter, 0, item)
    else:
        # The length is the last field of the header in every encoding.
        yield Edit(span.start + span.header_size - 4, 4, struct.pack(encoding.order + "I", span.length + len(item)))
        yield Edit(span.end, 0, item)


def spliced(size: int, edits: Sequence[Edit]) -> Iterator[tuple[int, int] | bytes]:
    """The signed instance as ranges of the original (start, stop) and inserted bytes, in order.

    Args:
        size: Bytes of the original.
        edits: In order of their offsets.
    """
    position = 0
    for edit in edits:
        if position < edit.offset:
            yield position, edit.offset
        yield edit.insert
        position = edit.offset + edit.remove
    if position < size:
        yield position, size
