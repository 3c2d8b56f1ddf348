"""The instances that a verified one may have been made from, looked up among files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.cli.options import any_mapped, instance_bytes
from agent.cli.processes import in_processes
from agent.dicom.elements import SOP_INSTANCE_UID
from agent.dicom.headers import DEFAULT_LIMITS
from agent.dicom.provenance.graph import (
    NodeVerdict,
    ProvenanceGraph,
    SourceNode,
    StandingOf,
    provenance_graph,
    source_node,
)
from agent.dicom.provenance.sources import StatedMac, mac_of
from agent.dicom.stored_instance import StoredInstance
from agent.dicom.verify import Verifier
from agent.policy.judgement import Judgement
from agent.policy.verdicts import Verdict
from enroll.errors import ScansealError

NODES_KEPT = 1_000  # the images of a derived series were all made from the same ones
# What says more of its own sources than this is looked at again each time.
MOST_SOURCES_KEPT = 100  # of one node
MOST_STATED_KEPT = 1 << 16  # bytes, of one node

# What a judgement makes of an instance in the graph. VERIFIED is whatever a known signer answers for, at a time that
# holds; whether what matters of it is covered, the graph sees for itself.
_STANDINGS = {
    Verdict.BROKEN: NodeVerdict.BROKEN,
    Verdict.KEY_COMPROMISED: NodeVerdict.UNKNOWN_SIGNER,
    Verdict.REVOKED: NodeVerdict.UNKNOWN_SIGNER,
    Verdict.ALGORITHM_FORBIDDEN: NodeVerdict.UNKNOWN_SIGNER,
    Verdict.ANTIQUE_UNPROVEN: NodeVerdict.UNKNOWN_SIGNER,
    Verdict.UNSIGNED_VIOLATION: NodeVerdict.UNSIGNED,
    Verdict.VALID_WRONG_SIGNER: NodeVerdict.UNKNOWN_SIGNER,
    Verdict.VALID_UNKNOWN_SIGNER: NodeVerdict.UNKNOWN_SIGNER,
    Verdict.INDETERMINATE: NodeVerdict.INDETERMINATE,
    Verdict.VALID_NO_TRUSTED_TIME: NodeVerdict.INDETERMINATE,
    Verdict.VALID_PARTIAL_COVERAGE: NodeVerdict.VERIFIED,
    Verdict.VALID_VENDOR_ONLY: NodeVerdict.VERIFIED,
    Verdict.VALID_UNLISTED_DEVICE: NodeVerdict.VERIFIED,
    Verdict.ANTIQUE_PROVEN: NodeVerdict.VERIFIED,
    Verdict.UNSIGNED_IN_GRACE: NodeVerdict.UNSIGNED,
    Verdict.UNSIGNED_NOT_YET_EXPECTED: NodeVerdict.UNSIGNED,
    Verdict.UNSIGNED_EXEMPT: NodeVerdict.UNSIGNED,
    Verdict.UNSIGNED_NOT_COVERED: NodeVerdict.UNSIGNED,
    Verdict.UNSIGNED: NodeVerdict.UNSIGNED,
    Verdict.DERIVED_VERIFIED_SOURCES: NodeVerdict.VERIFIED,
    Verdict.VALID_EXPECTED_SIGNER: NodeVerdict.VERIFIED,
    Verdict.VALID: NodeVerdict.VERIFIED,
}


def standing(judgement: Judgement) -> NodeVerdict:
    """What the signatures of an instance come to.

    Args:
        judgement: Of the instance, on the supposition that its sources are verified: they are nodes of the same graph,
            and what is wrong with them is found there.
    """
    return next(
        (_STANDINGS[verdict] for verdict in (judgement.verdict, *judgement.beside) if verdict in _STANDINGS),
        NodeVerdict.INDETERMINATE,
    )


class SourceFiles:
    """Files by SOP Instance UID; of several with the same one, the first.

    Args:
        files: Where to look. What is no instance is passed over.
        verifier: What is found of them.
        standing_of: What that comes to.
    """

    def __init__(self, files: Sequence[Path], verifier: Verifier, standing_of: StandingOf) -> None:
        self._verifier = verifier
        self._standing_of = standing_of
        self._nodes: dict[Path, SourceNode] = {}
        self._files: dict[str, Path] = {}
        for file, uid in zip(files, _uids(files), strict=True):
            self._files.setdefault(uid, file)

    def graph(self, file: Path, uid: str) -> ProvenanceGraph:
        """From what the instance in a file was made.

        Args:
            file: The file; it is preferred to others with the same UID.
            uid: The SOP Instance UID of the instance in it.
        """

        def path(wanted: str) -> Path | None:
            return file if wanted == uid else self._files.get(wanted)

        def lookup(wanted: str) -> SourceNode | None:
            found = path(wanted)
            return None if found is None else self._node(found)

        def stated_mac(source: str, stated: StatedMac) -> bytes | None:
            found = path(source)
            if found is None:
                return None
            with instance_bytes(found) as data:
                instance = StoredInstance.read(data, DEFAULT_LIMITS)
                return mac_of(instance.data_set, instance.meta.syntax.uid, stated)

        return provenance_graph(uid, lookup, stated_mac)

    def _node(self, file: Path) -> SourceNode:
        if (kept := self._nodes.get(file)) is not None:
            return kept
        node = self._read_node(file)
        if len(node.stated.sources) <= MOST_SOURCES_KEPT and node.stated.size <= MOST_STATED_KEPT:
            if len(self._nodes) == NODES_KEPT:
                del self._nodes[next(iter(self._nodes))]  # the oldest
            self._nodes[file] = node
        return node

    def _read_node(self, file: Path) -> SourceNode:
        with instance_bytes(file) as data:
            instance = StoredInstance.read(data, DEFAULT_LIMITS)
            return source_node(self._verifier.report_on(instance), instance.data_set, self._standing_of)


def _uids(files: Sequence[Path]) -> Iterator[str]:
    """The SOP Instance UID of each; empty for what is no instance."""
    return in_processes(_uid, files, 1, lambda _: "") if any_mapped(files) else map(_uid, files)


def _uid(file: Path) -> str:
    try:
        with instance_bytes(file) as data:
            return StoredInstance.read(data, DEFAULT_LIMITS).data_set.text(SOP_INSTANCE_UID)
    except ScansealError:
        return ""
