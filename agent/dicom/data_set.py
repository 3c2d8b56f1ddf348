"""A data set in memory, walked once: what is there and where, for whoever has to look at it more than once."""

from __future__ import annotations

import hashlib
import re
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from agent.dicom.character_sets import decoded
from agent.dicom.elements import (
    EXPLICIT_LITTLE_ENDIAN,
    ITEM,
    MAC_PARAMETERS_SEQUENCE,
    SHORT_VRS,
    UNDEFINED_LENGTH,
    Encoding,
    is_of_another_kind,
)
from agent.dicom.headers import Header, Limits, Scope, Visits
from agent.dicom.outline import Outline
from agent.dicom.reader import Scanner
from agent.dicom.signable import DIGITAL_SIGNATURES_GROUP, LENGTH_TO_END, is_signable
from agent.dicom.stream import Hash, MacStream
from agent.dicom.window import Window

SPECIFIC_CHARACTER_SET = 0x00080005
MOST_OF_A_VALUE = 65_536  # bytes of one value that are given out
MOST_VISITS = 3_000_000  # of elements, by all walks over one instance
VISITS_OF_AN_ITEM = 3  # what looking at an item costs by itself

_PLAIN_HEADER = struct.Struct("<HHHH")
_SHORT_VR_NUMBERS = frozenset(int.from_bytes(vr, "little") for vr in SHORT_VRS)
_VRS_OF_ONE_VALUE = frozenset((b"LT", b"ST", b"UR", b"UT"))  # PS3.5 6.4: a backslash in them parts nothing
_NUMBER_FORMATS = {b"US": "H", b"SS": "h", b"UL": "I", b"SL": "i"}
_INTEGER_STRING = re.compile(r"[+-]?[0-9]{1,11}", re.ASCII)


@dataclass(frozen=True)
class Survey:
    """Where the elements of a data set are.

    Args:
        tags: In order; the two sequences that hold signatures are left out.
        starts: Offset of each.
        ends: Offset behind each.
        walked: The tags whose bytes are not those that a MAC covers: sequences, fragments, other encodings.
        unsignable: The tags of elements that are, or hold, an element of unknown VR.
        outline: The sequences that hold signatures.
    """

    tags: list[int]
    starts: list[int]
    ends: list[int]
    walked: set[int]
    unsignable: set[int]
    outline: Outline


class _Surveyor(Scanner):
    """Walks a data set as the scanner does and takes note of where everything is."""

    def __init__(
        self, mac: MacStream, encoding: Encoding, limits: Limits, visits: Visits, *, encapsulated: bool
    ) -> None:
        super().__init__(
            mac.window, encoding, encapsulated=encapsulated, mac=mac, covers=_never, limits=limits, visits=visits
        )
        self.survey = Survey([], [], [], set(), set(), self._outline)

    def _plainest_elements(self, last: int) -> int:
        window, survey = self._window, self.survey
        add_tag, add_start = survey.tags.append, survey.starts.append
        buffer, unpack, position, filled = window.buffer, _PLAIN_HEADER.unpack_from, window.position, window.filled
        short_vrs = _SHORT_VR_NUMBERS
        bound = MAC_PARAMETERS_SEQUENCE if last < MAC_PARAMETERS_SEQUENCE else DIGITAL_SIGNATURES_GROUP << 16
        bottom = max(last, LENGTH_TO_END)
        before = len(survey.tags)
        stop = filled - _PLAIN_HEADER.size
        while position <= stop:
            group, element, vr, length = unpack(buffer, position)
            tag = group << 16 | element
            end = position + 8 + length
            if not bottom < tag < bound or vr not in short_vrs or end > filled or length & 1 or not element:
                break
            add_tag(tag)
            add_start(position)
            bottom = last = tag
            position = end
        if count := len(survey.tags) - before:
            survey.ends.extend(survey.starts[before + 1 :])
            survey.ends.append(position)
            self._headers.count(count)
        window.position = position
        return last

    def _data_set_element(self, header: Header, scope: Scope) -> None:
        survey, window, tag = self.survey, self._window, header.tag
        survey.tags.append(tag)
        survey.starts.append(window.position)
        if not is_signable(tag):
            self._note_hidden(header)
        if scope.outer is None:  # an icon in an item may be native under any transfer syntax (PS3.3 C.7.6.1.1.6)
            self._check_pixel_data(header)
        if not self._element(header, scope, covered=False, depth=0):
            survey.unsignable.add(tag)
        survey.ends.append(window.position)
        if header.vr == b"SQ" or header.length == UNDEFINED_LENGTH or scope.encoding is not EXPLICIT_LITTLE_ENDIAN:
            survey.walked.add(tag)

    def header(self, scope: Scope) -> Header:
        """The header of the element here."""
        return self._headers.element(scope)

    def cover_element(self, scope: Scope) -> None:
        """Cover the element here."""
        self._element(self.header(scope), scope, covered=True, depth=0)

    def item_ranges(self, scope: Scope) -> list[tuple[int, int]] | None:
        """Where the content of each item of the sequence here is; None if it is no sequence."""
        header = self.header(scope)
        if header.vr != b"SQ":
            return None
        ranges: list[tuple[int, int]] = []
        self._window.skip(header.size)
        self._sequence(header.tag, header.length, scope, covered=False, depth=1, item_ranges=ranges)
        return ranges

    def fragment_ranges(self, scope: Scope) -> list[tuple[int, int]]:
        """Where the content of each fragment of the encapsulated Pixel Data here is; nothing if it is native."""
        header, window = self.header(scope), self._window
        ranges: list[tuple[int, int]] = []
        if header.length != UNDEFINED_LENGTH or header.vr == b"SQ":
            return ranges
        window.skip(header.size)
        while (fragment := self._headers.item(EXPLICIT_LITTLE_ENDIAN))[0] == ITEM:
            ranges.append((window.position, window.position + fragment[1]))
            window.skip(fragment[1])
        return ranges


class DataSet(Collection[int]):
    """A data set, or the content of a sequence item, in memory. As a collection it is its tags, in order.

    Args:
        data: The bytes that it lies in; all offsets are offsets here.
        start: Where it begins.
        end: Where it ends.
        encoding: How it is encoded.
        limits: What it may demand.
        encapsulated: Whether the transfer syntax stores Pixel Data in fragments (PS3.5 A.4).
        visits: What all walks over it, and over what encloses it, may cost together.
        outer: The scope of what encloses it.
        character_set: Specific Character Set (0008,0005) of what encloses it.
        misread: Where it is noted what cannot be read; that of what encloses it.

    Attributes:
        misread: The elements of the standard that were asked for, here or in an item, and whose VR is of another kind
            than the standard's. Who goes by the VR reads something else there, or nothing.

    Raises:
        DicomError: It is not well-formed.
    """

    def __init__(  # noqa: PLR0913 - what a part of an instance has to know of the whole
        self,
        data: bytes | memoryview,
        start: int,
        end: int,
        encoding: Encoding,
        limits: Limits,
        *,
        encapsulated: bool = False,
        visits: Visits | None = None,
        outer: Scope | None = None,
        character_set: tuple[str, ...] = (),
        misread: set[int] | None = None,
    ) -> None:
        self.encoding = encoding
        self.misread: set[int] = set() if misread is None else misread
        self._data = memoryview(data)[:end]
        self._limits = limits
        self._encapsulated = encapsulated
        self._visits = visits or Visits(MOST_VISITS)
        self._visits.count(VISITS_OF_AN_ITEM)
        self._scope = outer.inner(encoding) if outer else Scope(encoding)
        surveyor = self._surveyor(start)
        surveyor.walk(self._scope)
        self.survey: Survey = surveyor.survey
        self._character_set = character_set
        if SPECIFIC_CHARACTER_SET in self:
            self._character_set = self.texts(SPECIFIC_CHARACTER_SET)

    @property
    def tags(self) -> list[int]:
        """The tags, in order; the two sequences that hold signatures are left out."""
        return self.survey.tags

    def __contains__(self, tag: object) -> bool:
        return isinstance(tag, int) and self._index(tag) is not None

    def __iter__(self) -> Iterator[int]:
        return iter(self.survey.tags)

    def __len__(self) -> int:
        return len(self.survey.tags)

    def raw(self, tag: int) -> memoryview:
        """The whole element as stored, header included; empty where it is absent."""
        index = self._index(tag)
        return self._data[:0] if index is None else self._data[self.survey.starts[index] : self.survey.ends[index]]

    def vr(self, tag: int) -> bytes:
        """The VR of an element, by the dictionary in implicit VR; empty where it is absent."""
        return self._element(tag)[0]

    def value(self, tag: int) -> bytes:
        """The value of an element as stored, the beginning of it where it is very long.

        Empty where the element is absent, a sequence, or in fragments.
        """
        return self._element(tag)[1]

    def texts(self, tag: int) -> tuple[str, ...]:
        """The values of a text element, without padding; empty where it is absent or empty."""
        vr, value = self._understood(tag)
        value = value.rstrip(b"\0 ")
        if not value:
            return ()
        text = decoded(value, self._character_set)
        return (text.strip(" "),) if vr in _VRS_OF_ONE_VALUE else tuple(part.strip(" ") for part in text.split("\\"))

    def text(self, tag: int) -> str:
        """The first value of a text element, without padding; empty where it is absent or empty."""
        texts = self.texts(tag)
        return texts[0] if texts else ""

    def number(self, tag: int) -> int | None:
        """The first value of an element that holds integers; None where there is none."""
        vr, value = self._understood(tag)
        if vr in _NUMBER_FORMATS:
            layout = struct.Struct(self.encoding.order + _NUMBER_FORMATS[vr])
            return int(layout.unpack_from(value)[0]) if len(value) >= layout.size else None
        text = self.text(tag) if vr == b"IS" else ""
        return int(text) if _INTEGER_STRING.fullmatch(text) else None

    def items(self, tag: int) -> Iterator[DataSet]:
        """The items of a sequence, each read when it is asked for; none where it is absent or no sequence."""
        return (self._item(first, last) for first, last in self._item_ranges(tag))

    def item_at(self, offset: int) -> tuple[int, int, DataSet] | None:
        """The item in which an offset lies: the tag of its sequence, its number, and the item."""
        index = bisect_right(self.survey.starts, offset) - 1
        if index < 0:
            return None
        tag = self.survey.tags[index]
        for number, (first, last) in enumerate(self._item_ranges(tag)):
            if first <= offset < last:
                return tag, number, self._item(first, last)
        return None

    def fragments(self, tag: int) -> tuple[memoryview, ...]:
        """The fragments of encapsulated Pixel Data, the Basic Offset Table first; empty where there are none."""
        index = self._index(tag)
        if index is None:
            return ()
        ranges = self._surveyor(self.survey.starts[index]).fragment_ranges(self._scope)
        return tuple(self._data[first:last] for first, last in ranges)

    def cover(self, tags: Collection[int], state: Hash) -> None:
        """Hash what the MAC covers of these elements, in order (PS3.3 C.12.1.1.3.1.1).

        Args:
            tags: Which elements, none of them unsignable; a set is quickest.
            state: The hash.
        """
        survey = self.survey
        self._visits.count(len(survey.tags) // 8)  # as quick as that
        mac = MacStream(Window.over(self._data), state)
        run_start = run_end = 0
        for tag, start, end in zip(survey.tags, survey.starts, survey.ends, strict=True):
            if tag not in tags:
                continue
            if run_end == start and tag not in survey.walked:
                run_end = end
                continue
            mac.cover_range(run_start, run_end)
            run_start = run_end = end
            if tag in survey.walked:
                self._surveyor(start, mac).cover_element(self._scope)
            else:
                run_start = start
        mac.cover_range(run_start, run_end)
        mac.flush()

    def _item_ranges(self, tag: int) -> list[tuple[int, int]]:
        index = self._index(tag)
        if index is None:
            return []
        walked = tag in self.survey.walked
        ranges = self._surveyor(self.survey.starts[index]).item_ranges(self._scope) if walked else None
        if ranges is None:
            self._understood(tag)
        return ranges or []

    def _item(self, first: int, last: int) -> DataSet:
        return DataSet(
            self._data,
            first,
            last,
            self.encoding,
            self._limits,
            encapsulated=self._encapsulated,
            visits=self._visits,
            outer=self._scope,
            character_set=self._character_set,
            misread=self.misread,
        )

    def _index(self, tag: int) -> int | None:
        tags = self.survey.tags
        index = bisect_left(tags, tag)
        return index if index < len(tags) and tags[index] == tag else None

    def _element(self, tag: int) -> tuple[bytes, bytes]:
        """VR and value."""
        index = self._index(tag)
        if index is None:
            return b"", b""
        start, end = self.survey.starts[index], self.survey.ends[index]
        if tag not in self.survey.walked:  # the survey has found the header to be right
            vr = bytes(self._data[start + 4 : start + 6])
            first = start + (8 if vr in SHORT_VRS else 12)
            return vr, bytes(self._data[first : min(first + MOST_OF_A_VALUE, end)])
        header = self._surveyor(start).header(self._scope)
        if header.length == UNDEFINED_LENGTH or header.vr == b"SQ":
            return header.vr, b""
        return header.vr, bytes(self._data[start + header.size : min(start + header.size + MOST_OF_A_VALUE, end)])

    def _understood(self, tag: int) -> tuple[bytes, bytes]:
        """VR and value, and a note if they are not what the standard says."""
        vr, value = self._element(tag)
        if vr and is_of_another_kind(tag, vr):
            self.misread.add(tag)
        return vr, value

    def _surveyor(self, start: int, mac: MacStream | None = None) -> _Surveyor:
        mac = mac or MacStream(Window.over(self._data), hashlib.sha256())
        mac.window.position = start
        return _Surveyor(mac, self.encoding, self._limits, self._visits, encapsulated=self._encapsulated)


def _never(_tag: int) -> bool:
    return False
