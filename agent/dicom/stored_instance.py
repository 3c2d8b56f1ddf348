"""An instance in memory, read strictly once: its file meta information, its data set, and the signatures in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from agent.dicom.data_set import DataSet
from agent.dicom.deflate import Inflater
from agent.dicom.elements import tag_name
from agent.dicom.headers import Limits, malformed
from agent.dicom.outline import SequenceSpan
from agent.dicom.signature_items import MOST_SIGNATURES
from agent.dicom.transfer_syntax import PREAMBLE_SIZE, FileMeta, read_file_meta
from agent.dicom.window import Window
from agent.errors import DicomError

INFLATED_PIECE = 1 << 20  # bytes
MOST_ICONS = 100


@dataclass(frozen=True)
class StoredInstance:
    """An instance in memory.

    Args:
        meta: Its file meta information.
        preamble: The 128 bytes before it.
        data_set: Its data set.
    """

    meta: FileMeta
    preamble: bytes = field(repr=False)
    data_set: DataSet = field(repr=False)

    @classmethod
    def read(cls, data: bytes | memoryview, limits: Limits) -> StoredInstance:
        """Read an instance.

        Args:
            data: A DICOM file.
            limits: What it may demand.

        Raises:
            DicomError: It is not well-formed.
        """
        window = Window.over(data)
        meta = read_file_meta(window, limits)
        syntax, start = meta.syntax, window.offset
        body: bytes | memoryview = data
        if syntax.deflated:
            body, start = _inflated(window), 0
        data_set = DataSet(body, start, len(body), syntax.encoding, limits, encapsulated=syntax.encapsulated)
        return cls(meta, bytes(data[:PREAMBLE_SIZE]), data_set)

    def signed_items(self) -> Iterator[tuple[str, DataSet]]:
        """The sequence items that carry signatures of their own, with where they are: (0040,A730)[0].

        Raises:
            DicomError: More of them than signatures may be in an instance.
        """
        offsets = self.data_set.survey.outline.nested_signatures
        if len(offsets) > MOST_SIGNATURES:
            raise _too_many()
        count = 0
        for offset in offsets:
            path, item = self._item_at(offset)
            signatures = item.survey.outline.signatures
            if path and signatures is not None and signatures.start == offset:
                count += len(signatures.items)
                if count > MOST_SIGNATURES:
                    raise _too_many()
                yield path, item

    def items_with_fragments(self) -> Iterator[tuple[str, DataSet]]:
        """The sequence items that hold encapsulated Pixel Data, such as icons, with where they are.

        Raises:
            DicomError: More of them than icons may be in an instance.
        """
        offsets = self.data_set.survey.outline.nested_fragments
        if len(offsets) > MOST_ICONS:
            raise malformed(f"The instance has more than {MOST_ICONS} images in its items.", "too-many-elements")
        for offset in offsets:
            path, item = self._item_at(offset)
            if path:
                yield path, item

    def _item_at(self, offset: int) -> tuple[str, DataSet]:
        """The innermost item in which an offset lies, with where it is; the data set itself has no such place."""
        path, item = "", self.data_set
        while (found := item.item_at(offset)) is not None:
            tag, number, item = found
            path += f"{'>' if path else ''}{tag_name(tag)}[{number}]"
        return path, item


def signature_items(sequence: SequenceSpan | None) -> tuple[bytes, ...]:
    """The items of one of the two sequences that hold signatures.

    Raises:
        DicomError: More than an instance may have.
    """
    items = sequence.items if sequence else ()
    if len(items) > MOST_SIGNATURES:
        raise _too_many()
    return items


def _too_many() -> DicomError:
    return malformed(f"The instance has more than {MOST_SIGNATURES} signatures.", "too-many-signatures")


def _inflated(window: Window) -> memoryview:
    inflater = Inflater(window)
    piece = bytearray(INFLATED_PIECE)
    inflated = bytearray()
    while count := inflater.read_into(memoryview(piece)):
        inflated += piece[:count]
    return memoryview(inflated)
