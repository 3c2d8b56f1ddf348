"""Data sets of the product, from nodes that a test writes."""

from __future__ import annotations

from agent.dicom.data_set import DataSet
from agent.dicom.headers import DEFAULT_LIMITS
from agent.dicom.stored_instance import StoredInstance
from tests.support.dicom_tree import EXPLICIT_LITTLE_ENDIAN
from tests.support.raw_dicom import Node, instance, part10, text


def data_set(*nodes: Node, transfer_syntax: str = EXPLICIT_LITTLE_ENDIAN) -> DataSet:
    """An instance with the four UIDs of C.2, these elements, and no others."""
    given = {node.tag for node in nodes}
    complete = (*nodes, *(node for node in instance() if node.tag not in given))
    data = part10(tuple(sorted(complete, key=lambda node: node.tag)), transfer_syntax)
    return StoredInstance.read(data, DEFAULT_LIMITS).data_set


def code(sequence: int, value: str, scheme: str = "DCM", meaning: str = "as the code says") -> Node:
    """A code sequence of one item (PS3.3 8.8)."""
    content = (text(0x00080100, "SH", value), text(0x00080102, "SH", scheme), text(0x00080104, "LO", meaning))
    return Node(sequence, "SQ", items=(content,))
