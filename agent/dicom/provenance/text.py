"""A provenance graph as a tree for people, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent.dicom.elements import tag_name
from agent.dicom.provenance.graph import LinkCheck, NodeVerdict, ProvenanceEdge, ProvenanceGraph, ProvenanceNode
from enroll.foreign import printable

_MOST_LINES = 1_000
_DEEPEST_INDENT = 20  # steps; what is deeper is numbered instead
_SAID = {
    LinkCheck.DIFFERS: "not what was referenced",
    LinkCheck.NOT_CHECKABLE: "cannot be compared with what was referenced",
    LinkCheck.FITS: "as it was referenced",
}


@dataclass(frozen=True)
class _Branch:
    """A node still to be printed: the edge that leads to it, how deep it is, and the lines beside and below it."""

    node: ProvenanceNode
    edge: ProvenanceEdge | None
    depth: int
    beside: str
    below: str


def provenance_text(graph: ProvenanceGraph, most_lines: int = _MOST_LINES) -> str:
    """The graph as a tree; what was printed before is not printed with its sources again.

    Args:
        graph: The graph.
        most_lines: How many instances are printed.
    """
    lines = []
    for number, line in enumerate(_lines(graph)):
        if number == most_lines:
            lines.append("...")
            break
        lines.append(line)
    lines.append(_whole(graph))
    lines += [f"note: {finding.what}" for finding in graph.findings]
    return "\n".join(lines)


def provenance_json(graph: ProvenanceGraph) -> dict[str, object]:
    """The graph as JSON values."""
    return {
        "root": graph.root,
        "sources_verified": graph.sources_verified is True,
        "nodes": [
            {
                "sop_instance_uid": node.sop_instance_uid,
                "sop_class_uid": node.sop_class_uid,
                "verdict": node.verdict.value,
                "signer": node.signer,
                "content": sorted(content.value for content in node.content),
            }
            for node in graph.nodes
        ],
        "edges": [
            {
                "derived": edge.derived,
                "source": edge.source,
                "attribute": tag_name(edge.attribute),
                "covered": edge.covered,
                "check": edge.check.value,
            }
            for edge in graph.edges
        ],
        "findings": [
            {"code": finding.code, "what": finding.what, "outcome": finding.outcome.value} for finding in graph.findings
        ],
    }


def _lines(graph: ProvenanceGraph) -> Iterator[str]:
    nodes = {node.sop_instance_uid: node for node in graph.nodes}
    sources: dict[str, list[ProvenanceEdge]] = {}
    for edge in graph.edges:
        sources.setdefault(edge.derived, []).append(edge)
    printed: set[str] = set()
    unprinted = [_Branch(nodes[graph.root], None, 0, "", "")]
    while unprinted:
        branch = unprinted.pop()
        uid = branch.node.sop_instance_uid
        again = uid in printed
        yield branch.beside + _described(branch, again=again and uid in sources)
        printed.add(uid)
        if not again:
            edges = sources.get(uid, [])
            below = [_branch(nodes[edge.source], edge, branch, last=edge is edges[-1]) for edge in edges]
            unprinted += reversed(below)


def _branch(node: ProvenanceNode, edge: ProvenanceEdge, above: _Branch, *, last: bool) -> _Branch:
    depth = above.depth + 1
    if depth > _DEEPEST_INDENT:
        return _Branch(node, edge, depth, f"{above.below}(step {depth}) ", above.below)
    corner, line = ("└── ", "    ") if last else ("├── ", "│   ")
    return _Branch(node, edge, depth, above.below + corner, above.below + line)


def _described(branch: _Branch, *, again: bool) -> str:
    node, edge = branch.node, branch.edge
    details = [content.value.lower() for content in sorted(node.content)]
    if node.signer:
        details.append(f"by {node.signer}")
    if edge is not None and edge.check in _SAID:
        details.append(_SAID[edge.check])
    if edge is not None and not edge.covered:
        details.append("named where no signature covers it")
    if again:
        details.append("see above")
    # What is no UID was never looked up, but it is shown.
    head = f"{printable(node.sop_instance_uid) or '(no UID)'} {node.verdict.value}"
    return f"{head}: {', '.join(details)}" if details else head


def _whole(graph: ProvenanceGraph) -> str:
    if graph.sources_verified is None:
        return "it names no sources"
    if graph.sources_verified:
        return f"sources verified ({len(graph.nodes)} instances)"
    doubtful = [node for node in graph.nodes if node.verdict is not NodeVerdict.VERIFIED]
    if doubtful:
        first = doubtful[0]
        return f"unverified source: {first.sop_instance_uid} is {first.verdict.value} ({len(doubtful)} in doubt)"
    return "unverified source: a reference is not covered by a signature, or cannot be compared with its source"
