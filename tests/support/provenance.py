"""Pretend archives of instances that name each other as sources, and elements that name sources."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.dicom.claims import Meaning
from agent.dicom.headers import DEFAULT_LIMITS
from agent.dicom.provenance.graph import (
    DEFAULT_GRAPH_LIMITS,
    GraphLimits,
    NodeVerdict,
    ProvenanceGraph,
    SourceNode,
    provenance_graph,
)
from agent.dicom.provenance.sources import StatedMac, StatedSignature, StatedSource, StatedSources
from agent.dicom.report import Claim, SourceReference
from agent.dicom.stored_instance import StoredInstance
from agent.errors import DicomError
from tests.support.raw_dicom import Node, Nodes, number, text

IMAGE_TYPE = 0x00080008
SOURCE_IMAGE_SEQUENCE = 0x00082112
PIXELS = 0x7FE00010
LISTED = (0x00080008, 0x00080018, PIXELS)  # in the MACs that `made_from` states
DIGEST = b"what the source hashes to"


def uid(number: int) -> str:
    return f"2.25.{number}"


def reference(number: int, *more: Node) -> Nodes:
    """The item of a sequence that names an instance (PS3.3 Table 10-11)."""
    return (text(0x00081150, "UI", "1.2.840.10008.5.1.4.1.1.2"), text(0x00081155, "UI", uid(number)), *more)


def mac_item(
    value: bytes, tags: Sequence[int], algorithm: str = "SHA256", transfer_syntax: str = "1.2.840.10008.1.2.1"
) -> Node:
    """A Referenced SOP Instance MAC Sequence of one item (PS3.3 Table C.17-3a)."""
    halves = [half for tag in tags for half in (tag >> 16, tag & 0xFFFF)]
    content = (
        text(0x04000010, "UI", transfer_syntax),
        text(0x04000015, "CS", algorithm),
        Node(0x04000020, "AT", struct.pack(f"<{len(halves)}H", *halves)),
        Node(0x04000404, "OB", value),
    )
    return Node(0x04000403, "SQ", items=(content,))


def image(own: int, serial_number: str, kind: str, *more: Node, pixels: bytes = b"pixels") -> Nodes:
    """An instance whose Image Type is of that kind, made by the device of a serial number."""
    nodes = (
        text(0x00080008, "CS", f"{kind}\\PRIMARY"),
        text(0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.7"),
        text(0x00080018, "UI", uid(own)),
        text(0x0020000D, "UI", "2.25.1000"),
        text(0x0020000E, "UI", "2.25.1001"),
        text(0x00181000, "LO", serial_number),
        number(0x00280010, 2),
        Node(PIXELS, "OW", pixels),
        *more,
    )
    return tuple(sorted(nodes, key=lambda node: node.tag))


def made_from(source: bytes, source_number: int) -> Node:
    """Source Image Sequence with a MAC of the source as it is now."""
    state = hashlib.sha256()
    StoredInstance.read(source, DEFAULT_LIMITS).data_set.cover(frozenset(LISTED), state)
    return Node(0x00082112, "SQ", items=(reference(source_number, mac_item(state.digest(), LISTED)),))


def source(
    number: int,
    *,
    covered: bool = True,
    macs: tuple[StatedMac, ...] = (),
    signatures: tuple[StatedSignature, ...] = (),
) -> StatedSource:
    return StatedSource(SourceReference(uid(number), "", SOURCE_IMAGE_SEQUENCE, covered), macs, signatures)


def mac(value: bytes = DIGEST, *tags: int) -> StatedMac:
    return StatedMac("1.2.840.10008.1.2.1", "SHA256", tags or (0x00080018,), value)


def claim(meaning: Meaning, *, covered: bool = True, tag: int = IMAGE_TYPE) -> Claim:
    return Claim(tag, meaning.value.upper(), meaning, covered)


def node(
    number: int,
    *sources: StatedSource | int,
    standing: NodeVerdict = NodeVerdict.VERIFIED,
    claims: tuple[Claim, ...] | None = None,
    signatures: Mapping[str, bytes] | None = None,
) -> SourceNode:
    """An instance; ORIGINAL if it names no sources, else DERIVED."""
    stated = tuple(item if isinstance(item, StatedSource) else source(item) for item in sources)
    meaning = Meaning.DERIVED if sources else Meaning.ORIGINAL
    return SourceNode(
        sop_instance_uid=uid(number),
        standing=standing,
        signer=f"serialNumber=SN{number}",
        claims=(claim(meaning),) if claims is None else claims,
        stated=StatedSources(stated),
        signatures=signatures or {},
    )


@dataclass
class Archive:
    """Finds its instances and keeps count.

    Attributes:
        lookups: The UIDs that were asked for, in order.
        hashed: The UIDs of which a MAC was calculated.
        unreadable: UIDs of files that cannot be read.
    """

    nodes: dict[str, SourceNode]
    unreadable: frozenset[str] = frozenset()
    lookups: list[str] = field(default_factory=list)
    hashed: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, *nodes: SourceNode) -> Archive:
        return cls({item.sop_instance_uid: item for item in nodes})

    def lookup(self, wanted: str) -> SourceNode | None:
        self.lookups.append(wanted)
        if wanted in self.unreadable:
            raise DicomError("damaged")
        return self.nodes.get(wanted)

    def mac_of(self, wanted: str, stated: StatedMac) -> bytes | None:
        self.hashed.append(wanted)
        return DIGEST if stated.algorithm == "SHA256" else None

    def graph(self, root: int = 1, limits: GraphLimits = DEFAULT_GRAPH_LIMITS) -> ProvenanceGraph:
        return provenance_graph(uid(root), self.lookup, self.mac_of, limits)


def verdicts(graph: ProvenanceGraph) -> dict[str, str]:
    """The verdict of each node, by the number in its UID."""
    return {item.sop_instance_uid.removeprefix("2.25."): item.verdict.value for item in graph.nodes}
