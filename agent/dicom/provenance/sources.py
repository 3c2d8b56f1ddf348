"""From what an instance was made, by its own account, and whether what is found is what it was made from.

Followed are the attributes that mean "made from":

| attribute                                                      | in                                              |
|----------------------------------------------------------------|-------------------------------------------------|
| Source Image Sequence (0008,2112)                              | General Reference (PS3.3 C.12.4)                |
| Source Instance Sequence (0042,0013)                           | General Reference, Encapsulated Document        |
| Derivation Image Sequence (0008,9124) > Source Image Sequence  | each frame or all of them (C.7.6.16.2.6)        |
| Source Image Evidence Sequence (0008,9154)                     | enhanced images: the same sources by series     |
| Conversion Source Attributes Sequence (0020,9172)              | converted instances and frames                  |
| Frame Extraction Sequence (0008,1164)                          | frames taken out of another instance            |
| Predecessor Documents Sequence (0040,A360)                     | documents that take over the content of others  |

Not followed is what means "see also", such as the evidence of a report, and raw data, which hardly anybody keeps.

A reference may state what its source was like: by Referenced SOP Instance MAC Sequence (0400,0403), whose MAC is the
plain hash of the listed elements, neither encrypted nor with any field of a signature item (PS3.3 Table C.17-3a), or
by Referenced Digital Signature Sequence (0400,0402).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from agent.dicom.algorithms import MAC_ALGORITHMS
from agent.dicom.data_set import DataSet
from agent.dicom.elements import PIXEL_DATA
from agent.dicom.report import Finding, Outcome, SourceReference
from agent.dicom.signable import is_signable
from agent.dicom.signature_items import (
    DATA_ELEMENTS_SIGNED,
    DIGITAL_SIGNATURE_UID,
    MAC_ALGORITHM,
    MAC_CALCULATION_TRANSFER_SYNTAX_UID,
    SIGNATURE,
)
from agent.dicom.transfer_syntax import ENCAPSULATED, MAC_NATIVE_SYNTAXES
from enroll.foreign import printable

REFERENCED_SERIES_SEQUENCE = 0x00081115
REFERENCED_SOP_CLASS_UID = 0x00081150
REFERENCED_SOP_INSTANCE_UID = 0x00081155
FRAME_EXTRACTION_SEQUENCE = 0x00081164
MULTI_FRAME_SOURCE_SOP_INSTANCE_UID = 0x00081167
REFERENCED_SOP_SEQUENCE = 0x00081199
SOURCE_IMAGE_SEQUENCE = 0x00082112
DERIVATION_IMAGE_SEQUENCE = 0x00089124
SOURCE_IMAGE_EVIDENCE_SEQUENCE = 0x00089154
CONVERSION_SOURCE_ATTRIBUTES_SEQUENCE = 0x00209172
PREDECESSOR_DOCUMENTS_SEQUENCE = 0x0040A360
SOURCE_INSTANCE_SEQUENCE = 0x00420013
REFERENCED_DIGITAL_SIGNATURE_SEQUENCE = 0x04000402
REFERENCED_SOP_INSTANCE_MAC_SEQUENCE = 0x04000403
MAC = 0x04000404
SHARED_FUNCTIONAL_GROUPS_SEQUENCE = 0x52009229
PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE = 0x52009230

MOST_SOURCES = 10_000  # different ones of one instance
MOST_ITEMS = 50_000  # that are read for that, of all sequences together; each frame may name all of its own
MOST_STATED = 4 << 20  # bytes that are stated of all sources together: MACs, by which elements, and signatures
_UID_LIMIT = 64  # characters (PS3.5 9.1)

_REFERENCES = (
    SOURCE_IMAGE_SEQUENCE,
    SOURCE_INSTANCE_SEQUENCE,
    CONVERSION_SOURCE_ATTRIBUTES_SEQUENCE,
    FRAME_EXTRACTION_SEQUENCE,
)
_HIERARCHICAL_REFERENCES = (SOURCE_IMAGE_EVIDENCE_SEQUENCE, PREDECESSOR_DOCUMENTS_SEQUENCE)
_FUNCTIONAL_GROUPS = (SHARED_FUNCTIONAL_GROUPS_SEQUENCE, PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)
_IN_FUNCTIONAL_GROUPS = (DERIVATION_IMAGE_SEQUENCE, CONVERSION_SOURCE_ATTRIBUTES_SEQUENCE)


@dataclass(frozen=True)
class StatedMac:
    """An item of Referenced SOP Instance MAC Sequence (0400,0403): a hash of some elements of a source.

    Args:
        transfer_syntax: MAC Calculation Transfer Syntax UID.
        algorithm: MAC Algorithm, such as SHA256.
        elements: Data Elements Signed, of the top level of the source.
        value: The hash.
    """

    transfer_syntax: str
    algorithm: str
    elements: tuple[int, ...]
    value: bytes = field(repr=False)


@dataclass(frozen=True)
class StatedSignature:
    """An item of Referenced Digital Signature Sequence (0400,0402): a signature that a source bears.

    Args:
        uid: Digital Signature UID.
        value: The signature, with its padding.
    """

    uid: str
    value: bytes = field(repr=False)


@dataclass(frozen=True)
class StatedSource:
    """A source, with all that is stated of it.

    Args:
        reference: Where it is named, and whether that is covered by a signature.
        macs: Hashes of it; all of them have to fit.
        signatures: Signatures that it bears; all of them have to be there.
    """

    reference: SourceReference
    macs: tuple[StatedMac, ...] = ()
    signatures: tuple[StatedSignature, ...] = ()


@dataclass(frozen=True)
class StatedSources:
    """All that an instance says it was made from.

    Args:
        sources: Each different source once, in the order of the data set.
        findings: That there are more than are looked at.
        size: Bytes of the MACs and signatures that are stated, and of the lists of elements.
    """

    sources: tuple[StatedSource, ...] = ()
    findings: tuple[Finding, ...] = ()
    size: int = 0


def stated_sources(data_set: DataSet, covered: frozenset[int]) -> StatedSources:
    """What an instance says it was made from.

    A source that is named several times counts as covered where one of these places is, and everything that any of them
    states of it has to hold.

    Args:
        data_set: The data set of the instance.
        covered: The tags that a signature of the data set covers.
    """
    reader = _Reader(data_set, covered)
    mentions: dict[str, list[StatedSource]] = {}
    for mention in reader.mentions():
        uid = mention.reference.sop_instance_uid
        reader.exhausted |= uid not in mentions and len(mentions) == MOST_SOURCES
        if reader.exhausted:
            break
        mentions.setdefault(uid, []).append(mention)
    findings = (_too_many(),) if reader.exhausted else ()
    return StatedSources(tuple(map(_together, mentions.values())), findings, reader.stated)


def mac_of(source: DataSet, transfer_syntax: str, stated: StatedMac) -> bytes | None:
    """What a stated MAC has to be if the source is what it was calculated from; None where that cannot be calculated.

    That is so where the algorithm is unknown, where the list is empty or holds what no MAC can cover (PS3.3
    C.12.1.1.3.1.1), and where the source is stored in fragments of another transfer syntax than the stated one.

    Args:
        source: The data set of the source as it was found.
        transfer_syntax: How that is stored.
        stated: By what it is calculated.

    Raises:
        DicomError: The cryptographic library of this machine does not have the algorithm.
    """
    algorithm, elements = MAC_ALGORITHMS.get(stated.algorithm), frozenset(stated.elements)
    in_fragments = transfer_syntax in ENCAPSULATED and PIXEL_DATA in elements and PIXEL_DATA in source
    possible = {transfer_syntax} if in_fragments else MAC_NATIVE_SYNTAXES | ENCAPSULATED
    if algorithm is None or not elements or stated.transfer_syntax not in possible:
        return None
    if any(tag in source.survey.unsignable or not is_signable(tag) for tag in elements):
        return None
    if not elements.issubset(source.tags):
        return b""  # not even what was hashed is there
    state = algorithm.new()
    source.cover(elements, state)
    return state.digest()


class _Reader:
    """Reads what names a source; how much of an instance is read for that is bounded.

    Attributes:
        exhausted: Whether there is more than is read; what was read last may be incomplete then.
        stated: Bytes of the MACs and signatures that are stated, and of the lists of elements, so far.
    """

    def __init__(self, data_set: DataSet, covered: frozenset[int]) -> None:
        self.exhausted = False
        self.stated = 0
        self._data_set = data_set
        self._covered = covered
        self._items_read = 0

    def mentions(self) -> Iterator[StatedSource]:
        """What each item that names a source states of it."""
        for attribute, item in self._places():
            yield self._mention(item, attribute)

    def _places(self) -> Iterator[tuple[int, DataSet]]:
        """The items that name a source, each with the attribute of the data set that it is in."""
        for attribute in _REFERENCES:
            for item in self._items(self._data_set, attribute):
                yield attribute, item
        for item in self._items(self._data_set, DERIVATION_IMAGE_SEQUENCE):
            for reference in self._items(item, SOURCE_IMAGE_SEQUENCE):
                yield DERIVATION_IMAGE_SEQUENCE, reference
        for attribute in _HIERARCHICAL_REFERENCES:
            for reference in self._by_series(attribute):
                yield attribute, reference
        for attribute in _FUNCTIONAL_GROUPS:
            for reference in self._of_frames(attribute):
                yield attribute, reference

    def _by_series(self, attribute: int) -> Iterator[DataSet]:
        """PS3.3 Table C.17-3, Hierarchical SOP Instance Reference Macro."""
        for study in self._items(self._data_set, attribute):
            for series in self._items(study, REFERENCED_SERIES_SEQUENCE):
                yield from self._items(series, REFERENCED_SOP_SEQUENCE)

    def _of_frames(self, attribute: int) -> Iterator[DataSet]:
        layout = self._data_set.encoding.order + "HH"
        stored = bytes(self._data_set.raw(attribute))
        # There may be thousands of frames: only where the bytes of a tag occur at all, they are looked through for it.
        wanted = [tag for tag in _IN_FUNCTIONAL_GROUPS if struct.pack(layout, tag >> 16, tag & 0xFFFF) in stored]
        for frame in self._items(self._data_set, attribute) if wanted else iter(()):
            for derivation in self._items(frame, DERIVATION_IMAGE_SEQUENCE):
                yield from self._items(derivation, SOURCE_IMAGE_SEQUENCE)
            yield from self._items(frame, CONVERSION_SOURCE_ATTRIBUTES_SEQUENCE)

    def _items(self, holder: DataSet, sequence: int) -> Iterator[DataSet]:
        for item in holder.items(sequence) if sequence in holder else iter(()):
            self._items_read += 1
            self.exhausted |= self._items_read > MOST_ITEMS
            if self.exhausted:
                return
            yield item

    def _mention(self, item: DataSet, attribute: int) -> StatedSource:
        macs = tuple(map(self._mac, self._items(item, REFERENCED_SOP_INSTANCE_MAC_SEQUENCE)))
        signatures = tuple(map(self._signature, self._items(item, REFERENCED_DIGITAL_SIGNATURE_SEQUENCE)))
        frames = attribute == FRAME_EXTRACTION_SEQUENCE
        reference = SourceReference(
            sop_instance_uid=_uid(item, MULTI_FRAME_SOURCE_SOP_INSTANCE_UID if frames else REFERENCED_SOP_INSTANCE_UID),
            sop_class_uid=_uid(item, REFERENCED_SOP_CLASS_UID),
            attribute=attribute,
            covered=attribute in self._covered,
            mac=macs[0].value if macs else b"",
            mac_algorithm=macs[0].algorithm if macs else "",
        )
        return StatedSource(reference, macs, signatures)

    def _mac(self, item: DataSet) -> StatedMac:
        tags = self._stated(item, DATA_ELEMENTS_SIGNED)
        halves = struct.unpack_from(f"{item.encoding.order}{len(tags) // 4 * 2}H", tags)
        return StatedMac(
            transfer_syntax=_uid(item, MAC_CALCULATION_TRANSFER_SYNTAX_UID),
            algorithm=printable(item.text(MAC_ALGORITHM)),
            elements=tuple(group << 16 | element for group, element in zip(halves[::2], halves[1::2], strict=True)),
            value=self._stated(item, MAC),
        )

    def _signature(self, item: DataSet) -> StatedSignature:
        return StatedSignature(_uid(item, DIGITAL_SIGNATURE_UID), self._stated(item, SIGNATURE))

    def _stated(self, item: DataSet, tag: int) -> bytes:
        value = item.value(tag)
        self.stated += len(value)
        self.exhausted |= self.stated > MOST_STATED
        return value


def _too_many() -> Finding:
    what = (
        f"It names more than {MOST_SOURCES} sources, or says of them what takes more than {MOST_ITEMS} items or "
        f"{MOST_STATED >> 20} MiB; what is beyond that was not looked at."
    )
    return Finding("sources-too-many", what, Outcome.INDETERMINATE)


def _uid(item: DataSet, tag: int) -> str:
    return printable(item.text(tag), _UID_LIMIT)


def _together(mentions: list[StatedSource]) -> StatedSource:
    """What all mentions of one source state."""
    references = [mention.reference for mention in mentions]
    named = next((reference for reference in references if reference.covered), references[0])
    stating = next((reference for reference in references if reference.mac), named)
    return StatedSource(
        replace(named, mac=stating.mac, mac_algorithm=stating.mac_algorithm),
        tuple(dict.fromkeys(mac for mention in mentions for mac in mention.macs)),
        tuple(dict.fromkeys(signature for mention in mentions for signature in mention.signatures)),
    )
