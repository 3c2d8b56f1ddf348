"""The instances that a verified one may have been made from, looked up among files."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from agent.cli.options import instance_bytes
from agent.dicom.elements import SOP_INSTANCE_UID
from agent.dicom.headers import DEFAULT_LIMITS
from agent.dicom.provenance.graph import ProvenanceGraph, SourceNode, provenance_graph, source_node
from agent.dicom.provenance.sources import StatedMac, mac_of
from agent.dicom.stored_instance import StoredInstance
from agent.dicom.verify import Verifier
from enroll.errors import ScansealError


class SourceFiles:
    """Files by SOP Instance UID; of several with the same one, the first.

    Args:
        files: Where to look.
        verifier: By what they are judged.
    """

    def __init__(self, files: Sequence[Path], verifier: Verifier) -> None:
        self._verifier = verifier
        self._files: dict[str, Path] = {}
        for file in files:
            with suppress(ScansealError):
                self.add(file)

    def add(self, file: Path) -> str:
        """Look among this file as well; it is preferred to others with the same UID.

        Returns:
            Its SOP Instance UID.

        Raises:
            ScansealError: It cannot be read.
        """
        with instance_bytes(file) as data:
            uid = StoredInstance.read(data, DEFAULT_LIMITS).data_set.text(SOP_INSTANCE_UID)
        self._files.setdefault(uid, file)
        return uid

    def graph(self, file: Path, uid: str) -> ProvenanceGraph:
        """From what the instance in a file was made.

        Args:
            file: The file.
            uid: The SOP Instance UID of the instance in it.
        """

        def path(wanted: str) -> Path | None:
            return file if wanted == uid else self._files.get(wanted)

        def lookup(wanted: str) -> SourceNode | None:
            found = path(wanted)
            if found is None:
                return None
            with instance_bytes(found) as data:
                instance = StoredInstance.read(data, DEFAULT_LIMITS)
                return source_node(self._verifier.report_on(instance), instance.data_set)

        def stated_mac(source: str, stated: StatedMac) -> bytes | None:
            found = path(source)
            if found is None:
                return None
            with instance_bytes(found) as data:
                instance = StoredInstance.read(data, DEFAULT_LIMITS)
                return mac_of(instance.data_set, instance.meta.syntax.uid, stated)

        return provenance_graph(uid, lookup, stated_mac)
