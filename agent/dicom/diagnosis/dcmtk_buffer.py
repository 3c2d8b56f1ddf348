"""How DCMTK's dcmsign loses bytes of deeply nested sequences, so that its signatures can be told from tampering.

dcmsign hashes through a buffer of 16,384 bytes (dcmsign/libsrc/simaccon.cc). Whenever the buffer has no room for what
comes next, the writers return, the buffer is hashed, and the writing of the element of the data set is taken up again
where the list cursors of its sequences and items stand. On the way back in, the item of the outermost sequence asks
the sequence inside it once more whether it may be signed (`DcmItem::writeSignatureFormat`), and that question runs all
cursors below it to their ends (`DcmSequenceOfItems::containsUnknownVR`). So when the buffer overflows inside a sequence
that is in an item of another, what is left of the inner sequence is never hashed, but for its delimiter.

The same happens when dcmsign verifies, so it agrees with itself and with nobody else. Fit for explaining such a
signature only: what was left out, anybody may change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agent.dicom.diagnosis.readings import Piece

BUFFER_SIZE = 16_384  # bytes; SiMACConstructor_BlockSize


def through_dcmtk_buffer(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """What dcmsign hashes of a byte stream."""
    room = BUFFER_SIZE
    losing = False
    for piece in pieces:
        if losing and piece.level > 1:
            continue
        losing = False
        size = len(piece.data)
        if max(piece.room, size) <= room:
            room -= size
            yield piece
            continue
        losing = piece.level > 1
        written = 0 if piece.room else room
        if losing:
            yield piece._replace(data=piece.data[:written])
            room = BUFFER_SIZE
        else:
            yield piece
            # A value fills the buffer as often as it must; what remains in it is never nothing.
            room = BUFFER_SIZE - ((size - written - 1) % BUFFER_SIZE + 1)
