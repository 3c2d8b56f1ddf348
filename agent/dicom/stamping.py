"""Adding certified time stamps (PS3.15 C.1) to the signatures of an instance.

    instance = StampableInstance.read(data)
    tokens = {index: ... for index, signature in enumerate(instance.signatures)}
    edits = instance.edits(tokens)

The two elements of a time stamp are outside the MAC (PS3.3 C.12.1.1.3.1.1), so the signature stays what it is, and so
does every byte around it. Signatures of sequence items are left alone.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from agent.dicom.data_set import DataSet
from agent.dicom.deflate import deflated_again, inflated
from agent.dicom.elements import UNDEFINED_LENGTH, Encoding
from agent.dicom.headers import DEFAULT_LIMITS, Limits, malformed
from agent.dicom.mac_check import SignerCertificates, check_mac
from agent.dicom.outline import SequenceSpan
from agent.dicom.report import Outcome
from agent.dicom.signature_items import CERTIFIED_TIMESTAMP, CERTIFIED_TIMESTAMP_TYPE
from agent.dicom.splice import Edit
from agent.dicom.stored_instance import StoredInstance, signature_items
from agent.dicom.stored_signatures import DigitalSignature, mac_parameters_of
from agent.dicom.transfer_syntax import TransferSyntax, read_file_meta
from agent.dicom.window import Window
from agent.errors import DicomError

MOST_SIGNATURE_BYTES = 16 << 20  # of the whole Digital Signatures Sequence
TOKEN_TYPE = b"CMS_TSP "  # padded

_DELIMITER_SIZE = 8


@dataclass(frozen=True)
class StampableSignature:
    """A signature of the data set.

    Args:
        uid: Digital Signature UID as written.
        value: The signature itself, without padding: what a time stamp is about.
        time_stamp_type: Certified Timestamp Type; empty where there is none. Anybody can put one there.
        time_stamp: Certified Timestamp, with its padding; empty where there is none.
    """

    uid: str
    value: bytes = field(repr=False)
    time_stamp_type: str
    time_stamp: bytes = field(repr=False)


@dataclass(frozen=True)
class StampableInstance:
    """An instance whose signatures can be given time stamps.

    Args:
        signatures: Those of the data set, in order.
    """

    signatures: tuple[StampableSignature, ...]
    _data: bytes | memoryview = field(repr=False)
    _syntax: TransferSyntax = field(repr=False)
    _limits: Limits = field(repr=False)
    _sequence: SequenceSpan | None = field(repr=False)

    @classmethod
    def read(cls, data: bytes | memoryview, limits: Limits = DEFAULT_LIMITS) -> StampableInstance:
        """Read an instance, and check that its signatures are worth a time stamp.

        Args:
            data: A DICOM file.
            limits: What it may demand.

        Raises:
            DicomError: It is not well-formed, or a signature is not that of the instance.
        """
        instance = StoredInstance.read(data, limits)
        sequence = instance.data_set.survey.outline.signatures
        if sequence is not None and sequence.end - sequence.start > MOST_SIGNATURE_BYTES:
            raise malformed(f"The signatures take more than {MOST_SIGNATURE_BYTES >> 20} MiB.", "element-too-large")
        return cls(tuple(_signatures(instance)), data, instance.meta.syntax, limits, sequence)

    def edits(self, tokens: Mapping[int, bytes]) -> tuple[Edit, ...]:
        """What makes the stamped instance of the original, in order of offsets.

        Args:
            tokens: The time stamp tokens, DER, each under the position of its signature in `signatures`. They take the
                place of what is there.
        """
        window = Window.over(self._data)
        read_file_meta(window, self._limits)
        start = window.offset
        data_set, _ = inflated(window, self._syntax, self._limits)
        edits = () if self._sequence is None else tuple(self._insertions(self._sequence, data_set, tokens))
        if not self._syntax.deflated or not edits:
            return edits
        body = memoryview(self._data)[start:]
        return (Edit(start, len(body), b"".join(deflated_again([body], edits))),)

    def _insertions(self, sequence: SequenceSpan, data_set: Window, tokens: Mapping[int, bytes]) -> Iterator[Edit]:
        encoding = self._syntax.encoding
        made = {index: _elements(token, encoding) for index, token in tokens.items()}
        places = {index: _place(sequence.items[index], encoding) for index in made}
        data_set.skip(sequence.start - data_set.offset)
        stored = data_set.take(sequence.end - sequence.start)
        if made and sequence.length != UNDEFINED_LENGTH:
            growth = sum(len(made[index]) - len(place) for index, place in places.items())
            yield _length_edit(sequence.start + sequence.header_size, sequence.length + growth, encoding)
        position = sequence.header_size
        for index, item in enumerate(sequence.items):
            position += len(encoding.item_header(0, 0))
            length = int.from_bytes(stored[position - 4 : position], "little" if encoding.little_endian else "big")
            content = sequence.start + position
            if elements := made.get(index):
                place = places[index]
                if length != UNDEFINED_LENGTH:
                    yield _length_edit(content, length + len(elements) - len(place), encoding)
                yield Edit(content + place.start, len(place), elements)
            position += len(item) + (_DELIMITER_SIZE if length == UNDEFINED_LENGTH else 0)


def _signatures(instance: StoredInstance) -> Iterator[StampableSignature]:
    data_set, syntax = instance.data_set, instance.meta.syntax
    outline = data_set.survey.outline
    items = signature_items(outline.mac_parameters)
    parameters = [mac_parameters_of(item, syntax.encoding) for item in items]
    certificates = SignerCertificates()
    for item in signature_items(outline.signatures):
        signature = DigitalSignature.read(item, syntax.encoding)
        checked = check_mac(data_set, syntax, signature, parameters, certificates)
        faults = [finding.what for finding in checked.integrity.findings if finding.outcome is Outcome.FAILED]
        if faults or checked.value is None:
            raise DicomError(
                f"A signature is not that of the instance. {' '.join(faults)}",
                remedy="No time stamp would make it right. `scanseal verify` says more.",
                code="signature-broken",
            )
        yield StampableSignature(signature.uid, checked.value, signature.time_stamp_type, signature.time_stamp)


def _elements(token: bytes, encoding: Encoding) -> bytes:
    padded = token + b"\0" * (len(token) % 2)
    return b"".join(
        (
            encoding.header(CERTIFIED_TIMESTAMP_TYPE, b"CS", len(TOKEN_TYPE)),
            TOKEN_TYPE,
            encoding.header(CERTIFIED_TIMESTAMP, b"OB", len(padded)),
            padded,
        )
    )


def _place(item: bytes, encoding: Encoding) -> range:
    """Where in the content of an item the two elements are, or belong: before the purpose, or at the end."""
    survey = DataSet(item, 0, len(item), encoding, DEFAULT_LIMITS).survey
    offsets = (*survey.starts, len(item))
    first, behind = bisect_left(survey.tags, CERTIFIED_TIMESTAMP_TYPE), bisect_right(survey.tags, CERTIFIED_TIMESTAMP)
    return range(offsets[first], offsets[behind])


def _length_edit(behind: int, length: int, encoding: Encoding) -> Edit:
    """The new length of a sequence or an item. It is the last field of the header in every encoding."""
    return Edit(behind - 4, 4, length.to_bytes(4, "little" if encoding.little_endian else "big"))
