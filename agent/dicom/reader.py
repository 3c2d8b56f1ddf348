"""A strict scanner of DICOM data sets (PS3.5): walks every byte once and trusts none.

Everything is checked against what is really there: lengths, order and uniqueness of tags (PS3.5 7.1), VRs, delimiters,
nesting, number of elements. The first fault ends the walk with a `DicomError`. Nothing is repaired and nothing guessed,
because what two readers may understand differently must not be signed.

While it walks, the scanner hands the covered elements to a `MacStream` in the form of PS3.3 C.12.1.1.3.1.1: explicit VR
little endian, sequences and items without lengths.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from agent.dicom.elements import (
    DATA_SET_TRAILING_PADDING,
    DIGITAL_SIGNATURES_SEQUENCE,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    ITEM,
    ITEM_DELIMITATION,
    MAC_PARAMETERS_SEQUENCE,
    PIXEL_DATA,
    PIXEL_REPRESENTATION,
    SEQUENCE_DELIMITATION,
    SHORT_VRS,
    SWAPPED_WIDTHS,
    UNDEFINED_LENGTH,
    Encoding,
    tag_name,
)
from agent.dicom.headers import Header, HeaderReader, Limits, Scope, Visits, malformed
from agent.dicom.outline import Outline, SequenceSpan
from agent.dicom.signable import (
    DIGITAL_SIGNATURES_GROUP,
    EXPECTED_UNSIGNED,
    LENGTH_TO_END,
    is_signable,
)
from agent.dicom.stream import MacStream
from agent.dicom.structure import check_delimiter, check_end, in_order, misplaced
from agent.dicom.window import Window
from agent.errors import DicomError

MOST_COVERED = 16_383  # tags that fit the 16-bit length of Data Elements Signed (0400,0020), VR AT
MOST_IN_16_BITS = 65_534  # bytes; the largest even length of a VR with a 16-bit length

_PLAIN_HEADER = struct.Struct("<HHHH")  # the VR as a number, which is quicker to look up
_SHORT_VR_NUMBERS = frozenset(int.from_bytes(vr, "little") for vr in SHORT_VRS)
_DELIMITER_SIZE = 8
_ITEM_BYTES = struct.pack("<HH", 0xFFFE, 0xE000)
_END_OF_SEQUENCE_BYTES = struct.pack("<HH", 0xFFFE, 0xE0DD)


def _always(_tag: int) -> bool:
    return True


class Scanner:
    """Walks one data set.

    Args:
        window: Stands at the first element of the data set.
        encoding: How the data set is encoded.
        encapsulated: Whether the transfer syntax stores Pixel Data in fragments (PS3.5 A.4).
        mac: Receives what is covered.
        covers: Whether an element of the data set is to be covered; asked once for each signable element, in order.
        must_be_signable: Whether it is a fault if an element that is to be covered is, or holds, one of unknown VR;
            otherwise it is left uncovered.
        limits: What the data set may demand.
        capture: Tags of the data set whose values are wanted.
        visits: What all walks over the instance may cost together, if there are several.
    """

    def __init__(  # noqa: PLR0913 - the walk is configured once
        self,
        window: Window,
        encoding: Encoding,
        *,
        encapsulated: bool,
        mac: MacStream,
        covers: Callable[[int], bool],
        limits: Limits,
        must_be_signable: Callable[[int], bool] = _always,
        capture: frozenset[int] = frozenset(),
        visits: Visits | None = None,
    ) -> None:
        self._window = window
        self._encoding = encoding
        self._encapsulated = encapsulated
        self._mac = mac
        self._covers = covers
        self._must_be_signable = must_be_signable
        self._limits = limits
        self._capture = capture
        self._outline = Outline()
        self._headers = HeaderReader(window, limits, encapsulated=encapsulated, visits=visits)

    def walk(self, scope: Scope | None = None) -> Outline:
        """Walk to the end of the data set.

        Args:
            scope: That of the item whose content is walked.

        Raises:
            DicomError: The data set is not well-formed, or an element that is to be covered cannot be signed.
        """
        window, outline = self._window, self._outline
        scope = scope or Scope(self._encoding)
        last = -1
        while True:
            if self._encoding is EXPLICIT_LITTLE_ENDIAN:
                last = self._plainest_elements(last)
            _check_count(outline.covered)
            if window.at_end():
                break
            start = window.offset
            header = self._headers.element(scope, first=last < 0)
            last = in_order(header.tag, last, start)
            self._note_insertion_points(last, start)
            if last in (MAC_PARAMETERS_SEQUENCE, DIGITAL_SIGNATURES_SEQUENCE):
                self._signature_sequence(header, scope)
            else:
                self._data_set_element(header, scope)
        self._note_insertion_points(DATA_SET_TRAILING_PADDING, window.offset)
        return outline

    def _plainest_elements(self, last: int) -> int:
        """The kind that most elements are of: explicit little endian, 16-bit length, signable, already here.

        Does nothing that the general path would not do; only saves its function calls. Returns the last tag.
        """
        window, covers, capture = self._window, self._covers, self._capture
        buffer, unpack, position, filled = window.buffer, _PLAIN_HEADER.unpack_from, window.position, window.filled
        bound = MAC_PARAMETERS_SEQUENCE if last < MAC_PARAMETERS_SEQUENCE else DIGITAL_SIGNATURES_GROUP << 16
        bottom = max(last, LENGTH_TO_END)
        run_start = run_end = position
        count, covered = 0, []
        while filled - position >= _PLAIN_HEADER.size:
            group, element, vr, length = unpack(buffer, position)
            tag = group << 16 | element
            end = position + 8 + length
            if not bottom < tag < bound or vr not in _SHORT_VR_NUMBERS or end > filled:
                break
            if length & 1 or not element:
                break
            count += 1
            if tag in capture:
                self._outline.values[tag] = bytes(window.view[position + 8 : end])
            bottom = last = tag
            if covers(tag):
                covered.append(tag)
                if run_end != position:
                    self._mac.cover_range(run_start, run_end)
                    run_start = position
                run_end = end
            position = end
        self._mac.cover_range(run_start, run_end)
        window.position = position
        self._outline.covered += covered
        self._headers.count(count)
        return last

    def _data_set_element(self, header: Header, scope: Scope) -> None:
        tag = header.tag
        self._check_pixel_data(header)
        if tag in self._capture:
            self._outline.values[tag] = self._headers.value_ahead(header)
        if not is_signable(tag) or not self._covers(tag):
            self._element(header, scope, covered=False, depth=0)
            return
        self._mac.begin_trial()
        signable = self._element(header, scope, covered=True, depth=0)
        self._mac.end_trial(keep=signable)
        if signable:
            self._outline.covered.append(tag)
        elif self._must_be_signable(tag):
            raise DicomError(
                f"{tag_name(tag)} would have to be signed, but it is or holds an element of unknown VR (UN).",
                remedy="Make the instance with explicit, known VRs.",
                code="unsignable-element",
            )

    def _check_pixel_data(self, header: Header) -> None:
        if header.tag == PIXEL_DATA and self._encapsulated and header.length != UNDEFINED_LENGTH:
            raise malformed("Pixel Data is not in fragments, as this transfer syntax demands.", "pixel-data-native")

    def _element(self, header: Header, scope: Scope, *, covered: bool, depth: int) -> bool:
        """Consume one element, header included. Returns whether it is signable (PS3.3 C.12.1.1.3.1.1)."""
        tag, vr, length, size = header
        if vr == b"SQ":
            if tag == DIGITAL_SIGNATURES_SEQUENCE:
                self._outline.nested_signatures.append(self._window.offset)
            self._window.skip(size)
            return self._sequence(tag, length, scope, covered=covered, depth=depth + 1)
        if length == UNDEFINED_LENGTH and vr == b"UN":
            # PS3.5 6.2.2 note (CP-246): a sequence of unknown VR is encoded as implicit VR little endian.
            self._window.skip(size)
            self._sequence(tag, length, scope.inner(IMPLICIT_LITTLE_ENDIAN), covered=False, depth=depth + 1)
            return False
        if length == UNDEFINED_LENGTH:
            if depth:
                self._outline.nested_fragments.append(self._window.offset)
            self._window.skip(size)
            self._fragments(tag, covered=covered)
            return True
        if vr == b"UN" or (size == 8 and vr in SHORT_VRS and length > MOST_IN_16_BITS):
            self._window.skip(size + length)
            return False
        if tag == PIXEL_REPRESENTATION and not scope.encoding.explicit:
            scope.note_pixel_representation(self._headers.value_ahead(header))
        if covered:
            self._cover_value(header, scope.encoding)
        else:
            self._window.skip(size + length)
        return True

    def _cover_value(self, header: Header, encoding: Encoding) -> None:
        tag, vr, length, size = header
        if encoding is EXPLICIT_LITTLE_ENDIAN:
            self._mac.cover(size + length)
            return
        self._window.skip(size)
        self._mac.literal(EXPLICIT_LITTLE_ENDIAN.header(tag, vr, length))
        width = 1 if encoding.little_endian else SWAPPED_WIDTHS.get(vr, 1)
        if width == 1:
            self._mac.cover(length)
        elif length % width:
            raise malformed(f"{tag_name(tag)} holds no whole number of values.", "length-wrong")
        else:
            self._mac.cover_swapped(length, width)

    def _sequence(  # noqa: PLR0913 - a sequence, and how it is walked
        self,
        tag: int,
        length: int,
        scope: Scope,
        *,
        covered: bool,
        depth: int,
        item_ranges: list[tuple[int, int]] | None = None,
    ) -> bool:
        """Consume the items of a sequence whose header is consumed. Returns whether all of it is signable."""
        if depth > self._limits.depth:
            raise DicomError(
                f"Sequences are nested more than {self._limits.depth} deep.",
                remedy="No real object needs that; the instance was made to do harm or is damaged.",
                code="nesting-too-deep",
            )
        window, mac = self._window, self._mac
        end = None if length == UNDEFINED_LENGTH else window.offset + length
        signable = True
        if covered:
            mac.literal(_without_length(tag, b"SQ"))
        while end is None or window.offset < end:
            item_tag, item_length = self._headers.item(scope.encoding)
            if item_tag == SEQUENCE_DELIMITATION and end is None:
                check_delimiter(item_tag, item_length)
                break
            if item_tag != ITEM:
                raise misplaced(item_tag, f"an item of {tag_name(tag)}")
            if covered:
                mac.literal(_ITEM_BYTES)
            first = window.offset
            signable &= self._item(item_length, scope.inner(scope.encoding), covered=covered, depth=depth)
            if item_ranges is not None:
                delimiter = _DELIMITER_SIZE if item_length == UNDEFINED_LENGTH else 0
                item_ranges.append((first, window.offset - delimiter))
        check_end(tag, window.offset, end)
        if covered:
            mac.literal(_END_OF_SEQUENCE_BYTES)
        return signable

    def _item(self, length: int, scope: Scope, *, covered: bool, depth: int) -> bool:
        """Consume the elements of an item whose header is consumed. Returns whether all of them are signable."""
        window = self._window
        end = None if length == UNDEFINED_LENGTH else window.offset + length
        signable = True
        last = -1
        while end is None or window.offset < end:
            if scope.encoding is EXPLICIT_LITTLE_ENDIAN:
                last = self._plain_run(last, end, covered=covered)
                if window.offset == end:
                    break
            start = window.offset
            header = self._headers.element(scope, first=last < 0)
            if header.tag == ITEM_DELIMITATION and end is None:
                check_delimiter(header.tag, header.length)
                window.skip(header.size)
                break
            last = in_order(header.tag, last, start)
            if not is_signable(last):
                self._note_hidden(header)
            # PS3.3 C.12.1.1.3.1.1: an unknown VR makes the whole unsignable, even in what is itself left out.
            signable &= self._element(header, scope, covered=covered and is_signable(last), depth=depth)
        check_end(ITEM, window.offset, end)
        return signable

    def _plain_run(self, last: int, end: int | None, *, covered: bool) -> int:
        """The same for the elements of an item, which are covered all or none. Returns the last tag."""
        window, unpack = self._window, _PLAIN_HEADER.unpack_from
        buffer, start = window.buffer, window.position
        stop = window.filled if end is None else min(window.filled, end - window.origin)
        bottom = max(last, LENGTH_TO_END)
        position, count = start, 0
        while stop - position >= _PLAIN_HEADER.size:
            group, element, vr, length = unpack(buffer, position)
            tag = group << 16 | element
            following = position + 8 + length
            if tag <= bottom or vr not in _SHORT_VR_NUMBERS or following > stop or length & 1 or not element:
                break
            if tag == MAC_PARAMETERS_SEQUENCE or group >= DIGITAL_SIGNATURES_GROUP:  # FFFE: a delimiter
                break
            count += 1
            bottom = last = tag
            position = following
        if covered:
            self._mac.cover_range(start, position)
        window.position = position
        self._headers.count(count)
        return last

    def _note_hidden(self, header: Header) -> None:
        """Take note of what has no place in a data set and what no signature would cover there."""
        tag = header.tag
        group_length = not tag & 0xFFFF and (header.vr, header.length) == (b"UL", 4) and tag >> 16 >= 0x0008
        if not group_length and tag not in EXPECTED_UNSIGNED:
            self._outline.hidden.append(tag)

    def _fragments(self, tag: int, *, covered: bool) -> None:
        """Consume encapsulated Pixel Data behind its header (PS3.5 A.4)."""
        window, mac = self._window, self._mac
        if covered:
            # Written as OW by some, although PS3.5 A.4 demands OB; hashed as OB by everybody.
            mac.literal(_without_length(tag, b"OB"))
        while True:
            item_tag, length = self._headers.item(EXPLICIT_LITTLE_ENDIAN)
            if item_tag == SEQUENCE_DELIMITATION:
                check_delimiter(item_tag, length)
                break
            if item_tag != ITEM or length == UNDEFINED_LENGTH:
                raise misplaced(item_tag, "a fragment of Pixel Data")
            if length & 1:
                raise malformed("A fragment of Pixel Data has an odd length (PS3.5 A.4).", "length-wrong")
            if covered:
                mac.literal(_ITEM_BYTES)
                mac.cover(length)
            else:
                window.skip(length)
        if covered:
            mac.literal(_END_OF_SEQUENCE_BYTES)

    def _signature_sequence(self, header: Header, scope: Scope) -> None:
        """Keep the bytes of one of the two sequences that hold signatures."""
        window = self._window
        if header.vr != b"SQ":
            raise malformed(f"{tag_name(header.tag)} is not a sequence.", "signature-sequence-malformed")
        start = window.offset
        window.pin()
        window.skip(header.size)
        item_ranges: list[tuple[int, int]] = []
        self._sequence(header.tag, header.length, scope, covered=False, depth=1, item_ranges=item_ranges)
        end = window.offset
        data = window.pinned_bytes()
        items = tuple(data[first - start : last - start] for first, last in item_ranges)
        span = SequenceSpan(start=start, end=end, header_size=header.size, length=header.length, items=items)
        if header.tag == MAC_PARAMETERS_SEQUENCE:
            self._outline.mac_parameters = span
        else:
            self._outline.signatures = span

    def _note_insertion_points(self, tag: int, start: int) -> None:
        outline = self._outline
        if outline.mac_parameters_offset < 0 and tag > MAC_PARAMETERS_SEQUENCE:
            outline.mac_parameters_offset = start
        if outline.signatures_offset < 0 and tag > DIGITAL_SIGNATURES_SEQUENCE:
            outline.signatures_offset = start


def _check_count(covered: list[int]) -> None:
    if len(covered) > MOST_COVERED:
        raise DicomError(
            f"More than {MOST_COVERED} elements would be signed.",
            remedy="Data Elements Signed (0400,0020) cannot list them.",
            code="too-many-elements",
        )


def _without_length(tag: int, vr: bytes) -> bytes:
    return EXPLICIT_LITTLE_ENDIAN.header(tag, vr, 0)[:8]
