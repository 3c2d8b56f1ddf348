"""The instances that an instance was made from, and those that these were made from: a graph with a verdict per node.

    2.25.1 verified: derived, by serialNumber=WS-7
    ├── 2.25.2 verified: original, by serialNumber=CT-1
    └── 2.25.3 missing
    unverified source: 2.25.3 is missing (1 in doubt)

The sources are verified where every instance is signed by somebody who is known, states by what that signature covers
what it was made from, and is found as it was stated. A signed original ends a branch; so does a signed synthetic
instance that says so and names no source. Anything less anywhere makes the whole "unverified source".

References are followed without recursion, each instance is looked up once, and no more is kept of it than what the
verdict needs, so that chains of any length, rings and thousands of sources cost what they hold and no more.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter

from agent.dicom.claims import claims_of, content_of
from agent.dicom.data_set import DataSet
from agent.dicom.elements import ALL_PIXEL_DATA
from agent.dicom.provenance.sources import StatedMac, StatedSignature, StatedSource, StatedSources, stated_sources
from agent.dicom.report import Claim, ContentClass, Finding, InstanceReport, Outcome
from agent.dicom.stored_instance import signature_items
from agent.dicom.stored_signatures import DigitalSignature
from agent.errors import DicomError
from enroll.errors import ScansealError

_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+", re.ASCII)
_UID_LIMIT = 64  # characters (PS3.5 9.1)
_ORIGINS = frozenset((ContentClass.ORIGINAL, ContentClass.DERIVED, ContentClass.SYNTHETIC))
_MOST_MACS = 16  # different ones of one source; each costs a hash of it


class NodeVerdict(StrEnum):
    """What is known of an instance in the graph; the first that applies."""

    MISSING = "missing"
    INDETERMINATE = "indeterminate"  # it, or its signature, cannot be judged
    MAC_MISMATCH = "mac-mismatch"  # it is not what it was referenced as
    CYCLE = "cycle"  # it was made from itself, by what these instances state
    BROKEN = "broken"
    UNSIGNED = "unsigned"
    UNKNOWN_SIGNER = "unknown-signer"
    ORIGIN_NOT_COVERED = "origin-not-covered"  # original, derived or synthetic, or the pixels: anybody can write that
    NO_SOURCES = "no-sources"  # derived, and does not say from what
    NOT_FOLLOWED = "not-followed"  # its sources are beyond a limit
    VERIFIED = "verified"


class LinkCheck(StrEnum):
    """Whether a source is what a reference states of it; the first that applies."""

    DIFFERS = "differs"
    NOT_CHECKABLE = "not-checkable"
    FITS = "fits"
    NOT_STATED = "not-stated"


@dataclass(frozen=True)
class GraphLimits:
    """How far sources are followed.

    Args:
        depth: Steps from the root.
        instances: Different ones, the root included.
        references: From all of them together.
        stated: Bytes that these state of what they refer to (`StatedSources.size`).
    """

    depth: int = 1_000
    instances: int = 10_000
    references: int = 100_000
    stated: int = 64 << 20


DEFAULT_GRAPH_LIMITS = GraphLimits()


@dataclass(frozen=True)
class SourceNode:
    """An instance as a lookup finds it.

    Args:
        sop_instance_uid: Its UID.
        sop_class_uid: Its class.
        standing: What its signatures come to: VERIFIED, ORIGIN_NOT_COVERED, UNKNOWN_SIGNER, UNSIGNED, BROKEN or
            INDETERMINATE.
        signer: Who signed it, where that is known.
        claims: What it says of itself; covered means by a signature of a known signer.
        stated: What it says it was made from; covered means the same.
        signatures: The values of its signatures, with their padding, by UID.
    """

    sop_instance_uid: str
    sop_class_uid: str = ""
    standing: NodeVerdict = NodeVerdict.UNSIGNED
    signer: str = ""
    claims: tuple[Claim, ...] = ()
    stated: StatedSources = field(default_factory=StatedSources)
    signatures: Mapping[str, bytes] = field(default_factory=dict, repr=False)


Lookup = Callable[[str], SourceNode | None]
MacOf = Callable[[str, StatedMac], bytes | None]
# What the signatures in a report come to, whatever the sources of the instance are: an entry of `SourceNode.standing`.
StandingOf = Callable[[InstanceReport], NodeVerdict]


@dataclass(frozen=True)
class ProvenanceNode:
    """An instance in the graph.

    Args:
        sop_instance_uid: Its UID, as it was referenced.
        sop_class_uid: Its class, where it was found.
        verdict: What is known of it.
        signer: Who signed it, where that is known.
        content: What it says it is.
    """

    sop_instance_uid: str
    verdict: NodeVerdict
    sop_class_uid: str = ""
    signer: str = ""
    content: frozenset[ContentClass] = frozenset()


@dataclass(frozen=True)
class ProvenanceEdge:
    """That one instance says it was made from another.

    Args:
        derived: The UID of the one.
        source: The UID of the other.
        attribute: Where it says so.
        covered: Whether a signature of a known signer covers that.
        check: Whether the source is what was stated of it.
    """

    derived: str
    source: str
    attribute: int
    covered: bool
    check: LinkCheck


@dataclass(frozen=True, kw_only=True)
class ProvenanceGraph:
    """What an instance was made from.

    Args:
        root: The UID of the instance.
        nodes: By their distance from the root, the root first.
        edges: By the distance of the derived instance.
        findings: What concerns the whole.
    """

    root: str
    nodes: tuple[ProvenanceNode, ...]
    edges: tuple[ProvenanceEdge, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def sources_verified(self) -> bool | None:
        """Whether the root and everything that it was made from is verified; None where it was made from nothing.

        Nothing is in doubt then, but there is no source either that could have been verified.
        """
        holds = (LinkCheck.FITS, LinkCheck.NOT_STATED)
        verified = all(node.verdict is NodeVerdict.VERIFIED for node in self.nodes) and all(
            edge.covered and edge.check in holds for edge in self.edges
        )
        return None if verified and not self.edges else verified


def source_node(report: InstanceReport, data_set: DataSet, standing_of: StandingOf) -> SourceNode:
    """What the graph needs to know of an instance that was verified.

    Args:
        report: The verification.
        data_set: Its data set.
        standing_of: What signatures come to.
    """
    speaking = [
        signature
        for signature in report.signatures
        if standing_of(replace(report, signatures=(signature,))) is NodeVerdict.VERIFIED
    ]
    covered = frozenset(tag for signature in speaking for tag in signature.coverage.covered)
    standing = standing_of(report)
    if standing is NodeVerdict.VERIFIED and any(tag in data_set and tag not in covered for tag in ALL_PIXEL_DATA):
        standing = NodeVerdict.ORIGIN_NOT_COVERED
    return SourceNode(
        sop_instance_uid=report.sop_instance_uid,
        sop_class_uid=report.sop_class_uid,
        standing=standing,
        signer=next((signature.signer for signature in (*speaking, *report.signatures)), ""),
        claims=claims_of(data_set, covered),
        stated=stated_sources(data_set, covered),
        signatures=dict(_signature_values(data_set)),
    )


def _signature_values(data_set: DataSet) -> Iterator[tuple[str, bytes]]:
    for item in signature_items(data_set.survey.outline.signatures):
        with suppress(DicomError):  # what is no signature cannot have been referenced as one
            signature = DigitalSignature.read(item, data_set.encoding)
            yield signature.uid, signature.signature


def provenance_graph(
    root_uid: str, lookup: Lookup, mac_of: MacOf, limits: GraphLimits = DEFAULT_GRAPH_LIMITS
) -> ProvenanceGraph:
    """Follow the sources of an instance.

    Args:
        root_uid: SOP Instance UID of the instance.
        lookup: Finds an instance by its UID; None where there is none. Asked once for each, and only for well-formed
            UIDs. May raise ScansealError for one that cannot be read.
        mac_of: Calculates of an instance what a stated MAC has to be (`provenance.mac_of`); None where that cannot be
            done. May raise ScansealError.
        limits: How far sources are followed.
    """
    found, references = _followed(root_uid, lookup, limits)
    edges = tuple(_checked(found, references, mac_of))
    for edge in edges:
        if edge.check is LinkCheck.DIFFERS:
            found[edge.source].verdicts.add(NodeVerdict.MAC_MISMATCH)
    for uid in _rings(edges):
        found[uid].verdicts.add(NodeVerdict.CYCLE)
    nodes = tuple(instance.as_node(uid) for uid, instance in found.items())
    return ProvenanceGraph(root=root_uid, nodes=nodes, edges=edges, findings=tuple(_undeclared(nodes, edges)))


@dataclass
class _Instance:
    """What is kept of an instance while the graph grows."""

    verdicts: set[NodeVerdict]
    sop_class_uid: str = ""
    signer: str = ""
    content: frozenset[ContentClass] = frozenset()
    signatures: Mapping[str, bytes] = field(default_factory=dict)
    present: bool = True

    def as_node(self, uid: str) -> ProvenanceNode:
        verdict = next(verdict for verdict in NodeVerdict if verdict in self.verdicts)
        return ProvenanceNode(uid, verdict, self.sop_class_uid, self.signer, self.content)


_References = list[tuple[str, StatedSource]]  # the UID of the derived instance, and a source of it


def _followed(root_uid: str, lookup: Lookup, limits: GraphLimits) -> tuple[dict[str, _Instance], _References]:
    """Every instance that is reached, the nearest first, and the references between them."""
    found: dict[str, _Instance] = {}
    references: _References = []
    depths = {root_uid: 0}
    unread = deque([root_uid])
    size = 0
    while unread:
        uid = unread.popleft()
        found[uid], stated = _found(uid, lookup)
        size += stated.size
        beyond = depths[uid] == limits.depth or len(references) + len(stated.sources) > limits.references
        sources = () if beyond or size > limits.stated else stated.sources
        if stated.findings or len(sources) < len(stated.sources):
            found[uid].verdicts.add(NodeVerdict.NOT_FOLLOWED)
        for source in sources:
            source_uid = source.reference.sop_instance_uid
            if source_uid not in depths and len(depths) == limits.instances:
                found[uid].verdicts.add(NodeVerdict.NOT_FOLLOWED)
                continue
            references.append((uid, source))
            if source_uid not in depths:
                depths[source_uid] = depths[uid] + 1
                unread.append(source_uid)
    return found, references


def _found(uid: str, lookup: Lookup) -> tuple[_Instance, StatedSources]:
    try:
        # Nothing but a UID leaves this place: whoever looks it up may make a path or a query of it.
        node = lookup(uid) if len(uid) <= _UID_LIMIT and _UID.fullmatch(uid) else None
    except ScansealError:
        return _Instance({NodeVerdict.INDETERMINATE}, present=False), StatedSources()
    if node is None or node.sop_instance_uid != uid:
        return _Instance({NodeVerdict.MISSING}, present=False), StatedSources()
    content = content_of(node.claims)
    instance = _Instance({NodeVerdict.VERIFIED, node.standing}, node.sop_class_uid, node.signer, content)
    instance.signatures = node.signatures
    proven = content_of(claim for claim in node.claims if claim.covered)
    if proven & _ORIGINS != content & _ORIGINS:
        instance.verdicts.add(NodeVerdict.ORIGIN_NOT_COVERED)
    if ContentClass.DERIVED in content and not node.stated.sources:
        instance.verdicts.add(NodeVerdict.NO_SOURCES)
    return instance, node.stated


def _checked(found: Mapping[str, _Instance], references: _References, mac_of: MacOf) -> Iterator[ProvenanceEdge]:
    """Compare each source with what is stated of it; what several state alike is calculated once."""
    known: dict[str, dict[StatedMac, LinkCheck]] = {}
    for derived, stated in references:
        uid = stated.reference.sop_instance_uid
        checks: set[LinkCheck] = set()
        if found[uid].present:
            macs = known.setdefault(uid, {})
            for mac in stated.macs:
                if mac not in macs and len(macs) < _MOST_MACS:
                    macs[mac] = _mac_check(uid, mac, mac_of)
                checks.add(macs.get(mac, LinkCheck.NOT_CHECKABLE))
            checks.update(_signature_check(found[uid], signature) for signature in stated.signatures)
        check = next((check for check in LinkCheck if check in checks), LinkCheck.NOT_STATED)
        yield ProvenanceEdge(derived, uid, stated.reference.attribute, stated.reference.covered, check)


def _signature_check(source: _Instance, stated: StatedSignature) -> LinkCheck:
    same = source.signatures.get(stated.uid) == stated.value
    return LinkCheck.FITS if same else LinkCheck.DIFFERS


def _mac_check(uid: str, stated: StatedMac, mac_of: MacOf) -> LinkCheck:
    try:
        value = mac_of(uid, stated)
    except ScansealError:
        value = None
    if value is None:
        return LinkCheck.NOT_CHECKABLE
    return LinkCheck.FITS if value == stated.value else LinkCheck.DIFFERS


def _rings(edges: tuple[ProvenanceEdge, ...]) -> frozenset[str]:
    """The instances on rings, or between two: their sources never end, and neither does what is made from them."""
    sources: dict[str, set[str]] = {}
    derived: dict[str, set[str]] = {}
    for edge in edges:
        sources.setdefault(edge.derived, set()).add(edge.source)
        derived.setdefault(edge.source, set()).add(edge.derived)
    return _never_ready(sources) & _never_ready(derived)


def _never_ready(needs: Mapping[str, set[str]]) -> frozenset[str]:
    sorter = TopologicalSorter(needs)
    try:
        sorter.prepare()
    except CycleError:
        waiting = set(needs).union(*needs.values())
        while ready := sorter.get_ready():
            waiting.difference_update(ready)
            sorter.done(*ready)
        return frozenset(waiting)
    return frozenset()


def _undeclared(nodes: tuple[ProvenanceNode, ...], edges: tuple[ProvenanceEdge, ...]) -> Iterator[Finding]:
    """PS3.3 C.12.1: what is derived from synthetic data is expected to say that it is synthetic."""
    synthetic = {node.sop_instance_uid for node in nodes if ContentClass.SYNTHETIC in node.content}
    hidden = dict.fromkeys(e.derived for e in edges if e.source in synthetic and e.derived not in synthetic)
    if hidden:
        what = f"{next(iter(hidden))} is made from synthetic data and does not say so ({len(hidden)} such instances)."
        yield Finding("synthetic-source-undeclared", what, Outcome.FLAGGED)
