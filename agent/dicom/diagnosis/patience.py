"""How much is tried: work is counted, not timed, so that a file gets the same answer on a slow and on a busy machine.

The unit is a byte that is hashed, of which a machine of 2020 does some 600 million in a second.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.dicom.data_set import DataSet
from agent.dicom.diagnosis.decompress import MOST_RESTORED, compressed_images
from agent.dicom.elements import BITS_ALLOCATED, COLUMNS, NUMBER_OF_FRAMES, ROWS, SAMPLES_PER_PIXEL
from agent.errors import DicomError

INCOMPLETE = "diagnosis-incomplete"

DIAGNOSIS_WORK = 6 << 30  # ten seconds, or lossless JPEG of 48 MB, or other pixels of 128 MB
COST_OF_A_PIECE = 8_192  # to write a header or a value, besides its bytes
_COST_OF_A_PIXEL_BYTE = 32  # to decode it
_COST_IN_JPEG = 128  # the same in Python
_JPEG = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (57, 70))


class Patience:
    """The work that is left for all signatures of an instance together.

    Args:
        work: Bytes.
    """

    def __init__(self, work: int) -> None:
        self._left = work

    def spend(self, work: int) -> None:
        """Take note of work that is about to be done.

        Raises:
            DicomError: More than is left.
        """
        self._left -= work
        if self._left < 0:
            raise DicomError(
                "The search for the reason was ended before everything was tried, because it costs too much.",
                remedy="Verify the instance as it was before it was compressed or converted, or decompress it with a "
                "tool you trust and verify the result.",
                code=INCOMPLETE,
            )

    def give_up(self) -> None:
        """Leave nothing: something has cost more than it was taken for."""
        self._left = 0


def cost_of_decoding(data_set: DataSet, tags: Iterable[int], transfer_syntax: str) -> int:
    """Work, for all images that are in fragments, by what the data set says of their size."""
    cost = _COST_IN_JPEG if transfer_syntax in _JPEG else _COST_OF_A_PIXEL_BYTE
    return cost * sum(_size(image) for _, image in compressed_images(data_set, tags))


def _size(image: DataSet) -> int:
    """Bytes of the native Pixel Data; none where there are so many that it is refused."""
    size = image.number(NUMBER_OF_FRAMES) or 1
    for tag in (ROWS, COLUMNS, SAMPLES_PER_PIXEL, BITS_ALLOCATED):
        size *= image.number(tag) or 0
    return size // 8 if 0 < size // 8 <= MOST_RESTORED else 0
